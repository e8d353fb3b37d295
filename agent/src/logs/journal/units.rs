//! Which entries belong to a unit, by the rules of `journalctl --unit` and `--user-unit`: what its
//! processes said, what the service manager said of it, and the coredumps of its processes. It must
//! not know how fields are stored.

use std::fmt;

use glob::Pattern;

/// The fields that tell.
pub(super) const FIELDS: [&str; 10] = [
    "_SYSTEMD_UNIT",
    "_SYSTEMD_USER_UNIT",
    "_SYSTEMD_SLICE",
    "UNIT",
    "USER_UNIT",
    "OBJECT_SYSTEMD_UNIT",
    "COREDUMP_UNIT",
    "MESSAGE_ID",
    "_PID",
    "_UID",
];

/// The catalog's number of a coredump's message (SD_MESSAGE_COREDUMP).
const COREDUMP: &[u8] = b"fc2e22bc6ee647b6b90729ab34a250b1";

const SUFFIXES: [&str; 11] = [
    ".service",
    ".socket",
    ".target",
    ".device",
    ".mount",
    ".automount",
    ".swap",
    ".timer",
    ".path",
    ".slice",
    ".scope",
];

/// A name or pattern that can't be a unit's.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct UnitError {
    /// As it was given.
    pub unit: String,
    /// What is wrong.
    pub reason: String,
}

impl fmt::Display for UnitError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{:?} is not a unit's name: {}", self.unit, self.reason)
    }
}

impl std::error::Error for UnitError {}

/// Names and patterns of units; without any, every entry is wanted.
#[derive(Clone, Debug, Default)]
pub struct Units(Vec<Unit>);

#[derive(Clone, Debug)]
enum Unit {
    Name(String),
    Glob(Pattern),
}

impl Units {
    /// Of names as `journalctl -u` takes them: `ssh` is `ssh.service`; `*`, `?` and `[a-z]` make a
    /// pattern, which is matched against whole names.
    ///
    /// # Errors
    /// The first one that no unit can have.
    pub fn new<'a>(given: impl IntoIterator<Item = &'a str>) -> Result<Units, UnitError> {
        given.into_iter().map(Unit::new).collect::<Result<_, _>>().map(Units)
    }

    /// Whether there is none.
    pub fn is_empty(&self) -> bool {
        self.0.is_empty()
    }

    /// Whether an entry with these fields is wanted.
    pub(super) fn wants<'a>(&self, get: impl Fn(&str) -> Option<&'a [u8]>) -> bool {
        self.0.is_empty() || self.belongs(get)
    }

    fn belongs<'a>(&self, get: impl Fn(&str) -> Option<&'a [u8]>) -> bool {
        let root = || get("_UID") == Some(b"0");
        let is = |name: &str| get(name).is_some_and(|value| self.matches(value));
        is("_SYSTEMD_UNIT")
            || is("_SYSTEMD_USER_UNIT")
            || (is("UNIT") && get("_PID") == Some(b"1"))
            || is("USER_UNIT")
            || (is("OBJECT_SYSTEMD_UNIT") && root())
            || (is("COREDUMP_UNIT") && root() && get("MESSAGE_ID") == Some(COREDUMP))
            || get("_SYSTEMD_SLICE").is_some_and(|slice| self.names_slice(slice))
    }

    fn matches(&self, value: &[u8]) -> bool {
        let Ok(value) = std::str::from_utf8(value) else { return false };
        self.0.iter().any(|unit| match unit {
            Unit::Name(name) => name == value,
            Unit::Glob(pattern) => pattern.matches(value),
        })
    }

    /// A slice stands for what is in it only if it is named, or a pattern of slices matches it: `*`
    /// alone would mean everything.
    fn names_slice(&self, slice: &[u8]) -> bool {
        let Ok(slice) = std::str::from_utf8(slice) else { return false };
        self.0.iter().any(|unit| match unit {
            Unit::Name(name) => name == slice,
            Unit::Glob(pattern) => pattern.as_str().ends_with(".slice") && pattern.matches(slice),
        })
    }
}

