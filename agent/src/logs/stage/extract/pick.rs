//! The one text that a stage needs: a line, a label, structured metadata, or a field of one of them.

use regex::bytes::CaptureLocations;

use super::super::{Pattern, Work};
use super::json::{Path, scan};
use super::logfmt::pairs;
use super::regex::whole_characters;
use super::take::{Found, Input};

/// Which part of a text.
#[derive(Clone, Debug, Default, PartialEq)]
pub enum Part {
    /// All of it.
    #[default]
    Whole,
    /// The value at a path of JSON.
    Json(Path),
    /// The value of a key of logfmt.
    Logfmt(String),
    /// The first group of an expression, or all that it matches if it has none.
    Expression(Pattern),
}

/// Which text.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct Pick {
    /// Where.
    pub input: Input,
    /// Which part of it.
    pub part: Part,
}

/// Picks texts out of entries, in memory that all entries share.
#[derive(Debug)]
pub(super) struct Picker {
    input: Input,
    part: Part,
    paths: Vec<Path>,
    places: Option<CaptureLocations>,
    value: String,
}

impl Picker {
    pub(super) fn new(pick: &Pick) -> Picker {
        let (paths, places) = match &pick.part {
            Part::Json(path) => (vec![path.clone()], None),
            Part::Expression(pattern) => (Vec::new(), Some(pattern.regex().capture_locations())),
            Part::Whole | Part::Logfmt(_) => (Vec::new(), None),
        };
        Picker {
            input: pick.input.clone(),
            part: pick.part.clone(),
            paths,
            places,
            value: String::new(),
        }
    }

    /// Whether it is the line as a whole.
    pub(super) fn is_whole_line(&self) -> bool {
        self.input == Input::Line && self.part == Part::Whole
    }

    /// The text; None where the entry does not have it.
    pub(super) fn pick<'a>(&'a mut self, entry: &'a Work) -> Option<&'a str> {
        let text = self.input.text(entry)?;
        let found = match &self.part {
            Part::Whole => return Some(text),
            Part::Json(_) => {
                let mut found = [None];
                scan(text, &self.paths, &mut found).ok()?;
                found.into_iter().next().flatten()
            }
            Part::Logfmt(key) => pairs(text)
                .filter_map(Result::ok)
                .filter(|(have, _)| have == key)
                .last()
                .map(|(_, found)| found),
            Part::Expression(pattern) => in_groups(pattern, self.places.as_mut()?, text),
        }?;
        self.value.clear();
        found.append(text, &mut self.value);
        Some(&self.value)
    }
}

fn in_groups(pattern: &Pattern, places: &mut CaptureLocations, text: &str) -> Option<Found> {
    let whole = pattern.regex().captures_read(places, text.as_bytes())?;
    let (start, end) = if places.len() > 1 {
        (1..places.len()).find_map(|group| places.get(group))?
    } else {
        (whole.start(), whole.end())
    };
    Some(whole_characters(text, start, end))
}

#[cfg(test)]
mod tests {
    use super::super::super::pattern;
    use super::*;

    #[test]
    fn a_part_is_picked_or_there_is_none() {
        let mut work = Work::default();
        work.line.push_str(r#"{"a":{"t":"x\ty"}}"#);
        work.metadata.set("m", "t=1 u=\"a b\" t=2 t");
        let json =
            |path: &str| Pick { part: Part::Json(Path::parse(path).unwrap()), ..Pick::default() };
        let of = |part: Part| Pick { input: Input::Name("m".into()), part };
        let by = |text: &str| Part::Expression(pattern(text).unwrap());
        for (pick, expected) in [
            (Pick::default(), Some(work.line.as_str())),
            (json("a.t"), Some("x\ty")),
            (json("t"), None),
            (of(Part::Whole), Some("t=1 u=\"a b\" t=2 t")),
            (of(Part::Logfmt("u".into())), Some("a b")),
            (of(Part::Logfmt("t".into())), Some("")),
            (of(Part::Logfmt("x".into())), None),
            (of(Part::Json(Path::parse("a").unwrap())), None),
            (of(by(r"t=(\d)")), Some("1")),
            (of(by(r"t=\d")), Some("t=1")),
            (of(by(r"x(y)|u=(..)")), Some("\"a")),
            (of(by("x")), None),
            (Pick { input: Input::Name("none".into()), part: Part::Whole }, None),
        ] {
            assert_eq!(Picker::new(&pick).pick(&work), expected, "{pick:?}");
        }
    }
}
