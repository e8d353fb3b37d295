//! `metrics.intervals`: how long collectors rest between two runs, by name.

use std::time::Duration;

use super::error::{ConfigError, nearest};
use super::reader::Reader;
use super::units;
use crate::collector::TABLE;

/// Prometheus shows a series for 5 minutes after its sample: longer than an hour is no use and a slip.
const RANGE: std::ops::RangeInclusive<Duration> =
    Duration::from_secs(1)..=Duration::from_secs(3_600);

/// The intervals that are given.
pub(super) fn intervals(
    metrics: &Reader<'_>,
) -> Result<Vec<(&'static str, Duration)>, ConfigError> {
    let pairs = metrics.pairs(
        "intervals",
        "how often collectors run that need not run with each round, by name: { filesystem = \"4m\" }; \
         beyond 5m Prometheus takes a series for gone between its samples",
    )?;
    let mut intervals = Vec::new();
    for (name, given) in pairs {
        let Some(entry) = TABLE.iter().find(|entry| entry.name == name.value) else {
            let hint = match nearest(&name.value, TABLE.iter().map(|entry| entry.name)) {
                Some(near) => format!("did you mean {near:?}?"),
                None => "the names are those of metrics.collectors".to_owned(),
            };
            return Err(name.error(format!("there is no collector {:?}", name.value), hint));
        };
        let problem = |problem: String| {
            given.error(format!("metrics.intervals.{}: {problem}", entry.name), units::DURATIONS)
        };
        let every = units::parse_duration(&given.value).map_err(problem)?;
        if !RANGE.contains(&every) {
            let problem =
                format!("metrics.intervals.{} is {}", entry.name, units::show_duration(every));
            return Err(given.error(problem, "from 1s to 1h"));
        }
        intervals.push((entry.name, every));
    }
    Ok(intervals)
}
