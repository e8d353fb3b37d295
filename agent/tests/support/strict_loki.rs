//! A Loki for tests: takes pushes, decodes every byte, checks what Loki's default limits refuse or
//! silently lose, and keeps all lines.

use std::collections::BTreeMap;
use std::ops::{Deref, DerefMut};
use std::time::{Duration, SystemTime, UNIX_EPOCH};

use super::http::{Request, Response, Server, Service};
use super::strict_json;
use super::wire::{Fields, Value, is_label_name, once, pair, text};

/// A stream's labels, in the order of their names.
pub type Stream = BTreeMap<String, String>;

/// A stored line.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Entry {
    pub timestamp_ns: i128,
    pub line: String,
    pub metadata: Vec<(String, String)>,
}

/// What has been stored.
#[derive(Default)]
pub struct Loki {
    /// By stream; timestamps never fall.
    pub streams: BTreeMap<Stream, Vec<Entry>>,
    /// Entries that came again exactly as they are stored; Loki keeps one of each.
    pub repeats: u64,
    /// Lines stored, each once.
    pub lines: u64,
    /// Requests whose contents were stored.
    pub accepted: u64,
    /// Requests that were JSON.
    pub json: u64,
    /// Bytes of a body beyond which a proxy says 413; None for none.
    pub max_body: Option<usize>,
    /// Entries that were refused in a push that was answered 204, or 400 for the sake of others.
    pub hidden: u64,
    /// How far Loki's clock is behind the machine's.
    pub clock_behind: Duration,
    /// How old an entry may be; None: as old as it likes. Where it is set, entries that come more than an hour
    /// behind their stream's newest are refused, too, instead of none that comes behind it, and answers have
    /// a Date.
    pub max_age: Option<Duration>,
}

/// The server.
pub struct StrictLoki(Server<Loki>);

impl StrictLoki {
    pub fn new() -> StrictLoki {
        StrictLoki(Server::with(Loki::default()))
    }

    /// One that refuses old entries as Loki does, and keeps the good ones beside them.
    pub fn with_max_age(max_age: Duration) -> StrictLoki {
        StrictLoki(Server::with(Loki { max_age: Some(max_age), ..Loki::default() }))
    }

    pub fn with_tls(config: rustls::ServerConfig) -> StrictLoki {
        StrictLoki(Server::with_tls(Loki::default(), config))
    }

    /// The entries of every stream with these labels among its own, stream by stream.
    pub fn entries(&self, labels: &[(&str, &str)]) -> Vec<Entry> {
        self.with_service(|loki| {
            let matching = loki.streams.iter().filter(|(stream, _)| {
                labels.iter().all(|(n, v)| stream.get(*n).is_some_and(|have| have == v))
            });
            matching.flat_map(|(_, entries)| entries.clone()).collect()
        })
    }

    /// As [`entries`](StrictLoki::entries), the lines alone.
    pub fn lines(&self, labels: &[(&str, &str)]) -> Vec<String> {
        self.entries(labels).into_iter().map(|entry| entry.line).collect()
    }

    pub fn repeats(&self) -> u64 {
        self.with_service(|loki| loki.repeats)
    }
}

impl Default for StrictLoki {
    fn default() -> StrictLoki {
        StrictLoki::new()
    }
}

impl Deref for StrictLoki {
    type Target = Server<Loki>;

    fn deref(&self) -> &Server<Loki> {
        &self.0
    }
}

impl DerefMut for StrictLoki {
    fn deref_mut(&mut self) -> &mut Server<Loki> {
        &mut self.0
    }
}

impl Service for Loki {
    const PATH: &'static str = "/loki/api/v1/push";

