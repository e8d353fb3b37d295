//! From a text and a format to Unix time.

use super::format::{Format, Part};
use super::zone::Zone;

const NANO: i64 = 1_000_000_000;
const DAY: i64 = 86_400;
const MONTHS: [&str; 12] = [
    "january",
    "february",
    "march",
    "april",
    "may",
    "june",
    "july",
    "august",
    "september",
    "october",
    "november",
    "december",
];
const WEEKDAYS: [&str; 7] =
    ["monday", "tuesday", "wednesday", "thursday", "friday", "saturday", "sunday"];
/// How far ahead a time without a year may be: a clock that is a little wrong, or a zone.
const YEAR_AHEAD: i64 = DAY;
/// How far ahead a time without a date may be.
const DATE_AHEAD: i64 = 3_600;

impl Format {
    /// The time that a text says, in nanoseconds since the Unix epoch; None if it says none in this
    /// format, or one before 1970 or after April 2262.
    ///
    /// A time without an offset is a local time of the zone. One without a year is of the latest year,
    /// one without a date of the latest day, with which it is not in the future: at most a day and an
    /// hour ahead of `now_ns`. Of a `whole` text nothing may be left over.
    pub fn read(&self, text: &str, whole: bool, zone: &Zone, now_ns: i64) -> Option<i64> {
        let mut cursor = Cursor { bytes: text.as_bytes(), at: 0 };
        let mut fields = Fields::default();
        for (index, part) in self.parts.iter().enumerate() {
            cursor.part(part, self.parts.get(index + 1), &mut fields)?;
        }
        if whole && cursor.peek().is_some() {
            return None;
        }
        fields.time(zone, now_ns.div_euclid(NANO)).filter(|time| *time >= 0)
    }
}

#[derive(Default)]
struct Fields {
    year: Option<i64>,
    month: Option<i64>,
    day: Option<i64>,
    day_of_year: Option<i64>,
    hour: i64,
    afternoon: Option<bool>,
    minute: i64,
    second: i64,
    nanos: i64,
    offset: Option<i64>,
    unix_ns: Option<i64>,
}

impl Fields {
    fn time(&self, zone: &Zone, now: i64) -> Option<i64> {
        if let Some(time) = self.unix_ns {
            return Some(time);
        }
        let hour = match self.afternoon {
            None => self.hour,
            Some(_) if !(1..=12).contains(&self.hour) => return None,
            Some(afternoon) => self.hour % 12 + if afternoon { 12 } else { 0 },
        };
        let of_day = hour * 3_600 + self.minute * 60 + self.second;
        let unix = |day: i64| match self.offset {
            Some(offset) => day * DAY + of_day - offset,
            None => zone.unix(day * DAY + of_day, now),
        };
        let today = match self.offset {
            Some(offset) => now + offset,
            None => zone.local(now),
        };
        let today = today.div_euclid(DAY);
        let seconds = if let Some(year) = self.year {
            unix(self.date(year)?)
        } else if self.month.is_some() {
            let this = year_of(today);
            // Eight years lie between two 29ths of February at most.
            let mut years = (this - 8..=this + 1).rev();
            years.find_map(|year| {
                self.date(year).map(unix).filter(|time| *time <= now + YEAR_AHEAD)
            })?
        } else {
            let mut days = (today - 1..=today + 1).rev();
            days.find_map(|day| Some(unix(day)).filter(|time| *time <= now + DATE_AHEAD))?
        };
        seconds.checked_mul(NANO)?.checked_add(self.nanos)
    }

    /// The date's day since 1970; None where the year has no such day.
    fn date(&self, year: i64) -> Option<i64> {
        if let Some(day) = self.day_of_year.filter(|_| self.month.is_none()) {
            return (day <= 365 + i64::from(is_leap(year)))
                .then(|| days_from_civil(year, 1, 1) + day - 1);
        }
        let (month, day) = (self.month?, self.day?);
        let length = match month {
            2 => 28 + i64::from(is_leap(year)),
            4 | 6 | 9 | 11 => 30,
            _ => 31,
        };
        (day <= length).then(|| days_from_civil(year, month, day))
    }
}

