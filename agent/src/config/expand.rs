//! `${NAME}` and `${NAME:-default}` inside strings; `$${` is a literal `${`, and `${1}`, which no variable is
//! called, stands as it is: a group in a replacement.

/// Where variables come from.
pub(super) trait Environment {
    /// The value of a variable; None if it is not set.
    fn get(&self, name: &str) -> Option<String>;
}

/// The process's environment. HOSTNAME, which shells set and don't export, is the host's name if it
/// is not set.
pub(super) struct ProcessEnvironment;

impl Environment for ProcessEnvironment {
    fn get(&self, name: &str) -> Option<String> {
        match std::env::var(name) {
            Ok(value) => Some(value),
            Err(_) if name == "HOSTNAME" => Some(crate::host::hostname()),
            Err(_) => None,
        }
    }
}

/// What can't be expanded, and what would be right.
#[derive(Debug, PartialEq, Eq)]
pub(super) struct ExpandError {
    pub(super) problem: String,
    pub(super) hint: String,
}

/// Expands the variables in `text`.
pub(super) fn expand(text: &str, environment: &dyn Environment) -> Result<String, ExpandError> {
    let mut out = String::with_capacity(text.len());
    let mut rest = text;
    while let Some(at) = rest.find("${") {
        if rest[..at].ends_with('$') {
            out.push_str(&rest[..at - 1]);
            out.push_str("${");
            rest = &rest[at + 2..];
            continue;
        }
        out.push_str(&rest[..at]);
        let inner = &rest[at + 2..];
        let Some(end) = inner.find('}') else {
            return Err(ExpandError {
                problem: "\"${\" without a closing \"}\"".into(),
                hint: "write ${NAME}, or $${ for a literal ${".into(),
            });
        };
        if end > 0 && inner[..end].bytes().all(|b| b.is_ascii_digit()) {
            out.push_str("${");
            rest = inner;
            continue;
        }
        let (name, default) = match inner[..end].split_once(":-") {
            Some((name, default)) => (name, Some(default)),
            None => (&inner[..end], None),
        };
        if name.is_empty() || !name.bytes().all(|b| b.is_ascii_alphanumeric() || b == b'_') {
            return Err(ExpandError {
                problem: format!("{name:?} is no name of an environment variable"),
                hint: "letters, digits and '_'; $${ for a literal ${".into(),
            });
        }
        match (environment.get(name).filter(|v| !v.is_empty() || default.is_none()), default) {
            (Some(value), _) => out.push_str(&value),
            (None, Some(default)) => out.push_str(default),
            (None, None) => {
                return Err(ExpandError {
                    problem: format!("the environment variable {name} is not set"),
                    hint: format!("set it, or give a default: ${{{name}:-default}}"),
                });
            }
        }
        rest = &inner[end + 1..];
    }
    out.push_str(rest);
    Ok(out)
}

#[cfg(test)]
mod tests {
    use super::*;

    struct Fake;

    impl Environment for Fake {
        fn get(&self, name: &str) -> Option<String> {
            match name {
                "A" => Some("1".into()),
                "EMPTY" => Some(String::new()),
                _ => None,
            }
        }
    }

    #[test]
    fn variables_defaults_and_literals() {
        let ok = |text| expand(text, &Fake).unwrap();
        assert_eq!(ok("x${A}y${A}"), "x1y1");
        assert_eq!(ok("${B:-two}"), "two");
        assert_eq!(ok("${EMPTY:-two}${EMPTY}"), "two");
        assert_eq!(ok("${B:-}"), "");
        assert_eq!(ok("$${A} $A $"), "${A} $A $");
        assert_eq!(ok("(${A}|.*)$"), "(1|.*)$");
        assert_eq!(ok("${1}-${10}-$${2}-${A}"), "${1}-${10}-${2}-1");
    }

    #[test]
    fn what_is_missing_or_open_is_an_error() {
        for bad in ["${B}", "${", "${A", "${}", "${a b}", "x${A:1}"] {
            assert!(expand(bad, &Fake).is_err(), "{bad}");
        }
    }
}
