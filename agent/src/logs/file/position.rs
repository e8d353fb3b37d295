//! How far the files of one path have been read, as bytes that are written beside the lines.
//!
//! A position covers every file that is being read under one path: in the middle of a rotation these
//! are the old file, which has another name by then, and the new one. Its key is `file:` and the
//! path. Since both stand in one position, no crash can separate them.
//!
//! Layout, little-endian: one byte with the version, 1; then 1 to 64 records of 32 bytes, the oldest
//! file first.
//!
//! | bytes | what |
//! |---|---|
//! | 0..8 | device (`st_dev`) |
//! | 8..16 | inode (`st_ino`) |
//! | 16..24 | offset of the first byte that has not been read |
//! | 24..28 | CRC32C of the file's first bytes |
//! | 28..30 | how many first bytes that covers, 0 to 256 |
//! | 30 | flags: bit 0 = the offset is inside an overlong line, whose rest is to be skipped |
//! | 31 | 0 |
//!
//! Anything else is malformed and read as no position at all. The module must not know how files are
//! found or read.

use std::fmt;

/// How many first bytes of a file tell it from another that has its inode.
pub(super) const HEAD: usize = 256;
/// How many files one path may have at once.
pub(super) const MAX_RECORDS: usize = 64;

const VERSION: u8 = 1;
const RECORD: usize = 32;
const SKIPPING: u8 = 1;

/// What tells a file from all others while it exists.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub(super) struct Identity {
    pub(super) device: u64,
    pub(super) inode: u64,
}

/// The beginning of a file: tells a file from a later one with the same inode.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(super) struct Head {
    crc: u32,
    len: u16,
}

impl Head {
    /// Of a file that starts so; bytes beyond [`HEAD`] don't count.
    pub(super) fn of(first: &[u8]) -> Head {
        let first = first.get(..HEAD).unwrap_or(first);
        // At most HEAD, which fits.
        Head { crc: crc32c::crc32c(first), len: first.len() as u16 }
    }

    /// Whether a file that starts so can be the one that this was made of: files grow at the end.
    pub(super) fn matches(self, first: &[u8]) -> bool {
        first.get(..usize::from(self.len)).is_some_and(|own| Head::of(own) == self)
    }

    /// Whether nothing is known of the file's beginning, so that everything matches.
    pub(super) fn is_empty(self) -> bool {
        self.len == 0
    }

    /// How many bytes it covers.
    pub(super) fn len(self) -> usize {
        usize::from(self.len)
    }
}

/// One file's part of a position.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Record {
    pub(super) identity: Identity,
    pub(super) offset: u64,
    pub(super) head: Head,
    pub(super) skipping: bool,
}

impl Record {
    /// Whether nothing but the inode tells the file from others.
    pub(super) fn is_blank(&self) -> bool {
        self.head.is_empty()
    }
}

/// Why bytes are no position.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum PositionError {
    /// Another version, or no byte at all.
    Version(Option<u8>),
    /// The length is not that of 1 to 64 records.
    Length(usize),
    /// A record (counted from 0) with a head of more than 256 bytes, or with unknown flags.
    Record(usize),
}

impl fmt::Display for PositionError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            PositionError::Version(Some(version)) => {
                write!(f, "version {version} where {VERSION} is known")
            }
            PositionError::Version(None) => f.write_str("no bytes"),
            PositionError::Length(len) => write!(f, "{len} bytes, which is no count of records"),
            PositionError::Record(index) => write!(f, "record {index} has unknown bits"),
        }
    }
}

impl std::error::Error for PositionError {}

/// Writes a position over whatever `out` holds. Beyond [`MAX_RECORDS`] the oldest are left out.
pub(super) fn encode(records: impl ExactSizeIterator<Item = Record>, out: &mut Vec<u8>) {
    out.clear();
    out.push(VERSION);
    let skip = records.len().saturating_sub(MAX_RECORDS);
    for record in records.skip(skip) {
        out.extend_from_slice(&record.identity.device.to_le_bytes());
        out.extend_from_slice(&record.identity.inode.to_le_bytes());
        out.extend_from_slice(&record.offset.to_le_bytes());
        out.extend_from_slice(&record.head.crc.to_le_bytes());
        out.extend_from_slice(&record.head.len.to_le_bytes());
        out.extend_from_slice(&[if record.skipping { SKIPPING } else { 0 }, 0]);
    }
}

/// Reads a position.
///
/// # Errors
/// Bytes that [`encode`] does not write.
pub(super) fn decode(bytes: &[u8]) -> Result<Vec<Record>, PositionError> {
    let Some((&version, records)) = bytes.split_first() else {
        return Err(PositionError::Version(None));
    };
    if version != VERSION {
        return Err(PositionError::Version(Some(version)));
    }
    let (records, rest) = records.as_chunks::<RECORD>();
    if !rest.is_empty() || records.is_empty() || records.len() > MAX_RECORDS {
        return Err(PositionError::Length(bytes.len()));
    }
    let read = |(index, bytes)| record(bytes).ok_or(PositionError::Record(index));
    records.iter().enumerate().map(read).collect()
}

