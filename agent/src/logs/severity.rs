//! The words for a message's level and facility, the same for each source: dashboards made for one work
//! with the others. Levels are called as Alloy calls a journal's (`__journal_priority_keyword`),
//! facilities as RFC 5424's table 1 in the short form that Alloy and logger(1) use.

/// Words of the levels 0 to 7.
pub const LEVELS: [&str; 8] =
    ["emerg", "alert", "crit", "error", "warning", "notice", "info", "debug"];

const FACILITIES: [&str; 24] = [
    "kern", "user", "mail", "daemon", "auth", "syslog", "lpr", "news", "uucp", "cron", "authpriv",
    "ftp", "ntp", "audit", "alert", "clock", "local0", "local1", "local2", "local3", "local4",
    "local5", "local6", "local7",
];

/// The word for a level; what is above 7 is a debug message.
pub(super) fn level(level: u8) -> &'static str {
    LEVELS.get(usize::from(level)).copied().unwrap_or("debug")
}

/// The word for a facility, if it has one.
pub(super) fn facility(facility: u32) -> Option<&'static str> {
    FACILITIES.get(usize::try_from(facility).ok()?).copied()
}
