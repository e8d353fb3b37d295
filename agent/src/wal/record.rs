//! A record's header and checksum.

use std::io;

use super::segment::Segment;
use super::storage::StorageFile;

/// Bytes of a record's header.
pub(super) const HEADER: usize = 16;

/// What a record's header says.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Header {
    /// Bytes of payload.
    pub(super) length: u32,
    /// Items in the payload.
    pub(super) items: u32,
    /// The caller's kind.
    pub(super) kind: u8,
}

impl Header {
    /// Writes the header into the first bytes of `record`, whose payload follows them.
    pub(super) fn seal(&self, position: u64, record: &mut [u8]) {
        let (head, payload) = record.split_at_mut(HEADER);
        head[0..4].copy_from_slice(&self.length.to_le_bytes());
        head[4..8].copy_from_slice(&self.items.to_le_bytes());
        head[8..12].copy_from_slice(&[self.kind, 0, 0, 0]);
        let crc = checksum(position, &head[0..12], payload);
        head[12..16].copy_from_slice(&crc.to_le_bytes());
    }

    fn parse(head: &[u8; HEADER]) -> Option<(Header, u32)> {
        let [l0, l1, l2, l3, i0, i1, i2, i3, kind, 0, 0, 0, c0, c1, c2, c3] = *head else {
            return None;
        };
        let header = Header {
            length: u32::from_le_bytes([l0, l1, l2, l3]),
            items: u32::from_le_bytes([i0, i1, i2, i3]),
            kind,
        };
        Some((header, u32::from_le_bytes([c0, c1, c2, c3])))
    }
}

fn checksum(position: u64, head: &[u8], payload: &[u8]) -> u32 {
    let crc = crc32c::crc32c(&position.to_le_bytes());
    let crc = crc32c::crc32c_append(crc, head);
    crc32c::crc32c_append(crc, payload)
}

/// A header that could be read, and where its record ends.
struct Raw {
    header: Header,
    bytes: [u8; HEADER],
    crc: u32,
    next: u64,
}

fn raw_header(file: &impl StorageFile, segment: &Segment, at: u64) -> io::Result<Option<Raw>> {
    let mut bytes = [0; HEADER];
    if segment.good.saturating_sub(at) < HEADER as u64 || !file.read_exact_at(at, &mut bytes)? {
        return Ok(None);
    }
    let Some((header, crc)) = Header::parse(&bytes) else { return Ok(None) };
    let next = at + HEADER as u64 + u64::from(header.length);
    if next > segment.good {
        return Ok(None);
    }
    Ok(Some(Raw { header, bytes, crc, next }))
}

/// The header at byte `at` of a segment and the byte after its record, unchecked but for its bounds;
/// None at the end and where no header can stand.
///
/// # Errors
/// The file can't be read.
pub(super) fn header_at(
    file: &impl StorageFile,
    segment: &Segment,
    at: u64,
) -> io::Result<Option<(Header, u64)>> {
    Ok(raw_header(file, segment, at)?.map(|raw| (raw.header, raw.next)))
}

/// Reads and checks the record at byte `at` of a segment; None if it is incomplete or damaged. Returns
/// its header and the byte after it.
///
/// # Errors
/// The file can't be read.
pub(super) fn read_at(
    file: &impl StorageFile,
    segment: &Segment,
    at: u64,
    payload: &mut Vec<u8>,
) -> io::Result<Option<(Header, u64)>> {
    payload.clear();
    let Some(raw) = raw_header(file, segment, at)? else { return Ok(None) };
    payload.resize(raw.header.length as usize, 0);
    if !file.read_exact_at(at + HEADER as u64, payload)?
        || checksum(segment.base + at, &raw.bytes[0..12], payload) != raw.crc
    {
        payload.clear();
        return Ok(None);
    }
    Ok(Some((raw.header, raw.next)))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_record_is_pinned() {
        let mut record = vec![0; HEADER];
        record.extend_from_slice(b"abc");
        Header { length: 3, items: 7, kind: 2 }.seal(32, &mut record);
        assert_eq!(&record[..12], b"\x03\0\0\0\x07\0\0\0\x02\0\0\0");
        assert_eq!(record[12..16], 0x0aac_a141u32.to_le_bytes());
        assert_eq!(&record[16..], b"abc");
    }
}
