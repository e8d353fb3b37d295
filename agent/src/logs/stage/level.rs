//! How severe an entry says it is: the names that programs use for syslog's severities, in one order.

/// Severities, least severe first.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum Level {
    /// Beneath syslog's: what tracing libraries add.
    Trace,
    /// 7
    Debug,
    /// 6
    Info,
    /// 5
    Notice,
    /// 4
    Warning,
    /// 3
    Error,
    /// 2; what others call fatal.
    Critical,
    /// 1
    Alert,
    /// 0
    Emergency,
}

const NAMES: &[(&str, Level)] = &[
    ("trace", Level::Trace),
    ("debug", Level::Debug),
    ("info", Level::Info),
    ("notice", Level::Notice),
    ("warning", Level::Warning),
    ("error", Level::Error),
    ("critical", Level::Critical),
    ("alert", Level::Alert),
    ("emergency", Level::Emergency),
    ("trc", Level::Trace),
    ("dbg", Level::Debug),
    ("information", Level::Info),
    ("informational", Level::Info),
    ("inf", Level::Info),
    ("warn", Level::Warning),
    ("wrn", Level::Warning),
    ("err", Level::Error),
    ("crit", Level::Critical),
    ("fatal", Level::Critical),
    ("emerg", Level::Emergency),
    ("panic", Level::Emergency),
    ("7", Level::Debug),
    ("6", Level::Info),
    ("5", Level::Notice),
    ("4", Level::Warning),
    ("3", Level::Error),
    ("2", Level::Critical),
    ("1", Level::Alert),
    ("0", Level::Emergency),
];

impl Level {
    /// The severity of a name, in upper or lower case, or of syslog's number.
    pub fn from_name(name: &str) -> Option<Level> {
        let found = NAMES.iter().find(|(have, _)| have.eq_ignore_ascii_case(name.trim()));
        found.map(|(_, level)| *level)
    }

    /// The names that are known.
    pub fn names() -> impl Iterator<Item = &'static str> {
        NAMES.iter().map(|(name, _)| *name)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_same_severity_has_many_names() {
        assert_eq!(Level::from_name("ERR"), Level::from_name("3"));
        assert_eq!(Level::from_name(" Warn "), Some(Level::Warning));
        assert_eq!(Level::from_name("8"), None);
        assert!(Level::from_name("info") < Level::from_name("notice"));
        assert!(Level::Debug < Level::Info && Level::Alert < Level::Emergency);
    }
}
