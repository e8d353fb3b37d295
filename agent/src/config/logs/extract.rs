//! The keys of `[[logs.stage]]` that take an entry apart or edit it.

use std::time::Duration;

use super::Common;
use super::stage::regex;
use crate::config::error::{ConfigError, Place, nearest};
use crate::config::reader::{At, Names, Pair, Reader};
use crate::logs::stage::extract::replace::{PRESETS, What, Where};
use crate::logs::stage::extract::timestamp::{Format, OnFailure, Zone};
use crate::logs::stage::extract::{
    Destination, Input, MAX_TAKES, Options, Part, Pick, Template, edit, json, level, logfmt,
    regex as groups, replace, timestamp,
};
use crate::model::Labels;

/// The longest text that stands in place of another.
const MAX_REPLACEMENT: usize = 256;

/// A value's source, a group, path or key, and where it goes.
type Take = (At<String>, Destination);

/// Those that stand in a stage's table, each with its name. Every key is asked for, so that it is known and
/// documented.
pub(super) fn steps(
    t: &Reader<'_>,
    common: &Common,
) -> Result<Vec<(&'static str, Options)>, ConfigError> {
    let steps = [
        ("regex", by_regex(t)?.map(Options::Regex)),
        ("json", by_json(t)?.map(Options::Json)),
        ("logfmt", by_logfmt(t)?.map(Options::Logfmt)),
        ("labels", labels(t)?.map(Options::Edit)),
        ("metadata", metadata(t)?.map(Options::Edit)),
        ("rename", rename(t)?.map(Options::Edit)),
        ("remove", remove(t)?.map(Options::Edit)),
        ("keep_labels", keep_labels(t)?.map(Options::Edit)),
        ("replace", replacement(t, common)?.map(Options::Replace)),
        ("timestamp", time(t, common)?.map(Options::Timestamp)),
        ("level", severity(t)?.map(Options::Level)),
    ];
    Ok(steps.into_iter().filter_map(|(name, step)| Some((name, step?))).collect())
}

fn by_regex(t: &Reader<'_>) -> Result<Option<groups::Options>, ConfigError> {
    let t = t.section("regex")?;
    let expression = regex(
        &t,
        "expression",
        "an expression with named groups, `(?P<name>…)`; entries that it does not match pass as they are",
    )?;
    let input = input(&t)?;
    let takes = takes(&t, "groups")?;
    let (present, place) = (t.is_present(), t.place().clone());
    t.finish()?;
    if !present {
        return Ok(None);
    }
    let example = "regex = { expression = '^(?P<method>\\w+) ', labels = [\"method\"] }";
    let Some(expression) = expression else {
        return Err(ConfigError::new(&place, "regex has no expression", example));
    };
    let takes = some(takes, &place, "regex", example)?;
    let names = || expression.regex().capture_names().flatten();
    let group = |from: &At<String>| {
        groups::group(&expression, &from.value).ok_or_else(|| {
            let hint = match nearest(&from.value, names()) {
                Some(near) => format!("did you mean {near:?}?"),
                None => "groups have names: (?P<name>…)".into(),
            };
            from.error(format!("the expression has no group {:?}", from.value), hint)
        })
    };
    let groups = takes.iter().map(|(from, _)| group(from)).collect::<Result<_, _>>()?;
    let to = takes.into_iter().map(|(_, to)| to).collect();
    Ok(Some(groups::Options { input, expression, groups, to }))
}

fn by_json(t: &Reader<'_>) -> Result<Option<json::Options>, ConfigError> {
    let t = t.section("json")?;
    let input = input(&t)?;
    let takes = takes(&t, "paths")?;
    let drop_malformed = t.boolean(
        "drop_malformed",
        false,
        "entries that are no JSON go, with the reason `stage_malformed`; else they pass as they are",
    )?;
    let (present, place) = (t.is_present(), t.place().clone());
    t.finish()?;
    if !present {
        return Ok(None);
    }
    let takes = some(takes, &place, "json", "json = { labels = { host = \"ctx.host\" } }")?;
    let paths = takes.iter().map(|(from, _)| path(from)).collect::<Result<_, _>>()?;
    let to = takes.into_iter().map(|(_, to)| to).collect();
    Ok(Some(json::Options { input, paths, to, drop_malformed }))
}

