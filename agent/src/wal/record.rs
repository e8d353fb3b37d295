//! A record's header and checksums, and the search for the next record behind damage.

use std::io;

use super::options::MAX_RECORD;
use super::storage::StorageFile;

/// Bytes of a record's header.
pub(super) const HEADER: usize = 24;

/// Flag: everything before this record was synced when it was written. Damage before such a record is
/// not what a power cut left of unsynced writes.
pub(super) const SYNCED_BEFORE: u8 = 1;

/// The bit of a record's kind that says that nobody vouches for its time: see [`super::UNTIMED`].
pub(super) const UNTIMED: u8 = 0x80;

/// Bytes that the search for a record looks at in one read.
const SEARCH: usize = 64 << 10;

/// What a record's header says.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Header {
    /// Bytes of payload.
    pub(super) length: u32,
    /// Items in the payload.
    pub(super) items: u32,
    /// The time of its data, in milliseconds since the Unix epoch.
    pub(super) time_ms: i64,
    /// The caller's kind, never 0: a file that ends in zeros has no records in them.
    pub(super) kind: u8,
    /// [`SYNCED_BEFORE`] or 0.
    pub(super) flags: u8,
}

impl Header {
    /// Writes the header into the first bytes of `record`, whose payload follows them.
    pub(super) fn seal(&self, position: u64, record: &mut [u8]) {
        let (head, payload) = record.split_at_mut(HEADER);
        head[0..4].copy_from_slice(&self.length.to_le_bytes());
        head[4..8].copy_from_slice(&self.items.to_le_bytes());
        head[8..16].copy_from_slice(&self.time_ms.to_le_bytes());
        head[16..18].copy_from_slice(&[self.kind, self.flags]);
        let check = check(position, &head[0..18]);
        head[18..20].copy_from_slice(&check.to_le_bytes());
        let crc = checksum(position, &head[0..20], payload);
        head[20..24].copy_from_slice(&crc.to_le_bytes());
    }

    /// The header and the record's checksum; None if it is none for this position.
    pub(super) fn parse(head: &[u8; HEADER], position: u64) -> Option<(Header, u32)> {
        let [l0, l1, l2, l3, i0, i1, i2, i3, rest @ ..] = *head;
        let [t0, t1, t2, t3, t4, t5, t6, t7, kind, flags, k0, k1, c0, c1, c2, c3] = rest;
        let header = Header {
            length: u32::from_le_bytes([l0, l1, l2, l3]),
            items: u32::from_le_bytes([i0, i1, i2, i3]),
            time_ms: i64::from_le_bytes([t0, t1, t2, t3, t4, t5, t6, t7]),
            kind,
            flags,
        };
        let plausible = kind != 0
            && flags <= SYNCED_BEFORE
            && u64::from(header.length) <= MAX_RECORD
            && u16::from_le_bytes([k0, k1]) == check(position, &head[0..18]);
        plausible.then_some((header, u32::from_le_bytes([c0, c1, c2, c3])))
    }

    /// Its time, unless nobody vouches for it.
    pub(super) fn time(&self) -> Option<i64> {
        (self.kind & UNTIMED == 0).then_some(self.time_ms)
    }

    /// Bytes of the whole record.
    pub(super) fn record_bytes(&self) -> u64 {
        HEADER as u64 + u64::from(self.length)
    }
}

/// Half a checksum of the header alone, so that a damaged payload does not hide the next record and the
/// search behind a damaged header rarely reads a payload in vain.
fn check(position: u64, head: &[u8]) -> u16 {
    crc32c::crc32c_append(crc32c::crc32c(&position.to_le_bytes()), head) as u16
}

fn checksum(position: u64, head: &[u8], payload: &[u8]) -> u32 {
    let crc = crc32c::crc32c(&position.to_le_bytes());
    let crc = crc32c::crc32c_append(crc, head);
    crc32c::crc32c_append(crc, payload)
}

/// What stands at a place of a segment.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Found {
    /// A whole record.
    Good(Header),
    /// A header whose record ends inside the segment and is damaged.
    BadPayload(Header),
    /// No header.
    None,
}

/// Bytes that can be read at an offset.
pub(super) trait ReadAt {
    /// Fills `buffer` from `offset`; false if there is less.
    ///
    /// # Errors
    /// The system's.
    fn read_at(&self, offset: u64, buffer: &mut [u8]) -> io::Result<bool>;
}

impl<F: StorageFile> ReadAt for F {
    fn read_at(&self, offset: u64, buffer: &mut [u8]) -> io::Result<bool> {
        self.read_exact_at(offset, buffer)
    }
}

/// The records of a segment: its file, its position, and where its records end at most.
#[derive(Debug)]
pub(super) struct View<'a, F> {
    pub(super) file: &'a F,
    pub(super) base: u64,
    pub(super) end: u64,
}

/// What a card may fail to read while it reads what is beside it, in bytes.
const BLOCK: usize = 4 << 10;

