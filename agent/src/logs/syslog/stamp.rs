//! The times that syslog messages carry: RFC 3339's (RFC 5424, and what rsyslog and Go write into
//! RFC 3164's place) and the BSD form `Mmm dd hh:mm:ss`, which lacks year and zone. It must not know where
//! in a message they stand.

use tz::TimeZone;

/// A time as it was written.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Stamp {
    /// With its zone: nanoseconds since the Unix epoch.
    Exact(i64),
    /// Without a zone, perhaps without a year.
    Local {
        year: Option<i32>,
        month: u8,
        day: u8,
        /// Since midnight.
        seconds: u32,
        nanos: u32,
    },
}

const MONTHS: [&[u8; 3]; 12] = [
    b"Jan", b"Feb", b"Mar", b"Apr", b"May", b"Jun", b"Jul", b"Aug", b"Sep", b"Oct", b"Nov", b"Dec",
];

impl Stamp {
    /// The time at the beginning of these bytes, and what is behind it.
    pub(super) fn parse(bytes: &[u8]) -> Option<(Stamp, &[u8])> {
        match bytes.first()? {
            b'0'..=b'9' => rfc3339(bytes),
            _ => bsd(bytes),
        }
    }

    /// Nanoseconds since the Unix epoch. What was not written is chosen so that the time is nearest to
    /// now: the year, and which of two equal hours where clocks are put back.
    pub(super) fn resolve(self, now_ns: i64, zone: &TimeZone) -> Option<i64> {
        let (year, month, day, seconds, nanos) = match self {
            Stamp::Exact(ns) => return Some(ns),
            Stamp::Local { year, month, day, seconds, nanos } => (year, month, day, seconds, nanos),
        };
        let now = now_ns.div_euclid(1_000_000_000);
        let this = year_of(now);
        let years = match year {
            Some(year) => [Some(year), None, None],
            None => [Some(this - 1), Some(this), Some(this + 1)],
        };
        let candidates = years.into_iter().flatten().filter_map(|year| {
            let days = days(year, month, day)?;
            utc(days * 86_400 + i64::from(seconds), now, zone)
        });
        let nearest = candidates.min_by_key(|time| time.abs_diff(now))?;
        nearest.checked_mul(1_000_000_000)?.checked_add(i64::from(nanos))
    }
}

/// The time at which a clock of this zone showed so many seconds since 1970.
fn utc(shown: i64, now: i64, zone: &TimeZone) -> Option<i64> {
    let offset =
        |time| zone.find_local_time_type(time).map_or(0, |kind| i64::from(kind.ut_offset()));
    // Offsets before and behind a change of them that is near.
    let around = [shown - 86_400, shown + 86_400].map(|time| shown - offset(time));
    let really = around.into_iter().filter(|time| time + offset(*time) == shown);
    // In the hour that is left out, as if it had not been.
    really.min_by_key(|time| time.abs_diff(now)).or(around.first().copied())
}

/// `2003-10-11T22:14:15.003Z`, also with a space for the T, and with `+02:00`, `+0200` or nothing for the Z.
fn rfc3339(bytes: &[u8]) -> Option<(Stamp, &[u8])> {
    let (year, rest) = digits(bytes, 4)?;
    let (month, rest) = digits(strip(rest, b"-")?, 2)?;
    let (day, rest) = digits(strip(rest, b"-")?, 2)?;
    let rest = strip(rest, b"Tt ")?;
    let (seconds, nanos, rest) = clock(rest)?;
    let (year, month, day) = (i32::try_from(year).ok()?, month as u8, day as u8);
    let days = days(year, month, day)?;
    let (offset, rest) = match rest.first() {
        Some(b'Z' | b'z') => (0, rest.get(1..)?),
        Some(sign @ (b'+' | b'-')) => {
            let (hours, rest) = digits(rest.get(1..)?, 2)?;
            let rest = strip(rest, b":").unwrap_or(rest);
            let (minutes, rest) = digits(rest, 2)?;
            if hours > 23 || minutes > 59 {
                return None;
            }
            let offset = i64::from(hours * 3_600 + minutes * 60);
            (if *sign == b'-' { -offset } else { offset }, rest)
        }
        _ => return Some((Stamp::Local { year: Some(year), month, day, seconds, nanos }, rest)),
    };
    let time = days * 86_400 + i64::from(seconds) - offset;
    let ns = time.checked_mul(1_000_000_000)?.checked_add(i64::from(nanos))?;
    Some((Stamp::Exact(ns), rest))
}

