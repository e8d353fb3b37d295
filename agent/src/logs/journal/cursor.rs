//! What has been read, as bytes that are written beside the entries.
//!
//! journalctl's cursor is one entry. That is exact within one sequence of numbers; with several (other
//! machines' files, a journal begun anew after damage, the volatile one before it is flushed) entries
//! that come late would be missed. So a cursor is the last entry of each sequence, the one that was
//! read last first; at most 16, the ones that were read longest ago are given up.
//!
//! Layout, little-endian: one byte with the version, 1; one with the count of points, 1 to 16; 65 bytes
//! for each:
//!
//! | bytes | what |
//! |---|---|
//! | 0..16 | id of the sequence |
//! | 16..32 | id of the boot |
//! | 32..40 | number in the sequence |
//! | 40..48 | microseconds since the boot |
//! | 48..56 | microseconds since 1970 |
//! | 56..64 | hash over the entry's data |
//! | 64 | bit 0: from the volatile journal |
//!
//! Anything else is malformed. The module must not know files.

use super::order::{Key, Point};

const VERSION: u8 = 1;
const POINT: usize = 65;
pub(super) const MAX_POINTS: usize = 16;

/// A position in the journal: after the last entry of each sequence.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Cursor {
    /// The last one read first; never empty.
    pub(super) points: Vec<Point>,
}

impl Cursor {
    /// As bytes.
    #[must_use]
    pub fn to_bytes(&self) -> Vec<u8> {
        let mut bytes = Vec::with_capacity(2 + POINT * self.points.len());
        // At most MAX_POINTS, which fits.
        bytes.extend([VERSION, self.points.len() as u8]);
        for Point { key, volatile } in &self.points {
            bytes.extend_from_slice(&key.seqnum_id);
            bytes.extend_from_slice(&key.boot_id);
            for number in [key.seqnum, key.monotonic, key.realtime, key.xor_hash] {
                bytes.extend_from_slice(&number.to_le_bytes());
            }
            bytes.push(u8::from(*volatile));
        }
        bytes
    }

    /// Of what [`Cursor::to_bytes`] made; `None` if it is something else.
    #[must_use]
    pub fn from_bytes(bytes: &[u8]) -> Option<Cursor> {
        let (&[version, count], rest) = bytes.split_first_chunk::<2>()?;
        let count = usize::from(count);
        if version != VERSION || !(1..=MAX_POINTS).contains(&count) || rest.len() != count * POINT {
            return None;
        }
        let mut points: Vec<Point> = Vec::with_capacity(count);
        for record in rest.chunks_exact(POINT) {
            let (seqnum_id, record) = record.split_first_chunk::<16>()?;
            let (boot_id, record) = record.split_first_chunk::<16>()?;
            let (seqnum, record) = record.split_first_chunk::<8>()?;
            let (monotonic, record) = record.split_first_chunk::<8>()?;
            let (realtime, record) = record.split_first_chunk::<8>()?;
            let (xor_hash, record) = record.split_first_chunk::<8>()?;
            let volatile = match record {
                [0] => false,
                [1] => true,
                _ => return None,
            };
            let number = |bytes: &[u8; 8]| u64::from_le_bytes(*bytes);
            let key = Key {
                seqnum_id: *seqnum_id,
                boot_id: *boot_id,
                seqnum: number(seqnum),
                monotonic: number(monotonic),
                realtime: number(realtime),
                xor_hash: number(xor_hash),
            };
            if points.iter().any(|have| have.key.seqnum_id == key.seqnum_id) {
                return None;
            }
            points.push(Point { key, volatile });
        }
        Some(Cursor { points })
    }

    /// When the last entry was written, in microseconds since 1970.
    #[must_use]
    pub fn realtime_us(&self) -> u64 {
        self.points.first().map_or(0, |point| point.key.realtime)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn cursor() -> Cursor {
        let key = |id: u8| Key {
            seqnum_id: [id; 16],
            boot_id: [id + 1; 16],
            seqnum: 0x0102,
            monotonic: 0x0304,
            realtime: 0x0506,
            xor_hash: 0x0708,
        };
        Cursor {
            points: vec![
                Point { key: key(7), volatile: false },
                Point { key: key(9), volatile: true },
            ],
        }
    }

    #[test]
    fn the_bytes_are_these() {
        let numbers =
            b"\x02\x01\0\0\0\0\0\0\x04\x03\0\0\0\0\0\0\x06\x05\0\0\0\0\0\0\x08\x07\0\0\0\0\0\0";
        let mut bytes = vec![1, 2];
        for (id, volatile) in [(7, 0), (9, 1)] {
            bytes.extend([id; 16]);
            bytes.extend([id + 1; 16]);
            bytes.extend(numbers);
            bytes.push(volatile);
        }
        assert_eq!(cursor().to_bytes(), bytes);
        assert_eq!(Cursor::from_bytes(&bytes), Some(cursor()));
        assert_eq!(cursor().realtime_us(), 0x0506);
    }

    #[test]
    fn what_is_no_cursor_is_none() {
        let good = cursor().to_bytes();
        for len in 0..good.len() {
            assert_eq!(Cursor::from_bytes(&good[..len]), None, "{len}");
        }
        for (at, byte) in [(0, 2), (1, 0), (1, 1), (1, 17), (66, 2), (131, 255)] {
            let mut bytes = good.clone();
            bytes[at] = byte;
            assert_eq!(Cursor::from_bytes(&bytes), None, "{at}");
        }
        let mut longer = good.clone();
        longer.push(0);
        assert_eq!(Cursor::from_bytes(&longer), None);
        let mut twice = good;
        twice[67..83].fill(7);
        assert_eq!(Cursor::from_bytes(&twice), None);
    }
}
