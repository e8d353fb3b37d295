//! Errors that the programs count by key in a table of a bounded size, as one family of counters. What a
//! key means, and what it is called, is the probe's.

use std::os::fd::OwnedFd;

use agent_common::event::Kind;
use agent_common::plain::Plain;
use aya::maps::MapError;

use super::maps::{self, PerCpu, PerCpuTable, Value};
use super::{LOST, nested};
use crate::model::{Desc, Samples};

/// The map with what found no room in any of the tables, which belongs to all probes that have one.
pub(super) const LOST_MAP: &str = "ERRORS_LOST";

/// A family of errors.
pub(super) struct Family<const N: usize> {
    /// What it is called.
    pub(super) desc: &'static Desc,
    /// Its labels in the order of their names.
    pub(super) labels: [&'static str; N],
    /// What its errors are handed over as.
    pub(super) kind: Kind,
}

/// A key that has been seen.
struct Seen<K> {
    key: K,
    /// The place of what it is counted in.
    series: usize,
    count: u64,
}

/// The table of a family of errors.
pub(super) struct Errors<K: Plain, const N: usize> {
    family: Family<N>,
    table: PerCpuTable<K, u64>,
    lost: PerCpu<u64>,
    seen: Vec<Seen<K>>,
    /// The values of the labels. Several keys may have the same.
    series: Vec<[String; N]>,
}

impl<K: Plain + PartialEq, const N: usize> Errors<K, N> {
    /// From the family's table and [`LOST_MAP`].
    pub(super) fn new(family: Family<N>, table: OwnedFd, lost: OwnedFd) -> Result<Self, String> {
        Ok(Errors {
            family,
            table: maps::per_cpu_table(table)?,
            lost: maps::per_cpu(lost)?,
            seen: Vec::new(),
            series: Vec::new(),
        })
    }

    /// Writes the counts. `name` gives the values of the labels of a key that is seen for the first time,
    /// which it keeps: later its device may be gone.
    pub(super) fn collect(
        &mut self,
        out: &mut Samples,
        mut name: impl FnMut(&K) -> [String; N],
    ) -> Result<(), MapError> {
        for key in self.table.keys() {
            let Value(key) = key?;
            if !self.seen.iter().any(|seen| seen.key == key) {
                let series = place(&mut self.series, name(&key));
                self.seen.push(Seen { key, series, count: 0 });
            }
        }
        for seen in &mut self.seen {
            let cpus = self.table.get(&Value(seen.key), 0)?;
            let sum: u64 = cpus.iter().map(|Value(cpu)| cpu).sum();
            seen.count = seen.count.max(sum);
        }
        for (at, values) in self.series.iter().enumerate() {
            let mine = self.seen.iter().filter(|seen| seen.series == at);
            let count: u64 = mine.map(|seen| seen.count).sum();
            let mut labels = [("", ""); N];
            for ((label, name), value) in labels.iter_mut().zip(self.family.labels).zip(values) {
                *label = (name, value.as_str());
            }
            out.family(self.family.desc).add(&labels, count as f64);
        }
        Ok(())
    }

    /// Errors since the start that found no room in the table.
    pub(super) fn lost(&self) -> Result<u64, MapError> {
        let mut sum = 0;
        maps::sum(&self.lost, self.family.kind as u32, |cpu: u64| sum += cpu)?;
        Ok(sum)
    }
}

/// Errors and the programs that count them, for a probe that has nothing else. Dropped, it detaches.
pub(super) struct Attached<K: Plain, const N: usize> {
    errors: Errors<K, N>,
    probe: &'static str,
    programs: Vec<OwnedFd>,
    _events: Vec<OwnedFd>,
    text: String,
}

impl<K: Plain + PartialEq, const N: usize> Attached<K, N> {
    /// From what the loader handed over: the family's table and [`LOST_MAP`], in this order.
    pub(super) fn new(
        probe: &'static str,
        family: Family<N>,
        report: super::channel::Report,
    ) -> Result<Self, String> {
        let [table, lost] = maps::all(report.maps)?;
        Ok(Attached {
            errors: Errors::new(family, table, lost)?,
            probe,
            programs: report.programs,
            _events: report.events,
            text: String::new(),
        })
    }

    /// Writes the counts and what could not be counted; nothing at all before there was an error.
    pub(super) fn collect(
        &mut self,
        out: &mut Samples,
        name: impl FnMut(&K) -> [String; N],
    ) -> Result<(), MapError> {
        self.errors.collect(out, name)?;
        let lost = self.errors.lost()?;
        let nested = nested(&self.programs, &mut self.text);
        if self.errors.seen.is_empty() && lost == 0 && nested == 0 {
            return Ok(());
        }
        for (reason, count) in [("errors_full", lost), ("nested", nested)] {
            let labels = [("probe", self.probe), ("reason", reason)];
            out.family(&LOST).add(&labels, count as f64);
        }
        Ok(())
    }
}

/// Where these values are, added if they are new.
fn place<const N: usize>(series: &mut Vec<[String; N]>, values: [String; N]) -> usize {
    match series.iter().position(|have| *have == values) {
        Some(at) => at,
        None => {
            series.push(values);
            series.len() - 1
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn keys_of_the_same_name_are_one_series() {
        let mut series = Vec::new();
        let names = ["sda", "sdb", "sda"].map(|name| [name.to_owned(), "EIO".to_owned()]);
        let places: Vec<_> = names.into_iter().map(|name| place(&mut series, name)).collect();
        assert_eq!((places, series.len()), (vec![0, 1, 0], 2));
    }
}
