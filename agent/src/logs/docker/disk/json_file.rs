//! Docker's driver `json-file`: `<id>/<id>-json.log`. A line is an object
//! `{"log":"text\n","stream":"stdout","attrs":{"tag":"a"},"time":"2016-10-06T00:17:09.669794202Z"}`, where
//! `attrs` is there if options of the driver ask for it. A `log` without the line break at its end is a
//! part of a line if it has 16 KiB or more, since dockerd cuts lines there; a shorter one is the last that a
//! program wrote before it ended, and what follows is another run's.
//!
//! Read leniently where nothing is lost by it: members in any order, unknown ones passed over, of
//! several with one name the last; any byte but `"` and `\` in a string; halves of surrogate pairs
//! become U+FFFD. `attrs` are not kept. Not an object with a `log`: malformed. It must not know files.

use memchr::{memchr, memchr2, memmem};

use super::PART;
use super::time::rfc3339;
use crate::logs::file::{Entry, Format, Stream};

/// A part of 16 KiB in which every byte is escaped with six, and as much as most `attrs` take.
const MAX_ESCAPED: usize = 112 << 10;
/// What surrounds a long line in which hardly anything is escaped.
const ENVELOPE: usize = 4 << 10;
/// How every line begins.
const BEGINNING: &[u8] = b"{\"log\":\"";
/// How deep unknown members may go.
const MAX_DEPTH: usize = 16;

/// The format.
pub const JSON_FILE: &dyn Format = &JsonFile;

#[derive(Debug)]
struct JsonFile;

impl Format for JsonFile {
    fn name(&self) -> &'static str {
        "docker"
    }

    fn max_record(&self, max_line: usize) -> usize {
        MAX_ESCAPED.max(max_line + ENVELOPE)
    }

    fn start<'a>(&self, data: &'a [u8]) -> &'a [u8] {
        super::without_nul(data)
    }

    fn decode<'a>(
        &self,
        record: &'a [u8],
        max_line: usize,
        scratch: &'a mut Vec<u8>,
    ) -> Option<Entry<'a>> {
        let mut cursor = Cursor(record);
        let whole = members(&mut cursor);
        // The beginning of a line that is longer than what is looked at.
        let members = match whole {
            Ok(members) => members,
            Err(found) if record.len() > self.max_record(max_line) => found,
            Err(_) => return None,
        };
        let log = members.log?;
        let mut entry = Entry {
            time_ns: members.time.and_then(rfc3339),
            stream: members.stream,
            cut: !log.is_closed,
            ..Entry::default()
        };
        unescape(&log, max_line, scratch, &mut entry)?;
        Some(entry)
    }

    fn again(&self, record: &[u8]) -> Option<usize> {
        memmem::rfind(record, BEGINNING).filter(|&at| at > 0)
    }
}

/// What is wanted of the object.
#[derive(Default)]
struct Members<'a> {
    log: Option<Text<'a>>,
    stream: Stream,
    time: Option<&'a [u8]>,
}

/// What stands between quotes, as it is.
#[derive(Clone, Copy)]
struct Text<'a> {
    raw: &'a [u8],
    /// The second quote is there.
    is_closed: bool,
}

/// The members of the object that the bytes are; an error has those before what is wrong.
fn members<'a>(cursor: &mut Cursor<'a>) -> Result<Members<'a>, Members<'a>> {
    let mut members = Members::default();
    match fill(cursor, &mut members) {
        Some(()) => Ok(members),
        None => Err(members),
    }
}

fn fill<'a>(cursor: &mut Cursor<'a>, members: &mut Members<'a>) -> Option<()> {
    cursor.expect(b'{')?;
    if cursor.expect(b'}').is_some() {
        return cursor.end();
    }
    loop {
        let name = cursor.string().filter(|name| name.is_closed)?;
        cursor.expect(b':')?;
        match name.raw {
            b"log" => {
                let log = cursor.string()?;
                members.log = Some(log);
                if !log.is_closed {
                    return None;
                }
            }
            b"stream" => {
                members.stream = Stream::of(cursor.string().filter(|text| text.is_closed)?.raw);
            }
            b"time" => members.time = Some(cursor.string().filter(|text| text.is_closed)?.raw),
            _ => cursor.skip_value()?,
        }
        if cursor.expect(b'}').is_some() {
            return cursor.end();
        }
        cursor.expect(b',')?;
    }
}

