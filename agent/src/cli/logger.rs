//! The agent's own log: logfmt on standard error.

use std::io::Write;

use log::{LevelFilter, Log, Metadata, Record};

struct Logger;

/// Installs the logger; a second call changes the level alone.
pub(super) fn start(level: LevelFilter) {
    let _ = log::set_logger(&Logger);
    log::set_max_level(level);
}

impl Log for Logger {
    fn enabled(&self, metadata: &Metadata<'_>) -> bool {
        // The libraries' own chatter is for their authors.
        metadata.target().starts_with("mote") && metadata.level() <= log::max_level()
    }

    fn log(&self, record: &Record<'_>) {
        if self.enabled(record.metadata()) {
            let line = line(&timestamp(), record);
            // Where standard error is closed there is nobody to tell.
            let _ = std::io::stderr().lock().write_all(line.as_bytes());
        }
    }

    fn flush(&self) {}
}

fn timestamp() -> String {
    let now = std::time::SystemTime::now();
    let millis = now
        .duration_since(std::time::UNIX_EPOCH)
        .map_or(0, |since| since.subsec_millis());
    // RFC 3339 from httpdate's fields would need its parts; days are counted here (Hinnant's civil_from_days).
    let seconds = now.duration_since(std::time::UNIX_EPOCH).map_or(0, |since| since.as_secs());
    let (days, rest) = (seconds / 86_400, seconds % 86_400);
    let z = days + 719_468;
    let era = z / 146_097;
    let day_of_era = z % 146_097;
    let year_of_era =
        (day_of_era - day_of_era / 1_460 + day_of_era / 36_524 - day_of_era / 146_096) / 365;
    let day_of_year = day_of_era - (365 * year_of_era + year_of_era / 4 - year_of_era / 100);
    let shifted = (5 * day_of_year + 2) / 153;
    let day = day_of_year - (153 * shifted + 2) / 5 + 1;
    let month = if shifted < 10 { shifted + 3 } else { shifted - 9 };
    let year = year_of_era + era * 400 + u64::from(month <= 2);
    let (hour, minute, second) = (rest / 3_600, rest % 3_600 / 60, rest % 60);
    format!("{year:04}-{month:02}-{day:02}T{hour:02}:{minute:02}:{second:02}.{millis:03}Z")
}

fn line(timestamp: &str, record: &Record<'_>) -> String {
    let level = match record.level() {
        log::Level::Error => "error",
        log::Level::Warn => "warn",
        log::Level::Info => "info",
        log::Level::Debug | log::Level::Trace => "debug",
    };
    let mut out = format!("ts={timestamp} level={level} msg=\"");
    for c in record.args().to_string().chars() {
        match c {
            '"' => out.push_str("\\\""),
            '\\' => out.push_str("\\\\"),
            '\n' => out.push_str("\\n"),
            // A server's words must not steer the terminal that shows them.
            c if c.is_control() => out.push('\u{fffd}'),
            c => out.push(c),
        }
    }
    out.push_str("\"\n");
    out
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_message_stays_on_its_line() {
        let args = format_args!("a \"b\"\n\u{1b}[31mc\\");
        let record = Record::builder().args(args).level(log::Level::Warn).target("mote").build();
        assert_eq!(
            line("T", &record),
            "ts=T level=warn msg=\"a \\\"b\\\"\\n\u{fffd}[31mc\\\\\"\n"
        );
    }

    #[test]
    fn the_timestamp_is_that_of_the_system() {
        let date = std::process::Command::new("date").args(["-u", "+%Y-%m-%dT%H:%M"]).output();
        let (before, stamp) = (timestamp(), timestamp());
        let date = String::from_utf8(date.unwrap().stdout).unwrap();
        assert!(stamp >= before && stamp.len() == 24);
        // The minute may have turned between the two.
        assert!(stamp.starts_with(date.trim()) || stamp[14..16] != date.trim()[14..16], "{stamp} {date}");
    }
}
