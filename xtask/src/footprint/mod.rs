//! `cargo xtask footprint`: what the agent costs, measured from outside while it works, beside its peers doing
//! the same work in the same minutes, so that the ratios hold on a busy machine too.
//!
//! The work is host metrics every 15 s to a real Prometheus, and a log file at 100 lines a second to a
//! stand-in for Loki that decodes every push. Nothing is measured that did not work: every round and
//! every line must have come, the lines once each.

mod agents;
mod cost;
mod every;
mod lines;
mod push;
mod receiver;
mod table;
mod volume;
mod wire;

use std::fs;
use std::net::SocketAddr;
use std::path::PathBuf;
use std::process::ExitCode;
use std::time::{Duration, Instant, SystemTime, UNIX_EPOCH};

use crate::context::Context;
use crate::process::{Answer, Interrupt};
use crate::temp::TempDir;
use crate::{Result, build, demo, dist, http, page, process, setup};
use agents::{Ground, Shape, Subject, common};
use cost::{Cost, Look};
use every::{Journal, Tls};
use lines::Writer;

/// How long is measured, unless told otherwise: as many rounds as tell something, and for the page more.
pub(crate) const DEFAULT_SECONDS: u64 = 45;
pub(crate) const UPDATE_SECONDS: u64 = 180;
/// Two rounds; fewer say nothing.
pub(crate) const MINIMUM_SECONDS: u64 = 30;

/// From one round to the next, seconds. Of a multiple of it, everyone has the same number of rounds.
const INTERVAL: u64 = 15;
/// From the start of all programs on, at least.
const WARM_UP: Duration = Duration::from_secs(16);
const UPDATE_WARM_UP: Duration = Duration::from_secs(30);
const START: Duration = Duration::from_secs(90);
/// What was measured must have arrived after so long.
const ARRIVAL: Duration = Duration::from_secs(60);
/// The name of the table's marks in README.md.
const MARKS: &str = "footprint";

/// What is there to be measured.
struct Programs {
    mote: PathBuf,
    /// What `mote` is.
    binary: &'static str,
    prometheus: PathBuf,
    exporter: Option<PathBuf>,
    vmagent: Option<PathBuf>,
    rsyslog: Option<PathBuf>,
}

/// Measures for so many seconds, prints the table, and with `update` puts it into README.md.
///
/// # Errors
/// The agent could not be built, one that is measured does not do its work, or README.md has no place for
/// the table.
pub(crate) fn footprint(context: &Context, seconds: Option<u64>, update: bool) -> Result<ExitCode> {
    let (warm_up, default) = match update {
        true => (UPDATE_WARM_UP, UPDATE_SECONDS),
        false => (WARM_UP, DEFAULT_SECONDS),
    };
    let seconds = seconds.unwrap_or(default);
    let peer = |server| match setup::obtain(context, server) {
        Ok(path) => Some(path),
        Err(why) => {
            context.say(&format!("not measured: {why}"));
            None
        }
    };
    let rsyslog = process::find("rsyslogd");
    if rsyslog.is_none() {
        context.say("not measured: rsyslogd is missing (`cargo xtask setup` gets it)");
    }
    let (mote, binary) = match dist::host(context) {
        Ok(path) => (path, table::STATIC),
        Err(why) => {
            context.say(&format!("the static binary is not measured: {why}"));
            (build::agent(context)?, table::DYNAMIC)
        }
    };
    let programs = Programs {
        prometheus: setup::obtain(context, &setup::PROMETHEUS)?,
        exporter: peer(&setup::NODE_EXPORTER),
        vmagent: peer(&setup::VMAGENT),
        rsyslog,
        mote,
        binary,
    };
    let interrupt = Interrupt::install()?;
    // The system's folder for temporary files may be in memory, where nothing is written to a disk.
    let folder = TempDir::below(&context.target, "footprint")?;
    let text = measure(context, &interrupt, &folder, &programs, warm_up, seconds)?;
    println!("\n{text}");
    if update {
        let path = context.root.join("README.md");
        let fail = |error| format!("{}: {error}", path.display());
        let old = fs::read_to_string(&path).map_err(fail)?;
        fs::write(&path, page::insert(&old, MARKS, &text)?).map_err(fail)?;
        context.say("README.md has the new table");
    }
    Ok(ExitCode::SUCCESS)
}

