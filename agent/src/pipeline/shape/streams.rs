//! The streams of a batch as one endpoint gets them. It must not know requests.

use std::collections::HashMap;
use std::rc::Rc;

use super::count;
use crate::config::Endpoint;
use crate::model::{Block, Labels, StreamId};
use crate::pipeline::losses::Dropped;
use crate::relabel::{Counts, LabelSet, Rules, Verdict};

/// Streams whose results are kept from one batch to the next.
const KEPT: usize = 256;

/// What becomes of a stream.
#[derive(Clone, Debug)]
enum Became {
    Labels(Rc<Labels>),
    Dropped,
    /// Without any label, which Loki does not take.
    Nameless,
    TooLarge,
}

/// External labels, rules, and what they have made of streams.
#[derive(Debug, Default)]
pub(crate) struct StreamShape {
    external: Labels,
    rules: Rules,
    results: HashMap<Labels, Became>,
    /// Of the batch: by the number of a stream, the number of the one that it becomes.
    numbers: Vec<Option<StreamId>>,
    streams: Vec<Rc<Labels>>,
    set: LabelSet,
}

impl StreamShape {
    /// What an endpoint's configuration wants.
    pub(crate) fn new(endpoint: &Endpoint) -> StreamShape {
        StreamShape {
            external: endpoint.labels.clone(),
            rules: endpoint.relabel.clone(),
            ..StreamShape::default()
        }
    }

    fn is_plain(&self) -> bool {
        self.external.is_empty() && self.rules.is_empty()
    }

    /// Finds out what becomes of a batch's streams, and counts the entries of those that go.
    pub(crate) fn batch(&mut self, block: &Block, dropped: &Dropped) {
        if self.is_plain() {
            return;
        }
        self.numbers.clear();
        self.streams.clear();
        let mut known: HashMap<Rc<Labels>, StreamId> = HashMap::new();
        // What the entries of each stream count as, if it goes.
        let mut gone = Vec::new();
        for labels in block.streams() {
            let became = self.became(labels);
            gone.push(match became {
                Became::Labels(_) => Counts::default(),
                Became::Dropped => Counts { dropped: 1, ..Counts::default() },
                Became::Nameless => Counts { nameless: 1, ..Counts::default() },
                Became::TooLarge => Counts { too_large: 1, ..Counts::default() },
            });
            let number = match became {
                Became::Labels(labels) => Some(*known.entry(labels).or_insert_with_key(|labels| {
                    self.streams.push(Rc::clone(labels));
                    // A block has at most 65,535.
                    StreamId((self.streams.len() - 1) as u16)
                })),
                _ => None,
            };
            self.numbers.push(number);
        }
        let mut counts = Counts::default();
        for entry in block.entries() {
            if let Some(of) = gone.get(usize::from(entry.stream.0)) {
                counts.dropped += of.dropped;
                counts.nameless += of.nameless;
                counts.too_large += of.too_large;
            }
        }
        count(dropped, "logs", counts);
    }

    /// The stream that a stream of the batch becomes; None if its entries don't go to this endpoint.
    pub(crate) fn stream(&self, stream: StreamId) -> Option<StreamId> {
        match self.is_plain() {
            true => Some(stream),
            false => *self.numbers.get(usize::from(stream.0))?,
        }
    }

    /// The labels of a stream that [`stream`](StreamShape::stream) has named.
    pub(crate) fn labels<'a>(&'a self, block: &'a Block, stream: StreamId) -> Option<&'a Labels> {
        let number = usize::from(stream.0);
        match self.is_plain() {
            true => block.streams().get(number),
            false => self.streams.get(number).map(Rc::as_ref),
        }
    }

    /// Nothing waits to be sent.
    pub(crate) fn rest(&mut self) {
        (self.numbers, self.streams) = Default::default();
    }

    fn became(&mut self, labels: &Labels) -> Became {
        if let Some(result) = self.results.get(labels) {
            return result.clone();
        }
        self.set.clear();
        labels.iter().for_each(|(name, value)| self.set.add(name, value));
        for (name, value) in self.external.iter() {
            if self.set.get(name).is_empty() {
                self.set.set(name, value);
            }
        }
        let result = match self.rules.apply(&mut self.set) {
            Verdict::Drop => Became::Dropped,
            Verdict::TooLarge => Became::TooLarge,
            Verdict::Keep => {
                // They are for the rules alone, as in Promtail.
                self.set.retain(|name| !name.starts_with("__"));
                let mut labels = Labels::new();
                self.set.iter().for_each(|(name, value)| labels.set(name, value));
                if labels.is_empty() { Became::Nameless } else { Became::Labels(Rc::new(labels)) }
            }
        };
        if self.results.len() >= KEPT {
            self.results.clear();
        }
        self.results.insert(labels.clone(), result.clone());
        result
    }
}
