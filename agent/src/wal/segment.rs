//! A segment's name, header and extent.

use std::fmt::Write as _;

use super::record::View;

/// Bytes of a segment's header.
pub(super) const HEADER: usize = 32;

const MAGIC: &[u8; 8] = b"MOTE-WAL";
/// The format version, of all files.
pub(super) const VERSION: u16 = 2;
const SUFFIX: &str = ".wal";

/// No log gets so far; a file that says so is damaged or forged, and sums of positions would overflow.
pub(super) const MAX_POSITION: u64 = 1 << 63;

/// A segment file as the log knows it.
#[derive(Clone, Copy, Debug)]
pub(super) struct Segment {
    /// Its position: that of its first byte.
    pub(super) base: u64,
    /// Bytes up to where its records end, header included.
    pub(super) len: u64,
    /// Bytes of the file: the records, and zeros behind them while it is written to.
    pub(super) size: u64,
    /// The time of its first record in milliseconds since the Unix epoch; None if that is damaged, or nobody
    /// vouches for its time.
    pub(super) first_ms: Option<i64>,
    /// The byte up to which damage has been counted.
    pub(super) counted: u64,
}

impl Segment {
    pub(super) fn new(base: u64, len: u64) -> Segment {
        Segment { base, len, size: len, first_ms: None, counted: 0 }
    }

    /// The position after its last record.
    pub(super) fn end(&self) -> u64 {
        self.base + self.len
    }

    /// Its records in its file.
    pub(super) fn view<'a, F>(&self, file: &'a F) -> View<'a, F> {
        View { file, base: self.base, end: self.len }
    }
}

/// The file name of the segment at `base`.
pub(super) fn name(base: u64) -> String {
    name_of(base).as_str().to_owned()
}

/// The same without memory of its own, for what is done with each record.
pub(super) fn name_of(base: u64) -> heapless::String<20> {
    let mut name = heapless::String::new();
    // 16 digits and the suffix: there is room.
    let _ = write!(name, "{base:016x}{SUFFIX}");
    name
}

/// The inverse of [`name`]; None for what is no segment's name.
pub(super) fn parse_name(name: &str) -> Option<u64> {
    let digits = name.strip_suffix(SUFFIX)?;
    let canonical =
        digits.len() == 16 && digits.bytes().all(|b| matches!(b, b'0'..=b'9' | b'a'..=b'f'));
    if canonical { u64::from_str_radix(digits, 16).ok() } else { None }
}

/// The header of a segment.
pub(super) fn header(base: u64, content: u32) -> [u8; HEADER] {
    let mut bytes = [0; HEADER];
    bytes[0..8].copy_from_slice(MAGIC);
    bytes[8..10].copy_from_slice(&VERSION.to_le_bytes());
    bytes[10..12].copy_from_slice(&(HEADER as u16).to_le_bytes());
    bytes[12..16].copy_from_slice(&content.to_le_bytes());
    bytes[16..24].copy_from_slice(&base.to_le_bytes());
    let crc = crc32c::crc32c(&bytes[0..28]);
    bytes[28..32].copy_from_slice(&crc.to_le_bytes());
    bytes
}

/// What a header says that its log holds.
pub(super) fn content(bytes: &[u8; HEADER]) -> u32 {
    u32::from_le_bytes([bytes[12], bytes[13], bytes[14], bytes[15]])
}

/// Why a file that is named as a segment is not one of this log's.
///
/// # Errors
/// What is wrong with it, for the log line.
pub(super) fn check(bytes: &[u8; HEADER], base: u64, content: u32) -> Result<(), &'static str> {
    if &bytes[0..8] != MAGIC {
        return Err("it does not begin as a segment does");
    }
    if bytes[8..10] != VERSION.to_le_bytes() {
        return Err("its format version is not 2");
    }
    if *bytes != header(base, content) {
        return Err("its header is damaged or belongs to another log");
    }
    if base > MAX_POSITION {
        return Err("its position is one that no log reaches");
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn header_is_pinned() {
        let bytes = header(0x0102_0304_0506_0708, 2);
        assert_eq!(
            &bytes[..28],
            b"MOTE-WAL\x02\x00\x20\x00\x02\0\0\0\x08\x07\x06\x05\x04\x03\x02\x01\0\0\0\0"
        );
        assert_eq!(bytes[28..32], 0x1d0c_1f36u32.to_le_bytes());
    }

    #[test]
    fn only_canonical_names_are_segments() {
        assert_eq!(parse_name(&name(0xabc)), Some(0xabc));
        assert_eq!(parse_name("0000000000000ABC.wal"), None);
        assert_eq!(parse_name("abc.wal"), None);
        assert_eq!(parse_name("+000000000000abc.wal"), None);
        assert_eq!(parse_name("0000000000000abc.wal.aside"), None);
    }

    #[test]
    fn every_flipped_bit_of_a_header_is_noticed() {
        let good = header(64, 1);
        for bit in 0..HEADER * 8 {
            let mut bad = good;
            bad[bit / 8] ^= 1 << (bit % 8);
            assert!(check(&bad, 64, 1).is_err(), "bit {bit}");
        }
        assert!(check(&good, 64, 1).is_ok());
        assert!(check(&good, 65, 1).is_err());
        assert!(check(&good, 64, 2).is_err());
    }

    #[test]
    fn a_position_near_the_end_of_numbers_is_refused() {
        for base in [MAX_POSITION + 1, u64::MAX] {
            assert!(check(&header(base, 1), base, 1).is_err(), "{base}");
        }
        assert!(check(&header(MAX_POSITION, 1), MAX_POSITION, 1).is_ok());
    }
}