/// Puts the text into the entry: as it stands there if nothing but the line break is escaped.
fn unescape<'a>(
    log: &Text<'a>,
    max_line: usize,
    scratch: &'a mut Vec<u8>,
    entry: &mut Entry<'a>,
) -> Option<()> {
    let raw = log.raw;
    let Some(first) = memchr(b'\\', raw) else {
        (entry.text, entry.partial) = (raw, log.is_closed && raw.len() >= PART);
        return Some(());
    };
    if raw.get(first..) == Some(b"\\n") {
        let text = raw.get(..first)?;
        entry.text = text.strip_suffix(b"\r").unwrap_or(text);
        return Some(());
    }
    scratch.clear();
    let mut rest = raw;
    // More than wanted by the line break and what is cut from a character, so that a cut is noticed.
    let room = max_line + 8;
    // Of all of it: what is kept does not tell whether it is a part.
    let mut len = 0;
    let mut ends = false;
    while let Some(at) = memchr(b'\\', rest) {
        let (plain, escape) = rest.split_at_checked(at)?;
        push(scratch, plain, room);
        len += plain.len();
        let (character, after) = match character(escape) {
            Some(found) => found,
            // What was cut off may have made it good.
            None if !log.is_closed => {
                rest = b"";
                break;
            }
            None => return None,
        };
        rest = after;
        ends = rest.is_empty() && character == Some('\n');
        let mut bytes = [0; 4];
        len += character.unwrap_or('\u{fffd}').len_utf8();
        match character {
            _ if ends => {}
            Some(character) => push(scratch, character.encode_utf8(&mut bytes).as_bytes(), room),
            None => {
                entry.replaced = true;
                push(scratch, "\u{fffd}".as_bytes(), room);
            }
        }
    }
    push(scratch, rest, room);
    entry.partial = !ends && log.is_closed && len + rest.len() >= PART;
    let text: &[u8] = scratch;
    entry.text = if ends { text.strip_suffix(b"\r").unwrap_or(text) } else { text };
    Some(())
}

fn push(scratch: &mut Vec<u8>, bytes: &[u8], room: usize) {
    let room = room.saturating_sub(scratch.len());
    scratch.extend_from_slice(bytes.get(..room).unwrap_or(bytes));
}

/// The character that an escape stands for (None inside: half of a pair), and what follows it.
fn character(escape: &[u8]) -> Option<(Option<char>, &[u8])> {
    let (&kind, rest) = escape.get(1..)?.split_first()?;
    let simple = |character| Some((Some(character), rest));
    match kind {
        b'"' | b'\\' | b'/' => simple(char::from(kind)),
        b'b' => simple('\u{8}'),
        b'f' => simple('\u{c}'),
        b'n' => simple('\n'),
        b'r' => simple('\r'),
        b't' => simple('\t'),
        b'u' => {
            let (first, rest) = hex(rest)?;
            if let Some(character) = char::from_u32(first) {
                return Some((Some(character), rest));
            }
            let second = rest.strip_prefix(b"\\u").and_then(hex);
            match second {
                Some((second @ 0xdc00..=0xdfff, rest)) if first < 0xdc00 => {
                    let pair = 0x1_0000 + ((first - 0xd800) << 10) + (second - 0xdc00);
                    Some((char::from_u32(pair), rest))
                }
                _ => Some((None, rest)),
            }
        }
        _ => None,
    }
}

fn hex(text: &[u8]) -> Option<(u32, &[u8])> {
    let (digits, rest) = text.split_at_checked(4)?;
    let number = digits
        .iter()
        .try_fold(0, |sum, &digit| char::from(digit).to_digit(16).map(|digit| sum * 16 + digit))?;
    Some((number, rest))
}

struct Cursor<'a>(&'a [u8]);

impl<'a> Cursor<'a> {
    fn blanks(&mut self) {
        self.0 = self.0.trim_ascii_start();
    }

    fn expect(&mut self, byte: u8) -> Option<()> {
        self.blanks();
        self.0 = self.0.strip_prefix(&[byte])?;
        Some(())
    }

    fn end(&mut self) -> Option<()> {
        self.blanks();
        self.0.is_empty().then_some(())
    }

