//! `[logs.docker]`: containers' logs.

use std::time::Duration;

use super::Common;
use crate::config::error::ConfigError;
use crate::config::reader::{At, Reader};
use crate::config::units;
use crate::host::Endpoint;
use crate::logs::docker::{Options, Read, Selector};
use crate::model::Labels;

const HOUR: Duration = Duration::from_secs(3_600);

pub(super) fn docker(
    t: &Reader<'_>,
    common: &Common,
    with_journal: bool,
) -> Result<Option<Options>, ConfigError> {
    let t = t.section("docker")?;
    let hosts = t.one_or_more_strings(
        "host",
        "the daemons: a socket below `host.root` such as `unix:///run/podman/podman.sock`, or `tcp://HOST:PORT` of a proxy that allows GET /containers/ and /events; default: `unix:///var/run/docker.sock`",
    )?;
    let include = t.one_or_more_strings(
        "include",
        "the only containers, if given, by globs: `web-*` or `name=web-*`, `image=nginx:*`, `label=KEY`, `label=KEY=VALUE`; a container with the label `mote.logs=true` always is",
    )?;
    let exclude = t.one_or_more_strings(
        "exclude",
        "containers that are left out, in the same words; one with the label `mote.logs=false` always is",
    )?;
    let own = t.labels(
        "labels",
        "labels of these streams, beside `container`, `image`, `stream`, those of `labels_from`, `instance` and those of `[agent]`",
    )?;
    let from = t.pairs(
        "labels_from",
        "labels that are taken from the container's own, by name; default: `{ compose_project = \"com.docker.compose.project\", compose_service = \"com.docker.compose.service\" }`; `{ compose_project = \"\" }` takes one away",
    )?;
    let read = t.choice(
        "read",
        "auto",
        &[("auto", Read::Auto), ("api", Read::Api), ("disk", Read::Disk)],
        "\"auto\": from disk (json-file, local, k8s-file) where a daemon of root's says where the log is and the agent may read it, else by the API; \"api\": always so; \"disk\": as \"auto\", also where a proxy or a user's daemon says where the log is, whom that makes the agent read files for",
    )?;
    let journald = t.boolean(
        "journald",
        !with_journal,
        "whether containers whose log driver is `journald` are read too; default: unless there is [logs.journal], which has their lines, if its `units` and `matches` let them through",
    )?;
    let max_age = max_age(&t)?;
    let multiline = super::stage::multiline(&t, common)?;
    let place = t.place().clone();
    let present = t.is_present();
    t.finish()?;
    if !present {
        return Ok(None);
    }
    let mut options = Options { journald, read, max_age, ..Options::default() };
    if let Some(given) = hosts {
        options.hosts = given.iter().map(endpoint).collect::<Result<_, _>>()?;
    }
    if options.hosts.is_empty() || options.hosts.len() > 8 {
        let problem = format!("logs.docker.host names {} daemons", options.hosts.len());
        return Err(ConfigError::new(&place, problem, "name 1 to 8, or leave it out"));
    }
    options.include = selectors(include)?;
    options.exclude = selectors(exclude)?;
    for (name, key) in from {
        let hint = "labels_from = { team = \"com.example.team\" }";
        Labels::from_pairs([(name.value.as_str(), "")])
            .map_err(|problem| name.error(problem.to_string(), hint))?;
        let taken = ["container", "image", "stream"].contains(&name.value.as_str());
        if taken || name.value.starts_with("__") {
            let problem = format!("labels_from: the label {:?} has its value already", name.value);
            return Err(name.error(problem, hint));
        }
        options.labels_from.retain(|(have, _)| *have != name.value);
        if !key.value.is_empty() {
            options.labels_from.push((name.value, key.value));
        }
    }
    options.labels = common.labels(common.multiline(own, multiline));
    options.max_line = common.max_line;
    Ok(Some(options))
}

