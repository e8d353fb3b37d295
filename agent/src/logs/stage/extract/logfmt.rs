//! logfmt, `level=info msg="hello world" done`, as go-logfmt reads it: bytes up to the space separate
//! pairs, values stand in quotes with JSON's escapes or without, a key may have no value. Where a pair is
//! none, reading goes on behind the next space, as Loki's own parser does, while go-logfmt gives up.

use super::super::{Action, Verdict, Work};
use super::escape::Unescaped;
use super::take::{Destination, Form, Found, Input, Scanned, Taker};

/// What is no pair: a quote or `=` where none may stand, a quoted value with a bad escape or without an
/// end, a key that was no UTF-8.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Malformed;

/// The pairs of a line, in order. A value that is missing or empty is an empty range.
#[derive(Clone, Debug)]
pub struct Pairs<'a> {
    text: &'a str,
    at: usize,
}

/// Reads a line.
pub fn pairs(text: &str) -> Pairs<'_> {
    Pairs { text, at: 0 }
}

impl<'a> Pairs<'a> {
    fn peek(&self) -> Option<u8> {
        self.text.as_bytes().get(self.at).copied()
    }

    /// On to the first byte from here on that is one of the wanted ones, or to the end.
    fn seek(&mut self, wanted: impl Fn(u8) -> bool) -> Option<u8> {
        while let Some(byte) = self.peek() {
            if wanted(byte) {
                return Some(byte);
            }
            self.at += 1;
        }
        None
    }

    fn bad<T>(&mut self) -> Result<T, Malformed> {
        self.seek(|b| b <= b' ');
        Err(Malformed)
    }

    fn pair(&mut self) -> Result<(&'a str, Found), Malformed> {
        let start = self.at;
        let stop = self.seek(|b| b <= b' ' || b == b'=' || b == b'"');
        let key = self.text.get(start..self.at).unwrap_or_default();
        if stop == Some(b'"') || key.is_empty() || key.contains(char::REPLACEMENT_CHARACTER) {
            return self.bad();
        }
        if stop != Some(b'=') {
            return Ok((key, Found { start: self.at, end: self.at, form: Form::Plain }));
        }
        self.at += 1;
        let value = if self.peek() == Some(b'"') { self.quoted()? } else { self.unquoted()? };
        Ok((key, value))
    }

    fn unquoted(&mut self) -> Result<Found, Malformed> {
        let start = self.at;
        match self.seek(|b| b <= b' ' || b == b'=' || b == b'"') {
            Some(b'=' | b'"') => self.bad(),
            Some(_) | None => Ok(Found { start, end: self.at, form: Form::Plain }),
        }
    }

    fn quoted(&mut self) -> Result<Found, Malformed> {
        self.at += 1;
        let start = self.at;
        let mut form = Form::Plain;
        while self.seek(|b| b == b'"' || b == b'\\') == Some(b'\\') {
            form = Form::Logfmt;
            // The byte behind it is no end of the value, whatever it is.
            self.at += 2;
        }
        if self.peek().is_none() {
            // Without an end all the rest belongs to it.
            return Err(Malformed);
        }
        let end = self.at;
        self.at += 1;
        let raw = self.text.get(start..end).unwrap_or_default();
        // Control characters are bad only beside escapes: go-logfmt looks no closer elsewhere.
        if form == Form::Logfmt
            && (raw.bytes().any(|b| b < b' ') || Unescaped::logfmt(raw).any(|c| c.is_err()))
        {
            return self.bad();
        }
        Ok(Found { start, end, form })
    }
}

impl<'a> Iterator for Pairs<'a> {
    type Item = Result<(&'a str, Found), Malformed>;

    fn next(&mut self) -> Option<Self::Item> {
        self.seek(|b| b > b' ')?;
        Some(self.pair())
    }
}

/// What to read, and where it goes.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct Options {
    /// The text that is read.
    pub input: Input,
    /// The keys.
    pub keys: Vec<String>,
    /// Where the value of each goes.
    pub to: Vec<Destination>,
}

/// The stage `logfmt`.
#[derive(Debug)]
pub struct Logfmt {
    keys: Vec<String>,
    taker: Taker,
    misses: u64,
}

