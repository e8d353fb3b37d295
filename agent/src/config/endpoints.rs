//! `[[mimir]]` and `[[loki]]`: the same connection keys, and a batch of each signal's own.

use std::collections::HashMap;
use std::path::PathBuf;
use std::time::Duration;

use super::error::{ConfigError, Place};
use super::reader::{At, Pair, Reader};
use super::{Endpoint, Histograms, Limits, Protocol, WriteOptions, relabel, units};
use crate::endpoint::{
    Auth, Client, MinVersion, Options, OptionsError, ProxyOptions, ProxyUrl, Secret, TlsError,
    TlsOptions, Url,
};
use crate::logs::stage::StreamLimits;

const HOUR: Duration = Duration::from_secs(3_600);

/// An entry may wait for an hour for its request (`batch_wait`).
const SHORTEST_AGE: Duration = HOUR;

/// Places of the keys whose values only the client can judge.
pub(super) type Places = HashMap<&'static str, Place>;

pub(super) fn mimir(top: &Reader<'_>) -> Result<Vec<Endpoint>, ConfigError> {
    endpoints(top, "mimir", "http://127.0.0.1:9009/api/v1/push", |t| {
        let write = write(t)?;
        let batch = t.integer(
            "max_samples_per_send",
            2_000,
            1..=100_000,
            "the most samples of one request",
        )?;
        let wait = t.duration(
            "send_interval",
            Duration::from_secs(60),
            Duration::ZERO..=HOUR,
            "the longest that a round waits to share a request with later ones; a round that no later one can join in time goes at once",
        )?;
        let rate = t.optional_size(
            "max_rate",
            1 << 10..=1 << 30,
            "the most bytes of samples in a second, before compression; a 429 slows it down further for a while; default: no bound but what the server's answers ask for",
        )?;
        let limits = Limits { rate, ..Limits::default() };
        Ok(Batching { batch: u64::from(batch), wait, limits, write })
    })
}

pub(super) fn loki(top: &Reader<'_>) -> Result<Vec<Endpoint>, ConfigError> {
    endpoints(top, "loki", "http://127.0.0.1:3100/loki/api/v1/push", |t| {
        let batch = t.size(
            "batch_bytes",
            256 << 10,
            1 << 10..=4 << 20,
            "a request goes as soon as it has about so many bytes of lines, structured metadata and 16 for each entry, before compression; a longer line goes alone",
        )?;
        let wait = t.duration(
            "batch_wait",
            Duration::from_secs(5),
            Duration::ZERO..=HOUR,
            "the longest that the oldest entry of a request waits for others; it goes after half of that at the earliest, at the host's own moment; without entries there are no requests",
        )?;
        Ok(Batching { batch, wait, limits: limits(t)?, write: WriteOptions::default() })
    })
}

impl super::Config {
    /// One line for each thing that is allowed and should not be, such as a password over plain HTTP.
    pub fn warnings(&self) -> Vec<String> {
        let endpoints = self.mimir.iter().chain(&self.loki).map(|endpoint| &endpoint.connection);
        let targets = self.scrape.iter().map(|scrape| &scrape.connection);
        let mut all: Vec<String> = endpoints.chain(targets).flat_map(Options::warnings).collect();
        let (wals, limit) = (self.wal.memory.saturating_mul(2), self.agent.memory_limit);
        if wals > limit / 4 {
            all.push(format!(
                "wal.memory, twice, is {wals} bytes of agent.memory_limit's {limit}: what the WALs may keep in memory \
                 while the disk takes nothing leaves little for all else"
            ));
        }
        all
    }
}

/// What a signal's requests are bounded by.
struct Batching {
    batch: u64,
    wait: Duration,
    limits: Limits,
    write: WriteOptions,
}

