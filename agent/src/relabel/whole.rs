//! A regular expression that has to match the whole of a value, written as RE2 takes it, with bounded cost.
//!
//! This binary carries no Unicode tables, so an expression is compiled for whole characters, with
//! `\d`, `\w`, `\s` and `\b` spelled out as the ASCII ones that they are in RE2; with `(?i)`, which would
//! need tables for that, it is compiled for bytes, where `.` is still a character and letters beyond ASCII have no case.
//! Classes such as `\pL` are refused.

use regex::bytes::{Captures, Regex, RegexBuilder};

/// Bounds the compiled program.
const SIZE_LIMIT: usize = 256 << 10;

/// A compiled expression.
#[derive(Clone, Debug)]
pub(super) struct Whole {
    /// None: the default, which takes everything as its only group.
    regex: Option<Regex>,
}

/// What an expression has found in a value.
pub(super) enum Found<'t> {
    All(&'t str),
    Groups(Captures<'t>),
}

impl Whole {
    /// Compiles an expression.
    ///
    /// # Errors
    /// What is wrong with it, in one line.
    pub(super) fn new(text: &str) -> Result<Whole, String> {
        if text == super::REGEX {
            return Ok(Whole { regex: None });
        }
        let build = |text: &str, unicode| {
            RegexBuilder::new(text)
                .unicode(unicode)
                .size_limit(SIZE_LIMIT)
                .nest_limit(64)
                .build()
                .map_err(|error| match error {
                    regex::Error::CompiledTooBig(_) => {
                        "compiled it takes more than 256 KiB".to_owned()
                    }
                    // The library draws the expression over several lines, with what is wrong on the last.
                    error => {
                        let text = error.to_string();
                        let last = text.lines().last().unwrap_or_default();
                        last.strip_prefix("error: ").unwrap_or(last).to_owned()
                    }
                })
        };
        let unicode = !folds_case(text);
        let spelled = spell(text, unicode)?;
        // On its own first, so that a stray parenthesis can't reach beyond the group.
        build(&spelled, unicode)?;
        let regex = build(&format!("^(?s:{spelled})$"), unicode)?;
        Ok(Whole { regex: Some(regex) })
    }

    pub(super) fn is_match(&self, value: &str) -> bool {
        self.regex.as_ref().is_none_or(|regex| regex.is_match(value.as_bytes()))
    }

    pub(super) fn find<'t>(&self, value: &'t str) -> Option<Found<'t>> {
        match &self.regex {
            None => Some(Found::All(value)),
            Some(regex) => regex.captures(value.as_bytes()).map(Found::Groups),
        }
    }

    /// The number of a named group.
    pub(super) fn group(&self, name: &str) -> Option<usize> {
        self.regex.as_ref()?.capture_names().position(|have| have == Some(name))
    }
}

impl Found<'_> {
    /// Appends what a group has found, if there is such a group and it has found something.
    pub(super) fn append(&self, group: usize, out: &mut String) {
        match self {
            Found::All(value) if group < 2 => out.push_str(value),
            Found::All(_) => {}
            Found::Groups(groups) => {
                if let Some(found) = groups.get(group) {
                    out.push_str(&String::from_utf8_lossy(found.as_bytes()));
                }
            }
        }
    }
}

/// Whether an expression has `i` among the flags of a group, or seems to.
fn folds_case(text: &str) -> bool {
    text.split("(?").skip(1).any(|group| {
        let end = group.find(|c: char| c != '-' && !c.is_ascii_alphabetic()).unwrap_or(group.len());
        let (flags, behind) = group.split_at_checked(end).unwrap_or_default();
        behind.starts_with([':', ')']) && flags.contains('i')
    })
}

/// An expression of RE2's as the library wants it.
fn spell(text: &str, unicode: bool) -> Result<String, String> {
    let mut out = String::with_capacity(text.len() + 16);
    let mut rest = text.chars();
    // Inside a class; whether it has just begun, where `]` is a member.
    let mut class = None;
    while let Some(c) = rest.next() {
        if let Some(begun) = class {
            class = Some(false);
            match c {
                '^' if begun && !out.ends_with('^') => class = Some(true),
                ']' if !begun => class = None,
                '[' if !rest.as_str().starts_with(':') => out.push('\\'),
                '[' => {
                    // `[:alpha:]` as it stands.
                    if let Some(end) = rest.as_str().find(":]") {
                        let name = rest.as_str().get(..end + 2).unwrap_or_default();
                        out.push('[');
                        out.push_str(name);
                        rest = rest.as_str().get(end + 2..).unwrap_or_default().chars();
                        continue;
                    }
                    out.push('\\');
                }
                // Doubled, they are operators of the library's own.
                '&' | '~' => out.push('\\'),
                '\\' => {
                    escape(&mut rest, unicode, &mut out)?;
                    continue;
                }
                _ => {}
            }
            out.push(c);
            continue;
        }
        match c {
            '\\' if rest.as_str().starts_with('Q') => {
                let quoted = rest.as_str().get(1..).unwrap_or_default();
                let (quoted, behind) = quoted.split_once("\\E").unwrap_or((quoted, ""));
                out.push_str(&regex::escape(quoted));
                rest = behind.chars();
            }
            '\\' => escape(&mut rest, unicode, &mut out)?,
            '[' => {
                class = Some(true);
                out.push('[');
            }
            '.' if !unicode => out.push_str("(?u:.)"),
            // A brace that counts nothing is a brace.
            '{' if !counts(rest.as_str()) => out.push_str("\\{"),
            c => out.push(c),
        }
    }
    Ok(out)
}

