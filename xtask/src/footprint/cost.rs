//! What was measured of one program, or of several that do one work together: between two looks at it, as
//! figures for a minute. It must not know what they are.

use std::fs;
use std::path::Path;

use super::agents::Subject;
use crate::Result;
use crate::procfs::Snapshot;

/// One look at a program.
#[derive(Clone, Copy, Debug)]
pub(super) struct Look {
    process: Snapshot,
    /// Bytes that reached the device of its file system; None without one of its own.
    device: Option<u64>,
    /// Bytes that it sent with metrics, and with lines; None where it sends none.
    metrics: Option<u64>,
    lines: Option<u64>,
}

impl Look {
    /// Takes one.
    ///
    /// # Errors
    /// The program is gone, or its file system can't be synced.
    pub(super) fn at(subject: &mut Subject) -> Result<Look> {
        Ok(Look {
            device: subject.volume.as_ref().map(super::volume::Volume::written).transpose()?,
            process: subject.meter.snapshot()?,
            metrics: subject.metrics.as_ref().map(|wire| wire.sent()),
            lines: subject.logs.as_ref().map(|logs| logs.wire.sent()),
        })
    }
}

/// Bytes in bytes; what has no such figure has None.
#[derive(Clone, Debug, Default, PartialEq)]
pub(super) struct Cost {
    pub(super) name: String,
    pub(super) resident: f64,
    pub(super) peak: f64,
    pub(super) anonymous: Option<f64>,
    pub(super) proportional: Option<f64>,
    pub(super) threads: Option<f64>,
    pub(super) binary: Option<f64>,
    /// Seconds of CPU a minute, and what else is counted by the minute.
    pub(super) cpu: f64,
    pub(super) wake_ups: Option<f64>,
    pub(super) switches: Option<f64>,
    pub(super) written: Option<f64>,
    pub(super) device: Option<f64>,
    pub(super) wire: Option<f64>,
    /// Series that came, and bytes on the wire for each of their samples.
    pub(super) series: Option<f64>,
    pub(super) sample: Option<f64>,
}

impl Cost {
    /// Between two looks, with the series and the samples that came meanwhile.
    ///
    /// # Errors
    /// The program's file is gone.
    pub(super) fn between(
        name: &str,
        binary: &Path,
        (first, last): (&Look, &Look),
        (series, samples): (Option<f64>, Option<f64>),
    ) -> Result<Cost> {
        let size = fs::metadata(binary).map_err(|e| format!("{}: {e}", binary.display()))?.len();
        let (one, two) = (&first.process, &last.process);
        let minutes = two.at.duration_since(one.at).as_secs_f64() / 60.0;
        let a_minute = |last: u64, first: u64| last.saturating_sub(first) as f64 / minutes;
        let of = |last: Option<u64>, first: Option<u64>| Some(a_minute(last?, first?));
        let metrics = of(last.metrics, first.metrics);
        let sum = [metrics, of(last.lines, first.lines)];
        Ok(Cost {
            name: name.to_owned(),
            resident: two.resident as f64,
            peak: two.peak as f64,
            anonymous: Some(two.anonymous as f64),
            proportional: Some(two.proportional as f64),
            threads: Some(two.threads as f64),
            binary: Some(size as f64),
            cpu: a_minute(two.cpu_nanoseconds, one.cpu_nanoseconds) / 1e9,
            wake_ups: Some(a_minute(two.wake_ups, one.wake_ups)),
            switches: Some(a_minute(two.context_switches, one.context_switches)),
            written: Some(a_minute(two.written, one.written)),
            device: of(last.device, first.device),
            wire: sum.iter().any(Option::is_some).then(|| sum.iter().flatten().sum()),
            series,
            sample: metrics.zip(samples).map(|(bytes, samples)| bytes * minutes / samples),
        })
    }

    /// Of programs that do one work together. What only some have is summed over those; a peak is
    /// the sum of peaks, which need not have come at once.
    pub(super) fn together(name: &str, parts: &[&Cost]) -> Cost {
        let all = |of: fn(&Cost) -> f64| parts.iter().map(|part| of(part)).sum();
        let some = |of: fn(&Cost) -> Option<f64>| {
            let known: Vec<f64> = parts.iter().filter_map(|part| of(part)).collect();
            (!known.is_empty()).then(|| known.iter().sum())
        };
        Cost {
            name: name.to_owned(),
            resident: all(|c| c.resident),
            peak: all(|c| c.peak),
            anonymous: some(|c| c.anonymous),
            proportional: some(|c| c.proportional),
            threads: some(|c| c.threads),
            binary: some(|c| c.binary),
            cpu: all(|c| c.cpu),
            wake_ups: some(|c| c.wake_ups),
            switches: some(|c| c.switches),
            written: some(|c| c.written),
            device: some(|c| c.device),
            wire: some(|c| c.wire),
            series: some(|c| c.series),
            sample: parts.iter().find_map(|c| c.sample),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn together_is_the_sum_of_what_is_known() {
        let one = Cost { resident: 1.0, wire: Some(2.0), ..Cost::default() };
        let two = Cost { resident: 10.0, sample: Some(5.0), ..Cost::default() };
        let both = Cost::together("both", &[&one, &two]);
        assert_eq!((both.resident, both.wire, both.device), (11.0, Some(2.0), None));
        assert_eq!((both.sample, both.name.as_str()), (Some(5.0), "both"));
    }
}
