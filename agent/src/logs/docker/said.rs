//! What the API says of containers: JSON of lists, of one container, and of events. Only this is read of it,
//! and what comes from there is cut and cleaned before it becomes a label.

use std::collections::BTreeMap;

use serde::{Deserialize, Deserializer};

/// A label's value is cut here.
const MAX_TEXT: usize = 256;

/// What is known of a container.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Container {
    /// 64 hexadecimal digits.
    pub id: String,
    /// Without the slash in front.
    pub name: String,
    /// As it was given when the container was created.
    pub image: String,
    /// All labels whose values are texts.
    pub labels: BTreeMap<String, String>,
    /// It may write now.
    pub running: bool,
    /// Seconds since its last run ended, or some less, as lists have it.
    pub ended_s: Option<u64>,
    /// Who writes the log, such as `json-file`; empty if that is not known.
    pub driver: String,
    /// Where, if the daemon tells.
    pub log_path: String,
    /// Where its file with the host's name is, beside which Docker has its logs.
    pub hostname_path: String,
}

impl Container {
    /// The value of a label.
    pub fn label(&self, key: &str) -> Option<&str> {
        self.labels.get(key).map(String::as_str)
    }

    /// As `docker ps` shows it.
    pub fn short_id(&self) -> &str {
        self.id.get(..12).unwrap_or(&self.id)
    }
}

#[derive(Deserialize)]
struct Listed {
    #[serde(rename = "Id")]
    id: String,
    #[serde(rename = "Names", default)]
    names: Option<Vec<String>>,
    #[serde(rename = "Image", default)]
    image: String,
    #[serde(rename = "Labels", default, deserialize_with = "labels")]
    labels: BTreeMap<String, String>,
    #[serde(rename = "State", default)]
    state: String,
    #[serde(rename = "Status", default)]
    status: String,
}

/// An item of `GET /containers/json`.
pub(super) fn listed(json: &[u8]) -> Option<Container> {
    let listed: Listed = serde_json::from_slice(json).ok()?;
    // Of links (`/web/db`) the container's own name is the one without a second slash.
    let names = listed.names.unwrap_or_default();
    let own = names.iter().find(|name| name.matches('/').count() < 2).or(names.first());
    let container = Container {
        name: name(own.map_or("", |name| name), &listed.id),
        image: clean(&listed.image),
        labels: listed.labels,
        running: is_running(&listed.state),
        ended_s: ended_s(&listed.status),
        id: listed.id,
        ..Container::default()
    };
    is_id(&container.id).then_some(container)
}

#[derive(Deserialize)]
struct Inspected {
    #[serde(rename = "Id")]
    id: String,
    #[serde(rename = "Name", default)]
    name: String,
    #[serde(rename = "Config", default)]
    config: Config,
    #[serde(rename = "State", default)]
    state: State,
    #[serde(rename = "LogPath", default)]
    log_path: Option<String>,
    #[serde(rename = "HostnamePath", default)]
    hostname_path: Option<String>,
    #[serde(rename = "HostConfig", default)]
    host: HostConfig,
}

#[derive(Deserialize, Default)]
struct Config {
    #[serde(rename = "Image", default)]
    image: String,
    #[serde(rename = "Labels", default, deserialize_with = "labels")]
    labels: BTreeMap<String, String>,
}

#[derive(Deserialize, Default)]
struct State {
    #[serde(rename = "Status", default)]
    status: String,
}

#[derive(Deserialize, Default)]
struct HostConfig {
    #[serde(rename = "LogConfig", default)]
    log: LogConfig,
}

#[derive(Deserialize, Default)]
struct LogConfig {
    #[serde(rename = "Type", default)]
    driver: String,
}

/// The answer to `GET /containers/ID/json`.
pub(super) fn inspected(json: &[u8]) -> Option<Container> {
    let inspected: Inspected = serde_json::from_slice(json).ok()?;
    let container = Container {
        name: name(&inspected.name, &inspected.id),
        image: clean(&inspected.config.image),
        labels: inspected.config.labels,
        running: is_running(&inspected.state.status),
        ended_s: None,
        driver: clean(&inspected.host.log.driver),
        log_path: inspected.log_path.unwrap_or_default(),
        hostname_path: inspected.hostname_path.unwrap_or_default(),
        id: inspected.id,
    };
    is_id(&container.id).then_some(container)
}