/// The version of remote write and what it has to say.
fn write(t: &Reader<'_>) -> Result<WriteOptions, ConfigError> {
    let versions = [("1.0", Protocol::V1), ("2.0", Protocol::V2)];
    let protocol = t.choice(
        "protocol",
        "1.0",
        &versions,
        "the version of remote write; \"2.0\": with types, starts of counters and native histograms, and 1.0 for an hour at a time where the server does not take it",
    )?;
    let histograms = t.string(
        "histograms",
        "native",
        "with protocol \"2.0\", what the probes' latencies are sent as: \"native\", \"classic\" or \"both\"; by 1.0 they are always classic",
    )?;
    let histograms = match (&histograms, protocol) {
        (None, Protocol::V1) => Histograms::Classic,
        (None, Protocol::V2) => Histograms::Native,
        (Some(given), _) => match (given.value.as_str(), protocol) {
            ("classic", _) => Histograms::Classic,
            ("native", Protocol::V2) => Histograms::Native,
            ("both", Protocol::V2) => Histograms::Both,
            ("native" | "both", Protocol::V1) => {
                let problem = "histograms: remote write 1.0 has no native histograms";
                return Err(given.error(problem, "protocol = \"2.0\""));
            }
            (other, _) => {
                let problem = format!("histograms: {other:?} is none of the choices");
                return Err(given.error(problem, "\"native\", \"classic\" or \"both\""));
            }
        },
    };
    let every = t.string(
        "metadata_interval",
        "8m",
        "how often help texts and units are sent along, by which Grafana explains metrics; Mimir forgets them after ten minutes; \"off\": never",
    )?;
    let metadata_every = match every {
        None => Some(Duration::from_secs(480)),
        Some(given) if given.value == "off" => None,
        Some(given) => Some(units::parse_duration(&given.value).map_err(|problem| {
            let hint = "\"off\", or a duration such as \"8m\"";
            given.error(format!("metadata_interval: {problem}"), hint)
        })?),
    };
    Ok(WriteOptions { protocol, histograms, metadata_every })
}

/// The limits of the user's Loki, by default Loki's own defaults.
fn limits(t: &Reader<'_>) -> Result<Limits, ConfigError> {
    let rate = t.size(
        "max_rate",
        3 << 20,
        1 << 10..=1 << 30,
        "the most bytes of entries in a second, so that a backlog stays within Loki's `per_stream_rate_limit` and `ingestion_rate_mb`; a 429 slows it down further for a while",
    )?;
    let max_age = limit(
        t,
        "max_entry_age",
        "168h",
        168 * HOUR,
        // On its way an entry grows older, too.
        SHORTEST_AGE,
        "Loki's `reject_old_samples_max_age`: older entries, by Loki's own clock, are dropped and counted (`too_old`), since it would refuse them; \"off\": they are sent",
    )?;
    let max_behind = limit(
        t,
        "max_behind",
        "1h",
        HOUR,
        Duration::from_secs(60),
        "half of Loki's `max_chunk_age`: entries that are further behind what Loki has acknowledged of their stream within the last half hour are dropped and counted (`too_far_behind`), since it would refuse them; \"off\": they are sent",
    )?;
    let max_ahead = limit(
        t,
        "max_ahead",
        "10m",
        Duration::from_secs(600),
        Duration::from_secs(60),
        "Loki's `creation_grace_period`: entries whose time is further ahead of Loki's clock are sent with the time of their reading, since it would refuse them; \"off\": they are sent as they are",
    )?;
    let max_line = t.size(
        "max_line",
        256 << 10,
        1 << 10..=64 << 20,
        "Loki's `max_line_size`: longer lines are dropped and counted (`line_too_long`), since it would refuse them",
    )?;
    let metadata = t.boolean(
        "structured_metadata",
        true,
        "sends structured metadata; a Loki that says that it does not take any is sent none from then on",
    )?;
    let encodings = [("protobuf", false), ("json", true)];
    let json = t.choice(
        "encoding",
        "protobuf",
        &encodings,
        "\"protobuf\" (with snappy), or \"json\" (uncompressed, several times the bytes) for a gateway that takes nothing else",
    )?;
    Ok(Limits {
        rate: Some(rate),
        max_age,
        max_line: Some(max_line),
        no_metadata: !metadata,
        max_behind,
        max_ahead,
        streams: streams(t)?,
        json,
    })
}

