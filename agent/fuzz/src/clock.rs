//! The book of boots, and the stamps of held records.

use mote::clock::{Book, Stamp};

/// Either of them: a book's checksum is set right if the first byte is odd.
pub fn clock(data: &[u8]) {
    let Some((flags, rest)) = data.split_first() else { return };
    let mut bytes = rest.to_vec();
    if flags & 1 != 0
        && let Some(body) = bytes.len().checked_sub(4)
    {
        let crc = crc32c::crc32c(&bytes[..body]);
        bytes[body..].copy_from_slice(&crc.to_le_bytes());
    }
    if let Some(book) = Book::from_bytes(&bytes) {
        assert_eq!(book.to_bytes(), bytes, "one meaning, one form");
    }
    let whole = bytes.clone();
    if let Some(stamp) = Stamp::take(&mut bytes) {
        let mut again = Vec::new();
        stamp.put(&mut again);
        again.extend_from_slice(&bytes);
        assert_eq!(again, whole);
        let (time, real) = (stamp.from_ms, stamp.before_ms);
        let _ = (stamp.real_ms(time, real), stamp.real_ns(real, time, stamp.to_ms));
    }
}