/// What happened to a container.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) enum Event {
    /// It was started, or is called otherwise now: ask for it.
    Changed(String),
    /// It has ended.
    Stopped(String),
    /// It is no more.
    Removed(String),
}

#[derive(Deserialize)]
struct Told {
    #[serde(rename = "Type", default)]
    kind: String,
    #[serde(rename = "Action", default)]
    action: String,
    #[serde(rename = "Actor")]
    actor: Actor,
}

#[derive(Deserialize)]
struct Actor {
    #[serde(rename = "ID")]
    id: String,
}

/// An item of `GET /events`, if it says something of use. Podman calls some otherwise.
pub(super) fn event(json: &[u8]) -> Option<Event> {
    let Told { kind, action, actor } = serde_json::from_slice(json).ok()?;
    if kind != "container" || !is_id(&actor.id) {
        return None;
    }
    match action.as_str() {
        "start" | "rename" => Some(Event::Changed(actor.id)),
        "die" | "died" => Some(Event::Stopped(actor.id)),
        "destroy" | "remove" => Some(Event::Removed(actor.id)),
        _ => None,
    }
}

#[derive(Deserialize)]
struct Failure {
    #[serde(default)]
    message: String,
}

/// What the daemon says of a request that it refuses: JSON, or from a proxy anything.
pub(super) fn failure(body: &[u8]) -> String {
    match serde_json::from_slice::<Failure>(body) {
        Ok(failure) if !failure.message.is_empty() => clean(&failure.message),
        _ => clean(String::from_utf8_lossy(body).trim()),
    }
}

/// Between two runs there is nothing to wait for.
fn is_running(state: &str) -> bool {
    matches!(state, "running" | "paused")
}

/// The least that is meant by `Exited (0) 5 minutes ago`, of a duration as go-units' HumanDuration writes it:
/// hours and what is longer are rounded to the nearest hour.
fn ended_s(status: &str) -> Option<u64> {
    let (_, ago) = status.strip_suffix(" ago")?.split_once(") ")?;
    let fixed = match ago {
        "Less than a second" => Some(0),
        "About a minute" => Some(60),
        "About an hour" => Some(3_600),
        _ => None,
    };
    if fixed.is_some() {
        return fixed;
    }
    let (count, unit) = ago.split_once(' ')?;
    let unit = match unit.trim_end_matches('s') {
        "second" => 1,
        "minute" => 60,
        "hour" => 3_600,
        "day" => 86_400,
        "week" => 7 * 86_400,
        "month" => 30 * 86_400,
        "year" => 365 * 86_400,
        _ => return None,
    };
    let rounded = if unit >= 3_600 { 1_800 } else { 0 };
    Some(count.parse::<u32>().map(u64::from).ok()?.saturating_mul(unit).saturating_sub(rounded))
}

/// An id becomes a part of a path, and of a request.
fn is_id(id: &str) -> bool {
    (12..=64).contains(&id.len()) && id.bytes().all(|byte| byte.is_ascii_hexdigit())
}

fn name(given: &str, id: &str) -> String {
    match clean(given.strip_prefix('/').unwrap_or(given)) {
        name if name.is_empty() => id.get(..12).unwrap_or(id).to_owned(),
        name => name,
    }
}

/// Labels may be null, and their values anything.
fn labels<'de, D: Deserializer<'de>>(json: D) -> Result<BTreeMap<String, String>, D::Error> {
    let labels = Option::<BTreeMap<String, serde_json::Value>>::deserialize(json)?;
    let text = |(key, value)| match value {
        serde_json::Value::String(text) => Some((key, clean(&text))),
        _ => None,
    };
    Ok(labels.unwrap_or_default().into_iter().filter_map(text).collect())
}

