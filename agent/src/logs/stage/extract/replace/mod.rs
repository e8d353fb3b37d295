//! The stage `replace`: text that must not leave the host, or that nobody wants.
//!
//! What a cut may have spoilt is replaced as well: see [`Replace`].

mod presets;

pub use presets::{PRESETS, Preset};

use regex::bytes::CaptureLocations;

use crate::sort;

use super::super::{Action, Pattern, Verdict, Work};
use super::regex::whole_characters;
use super::take::{MAX_LABEL_VALUE, MAX_METADATA_VALUE, cut};

/// A word that ends where a text was cut is looked for in as many bytes.
const MAX_CUT_WORD: usize = 4 << 10;

/// What is looked for.
#[derive(Clone, Debug, PartialEq)]
pub enum What {
    /// The groups of an expression, or all that it matches if it has none.
    Expression(Pattern),
    /// Something that has a form of its own.
    Preset(Preset),
}

/// Where it is looked for.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Where {
    /// In the line and in these labels and structured metadata.
    Named {
        /// The line is one of them.
        line: bool,
        /// The others.
        names: Vec<String>,
    },
    /// In the line, all labels but internal ones, and all structured metadata.
    Everywhere,
}

/// The options of the stage.
#[derive(Clone, Debug, PartialEq)]
pub struct Options {
    /// What is looked for.
    pub what: What,
    /// Where.
    pub place: Where,
    /// What stands there instead.
    pub with: String,
    /// The length at which lines were cut before; the result is not longer either.
    pub max_line: usize,
}

/// The stage.
///
/// A line that was cut at `max_line` may end in the middle of something that is recognised only as a
/// whole. Its last word goes, too: what stands behind the last space, quote, bracket or comma. The same
/// holds for labels and structured metadata that are as long as they may be.
#[derive(Debug)]
pub struct Replace {
    replacer: Replacer,
    place: Where,
    out: String,
    name: String,
}

impl Replace {
    /// The stage.
    pub fn new(options: &Options) -> Replace {
        let places = match &options.what {
            What::Expression(pattern) => Some(pattern.regex().capture_locations()),
            What::Preset(_) => None,
        };
        let replacer = Replacer {
            what: options.what.clone(),
            with: options.with.clone(),
            max_line: options.max_line,
            places,
            spans: Vec::new(),
        };
        Replace { replacer, place: options.place.clone(), out: String::new(), name: String::new() }
    }

    fn line(&mut self, entry: &mut Work) {
        let max = self.replacer.max_line;
        if self.replacer.replace(&entry.line, max, &mut self.out) {
            std::mem::swap(&mut entry.line, &mut self.out);
        }
    }

    /// In the label whose name is set.
    fn label(&mut self, entry: &mut Work) {
        let Some(value) = entry.labels().get(&self.name) else { return };
        if self.replacer.replace(value, MAX_LABEL_VALUE, &mut self.out) {
            entry.set_label(&self.name, cut(&self.out, MAX_LABEL_VALUE));
        }
    }

    fn metadata(&mut self, entry: &mut Work) {
        let Some(value) = entry.metadata.get(&self.name) else { return };
        if self.replacer.replace(value, MAX_METADATA_VALUE, &mut self.out) {
            entry.metadata.set(&self.name, cut(&self.out, MAX_METADATA_VALUE));
        }
    }

    /// Sets the name, so that the entry is not borrowed by it.
    fn set_name(&mut self, name: Option<&str>) -> bool {
        self.name.clear();
        self.name.push_str(name.unwrap_or_default());
        name.is_some()
    }

    fn everywhere(&mut self, entry: &mut Work) {
        self.line(entry);
        let mut index = 0;
        while self.set_name(entry.labels().iter().nth(index).map(|(name, _)| name)) {
            let before = entry.labels().len();
            if !self.name.starts_with("__") {
                self.label(entry);
            }
            // Where one became empty and is gone, the next one has its place.
            index += usize::from(entry.labels().len() == before);
        }
        let mut index = 0;
        while self.set_name(entry.metadata.iter().nth(index).map(|(name, _)| name)) {
            self.metadata(entry);
            index += 1;
        }
    }
}

impl Action for Replace {
    fn rest(&mut self) {
        self.out = String::new();
        self.replacer.spans = Vec::new();
    }

    fn apply(&mut self, entry: &mut Work, _now_ns: i64) -> Verdict {
        let Where::Named { line, names } = &self.place else {
            self.everywhere(entry);
            return Verdict::Keep;
        };
        let (line, count) = (*line, names.len());
        if line {
            self.line(entry);
        }
        for index in 0..count {
            let Where::Named { names, .. } = &self.place else { break };
            let Some(name) = names.get(index) else { break };
            self.name.clone_from(name);
            self.label(entry);
            self.metadata(entry);
        }
        Verdict::Keep
    }
}

#[derive(Debug)]
struct Replacer {
    what: What,
    with: String,
    max_line: usize,
    places: Option<CaptureLocations>,
    spans: Vec<(usize, usize)>,
}