    /// A string, or the beginning of one.
    fn string(&mut self) -> Option<Text<'a>> {
        self.expect(b'"')?;
        let text = self.0;
        let mut at = 0;
        loop {
            let Some(found) = text.get(at..).and_then(|rest| memchr2(b'"', b'\\', rest)) else {
                self.0 = b"";
                return Some(Text { raw: text, is_closed: false });
            };
            at += found;
            if text.get(at) == Some(&b'"') {
                self.0 = text.get(at + 1..)?;
                return Some(Text { raw: text.get(..at)?, is_closed: true });
            }
            at += 2;
        }
    }

    fn skip_value(&mut self) -> Option<()> {
        let mut depth = 0_usize;
        loop {
            self.blanks();
            match self.0.first()? {
                b'"' => {
                    self.string().filter(|text| text.is_closed)?;
                }
                b'{' | b'[' => {
                    self.0 = self.0.get(1..)?;
                    depth += 1;
                    if depth > MAX_DEPTH {
                        return None;
                    }
                    continue;
                }
                b'}' | b']' if depth > 0 => {
                    self.0 = self.0.get(1..)?;
                    depth -= 1;
                }
                b',' | b':' if depth > 0 => {
                    self.0 = self.0.get(1..)?;
                    continue;
                }
                b'-' | b'0'..=b'9' | b'a'..=b'z' => {
                    let is_scalar = |byte: &u8| {
                        byte.is_ascii_alphanumeric() || matches!(byte, b'+' | b'-' | b'.')
                    };
                    let len = self.0.iter().take_while(|byte| is_scalar(byte)).count();
                    self.0 = self.0.get(len..)?;
                }
                _ => return None,
            }
            if depth == 0 {
                return Some(());
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const TIME_NS: i64 = 1_475_713_029_669_794_202;

    /// Text, stream, partial, replaced.
    fn decode(record: &str) -> Option<(String, Stream, bool, bool)> {
        let mut scratch = Vec::new();
        let entry = JsonFile.decode(record.as_bytes(), 1024, &mut scratch)?;
        assert!(!entry.cut);
        let text = String::from_utf8(entry.text.to_vec()).unwrap();
        Some((text, entry.stream, entry.partial, entry.replaced))
    }

    fn log(escaped: &str) -> Option<(String, Stream, bool, bool)> {
        let time = "2016-10-06T00:17:09.669794202Z";
        decode(&format!(r#"{{"log":"{escaped}","stream":"stderr","time":"{time}"}}"#))
    }

    fn some(text: &str, partial: bool) -> Option<(String, Stream, bool, bool)> {
        Some((text.to_owned(), Stream::Stderr, partial, false))
    }

    #[test]
    fn what_docker_writes() {
        let mut scratch = Vec::new();
        let line = r#"{"log":"a \u003cb\u003e\n","stream":"stdout","attrs":{"tag":"x","a":[{}]},"time":"2016-10-06T00:17:09.669794202Z"}"#;
        let entry = JsonFile.decode(line.as_bytes(), 64, &mut scratch).unwrap();
        let expected = Entry {
            text: b"a <b>",
            time_ns: Some(TIME_NS),
            stream: Stream::Stdout,
            ..Entry::default()
        };
        assert_eq!(entry, expected);
        assert_eq!(log("plain\\n"), some("plain", false));
        assert_eq!(log("\\n"), some("", false));
        assert_eq!(log("the end of a run"), some("the end of a run", false));
        assert_eq!(log(""), some("", false));
        assert_eq!(log("a terminal's\\r\\n"), some("a terminal's", false));
        assert_eq!(log("a\\nb\\n"), some("a\nb", false));
        assert_eq!(log("a\\\\n"), some("a\\n", false));
        assert_eq!(log("a\\\\\\n"), some("a\\", false));
    }

    #[test]
    fn parts_have_so_much_text_however_it_is_written_and_whatever_is_kept_of_it() {
        let partial = |escaped: &str, max_line: usize| {
            let record = format!(r#"{{"log":"{escaped}"}}"#);
            JsonFile.decode(record.as_bytes(), max_line, &mut Vec::new()).unwrap().partial
        };
        for max_line in [64, 8 << 10, 64 << 10] {
            for (character, len) in [("x", 1), (r"\\", 1), (r"\u001b", 1), (r"\ufffd", 3), ("ü", 2)]
            {
                let part = character.repeat(PART / len + usize::from(len == 3));
                assert!(partial(&part, max_line), "{character}, {max_line}");
                assert!(!partial(&part[character.len()..], max_line), "{character}, {max_line}");
                assert!(!partial(&(part + r"\n"), max_line), "{character}, {max_line}");
            }
        }
    }

    #[test]
    fn every_escape() {
        let text = r#"\"\\\/\b\f\n\r\t\u0000\u00fc\u20AC\ud83d\ude00\n"#;
        assert_eq!(log(text), some("\"\\/\u{8}\u{c}\n\r\t\0\u{fc}\u{20ac}\u{1f600}", false));
        // Halves of pairs: alone, in the wrong order, before another escape.
        for (half, expected) in [
            (r"\ud83d\n", "\u{fffd}"),
            (r"\ude00x\n", "\u{fffd}x"),
            (r"\ude00\ud83d\n", "\u{fffd}\u{fffd}"),
            (r"\ud83d\u0041\n", "\u{fffd}A"),
            (r"\ud83d\ud83d\ude00\n", "\u{fffd}\u{1f600}"),
        ] {
            assert_eq!(log(half), Some((expected.to_owned(), Stream::Stderr, false, true)));
        }
    }

    #[test]
    fn bytes_that_are_no_utf_8_are_passed_on() {
        let mut scratch = Vec::new();
        let entry = JsonFile.decode(b"{\"log\":\"a\xff\\n\"}", 64, &mut scratch).unwrap();
        assert_eq!((entry.text, entry.time_ns, entry.stream), (&b"a\xff"[..], None, Stream::None));
        let entry = JsonFile.decode(b"{\"log\":\"\\ta\xff\\n\"}", 64, &mut scratch).unwrap();
        assert_eq!(entry.text, b"\ta\xff");
    }

    #[test]
    fn other_members_and_other_orders() {
        let expected = Some(("b".to_owned(), Stream::Stdout, false, false));
        for record in [
            r#" { "stream" : "stdout" , "log" : "b\n" } "#,
            r#"{"log":"a","x":[1,-2.5e+3,{"log":"c\n"}],"n":null,"t":true,"log":"b\n","stream":"stdout"}"#,
            r#"{"stream":"stderr","time":"never","log":"b\n","stream":"stdout"}"#,
        ] {
            assert_eq!(decode(record), expected, "{record}");
        }
    }

    #[test]
    fn malformed_lines_are_none() {
        for record in [
            "",
            "text",
            "{",
            "{}",
            r#"{"log"}"#,
            r#"{"log":1}"#,
            r#"{"log":"a"#,
            r#"{"log":"a\"#,
            r#"{"log":"a\"}"#,
            r#"{"log":"a\n"#,
            r#"{"log":"a\n""#,
            r#"{"log":"a\n",}"#,
            r#"{"log":"a\n"}}"#,
            r#"{"log":"a\n"} {"log":"b\n"}"#,
            r#"{"log":"\x\n"}"#,
            r#"{"log":"\u12\n"}"#,
            r#"{"log":"\u12g4\n"}"#,
            r#"{"message":"a\n"}"#,
            r#"{"log":"a\n","x":}"#,
            r#"{"log":"a\n","x":[}"#,
            r#"["log","a\n"]"#,
        ] {
            assert_eq!(decode(record), None, "{record}");
        }
        let deep = format!(r#"{{"x":{}1{},"log":"a\n"}}"#, "[".repeat(100), "]".repeat(100));
        assert_eq!(decode(&deep), None);
    }

    #[test]
    fn a_line_that_a_crash_tore_has_the_next_one_behind_it() {
        let good = r#"{"log":"b \"log\":\n"}"#;
        let torn = format!(r#"{{"log":"a{good}"#);
        assert_eq!(decode(&torn), None);
        let at = JsonFile.again(torn.as_bytes()).unwrap();
        assert_eq!(&torn[at..], good);
        assert_eq!(JsonFile.again(b"{\"log\":\"a"), None);
    }

    #[test]
    fn the_text_is_bounded_and_not_what_stands_for_it() {
        let escaped = "\\u0001".repeat(16 << 10);
        let record = format!(r#"{{"log":"{escaped}","stream":"stdout"}}"#);
        assert!(record.len() <= JsonFile.max_record(64 << 10));
        let mut scratch = Vec::new();
        let entry = JsonFile.decode(record.as_bytes(), 1 << 20, &mut scratch).unwrap();
        assert_eq!((entry.text.len(), entry.partial, entry.cut), (16 << 10, true, false));
        let mut scratch = Vec::new();
        let entry = JsonFile.decode(record.as_bytes(), 100, &mut scratch).unwrap();
        assert_eq!((entry.text.len(), entry.stream), (108, Stream::Stdout));
        assert!(scratch.capacity() < 256);
    }

    #[test]
    fn the_beginning_of_a_longer_line_is_what_is_kept_of_it() {
        let long = format!(r#"{{"log":"{}"#, "\\\\x".repeat(50 << 10));
        let cut = &long.as_bytes()[..JsonFile.max_record(64) + 2];
        let mut scratch = Vec::new();
        let entry = JsonFile.decode(cut, 64, &mut scratch).unwrap();
        assert!(entry.cut && !entry.partial);
        assert!(entry.text.starts_with(b"\\x\\x"));
    }
}