fn by_logfmt(t: &Reader<'_>) -> Result<Option<logfmt::Options>, ConfigError> {
    let t = t.section("logfmt")?;
    let input = input(&t)?;
    let takes = takes(&t, "keys")?;
    let (present, place) = (t.is_present(), t.place().clone());
    t.finish()?;
    if !present {
        return Ok(None);
    }
    let takes = some(takes, &place, "logfmt", "logfmt = { labels = [\"level\"] }")?;
    let (keys, to) = takes.into_iter().map(|(from, to)| (from.value, to)).unzip();
    Ok(Some(logfmt::Options { input, keys, to }))
}

fn labels(t: &Reader<'_>) -> Result<Option<edit::Options>, ConfigError> {
    let pairs = t.pairs(
        "labels",
        "sets labels; `{name}` in a value is the value of that label, or else of that structured metadata",
    )?;
    let set = |pair| templated(pair, Destination::Label);
    let pairs = pairs.into_iter().map(set).collect::<Result<Vec<_>, _>>()?;
    Ok((!pairs.is_empty()).then_some(edit::Options::Set(pairs)))
}

fn metadata(t: &Reader<'_>) -> Result<Option<edit::Options>, ConfigError> {
    let names = t.names_or_pairs(
        "metadata",
        "makes structured metadata of labels, by a list of their names; or sets it as `labels` sets those",
    )?;
    Ok(match names {
        None => None,
        Some(Names::List(names)) => {
            Some(edit::Options::ToMetadata(names.into_iter().map(name).collect::<Result<_, _>>()?))
        }
        Some(Names::Pairs(pairs)) => {
            let set = |pair| templated(pair, Destination::Metadata);
            Some(edit::Options::Set(pairs.into_iter().map(set).collect::<Result<_, _>>()?))
        }
    })
}

fn rename(t: &Reader<'_>) -> Result<Option<edit::Options>, ConfigError> {
    let pairs = t.pairs(
        "rename",
        "new names of labels, or else of structured metadata: `{ old = \"new\" }`",
    )?;
    let pair = |(from, to): Pair| Ok((name(from)?, name(to)?));
    let pairs = pairs.into_iter().map(pair).collect::<Result<Vec<_>, ConfigError>>()?;
    Ok((!pairs.is_empty()).then_some(edit::Options::Rename(pairs)))
}

fn remove(t: &Reader<'_>) -> Result<Option<edit::Options>, ConfigError> {
    let names = t.strings("remove", "labels and structured metadata that go")?;
    let Some(names) = names else { return Ok(None) };
    Ok(Some(edit::Options::Remove(names.into_iter().map(name).collect::<Result<_, _>>()?)))
}

fn keep_labels(t: &Reader<'_>) -> Result<Option<edit::Options>, ConfigError> {
    let names = t.strings(
        "keep_labels",
        "the labels that stay; all others go, `instance` and those of `[agent]` too",
    )?;
    let Some(names) = names else { return Ok(None) };
    Ok(Some(edit::Options::KeepLabels(names.into_iter().map(name).collect::<Result<_, _>>()?)))
}

