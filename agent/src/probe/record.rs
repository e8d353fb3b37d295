//! Reading an event of a program's from its bytes, which need not be aligned: the fields in the order of
//! the struct in agent-common, in this machine's byte order.

/// The rest of an event.
#[derive(Clone, Copy, Debug)]
pub(super) struct Record<'a>(&'a [u8]);

impl<'a> Record<'a> {
    pub(super) fn new(bytes: &'a [u8]) -> Record<'a> {
        Record(bytes)
    }

    /// The next bytes; None if there are not so many.
    pub(super) fn bytes<const N: usize>(&mut self) -> Option<[u8; N]> {
        let (head, rest) = self.0.split_first_chunk()?;
        self.0 = rest;
        Some(*head)
    }

    pub(super) fn u32(&mut self) -> Option<u32> {
        self.bytes().map(u32::from_ne_bytes)
    }

    pub(super) fn i32(&mut self) -> Option<i32> {
        self.bytes().map(i32::from_ne_bytes)
    }

    pub(super) fn u64(&mut self) -> Option<u64> {
        self.bytes().map(u64::from_ne_bytes)
    }

    /// A text of at most `N` bytes, closed with NUL if it is shorter.
    pub(super) fn text<const N: usize>(&mut self) -> Option<String> {
        self.bytes::<N>().map(|bytes| until_nul(&bytes))
    }
}

/// The text before the first NUL.
pub(super) fn until_nul(bytes: &[u8]) -> String {
    let text = bytes.split(|&byte| byte == 0).next().unwrap_or_default();
    String::from_utf8_lossy(text).into_owned()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn fields_come_in_order_and_a_short_event_is_none() {
        let mut bytes = 7u64.to_ne_bytes().to_vec();
        bytes.extend((-3i32).to_ne_bytes());
        bytes.extend(*b"sd\0x");
        let mut record = Record::new(&bytes);
        assert_eq!((record.u64(), record.i32()), (Some(7), Some(-3)));
        assert_eq!(record.text::<4>().as_deref(), Some("sd"));
        assert_eq!((record.u32(), record.u64(), record.text::<1>()), (None, None, None));
        assert_eq!(Record::new(b"full").text::<4>().as_deref(), Some("full"));
    }
}