/// At most 256 bytes, without control characters.
fn clean(text: &str) -> String {
    let end = text.floor_char_boundary(MAX_TEXT.min(text.len()));
    let text = text.get(..end).unwrap_or_default();
    text.chars().map(|c| if c.is_control() { char::REPLACEMENT_CHARACTER } else { c }).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    const ID: &str = "9026a5de05048f5afabddf90a4f1c83e41a3aa51869ff35df1ae90774027fc76";

    #[test]
    fn lists_and_containers() {
        let list = format!(
            r#"{{"Id":"{ID}","Names":["/shop/db","/web"],"Image":"nginx:1","State":"running",
            "Labels":{{"com.docker.compose.project":"shop","n":1}}}}"#
        );
        let container = listed(list.as_bytes()).unwrap();
        assert_eq!((container.name.as_str(), container.running), ("web", true));
        assert_eq!(container.label("com.docker.compose.project"), Some("shop"));
        assert_eq!((container.label("n"), container.short_id()), (None, "9026a5de0504"));
        let one = format!(
            r#"{{"Id":"{ID}","Name":"/web","Config":{{"Image":"nginx:1","Labels":null,"Tty":false}},
            "State":{{"Status":"exited","Running":false}},"LogPath":"/x/y-json.log",
            "HostConfig":{{"LogConfig":{{"Type":"json-file","Config":{{}}}}}}}}"#
        );
        let container = inspected(one.as_bytes()).unwrap();
        assert_eq!((container.running, container.driver.as_str()), (false, "json-file"));
        assert_eq!(container.log_path, "/x/y-json.log");
        for length in 0..one.len() {
            assert_eq!(inspected(&one.as_bytes()[..length]), None);
        }
    }

    #[test]
    fn how_long_ago_a_run_ended() {
        for (status, expected) in [
            ("Exited (0) Less than a second ago", Some(0)),
            ("Exited (137) 1 second ago", Some(1)),
            ("Exited (0) 59 seconds ago", Some(59)),
            ("Restarting (1) About a minute ago", Some(60)),
            ("Exited (0) 59 minutes ago", Some(3_540)),
            ("Exited (0) About an hour ago", Some(3_600)),
            ("Exited (0) 2 hours ago", Some(5_400)),
            ("Exited (0) 47 hours ago", Some(167_400)),
            ("Exited (0) 2 days ago", Some(171_000)),
            ("Exited (0) 4294967295 years ago", Some(4_294_967_295 * 365 * 86_400 - 1_800)),
            ("Exited (0) 4294967296 years ago", None),
            ("Exited (0) some time ago", None),
            ("Exited (0) 5 seconds", None),
            ("Up 2 hours (healthy)", None),
            ("Created", None),
            (" ago", None),
        ] {
            assert_eq!(ended_s(status), expected, "{status}");
        }
    }

    #[test]
    fn what_would_become_a_path_or_a_label_is_cleaned() {
        for id in ["../../etc", "", "9026", "9026a5de0504?x", &"a".repeat(65)] {
            assert_eq!(listed(format!(r#"{{"Id":"{id}"}}"#).as_bytes()), None, "{id}");
        }
        let nameless = listed(format!(r#"{{"Id":"{ID}","Names":null}}"#).as_bytes()).unwrap();
        assert_eq!(nameless.name, "9026a5de0504");
        let name = format!(r#"{{"Id":"{ID}","Names":["/a\n\u0000\u001bb{}"]}}"#, "é".repeat(300));
        let name = listed(name.as_bytes()).unwrap().name;
        assert!(name.starts_with("a\u{fffd}\u{fffd}\u{fffd}b") && name.len() <= 262);
        assert_eq!(failure(b"{\"message\":\"no such\\ncontainer\"}"), "no such\u{fffd}container");
        assert_eq!(failure(b"<html>403 Forbidden\n"), "<html>403 Forbidden");
    }

    #[test]
    fn events_of_docker_and_of_podman() {
        let of = |kind: &str, action: &str, id: &str| {
            let json =
                format!(r#"{{"Type":"{kind}","Action":"{action}","Actor":{{"ID":"{id}"}}}}"#);
            event(json.as_bytes())
        };
        let id = || ID.to_owned();
        assert_eq!(of("container", "start", ID), Some(Event::Changed(id())));
        assert_eq!(of("container", "die", ID), of("container", "died", ID));
        assert_eq!(of("container", "remove", ID), Some(Event::Removed(id())));
        assert_eq!(of("container", "destroy", ID), of("container", "remove", ID));
        assert_eq!(of("container", "exec_create: sh", ID), None);
        assert_eq!(of("image", "remove", ID), None);
        assert_eq!(of("container", "start", "x"), None);
    }
}
