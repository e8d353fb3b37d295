//! Typed access to the document. Each call names a key, its default and its documentation, so that the
//! list of known keys, the nearest-neighbour hint and the reference in docs/ come from one place.

use std::cell::RefCell;
use std::time::Duration;

use super::document::{Node, Table, Value};
use super::error::{ConfigError, Place, nearest};
use super::units;
use crate::model::Labels;

/// A line of the configuration reference.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct DocRow {
    /// The table, such as `agent` or `[mimir]` for a list of tables; empty for the top.
    pub(super) table: String,
    /// The key.
    pub(super) key: &'static str,
    /// Its type, as the reference names it.
    pub(super) kind: &'static str,
    /// Its default, as TOML; empty if there is none.
    pub(super) default: String,
    /// What it is for.
    pub(super) text: &'static str,
}

/// A value and its place, for checks that the caller makes.
#[derive(Clone, Debug)]
pub(super) struct At<T> {
    pub(super) value: T,
    pub(super) place: Place,
}

/// A name and its value, each with its place.
pub(super) type Pair = (At<String>, At<String>);

/// Names alone or with values.
#[derive(Clone, Debug)]
pub(super) enum Names {
    List(Vec<At<String>>),
    Pairs(Vec<Pair>),
}

impl<T> At<T> {
    pub(super) fn error(&self, problem: impl Into<String>, hint: impl Into<String>) -> ConfigError {
        ConfigError::new(&self.place, problem, hint)
    }
}

/// One table of the document; absent tables read as empty ones.
pub(super) struct Reader<'a> {
    name: String,
    table: Option<&'a Table>,
    place: Place,
    known: RefCell<Vec<&'static str>>,
    docs: &'a RefCell<Vec<DocRow>>,
}