impl Logfmt {
    /// The stage.
    pub fn new(options: &Options) -> Logfmt {
        Logfmt {
            keys: options.keys.clone(),
            taker: Taker::new(options.input.clone(), &options.to),
            misses: 0,
        }
    }
}

impl Action for Logfmt {
    fn apply(&mut self, entry: &mut Work, _now_ns: i64) -> Verdict {
        let scanned = self.taker.take(entry, |text, found| {
            let mut malformed = false;
            for pair in pairs(text) {
                let Ok((key, value)) = pair else {
                    malformed = true;
                    continue;
                };
                for (want, slot) in self.keys.iter().zip(found.iter_mut()) {
                    if want == key {
                        *slot = Some(value);
                    }
                }
            }
            Scanned { take: true, malformed }
        });
        self.misses += u64::from(scanned.is_some_and(|scanned| scanned.malformed));
        Verdict::Keep
    }

    fn misses(&self) -> u64 {
        self.misses
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;
    use regex::bytes::Regex;

    use super::*;

    fn entry(line: &str) -> Work {
        let mut work = Work::default();
        work.line.push_str(line);
        work
    }

    type Read = Vec<Option<(String, String)>>;

    /// Each pair, and None where one is malformed.
    fn read(text: &str) -> Read {
        let value = |found: Found| {
            let mut value = String::new();
            found.append(text, &mut value);
            value
        };
        pairs(text)
            .map(|pair| pair.ok().map(|(key, found)| (key.to_owned(), value(found))))
            .collect()
    }

    fn some(pairs: &[(&str, &str)]) -> Read {
        pairs.iter().map(|&(key, value)| Some((key.to_owned(), value.to_owned()))).collect()
    }

    #[test]
    fn good_lines_are_read_as_go_logfmt_reads_them() {
        for (text, expected) in [
            ("", &[][..]),
            ("  \t ", &[]),
            ("a=1", &[("a", "1")]),
            (" a=1  b=2\tc=3 ", &[("a", "1"), ("b", "2"), ("c", "3")]),
            ("a b= c", &[("a", ""), ("b", ""), ("c", "")]),
            ("a=\"\" b=\"x y\"c=1", &[("a", ""), ("b", "x y"), ("c", "1")]),
            (r#"a="say \"hi\"\n\u00e4" b='x"#, &[("a", "say \"hi\"\nä"), ("b", "'x")]),
            (r#"a="it\'s""#, &[("a", "it's")]),
            ("ä=ü a.b/c-d=[1]", &[("ä", "ü"), ("a.b/c-d", "[1]")]),
            ("a=\"x\ny\"", &[("a", "x\ny")]),
            ("a=1 a=2", &[("a", "1"), ("a", "2")]),
            ("a=\u{fffd}", &[("a", "\u{fffd}")]),
            ("a=\\n", &[("a", "\\n")]),
            ("a=\0b=c", &[("a", ""), ("b", "c")]),
        ] {
            assert_eq!(read(text), some(expected), "{text:?}");
        }
    }

    #[test]
    fn a_pair_that_is_none_costs_itself() {
        for (text, before, after) in [
            ("x=1 =1 y=2", "1", "2"),
            ("x=1 a=b=c y=2", "1", "2"),
            ("x=1 a\"b y=2", "1", "2"),
            ("x=1 a=b\"c\" y=2", "1", "2"),
            ("x=1 a=\"\\x\"z y=2", "1", "2"),
            ("x=1 a=\"\\n\n\" y=2", "1", "2"),
            ("x=1 \"quoted\" y=2", "1", "2"),
            ("x=1 \u{fffd}=5 y=2", "1", "2"),
        ] {
            let all = read(text);
            assert_eq!(
                all,
                [some(&[("x", before)]), vec![None], some(&[("y", after)])].concat(),
                "{text}"
            );
        }
        // Without an end, all the rest is the value.
        for text in ["x=1 a=\"b y=2", "x=1 a=\"b\\", "x=1 a=\"b\\\" y=2", "x=1 a=\""] {
            assert_eq!(read(text), [some(&[("x", "1")]), vec![None]].concat(), "{text}");
        }
    }

    #[test]
    fn values_go_where_they_should_and_nothing_else_changes() {
        let to = vec![
            Destination::Line,
            Destination::Label("level".into()),
            Destination::Metadata("id".into()),
        ];
        let keys = ["msg", "lvl", "id"].map(String::from).to_vec();
        let mut stage = Logfmt::new(&Options { keys, to, ..Options::default() });
        let mut work = entry("lvl=info id=\"a b\" msg=\"it \\\"is\\\"\" id=7 none");
        stage.apply(&mut work, 0);
        assert_eq!(
            (work.get("level"), work.metadata.get("id"), work.line.as_str()),
            (Some("info"), Some("7"), "it \"is\"")
        );
        // Broken pairs are counted, and the good ones taken; what is empty or missing sets nothing.
        let mut work = entry("lvl= a=\" id=7");
        stage.apply(&mut work, 0);
        assert_eq!((work.get("level"), work.get("id"), stage.misses()), (None, None, 1));
        assert_eq!(work.line, "lvl= a=\" id=7");
        assert!(!work.is_relabeled());
    }

    /// The grammar once more, as one expression for each kind of token.
    fn reference(text: &str) -> Read {
        let space = Regex::new(r"(?-u)^[\x00-\x20]+").unwrap();
        let good = Regex::new(
            r#"(?-u)^([^\x00-\x20="]+)(?:=(?:"((?:[^"\\]|(?s:\\.))*)"|([^\x00-\x20="]*)([="])?))?"#,
        )
        .unwrap();
        let rest = Regex::new(r"(?-u)^[^\x00-\x20]*").unwrap();
        let string = |bytes: &[u8]| String::from_utf8(bytes.to_vec()).unwrap();
        let (mut text, mut out) = (text.as_bytes(), Vec::new());
        loop {
            let skipped = space.find(text).map_or(0, |m| m.end());
            text = &text[skipped..];
            if text.is_empty() {
                return out;
            }
            let Some(found) = good.captures(text) else {
                out.push(None);
                text = &text[rest.find(text).unwrap().end()..];
                continue;
            };
            let (key, end) = (string(&found[1]), found.get(0).unwrap().end());
            let next = text.get(end).copied();
            // A quote without an end lets the unquoted alternative match nothing before it.
            let open = found.get(4).is_some() && found[3].is_empty() && &found[4] == b"\"";
            if key.contains('\u{fffd}') || found.get(1).unwrap().end() == end && next == Some(b'"')
            {
                out.push(None);
                text = &text[rest.find(text).unwrap().end()..];
            } else if open {
                out.push(None);
                return out;
            } else if found.get(4).is_some() {
                out.push(None);
                text = &text[end..];
                text = &text[rest.find(text).unwrap().end()..];
            } else if let Some(quoted) = found.get(2) {
                let raw = string(quoted.as_bytes());
                text = &text[end..];
                // JSON has the same escapes but \'.
                let json = format!("\"{}\"", raw.replace("\\'", "'"));
                if !raw.contains('\\') {
                    out.push(Some((key, raw)));
                } else if let Ok(value) = serde_json::from_str(&json) {
                    out.push(Some((key, value)));
                } else {
                    out.push(None);
                    text = &text[rest.find(text).unwrap().end()..];
                }
            } else {
                let value = found.get(3).map_or(String::new(), |m| string(m.as_bytes()));
                out.push(Some((key, value)));
                text = &text[end..];
            }
        }
    }

    proptest! {
        #[test]
        fn the_grammar_says_the_same(text in "[a-c=\" \\\\nä\t]{0,24}") {
            // In the reference `\\'` is no escape of an apostrophe; the alphabet has none.
            prop_assert_eq!(read(&text), reference(&text), "{:?}", text);
        }

        #[test]
        fn what_go_logfmt_writes_is_read_back(pairs in proptest::collection::vec(("[a-z.]{1,4}", any::<String>()), 0..5)) {
            let quoted = |value: &str| value.is_empty() || value.contains(|c: char| c <= ' ' || c == '=' || c == '"' || c == '\u{fffd}' || c == '\u{7f}');
            let line = pairs.iter().map(|(key, value)| match quoted(value) {
                true => format!("{key}={}", serde_json::to_string(value).unwrap()),
                false => format!("{key}={value}"),
            }).collect::<Vec<_>>().join(" ");
            prop_assert_eq!(read(&line), pairs.into_iter().map(Some).collect::<Vec<_>>());
        }

        #[test]
        fn any_text_is_read_to_its_end(text: String) {
            prop_assert!(pairs(&text).count() <= text.len());
        }
    }
}
