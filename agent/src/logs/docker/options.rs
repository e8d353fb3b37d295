//! What the user may set of containers' logs, and the bounds that hardly anybody needs to.

use std::time::Duration;

use glob::{MatchOptions, Pattern};

use super::said::Container;
use crate::host::Endpoint;
use crate::model::Labels;

/// How logs are read.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Read {
    /// From disk where that is permitted, else by the API.
    Auto,
    /// By the API.
    Api,
    /// From disk, whoever says where.
    Disk,
}

/// One section of the configuration.
#[derive(Clone, Debug)]
pub struct Options {
    /// The daemons.
    pub hosts: Vec<Endpoint>,
    /// If there are any, only containers that one of them matches.
    pub include: Vec<Selector>,
    /// Containers that one of these matches are left out.
    pub exclude: Vec<Selector>,
    /// The labels of every stream; the container's own win.
    pub labels: Labels,
    /// Names of labels, and of the container's labels that they come from.
    pub labels_from: Vec<(String, String)>,
    /// How logs are read.
    pub read: Read,
    /// Whether containers whose logs go to the journal are read too.
    pub journald: bool,
    /// Of a container that was never read before, nothing older is; none: all there is.
    pub max_age: Option<Duration>,
    /// The longest line, in bytes.
    pub max_line: usize,
}

impl Default for Options {
    fn default() -> Options {
        Options {
            hosts: Endpoint::parse(Options::HOST).into_iter().collect(),
            include: Vec::new(),
            exclude: Vec::new(),
            labels: Labels::new(),
            labels_from: Options::LABELS_FROM
                .map(|(name, key)| (name.to_owned(), key.to_owned()))
                .to_vec(),
            read: Read::Auto,
            journald: true,
            max_age: Some(Options::MAX_AGE),
            max_line: 64 << 10,
        }
    }
}

impl Options {
    /// The default of `max_age`: what is older, Loki refuses, unless it is told otherwise.
    pub const MAX_AGE: Duration = Duration::from_secs(168 * 3600);

    /// The default of `host`.
    pub const HOST: &str = "unix:///var/run/docker.sock";

    /// The default of `labels_from`.
    pub const LABELS_FROM: [(&str, &str); 2] = [
        ("compose_project", "com.docker.compose.project"),
        ("compose_service", "com.docker.compose.service"),
    ];

    /// The label by which a container says that its logs are not to be read, `false`, or are, `true`.
    pub const OPT_OUT: &str = "mote.logs";

    /// Whether anything depends on a label of a container.
    pub(super) fn needs_label(&self, key: &str) -> bool {
        let asks = |selector: &Selector| matches!(&selector.kind, Kind::Label(of) if of == key);
        key == Options::OPT_OUT
            || self.labels_from.iter().any(|(_, from)| from == key)
            || self.include.iter().chain(&self.exclude).any(asks)
    }

    /// Whether a container is read.
    pub fn wants(&self, container: &Container) -> bool {
        match container.label(Options::OPT_OUT) {
            Some("false") => return false,
            Some("true") => return true,
            _ => {}
        }
        let any = |of: &[Selector]| of.iter().any(|selector| selector.matches(container));
        (self.include.is_empty() || any(&self.include)) && !any(&self.exclude)
    }
}

/// The bounds.
#[derive(Clone, Copy, Debug)]
pub struct Limits {
    /// How many containers are followed at once.
    pub max_containers: usize,
    /// Containers of one daemon that are looked at, running or not.
    pub max_known: usize,
    /// For connecting, and for each answer to go on.
    pub timeout: Duration,
    /// The pauses after a failure, the shortest and the longest.
    pub pause: (Duration, Duration),
    /// How often all containers are listed, for events that were lost.
    pub relist: Duration,
    /// The same where no events are told.
    pub poll: Duration,
    /// Bytes of the buffer that files of containers are read through.
    pub buffer: usize,
}

