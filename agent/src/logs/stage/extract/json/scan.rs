//! JSON (RFC 8259) read in one pass without a tree: the values at some paths, by their place in the text.
//!
//! The whole text is checked, so that half of a document is none. Depth is bounded; of a key that comes
//! twice the last value counts, as most parsers have it.

use std::fmt;

use super::super::escape::Unescaped;
use super::super::take::{Form, Found, MAX_TAKES};

/// The deepest nesting that is read.
pub const MAX_DEPTH: usize = 64;

/// The way to a value: `ctx.host`, `items[0].id`, `"a.b".c` or `["a b"]`.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Path {
    steps: Vec<Step>,
}

#[derive(Clone, Debug, PartialEq, Eq)]
enum Step {
    Key(String),
    Index(usize),
}

/// What is wrong with a path.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct PathError(&'static str);

impl fmt::Display for PathError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.0)
    }
}

impl std::error::Error for PathError {}

impl Path {
    /// The path to a key of the outermost object.
    pub(in super::super) fn key(key: &str) -> Path {
        Path { steps: vec![Step::Key(key.to_owned())] }
    }

    /// Reads a path.
    ///
    /// # Errors
    /// What is wrong with it.
    pub fn parse(text: &str) -> Result<Path, PathError> {
        let mut steps = Vec::new();
        let mut rest = text;
        loop {
            let step;
            (step, rest) = if let Some(inside) = rest.strip_prefix('[') {
                let (step, behind) = bracketed(inside)?;
                (step, behind.strip_prefix(']').ok_or(PathError("the closing ']' is missing"))?)
            } else if rest.starts_with('"') {
                quoted(rest)?
            } else {
                let end = rest.find(['.', '[', '"', ']']).unwrap_or(rest.len());
                let (key, behind) = rest.split_at_checked(end).unwrap_or((rest, ""));
                if key.is_empty() {
                    return Err(PathError("a key is missing"));
                }
                (Step::Key(key.to_owned()), behind)
            };
            if steps.len() == MAX_DEPTH {
                return Err(PathError("more than 64 steps"));
            }
            steps.push(step);
            if rest.is_empty() {
                return Ok(Path { steps });
            }
            if let Some(behind) = rest.strip_prefix('.') {
                rest = behind;
            } else if !rest.starts_with('[') {
                return Err(PathError("'.' or '[' is missing between two steps"));
            }
        }
    }
}

fn bracketed(inside: &str) -> Result<(Step, &str), PathError> {
    if inside.starts_with('"') {
        return quoted(inside);
    }
    let end = inside.find(|c: char| !c.is_ascii_digit()).unwrap_or(inside.len());
    let (digits, behind) = inside.split_at_checked(end).unwrap_or((inside, ""));
    let index = digits
        .parse()
        .map_err(|_| PathError("between [ and ] stands a number or a key in quotes"))?;
    Ok((Step::Index(index), behind))
}

fn quoted(text: &str) -> Result<(Step, &str), PathError> {
    let mut scanner = Scanner { text, at: 0, paths: &[], found: &mut [] };
    let found = scanner.string().map_err(|_| PathError("the closing '\"' is missing"))?;
    let mut key = String::new();
    found.append(text, &mut key);
    Ok((Step::Key(key), scanner.text.get(scanner.at..).unwrap_or_default()))
}

/// Why a text is not read.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Malformed {
    /// It is neither an object nor an array.
    Start,
    /// It is no JSON from this byte on.
    Syntax(usize),
    /// It is nested deeper than [`MAX_DEPTH`].
    Depth,
}

/// Finds the values at the paths, the first [`MAX_TAKES`] of them: a string's contents, everything else
/// as it is written. `found` has a slot for each path; what is in it means nothing where the text is
/// malformed.
///
/// # Errors
/// The text as a whole is no JSON object and no array.
pub fn scan(text: &str, paths: &[Path], found: &mut [Option<Found>]) -> Result<(), Malformed> {
    let mut scanner = Scanner { text, at: 0, paths, found };
    scanner.space();
    if !matches!(scanner.peek(), Some(b'{' | b'[')) {
        return Err(Malformed::Start);
    }
    let all = (1u64 << paths.len().min(MAX_TAKES - 1)) - 1;
    let all = if paths.len() >= MAX_TAKES { u64::MAX } else { all };
    scanner.value(0, all, 0)?;
    scanner.space();
    if scanner.peek().is_some() { Err(scanner.syntax()) } else { Ok(()) }
}

