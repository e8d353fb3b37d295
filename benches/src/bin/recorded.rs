//! What a sample of a real host costs on disk, from a recording, so that it can be repeated: the hour that
//! is kept with the sources, or the files that the arguments name (see `record`). Beside it what other
//! ways cost on the same rounds, what the work is, and what is remembered of a series.

use std::hint::black_box;
use std::path::Path;
use std::time::Duration;

use benches::allocator::{Tally, allocated};
use benches::recording::{self, Recorded};
use benches::rounds;
use benches::table::{Table, thousands};
use benches::{Result, cpu, valgrind};
use mote::encode::{Round, RoundDecoder, RoundEncoder};
use mote::model::Sample;

#[global_allocator]
static TALLY: Tally = Tally;

/// The rounds of an hour at 60 s: what is measured of a longer recording.
const ROUNDS: usize = 60;
/// What the WAL adds: to each record, to each segment, and one endpoint's cursor.
const RECORD: usize = 24;
const SEGMENT: usize = 32;
const CURSOR: usize = 1024;

const TRIES: usize = 20;

/// The first argument of this program's own runs under valgrind.
const REPEAT: &str = "--repeat";

fn main() -> Result<()> {
    let arguments: Vec<String> = std::env::args().skip(1).collect();
    match arguments.iter().map(String::as_str).collect::<Vec<_>>().as_slice() {
        [REPEAT, path, count] => repeat(Path::new(path), count.parse()?),
        [] => report(&recording::hour()),
        paths => paths.iter().try_for_each(|path| report(Path::new(path))),
    }
}

/// Encodes the recording's rounds forth and back, so that every one of them differs from the one before.
fn repeat(path: &Path, count: usize) -> Result<()> {
    let recorded = recording::read(path)?;
    let (mut encoder, mut out) = (rounds::encoder(), Vec::new());
    for index in 0..count {
        out.clear();
        let there = index % (2 * recorded.len());
        let round = &recorded[there.min(2 * recorded.len() - 1 - there)];
        black_box(encoder.encode(&[&round.samples], false, &mut out));
    }
    Ok(())
}

fn report(path: &Path) -> Result<()> {
    let mut recorded = recording::read(path)?;
    recorded.truncate(ROUNDS);
    let samples: usize = recorded.iter().map(|round| round.samples.len()).sum();
    let (Some(first), Some(last)) = (recorded.first(), recorded.last()) else {
        return Err(format!("{}: no rounds", path.display()).into());
    };
    let seconds = (last.time_ms - first.time_ms) as f64 / 1e3 / (recorded.len() - 1) as f64;
    let mut table = Table::new();
    let how = format!("{} rounds, {seconds:.1} s apart", recorded.len());
    table.row("samples", thousands(samples as u64), how);
    let payloads = encode(&recorded)?;
    bytes(&mut table, &payloads, samples);
    others(&mut table, &recorded, samples)?;
    speed(&mut table, &recorded, &payloads, samples)?;
    memory(&mut table, first)?;
    let instructions = match valgrind::is_there() {
        true => {
            let path = path.to_str().ok_or("a path that is no text")?;
            thousands(valgrind::instructions(&[REPEAT, path])?)
        }
        false => "-".to_owned(),
    };
    let how = if valgrind::is_there() { valgrind::HOW } else { valgrind::MISSING };
    table.row("encode: instructions a round", instructions, how);
    table.print(&path.display().to_string());
    Ok(())
}

/// The records of the rounds, which are decoded again and compared.
fn encode(recorded: &[Recorded]) -> Result<Vec<Vec<u8>>> {
    let (mut encoder, mut decoder) = (rounds::encoder(), RoundDecoder::new());
    let mut round = Round::default();
    let mut payloads = Vec::new();
    for (index, recorded) in recorded.iter().enumerate() {
        let mut payload = Vec::new();
        encoder.encode(&[&recorded.samples], index == 0, &mut payload);
        decoder.decode(&payload, recorded.time_ms, &mut round)?;
        // Series that come later stand elsewhere in the table; the tests compare them one by one.
        let values = (0..decoder.table().len()).filter_map(|series| round.value(series));
        let mut have: Vec<_> = values.map(f64::to_bits).collect();
        let mut want: Vec<_> = recorded.samples.iter().map(|s| s.value.to_bits()).collect();
        have.sort_unstable();
        want.sort_unstable();
        if have != want {
            return Err(format!("round {index} does not come back").into());
        }
        payloads.push(payload);
    }
    Ok(payloads)
}

fn bytes(table: &mut Table, payloads: &[Vec<u8>], samples: usize) {
    let payload: usize = payloads.iter().map(Vec::len).sum();
    let headers = SEGMENT + CURSOR + RECORD * payloads.len();
    let full = payloads.first().map_or(0, Vec::len);
    let schema = payloads.first().map_or(0, |full| schema_len(full));
    let per = |bytes: usize| format!("{:.3}", bytes as f64 / samples as f64);
    let how = "everything: the rows below; the goal is 1.0";
    table.row("bytes a sample on disk", per(payload + headers), how);
    let how =
        format!("{} bytes: 24 a record, 32 a segment, 1,024 a cursor", thousands(headers as u64));
    table.row("of that headers and cursor", per(headers), how);
    let how = format!("{} bytes", thousands(schema as u64));
    table.row("of that the schema", per(schema), how);
    let how = format!("{} bytes", thousands((full - schema) as u64));
    table.row("of that the first values", per(full - schema), how);
    let later = payloads.get(1..).unwrap_or_default();
    let added: usize = later.iter().map(|payload| schema_len(payload)).sum();
    let with = later.iter().filter(|payload| schema_len(payload) > 0).count();
    let how =
        format!("{} bytes in {with} rounds: labels of series that came", thousands(added as u64));
    table.row("of that later schemas", per(added), how);
    let rest = payload - full - added;
    let how = format!("{:.1} bytes a round", rest as f64 / later.len() as f64);
    table.row("of that differences", per(rest), how);
}

