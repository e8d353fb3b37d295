//! How far the files of one path have been read, as bytes that are written beside the lines.
//!
//! A position covers every file that is being read under one path: in the middle of a rotation these
//! are the old file, which has another name by then, and the new one. Its key is `file:` and the
//! path. Since both stand in one position, no crash can separate them.
//!
//! Layout, little-endian: one byte with the version, 2; then 1 to 64 records of 56 bytes, the oldest
//! file first.
//!
//! | bytes | what |
//! |---|---|
//! | 0..8 | device (`st_dev`) |
//! | 8..16 | inode (`st_ino`) |
//! | 16..24 | offset of the first byte that has not been read |
//! | 24..32 | the largest size seen: what is beyond the offset is lost with the file |
//! | 32..40 | when the file had last been written to as it was read, ns since 1970; 0: not known |
//! | 40..44 | CRC32C of the file's first bytes |
//! | 44..48 | CRC32C of the bytes before the offset |
//! | 48..50 | how many first bytes the former covers, 0 to 256 |
//! | 50..52 | how many bytes before the offset the latter covers, 0 to 256 |
//! | 52 | flags: bit 0 = the offset is inside an overlong line, whose rest is to be skipped |
//! | 53..56 | 0 |
//!
//! Version 1 is read too: 32 bytes, 0..24 the same, then CRC and length of the first bytes, the flags
//! and 0.
//!
//! Anything else is malformed and read as no position at all. The module must not know how files are
//! found or read.

use std::fmt;

/// How many first bytes of a file tell it from another that has its inode.
pub(super) const HEAD: usize = 256;
/// How many files one path may have at once.
pub(super) const MAX_RECORDS: usize = 64;

const VERSION: u8 = 2;
const RECORD: usize = 56;
const VERSION_1: u8 = 1;
const RECORD_1: usize = 32;
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

    /// Of the bytes that end so; those beyond the last [`HEAD`] don't count.
    pub(super) fn of_end(bytes: &[u8]) -> Head {
        Head::of(bytes.get(bytes.len().saturating_sub(HEAD)..).unwrap_or_default())
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
    /// The largest size seen.
    pub(super) seen: u64,
    /// When the file had last been written to as it was read; 0: not known.
    pub(super) modified_ns: i64,
    pub(super) head: Head,
    /// The bytes before the offset.
    pub(super) tail: Head,
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
        out.extend_from_slice(&record.seen.to_le_bytes());
        out.extend_from_slice(&record.modified_ns.to_le_bytes());
        out.extend_from_slice(&record.head.crc.to_le_bytes());
        out.extend_from_slice(&record.tail.crc.to_le_bytes());
        out.extend_from_slice(&record.head.len.to_le_bytes());
        out.extend_from_slice(&record.tail.len.to_le_bytes());
        out.extend_from_slice(&[if record.skipping { SKIPPING } else { 0 }, 0, 0, 0]);
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
    match version {
        VERSION => all(records, record),
        VERSION_1 => all(records, record_1),
        _ => Err(PositionError::Version(Some(version))),
    }
}

fn all<const N: usize>(
    bytes: &[u8],
    one: fn(&[u8; N]) -> Option<Record>,
) -> Result<Vec<Record>, PositionError> {
    let (records, rest) = bytes.as_chunks::<N>();
    if !rest.is_empty() || records.is_empty() || records.len() > MAX_RECORDS {
        return Err(PositionError::Length(bytes.len() + 1));
    }
    let read = |(index, bytes)| one(bytes).ok_or(PositionError::Record(index));
    records.iter().enumerate().map(read).collect()
}

fn u64_at(bytes: &[u8], at: usize) -> Option<u64> {
    Some(u64::from_le_bytes(*bytes.get(at..)?.first_chunk()?))
}

fn head_at(bytes: &[u8], crc: usize, len: usize) -> Option<Head> {
    let head = Head {
        crc: u32::from_le_bytes(*bytes.get(crc..)?.first_chunk()?),
        len: u16::from_le_bytes(*bytes.get(len..)?.first_chunk()?),
    };
    (head.len() <= HEAD).then_some(head)
}

fn record(bytes: &[u8; RECORD]) -> Option<Record> {
    let [.., flags, 0, 0, 0] = *bytes else { return None };
    (flags & !SKIPPING == 0).then_some(Record {
        identity: Identity { device: u64_at(bytes, 0)?, inode: u64_at(bytes, 8)? },
        offset: u64_at(bytes, 16)?,
        seen: u64_at(bytes, 24)?,
        modified_ns: u64_at(bytes, 32)?.cast_signed(),
        head: head_at(bytes, 40, 48)?,
        tail: head_at(bytes, 44, 50)?,
        skipping: flags == SKIPPING,
    })
}

