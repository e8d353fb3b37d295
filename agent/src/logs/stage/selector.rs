//! A LogQL stream selector: `{unit="cron.service", level=~"err.*"}`.
//!
//! The syntax is Loki's: `=`, `!=`, `=~`, `!~`; values in double quotes with Go's escapes, or in back
//! quotes as they are. Expressions match the whole value, and a label that a stream lacks is the empty
//! string. `{}` is every stream.

use std::fmt;

use super::pattern::{Pattern, anchored};
use crate::model::Labels;

/// The most matchers of a selector.
const MAX_MATCHERS: usize = 64;

/// What streams a stage is for.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct Selector {
    matchers: Vec<Matcher>,
    text: String,
}

#[derive(Clone, Debug, PartialEq)]
struct Matcher {
    name: String,
    value: Value,
    negated: bool,
}

#[derive(Clone, Debug, PartialEq)]
enum Value {
    Text(String),
    Pattern(Pattern),
}

/// What is wrong with a selector's text, and where.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct SelectorError {
    /// The character, counted from 1.
    pub column: usize,
    /// What is wrong.
    pub problem: String,
}

impl fmt::Display for SelectorError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "at character {}: {}", self.column, self.problem)
    }
}

impl std::error::Error for SelectorError {}

impl Selector {
    /// Reads a selector.
    ///
    /// # Errors
    /// The first thing that is wrong.
    pub fn parse(text: &str) -> Result<Selector, SelectorError> {
        let mut parser = Parser { text, at: 0 };
        let matchers = parser.selector()?;
        Ok(Selector { matchers, text: text.to_owned() })
    }

    /// Whether a stream with these labels is meant.
    pub fn matches(&self, labels: &Labels) -> bool {
        self.matchers.iter().all(|matcher| {
            let have = labels.get(&matcher.name).unwrap_or_default();
            let equal = match &matcher.value {
                Value::Text(text) => have == text,
                Value::Pattern(pattern) => pattern.is_match(have),
            };
            equal != matcher.negated
        })
    }

    /// The selector as it was written.
    pub fn as_str(&self) -> &str {
        &self.text
    }
}

struct Parser<'a> {
    text: &'a str,
    at: usize,
}