fn record(bytes: &[u8; RECORD]) -> Option<Record> {
    let u64_at = |at: usize| Some(u64::from_le_bytes(*bytes.get(at..)?.first_chunk()?));
    let head = Head {
        crc: u32::from_le_bytes(*bytes.get(24..)?.first_chunk()?),
        len: u16::from_le_bytes(*bytes.get(28..)?.first_chunk()?),
    };
    let [.., flags, zero] = *bytes;
    (head.len() <= HEAD && flags & !SKIPPING == 0 && zero == 0).then_some(Record {
        identity: Identity { device: u64_at(0)?, inode: u64_at(8)? },
        offset: u64_at(16)?,
        head,
        skipping: flags == SKIPPING,
    })
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn sample() -> [Record; 2] {
        let identity = |inode| Identity { device: 0x0102, inode };
        [
            Record {
                identity: identity(0x0a0b_0c0d),
                offset: 0x1_0000_0001,
                head: Head::of(b"123456789"),
                skipping: true,
            },
            Record { identity: identity(7), offset: 0, head: Head::default(), skipping: false },
        ]
    }

    #[test]
    fn the_bytes_are_these() {
        let mut bytes = Vec::new();
        encode(sample().into_iter(), &mut bytes);
        #[rustfmt::skip]
        let expected = [
            1,
            0x02, 0x01, 0, 0, 0, 0, 0, 0,
            0x0d, 0x0c, 0x0b, 0x0a, 0, 0, 0, 0,
            0x01, 0, 0, 0, 0x01, 0, 0, 0,
            // CRC-32C's published check value of "123456789" is e3069283.
            0x83, 0x92, 0x06, 0xe3,
            9, 0,
            1, 0,
            0x02, 0x01, 0, 0, 0, 0, 0, 0,
            7, 0, 0, 0, 0, 0, 0, 0,
            0, 0, 0, 0, 0, 0, 0, 0,
            0, 0, 0, 0,
            0, 0,
            0, 0,
        ];
        assert_eq!(bytes, expected);
        assert_eq!(decode(&bytes).unwrap(), sample());
    }

    #[test]
    fn malformed_positions_are_errors() {
        let mut good = Vec::new();
        encode(sample().into_iter(), &mut good);
        assert_eq!(decode(&[]), Err(PositionError::Version(None)));
        assert_eq!(decode(&[2]), Err(PositionError::Version(Some(2))));
        assert_eq!(decode(&good[..1]), Err(PositionError::Length(1)));
        assert_eq!(decode(&good[..64]), Err(PositionError::Length(64)));
        assert_eq!(decode(&[&[1][..], &[0; 65 * 32]].concat()), Err(PositionError::Length(2081)));
        for (at, byte) in [(32 + 30, 2), (32 + 31, 2), (32 + 32, 1)] {
            let mut bad = good.clone();
            bad[at] = byte;
            assert_eq!(decode(&bad), Err(PositionError::Record(1)), "byte {at}");
        }
    }

    #[test]
    fn too_many_files_lose_the_oldest_only() {
        let many =
            (0..70).map(|inode| Record { identity: Identity { device: 1, inode }, ..sample()[1] });
        let mut bytes = Vec::new();
        encode(many.collect::<Vec<_>>().into_iter(), &mut bytes);
        let read = decode(&bytes).unwrap();
        assert_eq!((read.len(), read[0].identity.inode, read[63].identity.inode), (64, 6, 69));
    }

    #[test]
    fn a_head_matches_what_has_grown_and_nothing_else() {
        let head = Head::of(b"abc");
        assert!(head.matches(b"abc") && head.matches(b"abcd"));
        assert!(!head.matches(b"ab") && !head.matches(b"abd") && !head.matches(b""));
        assert!(Head::default().matches(b"anything"));
        let long = vec![b'x'; 300];
        assert!(Head::of(&long).matches(&long[..HEAD]));
    }

    proptest! {
        #[test]
        fn arbitrary_bytes_decode_to_what_encodes_to_them(
            mut bytes in proptest::collection::vec(any::<u8>(), 0..200),
            plausible: bool,
        ) {
            if plausible && !bytes.is_empty() {
                bytes[0] = 1;
                bytes.truncate(1 + (bytes.len() - 1) / 32 * 32);
                for record in bytes[1..].chunks_mut(32) {
                    record[29] &= 1;
                    record[30] &= 1;
                    record[31] = 0;
                }
            }
            if let Ok(records) = decode(&bytes) {
                let mut again = Vec::new();
                encode(records.into_iter(), &mut again);
                prop_assert_eq!(again, bytes);
            }
        }
    }
}
