//! Which metric an element of a sensor becomes: its name, help and unit, as node_exporter has them, oddities
//! included (`temp1_crit_alarm` counts as a temperature). It must not know where values come from.

use super::names::clean;
use crate::model::Kind;

/// How a file's text becomes the value.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Unit {
    One,
    /// Multiplied by 0.001.
    Thousandth,
    /// Divided by a million.
    Millionth,
    /// Whether the text is `1`.
    Flag,
}

impl Unit {
    /// None where the text is no number, as some attributes are not: that is no error.
    pub(super) fn value(self, text: &[u8]) -> Option<f64> {
        let number = || float(text);
        match self {
            Unit::One => number(),
            Unit::Thousandth => number().map(|value| value * 0.001),
            Unit::Millionth => number().map(|value| value / 1_000_000.0),
            Unit::Flag => Some(f64::from(u8::from(text == b"1"))),
        }
    }
}

/// A number as Go reads it: Rust's rules, but what is too large is none.
fn float(text: &[u8]) -> Option<f64> {
    let value: f64 = std::str::from_utf8(text).ok()?.parse().ok()?;
    let is_digit = |byte: &u8| byte.is_ascii_digit();
    (value.is_finite() || !text.iter().any(is_digit)).then_some(value)
}

/// What an element of a sensor becomes.
#[derive(Debug, PartialEq)]
pub(super) struct Metric {
    pub(super) name: String,
    pub(super) help: String,
    pub(super) kind: Kind,
    pub(super) unit: Unit,
    /// Whether the label `sensor` is made of the sensor's own label.
    pub(super) named_by_label: bool,
}

impl Metric {
    fn gauge(name: String, help: String, unit: Unit) -> Metric {
        Metric { name, help, kind: Kind::Gauge, unit, named_by_label: false }
    }
}

/// The metric of an element of a sensor of this type; none for what has no value of its own. `has_plain`
/// says that the sensor has an attribute without an element, such as `pwm1`.
pub(super) fn metric(kind: &str, element: &str, has_plain: bool) -> Option<Metric> {
    use Unit::{Flag, Millionth, One, Thousandth};
    let special = match kind {
        "beep_enable" => Some(("beep_enabled", "Hardware beep enabled", Flag)),
        "vrm" => Some(("voltage_regulator_version", "Hardware voltage regulator", One)),
        "update_interval" => {
            Some(("update_interval_seconds", "Hardware monitor update interval", Thousandth))
        }
        _ => None,
    };
    if let Some((name, help, unit)) = special {
        let whole = || Metric::gauge(format!("node_hwmon_{name}"), help.to_owned(), unit);
        return element.is_empty().then(whole);
    }
    let name = match element {
        "label" => return None,
        "" => format!("node_hwmon_{kind}"),
        "input" if !has_plain => format!("node_hwmon_{kind}"),
        _ => format!("node_hwmon_{kind}_{}", clean(element.as_bytes())),
    };
    let (suffix, help, unit) = match (kind, element) {
        (_, "fault" | "alarm") => ("", format!("Hardware sensor {element} status ({kind})"), One),
        (_, "beep") => ("_enabled", "Hardware monitor sensor has beeping enabled".to_owned(), One),
        ("in" | "cpu", _) => {
            ("_volts", format!("Hardware monitor for voltage ({element})"), Thousandth)
        }
        ("temp", element) if element != "type" => {
            let element = if element.is_empty() { "input" } else { element };
            ("_celsius", format!("Hardware monitor for temperature ({element})"), Thousandth)
        }
        ("curr", _) => ("_amps", format!("Hardware monitor for current ({element})"), Thousandth),
        ("energy", _) => {
            let help = format!("Hardware monitor for joules used so far ({element})");
            let kind = Kind::Counter;
            return Some(Metric { kind, ..Metric::gauge(name + "_joule_total", help, Millionth) });
        }
        ("power", "accuracy") => {
            ("", "Hardware monitor power meter accuracy, as a ratio".to_owned(), Millionth)
        }
        ("power", "average_interval" | "average_interval_min" | "average_interval_max") => (
            "_seconds",
            format!("Hardware monitor power usage update interval ({element})"),
            Thousandth,
        ),
        ("power", _) => {
            ("_watt", format!("Hardware monitor for power usage in watts ({element})"), Millionth)
        }
        ("humidity", _) => (
            "",
            format!(
                "Hardware monitor for humidity, as a ratio (multiply with 100.0 to get the humidity \
                 as a percentage) ({element})"
            ),
            Millionth,
        ),
        ("fan", "input" | "min" | "max" | "target") => {
            ("_rpm", format!("Hardware monitor for fan revolutions per minute ({element})"), One)
        }
        ("freq", "input") => {
            let help = "Hardware monitor for GPU frequency in MHz".to_owned();
            let metric = Metric::gauge(name + "_freq_mhz", help, Millionth);
            return Some(Metric { named_by_label: true, ..metric });
        }
        _ => ("", format!("Hardware monitor {kind} element {element}"), One),
    };
    Some(Metric::gauge(name + suffix, help, unit))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn text_that_is_no_number_has_no_value() {
        let bad = ["", "N/A", " 1", "1 ", "95.0%", "1e999", "0x10", "1_000", "--1", "\u{661}"];
        for text in bad {
            assert_eq!(Unit::One.value(text.as_bytes()), None, "{text:?}");
        }
        assert_eq!(Unit::One.value(b"\xff1"), None);
        assert_eq!(Unit::Thousandth.value(b"-41000"), Some(-41.0));
        assert_eq!(Unit::Millionth.value(b"950000"), Some(0.95));
        assert_eq!(Unit::Flag.value(b"yes"), Some(0.0));
        assert!(Unit::One.value(b"NaN").is_some_and(f64::is_nan));
    }

    #[test]
    fn names_and_units_of_elements() {
        let all = |kind, element, has_plain| {
            metric(kind, element, has_plain).map(|m| (m.name, m.kind, m.unit))
        };
        let gauge = |name: &str, unit| Some((name.to_owned(), Kind::Gauge, unit));
        assert_eq!(all("temp", "input", false), gauge("node_hwmon_temp_celsius", Unit::Thousandth));
        assert_eq!(
            all("temp", "input", true),
            gauge("node_hwmon_temp_input_celsius", Unit::Thousandth)
        );
        assert_eq!(all("temp", "label", false), None);
        assert_eq!(all("vrm", "x", false), None);
        assert_eq!(all("pwm", "Auto-Mode", true), gauge("node_hwmon_pwm_auto_mode", Unit::One));
        assert_eq!(
            all("energy", "input", false),
            Some(("node_hwmon_energy_joule_total".to_owned(), Kind::Counter, Unit::Millionth))
        );
        let frequency = metric("freq", "input", false).unwrap();
        assert_eq!(frequency.name, "node_hwmon_freq_freq_mhz");
        assert!(frequency.named_by_label);
    }
}
