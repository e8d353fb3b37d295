//! What the collectors' parsers share: lines, fields and numbers of the kernel's text files, as bytes
//! and without allocating; text that outlives the read buffer; the first of several errors.
//!
//! It must not know any file's meaning.

use std::borrow::Cow;
use std::fmt;
use std::str;

use super::CollectError;
pub(super) use crate::host::text::{fields, lines, unsigned};
use crate::host::{Host, Root};

/// The whole lines of a file of which each ends with a line break, as all below /proc do; what
/// follows the last one has been cut, and is noted.
pub(super) fn whole<'a>(file: &str, bytes: &'a [u8], errors: &mut FirstError) -> &'a [u8] {
    let end = bytes.iter().rposition(|&byte| byte == b'\n').map_or(0, |at| at + 1);
    let (whole, cut) = bytes.split_at(end);
    if !cut.is_empty() {
        errors.note(malformed(file, cut, "a line break at the end of the line"));
    }
    whole
}

/// What a label can hold of a name that the kernel gives as bytes.
pub(super) fn text(bytes: &[u8]) -> Cow<'_, str> {
    String::from_utf8_lossy(bytes)
}

/// A parse error whose token is bytes.
pub(super) fn malformed(file: &str, token: &[u8], expected: &'static str) -> CollectError {
    CollectError::parse(file, &text(token), expected)
}

/// Where a piece of text lies in a [`Texts`].
#[derive(Clone, Copy, Debug, Default)]
pub(super) struct Span {
    start: u32,
    end: u32,
}

/// Names and labels of one round, kept while the read buffer is used for other files.
#[derive(Debug, Default)]
pub(super) struct Texts(String);

impl Texts {
    pub(super) fn clear(&mut self) {
        self.0.clear();
    }

    /// Gives back what is not in use.
    pub(super) fn shrink(&mut self) {
        self.0.shrink_to_fit();
    }

    pub(super) fn keep(&mut self, text: &str) -> Span {
        // The files that this comes from have at most 4 MiB.
        let start = self.0.len() as u32;
        self.0.push_str(text);
        Span { start, end: self.0.len() as u32 }
    }

    pub(super) fn get(&self, span: Span) -> &str {
        self.0.get(span.start as usize..span.end as usize).unwrap_or_default()
    }
}

/// The first error of a file whose other lines are still worth having.
#[derive(Debug, Default)]
pub(super) struct FirstError(Option<CollectError>);

impl FirstError {
    pub(super) fn note(&mut self, error: CollectError) {
        self.0.get_or_insert(error);
    }

    pub(super) fn is_empty(&self) -> bool {
        self.0.is_none()
    }

    pub(super) fn result(self) -> Result<(), CollectError> {
        self.0.map_or(Ok(()), Err)
    }
}

/// A file that holds one number from 0 up. None if it is not there or can't be read, which is quiet, and if
/// it is no number, which is noted.
pub(super) fn number(
    host: &mut Host,
    root: Root,
    path: fmt::Arguments<'_>,
    errors: &mut FirstError,
) -> Option<u64> {
    attribute(host, root, path, errors, unsigned)
}

/// As [`number`], of a number that may be negative.
pub(super) fn signed_number(
    host: &mut Host,
    root: Root,
    path: fmt::Arguments<'_>,
    errors: &mut FirstError,
) -> Option<i64> {
    attribute(host, root, path, errors, signed)
}

fn attribute<T>(
    host: &mut Host,
    root: Root,
    path: fmt::Arguments<'_>,
    errors: &mut FirstError,
    parse: fn(&[u8]) -> Option<T>,
) -> Option<T> {
    let bytes = host.find(root, path)?;
    let value = parse(bytes.trim_ascii());
    if value.is_none() {
        errors.note(malformed(&named(root, path), bytes, "a number"));
    }
    value
}

/// A decimal number with or without a minus.
pub(super) fn signed(token: &[u8]) -> Option<i64> {
    match token.strip_prefix(b"-") {
        Some(digits) => 0i64.checked_sub_unsigned(unsigned(digits)?),
        None => i64::try_from(unsigned(token)?).ok(),
    }
}

/// A hexadecimal number without `0x`, of at most 64 bits.
pub(super) fn hex(token: &[u8]) -> Option<u64> {
    if token.is_empty() {
        return None;
    }
    token.iter().try_fold(0u64, |number, byte| {
        let digit = char::from(*byte).to_digit(16)?;
        (number >> 60 == 0).then_some(number << 4 | u64::from(digit))
    })
}

/// A file as errors name it: below `proc`, `sys` or the root.
pub(super) fn named(root: Root, path: fmt::Arguments<'_>) -> String {
    match root {
        Root::Proc => format!("proc/{path}"),
        Root::Sys => format!("sys/{path}"),
        Root::Root => path.to_string(),
    }
}

/// A number as a label's value.
pub(super) fn decimal(number: u64) -> heapless::String<20> {
    let mut digits = heapless::String::new();
    // u64::MAX has 20 digits.
    let _ = std::fmt::Write::write_fmt(&mut digits, format_args!("{number}"));
    digits
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_digits_are_a_number() {
        assert_eq!(unsigned(b"0"), Some(0));
        assert_eq!(unsigned(b"18446744073709551615"), Some(u64::MAX));
        for bad in [&b""[..], b"18446744073709551616", b"-1", b"+1", b"1.0", b" 1", b"1e3", b"\xff"]
        {
            assert_eq!(unsigned(bad), None, "{bad:?}");
        }
    }

    #[test]
    fn numbers_with_a_minus() {
        assert_eq!(signed(b"-9223372036854775808"), Some(i64::MIN));
        assert_eq!(signed(b"9223372036854775807"), Some(i64::MAX));
        for bad in ["", "-", "--1", "+1", "9223372036854775808", "-9223372036854775809", "1.0"] {
            assert_eq!(signed(bad.as_bytes()), None, "{bad:?}");
        }
    }

    #[test]
    fn hexadecimal_numbers_of_64_bits() {
        assert_eq!(hex(b"00fFa0"), Some(0xffa0));
        assert_eq!(hex(b"0000ffffffffffffffff"), Some(u64::MAX));
        for bad in ["", "-1", "0x1", "g", "1ffffffffffffffff", " 1"] {
            assert_eq!(hex(bad.as_bytes()), None, "{bad:?}");
        }
    }

    #[test]
    fn fields_take_spaces_and_tabs() {
        assert_eq!(fields(b"  a \t b\x00c ").collect::<Vec<_>>(), [&b"a"[..], b"b\x00c"]);
        assert_eq!(decimal(u64::MAX).as_str(), "18446744073709551615");
    }
}
