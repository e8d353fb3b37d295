//! `[[logs.stage]]`: what is done with entries, in order.

use std::time::Duration;

use super::{Common, extract};
use crate::config::error::{ConfigError, nearest};
use crate::config::reader::{At, Reader};
use crate::config::units;
use crate::logs::stage::{
    Conditions, Level, Limit, Lines, Mark, Options, Pattern, Selector, Share, Step, pattern,
};

/// Far more than anybody needs; each costs a look for each stream of a block.
const MAX_STAGES: usize = 200;

pub(super) fn stages(t: &Reader<'_>, common: &Common) -> Result<Vec<Options>, ConfigError> {
    let mut stages = Vec::new();
    for stage in t.list("stage")? {
        let selector = stage.string(
            "match",
            "",
            "the streams that it is for, as a LogQL stream selector: `'{unit=\"cron.service\", level=~\"err.*\"}'`; default: all. Internal labels such as `__source__` (`file`, `journal`, …) can be matched too",
        )?;
        let selector = selector.map(|given| self::selector(&given)).transpose()?;
        let steps = steps(&stage, common)?;
        let (present, place) = (stage.is_present(), stage.place().clone());
        stage.finish()?;
        if !present {
            continue;
        }
        let mut steps = steps.into_iter();
        let (Some((first, step)), second) = (steps.next(), steps.next()) else {
            let problem = "[[logs.stage]] has nothing to do";
            return Err(ConfigError::new(&place, problem, "drop = { regex = \"healthcheck\" }"));
        };
        if let Some((second, _)) = second {
            return Err(ConfigError::new(
                &place,
                format!("one [[logs.stage]] has both {first} and {second}"),
                "give each a [[logs.stage]] of its own: they work in the order of the file",
            ));
        }
        if stages.len() == MAX_STAGES {
            let problem = format!("there are more than {MAX_STAGES} [[logs.stage]]");
            return Err(ConfigError::new(&place, problem, "a regular expression takes many words"));
        }
        stages.push(Options { selector: selector.unwrap_or_default(), step });
    }
    Ok(stages)
}

fn steps(t: &Reader<'_>, common: &Common) -> Result<Vec<(&'static str, Step)>, ConfigError> {
    let steps = [
        ("drop", conditions(t, "drop")?.map(Step::Drop)),
        ("keep", conditions(t, "keep")?.map(Step::Keep)),
        ("rate_limit", rate_limit(t)?.map(Step::RateLimit)),
        ("sample", sample(t)?.map(Step::Sample)),
        ("multiline", multiline(t, common)?.map(Step::Multiline)),
    ];
    let own = steps.into_iter().filter_map(|(name, step)| Some((name, step?)));
    let extract =
        extract::steps(t, common)?.into_iter().map(|(name, step)| (name, Step::Extract(step)));
    Ok(own.chain(extract).collect())
}

/// Reads a selector.
pub(super) fn selector(given: &At<String>) -> Result<Selector, ConfigError> {
    Selector::parse(&given.value).map_err(|error| {
        given
            .error(format!("match: {error}"), "such as '{unit=\"cron.service\", level=~\"err.*\"}'")
    })
}

/// A regular expression.
pub(super) fn regex(
    t: &Reader<'_>,
    key: &'static str,
    text: &'static str,
) -> Result<Option<Pattern>, ConfigError> {
    let Some(given) = t.optional(key, "regular expression", text)? else { return Ok(None) };
    let compiled = pattern(&given.value).map_err(|error| {
        given.error(
            format!("{key}: {:?}: {error}", given.value),
            "the syntax is RE2's; in single quotes a backslash is a backslash: '^\\d+'",
        )
    });
    compiled.map(Some)
}

fn reason(t: &Reader<'_>, default: &str) -> Result<Option<String>, ConfigError> {
    let text = "the `reason` in `mote_dropped_total{signal=\"logs\"}` of what goes";
    let Some(given) = t.string("reason", default, text)? else { return Ok(None) };
    if given.value.is_empty() || given.value.len() > 64 {
        return Err(given.error("reason has to have 1 to 64 bytes", "reason = \"healthchecks\""));
    }
    Ok(Some(given.value))
}