fn is_leap(year: i64) -> bool {
    year % 4 == 0 && (year % 100 != 0 || year % 400 == 0)
}

/// Days since 1970-01-01 of a date of the Gregorian calendar: years are counted from March on, so that
/// a leap day is their last one, and eras have 400 of them.
fn days_from_civil(year: i64, month: i64, day: i64) -> i64 {
    let year = if month <= 2 { year - 1 } else { year };
    let (era, of_era) = (year.div_euclid(400), year.rem_euclid(400));
    let day_of_year = (153 * ((month + 9) % 12) + 2) / 5 + day - 1;
    era * 146_097 + of_era * 365 + of_era / 4 - of_era / 100 + day_of_year - 719_468
}

/// The year in which a day since 1970-01-01 lies.
fn year_of(day: i64) -> i64 {
    // Not later than it is.
    let mut year = 1970 + day.div_euclid(if day < 0 { 365 } else { 366 });
    while days_from_civil(year + 1, 1, 1) <= day {
        year += 1;
    }
    year
}

struct Cursor<'a> {
    bytes: &'a [u8],
    at: usize,
}

impl Cursor<'_> {
    fn peek(&self) -> Option<u8> {
        self.bytes.get(self.at).copied()
    }

    fn rest(&self) -> &[u8] {
        self.bytes.get(self.at..).unwrap_or_default()
    }

    fn take(&mut self, byte: u8) -> bool {
        let is = self.peek() == Some(byte);
        self.at += usize::from(is);
        is
    }

    fn part(&mut self, part: &Part, next: Option<&Part>, fields: &mut Fields) -> Option<()> {
        match part {
            Part::Literal(text) => {
                if !self.rest().starts_with(text.as_bytes()) {
                    return None;
                }
                self.at += text.len();
            }
            Part::Space => {
                if !self.peek()?.is_ascii_whitespace() {
                    return None;
                }
                while self.peek().is_some_and(|b| b.is_ascii_whitespace()) {
                    self.at += 1;
                }
            }
            Part::Separator => {
                matches!(self.peek()?, b'T' | b't' | b' ').then_some(())?;
                self.at += 1;
            }
            Part::Year => fields.year = Some(self.number(4, 4)?),
            Part::ShortYear => {
                let short = self.number(2, 2)?;
                fields.year = Some(if short < 69 { 2_000 + short } else { 1_900 + short });
            }
            Part::Month => fields.month = Some(within(self.padded(2)?, 1..=12)?),
            Part::MonthName => fields.month = Some(self.name(&MONTHS)?),
            Part::Day => fields.day = Some(within(self.padded(2)?, 1..=31)?),
            Part::DayOfYear => fields.day_of_year = Some(within(self.padded(3)?, 1..=366)?),
            Part::Weekday => drop(self.name(&WEEKDAYS)?),
            Part::Hour => fields.hour = within(self.padded(2)?, 0..=23)?,
            Part::Hour12 => fields.hour = within(self.padded(2)?, 1..=12)?,
            Part::Half => {
                fields.afternoon = Some(match self.rest() {
                    [b'a' | b'A', b'm' | b'M', ..] => false,
                    [b'p' | b'P', b'm' | b'M', ..] => true,
                    _ => return None,
                });
                self.at += 2;
            }
            Part::Minute => fields.minute = within(self.padded(2)?, 0..=59)?,
            Part::Second => {
                // 60 is a leap second: Unix time has the first one of the next minute there.
                fields.second = within(self.padded(2)?, 0..=60)?;
                let named = match next {
                    Some(Part::Fraction | Part::DotFraction) => true,
                    Some(Part::Literal(text)) => text.starts_with(['.', ',']),
                    _ => false,
                };
                if !named && self.is_fraction() {
                    self.at += 1;
                    fields.nanos = self.fraction(NANO)?;
                }
            }
            Part::Fraction => fields.nanos = self.fraction(NANO)?,
            Part::DotFraction => {
                if self.take(b'.') || self.take(b',') {
                    fields.nanos = self.fraction(NANO)?;
                }
            }
            Part::Offset => fields.offset = Some(self.offset()?),
            Part::MaybeOffset => {
                if matches!(self.peek(), Some(b'Z' | b'z' | b'+' | b'-')) {
                    fields.offset = Some(self.offset()?);
                }
            }
            Part::ZoneName => {
                let len = self.rest().iter().take_while(|b| b.is_ascii_alphabetic()).count();
                let name = self.rest().get(..len).filter(|name| !name.is_empty())?;
                if matches!(name, b"UTC" | b"GMT" | b"Z") {
                    fields.offset = Some(0);
                }
                self.at += len;
            }
            Part::Unix(unit) => fields.unix_ns = Some(self.unix(*unit)?),
        }
        Some(())
    }

    /// A number of so many digits, as many as there are.
    fn number(&mut self, min: usize, max: usize) -> Option<i64> {
        let mut number = 0;
        let start = self.at;
        while self.at - start < max
            && let Some(digit @ b'0'..=b'9') = self.peek()
        {
            number = number * 10 + i64::from(digit - b'0');
            self.at += 1;
        }
        (self.at - start >= min).then_some(number)
    }

    /// A number that may have a space in place of a leading zero.
    fn padded(&mut self, max: usize) -> Option<i64> {
        let spaces = usize::from(self.take(b' '));
        self.number(1, max - spaces)
    }

    /// One of these names, or its first three letters, counted from 1.
    fn name(&mut self, names: &[&str]) -> Option<i64> {
        let rest = self.rest();
        let is = |name: &&str| {
            rest.get(..3)
                .zip(name.as_bytes().get(..3))
                .is_some_and(|(a, b)| a.eq_ignore_ascii_case(b))
        };
        let index = names.iter().position(is)?;
        let name = names.get(index)?.as_bytes();
        let whole = rest.get(..name.len()).is_some_and(|text| text.eq_ignore_ascii_case(name));
        self.at += if whole { name.len() } else { 3 };
        i64::try_from(index + 1).ok()
    }

    /// Whether a fraction follows that the format does not name: a dot and digits, or a comma and three,
    /// six or nine of them, as other things stand behind commas, too.
    fn is_fraction(&self) -> bool {
        let rest = self.rest();
        let digits = rest.iter().skip(1).take_while(|b| b.is_ascii_digit()).count();
        match rest.first() {
            Some(b'.') => digits > 0,
            Some(b',') => matches!(digits, 3 | 6 | 9),
            _ => false,
        }
    }

    /// Digits behind the point, as parts of `unit`; those beyond its last one are passed over.
    fn fraction(&mut self, unit: i64) -> Option<i64> {
        let (mut number, mut scale) = (0, unit);
        let start = self.at;
        while let Some(digit @ b'0'..=b'9') = self.peek() {
            scale /= 10;
            number += i64::from(digit - b'0') * scale;
            self.at += 1;
        }
        (self.at > start).then_some(number)
    }

    fn offset(&mut self) -> Option<i64> {
        let sign = match self.peek()? {
            b'Z' | b'z' => {
                self.at += 1;
                return Some(0);
            }
            b'+' => 1,
            b'-' => -1,
            _ => return None,
        };
        self.at += 1;
        let hours = within(self.number(2, 2)?, 0..=23)?;
        let is_colon = self.take(b':');
        let more = self.peek().is_some_and(|b| b.is_ascii_digit());
        let minutes = if is_colon || more { within(self.number(2, 2)?, 0..=59)? } else { 0 };
        Some(sign * (hours * 3_600 + minutes * 60))
    }

    fn unix(&mut self, unit: i64) -> Option<i64> {
        let negative = self.take(b'-');
        let start = self.at;
        let mut number = 0i64;
        while let Some(digit @ b'0'..=b'9') = self.peek() {
            number = number.checked_mul(10)?.checked_add(i64::from(digit - b'0'))?;
            self.at += 1;
        }
        if self.at == start {
            return None;
        }
        let mut time = number.checked_mul(unit)?;
        if self.is_fraction() {
            self.at += 1;
            time = time.checked_add(self.fraction(unit)?)?;
        }
        Some(if negative { -time } else { time })
    }
}

