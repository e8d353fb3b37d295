//! Entries that wait for more lines, and the positions that keep them over a restart.
//!
//! A group's position stands in the same record as the positions of the sources that have passed its
//! lines, so a crash loses and repeats none of them. It is stored under `held:` and the hash of its stage
//! and stream, and is empty once the group has been given out. Its bytes, numbers little-endian:
//!
//! | bytes | |
//! |---|---|
//! | 1 | version, 1 |
//! | 1 | bit 0: something was cut off the line already |
//! | 8 | the stage, as a hash of what it does |
//! | 8 | the order in which groups were begun |
//! | 8 | timestamp |
//! | 4 | lines |
//! | 4, then pairs | labels: how many, and each as its name's length (4), its value's length (4), name, value |
//! | 4, then pairs | structured metadata, likewise |
//! | the rest | the lines |

use tokio::time::Instant;

use super::Work;
use super::hash::{Fnv, of_labels};
use crate::model::Labels;

/// What the keys of positions begin with.
pub const KEY_PREFIX: &str = "held:";

const VERSION: u8 = 1;

/// The most groups at once.
pub(super) const MAX_GROUPS: usize = 64;

/// An entry that may get more lines.
#[derive(Clone, Debug)]
pub(super) struct Group {
    /// The stage that holds it, by what it does.
    pub(super) identity: u64,
    /// Of its labels.
    pub(super) hash: u64,
    pub(super) order: u64,
    pub(super) work: Work,
    pub(super) lines: u32,
    pub(super) cut: bool,
    /// When it goes as it is.
    pub(super) until: Instant,
    /// Its position is not what the last block has.
    pub(super) changed: bool,
    /// The key of its position, if a block has one.
    pub(super) stored: Option<String>,
}

impl Group {
    pub(super) fn key(&self) -> String {
        let hash =
            Fnv::new().text(&format!("{:x}", self.identity)).text(&format!("{:x}", self.hash));
        format!("{KEY_PREFIX}{:016x}", hash.finish())
    }

    /// What the group takes of the bound on all of them.
    pub(super) fn bytes(&self) -> usize {
        let labels = self.work.labels().iter().chain(self.work.metadata.iter());
        let pairs: usize = labels.map(|(name, value)| name.len() + value.len() + 8).sum();
        self.work.line.len() + pairs + 64
    }

    pub(super) fn encode(&self, out: &mut Vec<u8>) {
        out.clear();
        out.extend([VERSION, u8::from(self.cut)]);
        out.extend(self.identity.to_le_bytes());
        out.extend(self.order.to_le_bytes());
        out.extend(self.work.timestamp_ns.to_le_bytes());
        out.extend(self.lines.to_le_bytes());
        encode_pairs(self.work.labels().iter(), out);
        encode_pairs(self.work.metadata.iter(), out);
        out.extend(self.work.line.as_bytes());
    }

    /// A group that a position describes; None for what no group has written.
    pub(super) fn decode(key: &str, bytes: &[u8], until: Instant) -> Option<Group> {
        let mut input = Input(bytes);
        let [version, flags] = input.take()?;
        if version != VERSION || flags > 1 {
            return None;
        }
        let identity = u64::from_le_bytes(input.take()?);
        let order = u64::from_le_bytes(input.take()?);
        let mut work = Work::new(i64::from_le_bytes(input.take()?), "");
        let lines = u32::from_le_bytes(input.take()?);
        let mut labels = Labels::new();
        for _ in 0..input.number()? {
            let (name, value) = input.pair()?;
            labels.set(name, value);
        }
        work.set_stream(&labels);
        for _ in 0..input.number()? {
            let (name, value) = input.pair()?;
            work.metadata.set(name, value);
        }
        work.line.push_str(std::str::from_utf8(input.0).ok()?);
        Some(Group {
            identity,
            hash: of_labels(&labels),
            order,
            work,
            lines,
            cut: flags & 1 != 0,
            until,
            changed: false,
            stored: Some(key.to_owned()),
        })
    }
}

fn encode_pairs<'a>(pairs: impl ExactSizeIterator<Item = (&'a str, &'a str)>, out: &mut Vec<u8>) {
    out.extend((pairs.len() as u32).to_le_bytes());
    for (name, value) in pairs {
        out.extend((name.len() as u32).to_le_bytes());
        out.extend((value.len() as u32).to_le_bytes());
        out.extend(name.as_bytes());
        out.extend(value.as_bytes());
    }
}

struct Input<'a>(&'a [u8]);

impl<'a> Input<'a> {
    fn take<const N: usize>(&mut self) -> Option<[u8; N]> {
        let (taken, rest) = self.0.split_first_chunk()?;
        self.0 = rest;
        Some(*taken)
    }

    fn number(&mut self) -> Option<u32> {
        self.take().map(u32::from_le_bytes)
    }

    fn text(&mut self, len: u32) -> Option<&'a str> {
        let (taken, rest) = self.0.split_at_checked(len as usize)?;
        self.0 = rest;
        std::str::from_utf8(taken).ok()
    }

    fn pair(&mut self) -> Option<(&'a str, &'a str)> {
        let (name, value) = (self.number()?, self.number()?);
        Some((self.text(name)?, self.text(value)?))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn group() -> Group {
        let mut work = Work::new(-2, "a\nb");
        work.set_stream(&Labels::from_pairs([("u", "x")]).unwrap());
        work.metadata.set("m", "");
        Group {
            identity: 3,
            hash: of_labels(work.labels()),
            order: 4,
            work,
            lines: 2,
            cut: true,
            until: Instant::now(),
            changed: true,
            stored: None,
        }
    }

    fn encoded(group: &Group) -> Vec<u8> {
        let mut bytes = Vec::new();
        group.encode(&mut bytes);
        bytes
    }

    #[test]
    fn positions_have_the_documented_bytes() {
        let bytes = encoded(&group());
        let expected = [
            &[1, 1][..],
            &[3, 0, 0, 0, 0, 0, 0, 0],
            &[4, 0, 0, 0, 0, 0, 0, 0],
            &[0xfe, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff],
            &[2, 0, 0, 0],
            &[1, 0, 0, 0, 1, 0, 0, 0, 1, 0, 0, 0],
            b"ux",
            &[1, 0, 0, 0, 1, 0, 0, 0, 0, 0, 0, 0],
            b"m",
            b"a\nb",
        ];
        assert_eq!(bytes, expected.concat());
        let read = Group::decode("held:1", &bytes, Instant::now()).unwrap();
        assert_eq!((read.work.line.as_str(), read.lines, read.cut), ("a\nb", 2, true));
        assert_eq!(encoded(&read), bytes);
        assert_eq!((read.key(), read.stored.as_deref()), (group().key(), Some("held:1")));
    }

    #[test]
    fn malformed_positions_are_none_and_take_no_memory() {
        let bytes = encoded(&group());
        for len in 0..bytes.len() - 3 {
            assert!(Group::decode("", &bytes[..len], Instant::now()).is_none(), "{len}");
        }
        for at in 0..bytes.len() {
            for value in [0, 1, 0x7f, 0x80, 0xff] {
                let mut bad = bytes.clone();
                bad[at] = value;
                let _ = Group::decode("", &bad, Instant::now());
            }
        }
        let mut bad = bytes.clone();
        *bad.last_mut().unwrap() = 0xff;
        assert!(Group::decode("", &bad, Instant::now()).is_none());
    }
}
