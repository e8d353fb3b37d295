//! A TOML document as a tree in which every key and value knows its place, with `${NAME}` expanded in
//! strings and the command line's `--set` merged in.

use std::path::Path;

use toml::Spanned;
use toml::de::{DeTable, DeValue};

use crate::sort;

use super::error::{ConfigError, Place};
use super::expand::{Environment, expand};

/// A value and where it stands.
#[derive(Clone, Debug)]
pub(super) struct Node {
    pub(super) value: Value,
    pub(super) place: Place,
}

/// TOML's values, less dates, which no key takes.
#[derive(Clone, Debug)]
pub(super) enum Value {
    String(String),
    Integer(i64),
    /// None: no number, such as one that is too long.
    Float(Option<f64>),
    Boolean(bool),
    Array(Vec<Node>),
    Table(Table),
}

impl Value {
    pub(super) fn type_name(&self) -> &'static str {
        match self {
            Value::String(_) => "a string",
            Value::Integer(_) => "an integer",
            Value::Float(_) => "a float",
            Value::Boolean(_) => "a boolean",
            Value::Array(_) => "an array",
            Value::Table(_) => "a table",
        }
    }
}

/// A table: keys in the order of the file, each with its own place.
#[derive(Clone, Debug, Default)]
pub(super) struct Table {
    pub(super) entries: Vec<(String, Place, Node)>,
}

impl Table {
    pub(super) fn get(&self, key: &str) -> Option<&Node> {
        self.entries.iter().find(|(have, _, _)| have == key).map(|(_, _, node)| node)
    }

    /// Takes from `below` what is not here, in tables of the same name too.
    pub(super) fn underlay(&mut self, below: Table) {
        for (key, place, node) in below.entries {
            match self.entries.iter_mut().find(|(have, _, _)| *have == key) {
                None => self.entries.push((key, place, node)),
                Some((_, _, Node { value: Value::Table(table), .. })) => {
                    if let Value::Table(below) = node.value {
                        table.underlay(below);
                    }
                }
                Some(_) => {}
            }
        }
    }

    /// Sets a dotted path, creating tables on the way.
    fn set(&mut self, path: &[String], key_place: &Place, node: Node) -> Result<(), ConfigError> {
        let [first, rest @ ..] = path else { return Ok(()) };
        let at = match self.entries.iter().position(|(have, _, _)| have == first) {
            Some(at) => at,
            None => {
                let empty =
                    Node { value: Value::Table(Table::default()), place: key_place.clone() };
                self.entries.push((first.clone(), key_place.clone(), empty));
                self.entries.len() - 1
            }
        };
        let (_, _, slot) = &mut self.entries[at];
        if rest.is_empty() {
            *slot = node;
            return Ok(());
        }
        match &mut slot.value {
            Value::Table(table) => table.set(rest, key_place, node),
            Value::Array(_) => Err(ConfigError::new(
                key_place,
                format!("{first:?} is a list, and --set can't name one of its entries"),
                format!("set the whole list: --set '{first}=[{{ url = \"…\" }}]'"),
            )),
            other => Err(ConfigError::new(
                key_place,
                format!("{first:?} is {}, and has no key {:?}", other.type_name(), rest[0]),
                "",
            )),
        }
    }
}

/// The most bytes of a `--set` argument: each value in it remembers the whole as its place.
const MAX_SET: usize = 4 << 10;

/// The most names of a dotted key; no key of the reference has half as many.
const MAX_KEYS: usize = 8;

struct Source<'a> {
    text: &'a str,
    path: &'a Path,
    /// The whole `KEY=VALUE` if the text is not the file's.
    set: Option<&'a str>,
    environment: &'a dyn Environment,
}

