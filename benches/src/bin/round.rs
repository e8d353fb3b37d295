//! What one round costs on this machine: allocations of each collector, which must be none in a steady
//! round; instructions and system calls; and CPU time beside one scrape of node_exporter with the same
//! collectors in the same run, of which it must be at most a tenth. A budget that is missed fails it.
//!
//! With `--each`, instructions of every collector by itself as well, which takes minutes.

use std::hint::black_box;
use std::time::{Duration, Instant};

use benches::allocator::{Allocated, Tally, allocated};
use benches::exporter::{self, Exporter};
use benches::rounds::{self, Recorder};
use benches::system::{self, Counts};
use benches::table::{Table, thousands};
use benches::{Result, cpu, valgrind};
use mote::encode::RoundEncoder;

#[global_allocator]
static ALLOCATOR: Tally = Tally;

/// Rounds before anything is counted.
const WARM_UP: usize = 100;
/// Rounds that are counted.
const ROUNDS: u32 = 1000;
/// Of one collector, if it is slow, only as many as fit into this.
const TIME: Duration = Duration::from_secs(2);
/// Scrapes of node_exporter beside them.
const SCRAPES: u32 = 100;
/// In so many turns, one after the other, so that a busy machine is as busy for both.
const TURNS: u32 = 10;

/// The most that a round may cost of a scrape.
const RATIO: f64 = 0.1;
/// Rounds in a hundred that may allocate: a mount, a process, a device comes and goes.
const UNSTEADY: f64 = 1.0;

/// The first argument of this program's own runs under valgrind.
const REPEAT: &str = "--repeat";

fn main() -> Result<()> {
    let arguments: Vec<String> = std::env::args().skip(1).collect();
    match arguments.iter().map(String::as_str).collect::<Vec<_>>().as_slice() {
        [] => report(false),
        ["--each"] => report(true),
        [REPEAT, "encode", count] => repeat_encode(count.parse()?),
        [REPEAT, names, count] => repeat(names, count.parse()?),
        _ => Err("round takes no arguments but --each".into()),
    }
}

