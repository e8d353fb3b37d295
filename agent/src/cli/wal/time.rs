//! Times as RFC 3339, for any number that a record may hold, and back from what a user types.

use std::time::UNIX_EPOCH;

/// Milliseconds since the Unix epoch, in UTC: `2026-11-21T12:50:51.000Z`. What four digits of a year
/// can't say is shown as the number.
pub(super) fn rfc3339_ms(ms: i64) -> String {
    match date(ms.div_euclid(1000)) {
        Some(date) => format!("{date}.{:03}Z", ms.rem_euclid(1000)),
        None => format!("{ms}ms"),
    }
}

/// Nanoseconds since the Unix epoch, in UTC: `2026-11-21T12:50:51.000000000Z`.
pub(super) fn rfc3339_ns(ns: i64) -> String {
    match date(ns.div_euclid(1_000_000_000)) {
        Some(date) => format!("{date}.{:09}Z", ns.rem_euclid(1_000_000_000)),
        None => format!("{ns}ns"),
    }
}

/// Date and time of a second since the Unix epoch, in the years 0 to 9999.
fn date(seconds: i64) -> Option<String> {
    // Days since 0000-03-01 in eras of 400 years: the leap day is then a year's last one.
    let days = seconds.div_euclid(86_400) + 719_468;
    let (era, day) = (days.div_euclid(146_097), days.rem_euclid(146_097));
    let year = (day - day / 1_460 + day / 36_524 - day / 146_096) / 365;
    let day = day - (365 * year + year / 4 - year / 100);
    let month = (5 * day + 2) / 153;
    let day = day - (153 * month + 2) / 5 + 1;
    let (month, next) = if month < 10 { (month + 3, 0) } else { (month - 9, 1) };
    let year = era * 400 + year + next;
    let second = seconds.rem_euclid(86_400);
    let (hour, minute, second) = (second / 3600, second / 60 % 60, second % 60);
    (0..=9999)
        .contains(&year)
        .then(|| format!("{year:04}-{month:02}-{day:02}T{hour:02}:{minute:02}:{second:02}"))
}

/// Reads `2026-11-21T12:50:51Z`, also with a fraction, a space for the T, and an offset such as +02:00;
/// in milliseconds since the Unix epoch. None for what is none, and for times before 1970.
pub(super) fn parse(text: &str) -> Option<i64> {
    let (local, offset_ms) = match text.strip_suffix(['Z', 'z']) {
        Some(local) => (local, 0),
        None => {
            let (local, offset) = text.split_at_checked(text.len().checked_sub(6)?)?;
            (local, parse_offset(offset)?)
        }
    };
    let time = humantime::parse_rfc3339_weak(&local.replace('t', "T")).ok()?;
    let ms = time.duration_since(UNIX_EPOCH).ok()?.as_millis();
    i64::try_from(ms).ok()?.checked_sub(offset_ms)
}

/// `+02:00`, in milliseconds.
fn parse_offset(text: &str) -> Option<i64> {
    let [sign @ (b'+' | b'-'), h1, h0, b':', m1, m0] = *text.as_bytes() else { return None };
    let digits = |tens: u8, ones: u8| {
        let all = tens.is_ascii_digit() && ones.is_ascii_digit();
        all.then(|| i64::from(tens - b'0') * 10 + i64::from(ones - b'0'))
    };
    let (hours, minutes) = (digits(h1, h0)?, digits(m1, m0)?);
    let ms = (hours * 60 + minutes) * 60_000;
    (hours < 24 && minutes < 60).then_some(if sign == b'-' { -ms } else { ms })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_number_has_a_time_or_is_shown_as_it_is() {
        assert_eq!(rfc3339_ms(0), "1970-01-01T00:00:00.000Z");
        assert_eq!(rfc3339_ms(-1), "1969-12-31T23:59:59.999Z");
        assert_eq!(rfc3339_ms(951_782_400_123), "2000-02-29T00:00:00.123Z");
        assert_eq!(rfc3339_ms(1_709_251_199_000), "2024-02-29T23:59:59.000Z");
        assert_eq!(rfc3339_ms(253_402_300_799_999), "9999-12-31T23:59:59.999Z");
        assert_eq!(rfc3339_ms(253_402_300_800_000), "253402300800000ms");
        assert_eq!(rfc3339_ms(i64::MAX), "9223372036854775807ms");
        assert_eq!(rfc3339_ms(i64::MIN), "-9223372036854775808ms");
        assert_eq!(rfc3339_ns(i64::MAX), "2262-04-11T23:47:16.854775807Z");
        assert_eq!(rfc3339_ns(i64::MIN), "1677-09-21T00:12:43.145224192Z");
    }

    #[test]
    fn dates_are_those_of_another_calendar() {
        for day in 0..80_000 {
            let time = UNIX_EPOCH + std::time::Duration::from_secs(day * 86_400 + day);
            let want = humantime::format_rfc3339_millis(time).to_string();
            assert_eq!(rfc3339_ms((day * 86_400 + day) as i64 * 1000), want);
        }
    }

    #[test]
    fn a_users_time_is_read_with_its_offset_or_refused() {
        let noon = 1_763_726_400_000;
        for good in [
            "2025-11-21T12:00:00Z",
            "2025-11-21t12:00:00z",
            "2025-11-21 12:00:00.000Z",
            "2025-11-21T14:00:00+02:00",
            "2025-11-21T03:30:00-08:30",
        ] {
            assert_eq!(parse(good), Some(noon), "{good}");
        }
        for bad in [
            "",
            "Z",
            "12",
            "2025-11-21",
            "2025-11-21T12:00:00",
            "2025-13-21T12:00:00Z",
            "2025-11-21T12:00:00+2:00",
            "2025-11-21T12:00:00+99:00",
            "1969-01-01T00:00:00Z",
            "2025-11-21T12:00:\u{fc}Z",
            "\u{fc}\u{fc}\u{fc}\u{fc}",
        ] {
            assert_eq!(parse(bad), None, "{bad}");
        }
    }
}