    fn serve(&mut self, request: &Request, store: bool, violations: &mut Vec<String>) -> Response {
        let is_json = request.header("content-type") == Some("application/json");
        let (content, encoding) = match is_json {
            true => ("application/json", None),
            false => ("application/x-protobuf", Some("snappy")),
        };
        for (name, expected) in [("content-type", Some(content)), ("content-encoding", encoding)] {
            if request.header(name) != expected {
                violations.push(format!("{name}: {:?}, not {expected:?}", request.header(name)));
            }
        }
        self.json += u64::from(is_json);
        if self.max_body.is_some_and(|max| request.body.len() > max) {
            let page =
                "<html>\r\n<head><title>413 Request Entity Too Large</title></head>\r\n</html>";
            return Response::new(413, page);
        }
        if request.header("user-agent").is_none_or(str::is_empty) {
            violations.push("no User-Agent".into());
        }
        let decoded = match is_json {
            true => strict_json::decode(&request.body),
            false => decode(&request.body),
        };
        match decoded.and_then(bounded) {
            Err(what) => {
                violations.push(what.clone());
                return Response::new(400, what);
            }
            Ok(streams) if store => {
                self.accepted += 1;
                if let Some(max_age) = self.max_age {
                    return self.store_good(streams, max_age);
                }
                for (stream, entries) in streams {
                    self.store(stream, entries, violations);
                }
            }
            Ok(_) => {}
        }
        Response::new(204, "")
    }
}

impl Loki {
    /// Stores what is neither too old nor too new nor too far behind, and says of the rest what Loki says: of
    /// entries too far behind only what became of the last stream, and then nothing of the others.
    fn store_good(&mut self, streams: Vec<(Stream, Vec<Entry>)>, max_age: Duration) -> Response {
        let now = SystemTime::now() - self.clock_behind;
        let oldest = now - max_age;
        let latest = now + Duration::from_secs(600);
        let latest_ns = latest.duration_since(UNIX_EPOCH).unwrap().as_nanos() as i128;
        let oldest_ns = oldest.duration_since(UNIX_EPOCH).unwrap().as_nanos() as i128;
        let (mut old, mut behind) = (BTreeMap::<String, u64>::new(), None);
        let mut hidden = None;
        for (stream, entries) in streams {
            let name = format!("{stream:?}");
            let have = self.streams.entry(stream).or_default();
            let (total, mut ignored) = (entries.len(), String::new());
            let mut count = 0;
            for entry in entries {
                let time = rfc3339(entry.timestamp_ns);
                let newest = have.last().map_or(0, |last| last.timestamp_ns);
                let floor = newest - 3_600_000_000_000;
                if entry.timestamp_ns < oldest_ns {
                    let text = format!(
                        "entry for stream '{name}' has timestamp too old: {time}, oldest acceptable timestamp is: {}",
                        rfc3339(oldest_ns)
                    );
                    *old.entry(text).or_default() += 1;
                } else if entry.timestamp_ns > latest_ns {
                    let text = format!("entry for stream '{name}' has timestamp too new: {time}");
                    *old.entry(text).or_default() += 1;
                } else if have.contains(&entry) {
                    self.repeats += 1;
                } else if entry.timestamp_ns < floor {
                    count += 1;
                    let reason = format!(
                        "entry too far behind, entry timestamp is: {time}, oldest acceptable timestamp is: {}",
                        rfc3339(floor)
                    );
                    if count <= 10 {
                        ignored +=
                            &format!("entry with timestamp {time} ignored, reason: '{reason}',\n");
                    }
                } else {
                    let at = have.partition_point(|e| e.timestamp_ns <= entry.timestamp_ns);
                    have.insert(at, entry);
                    self.lines += 1;
                }
            }
            self.hidden += hidden.replace(count).unwrap_or_default();
            behind = None;
            if count > 0 {
                let total = format!("total ignored: {count} out of {total} for stream: {name}");
                behind = Some(format!("{ignored}user 'fake', {total}"));
            }
        }
        let number = old.values().sum::<u64>();
        let like = |(text, count): (&String, &u64)| match number {
            1 => text.clone(),
            _ => format!("{count} errors like: {text}"),
        };
        let old = old.iter().map(like).collect::<Vec<_>>().join("; ");
        let mut response = match (behind, old.is_empty()) {
            (Some(behind), _) => Response::new(400, behind),
            (None, false) => Response::new(400, old),
            (None, true) => Response::new(204, ""),
        };
        response.headers.push(("Date".into(), httpdate::fmt_http_date(now)));
        response
    }

