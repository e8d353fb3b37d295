//! The stages that take lines apart: JSON, logfmt, times and what is replaced, on foreign lines.

use mote::logs::stage::extract::replace::{PRESETS, Preset, Replace, What, Where};
use mote::logs::stage::extract::timestamp::{Format, Zone};
use mote::logs::stage::extract::{Destination, Options, json, level, logfmt, replace};
use mote::logs::stage::{Action, Work, pattern};

/// Keys that stand in the seeds.
const PATHS: &[&str] = &["a", "level", "a.b", "a[0]", "a.b[1].c", "\"x.y\"", "[0]", "time"];

/// A path, a line break, and what should be JSON: as serde_json takes it, or not at all.
pub fn stage_json(data: &[u8]) {
    let text = String::from_utf8_lossy(data);
    let (own, text) = text.split_once('\n').unwrap_or(("a", &text));
    let paths = PATHS.iter().copied().chain([own]).filter_map(|path| json::Path::parse(path).ok());
    let paths: Vec<_> = paths.collect();
    let mut found = vec![None; paths.len()];
    let taken = json::scan(text, &paths, &mut found);
    let serde = serde_json::from_str::<serde::de::IgnoredAny>(text).is_ok();
    match taken {
        Ok(()) => {
            assert!(serde, "serde_json refuses it");
            let mut value = String::new();
            for found in found.iter().flatten() {
                value.clear();
                found.append(text, &mut value);
                assert!(value.len() <= text.len());
            }
        }
        Err(json::Malformed::Syntax(_)) => assert!(!serde, "serde_json takes it"),
        Err(json::Malformed::Start | json::Malformed::Depth) => {}
    }
}

/// A line of logfmt, and a level that is looked for in it.
pub fn logfmt(data: &[u8]) {
    let text = String::from_utf8_lossy(data);
    let mut pairs = 0;
    for (key, value) in logfmt::pairs(&text).flatten() {
        pairs += 1;
        assert!(!key.is_empty() && !key.bytes().any(|b| b <= b' ' || b == b'=' || b == b'"'));
        let mut out = String::new();
        value.append(&text, &mut out);
        assert!(out.len() <= text.len());
    }
    assert!(pairs <= text.len());
    let to = Destination::Label("level".into());
    let options = level::Options { pick: None, words: Vec::new(), default: None, to };
    let mut work = Work::new(0, &text);
    Options::Level(options).action().apply(&mut work, 0);
    assert!(work.labels().get("level").is_none_or(|level| level.len() <= 7));
}

/// A format, a line break, and a time: one of the range or none.
pub fn stage_timestamp(data: &[u8]) {
    let text = String::from_utf8_lossy(data);
    let (format, text) = text.split_once('\n').unwrap_or(("rfc3339", &text));
    let Ok(format) = Format::parse(format) else { return };
    for now in [0, 1_795_298_400_000_000_000, i64::MAX, i64::MIN] {
        let whole = format.read(text, true, &Zone::utc(), now);
        assert!(whole.is_none_or(|time| time >= 0));
        let begin = format.read(text, false, &Zone::utc(), now);
        assert!(whole.is_none() || whole == begin);
    }
}

/// An expression, a line break, and a line: what is replaced is text of a bounded length.
pub fn stage_replace(data: &[u8]) {
    const MAX_LINE: usize = 64;
    let text = String::from_utf8_lossy(data);
    let (expression, line) = text.split_once('\n').unwrap_or(("(a)", &text));
    let own = pattern(expression).ok().map(What::Expression);
    for what in PRESETS.iter().map(|(_, preset)| What::Preset(*preset)).chain(own) {
        let is_preset = matches!(what, What::Preset(preset) if preset != Preset::Ansi);
        let place = Where::Everywhere;
        let mut stage =
            Replace::new(&replace::Options { what, place, with: "***".into(), max_line: MAX_LINE });
        let mut work = Work::new(0, line);
        work.set_label("l", line);
        work.metadata.set("m", line);
        stage.apply(&mut work, 0);
        assert!(work.line == line || work.line.len() <= MAX_LINE);
        // What may have been cut is not left as it was.
        assert!(!is_preset || line.len() < MAX_LINE || work.line != line || line.ends_with(is_end));
    }
}

fn is_end(c: char) -> bool {
    c.is_ascii_whitespace() || "\"'`{}[]()<>|,;&".contains(c)
}
