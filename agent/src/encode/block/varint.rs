//! Numbers in as few bytes as they need: LEB128, 7 bits a byte, the lowest first, the top bit set in all
//! but the last. What [`put`] does not write (more bytes than needed, more than 64 bits) is malformed, so
//! that a number has one form. It must not know what is counted.

use super::super::bytes::{DecodeError, Reader};

/// Appends a number: 1 to 10 bytes.
pub(super) fn put(out: &mut Vec<u8>, mut value: u64) {
    while value >= 0x80 {
        out.push(value as u8 | 0x80);
        value >>= 7;
    }
    out.push(value as u8);
}

/// Appends bytes with their number before them.
pub(super) fn put_bytes(out: &mut Vec<u8>, bytes: &[u8]) {
    put(out, bytes.len() as u64);
    out.extend_from_slice(bytes);
}

/// Reads what [`put`] wrote.
pub(super) fn read(reader: &mut Reader<'_>, expected: &'static str) -> Result<u64, DecodeError> {
    let mut value = 0;
    for shift in (0..64).step_by(7) {
        let byte = reader.u8(expected)?;
        let bits = u64::from(byte & 0x7f);
        // The tenth byte holds the 64th bit only; a last byte of 0 says nothing.
        if (shift == 63 && byte > 1) || (shift > 0 && byte == 0) {
            break;
        }
        value |= bits << shift;
        if byte & 0x80 == 0 {
            return Ok(value);
        }
    }
    Err(reader.error(expected))
}

/// Reads what [`put_bytes`] wrote.
pub(super) fn read_bytes<'a>(
    reader: &mut Reader<'a>,
    expected: &'static str,
) -> Result<&'a [u8], DecodeError> {
    let len = read(reader, expected)?;
    // A length beyond the address space is beyond the record as well.
    reader.take(usize::try_from(len).unwrap_or(usize::MAX), expected)
}

/// Reads UTF-8 that [`put_bytes`] wrote.
pub(super) fn read_text<'a>(
    reader: &mut Reader<'a>,
    expected: &'static str,
) -> Result<&'a str, DecodeError> {
    let bytes = read_bytes(reader, expected)?;
    std::str::from_utf8(bytes).map_err(|_| reader.error("UTF-8"))
}

/// A difference so that small ones of either sign are small numbers: 0, -1, 1, -2 are 0, 1, 2, 3.
pub(super) fn zigzag(value: i64) -> u64 {
    ((value << 1) ^ (value >> 63)) as u64
}

/// The difference that [`zigzag`] made a number of.
pub(super) fn unzigzag(value: u64) -> i64 {
    (value >> 1) as i64 ^ -((value & 1) as i64)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn read_all(bytes: &[u8]) -> Result<u64, DecodeError> {
        let mut reader = Reader::new(bytes);
        let value = read(&mut reader, "a number")?;
        reader.end().map(|()| value)
    }

    #[test]
    fn numbers_come_back_in_as_few_bytes_as_they_need() {
        for (value, len) in
            [(0, 1), (0x7f, 1), (0x80, 2), (0x3fff, 2), (0x4000, 3), (1 << 63, 10), (u64::MAX, 10)]
        {
            let mut out = Vec::new();
            put(&mut out, value);
            assert_eq!((out.len(), read_all(&out)), (len, Ok(value)));
        }
        for value in [0, -1, 1, -2, i64::MAX, i64::MIN] {
            assert_eq!(unzigzag(zigzag(value)), value);
        }
        assert_eq!([0, -1, 1, -2, i64::MIN].map(zigzag), [0, 1, 2, 3, u64::MAX]);
    }

    #[test]
    fn numbers_that_are_too_long_too_large_or_cut_are_errors() {
        let mut eleven = vec![0xff; 10];
        eleven.push(0);
        let mut sixty_five_bits = vec![0xff; 9];
        sixty_five_bits.push(2);
        for bad in [&[][..], &[0x80], &[0x80, 0], &[0xff, 0x80, 0], &eleven, &sixty_five_bits] {
            assert!(read_all(bad).is_err(), "{bad:?}");
        }
        assert!(read_bytes(&mut Reader::new(&[0xff, 0xff, 0xff, 0xff, 0x7f, 1]), "x").is_err());
    }
}
