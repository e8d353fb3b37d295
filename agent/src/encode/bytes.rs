//! Little-endian numbers, read with bounds.

/// Bytes that end early, or a number that can't be.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct DecodeError {
    /// What should have stood there.
    pub expected: &'static str,
    /// Offset in the record's payload.
    pub offset: usize,
}

impl std::fmt::Display for DecodeError {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "{} expected at byte {} of the record", self.expected, self.offset)
    }
}

impl std::error::Error for DecodeError {}

/// A cursor over a record's payload.
#[derive(Clone, Debug)]
pub(super) struct Reader<'a> {
    all: &'a [u8],
    at: usize,
}

impl<'a> Reader<'a> {
    pub(super) fn new(all: &'a [u8]) -> Reader<'a> {
        Reader { all, at: 0 }
    }

    pub(super) fn error(&self, expected: &'static str) -> DecodeError {
        DecodeError { expected, offset: self.at }
    }

    pub(super) fn take(
        &mut self,
        count: usize,
        expected: &'static str,
    ) -> Result<&'a [u8], DecodeError> {
        let rest = self.all.get(self.at..).unwrap_or_default();
        let taken = rest.get(..count).ok_or(DecodeError { expected, offset: self.at })?;
        self.at += count;
        Ok(taken)
    }

    fn array<const N: usize>(&mut self, expected: &'static str) -> Result<[u8; N], DecodeError> {
        let mut array = [0; N];
        array.copy_from_slice(self.take(N, expected)?);
        Ok(array)
    }

    pub(super) fn u8(&mut self, expected: &'static str) -> Result<u8, DecodeError> {
        self.array::<1>(expected).map(|[byte]| byte)
    }

    pub(super) fn u16(&mut self, expected: &'static str) -> Result<u16, DecodeError> {
        self.array(expected).map(u16::from_le_bytes)
    }

    pub(super) fn u32(&mut self, expected: &'static str) -> Result<u32, DecodeError> {
        self.array(expected).map(u32::from_le_bytes)
    }

    pub(super) fn end(&self) -> Result<(), DecodeError> {
        if self.at == self.all.len() { Ok(()) } else { Err(self.error("the end")) }
    }

    pub(super) fn offset(&self) -> usize {
        self.at
    }
}
