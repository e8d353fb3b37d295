//! Streams by the fields that make them, so that an entry of a stream that has been seen costs a
//! look-up and no labels are built. It must not know where the values come from.

use std::collections::HashMap;

use super::labels;
use crate::model::{Block, Labels, StreamId};

/// The most that are remembered; at the next one all are forgotten and made again when they are met.
const MAX_STREAMS: usize = 512;

/// What a stream's labels are made of.
pub(super) struct Streams {
    /// Every stream's, beneath its own.
    base: Labels,
    /// The label of each value.
    names: Vec<String>,
    known: HashMap<Vec<u8>, Known>,
    key: Vec<u8>,
    /// Which block the ids are of.
    round: u32,
}

struct Known {
    labels: Labels,
    id: Option<StreamId>,
    round: u32,
}

impl Streams {
    /// Streams with these labels, and those that values make in this order.
    pub(super) fn new(base: Labels, names: Vec<String>) -> Streams {
        Streams { base, names, known: HashMap::new(), key: Vec::new(), round: 0 }
    }

    /// Another block comes, or this one was touched by others: no id of before holds.
    pub(super) fn next_block(&mut self) {
        self.round = self.round.wrapping_add(1);
        if self.round == 0 {
            self.known.clear();
        }
    }

    /// The block's stream of entries with these values; empty and absent ones make no label. None if
    /// the block takes no further stream.
    pub(super) fn id<'a>(
        &mut self,
        block: &mut Block,
        values: impl Iterator<Item = Option<&'a [u8]>>,
    ) -> Option<StreamId> {
        self.key.clear();
        for value in values {
            let value = value.unwrap_or_default();
            let value = value.get(..labels::MAX_VALUE).unwrap_or(value);
            // At most MAX_VALUE, which fits.
            self.key.extend_from_slice(&(value.len() as u16).to_le_bytes());
            self.key.extend_from_slice(value);
        }
        if !self.known.contains_key(&self.key) {
            if self.known.len() >= MAX_STREAMS {
                self.known.clear();
            }
            let labels = self.labels();
            let known = Known { labels, id: None, round: self.round };
            self.known.insert(self.key.clone(), known);
        }
        let known = self.known.get_mut(&self.key)?;
        if known.id.is_none() || known.round != self.round {
            known.id = block.stream(&known.labels);
            known.round = self.round;
        }
        known.id
    }

    /// The labels that the key says.
    fn labels(&self) -> Labels {
        let mut labels = self.base.clone();
        let mut rest = self.key.as_slice();
        for name in &self.names {
            let Some((len, after)) = rest.split_first_chunk::<2>() else { break };
            let len = usize::from(u16::from_le_bytes(*len));
            let Some((value, after)) = after.split_at_checked(len) else { break };
            rest = after;
            if !value.is_empty() {
                labels.set(name, labels::text(value, labels::MAX_VALUE));
            }
        }
        labels
    }

    /// How many are remembered.
    #[cfg(test)]
    fn len(&self) -> usize {
        self.known.len()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn streams() -> Streams {
        let base = Labels::from_pairs([("job", "j"), ("unit", "none")]).unwrap();
        Streams::new(base, vec!["unit".into(), "level".into()])
    }

    #[test]
    fn streams_are_told_apart_by_each_value_and_its_place() {
        let (mut streams, mut block) = (streams(), Block::new());
        let mut id = |block: &mut Block, unit: &'static str, level: &'static str| {
            streams.id(block, [unit, level].iter().map(|v| Some(v.as_bytes()))).unwrap()
        };
        let first = id(&mut block, "a", "b");
        assert_eq!(id(&mut block, "a", "b"), first);
        assert_ne!(id(&mut block, "ab", ""), first);
        assert_ne!(id(&mut block, "", "ab"), first);
        let shown: Vec<String> = block.streams().iter().map(|s| s.to_string()).collect();
        assert_eq!(
            shown,
            [
                r#"{job="j", level="b", unit="a"}"#,
                r#"{job="j", unit="ab"}"#,
                r#"{job="j", level="ab", unit="none"}"#
            ]
        );
    }

    #[test]
    fn the_next_block_gets_its_streams_anew() {
        let (mut streams, mut block) = (streams(), Block::new());
        streams.id(&mut block, [Some(&b"a"[..])].into_iter()).unwrap();
        streams.id(&mut block, [Some(&b"b"[..])].into_iter()).unwrap();
        block.clear();
        streams.next_block();
        let id = streams.id(&mut block, [Some(&b"b"[..])].into_iter()).unwrap();
        assert_eq!(block.streams()[usize::from(id.0)].get("unit"), Some("b"));
        assert_eq!(block.streams().len(), 1);
    }

    #[test]
    fn identifiers_that_nobody_uses_twice_do_not_pile_up() {
        let (mut streams, mut block) = (streams(), Block::new());
        for number in 0..3 * MAX_STREAMS {
            block.clear();
            streams.next_block();
            let unit = format!("run-{number}.scope");
            let id = streams.id(&mut block, [Some(unit.as_bytes())].into_iter()).unwrap();
            assert_eq!(block.streams()[usize::from(id.0)].get("unit"), Some(unit.as_str()));
        }
        assert!(streams.len() <= MAX_STREAMS);
    }

    #[test]
    fn a_value_that_loki_would_refuse_is_cut() {
        let (mut streams, mut block) = (streams(), Block::new());
        let long = "ü".repeat(2000);
        streams.id(&mut block, [Some(long.as_bytes())].into_iter()).unwrap();
        assert_eq!(block.streams()[0].get("unit").map(str::len), Some(labels::MAX_VALUE));
    }
}