fn within(number: i64, range: std::ops::RangeInclusive<i64>) -> Option<i64> {
    range.contains(&number).then_some(number)
}

#[cfg(test)]
mod tests {
    use std::path::Path;
    use std::time::{Duration, UNIX_EPOCH};

    use proptest::prelude::*;

    use super::*;

    /// 2026-11-21T22:00:00Z
    const NOW: i64 = 1_795_298_400;

    fn read_at(format: &str, text: &str, zone: &Zone, now: i64) -> Option<i64> {
        Format::parse(format).unwrap().read(text, true, zone, now * NANO)
    }

    fn read(format: &str, text: &str) -> Option<i64> {
        read_at(format, text, &Zone::utc(), NOW)
    }

    fn at(rfc3339: &str) -> Option<i64> {
        let time = humantime::parse_rfc3339(rfc3339).unwrap().duration_since(UNIX_EPOCH).unwrap();
        i64::try_from(time.as_nanos()).ok()
    }

    #[test]
    fn times_are_read_in_every_format() {
        for (format, text, time) in [
            ("rfc3339", "2026-11-21T21:59:58Z", "2026-11-21T21:59:58Z"),
            ("rfc3339", "2026-11-21t21:59:58.5+01:00", "2026-11-21T20:59:58.5Z"),
            ("rfc3339nano", "2026-11-21 21:59:58,123456789-0230", "2026-11-22T00:29:58.123456789Z"),
            ("rfc3339", "2026-11-21T21:59:58.1234567891Z", "2026-11-21T21:59:58.123456789Z"),
            ("iso8601", "2026-11-21T21:59:58", "2026-11-21T21:59:58Z"),
            ("unix", "1795298398", "2026-11-21T21:59:58Z"),
            ("unix", "1795298398.25", "2026-11-21T21:59:58.25Z"),
            ("unix_ms", "1795298398250", "2026-11-21T21:59:58.25Z"),
            ("unix_us", "1795298398250001.5", "2026-11-21T21:59:58.2500015Z"),
            ("unix_ns", "1795298398250000001", "2026-11-21T21:59:58.250000001Z"),
            ("rfc3164", "Nov 21 21:59:58", "2026-11-21T21:59:58Z"),
            ("rfc3164", "Nov  1 21:59:58.123", "2026-11-01T21:59:58.123Z"),
            ("ansic", "Sat Nov 21 21:59:58 2026", "2026-11-21T21:59:58Z"),
            ("rfc1123", "Sat, 21 Nov 2026 21:59:58 GMT", "2026-11-21T21:59:58Z"),
            ("rfc822z", "21 Nov 26 21:59 +0100", "2026-11-21T20:59:00Z"),
            ("rfc850", "Saturday, 21-Nov-26 21:59:58 UTC", "2026-11-21T21:59:58Z"),
            ("clf", "21/Nov/2026:21:59:58 +0100", "2026-11-21T20:59:58Z"),
            ("%Y-%m-%d %H:%M:%S,%f", "2026-11-21 21:59:58,07", "2026-11-21T21:59:58.07Z"),
            ("2006-01-02 15:04:05,000", "2026-11-21 21:59:58,070", "2026-11-21T21:59:58.07Z"),
            ("2006-01-02 15:04:05", "2026-11-21 21:59:58.070", "2026-11-21T21:59:58.07Z"),
            ("1/2/06 3:04 PM", "11/21/26 9:59 pm", "2026-11-21T21:59:00Z"),
            ("%m/%d/%Y %I:%M %p", "11/21/2026 12:05 AM", "2026-11-21T00:05:00Z"),
            ("%m/%d/%Y %I:%M %p", "11/21/2026 12:05 PM", "2026-11-21T12:05:00Z"),
            ("%Y%m%d%H%M%S", "20261121215958", "2026-11-21T21:59:58Z"),
            ("%Y %j", "2024 366", "2024-12-31T00:00:00Z"),
            ("%B %e, %Y at %k:%M", "November 21, 2026 at  9:07", "2026-11-21T09:07:00Z"),
            ("%FT%T%z", "2026-11-21T21:59:60Z", "2026-11-21T22:00:00Z"),
            ("%y-%m-%d", "70-01-01", "1970-01-01T00:00:00Z"),
        ] {
            assert_eq!(read(format, text), at(time), "{format} {text}");
        }
    }