fn measure(
    context: &Context,
    interrupt: &Interrupt,
    folder: &TempDir,
    programs: &Programs,
    warm_up: Duration,
    seconds: u64,
) -> Result<String> {
    let folder = folder.path();
    let server = http::free_address()?;
    let mut prometheus = demo::start_prometheus(folder, &programs.prometheus, server)?;
    interrupt.wait_for("Prometheus to be ready", START, || {
        prometheus.check()?;
        Ok(demo::is_ready(server))
    })?;
    let log = folder.join("work.log");
    let volumes = volume::Volume::can_be();
    let ground = Ground { interrupt, folder, volumes, prometheus: server, log: &log };
    let extras = match every::missing() {
        None => {
            let lines = receiver::Receiver::start(receiver::Protocol::Loki)?;
            Some((Tls::start(interrupt, folder, server, lines)?, Journal::start(folder)?))
        }
        Some(program) => {
            context.say(&format!(
                "not measured: every part on, for want of {program} (`cargo xtask setup` gets it)"
            ));
            None
        }
    };
    let (tls, mut journal) = extras.unzip();
    let writer = Writer::start(&log)?;
    let began = Instant::now();
    let mut subjects = context.step("starting everyone", || {
        start(&ground, programs, tls.as_ref().zip(journal.as_ref()))
    })?;
    let mut check = |subjects: &mut Vec<Subject>| {
        prometheus.check()?;
        journal.iter_mut().try_for_each(Journal::check)?;
        subjects.iter_mut().try_for_each(|subject| subject.running.check())
    };
    context.step("warming up", || {
        interrupt.wait_for("the first rounds and lines of everyone", START, || {
            check(&mut subjects)?;
            Ok(works(&subjects, server, began.elapsed() >= warm_up))
        })
    })?;

    let looks =
        |subjects: &mut [Subject]| subjects.iter_mut().map(Look::at).collect::<Result<Vec<_>>>();
    let (first, written) = (looks(&mut subjects)?, writer.written());
    let begin = Instant::now();
    context.step(&format!("measuring for {seconds} s"), || {
        for second in 1..=seconds {
            std::thread::sleep(
                (begin + Duration::from_secs(second)).saturating_duration_since(Instant::now()),
            );
            if interrupt.requested() {
                return Err("interrupted".to_owned());
            }
            check(&mut subjects)?;
            subjects.iter_mut().try_for_each(|subject| subject.meter.look())?;
        }
        Ok(())
    })?;
    let last = looks(&mut subjects)?;
    let end = SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default().as_secs_f64();
    let lines = writer.stop()?;
    // A log that was written more slowly is less work than was promised.
    if lines - written < seconds * 90 {
        return Err(format!("only {} lines were written in {seconds} s", lines - written));
    }
    let arrived = context.step("waiting for what was sent", || {
        arrived(interrupt, &mut subjects, server, (end, seconds), lines)
    })?;

    let mut costs = Vec::new();
    for ((subject, looks), arrived) in subjects.iter().zip(first.iter().zip(&last)).zip(arrived) {
        costs.push(Cost::between(&subject.name, &subject.binary, looks, arrived)?);
    }
    let every = subjects.iter().find(|subject| subject.label == Some(EVERY.1));
    let probes = every.map(Subject::probes).transpose()?;
    Ok(table::report(&costs, seconds, programs.binary, volumes, probes.as_deref()))
}

/// Names of the rows that the targets and the ratios are about, and the labels of their series.
const BOTH: (&str, &str) = ("**Mote**, metrics and logs", "mote");
const METRICS: (&str, &str) = ("Mote, metrics alone", "mote-metrics");
const LOGS: (&str, &str) = ("Mote, logs alone", "mote-logs");
const EVERY: (&str, &str) = ("**Mote**, every part on, TLS", "mote-every");
const IDLE: (&str, &str) = ("Mote, idle", "mote-idle");

fn start(
    ground: &Ground<'_>,
    programs: &Programs,
    extras: Option<(&Tls, &Journal)>,
) -> Result<Vec<Subject>> {
    let mote = |(name, label), shape| ground.mote(name, label, &programs.mote, shape);
    let mut subjects = vec![mote(BOTH, Shape::Both)?];
    if let Some((tls, journal)) = extras {
        subjects.push(mote(EVERY, Shape::Every(tls, journal))?);
    }
    subjects.push(mote(METRICS, Shape::Metrics)?);
    subjects.push(mote(LOGS, Shape::Logs)?);
    subjects.push(mote(IDLE, Shape::Idle)?);
    if let Some(exporter) = &programs.exporter {
        let collectors = common(&programs.mote, exporter)?;
        let scrapers = [
            Some(("prometheus-agent", &programs.prometheus)),
            programs.vmagent.as_ref().map(|p| ("vmagent", p)),
        ];
        for (label, binary) in scrapers.into_iter().flatten() {
            // Each has one of its own.
            let own = if label == "vmagent" { "exporter-2" } else { "exporter-1" };
            let exporter = ground.exporter(own, exporter, &collectors)?;
            let scraper = ground.scraper(label, binary, &exporter)?;
            subjects.extend([exporter, scraper]);
        }
    }
    if let Some(rsyslog) = &programs.rsyslog {
        subjects.push(ground.rsyslog(rsyslog)?);
    }
    Ok(subjects)
}

