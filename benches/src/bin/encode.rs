//! What a sample costs on the wire: first remote write 1.0 and 2.0 of the recorded hour, a round in a
//! request and as many as `max_samples_per_send` takes; then 1.0 of one round and of ten rounds in one
//! request, of this machine's default collectors; all without HTTP. The rounds are collected a second apart, or so many
//! milliseconds as the one argument says: the further apart, the more values differ between them, and
//! the less there is for snappy to find.

use std::time::Duration;

use benches::Result;
use benches::recording;
use benches::rounds::{self, FIRST_MS, INTERVAL_MS, Recorder, SAMPLES_PER_REQUEST};
use benches::table::{Table, thousands};
use mote::encode::{Meta, Point, RemoteWrite, RemoteWrite2, Round, RoundDecoder};

const MANY: usize = 10;
const APART_MS: u64 = 1000;

fn main() -> Result<()> {
    let apart = match std::env::args().nth(1) {
        Some(argument) => argument.parse().map_err(|e| format!("{argument}: {e}"))?,
        None => APART_MS,
    };
    recorded_hour()?;
    let mut table = Table::new();
    for count in [1, MANY] {
        let mut recorder = Recorder::new(None);
        let (mut encoder, mut decoder) = (rounds::encoder(), RoundDecoder::new());
        let mut gathered = Vec::new();
        let mut payload = Vec::new();
        for index in 0..count {
            if index > 0 {
                std::thread::sleep(Duration::from_millis(apart));
            }
            recorder.collect();
            payload.clear();
            let timestamp_ms = FIRST_MS + i64::try_from(index)? * INTERVAL_MS;
            encoder.encode(&[&recorder.samples], index == 0, &mut payload);
            let mut round = Round::default();
            decoder.decode(&payload, timestamp_ms, &mut round)?;
            gathered.push(round);
        }
        let mut request = RemoteWrite::new();
        rounds::fill(&decoder, &gathered, &mut request)?;
        let samples = request.samples();
        let raw = request.len();
        let packed = request.finish().len();
        let name = if count == 1 { "1 round".to_owned() } else { format!("{count} rounds") };
        let mut how = format!("{samples} samples in {} series", request.series_added());
        if count > 1 {
            how.push_str(&format!(", collected {apart} ms apart"));
        }
        let per = |bytes: usize| format!("{:.2}", bytes as f64 / samples as f64);
        table.row(format!("{name}: bytes of protobuf"), thousands(raw as u64), &how);
        table.row(format!("{name}: bytes of protobuf a sample"), per(raw), &how);
        table.row(format!("{name}: bytes of snappy"), thousands(packed as u64), &how);
        table.row(format!("{name}: bytes of snappy a sample"), per(packed), &how);
    }
    table.print("Remote write 1.0, bodies without HTTP");
    Ok(())
}

/// Bytes of both versions' bodies over the recorded hour.
#[derive(Default)]
struct Bytes {
    samples: usize,
    raw: [usize; 2],
    packed: [usize; 2],
}

fn recorded_hour() -> Result<()> {
    let recorded = recording::read(&recording::hour())?;
    let mut table = Table::new();
    for (name, most) in
        [("live", 0), ("catching up", SAMPLES_PER_REQUEST as usize), ("ten", 20_000)]
    {
        let (mut encoder, mut decoder) = (rounds::encoder(), RoundDecoder::new());
        let (mut gathered, mut count) = (Vec::new(), 0);
        let mut bytes = Bytes::default();
        let mut payload = Vec::new();
        let mut requests = 0u64;
        for one in &recorded {
            payload.clear();
            encoder.encode(&[&one.samples], false, &mut payload);
            let items = one.samples.len();
            if !gathered.is_empty() && (count + items > most || RoundDecoder::restarts(&payload)) {
                bytes.add(&decoder, &gathered)?;
                requests += 1;
                gathered.clear();
                count = 0;
            }
            let mut round = Round::default();
            decoder.decode(&payload, one.time_ms, &mut round)?;
            gathered.push(round);
            count += items;
        }
        bytes.add(&decoder, &gathered)?;
        requests += 1;
        let how = format!("{} samples in {requests} requests", bytes.samples);
        let per = |bytes_of: usize| format!("{:.2}", bytes_of as f64 / bytes.samples as f64);
        for (version, (raw, packed)) in
            ["1.0", "2.0"].iter().zip(bytes.raw.iter().zip(bytes.packed))
        {
            table.row(format!("{name}, {version}: bytes of protobuf a sample"), per(*raw), &how);
            table.row(format!("{name}, {version}: bytes of snappy a sample"), per(packed), &how);
        }
    }
    table.print("Remote write of the recorded hour, bodies without HTTP, types and no help texts");
    Ok(())
}

impl Bytes {
    fn add(&mut self, decoder: &RoundDecoder, rounds: &[Round]) -> Result<()> {
        let mut one = RemoteWrite::new();
        rounds::fill(decoder, rounds, &mut one)?;
        let mut two = RemoteWrite2::new();
        for (index, series) in decoder.table().iter().enumerate() {
            let points = rounds.iter().filter_map(|round| {
                let (timestamp_ms, value) = (round.timestamp_ms, round.value(index)?);
                Some(Point { timestamp_ms, value, start_ms: 0 })
            });
            if points.clone().next().is_some() {
                let meta = Meta { kind: series.kind, help: "", unit: "" };
                two.series(series.labels(), meta, points)?;
            }
        }
        self.samples += one.samples();
        let sizes = [(one.len(), one.finish().len()), (two.len(), two.finish().len())];
        for ((raw, packed), (more_raw, more_packed)) in
            self.raw.iter_mut().zip(&mut self.packed).zip(sizes)
        {
            *raw += more_raw;
            *packed += more_packed;
        }
        Ok(())
    }
}
