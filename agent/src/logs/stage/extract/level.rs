//! The stage `level`: how severe an entry says it is, as one of the words that the journal's entries
//! have, and `trace`.
//!
//! Where nothing says which text it is, a line is asked as Loki asks it for its `detected_level`: the
//! first key of JSON or logfmt that is called like a level, else a word of the line. Loki takes any word,
//! also that of "no error found"; here it has to stand out: in capitals, in brackets, before a colon, or
//! as the line's first.

use super::super::{Action, Level as Severity, Verdict, Work};
use super::json::{Path, scan};
use super::logfmt::pairs;
use super::pick::{Pick, Picker};
use super::take::{Destination, put};

/// Keys that have a level, the first that is there counts.
const KEYS: &[&str] = &[
    "level",
    "severity",
    "lvl",
    "loglevel",
    "log_level",
    "severity_text",
    "levelname",
    "log.level",
];
/// Words are looked for in so many bytes of a line.
const MAX_WORDS: usize = 256;

/// The options of the stage.
#[derive(Clone, Debug, PartialEq)]
pub struct Options {
    /// Which text is the level; None: it is looked for in the line.
    pub pick: Option<Pick>,
    /// Words of the user's own, in any case, and the level that each means.
    pub words: Vec<(String, String)>,
    /// The level of an entry that has none, if it gets one.
    pub default: Option<String>,
    /// Where it goes.
    pub to: Destination,
}

/// The stage.
#[derive(Debug)]
pub struct Level {
    picker: Option<Picker>,
    words: Vec<(String, String)>,
    default: Option<String>,
    to: Destination,
    paths: Vec<Path>,
    value: String,
    out: String,
}

impl Level {
    /// The stage.
    pub fn new(options: &Options) -> Level {
        let paths = KEYS.iter().map(|key| Path::key(key));
        // log.level is a key with a dot, or one in the other.
        let nested = Path::parse("log.level");
        Level {
            picker: options.pick.as_ref().map(Picker::new),
            words: options.words.clone(),
            default: options.default.clone(),
            to: options.to.clone(),
            paths: paths.chain(nested).collect(),
            value: String::new(),
            out: String::new(),
        }
    }
}

impl Action for Level {
    fn apply(&mut self, entry: &mut Work, _now_ns: i64) -> Verdict {
        let found = match &mut self.picker {
            Some(picker) => picker.pick(entry).and_then(|text| meaning(&self.words, text)),
            None => detect(&self.words, &self.paths, &entry.line, &mut self.value),
        };
        if let Some(level) = found.or(self.default.as_deref()) {
            self.out.clear();
            self.out.push_str(level);
            put(entry, &self.to, &mut self.out);
        }
        Verdict::Keep
    }
}

/// The word for a severity: syslog's, as the journal's entries have it.
pub fn word(level: Severity) -> &'static str {
    match level {
        Severity::Trace => "trace",
        Severity::Debug => "debug",
        Severity::Info => "info",
        Severity::Notice => "notice",
        Severity::Warning => "warning",
        Severity::Error => "error",
        Severity::Critical => "crit",
        Severity::Alert => "alert",
        Severity::Emergency => "emerg",
    }
}

/// What a value means: a word of the user's, one that is known, syslog's numbers 0 to 7, or those of pino
/// and bunyan, 10 to 60.
fn meaning<'a>(words: &'a [(String, String)], text: &str) -> Option<&'a str> {
    let text = text.trim();
    let own = words.iter().find(|(have, _)| have.eq_ignore_ascii_case(text));
    own.map(|(_, level)| level.as_str()).or_else(|| match text {
        "10" => Some("trace"),
        "20" => Some("debug"),
        "30" => Some("info"),
        "40" => Some("warning"),
        "50" => Some("error"),
        "60" => Some("crit"),
        text => Severity::from_name(text).map(word),
    })
}