struct Scanner<'a> {
    text: &'a str,
    at: usize,
    paths: &'a [Path],
    found: &'a mut [Option<Found>],
}

impl Scanner<'_> {
    fn peek(&self) -> Option<u8> {
        self.text.as_bytes().get(self.at).copied()
    }

    fn take(&mut self, byte: u8) -> bool {
        let is = self.peek() == Some(byte);
        self.at += usize::from(is);
        is
    }

    fn space(&mut self) {
        while let Some(b' ' | b'\t' | b'\n' | b'\r') = self.peek() {
            self.at += 1;
        }
    }

    fn syntax(&self) -> Malformed {
        Malformed::Syntax(self.at)
    }

    /// Reads a value. `alive` are the paths that lead into it, `here` those that end at it.
    fn value(&mut self, depth: usize, alive: u64, here: u64) -> Result<(), Malformed> {
        let start = self.at;
        let mut found = match self.peek() {
            Some(b'"') => Some(self.string()?),
            Some(b'{') => self.object(depth, alive).map(|()| None)?,
            Some(b'[') => self.array(depth, alive).map(|()| None)?,
            Some(b't') => self.word("true").map(|()| None)?,
            Some(b'f') => self.word("false").map(|()| None)?,
            Some(b'n') => self.word("null").map(|()| None)?,
            Some(b'-' | b'0'..=b'9') => self.number().map(|()| None)?,
            _ => return Err(self.syntax()),
        };
        if here != 0 {
            let found = found.get_or_insert(Found { start, end: self.at, form: Form::Plain });
            for (index, slot) in self.found.iter_mut().take(MAX_TAKES).enumerate() {
                if here & (1 << index) != 0 {
                    *slot = Some(*found);
                }
            }
        }
        Ok(())
    }

    fn object(&mut self, depth: usize, alive: u64) -> Result<(), Malformed> {
        if depth == MAX_DEPTH {
            return Err(Malformed::Depth);
        }
        self.at += 1;
        self.space();
        if self.take(b'}') {
            return Ok(());
        }
        loop {
            self.space();
            if self.peek() != Some(b'"') {
                return Err(self.syntax());
            }
            let key = self.string()?;
            self.space();
            if !self.take(b':') {
                return Err(self.syntax());
            }
            self.space();
            let (inside, here) = if alive == 0 {
                (0, 0)
            } else {
                self.follow(depth, alive, |step, text| match step {
                    Step::Key(want) => is_key(want, &key, text),
                    Step::Index(_) => false,
                })
            };
            self.value(depth + 1, inside, here)?;
            self.space();
            if self.take(b'}') {
                return Ok(());
            }
            if !self.take(b',') {
                return Err(self.syntax());
            }
        }
    }

    fn array(&mut self, depth: usize, alive: u64) -> Result<(), Malformed> {
        if depth == MAX_DEPTH {
            return Err(Malformed::Depth);
        }
        self.at += 1;
        self.space();
        if self.take(b']') {
            return Ok(());
        }
        for index in 0.. {
            self.space();
            let (inside, here) = if alive == 0 {
                (0, 0)
            } else {
                self.follow(depth, alive, |step, _| *step == Step::Index(index))
            };
            self.value(depth + 1, inside, here)?;
            self.space();
            if self.take(b']') {
                return Ok(());
            }
            if !self.take(b',') {
                return Err(self.syntax());
            }
        }
        Ok(())
    }

    /// Of the paths that lead here, those that this step leads further, and those that it ends.
    fn follow(&self, depth: usize, alive: u64, is: impl Fn(&Step, &str) -> bool) -> (u64, u64) {
        let (mut inside, mut here) = (0, 0);
        for (index, path) in self.paths.iter().take(MAX_TAKES).enumerate() {
            let bit = 1 << index;
            let step = path.steps.get(depth).filter(|_| alive & bit != 0);
            if step.is_some_and(|step| is(step, self.text)) {
                if path.steps.len() == depth + 1 { here |= bit } else { inside |= bit }
            }
        }
        (inside, here)
    }

    fn word(&mut self, word: &str) -> Result<(), Malformed> {
        for byte in word.bytes() {
            if !self.take(byte) {
                return Err(self.syntax());
            }
        }
        Ok(())
    }

    fn digits(&mut self) -> Result<(), Malformed> {
        if !self.peek().is_some_and(|b| b.is_ascii_digit()) {
            return Err(self.syntax());
        }
        while self.peek().is_some_and(|b| b.is_ascii_digit()) {
            self.at += 1;
        }
        Ok(())
    }

    fn number(&mut self) -> Result<(), Malformed> {
        self.take(b'-');
        if !self.take(b'0') {
            self.digits()?;
        }
        if self.take(b'.') {
            self.digits()?;
        }
        if self.take(b'e') || self.take(b'E') {
            let _signed = self.take(b'+') || self.take(b'-');
            self.digits()?;
        }
        Ok(())
    }

    /// Reads a string from its opening quote on; its contents.
    fn string(&mut self) -> Result<Found, Malformed> {
        self.at += 1;
        let start = self.at;
        let mut form = Form::Plain;
        loop {
            match self.peek() {
                Some(b'"') => break,
                Some(b'\\') => {
                    form = Form::Json;
                    // The byte behind it is no end of the string, whatever it is.
                    self.at += 2;
                }
                Some(0x20..) => self.at += 1,
                Some(_) | None => return Err(self.syntax()),
            }
        }
        let end = self.at;
        self.at += 1;
        let raw = self.text.get(start..end).unwrap_or_default();
        if form == Form::Json && Unescaped::json(raw).any(|c| c.is_err()) {
            return Err(Malformed::Syntax(start));
        }
        Ok(Found { start, end, form })
    }
}

