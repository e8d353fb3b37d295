//! Bytes of a line to text within a bound: cut on a character boundary, what is not UTF-8 replaced
//! by U+FFFD. Every source of lines uses it; it must not know where a line comes from.

/// A line as it may be stored.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Text<'a> {
    /// At most as many bytes as asked for.
    pub(super) text: &'a str,
    /// Something was cut off the end.
    pub(super) truncated: bool,
    /// Something was not UTF-8 and was replaced.
    pub(super) replaced: bool,
}

/// The converter, which owns the memory of replaced lines.
#[derive(Debug, Default)]
pub(super) struct Converter {
    scratch: String,
}

impl Converter {
    /// The line as text of at most `max` bytes, replacements included.
    pub(super) fn text<'a>(&'a mut self, line: &'a [u8], max: usize) -> Text<'a> {
        let cut = line.len() > max;
        let bytes = line.get(..max).unwrap_or(line);
        match std::str::from_utf8(bytes) {
            Ok(text) => Text { text, truncated: cut, replaced: false },
            Err(_) => self.replace(bytes, cut, max),
        }
    }

    /// How much memory it holds.
    #[cfg(test)]
    pub(super) fn capacity(&self) -> usize {
        self.scratch.capacity()
    }

    fn replace<'a>(&'a mut self, bytes: &[u8], cut: bool, max: usize) -> Text<'a> {
        self.scratch.clear();
        let (mut truncated, mut replaced, mut at) = (cut, false, 0);
        for chunk in bytes.utf8_chunks() {
            let valid = chunk.valid();
            let room = max - self.scratch.len();
            if valid.len() > room {
                self.scratch.push_str(&valid[..valid.floor_char_boundary(room)]);
                truncated = true;
                break;
            }
            self.scratch.push_str(valid);
            let bad = chunk.invalid();
            at += valid.len() + bad.len();
            if bad.is_empty() || (cut && at == bytes.len() && is_unfinished(bad)) {
                // The second: a good character that the cut went through.
                continue;
            }
            replaced = true;
            if self.scratch.len() + char::REPLACEMENT_CHARACTER.len_utf8() > max {
                truncated = true;
                break;
            }
            self.scratch.push(char::REPLACEMENT_CHARACTER);
        }
        Text { text: &self.scratch, truncated, replaced }
    }
}

/// Whether more bytes could make a character of these.
fn is_unfinished(bytes: &[u8]) -> bool {
    std::str::from_utf8(bytes).is_err_and(|error| error.error_len().is_none())
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn convert(line: &[u8], max: usize) -> (String, bool, bool) {
        let mut converter = Converter::default();
        let Text { text, truncated, replaced } = converter.text(line, max);
        (text.to_owned(), truncated, replaced)
    }

    #[test]
    fn good_lines_pass_nul_bytes_included() {
        assert_eq!(convert("a\0ü".as_bytes(), 4), ("a\0ü".to_owned(), false, false));
    }

    #[test]
    fn the_cut_falls_between_characters() {
        assert_eq!(convert("aüb".as_bytes(), 2), ("a".to_owned(), true, false));
        assert_eq!(convert("aüb".as_bytes(), 3), ("aü".to_owned(), true, false));
        assert_eq!(convert(b"\xffa\xe2\x82\xac", 6), ("\u{fffd}a".to_owned(), true, true));
    }

    #[test]
    fn bad_bytes_are_replaced_within_the_bound() {
        assert_eq!(convert(b"a\xffb", 9), ("a\u{fffd}b".to_owned(), false, true));
        assert_eq!(convert(b"\xff\xff\xff\xff", 7), ("\u{fffd}\u{fffd}".to_owned(), true, true));
        // An unfinished character in the middle or at the line's own end is bad, not cut.
        assert_eq!(
            convert(b"\xe2\x82a\xe2\x82", 20),
            ("\u{fffd}a\u{fffd}".to_owned(), false, true)
        );
    }

    proptest! {
        #[test]
        fn any_bytes_give_bounded_text(line: Vec<u8>, max in 0usize..64) {
            let (text, truncated, replaced) = convert(&line, max);
            prop_assert!(text.len() <= max);
            let lossy = String::from_utf8_lossy(&line);
            prop_assert!(lossy.starts_with(&text));
            prop_assert_eq!(truncated, lossy.len() > text.len());
            prop_assert!(!replaced || std::str::from_utf8(&line).is_err());
        }
    }
}