fn duration(
    t: &Reader<'_>,
    key: &'static str,
    text: &'static str,
) -> Result<Option<Duration>, ConfigError> {
    let Some(given) = t.optional(key, "duration", text)? else { return Ok(None) };
    let parsed = units::parse_duration(&given.value);
    parsed.map(Some).map_err(|problem| given.error(format!("{key}: {problem}"), units::DURATIONS))
}

fn size(t: &Reader<'_>, key: &'static str, text: &'static str) -> Result<Option<u64>, ConfigError> {
    let Some(given) = t.optional(key, "size", text)? else { return Ok(None) };
    let parsed = units::parse_size(&given.value);
    parsed.map(Some).map_err(|problem| given.error(format!("{key}: {problem}"), units::SIZES))
}

fn level(given: &At<String>) -> Result<Level, ConfigError> {
    Level::from_name(&given.value).ok_or_else(|| {
        let hint = match nearest(&given.value, Level::names()) {
            Some(near) => format!("did you mean {near:?}?"),
            None => "debug, info, notice, warning, error, critical, alert, emergency".into(),
        };
        given.error(format!("{:?} is no level", given.value), hint)
    })
}

fn conditions(t: &Reader<'_>, key: &'static str) -> Result<Option<Conditions>, ConfigError> {
    let t = t.section(key)?;
    let levels = t.one_or_more_strings(
        "level",
        "the label or structured metadata `level` is one of these; `warn`, `WARNING` and `4` are the same",
    )?;
    let below = t.optional("level_below", "string", "`level` is less severe than this")?;
    let source = t.string(
        "source",
        "",
        "the label or structured metadata that `regex` reads; default: the line",
    )?;
    let conditions = Conditions {
        regex: regex(&t, "regex", "matches somewhere in the line: all conditions given must hold")?,
        older_than: duration(
            &t,
            "older_than",
            "the timestamp lies further back than this, such as Loki's `reject_old_samples_max_age`, \"168h\"",
        )?,
        longer_than: size(&t, "longer_than", "the line has more bytes")?
            .map(|bytes| usize::try_from(bytes).unwrap_or(usize::MAX)),
        levels: levels.iter().flatten().map(level).collect::<Result<_, _>>()?,
        level_below: below.as_ref().map(level).transpose()?,
        reason: reason(&t, "stage_drop")?,
        source: source.as_ref().map(|given| given.value.clone()),
    };
    let (present, place) = (t.is_present(), t.place().clone());
    t.finish()?;
    if !present {
        return Ok(None);
    }
    if conditions.is_empty() {
        return Err(ConfigError::new(
            &place,
            format!("{key} has no condition"),
            "regex, level, level_below, older_than or longer_than",
        ));
    }
    if let (Some(source), None) = (&source, &conditions.regex) {
        return Err(
            source.error(format!("{key} has a source and no regex"), "source is what regex reads")
        );
    }
    Ok(Some(conditions))
}

fn rate_limit(t: &Reader<'_>) -> Result<Option<Limit>, ConfigError> {
    let t = t.section("rate_limit")?;
    let most = 1_000_000_000;
    let entries =
        t.integer("entries", 0, 0..=most, "entries of a stream in each `per`; 0: any number")?;
    let bytes = size(&t, "bytes", "bytes of lines of a stream in each `per`; default: any number")?;
    let per = t.duration(
        "per",
        Duration::from_secs(1),
        Duration::from_millis(1)..=Duration::from_secs(86_400),
        "the time that both are for, by the entries' timestamps",
    )?;
    let burst =
        t.integer("burst", 0, 0..=most, "entries that may come at once; 0: as many as `entries`")?;
    let by = t.strings(
        "by",
        "labels (or structured metadata) whose values have a limit each; default: all labels, so each stream has one; `[]`: one limit for all",
    )?;
    let reason = reason(&t, "rate_limit")?;
    let (present, place) = (t.is_present(), t.place().clone());
    t.finish()?;
    if !present {
        return Ok(None);
    }
    let some = |number: u32| (number > 0).then_some(number);
    let (entries, burst) = (some(entries), some(burst));
    if entries.is_none() && bytes.is_none_or(|bytes| bytes == 0) {
        let problem = "rate_limit has neither entries nor bytes";
        return Err(ConfigError::new(
            &place,
            problem,
            "rate_limit = { entries = 100, per = \"1s\" }",
        ));
    }
    let by = by.map(|names| names.into_iter().map(|name| name.value).collect());
    Ok(Some(Limit { entries, bytes: bytes.filter(|bytes| *bytes > 0), per, burst, by, reason }))
}

