//! Reading a message from left to right. It must not know any message.

/// What is left of a message.
#[derive(Clone, Copy, Debug)]
pub(super) struct Scan<'a>(pub(super) &'a str);

impl<'a> Scan<'a> {
    /// Passes over this text, if it is what comes next.
    pub(super) fn tag(&mut self, tag: &str) -> Option<()> {
        self.0 = self.0.strip_prefix(tag)?;
        Some(())
    }

    /// What comes before this text, and passes over both.
    pub(super) fn until(&mut self, stop: &str) -> Option<&'a str> {
        let (before, rest) = self.0.split_once(stop)?;
        self.0 = rest;
        Some(before)
    }

    /// What comes before any of these characters, or all that is left; at least one character.
    pub(super) fn word(&mut self, stops: &[char]) -> Option<&'a str> {
        let end = self.0.find(stops).unwrap_or(self.0.len());
        let (word, rest) = self.0.split_at_checked(end)?;
        self.0 = rest;
        (!word.is_empty()).then_some(word)
    }

    /// A decimal number of digits only.
    pub(super) fn number(&mut self) -> Option<u64> {
        let digits = self.0.bytes().take_while(u8::is_ascii_digit).count();
        let (digits, rest) = self.0.split_at_checked(digits)?;
        let number = digits.parse().ok()?;
        self.0 = rest;
        Some(number)
    }
}

/// The number right behind this text, wherever it stands.
pub(super) fn number_after(text: &str, before: &str) -> Option<u64> {
    let (_, rest) = text.split_once(before)?;
    Scan(rest).number()
}

/// The label of the first of these phrases that the text has.
pub(super) fn phrase<T: Copy>(text: &str, phrases: &[(&str, T)]) -> Option<T> {
    phrases.iter().find(|(phrase, _)| text.contains(phrase)).map(|(_, label)| *label)
}