/// What follows a backslash.
fn escape(rest: &mut std::str::Chars<'_>, unicode: bool, out: &mut String) -> Result<(), String> {
    match rest.next() {
        Some('d') => out.push_str("[0-9]"),
        Some('D') => out.push_str("[^0-9]"),
        Some('w') => out.push_str("[0-9A-Za-z_]"),
        Some('W') => out.push_str("[^0-9A-Za-z_]"),
        Some('s') => out.push_str(r"[\t\n\f\r ]"),
        Some('S') => out.push_str(r"[^\t\n\f\r ]"),
        Some(c @ ('b' | 'B')) if unicode => {
            out.push_str("(?-u:\\");
            out.push(c);
            out.push(')');
        }
        // `\x{1F600}`: its braces are no count.
        Some('x') if rest.as_str().starts_with('{') => {
            out.push_str("\\x{");
            rest.next();
        }
        // Whether they compile is the build's choice otherwise.
        Some(c @ ('p' | 'P')) => return Err(format!("\\{c}: Unicode classes are not known here")),
        Some(c) => {
            out.push('\\');
            out.push(c);
        }
        None => out.push('\\'),
    }
    Ok(())
}

/// Whether a brace with this behind it counts repetitions: `3}`, `3,}`, `3,5}`.
fn counts(rest: &str) -> bool {
    let Some((inside, _)) = rest.split_once('}') else { return false };
    let (from, to) = inside.split_once(',').unwrap_or((inside, ""));
    let digits = |text: &str| text.bytes().all(|b| b.is_ascii_digit());
    !from.is_empty() && digits(from) && digits(to)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[track_caller]
    fn matches(text: &str, good: &[&str], bad: &[&str]) {
        let whole = Whole::new(text).unwrap_or_else(|error| panic!("{text}: {error}"));
        good.iter().for_each(|value| assert!(whole.is_match(value), "{text} and {value:?}"));
        bad.iter().for_each(|value| assert!(!whole.is_match(value), "{text} and {value:?}"));
    }

    #[test]
    fn all_of_the_value_or_nothing_over_lines_too() {
        matches("a|b.*", &["a", "b", "bc\nd"], &["ab", "xb", "a\n", ""]);
        matches("", &[""], &["a"]);
        matches("(.*)", &["", "x\ny"], &[]);
        matches("^a$", &["a"], &["a\n"]);
    }

    #[test]
    fn a_character_is_one_however_many_bytes_it_has() {
        matches(".", &["ü", "a", "\u{1f600}"], &["üa", ""]);
        matches("[^a]", &["ü"], &["a"]);
        matches("[äö]x{2}", &["äxx"], &["xx"]);
        matches("(?i)Err.", &["eRRü", "ERR!"], &["ERR"]);
        matches(r"\W", &["ü", "-"], &["a"]);
    }

    #[test]
    fn what_re2_takes_literally_is_literal_here() {
        matches("a{", &["a{"], &[]);
        matches("{foo}", &["{foo}"], &[]);
        matches("a{,2}", &["a{,2}"], &["aa"]);
        matches("a{1,2}", &["aa"], &["aaa"]);
        matches("[[a]", &["[", "a"], &["[a"]);
        matches("[a&&b]", &["&", "a", "b"], &["c"]);
        matches("[]a]", &["]", "a"], &["b"]);
        matches("[^]a]", &["b"], &["]", "a"]);
        matches(r"\Qa.b\E+", &["a.b", "a.bb"], &["axb"]);
        matches(r"[\d_]+\x{41}[[:alpha:]]", &["1_Ax"], &["aAx"]);
        matches(r"a\sb", &["a b", "a\tb"], &["a\u{b}b"]);
        matches(r"\bfoo\b", &["foo"], &["foox"]);
    }

    #[test]
    fn bad_and_huge_expressions_are_refused_in_one_line() {
        for bad in ["(", "a)|(b", "((a{1000}){1000}){1000}", r"\pL", r"\1", "[", "\\", "a**)"] {
            let error = Whole::new(bad).unwrap_err();
            assert!(!error.is_empty() && !error.contains('\n'), "{bad}: {error}");
        }
        assert!(Whole::new(&"(".repeat(1_000)).is_err());
    }
}