fn max_age(t: &Reader<'_>) -> Result<Option<Duration>, ConfigError> {
    let given = t.string(
        "max_age",
        "168h",
        "of a container that is read for the first time by the API, lines that are older than this are left out; \"off\": none are",
    )?;
    let Some(given) = given else { return Ok(Some(Options::MAX_AGE)) };
    if given.value == "off" {
        return Ok(None);
    }
    let hint = "\"off\", or a duration such as \"168h\"";
    match units::parse_duration(&given.value) {
        Ok(age) if age <= 24 * 3_660 * HOUR => Ok(Some(age)),
        Ok(_) => Err(given.error("logs.docker.max_age is more than ten years", hint)),
        Err(problem) => Err(given.error(format!("logs.docker.max_age: {problem}"), hint)),
    }
}

fn endpoint(given: &At<String>) -> Result<Endpoint, ConfigError> {
    Endpoint::parse(&given.value).ok_or_else(|| {
        let hint = "\"unix:///var/run/docker.sock\" or \"tcp://127.0.0.1:2375\"";
        given.error(format!("logs.docker.host is no endpoint: {:?}", given.value), hint)
    })
}

fn selectors(given: Option<Vec<At<String>>>) -> Result<Vec<Selector>, ConfigError> {
    let selector = |given: At<String>| {
        Selector::parse(&given.value).map_err(|problem| {
            let hint = "\"web-*\", \"image=nginx:*\", \"label=KEY\" or \"label=KEY=VALUE\"";
            given.error(problem, hint)
        })
    };
    given.unwrap_or_default().into_iter().map(selector).collect()
}

#[cfg(test)]
mod tests {
    use std::path::Path;

    use super::*;
    use crate::config::{Config, ConfigError, parse};

    fn read(text: &str) -> Result<Config, ConfigError> {
        parse(text, Path::new("mote.toml"), &[])
    }

    #[test]
    fn the_section_s_presence_is_enough() {
        assert!(read("").unwrap().logs.docker.is_none());
        let options = read("[logs.docker]").unwrap().logs.docker.unwrap();
        assert_eq!(options.hosts, [Endpoint::parse(Options::HOST).unwrap()]);
        assert_eq!((options.read, options.journald), (Read::Auto, true));
        assert_eq!(options.max_age, Some(Options::MAX_AGE));
        assert_eq!(options.labels_from.len(), 2);
        assert!(options.labels.get("instance").is_some());
    }

    #[test]
    fn everything_can_be_set() {
        let text = r#"
            [logs.docker]
            host = ["tcp://proxy:2375", "unix:///run/podman/podman.sock"]
            include = ["web-*", "label=a=b"]
            exclude = "image=*/agent:*"
            labels = { job = "docker" }
            labels_from = { compose_project = "", team = "com.example.team" }
            read = "api"
            journald = false
            max_age = "off"
        "#;
        let options = read(text).unwrap().logs.docker.unwrap();
        assert_eq!(options.hosts.len(), 2);
        assert_eq!((options.include.len(), options.exclude.len()), (2, 1));
        assert_eq!(options.labels.get("job"), Some("docker"));
        let from: Vec<&str> = options.labels_from.iter().map(|(name, _)| name.as_str()).collect();
        assert_eq!(from, ["compose_service", "team"]);
        assert_eq!((options.read, options.journald, options.max_age), (Read::Api, false, None));
    }

    #[test]
    fn errors_name_their_places() {
        for (line, place, what) in [
            ("host = 'ssh://x'", "2:8", "no endpoint"),
            ("host = []", "1:1", "0 daemons"),
            ("include = ['tag=x']", "2:12", "no kind of condition"),
            ("labels_from = { stream = 'x' }", "2:17", "has its value already"),
            ("labels_from = { 'a-b' = 'x' }", "2:17", "not a label name"),
            ("max_age = '12'", "2:11", "logs.docker.max_age"),
            ("hosts = 'x'", "2:1", "unknown key"),
        ] {
            let error = read(&format!("[logs.docker]\n{line}")).unwrap_err().to_string();
            assert!(error.contains(place) && error.contains(what), "{line}: {error}");
        }
    }
}