fn record_1(bytes: &[u8; RECORD_1]) -> Option<Record> {
    let [.., flags, 0] = *bytes else { return None };
    let offset = u64_at(bytes, 16)?;
    (flags & !SKIPPING == 0).then_some(Record {
        identity: Identity { device: u64_at(bytes, 0)?, inode: u64_at(bytes, 8)? },
        offset,
        seen: offset,
        modified_ns: 0,
        head: head_at(bytes, 24, 28)?,
        tail: Head::default(),
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
                seen: 0x2_0000_0003,
                modified_ns: 0x0405_0607,
                head: Head::of(b"123456789"),
                tail: Head::of(b"a"),
                skipping: true,
            },
            Record {
                identity: identity(7),
                offset: 0,
                seen: 0,
                modified_ns: -1,
                head: Head::default(),
                tail: Head::default(),
                skipping: false,
            },
        ]
    }

    #[test]
    fn the_bytes_are_these() {
        let mut bytes = Vec::new();
        encode(sample().into_iter(), &mut bytes);
        #[rustfmt::skip]
        let expected = [
            2,
            0x02, 0x01, 0, 0, 0, 0, 0, 0,
            0x0d, 0x0c, 0x0b, 0x0a, 0, 0, 0, 0,
            0x01, 0, 0, 0, 0x01, 0, 0, 0,
            0x03, 0, 0, 0, 0x02, 0, 0, 0,
            0x07, 0x06, 0x05, 0x04, 0, 0, 0, 0,
            // CRC-32C's published check value of "123456789" is e3069283; of "a" it is c1d04330.
            0x83, 0x92, 0x06, 0xe3,
            0x30, 0x43, 0xd0, 0xc1,
            9, 0,
            1, 0,
            1, 0, 0, 0,
            0x02, 0x01, 0, 0, 0, 0, 0, 0,
            7, 0, 0, 0, 0, 0, 0, 0,
            0, 0, 0, 0, 0, 0, 0, 0,
            0, 0, 0, 0, 0, 0, 0, 0,
            0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff,
            0, 0, 0, 0,
            0, 0, 0, 0,
            0, 0,
            0, 0,
            0, 0, 0, 0,
        ];
        assert_eq!(bytes, expected);
        assert_eq!(decode(&bytes).unwrap(), sample());
    }

    #[test]
    fn version_1_is_read() {
        #[rustfmt::skip]
        let bytes = [
            1,
            0x02, 0x01, 0, 0, 0, 0, 0, 0,
            0x0d, 0x0c, 0x0b, 0x0a, 0, 0, 0, 0,
            0x01, 0, 0, 0, 0x01, 0, 0, 0,
            0x83, 0x92, 0x06, 0xe3,
            9, 0,
            1, 0,
        ];
        let [first, _] = sample();
        let (seen, modified_ns, tail) = (first.offset, 0, Head::default());
        assert_eq!(decode(&bytes).unwrap(), [Record { seen, modified_ns, tail, ..first }]);
        assert_eq!(decode(&[1; 40]), Err(PositionError::Length(40)));
    }

    #[test]
    fn malformed_positions_are_errors() {
        let mut good = Vec::new();
        encode(sample().into_iter(), &mut good);
        assert_eq!(decode(&[]), Err(PositionError::Version(None)));
        assert_eq!(decode(&[3]), Err(PositionError::Version(Some(3))));
        assert_eq!(decode(&good[..1]), Err(PositionError::Length(1)));
        assert_eq!(decode(&good[..112]), Err(PositionError::Length(112)));
        assert_eq!(decode(&[&[2][..], &[0; 65 * 56]].concat()), Err(PositionError::Length(3641)));
        for (at, byte) in [(56 + 50, 2), (56 + 52, 2), (56 + 53, 2), (56 + 56, 1)] {
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
                bytes[0] = 2;
                bytes.truncate(1 + (bytes.len() - 1) / 56 * 56);
                for record in bytes[1..].chunks_mut(56) {
                    record[49] = 0;
                    record[51] = 0;
                    record[52] &= 1;
                    record[53..].fill(0);
                }
            }
            if let Ok(records) = decode(&bytes) && bytes[0] == 2 {
                let mut again = Vec::new();
                encode(records.into_iter(), &mut again);
                prop_assert_eq!(again, bytes);
            }
        }
    }
}
