//! The names of hwmon: what an attribute's file name says, and names as labels. It must not know the
//! file system.

/// Types of sensors that node_exporter knows (Documentation/hwmon/sysfs-interface.rst), and `freq`, which
/// it has from version 1.8 on.
const TYPES: [&str; 14] = [
    "vrm",
    "beep_enable",
    "update_interval",
    "in",
    "cpu",
    "fan",
    "pwm",
    "temp",
    "curr",
    "power",
    "energy",
    "humidity",
    "intrusion",
    "freq",
];

/// The parts of a name such as `temp1_input`, `pwm1` or `beep_enable`.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Attribute<'a> {
    pub(super) kind: &'a str,
    /// 0 where the name has none.
    pub(super) number: i64,
    /// Empty where the name has none.
    pub(super) element: &'a str,
}

impl<'a> Attribute<'a> {
    /// None for a file that is no sensor's.
    pub(super) fn parse(name: &'a str) -> Option<Attribute<'a>> {
        let digits = name.find(|c: char| c.is_ascii_digit()).unwrap_or(name.len());
        let (kind, rest) = name.split_at_checked(digits)?;
        let kind = TYPES.into_iter().find(|known| *known == kind)?;
        let end = rest.find(|c: char| !c.is_ascii_digit()).unwrap_or(rest.len());
        let (number, rest) = rest.split_at_checked(end)?;
        let number = if number.is_empty() { 0 } else { number.parse().ok()? };
        let element = match rest {
            "" => "",
            _ => rest.strip_prefix('_').filter(|rest| !rest.is_empty() && !rest.contains('\n'))?,
        };
        Some(Attribute { kind, number, element })
    }
}

/// A name in small letters, digits, colons and underscores, as node_exporter makes it of a chip's or a
/// device's: every other character is an underscore, and none stands at either end.
pub(super) fn clean(name: &[u8]) -> String {
    let mut cleaned = String::with_capacity(name.len());
    for chunk in name.utf8_chunks() {
        cleaned.extend(chunk.valid().chars().map(|c| match c.to_ascii_lowercase() {
            c @ ('a'..='z' | '0'..='9' | ':' | '_') => c,
            // Go's lower case of the dotted I and the Kelvin sign.
            '\u{130}' => 'i',
            '\u{212a}' => 'k',
            _ => '_',
        }));
        cleaned.extend(chunk.invalid().iter().map(|_| '_'));
    }
    cleaned.trim_matches('_').to_owned()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_of_files() {
        let parse = |name| Attribute::parse(name).map(|a| (a.kind, a.number, a.element));
        assert_eq!(parse("temp1_input"), Some(("temp", 1, "input")));
        assert_eq!(parse("pwm1"), Some(("pwm", 1, "")));
        assert_eq!(parse("pwm12_auto_point1_pwm"), Some(("pwm", 12, "auto_point1_pwm")));
        assert_eq!(parse("beep_enable"), Some(("beep_enable", 0, "")));
        assert_eq!(parse("temp"), Some(("temp", 0, "")));
        assert_eq!(parse("in007_max"), Some(("in", 7, "max")));
        assert_eq!(parse("temp1__x"), Some(("temp", 1, "_x")));
    }

    #[test]
    fn files_that_are_no_sensors() {
        for name in [
            "",
            "1",
            "name",
            "uevent",
            "temp1_",
            "temp1x",
            "temp1x_input",
            "temp_input",
            "in1_a\nb",
            "in99999999999999999999_input",
            "tempé1_input",
            "in٣_input",
        ] {
            assert_eq!(Attribute::parse(name), None, "{name:?}");
        }
    }

    #[test]
    fn names_as_labels() {
        assert_eq!(clean(b"coretemp\n"), "coretemp");
        assert_eq!(clean(b"nct6775.656"), "nct6775_656");
        assert_eq!(clean(b"target0:0:0"), "target0:0:0");
        assert_eq!(clean(b"__Sensor Hub\xff\xc3(v2)__"), "sensor_hub___v2");
        assert_eq!(clean("273 \u{212a}, °C".as_bytes()), "273_k___c");
        assert_eq!(clean(b" \n"), "");
    }
}