fn sample(t: &Reader<'_>) -> Result<Option<Share>, ConfigError> {
    let t = t.section("sample")?;
    let keep = t.share("keep", "the share of entries that stays, from 0 to 1")?;
    let reason = reason(&t, "sample")?;
    let (present, place) = (t.is_present(), t.place().clone());
    t.finish()?;
    match keep {
        Some(keep) => Ok(Some(Share { keep, reason })),
        None if present => {
            let problem = "sample does not say what share it keeps";
            Err(ConfigError::new(&place, problem, "sample = { keep = 0.1 }"))
        }
        None => Ok(None),
    }
}

/// The table `multiline`, here and in `[[logs.file]]`.
pub(super) fn multiline(t: &Reader<'_>, common: &Common) -> Result<Option<Lines>, ConfigError> {
    let t = t.section("multiline")?;
    let start = regex(
        &t,
        "start",
        "lines that match begin an entry, and those that don't belong to the one before",
    )?;
    let continues =
        regex(&t, "continues", "instead of `start`: lines that match belong to the entry before")?;
    let max_lines =
        t.integer("max_lines", 128, 1..=10_000, "the most lines of an entry; more begin another")?;
    let max_bytes = size(
        &t,
        "max_bytes",
        "the most bytes of an entry, at most `logs.max_line`, which is the default",
    )?;
    let max_wait = t.duration(
        "max_wait",
        Duration::from_secs(3),
        Duration::from_millis(100)..=Duration::from_secs(3_600),
        "how long an entry waits for its next line, from the reading of the last one",
    )?;
    let (present, place) = (t.is_present(), t.place().clone());
    t.finish()?;
    let mark = match (start, continues) {
        (Some(start), None) => Mark::Start(start),
        (None, Some(continues)) => Mark::Continues(continues),
        _ if !present => return Ok(None),
        _ => {
            let problem = "multiline needs either start or continues";
            let hint = "multiline = { start = '^\\d{4}-\\d\\d-\\d\\d' }";
            return Err(ConfigError::new(&place, problem, hint));
        }
    };
    let max_bytes = max_bytes.and_then(|bytes| usize::try_from(bytes).ok());
    let max_bytes = max_bytes.unwrap_or(common.max_line).min(common.max_line);
    Ok(Some(Lines { mark, max_lines, max_bytes, max_wait }))
}

#[cfg(test)]
mod tests {
    use std::path::Path;

    use super::*;

    fn parse(text: &str) -> Result<Vec<Options>, ConfigError> {
        crate::config::parse(text, Path::new("mote.toml"), &[]).map(|c| c.logs.stages.stages)
    }