impl Source<'_> {
    fn place(&self, offset: usize) -> Place {
        if let Some(set) = self.set {
            return Place::Set(set.to_owned());
        }
        let before = &self.text[..self.text.floor_char_boundary(offset)];
        let line_start = before.rfind('\n').map_or(0, |newline| newline + 1);
        Place::File {
            path: self.path.to_owned(),
            line: before.matches('\n').count() + 1,
            column: before[line_start..].chars().count() + 1,
        }
    }

    fn table(&self, table: &DeTable<'_>) -> Result<Table, ConfigError> {
        let mut entries = Vec::with_capacity(table.len());
        for (key, value) in table.iter() {
            let place = self.place(key.span().start);
            entries.push((key.get_ref().to_string(), place, self.node(value)?));
        }
        // toml sorts by name; the first error should be the first in the file.
        sort::stable_by_key(&mut entries, |(_, place, _)| match place {
            Place::File { line, column, .. } => (*line, *column),
            _ => (0, 0),
        });
        Ok(Table { entries })
    }

    fn node(&self, value: &Spanned<DeValue<'_>>) -> Result<Node, ConfigError> {
        let place = self.place(value.span().start);
        let error = |problem: String, hint: &str| Err(ConfigError::new(&place, problem, hint));
        let value = match value.get_ref() {
            DeValue::String(text) => match expand(text, self.environment) {
                Ok(text) => Value::String(text),
                Err(problem) => return error(problem.problem, &problem.hint),
            },
            DeValue::Integer(number) => {
                match i64::from_str_radix(number.as_str(), number.radix()) {
                    Ok(number) => Value::Integer(number),
                    Err(_) => {
                        return error(format!("{} is no 64-bit integer", number.as_str()), "");
                    }
                }
            }
            // No key takes one; its type is all that an error needs.
            DeValue::Float(float) => Value::Float(float.as_str().parse().ok()),
            DeValue::Boolean(value) => Value::Boolean(*value),
            DeValue::Datetime(date) => {
                return error(
                    format!("{date} is a date, and no key takes one"),
                    "put it in quotes",
                );
            }
            DeValue::Array(array) => {
                Value::Array(array.iter().map(|item| self.node(item)).collect::<Result<_, _>>()?)
            }
            DeValue::Table(table) => Value::Table(self.table(table)?),
        };
        Ok(Node { value, place })
    }

    fn parse(&self) -> Result<Table, ConfigError> {
        match DeTable::parse(self.text) {
            Ok(table) => self.table(table.get_ref()),
            Err(error) => {
                let place = self.place(error.span().map_or(0, |span| span.start));
                let problem = error.message().trim().replace('\n', ", ");
                Err(ConfigError::new(&place, problem, "the file is TOML: https://toml.io"))
            }
        }
    }
}

/// Parses the file's text and merges the `--set` arguments into it.
pub(super) fn parse(
    text: &str,
    path: &Path,
    sets: &[String],
    environment: &dyn Environment,
) -> Result<Table, ConfigError> {
    let mut table = Source { text, path, set: None, environment }.parse()?;
    for set in sets {
        apply_set(&mut table, set, path, environment)?;
    }
    Ok(table)
}

/// The value of `--set` is TOML; what does not parse as such is taken for a string, so that
/// `--set agent.interval=5s` needs no quotes inside quotes.
fn apply_set(
    table: &mut Table,
    set: &str,
    path: &Path,
    environment: &dyn Environment,
) -> Result<(), ConfigError> {
    if set.len() > MAX_SET {
        return Err(ConfigError::new(
            &Place::Set(set.chars().take(80).collect()),
            format!("it has {} bytes, and {MAX_SET} are the most", set.len()),
            "put it into the configuration file",
        ));
    }
    let place = Place::Set(set.to_owned());
    let Some((key, value)) = set.split_once('=') else {
        return Err(ConfigError::new(
            &place,
            "there is no '='",
            "for example --set agent.interval=5s",
        ));
    };
    let keys: Vec<String> = key.trim().split('.').map(|part| part.trim().to_owned()).collect();
    if keys.iter().any(String::is_empty) || keys.len() > MAX_KEYS {
        return Err(ConfigError::new(
            &place,
            format!("{key:?} is no key"),
            "for example --set agent.interval=5s",
        ));
    }
    let parse = |text: &str| {
        Source { text, path, set: Some(set), environment }
            .parse()
            .map(|table| table.entries.into_iter().next().map(|(_, _, node)| node))
    };
    let as_toml = format!("v = {value}");
    let node = match DeTable::parse(&as_toml) {
        Ok(_) => parse(&as_toml)?,
        Err(_) => parse(&format!("v = {}", quoted(value)))?,
    };
    match node {
        Some(node) => table.set(&keys, &place, node),
        None => Err(ConfigError::new(&place, format!("{value:?} is no value"), "")),
    }
}

/// A TOML basic string.
fn quoted(text: &str) -> String {
    let mut out = String::from("\"");
    for c in text.chars() {
        match c {
            '"' => out.push_str("\\\""),
            '\\' => out.push_str("\\\\"),
            c if c.is_control() => out.push_str(&format!("\\u{:04X}", c as u32)),
            c => out.push(c),
        }
    }
    out.push('"');
    out
}
