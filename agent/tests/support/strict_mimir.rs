//! A Mimir for tests: takes remote write 1.0, decodes every byte, checks what the specification says of
//! senders and what Mimir's default limits are, and keeps all samples.

use std::collections::BTreeMap;
use std::ops::{Deref, DerefMut};

use super::http::{Request, Response, Server, Service};
use super::wire::{Fields, Value, is_label_name, once, pair};

/// Labels in the order of their names.
pub type Labels = Vec<(String, String)>;

/// What has been stored.
#[derive(Default)]
pub struct Mimir {
    /// By series; timestamps in milliseconds, rising.
    pub series: BTreeMap<Labels, Vec<(i64, f64)>>,
    /// Samples that came again exactly as they are stored.
    pub repeats: u64,
    /// Samples stored, each once.
    pub samples: u64,
    /// Requests whose contents were stored.
    pub accepted: u64,
    /// Samples for which a whole request is refused.
    pub refuses: Option<fn(&Labels, i64) -> bool>,
}

/// The server.
pub struct StrictMimir(Server<Mimir>);

impl StrictMimir {
    pub fn new() -> StrictMimir {
        StrictMimir(Server::with(Mimir::default()))
    }

    pub fn with_tls(config: rustls::ServerConfig) -> StrictMimir {
        StrictMimir(Server::with_tls(Mimir::default(), config))
    }

    /// The stored samples of the only series with this name and these labels among its own.
    pub fn samples(&self, name: &str, labels: &[(&str, &str)]) -> Vec<(i64, f64)> {
        let mut found = self.find(name, labels);
        assert!(found.len() <= 1, "{name}{labels:?} matches {} series", found.len());
        found.pop().map(|(_, samples)| samples).unwrap_or_default()
    }

    /// Every series with this name and these labels among its own.
    pub fn find(&self, name: &str, labels: &[(&str, &str)]) -> Vec<(Labels, Vec<(i64, f64)>)> {
        let has = |series: &Labels, name: &str, value: &str| {
            series.iter().any(|(n, v)| n == name && v == value)
        };
        self.with_service(|mimir| {
            let matching = mimir.series.iter().filter(|(series, _)| {
                has(series, "__name__", name) && labels.iter().all(|(n, v)| has(series, n, v))
            });
            matching.map(|(series, samples)| (series.clone(), samples.clone())).collect()
        })
    }

    pub fn repeats(&self) -> u64 {
        self.with_service(|mimir| mimir.repeats)
    }
}

impl Default for StrictMimir {
    fn default() -> StrictMimir {
        StrictMimir::new()
    }
}

impl Deref for StrictMimir {
    type Target = Server<Mimir>;

    fn deref(&self) -> &Server<Mimir> {
        &self.0
    }
}

impl DerefMut for StrictMimir {
    fn deref_mut(&mut self) -> &mut Server<Mimir> {
        &mut self.0
    }
}

impl Service for Mimir {
    const PATH: &'static str = "/api/v1/push";

    fn serve(&mut self, request: &Request, store: bool, violations: &mut Vec<String>) -> Response {
        for (name, expected) in [
            ("content-type", "application/x-protobuf"),
            ("content-encoding", "snappy"),
            ("x-prometheus-remote-write-version", "0.1.0"),
        ] {
            if request.header(name) != Some(expected) {
                violations.push(format!("{name}: {:?}, not {expected}", request.header(name)));
            }
        }
        if request.header("user-agent").is_none_or(str::is_empty) {
            violations.push("no User-Agent".into());
        }
        match decode(&request.body) {
            Err(what) => {
                violations.push(what.clone());
                return Response::new(400, what);
            }
            Ok(series) if store => {
                let refuses = self.refuses.unwrap_or(|_, _| false);
                let is_bad = |(labels, samples): &(Labels, Vec<(i64, f64)>)| {
                    samples.iter().any(|(time, _)| refuses(labels, *time))
                };
                if series.iter().any(is_bad) {
                    return Response::new(400, "there is a bad sample in it");
                }
                self.accepted += 1;
                for (labels, samples) in series {
                    self.store(labels, &samples, violations);
                }
            }
            Ok(_) => {}
        }
        Response::new(200, "")
    }
}

impl Mimir {
    fn store(&mut self, labels: Labels, samples: &[(i64, f64)], violations: &mut Vec<String>) {
        let name = format!("{labels:?}");
        let have = self.series.entry(labels).or_default();
        for &(time, value) in samples {
            match have.last() {
                Some(&(last, _)) if time <= last => {
                    match have.binary_search_by_key(&time, |&(time, _)| time) {
                        Ok(at) if have[at].1.to_bits() == value.to_bits() => self.repeats += 1,
                        Ok(at) => violations.push(format!(
                            "{name}: at {time} {value} after {} at the same time",
                            have[at].1
                        )),
                        Err(_) => violations.push(format!("{name}: {time} after {last}")),
                    }
                }
                _ => {
                    have.push((time, value));
                    self.samples += 1;
                }
            }
        }
    }
}

