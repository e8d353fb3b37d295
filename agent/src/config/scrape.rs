//! `[[scrape]]`: what other programs say over HTTP in the Prometheus text format.

use std::fmt::Write as _;
use std::time::Duration;

use super::endpoints::{Places, auth, hint, place_of, tls};
use super::error::ConfigError;
use super::reader::{At, Pair, Reader};
use super::{Agent, Metrics, Scrape, relabel};
use crate::endpoint::{Auth, Client, Options, TlsOptions, Url};
use crate::model::Labels;
use crate::relabel::Rules;
use crate::scrape::{Limits, MAX_LABELS, Target};

/// The most targets of all sections: each has a task and a name or two in memory.
const MAX_TARGETS: usize = 500;

const SECOND: Duration = Duration::from_secs(1);

pub(super) fn scrape(
    top: &Reader<'_>,
    agent: &Agent,
    metrics: &Metrics,
) -> Result<Vec<Scrape>, ConfigError> {
    let mut all: Vec<Scrape> = Vec::new();
    for t in top.list("scrape")? {
        let Some(section) = section(&t, agent)? else { continue };
        for given in &section.targets {
            let mut scrape = section.scrape(given)?;
            if !metrics.relabel.is_empty() {
                // Its rules see what they see of the host's series.
                scrape.target.common = agent.labels.clone();
                scrape.target.then = metrics.relabel.clone();
            }
            let is = |name: &str, value: &str| scrape.target.labels.get(name) == Some(value);
            if is("job", &metrics.job) && is("instance", &agent.instance) {
                return Err(given.error(
                    "scrape: this target has the host's own job and instance, whose series it would clash with",
                    "give it another job, or leave it out: the agent collects the host itself",
                ));
            }
            let twin = all.iter().any(|other| {
                other.connection.url == scrape.connection.url
                    && other.connection.url.query() == scrape.connection.url.query()
                    && other.target.labels == scrape.target.labels
            });
            if twin {
                return Err(given.error(
                    format!(
                        "scrape.targets: {:?} is scraped twice under the same labels",
                        given.value
                    ),
                    "leave one out, or give one of them another job or label",
                ));
            }
            if all.len() >= MAX_TARGETS {
                let problem = format!("scrape.targets: more than {MAX_TARGETS} in all sections");
                return Err(given.error(problem, "a Prometheus is made for so many"));
            }
            all.push(scrape);
        }
    }
    Ok(all)
}

/// A section, of which each target makes a [`Scrape`].
struct Section {
    job: String,
    targets: Vec<At<String>>,
    interval: Duration,
    timeout: Duration,
    path: String,
    scheme: &'static str,
    query: String,
    labels: Labels,
    honor_labels: bool,
    limits: Limits,
    relabel: Rules,
    auth: Auth,
    tls: TlsOptions,
    headers: Vec<Pair>,
    places: Places,
}

