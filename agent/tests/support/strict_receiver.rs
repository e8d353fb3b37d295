//! A receiver of remote write 2.0 for tests: decodes every byte by the specification 2.0-rc.4, checks what
//! it says of senders, keeps all samples and histograms, and says how many it has written. It can also play
//! a receiver that is older, or writes a part only.

use std::collections::{BTreeMap, BTreeSet};
use std::ops::{Deref, DerefMut};

use super::http::{Request, Response, Server, Service};
use super::strict_mimir::{self, Labels};
use super::wire::{Fields, Value, once, text};

const STALE: u64 = 0x7ff0_0000_0000_0002;

/// Which receiver it is.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum Plays {
    /// One of 2.0.
    #[default]
    Two,
    /// One of 1.0 that answers 415 to what it does not know.
    Says415,
    /// One of 1.0 that answers 400 to it.
    Says400,
    /// One of 2.0 that writes no histograms, and says 400.
    NoHistograms,
    /// The same, which says 200.
    LosesHistograms,
}

/// A native histogram as it was stored.
#[derive(Clone, Debug, PartialEq)]
pub struct Native {
    pub time: i64,
    pub start: i64,
    pub sum: f64,
    pub zero: u64,
    pub threshold: f64,
    pub count: u64,
    /// By number: bucket `n` goes up to 2^n.
    pub buckets: BTreeMap<i32, u64>,
}

impl Native {
    pub fn is_stale(&self) -> bool {
        self.sum.to_bits() == STALE
    }
}

/// Time, start, value.
pub type Sample = (i64, i64, f64);

/// What has been stored.
#[derive(Default)]
pub struct Receiver {
    pub plays: Plays,
    pub samples: BTreeMap<Labels, Vec<Sample>>,
    pub histograms: BTreeMap<Labels, Vec<Native>>,
    /// By series: type, help, unit of the newest request that told them.
    pub metadata: BTreeMap<Labels, (u64, String, String)>,
    /// Type, help and unit by family, of 1.0.
    pub families: BTreeMap<String, (u64, String, String)>,
    /// Requests of each version that were stored.
    pub of_two: u64,
    pub of_one: u64,
}

/// The server.
pub struct StrictReceiver(Server<Receiver>);

impl StrictReceiver {
    pub fn new(plays: Plays) -> StrictReceiver {
        StrictReceiver(Server::with(Receiver { plays, ..Receiver::default() }))
    }

    /// The stored samples of all series of this name.
    pub fn samples(&self, name: &str) -> Vec<(Labels, Vec<Sample>)> {
        self.with_service(|receiver| of(&receiver.samples, name))
    }

    /// The stored histograms of all series of this name.
    pub fn histograms(&self, name: &str) -> Vec<(Labels, Vec<Native>)> {
        self.with_service(|receiver| of(&receiver.histograms, name))
    }
}

fn of<T: Clone>(all: &BTreeMap<Labels, Vec<T>>, name: &str) -> Vec<(Labels, Vec<T>)> {
    let is_it = |labels: &&Labels| labels.iter().any(|(n, v)| n == "__name__" && v == name);
    let found = all.iter().filter(|(labels, _)| is_it(labels));
    found.map(|(labels, items)| (labels.clone(), items.clone())).collect()
}

impl Deref for StrictReceiver {
    type Target = Server<Receiver>;

    fn deref(&self) -> &Server<Receiver> {
        &self.0
    }
}

impl DerefMut for StrictReceiver {
    fn deref_mut(&mut self) -> &mut Server<Receiver> {
        &mut self.0
    }
}

impl Service for Receiver {
    const PATH: &'static str = "/api/v1/push";

    fn serve(&mut self, request: &Request, store: bool, violations: &mut Vec<String>) -> Response {
        let header = |name: &str| request.header(name).unwrap_or_default().to_owned();
        if header("content-encoding") != "snappy" || header("user-agent").is_empty() {
            violations.push("Content-Encoding or User-Agent".into());
        }
        let kind = (header("content-type"), header("x-prometheus-remote-write-version"));
        let two = "application/x-protobuf;proto=io.prometheus.write.v2.Request";
        match (kind.0.as_str(), kind.1.as_str()) {
            ("application/x-protobuf", "0.1.0") => self.one(request, store, violations),
            (is, "2.0.0") if is == two => match self.plays {
                Plays::Says415 => Response::new(415, "unsupported"),
                Plays::Says400 => Response::new(400, "snappy: or so"),
                _ => self.two(request, store, violations),
            },
            _ => {
                violations.push(format!("content type and version {kind:?}"));
                Response::new(415, "")
            }
        }
    }
}