/// Whether everyone does its work, and has had the time to settle.
fn works(subjects: &[Subject], server: SocketAddr, settled: bool) -> Answer<()> {
    for subject in subjects {
        if let Some(label) = subject.label {
            let query = format!("count(node_load1{{agent=\"{label}\"}})");
            if let Answer::NotYet(reason) = demo::value_of(server, &query) {
                return Answer::NotYet(format!("{}: {reason}", subject.name));
            }
        }
        let seen = subject.logs.as_ref().map(|logs| logs.receiver.seen());
        if let Some(seen) = seen.filter(|seen| seen.lines == 0) {
            return Answer::NotYet(format!("{}: no line ({:?})", subject.name, seen.wrong));
        }
    }
    if settled { Answer::Yes(()) } else { Answer::NotYet("the warm-up".to_owned()) }
}

/// Series and samples of each that came for these seconds before `end`.
type Arrived = (Option<f64>, Option<f64>);

/// Waits until all has come, which is the condition for measuring anything.
fn arrived(
    interrupt: &Interrupt,
    subjects: &mut [Subject],
    server: SocketAddr,
    (end, seconds): (f64, u64),
    lines: u64,
) -> Result<Vec<Arrived>> {
    let mut all = Vec::new();
    for subject in subjects {
        let name = subject.name.clone();
        if subject.logs.is_some() {
            interrupt.wait_for(&format!("the lines of {name}"), ARRIVAL, || {
                subject.running.check()?;
                let Some(logs) = &subject.logs else { return Ok(Answer::Yes(())) };
                let seen = logs.receiver.seen();
                if let Some(wrong) = seen.wrong {
                    return Err(format!("{name} sends what Loki would refuse: {wrong}"));
                }
                if seen.again > 0 || (seen.others > 0) != logs.others {
                    return Err(format!(
                        "{name}: {} lines twice, {} others",
                        seen.again, seen.others
                    ));
                }
                Ok(match seen.lines == lines {
                    true => Answer::Yes(()),
                    false => Answer::NotYet(format!("{} of {lines} lines", seen.lines)),
                })
            })?;
        }
        let Some(label) = subject.label else {
            all.push((None, None));
            continue;
        };
        let ask = |what: &str| {
            demo::value_of(server, &what.replace("[]", &format!("[{seconds}s] @ {end:.3}")))
        };
        // The first or the last may be a moment outside.
        let due = if subject.paced { (seconds / INTERVAL - 1) as f64 } else { 0.0 };
        if subject.paced {
            interrupt.wait_for(&format!("the rounds of {name}"), ARRIVAL, || {
                subject.running.check()?;
                let rounds = format!("sum(count_over_time(node_load1{{agent=\"{label}\"}}[]))");
                Ok(match ask(&rounds) {
                    Answer::Yes(rounds) if rounds >= due => Answer::Yes(()),
                    Answer::Yes(rounds) => Answer::NotYet(format!("{rounds} of {due}")),
                    Answer::NotYet(reason) => Answer::NotYet(reason),
                })
            })?;
        }
        let samples = format!("{{agent=\"{label}\"}}[{seconds}s] @ {end:.3}");
        let query = format!("/api/v1/query?query={}", http::encode(&samples));
        all.push(counted(&http::get(server, &query)?.body));
    }
    Ok(all)
}

/// The series in an answer with samples, and how many those are.
fn counted(body: &str) -> Arrived {
    let answer: Option<serde_json::Value> = serde_json::from_str(body).ok();
    let series = answer.as_ref().and_then(|answer| answer.pointer("/data/result")?.as_array());
    let samples = series.map(|series| {
        let each = series.iter().filter_map(|series| Some(series.get("values")?.as_array()?.len()));
        each.sum::<usize>() as f64
    });
    (series.map(|series| series.len() as f64), samples)
}

/// What each probe gets its facts from, such as `block: tracepoint`.
fn probe_modes(page: &str) -> String {
    let modes: Vec<String> = page
        .lines()
        .filter_map(|line| {
            let labels = line.strip_prefix("mote_probe_mode{")?.strip_suffix("} 1")?;
            let label = |name: &str| {
                let (_, rest) = labels.split_once(&format!("{name}=\""))?;
                rest.split_once('"').map(|(value, _)| value)
            };
            Some(format!("{}: {}", label("probe")?, label("mode")?))
        })
        .collect();
    if modes.is_empty() { "none".to_owned() } else { modes.join(", ") }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn samples_in_an_answer_are_counted() {
        let body = r#"{"data":{"result":[{"values":[[1,"2"],[2,"3"]]},{"values":[[1,"4"]]}]}}"#;
        assert_eq!(counted(body), (Some(2.0), Some(3.0)));
        assert_eq!(counted("{}"), (None, None));
    }

    #[test]
    fn the_probes_are_read_from_a_page() {
        let page = "mote_probe_mode{probe=\"block\",mode=\"tracepoint\"} 1\n\
                    mote_probe_mode{probe=\"block\",mode=\"off\"} 0\n";
        assert_eq!(probe_modes(page), "block: tracepoint");
        assert_eq!(probe_modes(""), "none");
    }
}