    fn store(&mut self, stream: Stream, entries: Vec<Entry>, violations: &mut Vec<String>) {
        let name = format!("{stream:?}");
        let have = self.streams.entry(stream).or_default();
        for entry in entries {
            let from = have.partition_point(|other| other.timestamp_ns < entry.timestamp_ns);
            let same_time =
                have[from..].iter().take_while(|other| other.timestamp_ns == entry.timestamp_ns);
            if same_time.clone().any(|other| *other == entry) {
                self.repeats += 1;
            } else if have.last().is_some_and(|last| last.timestamp_ns > entry.timestamp_ns) {
                violations.push(format!("{name}: {entry:?} comes after a newer one"));
            } else {
                have.push(entry);
                self.lines += 1;
            }
        }
    }
}

fn rfc3339(ns: i128) -> String {
    let time = UNIX_EPOCH + Duration::from_nanos(ns.max(0) as u64);
    humantime::format_rfc3339_seconds(time).to_string()
}

/// The streams of a request's body.
pub fn decode(body: &[u8]) -> Result<Vec<(Stream, Vec<Entry>)>, String> {
    snap::raw::Decoder::new()
        .decompress_vec(body)
        .map_err(|error| format!("snappy: {error}"))
        .and_then(|raw| push_request(&raw))
}

fn push_request(bytes: &[u8]) -> Result<Vec<(Stream, Vec<Entry>)>, String> {
    let mut streams = Vec::new();
    let mut fields = Fields::of("PushRequest", bytes);
    while let Some(field) = fields.next()? {
        match field {
            (1, Value::Bytes(bytes)) => streams.push(stream(bytes)?),
            (other, _) => return fields.unknown(other),
        }
    }
    if streams.is_empty() {
        return Err("a push without streams".into());
    }
    Ok(streams)
}

fn stream(bytes: &[u8]) -> Result<(Stream, Vec<Entry>), String> {
    let (mut labels, mut entries) = (None, Vec::new());
    let mut fields = Fields::of("StreamAdapter", bytes);
    while let Some(field) = fields.next()? {
        match field {
            (1, Value::Bytes(bytes)) => once(&mut labels, text(bytes, "labels")?, "labels")?,
            (2, Value::Bytes(bytes)) => entries.push(entry(bytes)?),
            (other, _) => return fields.unknown(other),
        }
    }
    let labels = selector(&labels.unwrap_or_default())?;
    Ok((labels, entries))
}

/// Streams within Loki's default limits, whatever they were decoded from.
fn bounded(streams: Vec<(Stream, Vec<Entry>)>) -> Result<Vec<(Stream, Vec<Entry>)>, String> {
    if streams.is_empty() {
        return Err("no streams".into());
    }
    for (labels, entries) in &streams {
        if entries.is_empty() {
            return Err(format!("{labels:?}: no entries"));
        }
        if !(1..=15).contains(&labels.len()) || labels.values().any(|value| value.len() > 2048) {
            return Err(format!(
                "{labels:?}: no or more than 15 labels, or a value over 2048 bytes"
            ));
        }
        for Entry { line, metadata, .. } in entries {
            if line.len() > 262_144 {
                return Err(format!("a line of {} bytes", line.len()));
            }
            let size: usize = metadata.iter().map(|(name, value)| name.len() + value.len()).sum();
            if metadata.len() > 128 || size > 64 << 10 {
                return Err(format!("{} pairs of metadata with {size} bytes", metadata.len()));
            }
            if metadata.iter().any(|(name, _)| name.is_empty()) {
                return Err("metadata without a name".into());
            }
        }
    }
    Ok(streams)
}

