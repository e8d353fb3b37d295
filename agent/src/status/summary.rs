//! The report in one line, for `systemctl status`. It changes when something changes that a person would act
//! on, and not with each round: lags are told in steps, and what goes well by its number alone.

use std::fmt::Write;

use super::{EndpointReport, Report};

/// An endpoint that is no further behind than this, beyond two rounds, is up to date: data waits for a
/// request to fill up, and for one to be answered.
const UP_TO_DATE: f64 = 300.0;

/// The most endpoints that are named.
const MAX_NAMED: usize = 3;

/// The line.
pub fn summary(r: &Report) -> String {
    let mut out = String::new();
    // Writing to a String does not fail.
    let _ = write(r, &mut out);
    out
}

fn write(r: &Report, out: &mut String) -> std::fmt::Result {
    write!(out, "a round every {}", super::text::span(r.interval_seconds))?;
    if r.clock.held {
        write!(out, "; all is held until the clock is set")?;
    }
    let bad = |e: &&EndpointReport| {
        e.trouble.is_some()
            || e.waits.is_some()
            || e.lag_seconds > UP_TO_DATE + 2.0 * r.interval_seconds
    };
    let behind: Vec<_> = r.endpoints.iter().filter(bad).collect();
    let good = r.endpoints.len() - behind.len();
    match (r.endpoints.len(), good) {
        (0, _) => write!(out, "; no endpoint: data stays in the WAL")?,
        (all, good) if all == good && all > 1 => {
            write!(out, "; all {all} endpoints are up to date")?
        }
        (all, good) if all == good => write!(out, "; the endpoint is up to date")?,
        (all, good) => write!(out, "; {good} of {all} endpoints are up to date")?,
    }
    for e in behind.iter().take(MAX_NAMED) {
        write!(out, "; {} to {}", e.signal, e.url)?;
        if !r.clock.held && e.lag_seconds > r.interval_seconds {
            write!(out, " {} behind", step(e.lag_seconds))?;
        }
        if let Some(why) = e.trouble.as_deref().or(e.waits.as_deref()) {
            write!(out, " ({})", why.lines().next().unwrap_or_default())?;
        }
    }
    for w in r.wals.iter().filter(|w| w.failure.is_some()) {
        write!(out, "; the disk takes nothing of the {} WAL", w.name)?;
    }
    match r.memory.pressure.0 {
        0 => write!(out, "; no memory pressure"),
        _ => write!(out, "; memory is short: giving back {}", r.memory.pressure.1),
    }
}

/// A lag in steps that grow with it.
fn step(seconds: f64) -> String {
    let minutes = seconds as u64 / 60;
    match minutes {
        0..5 => "minutes".to_owned(),
        5..60 => format!("more than {} min", minutes / 5 * 5),
        60..2_880 => format!("more than {} h", minutes / 60),
        _ => format!("more than {} d", minutes / 1_440),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::status::{ClockReport, MemoryReport, WalReport};

    fn report(lag: f64, trouble: Option<&str>) -> Report {
        let good = EndpointReport {
            url: "http://a/".into(),
            signal: "metrics".into(),
            lag_seconds: 61.0,
            ..EndpointReport::default()
        };
        let other = EndpointReport {
            url: "http://b/".into(),
            signal: "logs".into(),
            lag_seconds: lag,
            trouble: trouble.map(str::to_owned),
            ..EndpointReport::default()
        };
        Report { interval_seconds: 60.0, endpoints: vec![good, other], ..Report::default() }
    }

    #[test]
    fn the_line_stays_the_same_while_nothing_changes_for_the_user() {
        let fine = "a round every 60 s; all 2 endpoints are up to date; no memory pressure";
        for lag in [0.0, 59.0, 300.0, 419.0] {
            assert_eq!(summary(&report(lag, None)), fine);
        }
        let behind = summary(&report(1_210.0, None));
        assert_eq!(
            behind,
            "a round every 60 s; 1 of 2 endpoints are up to date; logs to http://b/ more than 20 min behind; no memory pressure"
        );
        assert_eq!(summary(&report(1_490.0, None)), behind);
        assert!(summary(&report(90_000.0, None)).contains("more than 25 h behind"));
        assert!(summary(&report(900_000.0, None)).contains("more than 10 d behind"));
    }

    #[test]
    fn what_is_wrong_is_in_the_line() {
        let mut report = report(200.0, Some("401: no org id\nmore"));
        assert!(summary(&report).contains("logs to http://b/ minutes behind (401: no org id);"));
        report.clock = ClockReport { held: true, ..ClockReport::default() };
        report.wals = vec![WalReport {
            name: "metrics".into(),
            failure: Some("x".into()),
            ..WalReport::default()
        }];
        report.memory = MemoryReport { pressure: (2, "batches".into()), ..MemoryReport::default() };
        let line = summary(&report);
        for part in ["until the clock is set", "nothing of the metrics WAL", "giving back batches"]
        {
            assert!(line.contains(part), "{line}");
        }
        report.endpoints.clear();
        assert!(summary(&report).contains("no endpoint: data stays in the WAL"));
        report.endpoints =
            vec![EndpointReport { trouble: Some("x".repeat(50)), ..Default::default() }; 100];
        assert!(summary(&report).len() < 700);
    }
}