    #[test]
    fn what_says_no_time_is_none() {
        for (format, text) in [
            ("rfc3339", ""),
            ("rfc3339", "2026-11-21"),
            ("rfc3339", "2026-11-21T21:59:58+"),
            ("rfc3339", "2026-11-21T21:59:58Zx"),
            ("rfc3339", "2026-11-21T21:59:58.Z"),
            ("rfc3339", "2026-13-21T21:59:58Z"),
            ("rfc3339", "2026-02-29T21:59:58Z"),
            ("rfc3339", "2026-11-31T21:59:58Z"),
            ("rfc3339", "2026-11-00T21:59:58Z"),
            ("rfc3339", "2026-11-21T24:00:00Z"),
            ("rfc3339", "2026-11-21T21:60:58Z"),
            ("rfc3339", "2026-11-21T21:59:61Z"),
            ("rfc3339", "2026-11-21T21:59:58+24:00"),
            ("rfc3339", "1969-12-31T23:59:59Z"),
            ("rfc3339", "2263-01-01T00:00:00Z"),
            ("rfc3339", "9999-12-31T23:59:59.999999999-23:59"),
            ("rfc3339", "\u{661}026-11-21T21:59:58Z"),
            ("unix", ""),
            ("unix", "-1"),
            ("unix", "."),
            ("unix", "1e9"),
            ("unix", "99999999999999999999999"),
            ("unix_ns", "9223372036854775808"),
            ("unix", "9223372037"),
            ("%Y %j", "2025 366"),
            ("%Y %j", "2025 0"),
            ("%I:%M %p", "13:00 PM"),
            ("%I:%M %p", "11:00 XM"),
            ("%b %d %T", "Nov 21 21:59"),
            ("%b %d %T", "Feb 30 00:00:00"),
            ("%b %d %T %Z", "Nov 21 21:59:58 "),
        ] {
            assert_eq!(read(format, text), None, "{format} {text}");
        }
    }