/// `Oct  1 22:14:15`, also `Oct 01`, `Oct 1`, with a fraction, with a year before the time (Cisco) or with a
/// zone and a colon behind it, `UTC:` (Cisco), which is not looked into.
fn bsd(bytes: &[u8]) -> Option<(Stamp, &[u8])> {
    let name = bytes.get(..3)?;
    let month = MONTHS.iter().position(|month| month.eq_ignore_ascii_case(name))? as u8 + 1;
    let rest = spaces(strip(bytes.get(3..)?, b" ")?);
    let (day, rest) = digits(rest, 2).or_else(|| digits(rest, 1))?;
    let rest = spaces(strip(rest, b" ")?);
    let (year, rest) =
        match digits(rest, 4).and_then(|(year, rest)| Some((year, strip(rest, b" ")?))) {
            Some((year, rest)) => (Some(i32::try_from(year).ok()?), spaces(rest)),
            None => (None, rest),
        };
    let (seconds, nanos, rest) = clock(rest)?;
    let day = day as u8;
    // 2000 has a 29th of February.
    days(year.unwrap_or(2000), month, day)?;
    let zone = rest.strip_prefix(b" ").and_then(|rest| {
        let length = rest.iter().take_while(|byte| byte.is_ascii_uppercase()).count();
        (2..=5).contains(&length).then(|| rest.get(length..))?
    });
    let rest = zone.filter(|rest| rest.first() == Some(&b':')).unwrap_or(rest);
    Some((Stamp::Local { year, month, day, seconds, nanos }, rest))
}

/// `hh:mm:ss` with any fraction: seconds, nanoseconds and what is behind them. A leap second is the one
/// before it.
fn clock(bytes: &[u8]) -> Option<(u32, u32, &[u8])> {
    let (hour, rest) = digits(bytes, 2)?;
    let (minute, rest) = digits(strip(rest, b":")?, 2)?;
    let (second, mut rest) = digits(strip(rest, b":")?, 2)?;
    if hour > 23 || minute > 59 || second > 60 {
        return None;
    }
    let mut nanos = 0;
    if let Some(fraction) =
        strip(rest, b".,").filter(|rest| rest.first().is_some_and(u8::is_ascii_digit))
    {
        let mut unit = 100_000_000;
        let length = fraction.iter().take_while(|byte| byte.is_ascii_digit()).count();
        for digit in fraction.iter().take(length.min(9)) {
            nanos += u32::from(digit - b'0') * unit;
            unit /= 10;
        }
        rest = fraction.get(length..)?;
    }
    Some((hour * 3_600 + minute * 60 + second.min(59), nanos, rest))
}

/// Exactly so many digits.
fn digits(bytes: &[u8], count: usize) -> Option<(u32, &[u8])> {
    let (digits, rest) = bytes.split_at_checked(count)?;
    let number = digits.iter().try_fold(0, |number, byte| {
        byte.is_ascii_digit().then(|| number * 10 + u32::from(byte - b'0'))
    })?;
    Some((number, rest))
}

/// What is behind one of these bytes.
fn strip<'a>(bytes: &'a [u8], one_of: &[u8]) -> Option<&'a [u8]> {
    let (first, rest) = bytes.split_first()?;
    one_of.contains(first).then_some(rest)
}

fn spaces(bytes: &[u8]) -> &[u8] {
    let count = bytes.iter().take_while(|byte| **byte == b' ').count();
    bytes.get(count..).unwrap_or_default()
}

/// Days since 1970 of a date that there is.
fn days(year: i32, month: u8, day: u8) -> Option<i64> {
    let leap = year % 4 == 0 && (year % 100 != 0 || year % 400 == 0);
    let last = match month {
        1 | 3 | 5 | 7 | 8 | 10 | 12 => 31,
        4 | 6 | 9 | 11 => 30,
        2 if leap => 29,
        2 => 28,
        _ => return None,
    };
    if day == 0 || day > last {
        return None;
    }
    // Years that begin with March.
    let year = i64::from(year) - i64::from(month <= 2);
    let month = (i64::from(month) + 9) % 12;
    let of_year = (153 * month + 2) / 5 + i64::from(day) - 1;
    let leaps = year.div_euclid(4) - year.div_euclid(100) + year.div_euclid(400);
    Some(year * 365 + leaps + of_year - 719_468)
}