impl Unit {
    fn new(given: &str) -> Result<Unit, UnitError> {
        let fail = |reason: &str| UnitError { unit: given.to_owned(), reason: reason.to_owned() };
        if given.is_empty() {
            return Err(fail("it is empty"));
        }
        if given.len() > 255 {
            return Err(fail("it has more than 255 characters"));
        }
        if given.contains('/') {
            return Err(fail(
                "paths are not turned into names here; systemctl list-units has them",
            ));
        }
        if given.contains(['*', '?', '[']) {
            let pattern = Pattern::new(given).map_err(|error| fail(error.msg))?;
            return Ok(Unit::Glob(pattern));
        }
        let odd = |c: char| !c.is_ascii_alphanumeric() && !":_.\\-@".contains(c);
        if let Some(odd) = given.chars().find(|c| odd(*c)) {
            return Err(fail(&format!("it holds {odd:?}")));
        }
        let whole = SUFFIXES.iter().any(|suffix| given.ends_with(suffix));
        Ok(Unit::Name(if whole { given.to_owned() } else { format!("{given}.service") }))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn wants(units: &[&str], fields: &[(&str, &str)]) -> bool {
        let units = Units::new(units.iter().copied()).unwrap();
        units.wants(|name| {
            let found = fields.iter().find(|(have, _)| *have == name);
            found.map(|(_, value)| value.as_bytes())
        })
    }

    #[test]
    fn a_name_stands_for_its_service_and_a_pattern_for_whole_names() {
        let ssh = [("_SYSTEMD_UNIT", "ssh.service")];
        assert!(wants(&[], &ssh));
        assert!(wants(&["ssh"], &ssh));
        assert!(wants(&["cron", "ssh.service"], &ssh));
        assert!(wants(&["s?h*"], &ssh));
        assert!(wants(&["[rs]sh.service"], &ssh));
        assert!(!wants(&["ssh.socket"], &ssh));
        assert!(!wants(&["ss"], &ssh));
        assert!(!wants(&["s?h"], &ssh));
        assert!(!wants(&["ssh"], &[]));
        assert!(wants(&["a@b"], &[("_SYSTEMD_UNIT", "a@b.service")]));
    }

    #[test]
    fn what_the_manager_says_of_a_unit_belongs_to_it_and_what_others_claim_does_not() {
        assert!(wants(&["a"], &[("UNIT", "a.service"), ("_PID", "1")]));
        assert!(!wants(&["a"], &[("UNIT", "a.service"), ("_PID", "2")]));
        assert!(wants(&["a"], &[("OBJECT_SYSTEMD_UNIT", "a.service"), ("_UID", "0")]));
        assert!(!wants(&["a"], &[("OBJECT_SYSTEMD_UNIT", "a.service"), ("_UID", "7")]));
        let dump = ("MESSAGE_ID", "fc2e22bc6ee647b6b90729ab34a250b1");
        assert!(wants(&["a"], &[("COREDUMP_UNIT", "a.service"), ("_UID", "0"), dump]));
        assert!(!wants(&["a"], &[("COREDUMP_UNIT", "a.service"), ("_UID", "0")]));
        assert!(wants(&["a"], &[("_SYSTEMD_USER_UNIT", "a.service")]));
        assert!(wants(&["a"], &[("USER_UNIT", "a.service")]));
    }

    #[test]
    fn a_slice_stands_for_what_is_in_it_only_by_name() {
        let inside = [("_SYSTEMD_SLICE", "docker.slice"), ("_SYSTEMD_UNIT", "x.scope")];
        assert!(wants(&["docker.slice"], &inside));
        assert!(wants(&["dock*.slice"], &inside));
        assert!(!wants(&["dock*"], &inside));
    }

    #[test]
    fn what_no_unit_can_be_called_is_refused() {
        for (bad, why) in [
            ("", "empty"),
            ("/srv", "paths"),
            ("a b", "' '"),
            ("[a", "range"),
            ("a{b,c}", "'{'"),
            (&"a".repeat(256), "255"),
        ] {
            let error = Units::new([bad]).unwrap_err().to_string();
            assert!(error.contains(why), "{error}");
        }
    }
}
