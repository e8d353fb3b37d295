//! Replacements: text with groups of an expression in it, as Go's `Regexp.Expand` reads it. `$1`, `${1}`,
//! `$name` and `${name}` are groups, `$$` is a dollar; a name is as long as letters, digits and `_` go, so
//! that `$1x` is the group `1x`. What is none of these is text, and a group that is not there is empty.

use super::whole::{Found, Whole};

#[derive(Clone, Debug, PartialEq, Eq)]
enum Part {
    Text(String),
    Group(usize),
}

/// A replacement, with its groups known by number.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Template {
    parts: Vec<Part>,
}

impl Template {
    /// Every text is one.
    pub(super) fn new(text: &str, whole: &Whole) -> Template {
        let mut parts = Vec::new();
        let mut literal = String::new();
        let mut rest = text;
        while let Some((before, behind)) = rest.split_once('$') {
            literal.push_str(before);
            if let Some(behind) = behind.strip_prefix('$') {
                literal.push('$');
                rest = behind;
                continue;
            }
            let Some((name, behind)) = reference(behind) else {
                literal.push('$');
                rest = behind;
                continue;
            };
            if let Some(group) = number(name).or_else(|| whole.group(name)) {
                if !literal.is_empty() {
                    parts.push(Part::Text(std::mem::take(&mut literal)));
                }
                parts.push(Part::Group(group));
            }
            rest = behind;
        }
        literal.push_str(rest);
        if !literal.is_empty() {
            parts.push(Part::Text(literal));
        }
        Template { parts }
    }

    /// Appends the text with what was found.
    pub(super) fn expand(&self, found: &Found<'_>, out: &mut String) {
        for part in &self.parts {
            match part {
                Part::Text(text) => out.push_str(text),
                Part::Group(group) => found.append(*group, out),
            }
        }
    }

    /// The whole text, where it has no group.
    pub(super) fn fixed(&self) -> Option<&str> {
        match self.parts.as_slice() {
            [] => Some(""),
            [Part::Text(text)] => Some(text),
            _ => None,
        }
    }
}

/// The name behind a dollar, and what follows it.
fn reference(text: &str) -> Option<(&str, &str)> {
    let (text, brace) = match text.strip_prefix('{') {
        Some(inside) => (inside, true),
        None => (text, false),
    };
    let end = text.find(|c: char| !c.is_alphanumeric() && c != '_').unwrap_or(text.len());
    let (name, behind) = text.split_at_checked(end)?;
    let behind = if brace { behind.strip_prefix('}')? } else { behind };
    (!name.is_empty()).then_some((name, behind))
}

/// A name that is a number; one with a zero in front is none.
fn number(name: &str) -> Option<usize> {
    let digits = name.bytes().all(|b| b.is_ascii_digit());
    let plain = name == "0" || !name.starts_with('0');
    if digits && plain && name.len() < 9 { name.parse().ok() } else { None }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[track_caller]
    fn expands(template: &str, to: &str) {
        let whole = Whole::new("(?P<first>[a-z]+)-(x)?(.*)").unwrap();
        let mut out = String::new();
        Template::new(template, &whole).expand(&whole.find("abc-ü1").unwrap(), &mut out);
        assert_eq!(out, to, "{template}");
    }

    #[test]
    fn groups_are_those_of_go() {
        expands("$1|${1}|$first|${first}|$0", "abc|abc|abc|abc|abc-ü1");
        expands("$3$$1", "ü1$1");
        // Not taken part, not there, another name than it seems.
        expands("<$2$9$1x${1}x$other$01>", "<abcx>");
        expands("$1_$3", "ü1");
        expands("$ ${ ${} ${1 $-$", "$ ${ ${} ${1 $-$");
        expands("$99999999999999999999", "");
        expands("", "");
        expands("ü", "ü");
    }

    #[test]
    fn text_without_a_group_is_known_as_such() {
        let whole = Whole::new("(.*)").unwrap();
        for (text, fixed) in [("", Some("")), ("a$$b", Some("a$b")), ("$x", Some("")), ("$1", None)]
        {
            assert_eq!(Template::new(text, &whole).fixed(), fixed, "{text}");
        }
    }
}
