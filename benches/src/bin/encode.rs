//! What a sample costs on the wire: remote write 1.0 of one round and of ten rounds in one request, of
//! this machine's default collectors, without HTTP. The rounds are collected a second apart, or so many
//! milliseconds as the one argument says: the further apart, the more values differ between them, and
//! the less there is for snappy to find.

use std::time::Duration;

use benches::Result;
use benches::rounds::{self, FIRST_MS, INTERVAL_MS, Recorder};
use benches::table::{Table, thousands};
use mote::encode::{RemoteWrite, Round, RoundDecoder};

const MANY: usize = 10;
const APART_MS: u64 = 1000;

fn main() -> Result<()> {
    let apart = match std::env::args().nth(1) {
        Some(argument) => argument.parse().map_err(|e| format!("{argument}: {e}"))?,
        None => APART_MS,
    };
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