fn replacement(t: &Reader<'_>, common: &Common) -> Result<Option<replace::Options>, ConfigError> {
    let t = t.section("replace")?;
    let expression = regex(
        &t,
        "expression",
        "what goes: the text of each group, or the whole match if there is no group; everywhere it matches",
    )?;
    let preset = t.optional(
        "preset",
        "string",
        "instead of `expression`: \"ipv4\", \"ipv6\", \"email\", \"credit_card\", \"bearer_token\", \"url_password\", \"jwt\" or \"ansi\"",
    )?;
    let with = t.optional(
        "replace",
        "string",
        "what stands there instead, of at most 256 bytes; default: \"***\", and \"\" for `ansi`",
    )?;
    let source = t.one_or_more_strings(
        "source",
        "\"line\", names of labels and structured metadata, or \"*\" for all of them; default: the line",
    )?;
    let (present, place) = (t.is_present(), t.place().clone());
    t.finish()?;
    if !present {
        return Ok(None);
    }
    let what = match (expression, preset) {
        (Some(expression), None) => What::Expression(expression),
        (None, Some(given)) => {
            let found = PRESETS.iter().find(|(name, _)| *name == given.value);
            let (_, preset) = found.ok_or_else(|| {
                let names: Vec<_> = PRESETS.iter().map(|(name, _)| format!("{name:?}")).collect();
                given.error(
                    format!("replace.preset is {:?}", given.value),
                    format!("one of {}", names.join(", ")),
                )
            })?;
            What::Preset(*preset)
        }
        _ => {
            let problem = "replace needs either expression or preset";
            let hint = "replace = { expression = 'password=(\\S+)' }";
            return Err(ConfigError::new(&place, problem, hint));
        }
    };
    if let Some(with) = with.as_ref().filter(|with| with.value.len() > MAX_REPLACEMENT) {
        return Err(with.error("replace.replace has more than 256 bytes", ""));
    }
    let with = with.map(|given| given.value);
    let with = with.unwrap_or_else(|| match what {
        What::Preset(replace::Preset::Ansi) => String::new(),
        What::Preset(_) | What::Expression(_) => "***".into(),
    });
    let names: Vec<String> =
        source.map_or(vec!["line".into()], |all| all.into_iter().map(|at| at.value).collect());
    let place = if names.iter().any(|name| name == "*") {
        Where::Everywhere
    } else {
        let (line, names) = names.into_iter().partition::<Vec<_>, _>(|name| name == "line");
        Where::Named { line: !line.is_empty(), names }
    };
    Ok(Some(replace::Options { what, place, with, max_line: common.max_line }))
}

fn time(t: &Reader<'_>, common: &Common) -> Result<Option<timestamp::Options>, ConfigError> {
    let t = t.section("timestamp")?;
    let pick = pick(&t, "the time")?;
    let format = t.optional(
        "format",
        "string",
        "how the time is written: a name (`rfc3339`, `rfc3164`, `unix`, `unix_ms`, …), directives of strftime (`%Y-%m-%d %H:%M:%S`), or a layout of Go's (`2006-01-02 15:04:05`)",
    )?;
    let location = t.string(
        "location",
        "Local",
        "where a time without an offset is: \"Local\" (this host's zone), \"UTC\", or a name such as \"Europe/Berlin\"",
    )?;
    let on_failure = t.choice(
        "on_failure",
        "keep",
        &[("keep", OnFailure::Keep), ("fudge", OnFailure::Fudge)],
        "an entry without a time that can be read or can be: \"keep\" gives it the time of its reading, \"fudge\" that of the entry before it in its stream and a nanosecond",
    )?;
    let max_ahead = t.duration(
        "max_ahead",
        Duration::from_secs(600),
        Duration::ZERO..=Duration::from_secs(366 * 86_400),
        "how far ahead of its reading a time can be, such as Loki's `creation_grace_period`",
    )?;
    let (present, place) = (t.is_present(), t.place().clone());
    t.finish()?;
    if !present {
        return Ok(None);
    }
    let Some(format) = format else {
        let hint = "timestamp = { json = \"time\", format = \"rfc3339\" }";
        return Err(ConfigError::new(&place, "timestamp has no format", hint));
    };
    let parsed = Format::parse(&format.value).map_err(|error| {
        format.error(format!("timestamp.format {:?}: {error}", format.value), "")
    })?;
    let zone = location.as_ref().map_or("Local", |given| &given.value);
    let zone = Zone::load(zone, &common.root).map_err(|problem| {
        ConfigError::new(
            location.as_ref().map_or(&place, |given| &given.place),
            format!("timestamp.location: {problem}"),
            "\"Local\", \"UTC\", or a name such as \"Europe/Berlin\", whose file the package tzdata has",
        )
    })?;
    Ok(Some(timestamp::Options {
        pick: pick.unwrap_or_default(),
        format: parsed,
        zone,
        on_failure,
        max_ahead_ns: i64::try_from(max_ahead.as_nanos()).unwrap_or(i64::MAX),
    }))
}

