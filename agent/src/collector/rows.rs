//! Samples that are read device by device and written family by family, as the text format wants them:
//! rows of a family's place in the collector's table, up to five labels and a value. The memory is used
//! again each round. It must not know what the families mean.

use super::parse::{Span, Texts};
use crate::model::{Desc, Samples};
use crate::sort;

/// The most labels of a row.
const LABELS: usize = 5;

/// A family and the names of its labels, in the order in which rows give their values.
pub(super) type Shape = (Desc, &'static [&'static str]);

#[derive(Clone, Copy)]
struct Row {
    family: u32,
    labels: [Span; LABELS],
    value: f64,
}

/// Rows and the texts of their labels.
#[derive(Default)]
pub(super) struct Rows {
    texts: Texts,
    rows: Vec<(u32, Row)>,
}

impl Rows {
    pub(super) fn clear(&mut self) {
        self.texts.clear();
        self.rows.clear();
    }

    /// Keeps the value of a label for the rows of this round.
    pub(super) fn keep(&mut self, text: &str) -> Span {
        self.texts.keep(text)
    }

    pub(super) fn get(&self, span: Span) -> &str {
        self.texts.get(span)
    }

    /// Adds a row; labels beyond the fifth are left out.
    pub(super) fn add(&mut self, family: usize, labels: &[Span], value: f64) {
        let mut row = Row { family: family as u32, labels: [Span::default(); LABELS], value };
        row.labels.iter_mut().zip(labels).for_each(|(slot, label)| *slot = *label);
        // Files of at most 4 MiB hold fewer lines than a u32.
        self.rows.push((self.rows.len() as u32, row));
    }

    /// Gives the rows to `write` with their labels, family by family, and within one in the order in which
    /// they were added.
    pub(super) fn each(&mut self, mut write: impl FnMut(usize, [&str; LABELS], f64)) {
        sort::unstable_by_key(&mut self.rows, |(order, row)| (row.family, *order));
        for (_, row) in &self.rows {
            write(row.family as usize, row.labels.map(|label| self.texts.get(label)), row.value);
        }
    }

    /// Writes the rows; `shapes` has a family for each number that rows were added with.
    pub(super) fn write(&mut self, shapes: &[Shape], out: &mut Samples) {
        self.each(|family, values, value| {
            let Some((desc, names)) = shapes.get(family) else { return };
            let mut labels = [("", ""); LABELS];
            let pairs = names.iter().copied().zip(values);
            labels.iter_mut().zip(pairs).for_each(|(slot, pair)| *slot = pair);
            out.family(desc).add(labels.get(..names.len()).unwrap_or_default(), value);
        });
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn rows_of_two_devices_come_family_by_family() {
        const SHAPES: [Shape; 2] = [
            (Desc::gauge("a", "A."), &["device"]),
            (Desc::counter("b_total", "B."), &["device", "state"]),
        ];
        let mut rows = Rows::default();
        for _ in 0..2 {
            rows.clear();
            for device in ["y", "x"] {
                let device = rows.keep(device);
                let state = rows.keep("ok");
                rows.add(1, &[device, state], 2.0);
                rows.add(0, &[device], 1.0);
                rows.add(7, &[device], 1.0);
            }
            let mut samples = Samples::with_limit(9);
            rows.write(&SHAPES, &mut samples);
            let got: Vec<_> = samples
                .iter()
                .map(|sample| {
                    let labels: Vec<_> = sample.labels().map(|(_, value)| value).collect();
                    format!("{} {} {}", sample.name(), labels.join(","), sample.value)
                })
                .collect();
            assert_eq!(got, ["a y 1", "a x 1", "b_total y,ok 2", "b_total x,ok 2"]);
        }
    }
}
