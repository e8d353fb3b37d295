//! Drop and keep: entries go, or stay, by what they are.

use std::time::Duration;

use super::level::Level;
use super::pattern::Pattern;
use super::{Action, Verdict, Work};

/// Conditions, all of which an entry has to meet.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct Conditions {
    /// Matches somewhere in the line, or in the value of `source`.
    pub regex: Option<Pattern>,
    /// The label or structured metadata that `regex` is for; what an entry lacks is the empty string.
    pub source: Option<String>,
    /// Its timestamp lies further back than this.
    pub older_than: Option<Duration>,
    /// Its line has more bytes.
    pub longer_than: Option<usize>,
    /// `level` is one of these.
    pub levels: Vec<Level>,
    /// `level` is less severe than this.
    pub level_below: Option<Level>,
    /// The reason under which those that go are counted.
    pub reason: Option<String>,
}

impl Conditions {
    /// Whether there is none.
    pub fn is_empty(&self) -> bool {
        self.regex.is_none()
            && self.older_than.is_none()
            && self.longer_than.is_none()
            && self.levels.is_empty()
            && self.level_below.is_none()
    }

    /// Whether the entry meets all. An entry without a level meets no condition on it.
    fn hold(&self, entry: &Work, now_ns: i64) -> bool {
        let oldest = |age: Duration| {
            now_ns.saturating_sub(i64::try_from(age.as_nanos()).unwrap_or(i64::MAX))
        };
        // The cheap ones first.
        if self.longer_than.is_some_and(|bytes| entry.line.len() <= bytes)
            || self.older_than.is_some_and(|age| entry.timestamp_ns >= oldest(age))
        {
            return false;
        }
        if !self.levels.is_empty() || self.level_below.is_some() {
            let Some(level) = entry.get("level").and_then(Level::from_name) else { return false };
            if !(self.levels.is_empty() || self.levels.contains(&level))
                || self.level_below.is_some_and(|limit| level >= limit)
            {
                return false;
            }
        }
        let Some(regex) = &self.regex else { return true };
        regex.is_match(match &self.source {
            Some(name) => entry.get(name).unwrap_or_default(),
            None => &entry.line,
        })
    }
}

/// Lets go what meets the conditions, or what does not.
pub(super) struct Filter {
    conditions: Conditions,
    /// Whether those that meet the conditions go.
    drops: bool,
}

impl Filter {
    pub(super) fn new(conditions: &Conditions, drops: bool) -> Filter {
        Filter { conditions: conditions.clone(), drops }
    }
}

impl Action for Filter {
    fn apply(&mut self, entry: &mut Work, now_ns: i64) -> Verdict {
        match self.conditions.hold(entry, now_ns) == self.drops {
            true => Verdict::Drop,
            false => Verdict::Keep,
        }
    }

    fn reason(&self) -> &str {
        self.conditions.reason.as_deref().unwrap_or("stage_drop")
    }
}

#[cfg(test)]
mod tests {
    use super::super::pattern::pattern;
    use super::*;

    const NOW: i64 = 1_000_000_000_000;

    fn entry(line: &str, level: &str) -> Work {
        let mut work = Work::new(NOW, line);
        work.metadata.set("level", level);
        work
    }

    fn goes(conditions: &Conditions, drops: bool, mut entry: Work) -> bool {
        Filter::new(conditions, drops).apply(&mut entry, NOW) == Verdict::Drop
    }

    #[test]
    fn all_conditions_must_hold() {
        let conditions = Conditions {
            regex: Some(pattern("health").unwrap()),
            level_below: Some(Level::Warning),
            ..Conditions::default()
        };
        for (line, level, expected) in [
            ("GET /health", "info", true),
            ("GET /health", "ERROR", false),
            ("GET /health", "", false),
            ("GET /", "info", false),
        ] {
            assert_eq!(goes(&conditions, true, entry(line, level)), expected, "{line} {level}");
            assert_eq!(goes(&conditions, false, entry(line, level)), !expected, "{line} {level}");
        }
    }

    #[test]
    fn a_regex_reads_its_source_and_what_lacks_is_empty() {
        let regex = |text| Some(pattern(text).unwrap());
        let source = Some("level".to_owned());
        let conditions = Conditions { regex: regex("^inf"), source, ..Conditions::default() };
        assert!(goes(&conditions, true, entry("x", "info")));
        assert!(!goes(&conditions, true, entry("info", "x")));
        let source = Some("nothing".to_owned());
        let conditions = Conditions { regex: regex("^$"), source, ..Conditions::default() };
        assert!(goes(&conditions, true, entry("x", "info")));
    }

    #[test]
    fn age_and_length_are_strict_bounds() {
        let age = Conditions { older_than: Some(Duration::from_secs(1)), ..Conditions::default() };
        let at = |timestamp_ns| Work::new(timestamp_ns, "");
        assert!(!goes(&age, true, at(NOW - 1_000_000_000)));
        assert!(goes(&age, true, at(NOW - 1_000_000_001)) && goes(&age, true, at(i64::MIN)));
        let all = Conditions { older_than: Some(Duration::MAX), ..Conditions::default() };
        assert!(!goes(&all, true, at(0)));
        let length = Conditions { longer_than: Some(2), ..Conditions::default() };
        assert!(!goes(&length, true, entry("ab", "")) && goes(&length, true, entry("abc", "")));
    }
}