fn repeat(names: &str, count: u32) -> Result<()> {
    let mut recorder = Recorder::of(&names.split(',').collect::<Vec<_>>());
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

fn report(each: bool) -> Result<()> {
    let (on, off) = (rounds::names(), rounds::names_off());
    let each = each && valgrind::is_there();
    let mut missed = Vec::new();
    println!("\n## Each collector by itself\n");
    println!(
        "Mean of up to {ROUNDS} rounds after {WARM_UP}; allocations of all threads; CPU of the process, user \
         and system.{}\n",
        if each { " Instructions of user space by callgrind." } else { "" }
    );
    let more = if each { " instructions |" } else { "" };
    println!("| collector | samples | allocations | rounds that allocate | CPU, µs |{more}");
    println!("|---|---:|---:|---:|---:|{}", if each { "---:|" } else { "" });
    for name in on.iter().chain(&off) {
        let cost = Cost::of(&[name])?;
        let instructions = match each {
            true => format!(" {} |", thousands(valgrind::instructions(&[REPEAT, name])?)),
            false => String::new(),
        };
        println!("| {name} | {}{instructions}", cost.row());
        if cost.unsteady() > UNSTEADY {
            missed.push(format!("{name} allocates in a steady round: {cost:?}"));
        }
    }

    let mut table = Table::new();
    let cost = Cost::of(&on)?;
    let how = format!("counting allocator, all threads, of {} rounds after {WARM_UP}", cost.rounds);
    table.row("a round: samples", cost.samples, "the last one, of every default collector");
    table.row("a round: allocations", format!("{:.2}", cost.mean(cost.allocated.calls)), &how);
    table.row("a round: bytes allocated", format!("{:.2}", cost.mean(cost.allocated.bytes)), &how);
    table.row("a round: context switches", cost.switches(), "getrusage: voluntary and not");
    let names = on.join(",");
    counted(&mut table, "a round", &names, true)?;
    let mut recorder = Recorder::new(None);
    recorder.collect();
    let (mut encoder, mut out) = (rounds::encoder(), Vec::new());
    (0..100).for_each(|_| encode(&mut encoder, &recorder, &mut out));
    let sum = allocated(|| {
        (0..ROUNDS).for_each(|_| encode(&mut encoder, &recorder, &mut out));
    });
    let mean = |total: usize| format!("{:.2}", total as f64 / f64::from(ROUNDS));
    let what = "encoding it for the WAL";
    table.row(format!("{what}: allocations"), mean(sum.calls), format!("mean of {ROUNDS}"));
    table.row(format!("{what}: bytes allocated"), mean(sum.bytes), format!("mean of {ROUNDS}"));
    counted(&mut table, what, "encode", false)?;
    table.print("One round of the default collectors");
    if cost.unsteady() > UNSTEADY {
        missed.push(format!("a steady round allocates: {cost:?}"));
    }
    missed.extend(beside()?);
    if missed.is_empty() {
        return Ok(());
    }
    Err(format!("missed:\n    {}", missed.join("\n    ")).into())
}

/// Instructions and system calls, if valgrind can count them.
fn counted(table: &mut Table, what: &str, work: &str, calls: bool) -> Result<()> {
    if !valgrind::is_there() {
        table.row(format!("{what}: instructions"), "-", valgrind::MISSING);
        return Ok(());
    }
    let instructions = thousands(valgrind::instructions(&[REPEAT, work])?);
    table.row(format!("{what}: instructions"), instructions, valgrind::HOW);
    if calls {
        let number = format!("{:.1}", valgrind::system_calls(&[REPEAT, work])?);
        table.row(format!("{what}: system calls"), number, valgrind::HOW_CALLS);
    }
    Ok(())
}

/// What rounds of some collectors cost.
#[derive(Debug, Default)]
struct Cost {
    rounds: u32,
    samples: usize,
    allocated: Allocated,
    rounds_that_allocate: u32,
    cpu: Duration,
    counts: Counts,
}

impl Cost {
    fn of(names: &[&str]) -> Result<Cost> {
        let mut recorder = Recorder::of(names);
        let began = Instant::now();
        for _ in 0..WARM_UP {
            recorder.collect();
            if began.elapsed() > TIME {
                break;
            }
        }
        let mut cost = Cost::default();
        let (counts, time, began) = (system::own()?, cpu::own()?, Instant::now());
        while cost.rounds < ROUNDS && began.elapsed() < TIME {
            let now = allocated(|| recorder.collect());
            cost.rounds += 1;
            cost.allocated.calls += now.calls;
            cost.allocated.bytes += now.bytes;
            cost.rounds_that_allocate += u32::from(now.calls > 0);
        }
        cost.cpu = cpu::own()?.saturating_sub(time);
        cost.counts = system::own()?.since(counts);
        cost.samples = recorder.samples.len();
        Ok(cost)
    }

    fn mean(&self, total: usize) -> f64 {
        total as f64 / f64::from(self.rounds.max(1))
    }

    /// Rounds in a hundred that allocate.
    fn unsteady(&self) -> f64 {
        100.0 * f64::from(self.rounds_that_allocate) / f64::from(self.rounds.max(1))
    }

    fn switches(&self) -> String {
        format!("{:.2}", self.counts.switches as f64 / f64::from(self.rounds.max(1)))
    }

    fn row(&self) -> String {
        format!(
            "{} | {:.2} | {} of {} | {:.1} |",
            self.samples,
            self.mean(self.allocated.calls),
            self.rounds_that_allocate,
            self.rounds,
            self.cpu.as_secs_f64() * 1e6 / f64::from(self.rounds.max(1)),
        )
    }
}

/// Beside node_exporter with the collectors that both have on, and what is missed of the budget.
fn beside() -> Result<Option<String>> {
    let Some(program) = exporter::find() else {
        println!("\nnode_exporter is not there (MOTE_NODE_EXPORTER names it): no ratio");
        return Ok(None);
    };
    let theirs = exporter::collectors(&program)?;
    let names = rounds::names();
    let names: Vec<_> =
        names.into_iter().filter(|name| theirs.iter().any(|other| other == name)).collect();
    let peer = Exporter::start(&program, &names)?;
    let mut recorder = Recorder::of(&names);
    let (mut encoder, mut out) = (rounds::encoder(), Vec::new());
    (0..WARM_UP).for_each(|_| recorder.collect());
    let mut series = 0;
    for _ in 0..SCRAPES / TURNS {
        series = peer.scrape()?;
    }
    let (mut ours, mut theirs) = (Duration::ZERO, Duration::ZERO);
    let (mut our_counts, mut their_counts) = (Counts::default(), Counts::default());
    for _ in 0..TURNS {
        let (before, counts) = (cpu::own()?, system::own()?);
        for _ in 0..ROUNDS / TURNS {
            recorder.collect();
            encode(&mut encoder, &recorder, &mut out);
        }
        ours += cpu::own()?.saturating_sub(before);
        our_counts = our_counts.plus(system::own()?.since(counts));
        let (before, counts) = (cpu::of(peer.pid())?, system::of(peer.pid())?);
        for _ in 0..SCRAPES / TURNS {
            peer.scrape()?;
        }
        theirs += cpu::of(peer.pid())?.saturating_sub(before);
        their_counts = their_counts.plus(system::of(peer.pid())?.since(counts));
    }
    let (ours, theirs) = (ours / ROUNDS, theirs / SCRAPES);
    let ratio = ours.as_secs_f64() / theirs.as_secs_f64();
    let mut table = Table::new();
    let micros = |time: Duration| format!("{:.1} µs", time.as_secs_f64() * 1e6);
    let per = |count: u64, times: u32| format!("{:.2}", count as f64 / f64::from(times));
    let how = format!("user + system CPU of the process: {ROUNDS} rounds, encoded for the WAL too");
    table.row("mote: a round", micros(ours), how);
    let how =
        format!("user + system CPU of its process: {SCRAPES} scrapes, in turns with the rounds");
    table.row("node_exporter: a scrape", micros(theirs), how);
    table.row("mote / node_exporter", format!("{ratio:.4}"), "of the two above, same run");
    let verdict = if ratio <= RATIO { "kept" } else { "MISSED" };
    table.row("budget of it", format!("{RATIO:.4}"), verdict);
    let how = "callgrind can't follow Go's runtime: CPU time stands for them";
    table.row("node_exporter: instructions", "-", how);
    table.row("mote: context switches", per(our_counts.switches, ROUNDS), "getrusage");
    let how = "/proc/PID/task/*/status, the HTTP request included";
    table.row("node_exporter: context switches", per(their_counts.switches, SCRAPES), how);
    table.row("mote: reads", per(our_counts.reads, ROUNDS), "/proc/self/io: syscr");
    table.row("node_exporter: reads", per(their_counts.reads, SCRAPES), "/proc/PID/io: syscr");
    table.row("mote: samples", recorder.samples.len(), "the last round");
    table.row("node_exporter: samples", series, "lines of its last page");
    table.print(&format!("Beside node_exporter, {} collectors", names.len()));
    let missed = format!("a round costs {ratio:.4} of a scrape, and may cost {RATIO}");
    Ok((ratio > RATIO).then_some(missed))
}
