//! Rounds of this host's default collectors, and their way through the WAL, put together as the
//! pipeline does it.

use std::path::Path;

use mote::collector::{Options, Set, TABLE};
use mote::encode::{ROUND, RemoteWrite, Round, RoundDecoder, RoundEncoder};
use mote::host::{Host, Roots};
use mote::model::{Labels, Samples};
use mote::wal::{self, Disk, Encoded, OnFull, Payload, ReaderId, Wal};

use crate::Result;

/// The default of `max_series`.
const LIMIT: usize = 5000;
/// The defaults of the metrics WAL.
const MAX_BYTES: u64 = 32 << 20;
const CONTENT: u32 = 1;
/// The default of `max_samples_per_send`.
pub const SAMPLES_PER_REQUEST: u64 = 2000;
/// The default of `agent.interval`.
pub const INTERVAL_MS: i64 = 60_000;
/// Any time will do: 2025-01-01.
pub const FIRST_MS: i64 = 1_735_689_600_000;

/// The names of the default collectors.
pub fn names() -> Vec<&'static str> {
    TABLE.iter().filter(|entry| entry.default).map(|entry| entry.name).collect()
}

/// The names of those that are off unless asked for.
pub fn names_off() -> Vec<&'static str> {
    TABLE.iter().filter(|entry| !entry.default).map(|entry| entry.name).collect()
}

/// Collects rounds on this machine.
pub struct Recorder {
    host: Host,
    set: Set,
    /// The newest round.
    pub samples: Samples,
}

impl Recorder {
    /// The default collectors, or only the one of this name.
    pub fn new(only: Option<&str>) -> Recorder {
        match only {
            Some(name) => Recorder::of(&[name]),
            None => Recorder::of(&names()),
        }
    }

    /// The collectors of these names.
    pub fn of(names: &[&str]) -> Recorder {
        Recorder {
            host: Host::new(Roots::default()),
            set: Set::new(|entry| names.contains(&entry.name), &Options::default()),
            samples: Samples::with_limit(LIMIT),
        }
    }

    /// Collects one round.
    pub fn collect(&mut self) {
        self.samples.clear();
        self.set.collect(&mut self.host, &mut self.samples);
    }
}

/// The encoder of rounds with the labels that every agent gives.
pub fn encoder() -> RoundEncoder {
    let instance = mote::host::hostname();
    let labels = Labels::from_pairs([
        ("instance", instance.as_str()),
        ("job", "integrations/node_exporter"),
    ]);
    RoundEncoder::new(labels.unwrap_or_default())
}

struct RoundPayload<'a> {
    timestamp_ms: i64,
    samples: &'a Samples,
    encoder: &'a mut RoundEncoder,
    bytes: usize,
}

impl Payload for RoundPayload<'_> {
    fn encode(&mut self, fresh: bool, out: &mut Vec<u8>) -> Encoded {
        let before = out.len();
        let items = self.encoder.encode(&[self.samples], fresh, out);
        self.bytes = out.len() - before;
        Encoded { items, time_ms: self.timestamp_ms }
    }
}

/// A metrics WAL of default size with one endpoint's cursor.
pub struct MetricsWal {
    /// The log.
    pub wal: Wal<Disk>,
    /// The endpoint's reader.
    pub reader: ReaderId,
    encoder: RoundEncoder,
    /// Bytes of payload of the records that were appended.
    pub payload_bytes: u64,
    /// Samples in them.
    pub samples: u64,
}

impl MetricsWal {
    /// A new one in an empty directory.
    ///
    /// # Errors
    /// The WAL's.
    pub fn create(path: &Path) -> Result<MetricsWal> {
        let options = wal::Options::new(MAX_BYTES, OnFull::DropOldest, CONTENT);
        let wal = Wal::open(Disk::new(path)?, options, &["endpoint"])?;
        let reader = wal.reader("endpoint").ok_or("the WAL has lost its reader")?;
        Ok(MetricsWal { wal, reader, encoder: encoder(), payload_bytes: 0, samples: 0 })
    }

    /// Opens one that is there, to be read.
    ///
    /// # Errors
    /// The WAL's.
    pub fn open(path: &Path) -> Result<MetricsWal> {
        let options = wal::Options::new(MAX_BYTES, OnFull::DropOldest, CONTENT);
        let wal = Wal::open_to_read(Disk::look(path)?, options, &["endpoint"])?;
        let reader = wal.reader("endpoint").ok_or("the WAL has lost its reader")?;
        Ok(MetricsWal { wal, reader, encoder: encoder(), payload_bytes: 0, samples: 0 })
    }