/// Bytes of the schema of a full record or a difference; 0 if there is none.
fn schema_len(payload: &[u8]) -> usize {
    let has = payload.get(1).is_some_and(|flags| flags & 8 != 0);
    let len = payload.get(4..).and_then(|rest| rest.first_chunk()).filter(|_| has);
    len.map_or(0, |len| u32::from_le_bytes(*len) as usize)
}

/// The same values without the model: the difference of the bits or, for whole numbers and hundredths, of
/// the numbers, as varints, and what zstd makes of each round's.
fn others(table: &mut Table, recorded: &[Recorded], samples: usize) -> Result<()> {
    let (mut plain, mut packed) = (0, 0);
    for pair in recorded.windows(2) {
        let mut out = Vec::new();
        for (before, after) in pair[0].samples.iter().zip(pair[1].samples.iter()) {
            varint(difference(&before, &after), &mut out);
        }
        plain += out.len();
        packed += zstd::bulk::compress(&out, 3)?.len();
    }
    let part = (recorded.len() - 1) as f64 / recorded.len() as f64;
    let per = |bytes: usize| format!("{:.3}", bytes as f64 / (samples as f64 * part));
    let how = "difference to the round before, scaled by 100 or in bits; payload alone";
    table.row("another way: varints", per(plain), how);
    table.row("another way: zstd -3 of them, each round", per(packed), "the same");
    Ok(())
}

fn difference(before: &Sample<'_>, after: &Sample<'_>) -> i64 {
    for scale in [1.0, 100.0] {
        let [a, b] = [before, after].map(|sample| (sample.value * scale).round());
        if [(a, before), (b, after)].iter().all(|(n, s)| n / scale == s.value && n.abs() < 1e15) {
            return (b - a) as i64;
        }
    }
    after.value.to_bits().wrapping_sub(before.value.to_bits()) as i64
}

fn varint(number: i64, out: &mut Vec<u8>) {
    let mut rest = ((number << 1) ^ (number >> 63)) as u64;
    while rest >= 0x80 {
        out.push(rest as u8 | 0x80);
        rest >>= 7;
    }
    out.push(rest as u8);
}

fn speed(
    table: &mut Table,
    recorded: &[Recorded],
    payloads: &[Vec<u8>],
    samples: usize,
) -> Result<()> {
    let (mut encode, mut decode) = (Duration::MAX, Duration::MAX);
    let (mut encoder, mut out) = (rounds::encoder(), Vec::new());
    let mut round = Round::default();
    for _ in 0..TRIES {
        let before = cpu::own()?;
        encoder.forget();
        for recorded in recorded {
            out.clear();
            black_box(encoder.encode(&[&recorded.samples], false, &mut out));
        }
        encode = encode.min(cpu::own()?.saturating_sub(before));
        let before = cpu::own()?;
        let mut decoder = RoundDecoder::new();
        for payload in payloads {
            decoder.decode(payload, 0, &mut round)?;
            black_box(&round);
        }
        decode = decode.min(cpu::own()?.saturating_sub(before));
    }
    let how = format!("own CPU, all rounds with the schema, least of {TRIES}");
    let rate = |time: Duration| thousands((samples as f64 / time.as_secs_f64()) as u64);
    table.row("encode: samples a second", rate(encode), &how);
    table.row("decode: samples a second", rate(decode), &how);
    Ok(())
}

/// Counted by the allocator, so with what a vector has to spare.
fn memory(table: &mut Table, first: &Recorded) -> Result<()> {
    let samples = [&first.samples];
    let count = first.samples.len();
    let mut out = Vec::new();
    let mut encoder: RoundEncoder = rounds::encoder();
    encoder.encode(&samples, true, &mut out);
    let (mut decoder, mut round) = (RoundDecoder::new(), Round::default());
    decoder.decode(&out, 0, &mut round)?;
    let mut next = Vec::with_capacity(1 << 16);
    let steady = allocated(|| {
        for _ in 0..50 {
            next.clear();
            encoder.encode(&samples, false, &mut next);
            let _ = black_box(decoder.decode(&next, 0, &mut round));
        }
    });
    let how = "encode and decode of 50 equal rounds after the first";
    table.row("steady: allocations", steady.calls, how);
    let per = |bytes: usize| format!("{:.0}", bytes as f64 / count as f64);
    let how = format!("by its own count, over {count} series, the shared chances among it");
    table.row("memory: encoder, bytes a series", per(encoder.memory()), &how);
    table.row("memory: decoder, bytes a series", per(decoder.memory()), &how);
    Ok(())
}