impl Replacer {
    /// Writes the text with its replacements to `out` and returns true, or returns false where nothing
    /// is to be replaced. Texts that have `max` bytes may have been cut.
    fn replace(&mut self, text: &str, max: usize, out: &mut String) -> bool {
        out.clear();
        let limit = self.max_line;
        let (mut done, mut any) = (0, false);
        let with = std::mem::take(&mut self.with);
        self.each(text, |start, end| {
            any = true;
            // What overlaps was widened into a character that the one before it took.
            if start >= done {
                out.push_str(text.get(done..start).unwrap_or_default());
                out.push_str(&with);
            }
            done = done.max(end);
            // The rest would be cut off.
            out.len() <= limit
        });
        self.with = with;
        // Cutting costs less than a character, of four bytes at most.
        if text.len() + 3 >= max && self.what != What::Preset(Preset::Ansi) && out.len() <= limit {
            let is_card = self.what == What::Preset(Preset::CreditCard);
            let word = last_word(text, is_card);
            if word < text.len() && done < text.len() {
                // What was found in the word stands for all of it.
                if word >= done {
                    out.push_str(text.get(done..word).unwrap_or_default());
                    out.push_str(&self.with);
                }
                (any, done) = (true, text.len());
            }
        }
        if any && out.len() <= limit {
            out.push_str(text.get(done..).unwrap_or_default());
        }
        // Replacements may be longer than what they replace.
        out.truncate(out.floor_char_boundary(limit));
        any
    }

    /// Hands over each place to be replaced, none of them empty, until it returns false.
    fn each(&mut self, text: &str, mut on: impl FnMut(usize, usize) -> bool) {
        match (&self.what, &mut self.places) {
            (What::Preset(preset), _) => {
                let mut from = 0;
                while let Some((start, end)) = preset.next(text, from) {
                    if !on(start, end) {
                        return;
                    }
                    from = end;
                }
            }
            (What::Expression(pattern), Some(places)) if places.len() > 1 => {
                let mut from = 0;
                while from <= text.len() {
                    let found = pattern.regex().captures_read_at(places, text.as_bytes(), from);
                    let Some(whole) = found else { return };
                    let groups = (1..places.len()).filter_map(|group| places.get(group));
                    self.spans.clear();
                    self.spans.extend(groups.filter(|(start, end)| start < end));
                    // A group before those inside of it, which go with it.
                    sort::unstable_by_key(&mut self.spans, |(start, end)| {
                        (*start, usize::MAX - end)
                    });
                    for (start, end) in &self.spans {
                        let wide = whole_characters(text, *start, *end);
                        if !on(wide.start, wide.end) {
                            return;
                        }
                    }
                    from = whole.end() + usize::from(whole.is_empty());
                }
            }
            (What::Expression(pattern), _) => {
                for found in pattern.regex().find_iter(text.as_bytes()).filter(|m| !m.is_empty()) {
                    let wide = whole_characters(text, found.start(), found.end());
                    if !on(wide.start, wide.end) {
                        return;
                    }
                }
            }
        }
    }
}

