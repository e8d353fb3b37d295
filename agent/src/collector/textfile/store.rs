//! The samples of all files, kept between two readings and written in each round without allocating.

use crate::exposition::MAX_LABELS;
use crate::model::{Kind, Samples, Suffix};

/// Where a piece of text lies.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(super) struct Span {
    start: u32,
    end: u32,
}

#[derive(Debug)]
pub(super) struct Family {
    pub(super) name: Span,
    pub(super) help: Span,
    pub(super) kind: Kind,
}

#[derive(Clone, Copy, Debug)]
pub(super) struct Row {
    pub(super) family: u32,
    pub(super) suffix: Suffix,
    /// From and to, of [`Store::labels`].
    pub(super) labels: (u32, u32),
    /// `le` or `quantile`, of a bucket or a quantile.
    pub(super) bound: Option<Span>,
    pub(super) value: f64,
}

#[derive(Debug, Default)]
pub(super) struct Store {
    pub(super) text: String,
    pub(super) labels: Vec<(Span, Span)>,
    pub(super) families: Vec<Family>,
    /// Those of a family stand together.
    pub(super) rows: Vec<Row>,
}

impl Store {
    pub(super) fn keep(&mut self, write: impl FnOnce(&mut String)) -> Span {
        // Of at most 1000 files with 4 MiB each; what is beyond a u32 reads as empty.
        let start = u32::try_from(self.text.len()).unwrap_or(u32::MAX);
        write(&mut self.text);
        Span { start, end: u32::try_from(self.text.len()).unwrap_or(u32::MAX) }
    }

    pub(super) fn get(&self, span: Span) -> &str {
        self.text.get(span.start as usize..span.end as usize).unwrap_or_default()
    }

    pub(super) fn labels(&self, (from, to): (u32, u32)) -> &[(Span, Span)] {
        self.labels.get(from as usize..to as usize).unwrap_or_default()
    }

    pub(super) fn write(&self, out: &mut Samples) {
        for rows in self.rows.chunk_by(|a, b| a.family == b.family) {
            let family = rows.first().and_then(|row| self.families.get(row.family as usize));
            let Some(described) = family else { continue };
            let (name, help) = (self.get(described.name), self.get(described.help));
            let mut family = out.family_named(name, help, described.kind);
            for row in rows {
                let mut labels: heapless::Vec<(&str, &str), MAX_LABELS> = heapless::Vec::new();
                let bound = match described.kind {
                    Kind::Summary => "quantile",
                    _ => "le",
                };
                let bound = row.bound.map(|value| (bound, self.get(value)));
                let own = self.labels(row.labels).iter();
                let own = own.map(|&(name, value)| (self.get(name), self.get(value)));
                labels.extend(own.chain(bound).take(MAX_LABELS));
                family.add_part(row.suffix, &labels, row.value);
            }
        }
    }
}
