//! `[logs.journal]`: systemd's journal.

use std::path::PathBuf;
use std::time::Duration;

use super::Common;
use crate::config::error::ConfigError;
use crate::config::reader::{At, Pair, Reader};
use crate::logs::SOURCE;
use crate::logs::journal::{Matches, Options, Units};
use crate::model::Labels;

/// Loki takes 15 labels a stream, the agent's among them.
const MAX_LABELS: usize = 8;
/// What Loki takes for an entry, 64 KiB, is enough for so many values.
const MAX_METADATA: usize = 24;

const YEAR: Duration = Duration::from_secs(365 * 86_400);

/// Fields with other values for each boot, process or message: every value would be a stream.
const NEVER_LABELS: [&str; 20] = [
    "_BOOT_ID",
    "_SOURCE_REALTIME_TIMESTAMP",
    "_SOURCE_MONOTONIC_TIMESTAMP",
    "_SOURCE_BOOTTIME_TIMESTAMP",
    "_PID",
    "_STREAM_ID",
    "_SYSTEMD_INVOCATION_ID",
    "_AUDIT_ID",
    "_AUDIT_SESSION",
    "_CMDLINE",
    "CONTAINER_PARTIAL_ID",
    "CONTAINER_LOG_EPOCH",
    "CONTAINER_LOG_ORDINAL",
    "INVOCATION_ID",
    "MESSAGE",
    "OBJECT_PID",
    "SYSLOG_PID",
    "SYSLOG_RAW",
    "SYSLOG_TIMESTAMP",
    "TID",
];

pub(super) fn journal(t: &Reader<'_>, common: &Common) -> Result<Option<Options>, ConfigError> {
    let t = t.section("journal")?;
    let max_age = t.duration(
        "max_age",
        Duration::from_secs(12 * 3600),
        Duration::ZERO..=10 * YEAR,
        "how far back the first start reads; later ones go on where reading ended, however long ago; \"0s\": only what comes from now on",
    )?;
    let given = t.strings(
        "matches",
        "which entries, as journalctl takes them: `[\"_TRANSPORT=kernel\", \"+\", \"_SYSTEMD_UNIT=ssh.service\", \"PRIORITY=3\"]`; of one field any value, of several fields all, \"+\" for either side; default: all",
    )?;
    let matches = matches(&t, given.unwrap_or_default())?;
    let given = t.strings(
        "units",
        "only these units, as `journalctl --unit` takes them: `ssh` is `ssh.service`, `*`, `?` and `[a-z]` make a pattern; what the service manager says of a unit belongs to it, and a user's units are found too; `matches` must hold as well",
    )?;
    let units = units(&t, given.unwrap_or_default())?;
    let directories = t.strings(
        "directories",
        "where journal files are, with the directories below that are named after machines; default: `/var/log/journal` and `/run/log/journal` of this machine, below `host.root`",
    )?;
    let directories = directories.unwrap_or_default().into_iter().map(directory);
    let directories = directories.collect::<Result<_, _>>()?;
    let own = t.labels(
        "labels",
        "labels of the journal's streams, beside `unit`, `syslog_identifier`, `transport`, `level`, `instance` and those of `[agent]`",
    )?;
    let labels_from = t.pairs(
        "labels_from",
        "further labels and the fields that they are made of: `{ hostname = \"_HOSTNAME\", container = \"CONTAINER_NAME\" }`; a name with `__` in front is for stages alone; a field with many values makes many streams",
    )?;
    let labels_from = labels_from.into_iter().map(label).collect::<Result<Vec<_>, _>>()?;
    let metadata_from = t.pairs(
        "metadata_from",
        "structured metadata and the fields that it is made of: `{ pid = \"_PID\", exe = \"_EXE\", boot_id = \"_BOOT_ID\" }`",
    )?;
    let metadata_from = metadata_from.into_iter().map(metadata).collect::<Result<Vec<_>, _>>()?;
    for (key, count, most) in [
        ("labels_from", labels_from.len(), MAX_LABELS),
        ("metadata_from", metadata_from.len(), MAX_METADATA),
    ] {
        if count > most {
            return Err(ConfigError::new(
                t.place(),
                format!("logs.journal.{key} has {count} fields"),
                format!("at most {most}, so that Loki takes the entries"),
            ));
        }
    }
    let present = t.is_present();
    t.finish()?;
    let (labels, max_line) = (common.labels(own), common.max_line);
    Ok(present.then_some(Options {
        labels,
        max_line,
        max_age,
        matches,
        units,
        directories,
        labels_from,
        metadata_from,
    }))
}