/// The year, in UTC, in which a time in seconds falls.
fn year_of(time: i64) -> i32 {
    let guess = 1970 + time.div_euclid(31_556_952);
    let guess = i32::try_from(guess).unwrap_or(1970);
    let begins = |year| days(year, 1, 1).unwrap_or(0) * 86_400;
    if time < begins(guess) {
        guess - 1
    } else if time >= begins(guess + 1) {
        guess + 1
    } else {
        guess
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// 2024-01-01T00:00:30Z
    const NEW_YEAR: i64 = 1_704_067_230_000_000_000;

    fn at(text: &str, now: i64, zone: &TimeZone) -> Option<i64> {
        let (stamp, rest) = Stamp::parse(text.as_bytes())?;
        assert_eq!(rest, b"", "{text}");
        Some(stamp.resolve(now, zone)?.div_euclid(1_000_000))
    }

    #[test]
    fn every_form_in_the_wild_is_a_time() {
        let utc = TimeZone::utc();
        for (text, milliseconds) in [
            ("2003-10-11T22:14:15.003Z", 1_065_910_455_003),
            ("2003-08-24T05:14:15.000003-07:00", 1_061_727_255_000),
            ("2003-10-11T22:14:15+0200", 1_065_903_255_000),
            ("2003-10-11 22:14:15,5", 1_065_910_455_500),
            ("1969-12-31T23:59:59.999999999Z", -1),
            ("2016-12-31T23:59:60Z", 1_483_228_799_000),
            ("Jan  1 00:00:31", 1_704_067_231_000),
            ("Jan 01 00:00:31.25", 1_704_067_231_250),
            ("jan 1 00:00:31", 1_704_067_231_000),
            ("Oct 11 2003 22:14:15", 1_065_910_455_000),
            ("Oct 11 2003 22:14:15.003", 1_065_910_455_003),
        ] {
            assert_eq!(at(text, NEW_YEAR, &utc), Some(milliseconds), "{text}");
        }
        let (_, rest) = Stamp::parse(b"Mar  1 18:46:11 UTC: %SYS").unwrap();
        assert_eq!(rest, b": %SYS");
        let (_, rest) = Stamp::parse(b"Mar  1 18:46:11 HOST app: x").unwrap();
        assert_eq!(rest, b" HOST app: x");
    }

    #[test]
    fn the_year_that_is_missing_is_the_nearest() {
        let utc = TimeZone::utc();
        // Half a minute after midnight, a message of the old year.
        assert_eq!(at("Dec 31 23:59:59", NEW_YEAR, &utc), Some(1_704_067_199_000));
        // And of a sender whose clock runs ahead.
        let before = NEW_YEAR - 60_000_000_000;
        assert_eq!(at("Jan  1 00:00:01", before, &utc), Some(1_704_067_201_000));
        // There is no such day but in 2024.
        assert_eq!(at("Feb 29 00:00:00", NEW_YEAR, &utc), Some(1_709_164_800_000));
        assert_eq!(at("Feb 29 00:00:00", NEW_YEAR + 86_400_000_000_000 * 800, &utc), None);
    }

    #[test]
    fn local_times_are_taken_by_the_zone_and_the_second_of_two_when_it_is_nearer() {
        let berlin = TimeZone::from_posix_tz("CET-1CEST,M3.5.0,M10.5.0/3").unwrap();
        assert_eq!(at("Jan  1 01:00:31", NEW_YEAR, &berlin), Some(1_704_067_231_000));
        // 02:30 was twice on 2024-10-27: at 00:30 and at 01:30 UTC.
        let (first, second) = (1_729_989_000_000, 1_729_992_600_000);
        assert_eq!(at("Oct 27 02:30:00", (first + 5) * 1_000_000, &berlin), Some(first));
        assert_eq!(at("Oct 27 02:30:00", (second - 5) * 1_000_000, &berlin), Some(second));
        // And not at all on 2024-03-31.
        assert!(at("Mar 31 02:30:00", NEW_YEAR, &berlin).is_some());
    }

    #[test]
    fn what_is_no_time_is_none() {
        for text in [
            "",
            "Oct",
            "Oct 11",
            "Oct 32 00:00:00",
            "Oct 00 00:00:00",
            "Foo 11 22:14:15",
            "Oct 11 24:00:00",
            "Oct 11 22:14",
            "2003-13-11T22:14:15Z",
            "2003-02-29T22:14:15Z",
            "2003-10-11T22:14:15+25:00",
            "2003-10-11X22:14:15Z",
            "2003-10-11T22:14:15+",
            "\u{fc}",
            "Oct 11 22:60:15",
            "9",
            "-",
        ] {
            assert_eq!(Stamp::parse(text.as_bytes()), None, "{text}");
        }
    }
}