    #[test]
    fn a_missing_year_is_the_latest_that_is_not_in_the_future() {
        let at_time =
            |text: &str, now: &str| read_at("rfc3164", text, &Zone::utc(), at(now).unwrap() / NANO);
        assert_eq!(at_time("Dec 31 23:59:59", "2027-01-01T00:00:01Z"), at("2026-12-31T23:59:59Z"));
        // A clock that is a little ahead of this host's.
        assert_eq!(at_time("Jan  1 00:00:01", "2026-12-31T23:59:59Z"), at("2027-01-01T00:00:01Z"));
        assert_eq!(at_time("Jan  3 00:00:01", "2026-12-31T23:59:59Z"), at("2026-01-03T00:00:01Z"));
        assert_eq!(at_time("Feb 29 12:00:00", "2027-06-01T00:00:00Z"), at("2024-02-29T12:00:00Z"));
        assert_eq!(at_time("Feb 29 12:00:00", "2103-06-01T00:00:00Z"), at("2096-02-29T12:00:00Z"));
        assert_eq!(at_time("Mar 31 00:00:00", "1970-01-02T00:00:00Z"), None);
    }

    #[test]
    fn a_missing_date_is_the_latest_that_is_not_in_the_future() {
        let at_time = |text: &str, now: &str| {
            read_at("%H:%M:%S", text, &Zone::utc(), at(now).unwrap() / NANO)
        };
        assert_eq!(at_time("23:59:59", "2026-11-22T00:00:01Z"), at("2026-11-21T23:59:59Z"));
        assert_eq!(at_time("00:00:01", "2026-11-21T23:59:59Z"), at("2026-11-22T00:00:01Z"));
        assert_eq!(at_time("12:00:00", "2026-11-21T13:00:00Z"), at("2026-11-21T12:00:00Z"));
        assert_eq!(at_time("15:00:00", "2026-11-21T13:00:00Z"), at("2026-11-20T15:00:00Z"));
    }