impl<'a> Reader<'a> {
    /// The document's top.
    pub(super) fn new(
        table: &'a Table,
        place: Place,
        docs: &'a RefCell<Vec<DocRow>>,
    ) -> Reader<'a> {
        Reader { name: String::new(), table: Some(table), place, known: RefCell::default(), docs }
    }

    /// Where the table is.
    pub(super) fn place(&self) -> &Place {
        &self.place
    }

    /// Whether the table stands in the document.
    pub(super) fn is_present(&self) -> bool {
        self.table.is_some()
    }

    fn child_name(&self, key: &str) -> String {
        if self.name.is_empty() { key.to_owned() } else { format!("{}.{key}", self.name) }
    }

    /// A table below this one, which must be finished by the caller.
    pub(super) fn section(&self, key: &'static str) -> Result<Reader<'a>, ConfigError> {
        self.known.borrow_mut().push(key);
        let name = self.child_name(key);
        let (table, place) = match self.table.and_then(|table| table.get(key)) {
            None => (None, self.place.clone()),
            Some(Node { value: Value::Table(table), place }) => (Some(table), place.clone()),
            Some(node) => return Err(self.wrong_type(key, "a table", node)),
        };
        Ok(Reader { name, table, place, known: RefCell::default(), docs: self.docs })
    }

    /// A list of tables, `[[key]]`. An absent list gives one absent table, so that its keys are
    /// documented; the caller skips what is not [present](Reader::is_present).
    pub(super) fn list(&self, key: &'static str) -> Result<Vec<Reader<'a>>, ConfigError> {
        self.known.borrow_mut().push(key);
        // Of a list within a list: `[mimir.relabel]`.
        let name = self.child_name(key).replace(['[', ']'], "");
        let reader = |table, place| Reader {
            name: format!("[{name}]"),
            table,
            place,
            known: RefCell::default(),
            docs: self.docs,
        };
        match self.table.and_then(|table| table.get(key)) {
            None => Ok(vec![reader(None, self.place.clone())]),
            Some(Node { value: Value::Array(items), .. }) => items
                .iter()
                .map(|item| match &item.value {
                    Value::Table(table) => Ok(reader(Some(table), item.place.clone())),
                    _ => Err(self.wrong_type(key, "a list of tables", item)),
                })
                .collect(),
            Some(node) => {
                let mut error = self.wrong_type(key, "a list of tables", node);
                error.hint = format!("write [[{name}]] in double brackets");
                Err(error)
            }
        }
    }

    /// Ends the reading of this table.
    ///
    /// # Errors
    /// A key that nobody has asked for.
    pub(super) fn finish(self) -> Result<(), ConfigError> {
        self.check_known()
    }

    /// As [`finish`](Reader::finish), for a table that is still borrowed.
    pub(super) fn check_known(&self) -> Result<(), ConfigError> {
        let known = self.known.borrow();
        for (key, place, _) in self.table.iter().flat_map(|table| &table.entries) {
            if known.contains(&key.as_str()) {
                continue;
            }
            let name = self.child_name(key);
            let hint = match nearest(key, known.iter().copied()) {
                Some(near) => format!("did you mean {near:?}?"),
                None => format!("known keys here: {}", known.join(", ")),
            };
            return Err(ConfigError::new(place, format!("unknown key {name:?}"), hint));
        }
        Ok(())
    }

    fn wrong_type(&self, key: &str, want: &str, node: &Node) -> ConfigError {
        let name = self.child_name(key);
        let got = node.value.type_name();
        ConfigError::new(&node.place, format!("{name} is {got}, and should be {want}"), "")
    }

    fn node(
        &self,
        key: &'static str,
        kind: &'static str,
        default: String,
        text: &'static str,
    ) -> Option<&'a Node> {
        self.known.borrow_mut().push(key);
        let row = DocRow { table: self.name.clone(), key, kind, default, text };
        let mut docs = self.docs.borrow_mut();
        if !docs.contains(&row) {
            docs.push(row);
        }
        self.table.and_then(|table| table.get(key))
    }

    fn text(&self, key: &'static str, want: &str, node: &Node) -> Result<At<String>, ConfigError> {
        match &node.value {
            Value::String(text) => Ok(At { value: text.clone(), place: node.place.clone() }),
            _ => {
                let mut error = self.wrong_type(key, want, node);
                error.hint = "put it in quotes".into();
                Err(error)
            }
        }
    }

    /// A string.
    pub(super) fn string(
        &self,
        key: &'static str,
        default: &str,
        text: &'static str,
    ) -> Result<Option<At<String>>, ConfigError> {
        let default = if default.is_empty() { String::new() } else { format!("{default:?}") };
        self.node(key, "string", default, text)
            .map(|node| self.text(key, "a string", node))
            .transpose()
    }

    /// A text that is read by the caller, of a kind that the reference names.
    pub(super) fn optional(
        &self,
        key: &'static str,
        kind: &'static str,
        text: &'static str,
    ) -> Result<Option<At<String>>, ConfigError> {
        let node = self.node(key, kind, String::new(), text);
        node.map(|node| self.text(key, "a string", node)).transpose()
    }

    /// A share: a number from 0 to 1.
    pub(super) fn share(
        &self,
        key: &'static str,
        text: &'static str,
    ) -> Result<Option<f64>, ConfigError> {
        let Some(node) = self.node(key, "number", String::new(), text) else { return Ok(None) };
        let number = match node.value {
            Value::Float(Some(number)) => number,
            Value::Integer(number) => number as f64,
            _ => return Err(self.wrong_type(key, "a number", node)),
        };
        if !(0.0..=1.0).contains(&number) {
            let problem = format!("{} is {number}", self.child_name(key));
            return Err(ConfigError::new(&node.place, problem, "from 0 to 1"));
        }
        Ok(Some(number))
    }

    /// One word of several.
    pub(super) fn choice<T: Copy>(
        &self,
        key: &'static str,
        default: &'static str,
        choices: &[(&'static str, T)],
        text: &'static str,
    ) -> Result<T, ConfigError> {
        let node = self.node(key, "string", format!("{default:?}"), text);
        let given = node.map(|node| self.text(key, "a string", node)).transpose()?;
        let given = given.unwrap_or(At { value: default.to_owned(), place: self.place.clone() });
        let word = given.value.as_str();
        let found = choices.iter().find(|(have, _)| *have == word).map(|(_, value)| *value);
        found.ok_or_else(|| {
            let words: Vec<_> = choices.iter().map(|(word, _)| format!("{word:?}")).collect();
            let problem = format!("{} is {word:?}", self.child_name(key));
            given.error(problem, format!("one of {}", words.join(", ")))
        })
    }

    /// A duration such as "250ms", "30s", "5m", "12h".
    pub(super) fn duration(
        &self,
        key: &'static str,
        default: Duration,
        range: std::ops::RangeInclusive<Duration>,
        text: &'static str,
    ) -> Result<Duration, ConfigError> {
        let shown = format!("{:?}", units::show_duration(default));
        let Some(node) = self.node(key, "duration", shown, text) else { return Ok(default) };
        let given = self.text(key, "a duration such as \"30s\"", node)?;
        let value = units::parse_duration(&given.value).map_err(|problem| {
            given.error(format!("{}: {problem}", self.child_name(key)), units::DURATIONS)
        })?;
        if !range.contains(&value) {
            return Err(given.error(
                format!("{} is {}", self.child_name(key), units::show_duration(value)),
                format!(
                    "from {} to {}",
                    units::show_duration(*range.start()),
                    units::show_duration(*range.end())
                ),
            ));
        }
        Ok(value)
    }

    /// A size such as "512KiB" or "64MiB", in bytes.
    pub(super) fn size(
        &self,
        key: &'static str,
        default: u64,
        range: std::ops::RangeInclusive<u64>,
        text: &'static str,
    ) -> Result<u64, ConfigError> {
        let shown = format!("{:?}", units::show_size(default));
        let Some(node) = self.node(key, "size", shown, text) else { return Ok(default) };
        let given = self.text(key, "a size such as \"64MiB\"", node)?;
        let value = units::parse_size(&given.value).map_err(|problem| {
            given.error(format!("{}: {problem}", self.child_name(key)), units::SIZES)
        })?;
        if !range.contains(&value) {
            return Err(given.error(
                format!("{} is {}", self.child_name(key), units::show_size(value)),
                format!(
                    "from {} to {}",
                    units::show_size(*range.start()),
                    units::show_size(*range.end())
                ),
            ));
        }
        Ok(value)
    }

    /// An integer of a range.
    pub(super) fn integer(
        &self,
        key: &'static str,
        default: u32,
        range: std::ops::RangeInclusive<u32>,
        text: &'static str,
    ) -> Result<u32, ConfigError> {
        let Some(node) = self.node(key, "integer", default.to_string(), text) else {
            return Ok(default);
        };
        let Value::Integer(number) = node.value else {
            return Err(self.wrong_type(key, "an integer", node));
        };
        match u32::try_from(number).ok().filter(|number| range.contains(number)) {
            Some(number) => Ok(number),
            None => Err(ConfigError::new(
                &node.place,
                format!("{} is {number}", self.child_name(key)),
                format!("from {} to {}", range.start(), range.end()),
            )),
        }
    }

    /// true or false.
    pub(super) fn boolean(
        &self,
        key: &'static str,
        default: bool,
        text: &'static str,
    ) -> Result<bool, ConfigError> {
        match self.node(key, "boolean", default.to_string(), text) {
            None => Ok(default),
            Some(Node { value: Value::Boolean(value), .. }) => Ok(*value),
            Some(node) => Err(self.wrong_type(key, "true or false", node)),
        }
    }

    /// A list of strings.
    pub(super) fn strings(
        &self,
        key: &'static str,
        text: &'static str,
    ) -> Result<Option<Vec<At<String>>>, ConfigError> {
        match self.node(key, "list of strings", String::new(), text) {
            None => Ok(None),
            Some(Node { value: Value::Array(items), .. }) => items
                .iter()
                .map(|item| self.text(key, "a list of strings", item))
                .collect::<Result<_, _>>()
                .map(Some),
            Some(node) => Err(self.wrong_type(key, "a list of strings", node)),
        }
    }

    /// A string, or a list of them.
    pub(super) fn one_or_more_strings(
        &self,
        key: &'static str,
        text: &'static str,
    ) -> Result<Option<Vec<At<String>>>, ConfigError> {
        const WANT: &str = "a string or a list of strings";
        match self.node(key, "string or list of strings", String::new(), text) {
            None => Ok(None),
            Some(Node { value: Value::Array(items), .. }) => items
                .iter()
                .map(|item| self.text(key, WANT, item))
                .collect::<Result<_, _>>()
                .map(Some),
            Some(node) => Ok(Some(vec![self.text(key, WANT, node)?])),
        }
    }

    /// A table of names and strings, such as labels or HTTP headers.
    pub(super) fn pairs(
        &self,
        key: &'static str,
        text: &'static str,
    ) -> Result<Vec<Pair>, ConfigError> {
        let Some(node) = self.node(key, "table of strings", String::new(), text) else {
            return Ok(Vec::new());
        };
        let Value::Table(table) = &node.value else {
            return Err(self.wrong_type(key, "a table of strings", node));
        };
        let pair = |(name, place, value): &(String, Place, Node)| {
            let name = At { value: name.clone(), place: place.clone() };
            Ok((name, self.text(key, "a table of strings", value)?))
        };
        table.entries.iter().map(pair).collect()
    }

    /// A list of names, or a table of names and strings.
    pub(super) fn names_or_pairs(
        &self,
        key: &'static str,
        text: &'static str,
    ) -> Result<Option<Names>, ConfigError> {
        const WANT: &str = "a list of strings or a table of them";
        let kind = "list or table of strings";
        let Some(node) = self.node(key, kind, String::new(), text) else { return Ok(None) };
        match &node.value {
            Value::Array(items) => {
                let names = items.iter().map(|item| self.text(key, WANT, item));
                names.collect::<Result<_, _>>().map(|names| Some(Names::List(names)))
            }
            Value::Table(table) => {
                let pair = |(name, place, value): &(String, Place, Node)| {
                    let name = At { value: name.clone(), place: place.clone() };
                    Ok((name, self.text(key, WANT, value)?))
                };
                let pairs = table.entries.iter().map(pair);
                pairs.collect::<Result<_, _>>().map(|pairs| Some(Names::Pairs(pairs)))
            }
            _ => Err(self.wrong_type(key, WANT, node)),
        }
    }

    /// A table of labels.
    pub(super) fn labels(
        &self,
        key: &'static str,
        text: &'static str,
    ) -> Result<Labels, ConfigError> {
        let mut labels = Labels::new();
        for (name, value) in self.pairs(key, text)? {
            let hint = "labels are set by name: labels = { site = \"home\" }";
            Labels::from_pairs([(name.value.as_str(), "")])
                .map_err(|problem| name.error(problem.to_string(), hint))?;
            if name.value.starts_with("__") {
                return Err(name.error(
                    format!("the label {:?} is reserved: names with two '_' in front are Prometheus' own", name.value),
                    "",
                ));
            }
            labels.set(&name.value, value.value);
        }
        Ok(labels)
    }
}
