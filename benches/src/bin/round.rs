//! What one round of the default collectors costs on this machine: allocations, instructions, and CPU
//! time beside node_exporter with the same collectors in the same run.

use std::hint::black_box;
use std::time::Duration;

use benches::allocator::{Allocated, Tally, allocated};
use benches::exporter::{self, Exporter};
use benches::rounds::{self, Recorder};
use benches::table::{Table, thousands};
use benches::{Result, cpu, valgrind};
use mote::encode::RoundEncoder;

#[global_allocator]
static ALLOCATOR: Tally = Tally;

/// Rounds before anything is counted.
const WARM_UP: usize = 100;
/// Rounds that are counted.
const ROUNDS: u32 = 1000;
/// Scrapes of node_exporter beside them.
const SCRAPES: u32 = 100;
/// In so many turns, one after the other, so that a busy machine is as busy for both.
const TURNS: u32 = 10;

/// The first argument of this program's own runs under valgrind.
const REPEAT: &str = "--repeat";

fn main() -> Result<()> {
    let arguments: Vec<String> = std::env::args().skip(1).collect();
    match arguments.iter().map(String::as_str).collect::<Vec<_>>().as_slice() {
        [] => report(),
        [REPEAT, "all", count] => repeat(None, count.parse()?),
        [REPEAT, "encode", count] => repeat_encode(count.parse()?),
        [REPEAT, name, count] => repeat(Some(name), count.parse()?),
        _ => Err("round takes no arguments".into()),
    }
}

fn repeat(only: Option<&str>, count: u32) -> Result<()> {
    let mut recorder = Recorder::new(only);
    for _ in 0..count {
        recorder.collect();
        black_box(&recorder.samples);
    }
    Ok(())
}

/// Encodes one round again and again; the collecting is in every run once.
fn repeat_encode(count: u32) -> Result<()> {
    let mut recorder = Recorder::new(None);
    recorder.collect();
    let (mut encoder, mut out) = (rounds::encoder(), Vec::new());
    for _ in 0..count {
        encode(&mut encoder, &recorder, &mut out);
    }
    Ok(())
}

fn encode(encoder: &mut RoundEncoder, recorder: &Recorder, out: &mut Vec<u8>) {
    out.clear();
    black_box(encoder.encode(&[&recorder.samples], false, out));
    black_box(out);
}

fn report() -> Result<()> {
    let names = rounds::names();
    let counted = valgrind::is_there();
    let mut table = Table::new();
    let how = format!("counting allocator, all threads, mean of {ROUNDS} rounds after {WARM_UP}");
    for only in std::iter::once(None).chain(names.iter().copied().map(Some)) {
        let name = only.unwrap_or("all");
        let mut recorder = Recorder::new(only);
        (0..WARM_UP).for_each(|_| recorder.collect());
        let sum = allocated(|| (0..ROUNDS).for_each(|_| recorder.collect()));
        table.row(format!("{name}: samples"), recorder.samples.len(), "the last round");
        allocations(&mut table, name, sum, &how);
        if counted {
            let instructions = thousands(valgrind::instructions(&[REPEAT, name])?);
            table.row(format!("{name}: instructions"), instructions, valgrind::HOW);
        } else {
            table.row(format!("{name}: instructions"), "-", valgrind::MISSING);
        }
    }
    let mut recorder = Recorder::new(None);
    recorder.collect();
    let (mut encoder, mut out) = (rounds::encoder(), Vec::new());
    (0..100).for_each(|_| encode(&mut encoder, &recorder, &mut out));
    let sum = allocated(|| {
        (0..ROUNDS).for_each(|_| encode(&mut encoder, &recorder, &mut out));
    });
    allocations(&mut table, "encoding it for the WAL", sum, &how);
    if counted {
        let instructions = thousands(valgrind::instructions(&[REPEAT, "encode"])?);
        table.row("encoding it for the WAL: instructions", instructions, valgrind::HOW);
    }
    table.print("One round of the default collectors");
    beside(&names)
}

fn allocations(table: &mut Table, name: &str, sum: Allocated, how: &str) {
    let mean = |total: usize| format!("{:.2}", total as f64 / f64::from(ROUNDS));
    table.row(format!("{name}: allocations"), mean(sum.calls), how);
    table.row(format!("{name}: bytes allocated"), mean(sum.bytes), how);
}

fn beside(names: &[&str]) -> Result<()> {
    let Some(program) = exporter::find() else {
        println!("\nnode_exporter is not there (MOTE_NODE_EXPORTER names it): no ratio");
        return Ok(());
    };
    let peer = Exporter::start(&program, names)?;
    let mut recorder = Recorder::new(None);
    let (mut encoder, mut out) = (rounds::encoder(), Vec::new());
    (0..WARM_UP).for_each(|_| recorder.collect());
    let mut series = 0;
    for _ in 0..SCRAPES / TURNS {
        series = peer.scrape()?;
    }
    let (mut ours, mut theirs) = (Duration::ZERO, Duration::ZERO);
    for _ in 0..TURNS {
        let before = cpu::own()?;
        for _ in 0..ROUNDS / TURNS {
            recorder.collect();
            encode(&mut encoder, &recorder, &mut out);
        }
        ours += cpu::own()?.saturating_sub(before);
        let before = cpu::of(peer.pid())?;
        for _ in 0..SCRAPES / TURNS {
            peer.scrape()?;
        }
        theirs += cpu::of(peer.pid())?.saturating_sub(before);
    }
    let (ours, theirs) = (ours / ROUNDS, theirs / SCRAPES);
    let mut table = Table::new();
    let micros = |time: Duration| format!("{:.1} µs", time.as_secs_f64() * 1e6);
    let how = format!(
        "user + system CPU of the process: {ROUNDS} rounds, collected and encoded for the WAL"
    );
    table.row("mote: a round", micros(ours), how);
    let how =
        format!("user + system CPU of its process: {SCRAPES} scrapes, same collectors, in turns");
    table.row("node_exporter: a scrape", micros(theirs), how);
    let ratio = ours.as_secs_f64() / theirs.as_secs_f64();
    table.row("mote / node_exporter", format!("{ratio:.4}"), "of the two above, same run");
    table.row("mote: samples", recorder.samples.len(), "the last round");
    table.row("node_exporter: samples", series, "lines of its last page");
    table.print("Beside node_exporter");
    Ok(())
}