/// What Loki takes of labels and structured metadata.
fn streams(t: &Reader<'_>) -> Result<StreamLimits, ConfigError> {
    let default = StreamLimits::default();
    let bound = |key, default: usize, least, text| {
        // All are far below that.
        let default = u32::try_from(default).unwrap_or(u32::MAX);
        t.integer(key, default, least..=1 << 20, text).map(|value| value as usize)
    };
    Ok(StreamLimits {
        names: bound(
            "max_label_names",
            default.names,
            2,
            "Loki's `max_label_names_per_series`: further labels of a stream become structured metadata when it is read, and are left out where they come from `labels` or rules of this endpoint",
        )?,
        name_bytes: bound(
            "max_label_name_length",
            default.name_bytes,
            16,
            "Loki's `max_label_name_length`: a label with a longer name becomes structured metadata",
        )?,
        value_bytes: bound(
            "max_label_value_length",
            default.value_bytes,
            16,
            "Loki's `max_label_value_length`: longer values are cut",
        )?,
        pairs: bound(
            "max_metadata_entries",
            default.pairs,
            0,
            "Loki's `max_structured_metadata_entries_count`: further structured metadata of an entry is left out",
        )?,
        pair_bytes: bound(
            "max_metadata_size",
            default.pair_bytes,
            0,
            "Loki's `max_structured_metadata_size` in bytes: structured metadata beyond it is left out",
        )?,
    })
}

/// A limit that is a duration, or "off".
fn limit(
    t: &Reader<'_>,
    key: &'static str,
    shown: &str,
    default: Duration,
    least: Duration,
    text: &'static str,
) -> Result<Option<Duration>, ConfigError> {
    let given = match t.string(key, shown, text)? {
        None => return Ok(Some(default)),
        Some(given) if given.value == "off" => return Ok(None),
        Some(given) => given,
    };
    let problem = match units::parse_duration(&given.value) {
        Ok(value) if value < least => {
            format!("less than {}, so that most would go", units::show_duration(least))
        }
        Ok(value) => return Ok(Some(value)),
        Err(problem) => problem.to_string(),
    };
    let hint = format!("\"off\", or a duration such as {shown:?}");
    Err(given.error(format!("{key}: {problem}"), hint))
}