impl Receiver {
    fn one(&mut self, request: &Request, store: bool, violations: &mut Vec<String>) -> Response {
        let decoded = strict_mimir::decode(&request.body);
        match decoded {
            Err(what) => {
                violations.push(what.clone());
                return Response::new(400, what);
            }
            Ok(series) if store => {
                self.of_one += 1;
                for (labels, samples) in series {
                    for (time, value) in samples {
                        self.sample(&labels, (time, 0, value), violations);
                    }
                }
                match strict_mimir::families(&request.body) {
                    Ok(families) => self.families.extend(families),
                    Err(what) => violations.push(what),
                }
            }
            Ok(_) => {}
        }
        Response::new(200, "")
    }

    fn two(&mut self, request: &Request, store: bool, violations: &mut Vec<String>) -> Response {
        let all = match unpack(&request.body).and_then(|raw| decode(&raw)) {
            Ok((_, all)) => all,
            Err(what) => {
                violations.push(what.clone());
                return Response::new(400, what);
            }
        };
        let loses = matches!(self.plays, Plays::NoHistograms | Plays::LosesHistograms);
        let (mut samples, mut histograms) = (0, 0);
        let is_lossy = loses && all.iter().any(|series| !series.histograms.is_empty());
        if store {
            self.of_two += 1;
        }
        for series in all {
            samples += series.samples.len();
            if !loses {
                histograms += series.histograms.len();
            }
            if !store {
                continue;
            }
            if !series.metadata.1.is_empty() || !self.metadata.contains_key(&series.labels) {
                self.metadata.insert(series.labels.clone(), series.metadata.clone());
            }
            for sample in series.samples {
                self.sample(&series.labels, sample, violations);
            }
            if loses {
                continue;
            }
            let have = self.histograms.entry(series.labels).or_default();
            for histogram in series.histograms {
                if have.last().is_some_and(|last| last.time >= histogram.time) {
                    violations.push(format!("a histogram at {} after one", histogram.time));
                }
                have.push(histogram);
            }
        }
        self.histograms.retain(|_, all| !all.is_empty());
        let code = if is_lossy && self.plays == Plays::NoHistograms { 400 } else { 200 };
        let mut response = Response::new(code, if code == 400 { "no histograms here" } else { "" });
        for (what, count) in [("Samples", samples), ("Histograms", histograms), ("Exemplars", 0)] {
            let name = format!("X-Prometheus-Remote-Write-{what}-Written");
            response.headers.push((name, count.to_string()));
        }
        response
    }

    fn sample(&mut self, labels: &Labels, sample: Sample, violations: &mut Vec<String>) {
        let have = self.samples.entry(labels.clone()).or_default();
        match have.last() {
            Some(last) if last.0 >= sample.0 => {
                violations.push(format!("{labels:?}: {} after {}", sample.0, last.0));
            }
            _ => have.push(sample),
        }
    }
}

#[derive(Default)]
struct Series {
    labels: Labels,
    samples: Vec<Sample>,
    histograms: Vec<Native>,
    metadata: (u64, String, String),
}

/// How many symbols and series a request has.
pub fn sizes(body: &[u8]) -> Result<(usize, usize), String> {
    let (symbols, series) = decode(&unpack(body)?)?;
    Ok((symbols, series.len()))
}

fn unpack(body: &[u8]) -> Result<Vec<u8>, String> {
    let unpacked = snap::raw::Decoder::new().decompress_vec(body);
    unpacked.map_err(|error| format!("snappy: {error}"))
}

