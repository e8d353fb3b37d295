//! `[[logs.file]]`: files to follow.

use super::Common;
use crate::config::error::ConfigError;
use crate::config::reader::Reader;
use crate::logs;

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
            "files to follow, as globs; new ones are found while running",
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
        files.push(logs::file::Options { paths, exclude, labels, max_line, format });
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
                "*, ?, [abc] and ** for any number of directories",
            )
        })?;
    }
    Ok(Some(given.into_iter().map(|pattern| pattern.value).collect()))
}
