//! Times as container engines write them, RFC 3339 with up to nine digits of a second, to nanoseconds.
//! It must not know where they stand.

const DAY: i64 = 86_400;

/// `2026-11-21T22:07:11.123456789Z` or with an offset as `+01:00`, as nanoseconds since the Unix epoch.
/// None: it is no such time, or none between 1678 and 2262. Digits behind the ninth are passed over.
pub(super) fn rfc3339(text: &[u8]) -> Option<i64> {
    let (date, rest) = text.split_at_checked(10)?;
    let [y0, y1, y2, y3, b'-', m0, m1, b'-', d0, d1] = *date else { return None };
    let (clock, rest) = rest.split_at_checked(9)?;
    let [b'T' | b't' | b' ', h0, h1, b':', n0, n1, b':', s0, s1] = *clock else { return None };
    let year = number(&[y0, y1, y2, y3])?;
    let (month, day) = (number(&[m0, m1])?, number(&[d0, d1])?);
    let (hour, minute, second) = (number(&[h0, h1])?, number(&[n0, n1])?, number(&[s0, s1])?);
    // 60: a leap second, which Unix' time does not have.
    if !(1..=12).contains(&month)
        || !(1..=days_in(year, month)).contains(&day)
        || hour > 23
        || minute > 59
        || second > 60
    {
        return None;
    }
    let (nanos, zone) = match rest.split_first()? {
        (b'.' | b',', digits) => {
            let len = digits.iter().take_while(|byte| byte.is_ascii_digit()).count();
            let (digits, zone) =
                digits.split_at_checked(len).filter(|(some, _)| !some.is_empty())?;
            let digits = digits.get(..9).unwrap_or(digits);
            (number(digits)? * 10_i64.pow(9 - digits.len() as u32), zone)
        }
        _ => (0, rest),
    };
    let offset = match *zone {
        [b'Z' | b'z'] => 0,
        [sign @ (b'+' | b'-'), h0, h1, b':', m0, m1] => {
            let (hours, minutes) = (number(&[h0, h1])?, number(&[m0, m1])?);
            if hours > 23 || minutes > 59 {
                return None;
            }
            (hours * 3600 + minutes * 60) * if sign == b'-' { -1 } else { 1 }
        }
        _ => return None,
    };
    let days = days_from_civil(year, month, day);
    let seconds = days * DAY + hour * 3600 + minute * 60 + second - offset;
    seconds.checked_mul(1_000_000_000)?.checked_add(nanos)
}

/// At most nine digits.
fn number(digits: &[u8]) -> Option<i64> {
    digits.iter().try_fold(0, |sum, &digit| {
        digit.is_ascii_digit().then(|| sum * 10 + i64::from(digit - b'0'))
    })
}

fn days_in(year: i64, month: i64) -> i64 {
    match month {
        2 if year % 4 == 0 && (year % 100 != 0 || year % 400 == 0) => 29,
        2 => 28,
        4 | 6 | 9 | 11 => 30,
        _ => 31,
    }
}

/// Days since 1970-01-01 in the Gregorian calendar, for years from 0 on.
fn days_from_civil(year: i64, month: i64, day: i64) -> i64 {
    // Years begin in March, so that the day that may be missing is the last one.
    let (year, month) = if month > 2 { (year, month - 3) } else { (year - 1, month + 9) };
    let (era, year) = (year.div_euclid(400), year.rem_euclid(400));
    let day_of_year = (153 * month + 2) / 5 + day - 1;
    era * 146_097 + year * 365 + year / 4 - year / 100 + day_of_year - 719_468
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn times_are_nanoseconds() {
        for (text, expected) in [
            ("1970-01-01T00:00:00Z", 0),
            ("1970-01-01T00:00:00.000000001Z", 1),
            ("1969-12-31T23:59:59.9Z", -100_000_000),
            ("2016-10-06T00:17:09.669794202Z", 1_475_713_029_669_794_202),
            ("2016-10-06T02:17:09.669794202+02:00", 1_475_713_029_669_794_202),
            ("2016-10-05T20:47:09.669794202999-03:30", 1_475_713_029_669_794_202),
            ("2024-02-29T12:00:00.5Z", 1_709_208_000_500_000_000),
            ("2016-12-31T23:59:60Z", 1_483_228_800_000_000_000),
            ("2000-03-01T00:00:00Z", 951_868_800_000_000_000),
        ] {
            assert_eq!(rfc3339(text.as_bytes()), Some(expected), "{text}");
        }
    }

    #[test]
    fn what_is_no_time_is_none() {
        for text in [
            "",
            "2016-10-06",
            "2016-10-06T00:17:09",
            "2016-10-06T00:17:09.Z",
            "2016-10-06T00:17:09.5",
            "2016-13-06T00:17:09Z",
            "2016-00-06T00:17:09Z",
            "2023-02-29T00:17:09Z",
            "2016-10-06T24:17:09Z",
            "2016-10-06T00:60:09Z",
            "2016-10-06T00:17:61Z",
            "2016-10-06T00:17:09+0200",
            "2016-10-06T00:17:09+24:00",
            "2016-10-06T00:17:09ZZ",
            "0001-01-01T00:00:00Z",
            "9999-12-31T23:59:59Z",
            "x016-10-06T00:17:09Z",
        ] {
            assert_eq!(rfc3339(text.as_bytes()), None, "{text}");
        }
    }
}