impl<F: ReadAt> View<'_, F> {
    /// Fills `buffer` from `at`, with zeros in place of blocks that the device can't read: damage, as far as
    /// a record is concerned. False if the file ends before.
    fn fill(&self, at: u64, buffer: &mut [u8]) -> io::Result<bool> {
        let is_device = |e: &io::Error| e.raw_os_error() == Some(libc::EIO);
        match self.file.read_at(at, buffer) {
            Err(error) if is_device(&error) => {}
            other => return other,
        }
        let mut place = at;
        for block in buffer.chunks_mut(BLOCK) {
            match self.file.read_at(place, block) {
                Ok(true) => {}
                Ok(false) => return Ok(false),
                Err(error) if is_device(&error) => block.fill(0),
                Err(error) => return Err(error),
            }
            place += block.len() as u64;
        }
        Ok(true)
    }

    fn raw(&self, at: u64) -> io::Result<Option<([u8; HEADER], Header, u32)>> {
        let mut bytes = [0; HEADER];
        if self.end.saturating_sub(at) < HEADER as u64 || !self.file.read_at(at, &mut bytes)? {
            return Ok(None);
        }
        let Some((header, crc)) = Header::parse(&bytes, self.base + at) else { return Ok(None) };
        if at + header.record_bytes() > self.end {
            return Ok(None);
        }
        Ok(Some((bytes, header, crc)))
    }

    /// The header at byte `at`, without a look at its payload.
    ///
    /// # Errors
    /// The file can't be read.
    pub(super) fn header(&self, at: u64) -> io::Result<Option<Header>> {
        Ok(self.raw(at)?.map(|(_, header, _)| header))
    }

    /// Reads and checks what stands at byte `at`; `payload` is the record's if it is good, and else
    /// empty.
    ///
    /// # Errors
    /// The file can't be read.
    pub(super) fn read(&self, at: u64, payload: &mut Vec<u8>) -> io::Result<Found> {
        payload.clear();
        let Some((bytes, header, crc)) = self.raw(at)? else { return Ok(Found::None) };
        payload.resize(header.length as usize, 0);
        if self.fill(at + HEADER as u64, payload)?
            && checksum(self.base + at, &bytes[0..20], payload) == crc
        {
            return Ok(Found::Good(header));
        }
        payload.clear();
        Ok(Found::BadPayload(header))
    }

    /// Where the next good record stands, at byte `from` or behind it.
    ///
    /// # Errors
    /// The file can't be read.
    pub(super) fn search(&self, from: u64, payload: &mut Vec<u8>) -> io::Result<Option<u64>> {
        let mut window = vec![0; SEARCH];
        let mut at = from;
        // Bytes that only look like headers make it read in vain. Chance does that rarely; what is made to
        // is not worth more.
        let mut budget = 4 * self.end.saturating_sub(from);
        while self.end.saturating_sub(at) >= HEADER as u64 {
            let len = (self.end - at).min(SEARCH as u64) as usize;
            let Some(window) = window.get_mut(..len) else { break };
            if !self.fill(at, window)? {
                return Ok(None);
            }
            for (offset, head) in window.array_windows::<HEADER>().enumerate() {
                let place = at + offset as u64;
                let Some((header, _)) = Header::parse(head, self.base + place) else { continue };
                if place + header.record_bytes() > self.end {
                    continue;
                }
                if let Found::Good(_) = self.read(place, payload)? {
                    return Ok(Some(place));
                }
                let Some(left) = budget.checked_sub(header.record_bytes()) else {
                    return Ok(None);
                };
                budget = left;
            }
            at += (len - HEADER + 1) as u64;
        }
        Ok(None)
    }

    /// The byte behind the last one that is not zero; `from` if there is none behind it.
    ///
    /// # Errors
    /// The file can't be read.
    pub(super) fn last_nonzero(&self, from: u64) -> io::Result<u64> {
        let mut window = vec![0; SEARCH];
        let (mut at, mut last) = (from, from);
        while at < self.end {
            let len = (self.end - at).min(SEARCH as u64) as usize;
            let Some(window) = window.get_mut(..len) else { break };
            if !self.fill(at, window)? {
                break;
            }
            if let Some(offset) = window.iter().rposition(|byte| *byte != 0) {
                last = at + offset as u64 + 1;
            }
            at += len as u64;
        }
        Ok(last)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_record_is_pinned_and_every_flipped_bit_is_noticed() {
        let header = Header { length: 3, items: 7, time_ms: 258, kind: 2, flags: SYNCED_BEFORE };
        let mut record = vec![0; HEADER];
        record.extend_from_slice(b"abc");
        header.seal(32, &mut record);
        assert_eq!(&record[..18], b"\x03\0\0\0\x07\0\0\0\x02\x01\0\0\0\0\0\0\x02\x01");
        assert_eq!(&record[18..20], PINNED_CHECK.to_le_bytes());
        assert_eq!(record[20..24], PINNED_CRC.to_le_bytes());
        assert_eq!(&record[24..], b"abc");
        let head = |record: &[u8]| *record.first_chunk::<HEADER>().unwrap();
        assert_eq!(Header::parse(&head(&record), 32).unwrap().0, header);
        assert_eq!(Header::parse(&head(&record), 33), None, "the position counts");
        for bit in 0..18 * 8 {
            let mut bad = record.clone();
            bad[bit / 8] ^= 1 << (bit % 8);
            assert_eq!(Header::parse(&head(&bad), 32), None, "bit {bit}");
        }
        assert_eq!(Header::parse(&[0; HEADER], 0), None);
    }

    const PINNED_CHECK: u16 = 0xcb03;
    const PINNED_CRC: u32 = 0x5469_3aa9;
}