fn section(t: &Reader<'_>, agent: &Agent) -> Result<Option<Section>, ConfigError> {
    let job = t.string("job", "", "the label `job` of these targets; required")?;
    let targets = t.strings(
        "targets",
        "what is scraped, as `host:port`, which is also the label `instance`, or as whole URLs; required",
    )?;
    let interval = t.duration(
        "interval",
        agent.interval,
        SECOND..=Duration::from_secs(86_400),
        "time from one scrape of a target to the next; default: `agent.interval`. Each target has its own moment in it",
    )?;
    let timeout = t.optional(
        "timeout",
        "duration",
        "the most that a scrape may take, not longer than `interval`; default: 10s, or `interval` if that is shorter",
    )?;
    let path = t
        .string(
            "metrics_path",
            "/metrics",
            "where the page is, for targets that are no whole URLs",
        )?
        .map_or_else(|| "/metrics".to_owned(), |given| given.value);
    let schemes = [("http", "http"), ("https", "https")];
    let scheme =
        t.choice("scheme", "http", &schemes, "how targets are reached that are no whole URLs")?;
    let params =
        t.pairs("params", "parameters behind the path, for targets that are no whole URLs")?;
    let labels = t.labels(
        "labels",
        "more labels of these targets; one named `instance` takes the place of the target's own",
    )?;
    let honor_labels = t.boolean(
        "honor_labels",
        false,
        "where a sample has a label that its target has too: true, the sample's stays; false, the target's, and the sample's is renamed to `exported_…`",
    )?;
    let honor_timestamps = t.boolean(
        "honor_timestamps",
        false,
        "can only be false: all samples of a scrape have its own timestamp; times that a page gives for its samples are counted (`mote status`), and not used",
    )?;
    let limits = limits(t)?;
    let mut places = Places::new();
    let (auth, tls) = (auth(t, &mut places)?, tls(t, &mut places)?);
    let headers = t.pairs("headers", "more HTTP headers")?;
    // Of each sample, with the target's labels; those of `[[metrics.relabel]]` follow.
    let relabel = relabel::rules(t, "relabel")?;
    t.check_known()?;
    if !t.is_present() {
        return Ok(None);
    }
    if honor_timestamps {
        let problem = "scrape.honor_timestamps = true: a scrape has one timestamp here";
        return Err(ConfigError::new(t.place(), problem, "leave it out"));
    }
    let missing = |what: &str, hint: &str| {
        ConfigError::new(t.place(), format!("[[scrape]] has no {what}"), hint)
    };
    let job = job.filter(|job| !job.value.is_empty());
    let job = job.ok_or_else(|| missing("job", "job = \"traefik\""))?.value;
    let targets = targets.filter(|targets| !targets.is_empty());
    let targets = targets.ok_or_else(|| missing("targets", "targets = [\"127.0.0.1:8082\"]"))?;
    if labels.get("job").is_some() {
        let problem = "scrape.labels: the label \"job\" is set by job";
        return Err(ConfigError::new(t.place(), problem, "leave it out"));
    }
    let mut query = String::new();
    for (name, value) in &params {
        query.push(if query.is_empty() { '?' } else { '&' });
        encode(&name.value, &mut query);
        query.push('=');
        encode(&value.value, &mut query);
    }
    let timeout = match timeout {
        None => interval.min(10 * SECOND),
        Some(given) => {
            let wrong = |problem: String| {
                given.error(format!("scrape.timeout: {problem}"), super::units::DURATIONS)
            };
            let timeout = super::units::parse_duration(&given.value).map_err(wrong)?;
            if timeout < Duration::from_millis(10) || timeout > interval {
                let interval = super::units::show_duration(interval);
                return Err(given.error(
                    format!("scrape.timeout is {}", given.value),
                    format!("from 10ms to the interval, {interval}"),
                ));
            }
            timeout
        }
    };
    Ok(Some(Section {
        job,
        targets,
        interval,
        timeout,
        path,
        scheme,
        query,
        labels,
        honor_labels,
        limits,
        relabel,
        auth,
        tls,
        headers,
        places,
    }))
}

fn limits(t: &Reader<'_>) -> Result<Limits, ConfigError> {
    let default = Limits::default();
    Ok(Limits {
        samples: t.integer(
            "sample_limit",
            default.samples,
            1..=60_000,
            "the most samples of a page, behind the relabel rules; with more, as beyond any of these limits, the whole scrape fails. All targets and the host together have at most `metrics.max_series`, the host first",
        )?,
        body: t.size("body_size_limit", default.body, 1 << 10..=64 << 20, "the most bytes of a page")?,
        labels: t.integer(
            "label_limit",
            default.labels,
            1..=MAX_LABELS,
            "the most labels of a sample, its name and the target's labels counted; default: Mimir's limit",
        )?,
        name: t.integer(
            "label_name_length_limit",
            default.name,
            1..=65_536,
            "the most bytes of a label's name; default: Mimir's limit",
        )?,
        value: t.integer(
            "label_value_length_limit",
            default.value,
            1..=65_536,
            "the most bytes of a label's value; default: Mimir's limit",
        )?,
    })
}

impl Section {
    fn scrape(&self, given: &At<String>) -> Result<Scrape, ConfigError> {
        let text = &given.value;
        let whole = text.contains("://");
        let slash = if self.path.starts_with('/') { "" } else { "/" };
        let url = match whole {
            true => text.clone(),
            false if text.contains('/') => {
                let problem =
                    format!("scrape.targets: {text:?} is neither host:port nor a whole URL");
                return Err(given
                    .error(problem, "a path is given by metrics_path, or with http:// in front"));
            }
            false => format!("{}://{text}{slash}{}{}", self.scheme, self.path, self.query),
        };
        let url = Url::parse(&url).map_err(|error| {
            let problem = format!("scrape.targets: {text:?}: {error}");
            given.error(
                problem,
                "for example \"127.0.0.1:8082\" or \"https://nas.lan:9100/metrics\"",
            )
        })?;
        let mut labels = self.labels.clone();
        let authority = url.authority();
        labels.set_default("instance", if whole { authority } else { text.clone() });
        labels.set("job", self.job.clone());
        labels.retain(|_, value| !value.is_empty());
        let mut connection = Options::new(url);
        connection.auth = self.auth.clone();
        connection.tls = self.tls.clone();
        connection.timeout = self.timeout;
        // As a Prometheus does unless it is told otherwise: a target's credentials are not for the proxy of the endpoints.
        connection.proxy.from_environment = false;
        let pair = |(name, value): &Pair| (name.value.clone(), value.value.clone());
        connection.headers = self.headers.iter().map(pair).collect();
        if let Err(error) = Client::new(connection.clone()) {
            let at = place_of(&error, &self.headers, &self.places).unwrap_or(&given.place);
            return Err(ConfigError::new(at, error.to_string(), hint(&error)));
        }
        let target = Target {
            labels,
            honor_labels: self.honor_labels,
            limits: self.limits,
            relabel: self.relabel.clone(),
            common: Labels::new(),
            then: Rules::default(),
        };
        Ok(Scrape { connection, target, interval: self.interval })
    }
}