fn severity(t: &Reader<'_>) -> Result<Option<level::Options>, ConfigError> {
    let t = t.section("level")?;
    let pick = pick(&t, "the level")?;
    let words = t.pairs(
        "map",
        "words of your own, in any case, and the level that each means: `{ SEVERE = \"error\" }`",
    )?;
    let default = t.string("default", "", "the level of entries that say none; default: none")?;
    let label = t.optional("label", "string", "the label that it goes to; default: `level`")?;
    let metadata = t.optional(
        "metadata",
        "string",
        "instead of a label: the structured metadata that it goes to",
    )?;
    let present = t.is_present();
    t.finish()?;
    if !present {
        return Ok(None);
    }
    let to = match (label, metadata) {
        (Some(_), Some(metadata)) => {
            return Err(
                metadata.error("level has both label and metadata", "it goes to one of them")
            );
        }
        (None, Some(metadata)) => Destination::Metadata(name(metadata)?),
        (Some(label), None) => Destination::Label(name(label)?),
        (None, None) => Destination::Label("level".into()),
    };
    let words = words.into_iter().map(|(word, level)| (word.value, level.value)).collect();
    let default = default.map(|given| given.value).filter(|default| !default.is_empty());
    Ok(Some(level::Options { pick, words, default, to }))
}

fn input(t: &Reader<'_>) -> Result<Input, ConfigError> {
    let given = t.string(
        "source",
        "line",
        "what is read: the line, or the label or structured metadata of this name",
    )?;
    Ok(match given {
        Some(given) if given.value != "line" => Input::Name(given.value),
        _ => Input::Line,
    })
}

/// The text that a stage needs; None where nothing says which.
fn pick(t: &Reader<'_>, what: &str) -> Result<Option<Pick>, ConfigError> {
    let source = t.optional(
        "source",
        "string",
        "what is read: \"line\", or the label or structured metadata of this name",
    )?;
    let json = t.optional("json", "string", "of that, the value at this path of JSON")?;
    let logfmt = t.optional("logfmt", "string", "of that, the value of this key of logfmt")?;
    let expression = regex(
        t,
        "expression",
        "of that, the first group of this expression, or what it matches if it has no group",
    )?;
    let given = [json.is_some(), logfmt.is_some(), expression.is_some()];
    if given.iter().filter(|given| **given).count() > 1 {
        let problem = format!("{what} can be at one place only: json, logfmt or expression");
        return Err(ConfigError::new(t.place(), problem, ""));
    }
    let part = if let Some(json) = json {
        Part::Json(path(&json)?)
    } else if let Some(logfmt) = logfmt {
        Part::Logfmt(logfmt.value)
    } else {
        expression.map_or(Part::Whole, Part::Expression)
    };
    let input = match source {
        Some(source) if source.value != "line" => Input::Name(source.value),
        Some(_) => Input::Line,
        None if part == Part::Whole => return Ok(None),
        None => Input::Line,
    };
    Ok(Some(Pick { input, part }))
}

fn path(given: &At<String>) -> Result<json::Path, ConfigError> {
    json::Path::parse(&given.value).map_err(|error| {
        let problem = format!("{:?} is no path of JSON: {error}", given.value);
        given.error(problem, "such as level, ctx.host, items[0].id or \"key.with.dots\"")
    })
}

/// The keys `labels`, `metadata` and `line` of the stages that take values.
fn takes(t: &Reader<'_>, what: &'static str) -> Result<Vec<Take>, ConfigError> {
    let (labels, metadata, line) = match what {
        "groups" => (
            "groups that become labels of their names; or `{ label = \"group\" }`",
            "the same for structured metadata",
            "the group that replaces the line",
        ),
        "paths" => (
            "paths that become labels of their names; or `{ label = \"path\" }`",
            "the same for structured metadata",
            "the path whose value replaces the line",
        ),
        _ => (
            "keys that become labels of their names; or `{ label = \"key\" }`",
            "the same for structured metadata",
            "the key whose value replaces the line",
        ),
    };
    let mut takes = named(t.names_or_pairs("labels", labels)?, Destination::Label)?;
    takes.extend(named(t.names_or_pairs("metadata", metadata)?, Destination::Metadata)?);
    if let Some(line) = t.optional("line", "string", line)? {
        takes.push((line, Destination::Line));
    }
    if let Some((from, _)) = takes.get(MAX_TAKES) {
        return Err(from.error(format!("a stage takes at most {MAX_TAKES} values"), ""));
    }
    Ok(takes)
}

fn named(names: Option<Names>, to: fn(String) -> Destination) -> Result<Vec<Take>, ConfigError> {
    match names {
        None => Ok(Vec::new()),
        Some(Names::List(names)) => names
            .into_iter()
            .map(|from| {
                let to = to(name(from.clone())?);
                Ok((from, to))
            })
            .collect(),
        Some(Names::Pairs(pairs)) => {
            pairs.into_iter().map(|(to_name, from)| Ok((from, to(name(to_name)?)))).collect()
        }
    }
}