    #[test]
    fn a_local_time_is_one_of_the_zone() {
        let berlin = Zone::load("Europe/Berlin", Path::new("/")).unwrap();
        let read = |format: &str, text: &str| read_at(format, text, &berlin, NOW);
        assert_eq!(read("rfc3164", "Nov 21 22:59:58"), at("2026-11-21T21:59:58Z"));
        assert_eq!(read("rfc3164", "Jul  1 12:00:00"), at("2026-07-01T10:00:00Z"));
        assert_eq!(read("iso8601", "2026-07-01T12:00:00"), at("2026-07-01T10:00:00Z"));
        // What the text says itself counts more.
        assert_eq!(read("iso8601", "2026-07-01T12:00:00Z"), at("2026-07-01T12:00:00Z"));
        assert_eq!(read("%d %b %Y %T %Z", "01 Jul 2026 12:00:00 GMT"), at("2026-07-01T12:00:00Z"));
        assert_eq!(read("%d %b %Y %T %Z", "01 Jul 2026 12:00:00 CEST"), at("2026-07-01T10:00:00Z"));
        // The new year comes earlier in Berlin.
        let now = at("2026-12-31T23:30:00Z").unwrap() / NANO;
        assert_eq!(read_at("rfc3164", "Jan  1 00:30:00", &berlin, now), at("2026-12-31T23:30:00Z"));
    }

    #[test]
    fn of_a_line_only_the_beginning_is_read() {
        let format = Format::parse("rfc3164").unwrap();
        let line = "Nov 21 21:59:58 host cron[1]: x";
        assert_eq!(format.read(line, true, &Zone::utc(), NOW * NANO), None);
        assert_eq!(format.read(line, false, &Zone::utc(), NOW * NANO), at("2026-11-21T21:59:58Z"));
        // What stands behind a comma is not a fraction of every length.
        let csv = Format::parse("%F %T").unwrap();
        assert_eq!(
            csv.read("2026-11-21 21:59:58,5,x", false, &Zone::utc(), 0),
            at("2026-11-21T21:59:58Z")
        );
    }

    proptest! {
        #[test]
        fn humantime_writes_what_is_read(ns in 0i64..i64::MAX) {
            let time = UNIX_EPOCH + Duration::from_nanos(ns as u64);
            let text = humantime::format_rfc3339_nanos(time).to_string();
            prop_assert_eq!(read("rfc3339", &text), Some(ns));
            prop_assert_eq!(read("2006-01-02T15:04:05.999999999Z07:00", &text), Some(ns));
            prop_assert_eq!(read("unix_ns", &ns.to_string()), Some(ns));
        }

        #[test]
        fn httpdate_writes_what_is_read(seconds in 0i64..9_223_372_036) {
            let time = UNIX_EPOCH + Duration::from_secs(seconds as u64);
            let text = httpdate::fmt_http_date(time);
            prop_assert_eq!(read("rfc1123", &text), Some(seconds * NANO));
        }

        #[test]
        fn days_are_counted_without_a_gap(day in -1_000_000i64..3_000_000) {
            let year = year_of(day);
            prop_assert!(days_from_civil(year, 1, 1) <= day && day < days_from_civil(year + 1, 1, 1));
        }

        #[test]
        fn any_text_in_any_format_is_a_time_of_the_range_or_none(format in "[%YmdHMSzZbefjpsIyT. :+-]{1,12}", text in "[0-9A-Za-z:., +-]{0,32}", now: i64) {
            if let Ok(format) = Format::parse(&format) {
                let now = now.clamp(0, i64::MAX - 2 * DAY * NANO);
                prop_assert!(format.read(&text, false, &Zone::utc(), now).is_none_or(|time| time >= 0));
            }
        }
    }
}