fn entry(bytes: &[u8]) -> Result<Entry, String> {
    let (mut time, mut line, mut metadata) = (None, None, Vec::new());
    let mut fields = Fields::of("EntryAdapter", bytes);
    while let Some(field) = fields.next()? {
        match field {
            (1, Value::Bytes(bytes)) => once(&mut time, timestamp(bytes)?, "a timestamp")?,
            (2, Value::Bytes(bytes)) => once(&mut line, text(bytes, "a line")?, "a line")?,
            (3, Value::Bytes(bytes)) => metadata.push(pair("LabelPairAdapter", bytes)?),
            (other, _) => return fields.unknown(other),
        }
    }
    let line = line.unwrap_or_default();
    let timestamp_ns = time.ok_or("an entry without a timestamp")?;
    Ok(Entry { timestamp_ns, line, metadata })
}

fn timestamp(bytes: &[u8]) -> Result<i128, String> {
    let (mut seconds, mut nanos) = (None, None);
    let mut fields = Fields::of("Timestamp", bytes);
    while let Some(field) = fields.next()? {
        match field {
            (1, Value::Varint(bits)) => once(&mut seconds, bits as i64, "seconds")?,
            (2, Value::Varint(bits)) => once(&mut nanos, bits as i64, "nanos")?,
            (other, _) => return fields.unknown(other),
        }
    }
    let nanos = nanos.unwrap_or_default();
    if !(0..1_000_000_000).contains(&nanos) {
        return Err(format!("{nanos} nanoseconds"));
    }
    Ok(i128::from(seconds.unwrap_or_default()) * 1_000_000_000 + i128::from(nanos))
}

/// `{a="b", c="d"}` with the values quoted as Go quotes them.
pub fn selector(text: &str) -> Result<Stream, String> {
    let fail = |what: &str| Err(format!("labels {text:?}: {what}"));
    let Some(mut rest) = text.strip_prefix('{') else { return fail("no '{'") };
    let mut labels = Stream::new();
    loop {
        let Some((name, after)) = rest.split_once('=') else { return fail("no '='") };
        if !is_label_name(name) {
            return fail(&format!("{name:?} is not a label name"));
        }
        let Some((value, after)) = unquote(after) else { return fail("a value is badly quoted") };
        if labels.insert(name.to_owned(), value).is_some() {
            return fail(&format!("{name} stands twice"));
        }
        if after == "}" {
            return Ok(labels);
        }
        match after.strip_prefix(", ") {
            Some(after) => rest = after,
            None => return fail("neither ', ' nor '}' at the end after a value"),
        }
    }
}

/// The string at the start, and what follows it.
fn unquote(text: &str) -> Option<(String, &str)> {
    let mut chars = text.strip_prefix('"')?.chars();
    let mut value = String::new();
    loop {
        match chars.next()? {
            '"' => return Some((value, chars.as_str())),
            '\n' => return None,
            '\\' => value.push(match chars.next()? {
                '"' => '"',
                '\\' => '\\',
                'a' => '\x07',
                'b' => '\x08',
                'f' => '\x0c',
                'n' => '\n',
                'r' => '\r',
                't' => '\t',
                'v' => '\x0b',
                'x' => hex(&mut chars, 2).filter(char::is_ascii)?,
                'u' => hex(&mut chars, 4)?,
                'U' => hex(&mut chars, 8)?,
                _ => return None,
            }),
            c => value.push(c),
        }
    }
}

fn hex(chars: &mut std::str::Chars<'_>, digits: usize) -> Option<char> {
    let mut value = 0;
    for _ in 0..digits {
        value = value * 16 + chars.next()?.to_digit(16)?;
    }
    char::from_u32(value)
}