/// The number of symbols, and the series.
fn decode(bytes: &[u8]) -> Result<(usize, Vec<Series>), String> {
    let (mut symbols, mut series) = (Vec::new(), Vec::new());
    let mut used = BTreeSet::from([0]);
    let mut fields = Fields::of("Request", bytes);
    while let Some(field) = fields.next()? {
        match field {
            (4, Value::Bytes(_)) if !series.is_empty() => {
                return Err("a symbol behind series".into());
            }
            (4, Value::Bytes(bytes)) => symbols.push(text(bytes, "a symbol")?),
            (5, Value::Bytes(bytes)) => series.push(time_series(bytes, &symbols, &mut used)?),
            (other, _) => return fields.unknown(other),
        }
    }
    if symbols.first().is_none_or(|first| !first.is_empty()) {
        return Err("the first symbol is not empty".into());
    }
    if symbols.iter().collect::<BTreeSet<_>>().len() != symbols.len() {
        return Err("a symbol stands twice".into());
    }
    if used.len() != symbols.len() {
        return Err(format!("{} symbols, of which {} are used", symbols.len(), used.len()));
    }
    if series.is_empty() {
        return Err("a request without series".into());
    }
    let mut seen = BTreeSet::new();
    for one in &series {
        let is_histogram = !one.histograms.is_empty();
        if !seen.insert((&one.labels, is_histogram)) {
            return Err(format!("{:?} stands twice", one.labels));
        }
    }
    Ok((symbols.len(), series))
}

fn time_series(
    bytes: &[u8],
    symbols: &[String],
    used: &mut BTreeSet<u64>,
) -> Result<Series, String> {
    let mut series = Series::default();
    let mut refs = None;
    let mut metadata = None;
    let mut fields = Fields::of("TimeSeries", bytes);
    while let Some(field) = fields.next()? {
        match field {
            (1, Value::Bytes(bytes)) => once(&mut refs, packed(bytes)?, "labels_refs")?,
            (2, Value::Bytes(bytes)) => series.samples.push(sample(bytes)?),
            (3, Value::Bytes(bytes)) => series.histograms.push(histogram(bytes)?),
            (5, Value::Bytes(bytes)) => once(&mut metadata, bytes, "metadata")?,
            (other, _) => return fields.unknown(other),
        }
    }
    let mut symbol = |number: u64| {
        used.insert(number);
        let found = usize::try_from(number).ok().and_then(|number| symbols.get(number));
        found.cloned().ok_or(format!("symbol {number} of {}", symbols.len()))
    };
    let refs = refs.ok_or("a series without labels")?;
    if refs.len() % 2 != 0 {
        return Err("an odd number of labels_refs".into());
    }
    for pair in refs.chunks(2) {
        series.labels.push((symbol(pair[0])?, symbol(pair[1])?));
    }
    strict_mimir::check_labels(&series.labels)?;
    if let Some(bytes) = metadata {
        let (mut kind, mut help, mut unit) = (None, None, None);
        let mut fields = Fields::of("Metadata", bytes);
        while let Some(field) = fields.next()? {
            match field {
                (1, Value::Varint(number @ 1..=7)) => once(&mut kind, number, "a type")?,
                (3, Value::Varint(number)) => once(&mut help, symbol(number)?, "help")?,
                (4, Value::Varint(number)) => once(&mut unit, symbol(number)?, "a unit")?,
                (other, _) => return fields.unknown(other),
            }
        }
        series.metadata = (kind.unwrap_or(0), help.unwrap_or_default(), unit.unwrap_or_default());
    }
    if series.samples.is_empty() == series.histograms.is_empty() {
        return Err(format!("{:?}: samples or histograms, and not both", series.labels));
    }
    let times = series.samples.iter().map(|s| s.0).chain(series.histograms.iter().map(|h| h.time));
    if !times.collect::<Vec<_>>().is_sorted_by(|a, b| a < b) {
        return Err(format!("{:?}: not in the order of time", series.labels));
    }
    Ok(series)
}

fn packed(bytes: &[u8]) -> Result<Vec<u64>, String> {
    // As one field after the other, so that each number is read as strictly as a field.
    let mut all = Vec::new();
    let mut rest = bytes;
    while !rest.is_empty() {
        let end = rest.iter().position(|byte| byte & 0x80 == 0).ok_or("ends within a varint")?;
        let one = [&[0x08][..], &rest[..=end]].concat();
        match Fields::of("packed", &one).next()? {
            Some((1, Value::Varint(number))) => all.push(number),
            _ => return Err("not a number".into()),
        }
        rest = &rest[end + 1..];
    }
    Ok(all)
}

fn checked(time: i64, start: i64) -> Result<(), String> {
    if time == 0 || start < 0 || (start != 0 && start >= time) {
        return Err(format!("at {time} since {start}"));
    }
    Ok(())
}