pub type Decoded = Vec<(Labels, Vec<(i64, f64)>)>;

/// The series of a request's body.
pub fn decode(body: &[u8]) -> Result<Decoded, String> {
    snap::raw::Decoder::new()
        .decompress_vec(body)
        .map_err(|error| format!("snappy: {error}"))
        .and_then(|raw| write_request(&raw))
}

fn write_request(bytes: &[u8]) -> Result<Decoded, String> {
    let mut series = Vec::new();
    let mut fields = Fields::of("WriteRequest", bytes);
    while let Some(field) = fields.next()? {
        match field {
            (1, Value::Bytes(bytes)) => series.push(time_series(bytes)?),
            (3, Value::Bytes(bytes)) => _ = metadata(bytes)?,
            (other, _) => return fields.unknown(other),
        }
    }
    if series.is_empty() {
        return Err("a request without series".into());
    }
    let mut newest: BTreeMap<&Labels, i64> = BTreeMap::new();
    for (labels, samples) in &series {
        for &(time, _) in samples {
            if newest.insert(labels, time).is_some_and(|before| before >= time) {
                return Err(format!("{labels:?}: {time} not after its predecessor in the request"));
            }
        }
    }
    Ok(series)
}

fn time_series(bytes: &[u8]) -> Result<(Labels, Vec<(i64, f64)>), String> {
    let (mut labels, mut samples) = (Labels::new(), Vec::new());
    let mut fields = Fields::of("TimeSeries", bytes);
    while let Some(field) = fields.next()? {
        match field {
            (1, Value::Bytes(bytes)) => labels.push(pair("Label", bytes)?),
            (2, Value::Bytes(bytes)) => samples.push(sample(bytes)?),
            (other, _) => return fields.unknown(other),
        }
    }
    check_labels(&labels)?;
    if samples.is_empty() {
        return Err(format!("{labels:?}: no samples"));
    }
    Ok((labels, samples))
}

pub fn check_labels(labels: &Labels) -> Result<(), String> {
    let fail = |what: &str| Err(format!("{labels:?}: {what}"));
    if !labels.windows(2).all(|two| two[0].0 < two[1].0) {
        return fail("names not in order, or one stands twice");
    }
    if labels.len() > 30 {
        return fail("more than 30 labels");
    }
    for (name, value) in labels {
        if !is_label_name(name) || name.len() > 1024 {
            return fail(&format!("{name:?} is not a label name"));
        }
        if value.is_empty() || value.len() > 2048 {
            return fail(&format!("the value of {name} is empty or too long"));
        }
    }
    let metric = labels.iter().find(|(name, _)| name == "__name__").map(|(_, value)| value);
    let metric = metric.map(|name| name.replace(':', "_"));
    match metric {
        Some(name) if is_label_name(&name) => Ok(()),
        _ => fail("no valid __name__"),
    }
}

fn sample(bytes: &[u8]) -> Result<(i64, f64), String> {
    let (mut value, mut time) = (None, None);
    let mut fields = Fields::of("Sample", bytes);
    while let Some(field) = fields.next()? {
        match field {
            (1, Value::Fixed64(bits)) => once(&mut value, f64::from_bits(bits), "a value")?,
            (2, Value::Varint(bits)) => once(&mut time, bits as i64, "a timestamp")?,
            (other, _) => return fields.unknown(other),
        }
    }
    Ok((time.unwrap_or_default(), value.unwrap_or_default()))
}

/// A family's name, and its type, help and unit.
pub type Described = (String, (u64, String, String));

/// The metadata of a request's body by family.
pub fn families(body: &[u8]) -> Result<Vec<Described>, String> {
    let raw = snap::raw::Decoder::new().decompress_vec(body);
    let raw = raw.map_err(|error| format!("snappy: {error}"))?;
    let mut families = Vec::new();
    let mut fields = Fields::of("WriteRequest", &raw);
    while let Some(field) = fields.next()? {
        if let (3, Value::Bytes(bytes)) = field {
            families.push(metadata(bytes)?);
        }
    }
    Ok(families)
}

fn metadata(bytes: &[u8]) -> Result<(String, (u64, String, String)), String> {
    let (mut kind, mut name, mut help, mut unit) = (None, None, None, None);
    let mut fields = Fields::of("MetricMetadata", bytes);
    while let Some(field) = fields.next()? {
        match field {
            (1, Value::Varint(number @ 0..=7)) => once(&mut kind, number, "a type")?,
            (2, Value::Bytes(bytes)) => {
                once(&mut name, super::wire::text(bytes, "a name")?, "a name")?
            }
            (4, Value::Bytes(bytes)) => once(&mut help, super::wire::text(bytes, "help")?, "help")?,
            (5, Value::Bytes(bytes)) => {
                once(&mut unit, super::wire::text(bytes, "a unit")?, "a unit")?
            }
            (other, _) => return fields.unknown(other),
        }
    }
    let name = name.ok_or("metadata of no family")?;
    Ok((name, (kind.unwrap_or(0), help.unwrap_or_default(), unit.unwrap_or_default())))
}
