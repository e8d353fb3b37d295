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
            let line = line(timestamp(), record);
            // Where standard error is closed there is nobody to tell.
            let _ = std::io::stderr().lock().write_all(line.as_bytes());
        }
    }

    fn flush(&self) {}
}

fn timestamp() -> impl std::fmt::Display {
    humantime::format_rfc3339_millis(std::time::SystemTime::now())
}

fn line(timestamp: impl std::fmt::Display, record: &Record<'_>) -> String {
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
        assert_eq!(line("T", &record), "ts=T level=warn msg=\"a \\\"b\\\"\\n\u{fffd}[31mc\\\\\"\n");
    }
}
