//! The escapes inside of quoted text, as JSON (RFC 8259, section 7) and logfmt write them.

/// The characters that a quoted text stands for, without the quotes around it. An escape that is none
/// ends them with an error. Half a pair of surrogates is U+FFFD, as Go takes it.
#[derive(Clone, Debug)]
pub(super) struct Unescaped<'a> {
    rest: &'a str,
    apostrophe: bool,
}

/// No escape.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct BadEscape;

impl<'a> Unescaped<'a> {
    /// JSON's escapes.
    pub(super) fn json(text: &'a str) -> Unescaped<'a> {
        Unescaped { rest: text, apostrophe: false }
    }

    /// logfmt's escapes: JSON's, and `\'`.
    pub(super) fn logfmt(text: &'a str) -> Unescaped<'a> {
        Unescaped { rest: text, apostrophe: true }
    }

    fn escape(&mut self) -> Result<char, BadEscape> {
        let mut chars = self.rest.chars();
        let c = chars.next().ok_or(BadEscape)?;
        self.rest = chars.as_str();
        match c {
            '"' | '\\' | '/' => Ok(c),
            '\'' if self.apostrophe => Ok(c),
            'b' => Ok('\u{8}'),
            'f' => Ok('\u{c}'),
            'n' => Ok('\n'),
            'r' => Ok('\r'),
            't' => Ok('\t'),
            'u' => self.unicode(),
            _ => Err(BadEscape),
        }
    }

    fn unicode(&mut self) -> Result<char, BadEscape> {
        let (first, rest) = hex4(self.rest).ok_or(BadEscape)?;
        self.rest = rest;
        if let Some(c) = char::from_u32(first) {
            return Ok(c);
        }
        let second = rest.strip_prefix("\\u").and_then(hex4);
        if let Some((low @ 0xdc00..=0xdfff, rest)) = second
            && first < 0xdc00
        {
            self.rest = rest;
            let code = 0x1_0000 + ((first - 0xd800) << 10) + (low - 0xdc00);
            return Ok(char::from_u32(code).unwrap_or(char::REPLACEMENT_CHARACTER));
        }
        Ok(char::REPLACEMENT_CHARACTER)
    }
}

impl Iterator for Unescaped<'_> {
    type Item = Result<char, BadEscape>;

    fn next(&mut self) -> Option<Result<char, BadEscape>> {
        let mut chars = self.rest.chars();
        let c = chars.next()?;
        self.rest = chars.as_str();
        if c != '\\' {
            return Some(Ok(c));
        }
        let escaped = self.escape();
        if escaped.is_err() {
            self.rest = "";
        }
        Some(escaped)
    }
}

fn hex4(text: &str) -> Option<(u32, &str)> {
    let (digits, rest) = text.split_at_checked(4)?;
    // from_str_radix takes a sign as well.
    if !digits.bytes().all(|b| b.is_ascii_hexdigit()) {
        return None;
    }
    Some((u32::from_str_radix(digits, 16).ok()?, rest))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn json(text: &str) -> Option<String> {
        Unescaped::json(text).collect::<Result<_, _>>().ok()
    }

    #[test]
    fn escapes_are_what_json_means() {
        assert_eq!(json(r#"a\"\\\/\b\f\n\r\tü"#).as_deref(), Some("a\"\\/\u{8}\u{c}\n\r\tü"));
        assert_eq!(json(r"\u00e4\u20AC\ud83d\ude00").as_deref(), Some("ä€😀"));
        // Halves of pairs, alone and in a wrong order.
        assert_eq!(json(r"\ud83d").as_deref(), Some("\u{fffd}"));
        assert_eq!(json(r"\ud83dx").as_deref(), Some("\u{fffd}x"));
        assert_eq!(json(r"\ude00\ud83d").as_deref(), Some("\u{fffd}\u{fffd}"));
        assert_eq!(json(r"\ud83d\u0041").as_deref(), Some("\u{fffd}A"));
    }

    #[test]
    fn what_is_no_escape_is_an_error_and_the_end() {
        for bad in [r"\", r"\x41", r"\u12", r"\u+123", r"\u12ü", r"\'", r"a\ü"] {
            assert_eq!(json(bad), None, "{bad}");
            assert!(Unescaped::json(bad).skip_while(Result::is_ok).count() == 1, "{bad}");
        }
        assert_eq!(Unescaped::logfmt(r"it\'s").map(Result::unwrap).collect::<String>(), "it's");
    }
}