fn detect<'a>(
    words: &'a [(String, String)],
    paths: &[Path],
    line: &str,
    value: &mut String,
) -> Option<&'a str> {
    if line.trim_ascii_start().starts_with('{') {
        let mut found = [None; KEYS.len() + 1];
        if scan(line, paths, &mut found).is_ok() {
            return found.iter().flatten().find_map(|found| {
                value.clear();
                found.append(line, value);
                meaning(words, value)
            });
        }
    }
    prefix(line).or_else(|| in_logfmt(words, line, value)).or_else(|| in_words(words, line))
}

fn in_logfmt<'a>(words: &'a [(String, String)], line: &str, value: &mut String) -> Option<&'a str> {
    memchr::memchr(b'=', line.as_bytes())?;
    let keyed = pairs(line)
        .filter_map(Result::ok)
        .filter(|(key, _)| KEYS.iter().any(|known| key.eq_ignore_ascii_case(known)));
    let mut levels = keyed.filter_map(|(_, found)| {
        value.clear();
        found.append(line, value);
        meaning(words, value)
    });
    levels.next()
}

/// `<3>` of sd-daemon(3), `<34>` of syslog, and klog's `E1121 22:00:00`.
fn prefix(line: &str) -> Option<&'static str> {
    if let Some((number, _)) = line.strip_prefix('<').and_then(|rest| rest.split_once('>')) {
        if number.is_empty() || number.len() > 3 || !number.bytes().all(|b| b.is_ascii_digit()) {
            return None;
        }
        let priority: u8 = number.parse().ok().filter(|priority| *priority <= 191)?;
        return Severity::from_name(&char::from(b'0' + priority % 8).to_string()).map(word);
    }
    let (head, rest) = line.split_at_checked(5)?;
    let digits = head.bytes().skip(1).all(|b| b.is_ascii_digit());
    let time = rest.as_bytes().get(..4).is_some_and(|b| b.starts_with(b" ") && b.ends_with(b":"));
    match head.bytes().next().filter(|_| digits && time)? {
        b'I' => Some("info"),
        b'W' => Some("warning"),
        b'E' => Some("error"),
        b'F' => Some("crit"),
        _ => None,
    }
}

/// The first word that is a level and stands out.
fn in_words<'a>(words: &'a [(String, String)], line: &str) -> Option<&'a str> {
    let line = line.get(..line.floor_char_boundary(MAX_WORDS)).unwrap_or(line);
    let mut start = 0;
    let mut first = true;
    while let Some(rest) = line.get(start..).filter(|rest| !rest.is_empty()) {
        let len = rest.find(|c: char| !is_word(c)).unwrap_or(rest.len());
        let word = rest.get(..len).unwrap_or_default();
        if word.bytes().any(|b| b.is_ascii_alphabetic()) {
            let before = line.get(..start).and_then(|text| text.chars().next_back());
            let after = rest.get(len..).and_then(|text| text.chars().next());
            let closing = match before {
                Some('[') => Some(']'),
                Some('(') => Some(')'),
                Some('<') => Some('>'),
                Some('|') => Some('|'),
                _ => None,
            };
            // `-` and `.` make another word of it: error-page, error.log.
            let stuck = matches!(before, Some('-' | '.' | '/')) || is_stuck(rest, len);
            let stands_out = !stuck
                && (first
                    || !word.bytes().any(|b| b.is_ascii_lowercase())
                    || after == Some(':')
                    || closing.is_some() && after == closing);
            if stands_out && let Some(level) = meaning(words, word) {
                return Some(level);
            }
            first = false;
        }
        let gap = rest.get(len..).and_then(|text| text.chars().next()).map_or(1, char::len_utf8);
        start += len + gap;
    }
    None
}

/// Letters beyond ASCII are taken for parts of words, without Unicode's tables.
fn is_word(c: char) -> bool {
    c.is_ascii_alphanumeric() || c == '_' || !c.is_ascii()
}

fn is_stuck(rest: &str, len: usize) -> bool {
    let mut behind = rest.get(len..).unwrap_or_default().chars();
    matches!(behind.next(), Some('-' | '.' | '/')) && behind.next().is_some_and(is_word)
}

