//! Structured values out of fuzz input, where a target builds what a caller would hand in. Where the
//! input ends, numbers are 0 and texts are empty.

/// What is left of an input.
pub struct Input<'a>(pub &'a [u8]);

impl<'a> Input<'a> {
    pub fn is_empty(&self) -> bool {
        self.0.is_empty()
    }

    pub fn take(&mut self, count: usize) -> &'a [u8] {
        let (taken, rest) = self.0.split_at(count.min(self.0.len()));
        self.0 = rest;
        taken
    }

    pub fn u8(&mut self) -> u8 {
        self.take(1).first().copied().unwrap_or_default()
    }

    pub fn u16(&mut self) -> u16 {
        u16::from_le_bytes([self.u8(), self.u8()])
    }

    pub fn u64(&mut self) -> u64 {
        let mut bytes = [0; 8];
        bytes.fill_with(|| self.u8());
        u64::from_le_bytes(bytes)
    }

    /// Bytes with their length, a u8, before them.
    pub fn short(&mut self) -> &'a [u8] {
        let count = usize::from(self.u8());
        self.take(count)
    }

    pub fn text(&mut self) -> String {
        String::from_utf8_lossy(self.short()).into_owned()
    }

    /// Bytes with their length, a u16, before them.
    pub fn long(&mut self) -> &'a [u8] {
        let count = usize::from(self.u16());
        self.take(count)
    }
}