impl Default for Limits {
    fn default() -> Limits {
        Limits {
            max_containers: 200,
            max_known: 2_000,
            timeout: Duration::from_secs(10),
            pause: (Duration::from_millis(500), Duration::from_secs(60)),
            relist: Duration::from_secs(600),
            poll: Duration::from_secs(10),
            buffer: crate::logs::file::Limits::default().buffer,
        }
    }
}

/// A condition on a container, as `docker ps --filter` has them, with globs: `name=web-*`, `image=nginx:*`,
/// `label=KEY` or `label=KEY=VALUE`. Without a kind it is a name.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Selector {
    kind: Kind,
    pattern: Pattern,
}

#[derive(Clone, Debug, PartialEq, Eq)]
enum Kind {
    Name,
    Image,
    Label(String),
}

impl Selector {
    /// Reads a condition.
    ///
    /// # Errors
    /// What is wrong with it.
    pub fn parse(text: &str) -> Result<Selector, String> {
        let (kind, pattern) = match text.split_once('=') {
            None => (Kind::Name, text),
            Some(("name", pattern)) => (Kind::Name, pattern),
            Some(("image", pattern)) => (Kind::Image, pattern),
            Some(("label", rest)) => {
                let (key, pattern) = rest.split_once('=').unwrap_or((rest, "*"));
                (Kind::Label(key.to_owned()), pattern)
            }
            Some((other, _)) => return Err(format!("{other:?} is no kind of condition")),
        };
        if pattern.is_empty() || kind == Kind::Label(String::new()) {
            return Err(format!("{text:?} matches nothing"));
        }
        let pattern = Pattern::new(pattern).map_err(|error| error.to_string())?;
        Ok(Selector { kind, pattern })
    }

    fn matches(&self, container: &Container) -> bool {
        let value = match &self.kind {
            Kind::Name => Some(container.name.as_str()),
            Kind::Image => Some(container.image.as_str()),
            Kind::Label(key) => container.label(key),
        };
        // The slashes of an image are nothing special.
        let options = MatchOptions { require_literal_separator: false, ..MatchOptions::new() };
        value.is_some_and(|value| self.pattern.matches_with(value, options))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn options(include: &[&str], exclude: &[&str]) -> Options {
        let selectors = |texts: &[&str]| {
            texts.iter().map(|text| Selector::parse(text).unwrap()).collect::<Vec<_>>()
        };
        let (include, exclude) = (selectors(include), selectors(exclude));
        Options { include, exclude, ..Options::default() }
    }

    fn container(labels: &[(&str, &str)]) -> Container {
        Container {
            name: "web-1".into(),
            image: "ghcr.io/shop/web:2".into(),
            labels: labels.iter().map(|(k, v)| (k.to_string(), v.to_string())).collect(),
            ..Container::default()
        }
    }

    #[test]
    fn conditions_are_on_name_image_and_label() {
        let wants = |include: &[&str], exclude: &[&str], labels: &[(&str, &str)]| {
            options(include, exclude).wants(&container(labels))
        };
        assert!(wants(&[], &[], &[]));
        assert!(wants(&["web-*"], &[], &[]) && !wants(&["db"], &[], &[]));
        assert!(wants(&["db", "image=ghcr.io/*"], &[], &[]));
        assert!(!wants(&["web-*"], &["name=*-1"], &[]));
        assert!(!wants(&["label=a"], &[], &[]) && wants(&["label=a"], &[], &[("a", "")]));
        assert!(wants(&["label=a=b*"], &[], &[("a", "bc")]));
        assert!(!wants(&["label=a=b"], &[], &[("a", "bc")]));
        // What the container says of itself counts more.
        assert!(!wants(&["web-1"], &[], &[("mote.logs", "false")]));
        assert!(wants(&["db"], &["web-*"], &[("mote.logs", "true")]));
    }

    #[test]
    fn what_can_match_nothing_is_refused() {
        for bad in ["", "name=", "label=", "label==x", "tag=x", "a[", "name=***"] {
            assert!(Selector::parse(bad).is_err(), "{bad:?}");
        }
    }
}