fn is_key(want: &str, key: &Found, text: &str) -> bool {
    let raw = text.get(key.start..key.end).unwrap_or_default();
    match key.form {
        Form::Plain => raw == want,
        Form::Json | Form::Logfmt => Unescaped::json(raw).eq(want.chars().map(Ok)),
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;
    use serde_json::Value;

    use super::*;

    fn find(text: &str, path: &str) -> Result<Option<String>, Malformed> {
        let mut found = [None];
        scan(text, &[Path::parse(path).unwrap()], &mut found)?;
        Ok(found[0].map(|found| {
            let mut value = String::new();
            found.append(text, &mut value);
            value
        }))
    }

    #[test]
    fn values_are_found_as_they_are_written() {
        let text = r#" {"a": {"b": [1, {"c": "x\ny"}, -1.50e+2]}, "t": true, "n": null, "e": "",
            "a.b": "dot", "\u006bey": "escaped", "twice": 1, "twice": 2, "o": { "x" : [ ] } } "#;
        for (path, value) in [
            ("a.b[0]", Some("1")),
            ("a.b[1].c", Some("x\ny")),
            ("a.b[2]", Some("-1.50e+2")),
            ("a[\"b\"][0]", Some("1")),
            ("t", Some("true")),
            ("n", Some("null")),
            ("e", Some("")),
            ("\"a.b\"", Some("dot")),
            ("[\"a.b\"]", Some("dot")),
            ("key", Some("escaped")),
            ("twice", Some("2")),
            ("o", Some("{ \"x\" : [ ] }")),
            ("a.b[3]", None),
            ("a.b.c", None),
            ("a[0]", None),
            ("t.x", None),
            ("x", None),
        ] {
            assert_eq!(find(text, path).unwrap().as_deref(), value, "{path}");
        }
        assert_eq!(find("[[1,2],[3]]", "[1][0]").unwrap().as_deref(), Some("3"));
    }

    #[test]
    fn what_is_no_json_is_refused_as_a_whole() {
        for text in [
            "",
            " ",
            "x",
            "1",
            "\"a\"",
            "null",
            "{",
            "[",
            "{\"a\"",
            "{\"a\":",
            "{\"a\":1",
            "{\"a\":1,",
            "{\"a\":1,}",
            "[1,]",
            "[,]",
            "{a:1}",
            "{'a':1}",
            "[01]",
            "[1.]",
            "[.5]",
            "[-]",
            "[1e]",
            "[+1]",
            "[tru]",
            "[nul",
            "[\"\\x\"]",
            "[\"\\u12\"]",
            "[\"\\\"]",
            "[\"\\",
            "[\"a\tb\"]",
            "{\"a\":1}x",
            "{\"a\":1}{}",
            "{\"a\" 1}",
            "[1 2]",
            "\u{feff}{}",
            "{]",
            "[}",
            "[\u{a0}]",
        ] {
            assert!(find(text, "a").is_err(), "{text}");
        }
        let nested = |depth: usize| format!("{}{}", "[".repeat(depth), "]".repeat(depth));
        assert_eq!(find(&nested(MAX_DEPTH), "a"), Ok(None));
        assert_eq!(find(&nested(MAX_DEPTH + 1), "a"), Err(Malformed::Depth));
        assert_eq!(find(&"{\"a\":".repeat(100_000), "a"), Err(Malformed::Depth));
    }

    #[test]
    fn paths_that_are_none_are_refused() {
        for bad in [
            "",
            ".",
            "a.",
            ".a",
            "a..b",
            "a[",
            "a[]",
            "a[x]",
            "a[-1]",
            "a[0",
            "a]",
            "a[0]b",
            "\"a",
            "a\"b\"",
            "[\"a\"",
            "a[99999999999999999999999]",
            "[\"\\x\"]",
        ] {
            assert!(Path::parse(bad).is_err(), "{bad}");
        }
        assert!(Path::parse(&"a.".repeat(MAX_DEPTH)).is_err());
    }

    #[test]
    fn as_many_paths_as_a_stage_may_have_are_followed() {
        let paths: Vec<_> =
            (0..MAX_TAKES).map(|n| Path::parse(&format!("k{n}")).unwrap()).collect();
        let mut found = [None; MAX_TAKES];
        let text = format!(
            "{{{}}}",
            (0..MAX_TAKES).map(|n| format!("\"k{n}\":{n}")).collect::<Vec<_>>().join(",")
        );
        scan(&text, &paths, &mut found).unwrap();
        for (n, found) in found.iter().enumerate() {
            let mut value = String::new();
            found.unwrap().append(&text, &mut value);
            assert_eq!(value, n.to_string());
        }
    }

    fn json() -> impl Strategy<Value = Value> {
        let leaf = prop_oneof![
            Just(Value::Null),
            any::<bool>().prop_map(Value::Bool),
            any::<i64>().prop_map(Value::from),
            any::<f64>().prop_map(Value::from),
            any::<String>().prop_map(Value::String),
        ];
        leaf.prop_recursive(4, 24, 4, |inner| {
            prop_oneof![
                proptest::collection::vec(inner.clone(), 0..4).prop_map(Value::Array),
                proptest::collection::vec(("[a-c]", inner), 0..4)
                    .prop_map(|pairs| Value::Object(pairs.into_iter().collect())),
            ]
        })
    }

    proptest! {
        #[test]
        fn serde_json_finds_the_same(value in json(), pretty: bool, steps in proptest::collection::vec(("[a-c]", 0usize..4, any::<bool>()), 1..4)) {
            let text = if pretty { serde_json::to_string_pretty(&value) } else { serde_json::to_string(&value) }.unwrap();
            let (mut path, mut there) = (String::new(), Some(&value));
            for (key, index, is_key) in &steps {
                if *is_key {
                    if !path.is_empty() { path.push('.'); }
                    path.push_str(key);
                    there = there.and_then(|value| value.as_object()?.get(key));
                } else {
                    path.push_str(&format!("[{index}]"));
                    there = there.and_then(|value| value.as_array()?.get(*index));
                }
            }
            if value.is_object() || value.is_array() {
                let expected = there.map(|value| match value {
                    Value::String(text) => text.clone(),
                    other if !pretty => other.to_string(),
                    other => serde_json::from_str::<Value>(&other.to_string()).unwrap().to_string(),
                });
                let got = find(&text, &path).unwrap();
                let is_text = there.is_some_and(Value::is_string);
                let got = got.map(|got| if pretty && !is_text { serde_json::from_str::<Value>(&got).unwrap().to_string() } else { got });
                prop_assert_eq!(got, expected);
            } else {
                prop_assert_eq!(find(&text, &path), Err(Malformed::Start));
            }
        }

        #[test]
        fn serde_json_takes_and_refuses_the_same(text in "[\\[\\]{},:\"\\\\a1.e\\-+ntru0 \t]{0,24}") {
            let serde = serde_json::from_str::<serde::de::IgnoredAny>(&text).is_ok()
                && text.trim_start().starts_with(['{', '[']);
            prop_assert_eq!(find(&text, "a").is_ok(), serde, "{}", text);
        }
    }
}
