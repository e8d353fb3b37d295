//! The two forms of a kstat (module/os/linux/spl/spl-kstat.c) that are wanted: a line for each value with
//! name, type and data, and one line of names above one of numbers. It must not know what is counted.

use std::fmt;
use std::str;

use super::super::parse::{
    FirstError, fields, lines, malformed, named, signed, text, unsigned, whole,
};
use crate::host::Root;

/// `KSTAT_DATA_INT64`
const INT64: &[u8] = b"3";
/// `KSTAT_DATA_UINT64`
const UINT64: &[u8] = b"4";
/// `KSTAT_DATA_STRING`
const STRING: &[u8] = b"7";

/// One value.
pub(super) enum Line<'a> {
    Number(&'a str, f64),
    Text(&'a str, &'a str),
}

/// Gives each line behind the headings `name type data` to `take`; other types than 64-bit numbers and
/// text are passed over.
pub(super) fn named_values(
    bytes: &[u8],
    path: fmt::Arguments<'_>,
    errors: &mut FirstError,
    mut take: impl FnMut(Line<'_>),
) {
    let mut note = |token: &[u8], expected| {
        errors.note(malformed(&named(Root::Proc, path), token, expected));
    };
    let end = bytes.iter().rposition(|&byte| byte == b'\n').map_or(0, |at| at + 1);
    let (bytes, cut) = bytes.split_at(end);
    if !cut.is_empty() {
        note(cut, "a line break at the end of the line");
    }
    let mut lines = lines(bytes);
    if !lines.any(|line| fields(line).eq([&b"name"[..], b"type", b"data"])) {
        note(bytes.get(..bytes.len().min(80)).unwrap_or_default(), "name, type and data");
        return;
    }
    for line in lines {
        let mut words = fields(line);
        let (key, kind) = (words.next().unwrap_or_default(), words.next().unwrap_or_default());
        let Some(data) = words.next() else {
            note(line, "name, type and data");
            continue;
        };
        let wanted = [INT64, UINT64, STRING].contains(&kind);
        let Some(key) = key_of(key).filter(|_| wanted) else {
            if wanted {
                note(key, "a name of letters, digits, strokes and underscores");
            }
            continue;
        };
        match kind {
            // A dataset's name may have spaces.
            STRING => take(Line::Text(key, &text(behind_two_fields(line)))),
            kind => {
                let number = match kind {
                    INT64 => signed(data).map(|value| value as f64),
                    _ => unsigned(data).map(|value| value as f64),
                };
                match number {
                    Some(value) => take(Line::Number(key, value)),
                    None => note(data, "a number"),
                }
            }
        }
    }
}

/// Gives each column below the line of names, which begins with `nread`, to `take`.
pub(super) fn columns(
    bytes: &[u8],
    path: fmt::Arguments<'_>,
    errors: &mut FirstError,
    mut take: impl FnMut(&str, f64),
) {
    let file = || named(Root::Proc, path);
    let mut lines =
        lines(if bytes.ends_with(b"\n") { bytes } else { whole(&file(), bytes, errors) });
    let names = lines.find(|line| fields(line).next() == Some(b"nread"));
    let (Some(names), Some(numbers)) = (names, lines.next()) else {
        errors.note(malformed(&file(), bytes, "a line of names from nread on, and one of numbers"));
        return;
    };
    let mut numbers = fields(numbers);
    for name in fields(names) {
        let token = numbers.next().unwrap_or_default();
        match (key_of(name), unsigned(token)) {
            (Some(key), Some(value)) => take(key, value as f64),
            (None, _) => errors.note(malformed(&file(), name, "a name of letters and digits")),
            (_, None) => errors.note(malformed(&file(), token, "a number")),
        }
    }
}

/// A name that can be part of a metric's.
fn key_of(key: &[u8]) -> Option<&str> {
    let good = |byte: &u8| byte.is_ascii_alphanumeric() || matches!(byte, b'_' | b'-');
    str::from_utf8(key).ok().filter(|key| !key.is_empty() && key.bytes().all(|byte| good(&byte)))
}

fn behind_two_fields(line: &[u8]) -> &[u8] {
    let mut rest = line.trim_ascii_start();
    for _ in 0..2 {
        let end = rest.iter().position(u8::is_ascii_whitespace).unwrap_or(rest.len());
        rest = rest.get(end..).unwrap_or_default().trim_ascii_start();
    }
    rest.trim_ascii_end()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn values(bytes: &[u8]) -> (Vec<String>, String) {
        let (mut got, mut errors) = (Vec::new(), FirstError::default());
        named_values(bytes, format_args!("kstat"), &mut errors, |line| {
            got.push(match line {
                Line::Number(key, value) => format!("{key} {value}"),
                Line::Text(key, value) => format!("{key} {value:?}"),
            });
        });
        let error = errors.result().err().map(|error| error.to_string());
        (got, error.unwrap_or_default())
    }

    const HEAD: &str = "13 1 0x01 2 544 1 2\nname  type data\n";

    #[test]
    fn numbers_with_and_without_a_sign_and_names_with_spaces() {
        let lines = "a-b 4 18446744073709551615\nfree 3 -5\nu 2 7\ndataset_name 7 tank/my  set\n";
        let (got, error) = values(format!("{HEAD}{lines}").as_bytes());
        assert_eq!(got, ["a-b 18446744073709552000", "free -5", "dataset_name \"tank/my  set\""]);
        assert_eq!(error, "");
    }

    #[test]
    fn a_malformed_line_costs_itself() {
        for (line, token) in [
            ("a 4 -1", "\"-1\""),
            ("a 3 x", "\"x\""),
            ("a 4", "a 4"),
            ("a{b 4 1", "a{b"),
            ("\u{e9} 4 1", "\u{e9}"),
        ] {
            let (got, error) = values(format!("{HEAD}b 4 1\n{line}\nc 4 2\n").as_bytes());
            assert_eq!(got, ["b 1", "c 2"]);
            assert!(error.contains("proc/kstat") && error.contains(token), "{error}");
        }
        let (got, error) = values(format!("{HEAD}b 4 1\nc 4 2").as_bytes());
        assert_eq!(got, ["b 1"]);
        assert!(error.contains("c 4 2"), "{error}");
        assert!(values(b"").1.contains("name, type and data"));
        assert!(values(&[0xff; 4096]).1.contains("proc/kstat"));
    }

    fn pool(bytes: &str) -> (Vec<String>, String) {
        let (mut got, mut errors) = (Vec::new(), FirstError::default());
        columns(bytes.as_bytes(), format_args!("io"), &mut errors, |key, value| {
            got.push(format!("{key} {value}"));
        });
        let error = errors.result().err().map(|error| error.to_string());
        (got, error.unwrap_or_default())
    }

    #[test]
    fn columns_stand_below_their_names() {
        let (got, error) = pool("18 3 0x00 1 80 7 3\nnread    nwritten reads\n1 2 3\n");
        assert_eq!(
            (got, error.as_str()),
            (vec!["nread 1".into(), "nwritten 2".into(), "reads 3".into()], "")
        );
        for (bytes, token) in [
            ("", "\"\""),
            ("nread a\n", "nread a"),
            ("nread a\n1 x\n", "\"x\""),
            ("nread a b\n1 2\n", "\"\""),
            ("nread a}\n1 2\n", "a}"),
            ("nread a\n1 2", "1 2"),
        ] {
            let (_, error) = pool(bytes);
            assert!(error.contains("proc/io") && error.contains(token), "{bytes:?}: {error}");
        }
    }
}