fn endpoints(
    top: &Reader<'_>,
    section: &'static str,
    example: &'static str,
    batching: impl Fn(&Reader<'_>) -> Result<Batching, ConfigError>,
) -> Result<Vec<Endpoint>, ConfigError> {
    let mut endpoints: Vec<Endpoint> = Vec::new();
    for t in top.list(section)? {
        let url = t.string("url", "", "where requests go; required")?;
        let mut places = Places::new();
        let (auth, tls) = (auth(&t, &mut places)?, tls(&t, &mut places)?);
        let tenant = t.string("tenant", "", "the header `X-Scope-OrgID`")?;
        if let Some(tenant) = &tenant {
            places.insert("tenant", tenant.place.clone());
        }
        let headers = t.pairs("headers", "more HTTP headers")?;
        let proxy = proxy(&t, &mut places)?;
        let http2 = t.boolean(
            "http2",
            true,
            "speaks HTTP/2 where the server offers it over TLS; false: HTTP/1.1 only",
        )?;
        let timeout = t.duration(
            "timeout",
            Duration::from_secs(30),
            Duration::from_millis(100)..=Duration::from_secs(600),
            "the most that one request may take",
        )?;
        let Batching { batch, wait, limits, write } = batching(&t)?;
        let backoff = backoff(&t)?;
        let labels = t.labels(
            "labels",
            "labels of what goes to this endpoint alone, given where there is no such label and before `relabel`",
        )?;
        let relabel = relabel::rules(&t, "relabel")?;
        let (present, place) = (t.is_present(), t.place().clone());
        t.finish()?;
        if !present {
            continue;
        }
        let Some(given) = url else {
            let problem = format!("[[{section}]] has no url");
            return Err(ConfigError::new(&place, problem, format!("url = \"{example}\"")));
        };
        let url = Url::parse(&given.value)
            .map_err(|e| given.error(format!("url: {e}"), format!("for example {example:?}")))?;
        let mut connection = Options::new(url);
        connection.auth = auth;
        connection.tls = tls;
        connection.proxy = proxy;
        connection.http2 = http2;
        connection.tenant = tenant.map(|tenant| tenant.value);
        connection.timeout = timeout;
        connection.headers =
            headers.iter().map(|(name, value)| (name.value.clone(), value.value.clone())).collect();
        if let Err(error) = Client::new(connection.clone()) {
            let at = place_of(&error, &headers, &places).unwrap_or(&place);
            return Err(ConfigError::new(at, error.to_string(), hint(&error)));
        }
        let twin = endpoints.iter().any(|other| {
            other.connection.url == connection.url && other.connection.tenant == connection.tenant
        });
        if twin {
            return Err(given.error(
                format!("[[{section}]] names this URL and tenant twice"),
                "each endpoint keeps a cursor of its own, by URL and tenant",
            ));
        }
        endpoints.push(Endpoint {
            connection,
            backoff,
            batch,
            wait,
            limits,
            write,
            labels,
            relabel,
        });
    }
    Ok(endpoints)
}

pub(super) fn auth(t: &Reader<'_>, places: &mut Places) -> Result<Auth, ConfigError> {
    let basic = t.section("basic_auth")?;
    let username = basic.string("username", "", "the user's name")?;
    let username_file =
        basic.string("username_file", "", "file of the user's name, read again when it changes")?;
    let password = basic.string("password", "", "the password; better in a file")?;
    let password_file =
        basic.string("password_file", "", "file of the password, read again when it changes")?;
    let (present, place) = (basic.is_present(), basic.place().clone());
    basic.finish()?;
    let token = t.string("bearer_token", "", "a bearer token; better in a file")?;
    let token_file =
        t.string("bearer_token_file", "", "file of a bearer token, read again when it changes")?;
    if let (Some(given), true) = (token_file.as_ref().or(token.as_ref()), present) {
        let key = if token_file.is_some() { "bearer_token_file" } else { "bearer_token" };
        return Err(given.error(format!("{key} and basic_auth exclude each other"), "keep one"));
    }
    if let Some(token) = value_or_file("bearer_token", token, token_file)? {
        places.insert("secret", token.place);
        return Ok(Auth::Bearer(token.value));
    }
    if !present {
        return Ok(Auth::None);
    }
    let missing = |what: &str| ConfigError::new(&place, format!("basic_auth has no {what}"), "");
    let username =
        value_or_file("username", username, username_file)?.ok_or_else(|| missing("username"))?;
    let password = value_or_file("password", password, password_file)?
        .ok_or_else(|| missing("password_file"))?;
    places.insert("username", username.place);
    places.insert("secret", password.place);
    Ok(Auth::Basic { username: username.value, password: password.value })
}

/// A value, or the file that holds it.
fn value_or_file(
    key: &str,
    value: Option<At<String>>,
    file: Option<At<String>>,
) -> Result<Option<At<Secret>>, ConfigError> {
    match (value, file) {
        (Some(_), Some(file)) => {
            Err(file.error(format!("{key} and {key}_file exclude each other"), "keep the file"))
        }
        (Some(value), None) => {
            Ok(Some(At { value: Secret::value(value.value), place: value.place }))
        }
        (None, Some(file)) => Ok(Some(At { value: Secret::file(file.value), place: file.place })),
        (None, None) => Ok(None),
    }
}

fn proxy(t: &Reader<'_>, places: &mut Places) -> Result<ProxyOptions, ConfigError> {
    let url = t.string(
        "proxy_url",
        "",
        "the proxy that requests go through: http://, https:// or socks5://, with user:password@ before its host if it wants them; it comes before the environment's",
    )?;
    let password_file = t.string(
        "proxy_password_file",
        "",
        "file of the password that goes with the user in `proxy_url`, read again when it changes",
    )?;
    let no_proxy = t.string(
        "no_proxy",
        "",
        "what `proxy_url` is not used for, as in the variable NO_PROXY: hosts, `.suffix`, addresses, networks as 10.0.0.0/8, each with a port or without; `*` for all",
    )?;
    let from_environment = t.boolean(
        "proxy_from_environment",
        true,
        "without `proxy_url`, takes the proxy that HTTPS_PROXY, HTTP_PROXY or ALL_PROXY names, unless NO_PROXY has the host; this machine itself is always reached directly",
    )?;
    let mut options = ProxyOptions { from_environment, ..ProxyOptions::default() };
    if let Some(given) = url.filter(|given| !given.value.is_empty()) {
        let parsed = ProxyUrl::parse(&given.value).map_err(|error| {
            given.error(format!("proxy_url: {error}"), "for example \"http://user@proxy:3128\"")
        })?;
        options.url = Some(parsed);
    } else if let Some(given) = &no_proxy {
        return Err(given.error(
            "no_proxy goes with proxy_url".to_owned(),
            "for a proxy of the environment, set the variable NO_PROXY",
        ));
    }
    if let Some(file) = password_file {
        places.insert("proxy_password", file.place);
        options.password = Some(Secret::file(file.value));
    }
    options.no_proxy = no_proxy.map(|given| given.value).unwrap_or_default();
    Ok(options)
}

pub(super) fn tls(t: &Reader<'_>, places: &mut Places) -> Result<TlsOptions, ConfigError> {
    let t = t.section("tls")?;
    let mut path = |key, given: Option<At<String>>| {
        let given = given.filter(|given| !given.value.is_empty())?;
        places.insert(key, given.place);
        Some(PathBuf::from(given.value))
    };
    let ca_file = path(
        "ca_file",
        t.string("ca_file", "", "PEM file of the CAs to trust; default: the system's")?,
    );
    let cert_file =
        path("cert_file", t.string("cert_file", "", "PEM file of a client certificate")?);
    let key_file = path("key_file", t.string("key_file", "", "PEM file of its private key")?);
    let server_name = t
        .string(
            "server_name",
            "",
            "the name in the server's certificate, if it is not the URL's host",
        )?
        .filter(|given| !given.value.is_empty());
    if let Some(given) = &server_name {
        places.insert("server_name", given.place.clone());
    }
    let versions = [("1.2", MinVersion::Tls12), ("1.3", MinVersion::Tls13)];
    let min_version =
        t.choice("min_version", "1.2", &versions, "the oldest TLS: \"1.2\" or \"1.3\"")?;
    let insecure_skip_verify = t.boolean(
        "insecure_skip_verify",
        false,
        "takes every certificate: whoever sits in between can read and change everything",
    )?;
    t.finish()?;
    Ok(TlsOptions {
        ca_file,
        cert_file,
        key_file,
        server_name: server_name.map(|given| given.value),
        min_version,
        insecure_skip_verify,
    })
}

fn backoff(t: &Reader<'_>) -> Result<(Duration, Duration), ConfigError> {
    let t = t.section("backoff")?;
    let range = Duration::from_millis(10)..=24 * HOUR;
    let min = t.duration(
        "min",
        Duration::from_secs(1),
        range.clone(),
        "the shortest pause after a failure; how long it is at most is twice this after the first, and doubles with each",
    )?;
    let max = t.duration(
        "max",
        Duration::from_secs(300),
        range,
        "the longest pause of all, but for a server that asks for more (`Retry-After`, up to 1h)",
    )?;
    if max < min {
        return Err(ConfigError::new(
            t.place(),
            format!(
                "backoff.max ({}) is shorter than backoff.min ({})",
                units::show_duration(max),
                units::show_duration(min)
            ),
            "",
        ));
    }
    t.finish()?;
    Ok((min, max))
}

pub(super) fn place_of<'a>(
    error: &OptionsError,
    headers: &'a [Pair],
    places: &'a Places,
) -> Option<&'a Place> {
    let header = |name: &str| {
        headers.iter().find(|(have, _)| have.value == *name).map(|(name, _)| &name.place)
    };
    match error {
        OptionsError::Tenant => places.get("tenant"),
        OptionsError::Username => places.get("username"),
        OptionsError::HeaderName(name)
        | OptionsError::HeaderValue(name)
        | OptionsError::HeaderTwice(name)
        | OptionsError::HeaderReserved(name) => header(name),
        OptionsError::Secret(_) => places.get("secret"),
        OptionsError::Tls(TlsError::Read { key, .. } | TlsError::Pem { key, .. }) => {
            places.get(key)
        }
        OptionsError::Tls(TlsError::Pair) => {
            places.get("cert_file").or_else(|| places.get("key_file"))
        }
        OptionsError::Tls(TlsError::ServerName(_)) => places.get("server_name"),
        OptionsError::ProxySecret(_) | OptionsError::ProxyPassword => places.get("proxy_password"),
        OptionsError::Tls(_) | OptionsError::Timeout | OptionsError::ProxyEnvironment(_) => None,
    }
}

pub(super) fn hint(error: &OptionsError) -> &'static str {
    match error {
        OptionsError::Secret(_) | OptionsError::ProxySecret(_) => {
            "the file has to exist, be readable by the agent's user and hold one line"
        }
        OptionsError::Tls(TlsError::Read { .. } | TlsError::Pem { .. }) => {
            "the file has to be readable by the agent's user, in PEM format"
        }
        _ => "",
    }
}
