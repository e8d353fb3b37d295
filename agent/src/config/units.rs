//! Durations and sizes as the configuration writes them.

use std::time::Duration;

/// The hint for a duration that can't be read.
pub(super) const DURATIONS: &str =
    "a number and one of ms, s, m, h: \"250ms\", \"30s\", \"5m\", \"12h\"";

/// The hint for a size that can't be read.
pub(super) const SIZES: &str = "a number and one of B, KiB, MiB, GiB: \"512KiB\", \"64MiB\"";

const SIZE_UNITS: [(&str, u64); 4] =
    [("GiB", 1 << 30), ("MiB", 1 << 20), ("KiB", 1 << 10), ("B", 1)];
const DURATION_UNITS: [(&str, u64); 4] = [("ms", 1), ("h", 3_600_000), ("m", 60_000), ("s", 1_000)];

fn parse(text: &str, units: &[(&str, u64)], what: &str) -> Result<u64, String> {
    let wrong = || format!("{text:?} is no {what}");
    let (number, unit) = units
        .iter()
        .find_map(|(suffix, unit)| Some((text.strip_suffix(suffix)?.trim_end(), *unit)))
        .ok_or_else(wrong)?;
    if number.is_empty() || !number.bytes().all(|b| b.is_ascii_digit()) {
        return Err(wrong());
    }
    number
        .parse::<u64>()
        .ok()
        .and_then(|number| number.checked_mul(unit))
        .ok_or_else(|| format!("{text:?} is too large"))
}

/// Reads "250ms", "30s", "5m", "12h".
pub(super) fn parse_duration(text: &str) -> Result<Duration, String> {
    parse(text, &DURATION_UNITS, "duration").map(Duration::from_millis)
}

/// Reads "512KiB", "64MiB"; in bytes.
pub(super) fn parse_size(text: &str) -> Result<u64, String> {
    parse(text, &SIZE_UNITS, "size")
}

/// The shortest form that [`parse_duration`] reads back.
pub(super) fn show_duration(duration: Duration) -> String {
    let ms = u64::try_from(duration.as_millis()).unwrap_or(u64::MAX);
    show(ms, &[("h", 3_600_000), ("m", 60_000), ("s", 1_000), ("ms", 1)])
}

/// The shortest form that [`parse_size`] reads back.
pub(super) fn show_size(bytes: u64) -> String {
    show(bytes, &SIZE_UNITS)
}

fn show(amount: u64, units: &[(&str, u64)]) -> String {
    let fits = |unit: &&(&str, u64)| amount >= unit.1 && amount.is_multiple_of(unit.1);
    match units.iter().find(fits) {
        Some((suffix, unit)) => format!("{}{suffix}", amount / unit),
        None => format!("{amount}{}", units[units.len() - 1].0),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn durations_and_sizes_read_back() {
        for text in ["250ms", "30s", "90s", "5m", "12h", "0ms"] {
            assert_eq!(show_duration(parse_duration(text).unwrap()), text);
        }
        for text in ["512KiB", "64MiB", "1GiB", "1500B", "0B"] {
            assert_eq!(show_size(parse_size(text).unwrap()), text);
        }
        for bad in [
            "",
            "5",
            "s",
            "-5s",
            "1.5s",
            "5 sec",
            "5S",
            "99999999999999999999s",
            "9999999999999999h",
        ] {
            assert!(parse_duration(bad).is_err(), "{bad}");
        }
        for bad in ["64MB", "64M", "x", "1e3B", "99999999999999999999GiB"] {
            assert!(parse_size(bad).is_err(), "{bad}");
        }
    }
}
