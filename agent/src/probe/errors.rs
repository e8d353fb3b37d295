//! Errors that the programs count by key in a table of a bounded size, as one family of counters. What a
//! key means, what it is called and whether its device is still there, is the probe's.

use std::os::fd::OwnedFd;

use agent_common::event::Kind;
use agent_common::plain::Plain;
use aya::maps::{MapError, PerCpuValues};

use super::maps::{self, PerCpu, PerCpuTable, Value};
use super::perf::Attachment;
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

/// What the keys of a family mean.
pub(super) trait Devices<K, const N: usize> {
    /// The values of the labels of a key that is seen for the first time. They are kept: later the device
    /// may be gone.
    fn name(&mut self, key: &K) -> [String; N];

    /// Whether the device of this key is not there any more. Asked of keys that don't count, and more
    /// rarely the longer they don't.
    fn is_gone(&mut self, key: &K) -> bool;
}

/// A device that is gone is remembered by its name for so many rounds after its last error, four hours at
/// the default interval; then its series end.
const FORGOTTEN: u32 = 240;

/// Series of devices that are gone; with more of them, those without an error for the longest time end.
const MAX_GONE: usize = 64;

/// A key that is in the kernel's table.
struct Seen<K> {
    key: K,
    count: u64,
    /// Rounds without an error.
    quiet: u32,
}

/// Keys of the same name.
struct Series<K, const N: usize> {
    /// The values of the labels.
    values: [String; N],
    keys: Vec<Seen<K>>,
    /// What keys have counted that are not in the table any more.
    folded: u64,
    /// Rounds without an error.
    quiet: u32,
}

/// The table of a family of errors.
///
/// Its keys name a device as the kernel does, and a disk that is plugged in again has a new number. So the
/// key of a device that is gone leaves the table, which then has room for another, and what it has counted
/// stays with the series of its name: a counter never goes back.
pub(super) struct Errors<K: Plain, const N: usize> {
    family: Family<N>,
    table: PerCpuTable<K, u64>,
    lost: PerCpu<u64>,
    series: Vec<Series<K, N>>,
}

impl<K: Plain + PartialEq, const N: usize> Errors<K, N> {
    /// From the family's table and [`LOST_MAP`].
    pub(super) fn new(family: Family<N>, table: OwnedFd, lost: OwnedFd) -> Result<Self, String> {
        Ok(Errors {
            family,
            table: maps::per_cpu_table(table)?,
            lost: maps::per_cpu(lost)?,
            series: Vec::new(),
        })
    }