fn matches(t: &Reader<'_>, given: Vec<At<String>>) -> Result<Matches, ConfigError> {
    Matches::parse(given.iter().map(|word| word.value.as_str())).map_err(|error| {
        let at = given.iter().rfind(|word| word.value == error.term);
        ConfigError::new(
            at.map_or(t.place(), |at| &at.place),
            format!("logs.journal.matches: {error}"),
            "FIELD=value, or \"+\" between alternatives; journalctl --fields lists the fields",
        )
    })
}

fn units(t: &Reader<'_>, given: Vec<At<String>>) -> Result<Units, ConfigError> {
    Units::new(given.iter().map(|unit| unit.value.as_str())).map_err(|error| {
        let at = given.iter().find(|unit| unit.value == error.unit);
        ConfigError::new(
            at.map_or(t.place(), |at| &at.place),
            format!("logs.journal.units: {error}"),
            "for example [\"ssh.service\", \"docker*\"]",
        )
    })
}

fn directory(given: At<String>) -> Result<PathBuf, ConfigError> {
    let path = PathBuf::from(&given.value);
    match path.is_absolute() {
        true => Ok(path),
        false => Err(given.error(
            format!("logs.journal.directories: {:?} is not an absolute path", given.value),
            "for example [\"/var/log/journal/remote\"]",
        )),
    }
}

fn label((name, field): Pair) -> Result<(String, String), ConfigError> {
    named("labels_from", &name)?;
    if name.value == SOURCE {
        return Err(name.error(format!("the label {SOURCE} is the source's own"), ""));
    }
    let field = field_name("labels_from", field)?;
    if NEVER_LABELS.contains(&field.value.as_str()) {
        return Err(field.error(
            format!("logs.journal.labels_from: {} can't be a label: each of its values would make a stream of its own", field.value),
            format!("as structured metadata it costs nothing: metadata_from = {{ {} = {:?} }}", name.value, field.value),
        ));
    }
    Ok((name.value, field.value))
}

fn metadata((name, field): Pair) -> Result<(String, String), ConfigError> {
    named("metadata_from", &name)?;
    if name.value.starts_with("__") {
        return Err(name.error(
            format!(
                "logs.journal.metadata_from: {:?} is reserved: it has two '_' in front",
                name.value
            ),
            "",
        ));
    }
    let field = field_name("metadata_from", field)?;
    Ok((name.value, field.value))
}

fn named(key: &str, name: &At<String>) -> Result<(), ConfigError> {
    Labels::from_pairs([(name.value.as_str(), "")]).map(drop).map_err(|problem| {
        name.error(
            format!("logs.journal.{key}: {problem}"),
            format!("the name comes first, then the field: {key} = {{ hostname = \"_HOSTNAME\" }}"),
        )
    })
}

/// What can be a field's name; `__CURSOR` and its like, which journalctl shows, are none.
fn field_name(key: &str, field: At<String>) -> Result<At<String>, ConfigError> {
    let name = field.value.as_str();
    let good = |b: u8| b.is_ascii_uppercase() || b.is_ascii_digit() || b == b'_';
    let fail = |why: &str| {
        let hint = "such as \"_HOSTNAME\"; journalctl --fields lists them";
        Err(field.error(format!("logs.journal.{key}: {name:?} is not a field: {why}"), hint))
    };
    if name.starts_with("__") {
        return fail("what begins with __ is no field of the entry, and its time is kept as it is");
    }
    let digit = name.starts_with(|c: char| c.is_ascii_digit());
    if name.is_empty() || name.len() > 64 || !name.bytes().all(good) || digit {
        return fail("it has 1 to 64 characters of A-Z, 0-9 and _, no digit first");
    }
    Ok(field)
}