fn sample(bytes: &[u8]) -> Result<Sample, String> {
    let (mut value, mut time, mut start) = (None, None, None);
    let mut fields = Fields::of("Sample", bytes);
    while let Some(field) = fields.next()? {
        match field {
            (1, Value::Fixed64(bits)) => once(&mut value, f64::from_bits(bits), "a value")?,
            (2, Value::Varint(bits)) => once(&mut time, bits as i64, "a timestamp")?,
            (3, Value::Varint(bits)) => once(&mut start, bits as i64, "a start")?,
            (other, _) => return fields.unknown(other),
        }
    }
    let (time, start) = (time.unwrap_or_default(), start.unwrap_or_default());
    checked(time, start)?;
    Ok((time, start, value.unwrap_or_default()))
}

fn unzigzag(bits: u64) -> i64 {
    (bits >> 1) as i64 ^ -((bits & 1) as i64)
}

fn histogram(bytes: &[u8]) -> Result<Native, String> {
    let (mut count, mut sum, mut threshold, mut zero) = (None, None, None, None);
    let (mut deltas, mut time, mut start) = (None, None, None);
    let mut spans: Vec<(i64, u64)> = Vec::new();
    let mut fields = Fields::of("Histogram", bytes);
    while let Some(field) = fields.next()? {
        match field {
            (1, Value::Varint(number)) => once(&mut count, number, "a count")?,
            (3, Value::Fixed64(bits)) => once(&mut sum, f64::from_bits(bits), "a sum")?,
            (5, Value::Fixed64(bits)) => once(&mut threshold, f64::from_bits(bits), "a width")?,
            (6, Value::Varint(number)) => once(&mut zero, number, "a zero count")?,
            (11, Value::Bytes(bytes)) => spans.push(span(bytes)?),
            (12, Value::Bytes(bytes)) => once(&mut deltas, packed(bytes)?, "deltas")?,
            (15, Value::Varint(bits)) => once(&mut time, bits as i64, "a timestamp")?,
            (17, Value::Varint(bits)) => once(&mut start, bits as i64, "a start")?,
            (other, _) => return fields.unknown(other),
        }
    }
    let count = count.ok_or("a histogram without a count")?;
    let zero = zero.ok_or("a histogram without a zero count")?;
    let (sum, threshold) = (sum.unwrap_or_default(), threshold.unwrap_or_default());
    let (time, start) = (time.unwrap_or_default(), start.unwrap_or_default());
    checked(time, start)?;
    let mut deltas = deltas.unwrap_or_default().into_iter();
    let (mut number, mut value) = (0, 0i64);
    let mut buckets = BTreeMap::new();
    for (index, (offset, length)) in spans.iter().enumerate() {
        if (index > 0 && *offset < 1) || *length == 0 {
            return Err(format!("span {offset} {length}"));
        }
        number += offset;
        for _ in 0..*length {
            let delta = deltas.next().ok_or("fewer deltas than buckets")?;
            value = value.checked_add(unzigzag(delta)).ok_or("a bucket over 64 bits")?;
            let value = u64::try_from(value).map_err(|_| "a bucket below zero")?;
            buckets.insert(i32::try_from(number).map_err(|_| "a bucket too far")?, value);
            number += 1;
        }
    }
    if deltas.next().is_some() {
        return Err("more deltas than buckets".into());
    }
    if buckets.first_key_value().is_some_and(|(first, _)| 2f64.powi(first - 1) < threshold) {
        return Err("the bucket of zero reaches into another".into());
    }
    let native = Native { time, start, sum, zero, threshold, count, buckets };
    let all = native.buckets.values().sum::<u64>() + zero;
    if all != count || (native.is_stale() && (count, threshold) != (0, 0.0)) {
        return Err(format!("{all} in the buckets of {native:?}"));
    }
    Ok(native)
}

fn span(bytes: &[u8]) -> Result<(i64, u64), String> {
    let (mut offset, mut length) = (None, None);
    let mut fields = Fields::of("BucketSpan", bytes);
    while let Some(field) = fields.next()? {
        match field {
            (1, Value::Varint(bits)) => once(&mut offset, unzigzag(bits), "an offset")?,
            (2, Value::Varint(number)) => once(&mut length, number, "a length")?,
            (other, _) => return fields.unknown(other),
        }
    }
    Ok((offset.unwrap_or_default(), length.unwrap_or_default()))
}