#[cfg(test)]
mod tests {
    use super::super::pick::Part;
    use super::super::take::Input;
    use super::*;

    fn options() -> Options {
        Options {
            pick: None,
            words: Vec::new(),
            default: None,
            to: Destination::Label("level".into()),
        }
    }

    fn level(options: &Options, line: &str) -> Option<String> {
        let mut work = Work::default();
        work.line.push_str(line);
        work.metadata.set("m", "severe");
        Level::new(options).apply(&mut work, 0);
        work.labels().get("level").map(str::to_owned)
    }

    #[test]
    fn a_line_says_its_level_in_many_ways() {
        for (line, expected) in [
            (r#"{"msg":"an ERROR","level":"info"}"#, Some("info")),
            (r#"{"severity":"WARN"}"#, Some("warning")),
            (r#"{"level":50,"msg":"x"}"#, Some("error")),
            (r#"{"log.level":"fatal"}"#, Some("crit")),
            (r#"{"log":{"level":"Trace"}}"#, Some("trace")),
            (r#"{"level":"other","lvl":"dbg"}"#, Some("debug")),
            (r#"{"msg":"ERROR"}"#, None),
            (r#"{"level":"info""#, None),
            ("time=1 level=warn msg=\"ERROR\"", Some("warning")),
            ("lvl=\"err\"", Some("error")),
            ("Level=5 x=1", Some("notice")),
            ("[ERROR] x", Some("error")),
            ("2026-11-21 22:00:00,123 WARNING root x", Some("warning")),
            ("2026-11-21 [main] [info] x", Some("info")),
            ("2026-11-21 crit: x", Some("crit")),
            ("2026-11-21 host app[1]: error: x", Some("error")),
            ("Error: no such file", Some("error")),
            ("panic: runtime error", Some("emerg")),
            ("<3>disk", Some("error")),
            ("<30>Nov 21", Some("info")),
            ("<191>x", Some("debug")),
            ("E1121 22:00:00.000001 1 x.go:1] y", Some("error")),
            ("F1121 22:00:00", Some("crit")),
            ("a=b an INFO here, an ERROR there", Some("info")),
            ("x (notice) y", Some("notice")),
            // Words that don't stand out, or are parts of others.
            ("no error was found", None),
            ("GET /error-page ERROR.LOG ERROR-1 x.ERROR", None),
            ("0 ERRORS", None),
            ("<192>x", None),
            ("<>x", None),
            ("<1x>y", None),
            ("", None),
            ("ü", None),
        ] {
            assert_eq!(level(&options(), line).as_deref(), expected, "{line}");
        }
        assert_eq!(level(&options(), &format!("{} ERROR", "x".repeat(MAX_WORDS))), None);
    }

    #[test]
    fn a_text_that_is_named_is_believed_and_no_other() {
        let pick = Pick { input: Input::Name("m".into()), part: Part::Whole };
        let mut options = Options { pick: Some(pick), ..options() };
        assert_eq!(level(&options, "ERROR"), None);
        options.default = Some("info".into());
        assert_eq!(level(&options, "ERROR").as_deref(), Some("info"));
        options.words = vec![("SEVERE".into(), "error".into())];
        assert_eq!(level(&options, "x").as_deref(), Some("error"));
    }

    #[test]
    fn a_word_of_the_users_counts_before_those_that_are_known() {
        let words = vec![("fatal".into(), "alert".into()), ("HINT".into(), "debug".into())];
        let options = Options { words, ..options() };
        assert_eq!(level(&options, "FATAL x").as_deref(), Some("alert"));
        assert_eq!(level(&options, "x HINT: y").as_deref(), Some("debug"));
        assert_eq!(level(&options, "level=hint").as_deref(), Some("debug"));
    }

    #[test]
    fn what_is_not_found_leaves_the_label_as_it_is() {
        let mut work = Work::default();
        work.set_label("level", "notice");
        work.line.push('x');
        Level::new(&options()).apply(&mut work, 0);
        assert_eq!(work.labels().get("level"), Some("notice"));
    }
}