    #[test]
    fn what_is_wrong_with_a_stage_is_told_with_its_place() {
        for (stage, place, problem, hint) in [
            ("", "1:", "nothing to do", "drop ="),
            ("match = '{}'", "1:", "nothing to do", "drop ="),
            ("drop = {}", "2:8", "drop has no condition", "older_than"),
            (
                "rate_limits = { entries = 1 }",
                "2:1",
                "unknown key \"[logs.stage].rate_limits\"",
                "\"rate_limit\"",
            ),
            (
                "drop = { regex = 'x' }\nsample = { keep = 0.5 }",
                "1:",
                "both drop and sample",
                "of its own",
            ),
            ("drop = { regex = 'a(b' }", "2:18", "\"a(b\": unclosed group", "RE2"),
            ("drop = { regx = 'a' }", "2:10", "unknown key", "\"regex\""),
            ("drop = { older_than = '7d' }", "2:23", "older_than: ", ""),
            ("drop = { longer_than = '8kB' }", "2:24", "longer_than: ", "KiB"),
            ("drop = { level = ['warnign'] }", "2:19", "\"warnign\" is no level", "\"warning\""),
            ("drop = { level_below = 'loud' }", "2:24", "\"loud\" is no level", "debug"),
            ("keep = { source = 'a', level = 'info' }", "2:19", "no regex", "reads"),
            ("keep = { level = 'info', reason = '' }", "2:35", "reason", "healthchecks"),
            ("keep = 'x'", "2:8", "should be a table", ""),
            (
                "match = '{unit=\"x}'\ndrop = { level = 'info' }",
                "2:9",
                "match: at character 7: the closing '\"' is missing",
                "such as",
            ),
            ("match = '{a=~\"(\"}'\ndrop = { level = 'info' }", "2:9", "unclosed group", ""),
            ("rate_limit = { per = '1s' }", "2:14", "neither entries nor bytes", "entries = 100"),
            ("rate_limit = { entries = 1, per = '0s' }", "2:35", "per is 0ms", "from 1ms"),
            ("sample = {}", "2:10", "what share", "0.1"),
            ("sample = { keep = 1.5 }", "2:19", "keep is 1.5", "from 0 to 1"),
            ("sample = { keep = nan }", "2:19", "keep is NaN", "from 0 to 1"),
            ("sample = { keep = '1' }", "2:19", "should be a number", ""),
            ("multiline = {}", "2:13", "either start or continues", "start ="),
            ("multiline = { start = 'a', continues = 'b' }", "2:13", "either", "start ="),
        ] {
            let text = format!("[[logs.stage]]\n{stage}");
            let error = parse(&text).map(drop).expect_err(&text);
            let shown = error.to_string();
            assert!(shown.starts_with(&format!("mote.toml:{place}")), "{text}\n{shown}");
            assert!(error.problem.contains(problem), "{text}\n{shown}");
            assert!(error.hint.contains(hint), "{text}\n{shown}");
        }
        let many = "[[logs.stage]]\ndrop = { level = 'info' }\n".repeat(MAX_STAGES + 1);
        assert!(parse(&many).unwrap_err().problem.contains("more than 200"));
    }

    #[test]
    fn everything_that_can_be_said_is_heard() {
        let stages = parse(
            "[[logs.stage]]\nmatch = '{unit=\"a\"}'\n\
             drop = { regex = 'x', source = 's', older_than = '1h', longer_than = '1KiB', level = ['ERR', '5'], level_below = 'crit', reason = 'r' }\n\
             [[logs.stage]]\nrate_limit = { entries = 5, bytes = '1KiB', per = '2s', burst = 7, by = [], reason = 'l' }\n\
             [[logs.stage]]\nsample = { keep = 1 }\n\
             [[logs.stage]]\nmultiline = { continues = '^ ', max_lines = 2, max_bytes = '1MiB', max_wait = '1s' }",
        )
        .unwrap();
        let conditions = Conditions {
            regex: Some(pattern("x").unwrap()),
            source: Some("s".into()),
            older_than: Some(Duration::from_secs(3_600)),
            longer_than: Some(1_024),
            levels: vec![Level::Error, Level::Notice],
            level_below: Some(Level::Critical),
            reason: Some("r".into()),
        };
        let limit = Limit {
            entries: Some(5),
            bytes: Some(1_024),
            per: Duration::from_secs(2),
            burst: Some(7),
            by: Some(vec![]),
            reason: Some("l".into()),
        };
        let lines = Lines {
            mark: Mark::Continues(pattern("^ ").unwrap()),
            max_lines: 2,
            // No more than logs.max_line.
            max_bytes: 64 << 10,
            max_wait: Duration::from_secs(1),
        };
        let steps = [
            Step::Drop(conditions),
            Step::RateLimit(limit),
            Step::Sample(Share { keep: 1.0, reason: None }),
            Step::Multiline(lines),
        ];
        assert!(stages.iter().map(|stage| &stage.step).eq(&steps));
        assert_eq!(stages[0].selector.as_str(), "{unit=\"a\"}");
    }

    #[test]
    fn the_multiline_of_a_section_of_files_is_a_stage_before_all_others() {
        let text = "[[logs.stage]]\ndrop = { regex = 'x' }\n\
                    [[logs.file]]\npaths = ['/a']\n\
                    [[logs.file]]\npaths = ['/b']\nmultiline = { start = 'S' }";
        let config = crate::config::parse(text, Path::new("mote.toml"), &[]).unwrap();
        let stages = &config.logs.stages.stages;
        assert!(matches!(stages[0].step, Step::Multiline(_)) && stages.len() == 2);
        let matches: Vec<_> =
            config.logs.files.iter().map(|file| stages[0].selector.matches(&file.labels)).collect();
        assert_eq!(matches, [false, true]);
    }
}