    /// Writes the counts.
    pub(super) fn collect(
        &mut self,
        out: &mut Samples,
        mut devices: impl Devices<K, N>,
    ) -> Result<(), MapError> {
        for key in self.table.keys() {
            let Value(key) = key?;
            let mut seen = self.series.iter().flat_map(|series| &series.keys);
            if !seen.any(|seen| seen.key == key) {
                let seen = Seen { key, count: 0, quiet: 0 };
                place(&mut self.series, devices.name(&key)).keys.push(seen);
            }
        }
        for series in &mut self.series {
            series.read(&mut self.table, &mut devices)?;
        }
        forget(&mut self.series);
        for series in &self.series {
            let mut labels = [("", ""); N];
            let names = self.family.labels.into_iter().zip(&series.values);
            for (label, (name, value)) in labels.iter_mut().zip(names) {
                *label = (name, value.as_str());
            }
            out.family(self.family.desc).add(&labels, series.total() as f64);
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

impl<K: Plain, const N: usize> Series<K, N> {
    fn total(&self) -> u64 {
        self.keys.iter().fold(self.folded, |sum, seen| sum.saturating_add(seen.count))
    }

    fn read(
        &mut self,
        table: &mut PerCpuTable<K, u64>,
        devices: &mut impl Devices<K, N>,
    ) -> Result<(), MapError> {
        self.quiet = self.quiet.saturating_add(1);
        let mut at = 0;
        while let Some(seen) = self.keys.get_mut(at) {
            let cpus = table.get(&Value(seen.key), 0)?;
            let sum: u64 = cpus.iter().map(|Value(cpu)| cpu).sum();
            if sum > seen.count {
                (seen.count, seen.quiet, self.quiet) = (sum, 0, 0);
            } else {
                seen.quiet = seen.quiet.saturating_add(1);
            }
            // Nothing comes any more from a device that is gone and quiet, so nothing is lost between
            // the reading and the removal.
            if is_due(seen.quiet) && devices.is_gone(&seen.key) {
                remove(table, seen.key, cpus.len())?;
                self.folded = self.folded.saturating_add(seen.count);
                self.keys.swap_remove(at);
            } else {
                at += 1;
            }
        }
        Ok(())
    }
}

/// In which rounds a key without errors is looked after.
fn is_due(quiet: u32) -> bool {
    quiet.is_power_of_two() || (quiet > 0 && quiet.is_multiple_of(64))
}

/// Takes a key out of the kernel's table. Its counts are put to 0 before: kernels before 5.10 give the
/// place to another key as it was left.
fn remove<K: Plain>(table: &mut PerCpuTable<K, u64>, key: K, cpus: usize) -> Result<(), MapError> {
    if let Ok(zeros) = PerCpuValues::try_from(vec![Value(0u64); cpus]) {
        table.insert(Value(key), zeros, 0)?;
    }
    match table.remove(&Value(key)) {
        Ok(()) | Err(MapError::KeyNotFound) => Ok(()),
        Err(error) => Err(error),
    }
}

/// Ends series of devices that are gone: those that are old, and the oldest of too many.
fn forget<K, const N: usize>(series: &mut Vec<Series<K, N>>) {
    series.retain(|series| !series.keys.is_empty() || series.quiet < FORGOTTEN);
    loop {
        let gone = || series.iter().enumerate().filter(|(_, series)| series.keys.is_empty());
        if gone().count() <= MAX_GONE {
            return;
        }
        let Some((oldest, _)) = gone().max_by_key(|(_, series)| series.quiet) else { return };
        series.remove(oldest);
    }
}

/// Errors and the programs that count them, for a probe that has nothing else. Dropped, it detaches.
pub(super) struct Attached<K: Plain, const N: usize> {
    errors: Errors<K, N>,
    probe: &'static str,
    programs: Vec<OwnedFd>,
    _events: Attachment,
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

    /// Writes the counts and what could not be counted; nothing at all without an error.
    pub(super) fn collect(
        &mut self,
        out: &mut Samples,
        devices: impl Devices<K, N>,
    ) -> Result<(), MapError> {
        self.errors.collect(out, devices)?;
        let lost = self.errors.lost()?;
        let nested = nested(&self.programs, &mut self.text);
        if self.errors.series.is_empty() && lost == 0 && nested == 0 {
            return Ok(());
        }
        for (reason, count) in [("errors_full", lost), ("nested", nested)] {
            let labels = [("probe", self.probe), ("reason", reason)];
            out.family(&LOST).add(&labels, count as f64);
        }
        Ok(())
    }
}

/// The series with these values, added if they are new.
fn place<K, const N: usize>(
    series: &mut Vec<Series<K, N>>,
    values: [String; N],
) -> &mut Series<K, N> {
    let at = series.iter().position(|have| have.values == values).unwrap_or_else(|| {
        series.push(Series { values, keys: Vec::new(), folded: 0, quiet: 0 });
        series.len() - 1
    });
    &mut series[at]
}

#[cfg(test)]
mod tests {
    use super::*;

    fn series(names: impl IntoIterator<Item = String>) -> Vec<Series<u32, 1>> {
        let mut series = Vec::new();
        for name in names {
            let series = place(&mut series, [name]);
            series.folded += 1;
        }
        series
    }

    #[test]
    fn keys_of_the_same_name_are_one_series() {
        let series = series(["sda", "sdb", "sda"].map(str::to_owned));
        assert_eq!(series.iter().map(Series::total).collect::<Vec<_>>(), [2, 1]);
    }

    #[test]
    fn devices_that_are_gone_are_not_remembered_for_ever_nor_all_of_them() {
        let mut series = series((0..200u32).map(|at| at.to_string()));
        for (series, quiet) in series.iter_mut().zip(0..) {
            series.quiet = 199 - quiet;
        }
        series[0].keys.push(Seen { key: 7, count: 1, quiet: u32::MAX });
        forget(&mut series);
        assert_eq!(series.len(), 1 + MAX_GONE, "those that are there are all kept");
        assert_eq!((series[0].values[0].as_str(), series[1].values[0].as_str()), ("0", "136"));
        series.iter_mut().for_each(|series| series.quiet = FORGOTTEN);
        forget(&mut series);
        assert_eq!(series.len(), 1);
    }

    #[test]
    fn a_quiet_key_is_looked_after_at_once_and_then_more_rarely() {
        let due: Vec<_> = (0..200).filter(|quiet| is_due(*quiet)).collect();
        assert_eq!(due, [1, 2, 4, 8, 16, 32, 64, 128, 192]);
    }
}