/// Percent-encodes what has a meaning in a query (RFC 3986, section 3.4).
fn encode(text: &str, out: &mut String) {
    for byte in text.bytes() {
        if byte.is_ascii_alphanumeric() || b"-._~".contains(&byte) {
            out.push(char::from(byte));
        } else {
            // Writing to a String does not fail.
            let _ = write!(out, "%{byte:02X}");
        }
    }
}

#[cfg(test)]
mod tests {
    use std::path::Path;

    use super::*;
    use crate::config::{Config, parse};

    fn config(text: &str) -> Result<Config, ConfigError> {
        parse(text, Path::new("mote.toml"), &[])
    }

    #[track_caller]
    fn refuses(text: &str, with: &str) {
        let error = config(text).unwrap_err().to_string();
        assert!(error.contains(with) && error.contains("mote.toml:"), "{text:?}: {error}");
    }

    #[test]
    fn targets_become_urls_and_labels() {
        let text = "agent.interval = \"30s\"\n[[scrape]]\njob = \"a\"\ntargets = [\"h:1\", \"[::1]:2\"]\n\
                    metrics_path = \"m\"\nparams = { \"a b\" = \"c&d\" }\nlabels = { x = \"1\" }\n\
                    [[scrape]]\njob = \"b\"\ninterval = \"5s\"\nscheme = \"https\"\n\
                    targets = [\"http://n.lan/x?y=1\", \"h\"]\nlabels = { instance = \"nas\" }\n";
        let config = config(text).unwrap();
        let got: Vec<_> = config
            .scrape
            .iter()
            .map(|scrape| {
                let query = scrape.connection.url.query().unwrap_or_default();
                let seconds = (scrape.interval.as_secs(), scrape.connection.timeout.as_secs());
                format!("{} {query} {} {seconds:?}", scrape.connection.url, scrape.target.labels)
            })
            .collect();
        let labels = |text: &str| text.to_owned();
        assert!(got[0].starts_with("http://h:1/m?… a%20b=c%26d {"), "{got:?}");
        assert!(got[0].ends_with("(30, 10)") && got[0].contains("instance=\"h:1\""), "{got:?}");
        assert!(got[1].contains(&labels("instance=\"[::1]:2\"")), "{got:?}");
        assert!(got[2].starts_with("http://n.lan/x?… y=1 {"), "{got:?}");
        assert!(got[2].contains("instance=\"nas\"") && got[2].ends_with("(5, 5)"), "{got:?}");
        assert!(got[3].starts_with("https://h/metrics "), "{got:?}");
    }

    #[test]
    fn errors_have_a_place_and_a_hint() {
        refuses("[[scrape]]\ntargets = [\"h:1\"]\n", "has no job");
        refuses("[[scrape]]\njob = \"a\"\n", "has no targets");
        refuses("[[scrape]]\njob = \"a\"\ntargets = []\n", "has no targets");
        let one = |more: &str| format!("[[scrape]]\njob = \"a\"\ntargets = [\"h:1\"]\n{more}\n");
        refuses(&one("timeout = \"2m\""), "from 10ms to the interval, 1m");
        refuses(&one("honor_timestamps = true"), "honor_timestamps");
        refuses(&one("sample_limit = 0"), "sample_limit");
        refuses(&one("labels = { job = \"b\" }"), "is set by job");
        refuses(&one("bearer_token_file = \"/nowhere/at/all\""), "/nowhere/at/all");
        refuses(&one("intervall = \"5s\""), "did you mean \"interval\"");
        refuses(&format!("{}{}", one(""), one("")), "twice");
        refuses("[[scrape]]\njob = \"a\"\ntargets = [\"h:1/metrics\"]\n", "metrics_path");
        refuses("[[scrape]]\njob = \"a\"\ntargets = [\"h:x\"]\n", "\"h:x\"");
        let many: Vec<_> = (0..501).map(|n| format!("\"h:{}\"", n + 1)).collect();
        let many = format!("[[scrape]]\njob = \"a\"\ntargets = [{}]\n", many.join(","));
        refuses(&many, "more than 500");
    }
}
