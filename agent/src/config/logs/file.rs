//! `[[logs.file]]`: files to follow.

use super::Common;
use crate::config::error::ConfigError;
use crate::config::reader::Reader;
use crate::config::units;
use crate::logs;
use crate::logs::file::StartAt;

pub(super) fn files(
    t: &Reader<'_>,
    common: &Common,
) -> Result<Vec<logs::file::Options>, ConfigError> {
    let mut files = Vec::new();
    for file in t.list("file")? {
        let paths = globs(
            &file,
            "paths",
            logs::file::check_path,
            "files to follow, as globs of the host's paths; new ones are found while running",
        )?;
        let exclude =
            globs(&file, "exclude", logs::file::check_exclude, "files to leave out, as globs")?
                .unwrap_or_default();
        let own = file.labels(
            "labels",
            "labels of these files' streams, beside `filename`, `instance` and those of `[agent]`",
        )?;
        let format = file.choice(
            "format",
            "plain",
            &[
                ("plain", logs::file::PLAIN),
                ("docker", logs::docker::disk::JSON_FILE),
                ("cri", logs::docker::disk::CRI),
            ],
            "how lines stand in the files: \"plain\"; \"docker\", Docker's json-file; \"cri\", what containerd \
             writes for Kubernetes (/var/log/pods) and Podman as k8s-file. These two have the time, the \
             label `stream` and parts of long lines in them",
        )?;
        let start_at = file.choice(
            "start_at",
            "beginning",
            &[("beginning", StartAt::Beginning), ("end", StartAt::End)],
            "where reading begins in files that are there at the first start: \"beginning\", or \"end\", behind their last line; files that appear later are read whole",
        )?;
        let ignore_older = file.string(
            "ignore_older",
            "",
            "files that have not been written to for so long are not opened until they are, such as \"168h\"; default: all are",
        )?;
        let ignore_older = ignore_older
            .map(|given| match units::parse_duration(&given.value) {
                Ok(age) if !age.is_zero() => Ok(age),
                _ => Err(given.error(
                    format!("ignore_older: {:?} is no time", given.value),
                    "a number with a unit: \"24h\", \"30m\"",
                )),
            })
            .transpose()?;
        let multiline = super::stage::multiline(&file, common)?;
        let present = file.is_present();
        let place = file.place().clone();
        file.finish()?;
        if !present {
            continue;
        }
        let paths = paths.filter(|paths| !paths.is_empty()).ok_or_else(|| {
            ConfigError::new(&place, "[[logs.file]] has no paths", "paths = [\"/var/log/*.log\"]")
        })?;
        let own = common.multiline(own, multiline);
        let (labels, max_line) = (common.labels(own), common.max_line);
        let root = common.root.clone();
        files.push(logs::file::Options {
            paths,
            exclude,
            labels,
            max_line,
            start_at,
            ignore_older,
            root,
            format,
        });
    }
    Ok(files)
}

fn globs(
    t: &Reader<'_>,
    key: &'static str,
    check: fn(&str) -> Result<(), logs::file::PatternError>,
    text: &'static str,
) -> Result<Option<Vec<String>>, ConfigError> {
    let Some(given) = t.strings(key, text)? else { return Ok(None) };
    for pattern in &given {
        check(&pattern.value).map_err(|error| {
            pattern.error(
                format!("{key}: {error}"),
                "*, ?, [abc], {a,b} and ** for any number of directories",
            )
        })?;
    }
    Ok(Some(given.into_iter().map(|pattern| pattern.value).collect()))
}
