//! A text with values of an entry in it: `{method} {status}`. `{{` and `}}` are braces. The braces are
//! no `${…}`, as that is the environment's.

use super::super::Work;

/// A template, read.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Template {
    pieces: Vec<Piece>,
}

#[derive(Clone, Debug, PartialEq, Eq)]
enum Piece {
    Text(String),
    Name(String),
}

impl Template {
    /// Reads a template.
    ///
    /// # Errors
    /// What is wrong with it.
    pub fn parse(text: &str) -> Result<Template, &'static str> {
        let mut pieces = Vec::new();
        let mut rest = text;
        while let Some(at) = rest.find(['{', '}']) {
            let (before, brace) = rest.split_at_checked(at).unwrap_or((rest, ""));
            add(&mut pieces, before);
            rest = if let Some(behind) = brace.strip_prefix("{{") {
                add(&mut pieces, "{");
                behind
            } else if let Some(behind) = brace.strip_prefix("}}") {
                add(&mut pieces, "}");
                behind
            } else if let Some((name, behind)) =
                brace.strip_prefix('{').and_then(|inside| inside.split_once('}'))
            {
                if name.is_empty() || name.contains(['{', ' ']) {
                    return Err(
                        "between { and } stands the name of a label or of structured metadata",
                    );
                }
                pieces.push(Piece::Name(name.to_owned()));
                behind
            } else {
                return Err("a brace has no other one; {{ and }} are braces that mean themselves");
            };
        }
        add(&mut pieces, rest);
        Ok(Template { pieces })
    }

    /// Adds the text to `out`; a name that the entry does not have is empty.
    pub(super) fn fill(&self, entry: &Work, out: &mut String) {
        for piece in &self.pieces {
            out.push_str(match piece {
                Piece::Text(text) => text,
                Piece::Name(name) => entry.get(name).unwrap_or_default(),
            });
        }
    }
}

fn add(pieces: &mut Vec<Piece>, text: &str) {
    if let Some(Piece::Text(last)) = pieces.last_mut() {
        last.push_str(text);
    } else if !text.is_empty() {
        pieces.push(Piece::Text(text.to_owned()));
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_are_filled_in_and_braces_stay() {
        let mut work = Work::default();
        work.set_label("a", "1");
        work.metadata.set("b", "{a}");
        for (template, text) in [
            ("", ""),
            ("x", "x"),
            ("{a}", "1"),
            ("{a}{b}-{c}.", "1{a}-."),
            ("{{a}}", "{a}"),
            ("{{{a}}}", "{1}"),
            ("ü{a}ü", "ü1ü"),
        ] {
            let mut out = String::new();
            Template::parse(template).unwrap().fill(&work, &mut out);
            assert_eq!(out, text, "{template}");
        }
        for bad in ["{", "}", "a{b", "{}", "{a b}", "{a{b}}", "}{"] {
            assert!(Template::parse(bad).is_err(), "{bad}");
        }
    }
}