    /// Encodes and appends a round, without a sync; returns the position after it.
    ///
    /// # Errors
    /// The WAL's.
    pub fn append(&mut self, timestamp_ms: i64, samples: &Samples) -> Result<u64> {
        let encoder = &mut self.encoder;
        let mut payload = RoundPayload { timestamp_ms, samples, encoder, bytes: 0 };
        let record = self.wal.append(ROUND, &mut payload)?;
        self.payload_bytes += payload.bytes as u64;
        self.samples += u64::from(record.items);
        Ok(record.next)
    }
}

/// What a drain came to.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Drained {
    /// Requests.
    pub requests: u64,
    /// Samples in them.
    pub samples: u64,
    /// Their bytes after compression.
    pub bytes: u64,
}

/// Reads every record from the beginning, decodes it and encodes remote write requests of consecutive
/// rounds of a segment, up to the default number of samples each.
///
/// # Errors
/// The WAL's, or a record that can't be decoded.
pub fn drain(log: &mut MetricsWal) -> Result<Drained> {
    let (mut decoder, mut request) = (RoundDecoder::new(), RemoteWrite::new());
    let mut rounds: Vec<Round> = Vec::new();
    let (mut used, mut gathered) = (0, 0);
    let (mut payload, mut at) = (Vec::new(), 0);
    let mut drained = Drained::default();
    while let Some(record) = log.wal.read(log.reader, at, &mut payload)? {
        let items = u64::from(record.items);
        let other = used > 0 && RoundDecoder::restarts(&payload);
        if other || (used > 0 && gathered + items > SAMPLES_PER_REQUEST) {
            send(&decoder, rounds.get(..used).unwrap_or_default(), &mut request, &mut drained)?;
            (used, gathered) = (0, 0);
        }
        if rounds.len() == used {
            rounds.push(Round::default());
        }
        if let Some(round) = rounds.get_mut(used) {
            decoder.decode(&payload, record.time_ms, round)?;
        }
        used += 1;
        gathered += items;
        at = record.next;
    }
    if used > 0 {
        send(&decoder, rounds.get(..used).unwrap_or_default(), &mut request, &mut drained)?;
    }
    Ok(drained)
}

/// Sends as a sender that is never behind: each round in a request of its own, acknowledged. What it needs it
/// keeps.
#[derive(Debug, Default)]
pub struct Drain {
    decoder: RoundDecoder,
    request: RemoteWrite,
    round: Round,
    payload: Vec<u8>,
    at: u64,
}

impl Drain {
    /// What has come since the last time; gives the samples of its last request.
    ///
    /// # Errors
    /// The WAL's, or a record that can't be decoded.
    pub fn newest(&mut self, log: &mut MetricsWal) -> Result<u64> {
        let mut samples = 0;
        while let Some(record) = log.wal.read(log.reader, self.at, &mut self.payload)? {
            self.decoder.decode(&self.payload, record.time_ms, &mut self.round)?;
            fill(&self.decoder, std::slice::from_ref(&self.round), &mut self.request)?;
            samples = self.request.samples() as u64;
            std::hint::black_box(self.request.finish());
            self.at = record.next;
            log.wal.acknowledge(log.reader, record.next, false)?;
        }
        Ok(samples)
    }
}

fn send(
    decoder: &RoundDecoder,
    rounds: &[Round],
    request: &mut RemoteWrite,
    drained: &mut Drained,
) -> Result<()> {
    fill(decoder, rounds, request)?;
    drained.requests += 1;
    drained.samples += request.samples() as u64;
    drained.bytes += request.finish().len() as u64;
    Ok(())
}

/// One request of all samples of these rounds, each series' labels once.
///
/// # Errors
/// The request would be too large.
pub fn fill(decoder: &RoundDecoder, rounds: &[Round], request: &mut RemoteWrite) -> Result<()> {
    request.clear();
    for (index, series) in decoder.table().iter().enumerate() {
        let samples =
            rounds.iter().filter_map(move |round| Some((round.timestamp_ms, round.value(index)?)));
        if samples.clone().next().is_some() {
            request.series(series.labels(), samples)?;
        }
    }
    Ok(())
}