#[cfg(test)]
mod tests {
    use std::path::Path;

    use super::*;

    fn parse(section: &str) -> Result<Options, String> {
        let text = format!("[agent]\ninstance = \"pi\"\n[logs.journal]\n{section}");
        let config = crate::config::parse(&text, Path::new("mote.toml"), &[]);
        config.map(|config| config.logs.journal.unwrap()).map_err(|error| error.to_string())
    }

    #[test]
    fn the_section_alone_switches_the_journal_on() {
        let options = parse("").unwrap();
        assert_eq!(options.max_age, Duration::from_secs(43_200));
        assert!(options.matches.is_empty() && options.units.is_empty());
        assert!(options.directories.is_empty() && options.labels_from.is_empty());
        assert_eq!(options.labels.to_string(), "{instance=\"pi\"}");
        assert_eq!(options.max_line, 64 << 10);
        let config = crate::config::parse("[logs]", Path::new("mote.toml"), &[]).unwrap();
        assert!(config.logs.journal.is_none());
    }

    #[test]
    fn everything_set() {
        let options = parse(
            r#"
            max_age = "0s"
            matches = ["_TRANSPORT=kernel", "+", "PRIORITY=3"]
            units = ["ssh", "docker*"]
            directories = ["/srv/journal"]
            labels = { job = "integrations/node_exporter" }
            labels_from = { hostname = "_HOSTNAME", __comm = "_COMM" }
            metadata_from = { boot_id = "_BOOT_ID" }
            "#,
        )
        .unwrap();
        assert!(options.max_age.is_zero() && !options.matches.is_empty());
        assert!(!options.units.is_empty());
        assert_eq!(options.directories, [Path::new("/srv/journal")]);
        assert_eq!(options.labels.get("job"), Some("integrations/node_exporter"));
        assert_eq!(options.labels_from.len(), 2);
        assert_eq!(options.metadata_from, [("boot_id".to_owned(), "_BOOT_ID".to_owned())]);
    }

    #[test]
    fn a_mistake_is_told_with_its_place_and_what_to_do() {
        for (section, wants) in [
            (
                r#"labels_from = { boot = "_BOOT_ID" }"#,
                &[":4:", "_BOOT_ID can't be a label", "metadata_from = { boot = \"_BOOT_ID\" }"][..],
            ),
            (r#"labels_from = { x = "__CURSOR" }"#, &["\"__CURSOR\" is not a field"]),
            (r#"labels_from = { x = "_Comm" }"#, &["\"_Comm\" is not a field"]),
            (r#"labels_from = { x = "1A" }"#, &["\"1A\" is not a field"]),
            (
                r#"labels_from = { "a-b" = "_COMM" }"#,
                &["labels_from", "\"a-b\"", "name comes first"],
            ),
            (r#"labels_from = { __source__ = "_COMM" }"#, &["source's own"]),
            (r#"metadata_from = { __x = "_COMM" }"#, &["metadata_from", "reserved"]),
            (r#"metadata_from = ["_PID"]"#, &["metadata_from is an array, and should be a table"]),
            (
                r#"matches = ["PRIORITY=3", "ssh"]"#,
                &["matches", "\"ssh\" is no match", "FIELD=value"],
            ),
            (r#"matches = ["A=1", "+"]"#, &["matches", "after it"]),
            (r#"units = ["ssh", "a b"]"#, &["units", "\"a b\" is not a unit's name"]),
            (r#"directories = ["journal"]"#, &["not an absolute path"]),
            (r#"max_age = "soon""#, &["max_age"]),
            (r#"match = []"#, &["did you mean \"matches\""]),
        ] {
            let error = parse(section).unwrap_err();
            for wanted in wants {
                assert!(error.contains(wanted), "{error}\nlacks {wanted}");
            }
        }
        let many: Vec<_> = (0..9).map(|n| format!("l{n} = \"_COMM\"")).collect();
        let error = parse(&format!("labels_from = {{ {} }}", many.join(", "))).unwrap_err();
        assert!(error.contains("has 9 fields") && error.contains("at most 8"), "{error}");
    }
}
