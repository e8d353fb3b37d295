//! The stage `regex`: the groups of an expression.

use regex::bytes::CaptureLocations;

use super::super::{Action, Pattern, Verdict, Work};
use super::take::{Destination, Form, Found, Input, Scanned, Taker};

/// What to read, and where it goes.
#[derive(Clone, Debug, PartialEq)]
pub struct Options {
    /// The text that is read.
    pub input: Input,
    /// The expression.
    pub expression: Pattern,
    /// Groups of the expression, by their number; those that it does not have set nothing.
    pub groups: Vec<usize>,
    /// Where the text of each goes.
    pub to: Vec<Destination>,
}

/// The stage. What does not match passes as it is, and is no error.
#[derive(Debug)]
pub struct Regex {
    expression: Pattern,
    groups: Vec<usize>,
    places: CaptureLocations,
    taker: Taker,
}

impl Regex {
    /// The stage.
    pub fn new(options: &Options) -> Regex {
        Regex {
            groups: options.groups.clone(),
            places: options.expression.regex().capture_locations(),
            taker: Taker::new(options.input.clone(), &options.to),
            expression: options.expression.clone(),
        }
    }
}

impl Action for Regex {
    fn apply(&mut self, entry: &mut Work, _now_ns: i64) -> Verdict {
        self.taker.take(entry, |text, found| {
            let regex = self.expression.regex();
            if regex.captures_read(&mut self.places, text.as_bytes()).is_none() {
                return Scanned { take: false, malformed: false };
            }
            for (group, slot) in self.groups.iter().zip(found) {
                let place = self.places.get(*group);
                *slot = place.map(|(start, end)| whole_characters(text, start, end));
            }
            Scanned { take: true, malformed: false }
        });
        Verdict::Keep
    }
}

/// The number of a named group.
pub fn group(expression: &Pattern, name: &str) -> Option<usize> {
    expression.regex().capture_names().position(|have| have == Some(name))
}

/// A match widened to whole characters: `.` is one byte of a character beyond ASCII.
pub(super) fn whole_characters(text: &str, start: usize, end: usize) -> Found {
    let start = text.floor_char_boundary(start);
    let end = text.ceil_char_boundary(end).max(start);
    Found { start, end, form: Form::Plain }
}

#[cfg(test)]
mod tests {
    use super::super::super::pattern;
    use super::super::take::MAX_LABEL_VALUE;
    use super::*;

    fn stage(expression: &str, takes: &[(&str, Destination)], input: Input) -> Regex {
        let expression = pattern(expression).unwrap();
        let (groups, to) =
            takes.iter().map(|(from, to)| (group(&expression, from).unwrap(), to.clone())).unzip();
        Regex::new(&Options { input, expression, groups, to })
    }

    fn entry(line: &str) -> Work {
        let mut work = Work::default();
        work.line.push_str(line);
        work
    }

    fn label(name: &str) -> Destination {
        Destination::Label(name.into())
    }

    #[test]
    fn groups_go_where_they_should_and_what_does_not_match_stays() {
        let takes = [
            ("method", label("m")),
            ("path", Destination::Metadata("path".into())),
            ("rest", Destination::Line),
        ];
        let mut stage =
            stage(r"^(?P<method>\w+) (?<path>\S+)(?: (?P<rest>.*))?$", &takes, Input::Line);
        let mut work = entry("GET /ä x y");
        stage.apply(&mut work, 0);
        assert_eq!((work.labels().get("m"), work.metadata.get("path")), (Some("GET"), Some("/ä")));
        assert_eq!(work.line, "x y");
        let mut work = entry("GET");
        stage.apply(&mut work, 0);
        assert_eq!((&*work.line, work.is_relabeled(), stage.misses()), ("GET", false, 0));
        // A group that takes no part sets nothing.
        let mut work = entry("GET /");
        stage.apply(&mut work, 0);
        assert_eq!((work.get("m"), &*work.line), (Some("GET"), "GET /"));
    }

    #[test]
    fn a_name_is_read_like_a_line_even_if_it_is_set_itself() {
        let takes = [("a", label("file")), ("b", Destination::Metadata("rest".into()))];
        let mut stage = stage("(?<a>[^/]+)/(?<b>.*)", &takes, Input::Name("file".into()));
        let mut work = Work::default();
        stage.apply(&mut work, 0);
        assert_eq!(work, Work::default());
        work.set_label("file", "one/two");
        stage.apply(&mut work, 0);
        assert_eq!((work.labels().get("file"), work.get("rest")), (Some("one"), Some("two")));
    }

    #[test]
    fn values_are_whole_characters_and_not_longer_than_loki_takes() {
        let mut half =
            stage("^(?<a>.)(?<b>.*)", &[("a", label("a")), ("b", label("b"))], Input::Line);
        let mut work = entry(&format!("{}{}", "ä", "ü".repeat(5_000)));
        half.apply(&mut work, 0);
        assert_eq!(work.get("a"), Some("ä"));
        assert_eq!(work.get("b").map(str::len), Some(MAX_LABEL_VALUE));
    }

    #[test]
    fn a_pattern_that_is_catastrophic_elsewhere_takes_its_time_and_no_more() {
        let mut stage = stage("^(?<a>(a+)+)+$", &[("a", label("a"))], Input::Line);
        let mut work = entry(&format!("{}b", "a".repeat(64 << 10)));
        let began = std::time::Instant::now();
        stage.apply(&mut work, 0);
        assert!(work.get("a").is_none() && began.elapsed().as_secs() < 20);
    }
}