fn some(
    takes: Vec<Take>,
    place: &Place,
    stage: &str,
    example: &str,
) -> Result<Vec<Take>, ConfigError> {
    if takes.is_empty() {
        let problem = format!("{stage} takes nothing: it needs labels, metadata or line");
        return Err(ConfigError::new(place, problem, example));
    }
    Ok(takes)
}

/// A name of a label or of structured metadata, which Loki wants to be alike.
fn name(given: At<String>) -> Result<String, ConfigError> {
    match Labels::from_pairs([(given.value.as_str(), "")]) {
        Ok(_) => Ok(given.value),
        Err(error) => {
            Err(given
                .error(error.to_string(), "with a name of its own: { name = \"what.is-read\" }"))
        }
    }
}

fn templated(
    (to, text): Pair,
    destination: fn(String) -> Destination,
) -> Result<(Destination, Template), ConfigError> {
    let template = Template::parse(&text.value).map_err(|problem| text.error(problem, ""))?;
    Ok((destination(name(to)?), template))
}

#[cfg(test)]
mod tests {
    use std::path::Path;

    use crate::config::parse;

    /// The message about a stage, without the file's name.
    fn error(stage: &str) -> String {
        let text = format!("[[logs.stage]]\n{stage}\n");
        let error = parse(&text, Path::new("m"), &[]).expect_err(stage).to_string();
        error.strip_prefix("m:").unwrap_or(&error).to_owned()
    }

    #[test]
    fn what_is_wrong_with_a_stage_is_said_with_place_and_hint() {
        let mut wrong = Vec::new();
        for (stage, expected) in [
            (
                "regex = { expression = '(?P<method>x)', labels = ['metod'] }",
                "2:51: the expression has no group \"metod\"\n  hint: did you mean \"method\"?",
            ),
            (
                "regex = { expression = 'x' }",
                "2:9: regex takes nothing: it needs labels, metadata or line",
            ),
            ("regex = { labels = ['a'] }", "2:9: regex has no expression"),
            ("json = { labels = ['ctx.host'] }", "2:20: \"ctx.host\" is not a label name"),
            ("json = { labels = { host = 'a[' } }", "2:28: \"a[\" is no path of JSON: "),
            ("json = { drop_malformed = true }", "2:8: json takes nothing"),
            ("logfmt = { labels = 1 }", "2:21: [logs.stage].logfmt.labels is an integer"),
            ("labels = { a = '{b' }", "2:16: a brace has no other one"),
            ("labels = { 'a-b' = 'x' }", "2:12: \"a-b\" is not a label name"),
            ("rename = { a = 'b-c' }", "2:16: \"b-c\" is not a label name"),
            ("replace = { replace = 'x' }", "2:11: replace needs either expression or preset"),
            ("replace = { expression = 'a', preset = 'jwt' }", "2:11: replace needs either"),
            (
                "replace = { preset = 'ip' }",
                "2:22: replace.preset is \"ip\"\n  hint: one of \"ipv4\"",
            ),
            ("replace = { expression = '(' }", "2:26: "),
            ("timestamp = { json = 'time' }", "2:13: timestamp has no format"),
            ("timestamp = { format = '%Q' }", "2:24: timestamp.format \"%Q\": %Q is no directive"),
            (
                "timestamp = { format = 'yyyy' }",
                "2:24: timestamp.format \"yyyy\": there is no time",
            ),
            (
                "timestamp = { format = 'unix', location = 'Berlin/Europe' }",
                "2:43: timestamp.location: reading /usr/share/zoneinfo/Berlin/Europe: ",
            ),
            (
                "timestamp = { format = 'unix', json = 'a', logfmt = 'b' }",
                "2:13: the time can be at one place only",
            ),
            ("level = { label = 'a', metadata = 'b' }", "2:35: level has both label and metadata"),
            ("level = { lable = 'a' }", "2:11: unknown key"),
            ("json = { labels = ['a'] }\nlevel = {}", "1:1: one [[logs.stage]] has both"),
        ] {
            let error = error(stage);
            if !error.starts_with(expected) {
                wrong.push(format!("{stage}: {error}"));
            }
        }
        assert!(wrong.is_empty(), "{}", wrong.join("\n"));
    }
}