/// Where the last word of a text begins, or the last digits of a card.
fn last_word(text: &str, is_card: bool) -> usize {
    let is_end = |b: &u8| b.is_ascii_whitespace() || b"\"'`{}[]()<>|,;&".contains(b);
    let bytes = text.as_bytes();
    let floor = text.floor_char_boundary(text.len().saturating_sub(MAX_CUT_WORD));
    let tail = bytes.get(floor..).unwrap_or_default();
    let start = floor + tail.iter().rposition(is_end).map_or(0, |last| last + 1);
    if !is_card {
        return start;
    }
    let head = bytes.get(..start).unwrap_or_default().iter().rev().take(24);
    start - head.take_while(|b| b.is_ascii_digit() || matches!(b, b' ' | b'-')).count()
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::super::super::pattern;
    use super::*;

    fn stage(what: What, place: Where, with: &str, max_line: usize) -> Replace {
        Replace::new(&Options { what, place, with: with.into(), max_line })
    }

    fn in_line() -> Where {
        Where::Named { line: true, names: Vec::new() }
    }

    fn replaced(what: What, with: &str, max_line: usize, line: &str) -> String {
        let mut work = Work::default();
        work.line.push_str(line);
        assert_eq!(stage(what, in_line(), with, max_line).apply(&mut work, 0), Verdict::Keep);
        work.line
    }

    fn by(expression: &str, line: &str) -> String {
        replaced(What::Expression(pattern(expression).unwrap()), "***", 1_000, line)
    }

    #[test]
    fn groups_go_and_what_stands_around_them_stays() {
        assert_eq!(
            by(r"password=(\S+)", "a password=x b password=ü"),
            "a password=*** b password=***"
        );
        assert_eq!(by(r"(\d+) - (\S+)", "11 - frank 12 - paul"), "*** - *** *** - ***");
        // Without groups, all of it.
        assert_eq!(by(r"password=\S+", "a password=x b"), "a *** b");
        assert_eq!(by(r"\d+", "none"), "none");
        // One in the other, one that takes no part, an empty one, and one that stands before another.
        assert_eq!(by("((a)b)c", "abcabc"), "***c***c");
        assert_eq!(by("(a)|b", "ab"), "***b");
        assert_eq!(by("(a*)b", "bab"), "b***b");
        assert_eq!(by("(?:x(a)|y(b))+", "ybxa"), "y***x***");
        assert_eq!(by("x*", "axb"), "a***b");
        assert_eq!(by("()", "abc"), "abc");
    }

    #[test]
    fn a_byte_of_a_character_takes_all_of_it() {
        assert_eq!(by("a.", "aübaß"), "***b***");
        assert_eq!(by("(.)", "ü€"), "******");
        assert_eq!(by(r"[^ -~]", "ü"), "***");
    }

    #[test]
    fn a_word_that_a_cut_went_through_goes_too() {
        let secret = "postgres://me:hunter2@host";
        let url = || What::Preset(Preset::UrlPassword);
        for len in 1..secret.len() {
            let line = format!("connecting to \"{}", &secret[..len]);
            let out = replaced(url(), "***", line.len(), &line);
            assert!(!out.contains("hu") && out.starts_with("connecting to \""), "{out}");
            assert!(out.ends_with("***") || out.len() == line.len(), "{out}");
            // A line that was not cut stays.
            assert_eq!(replaced(url(), "***", 1_000, &line), line.replace("hunter2@", "***@"));
        }
        let card = replaced(What::Preset(Preset::CreditCard), "*", 24, "paid with 4111 1111 1111");
        assert_eq!(card, "paid with*");
        // With nothing to tell words apart, as much as a word may have; escape sequences are no secret.
        let long = "x".repeat(9_000);
        assert_eq!(
            replaced(url(), "*", 9_000, &long),
            format!("{}*", "x".repeat(9_000 - MAX_CUT_WORD))
        );
        assert_eq!(replaced(What::Preset(Preset::Ansi), "", 9_000, &long), long);
        let json = format!("{{\"a\":\"{}\",\"p\":\"hunter", "y".repeat(100));
        assert!(replaced(url(), "***", json.len(), &json).ends_with("\",\"p\":\"***"));
    }

    #[test]
    fn the_result_is_not_longer_than_a_line_may_be() {
        let what = || What::Expression(pattern("a").unwrap());
        let out = replaced(what(), &"ü".repeat(50), 99, &"ab".repeat(40));
        assert_eq!(out, "ü".repeat(49));
        let out = replaced(what(), "xyz", 10, "aaaaab");
        assert_eq!(out, "xyzxyzxyzx");
    }

    #[test]
    fn labels_and_metadata_are_replaced_where_they_are_named() {
        let mut work = Work::default();
        work.line.push_str("1.2.3.4");
        for name in ["a", "b", "__c"] {
            work.set_label(name, "1.2.3.4");
            work.metadata.set(name, "at 1.2.3.4");
        }
        let what = || What::Preset(Preset::Ipv4);
        let place = Where::Named { line: false, names: vec!["b".into(), "none".into()] };
        stage(what(), place, "x", 100).apply(&mut work, 0);
        assert_eq!((work.line.as_str(), work.labels().get("a")), ("1.2.3.4", Some("1.2.3.4")));
        assert_eq!((work.labels().get("b"), work.metadata.get("b")), (Some("x"), Some("at x")));
        stage(what(), Where::Everywhere, "", 100).apply(&mut work, 0);
        assert_eq!((work.line.as_str(), work.labels().get("a")), ("", None));
        assert!(work.metadata.iter().eq([("a", "at "), ("b", "at x"), ("__c", "at ")]));
        assert!(work.labels().iter().eq([("__c", "1.2.3.4"), ("b", "x")]));
    }

    proptest! {
        #[test]
        fn no_match_is_left(line in "[a-cx0-9 ü]{0,40}", expression in proptest::sample::select(vec!["ab", "[0-9]+", "[ab]*c", "x[^-]", "a|b|x", "[a-z0-9 ]"])) {
            let pattern = pattern(expression).unwrap();
            let out = replaced(What::Expression(pattern.clone()), "-", 1_000, &line);
            prop_assert!(!pattern.is_match(&out), "{out:?}");
        }

        #[test]
        fn no_place_of_a_preset_is_left(line in "((192\\.0\\.2\\.1|fe80::1|fe80::1:fe80::1|a@b\\.cd|4111111111111111|bearer abcdefg1|s://u:p@h|eyJhbGciOiJkaXIifQ\\.x|[:.a1/]{0,3})[ \",;]){0,8}") {
            for (name, preset) in PRESETS {
                let out = replaced(What::Preset(*preset), "*", 1_000, &line);
                let again = replaced(What::Preset(*preset), "*", 1_000, &out);
                prop_assert_eq!(&again, &out, "{}", name);
            }
        }
    }
}