impl<'a> Parser<'a> {
    fn rest(&self) -> &'a str {
        self.text.get(self.at..).unwrap_or_default()
    }

    fn peek(&self) -> Option<char> {
        self.rest().chars().next()
    }

    fn skip_space(&mut self) {
        self.at += self.rest().len() - self.rest().trim_start().len();
    }

    fn take(&mut self, word: &str) -> bool {
        let found = self.rest().starts_with(word);
        if found {
            self.at += word.len();
        }
        found
    }

    fn error_at<T>(&self, at: usize, problem: impl Into<String>) -> Result<T, SelectorError> {
        let column = self.text.get(..at).unwrap_or_default().chars().count() + 1;
        Err(SelectorError { column, problem: problem.into() })
    }

    fn wanted<T>(&self, what: &str) -> Result<T, SelectorError> {
        let got = self.peek().map_or("the end".to_owned(), |c| format!("{c:?}"));
        self.error_at(self.at, format!("{what} should stand here, and not {got}"))
    }

    fn selector(&mut self) -> Result<Vec<Matcher>, SelectorError> {
        let mut matchers = Vec::new();
        self.skip_space();
        if !self.take("{") {
            return self.wanted("'{'");
        }
        self.skip_space();
        while !self.take("}") {
            if !matchers.is_empty() {
                if !self.take(",") {
                    return self.wanted("',' or '}'");
                }
                self.skip_space();
            }
            if matchers.len() == MAX_MATCHERS {
                return self.error_at(self.at, format!("more than {MAX_MATCHERS} matchers"));
            }
            matchers.push(self.matcher()?);
            self.skip_space();
        }
        self.skip_space();
        if !self.rest().is_empty() {
            return self.error_at(
                self.at,
                "the selector is over here: filters of lines go into drop or keep",
            );
        }
        Ok(matchers)
    }

    fn matcher(&mut self) -> Result<Matcher, SelectorError> {
        let rest = self.rest();
        let len = rest.find(|c: char| !c.is_ascii_alphanumeric() && c != '_').unwrap_or(rest.len());
        let name = rest.get(..len).unwrap_or_default();
        if name.is_empty() || name.starts_with(|c: char| c.is_ascii_digit()) {
            return self.wanted("a label's name");
        }
        self.at += len;
        self.skip_space();
        // The longer ones first.
        let operators =
            [("=~", false, true), ("!~", true, true), ("!=", true, false), ("=", false, false)];
        let Some((_, negated, is_pattern)) =
            operators.into_iter().find(|(operator, _, _)| self.take(operator))
        else {
            return self.wanted("one of =, !=, =~ and !~");
        };
        self.skip_space();
        let at = self.at;
        let text = self.value()?;
        let value = match is_pattern {
            false => Value::Text(text),
            true => match anchored(&text) {
                Ok(pattern) => Value::Pattern(pattern),
                Err(error) => return self.error_at(at, format!("{text:?}: {error}")),
            },
        };
        Ok(Matcher { name: name.to_owned(), value, negated })
    }

    fn value(&mut self) -> Result<String, SelectorError> {
        let start = self.at;
        if self.take("`") {
            let Some(len) = self.rest().find('`') else {
                return self.error_at(start, "the closing '`' is missing");
            };
            let text = self.rest().get(..len).unwrap_or_default().to_owned();
            self.at += len + 1;
            return Ok(text);
        }
        if !self.take("\"") {
            return self.wanted("a value in double quotes or back quotes");
        }
        // Escapes may make single bytes of a character.
        let mut bytes = Vec::new();
        loop {
            let at = self.at;
            match self.peek() {
                None | Some('\n') => return self.error_at(start, "the closing '\"' is missing"),
                Some('"') => break self.at += 1,
                Some('\\') => {
                    self.at += 1;
                    if let Err(problem) = self.escape(&mut bytes) {
                        return self.error_at(at, problem);
                    }
                }
                Some(c) => {
                    self.at += c.len_utf8();
                    bytes.extend_from_slice(c.encode_utf8(&mut [0; 4]).as_bytes());
                }
            }
        }
        match String::from_utf8(bytes) {
            Ok(text) => Ok(text),
            Err(_) => self.error_at(start, "the value is not UTF-8"),
        }
    }

    /// One escape of Go's `strconv.Unquote`, behind its backslash.
    fn escape(&mut self, out: &mut Vec<u8>) -> Result<(), String> {
        let c = self.peek().ok_or("the escape has no end")?;
        self.at += c.len_utf8();
        let simple = match c {
            'a' => 0x07,
            'b' => 0x08,
            'f' => 0x0c,
            'n' => b'\n',
            'r' => b'\r',
            't' => b'\t',
            'v' => 0x0b,
            '\\' | '"' => c as u8,
            'x' => return self.number(2, 16).map(|byte| out.push(byte as u8)),
            'u' | 'U' => {
                let code = self.number(if c == 'u' { 4 } else { 8 }, 16)?;
                let c = char::from_u32(code).ok_or("there is no such character")?;
                out.extend_from_slice(c.encode_utf8(&mut [0; 4]).as_bytes());
                return Ok(());
            }
            '0'..='7' => {
                self.at -= 1;
                let byte = u8::try_from(self.number(3, 8)?)
                    .map_err(|_| "an octal escape is at most \\377".to_owned())?;
                out.push(byte);
                return Ok(());
            }
            c => {
                return Err(format!(
                    "\\{c} is not an escape; in an expression write \\\\{c}, or quote with back quotes"
                ));
            }
        };
        out.push(simple);
        Ok(())
    }

    fn number(&mut self, digits: usize, radix: u32) -> Result<u32, String> {
        let text = self
            .rest()
            .get(..digits)
            .filter(|text| text.bytes().all(|b| b.is_ascii_alphanumeric()));
        let number = text.and_then(|text| u32::from_str_radix(text, radix).ok());
        self.at += text.map_or(0, str::len);
        number.ok_or_else(|| format!("the escape needs {digits} digits"))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn labels() -> Labels {
        Labels::from_pairs([("unit", "cron.service"), ("level", "error"), ("q", "a\"b\\\n")])
            .unwrap()
    }

    #[test]
    fn selectors_match_as_lokis_do() {
        for (text, expected) in [
            ("{}", true),
            (" { } ", true),
            (r#"{unit="cron.service"}"#, true),
            (r#"{unit="cron"}"#, false),
            (r#"{unit=~"cron"}"#, false),
            (r#"{unit=~"cron.*",level!="info"}"#, true),
            (r#"{ unit =~ "a|cron\\..*" , level !~ "err" }"#, true),
            ("{unit=~`cron\\.service`}", true),
            ("{unit=~`cronx\\.service`}", false),
            (r#"{unit!~"c.*"}"#, false),
            // Lacking is empty.
            (r#"{job=""}"#, true),
            (r#"{job!=""}"#, false),
            (r#"{job=~".*"}"#, true),
            (r#"{job=~".+"}"#, false),
            (r#"{unit=~""}"#, false),
            (r#"{q="a\"b\\\n"}"#, true),
            (r#"{unit="\x63\162on\u002eserv\U00000069ce"}"#, true),
            // `.` is a line break too.
            (r#"{q=~"a.*"}"#, true),
        ] {
            assert_eq!(Selector::parse(text).unwrap().matches(&labels()), expected, "{text}");
        }
    }

    #[test]
    fn what_is_wrong_is_said_with_its_place() {
        for (text, column, problem) in [
            ("", 1, "'{' should stand here, and not the end"),
            ("unit=\"a\"", 1, "'{' should stand here, and not 'u'"),
            ("{unit}", 6, "one of =, !=, =~ and !~ should stand here, and not '}'"),
            ("{ü=\"\"}", 2, "a label's name should stand here, and not 'ü'"),
            ("{a=\"ü\" b=\"\"}", 8, "',' or '}' should stand here, and not 'b'"),
            ("{a=\"b\",}", 8, "a label's name should stand here, and not '}'"),
            (
                "{a='b'}",
                4,
                "a value in double quotes or back quotes should stand here, and not '\\''",
            ),
            ("{a=\"b}", 4, "the closing '\"' is missing"),
            ("{a=`b}", 4, "the closing '`' is missing"),
            ("{a=~\"x(\"}", 5, "\"x(\": unclosed group"),
            (
                "{a=\"\\d\"}",
                5,
                "\\d is not an escape; in an expression write \\\\d, or quote with back quotes",
            ),
            ("{a=\"\\xg0\"}", 5, "the escape needs 2 digits"),
            ("{a=\"\\400\"}", 5, "an octal escape is at most \\377"),
            ("{a=\"\\ud800\"}", 5, "there is no such character"),
            ("{a=\"\\xff\"}", 4, "the value is not UTF-8"),
            (
                "{a=\"b\"} |= \"c\"",
                9,
                "the selector is over here: filters of lines go into drop or keep",
            ),
            ("{a=\"b\"", 7, "',' or '}' should stand here, and not the end"),
        ] {
            let error = Selector::parse(text).unwrap_err();
            assert_eq!((error.column, error.problem.as_str()), (column, problem), "{text}");
        }
        assert!(Selector::parse(&format!("{{{}}}", "a=\"\",".repeat(1000))).is_err());
    }
}
