//! `cargo xtask footprint`: what the agent costs, measured from outside while it works, beside
//! node_exporter doing the same in the same minutes, so that the ratios hold on a busy machine too.
//!
//! The agent runs on its defaults but for the interval (one second, so that a minute has sixty
//! rounds), the state directory and the port. node_exporter collects the same collectors and is
//! scraped every second. It keeps nothing; the agent also writes its WAL.

use std::fmt::Write as _;
use std::fs;
use std::net::SocketAddr;
use std::path::Path;
use std::process::{Command, ExitCode};
use std::time::{Duration, Instant};

use crate::context::Context;
use crate::process::{Answer, Interrupt, Running};
use crate::procfs::Snapshot;
use crate::temp::TempDir;
use crate::{Result, build, http, page, process, setup};

/// How long is measured, unless told otherwise.
pub(crate) const DEFAULT_SECONDS: u64 = 60;
/// Fewer rounds say nothing.
pub(crate) const MINIMUM_SECONDS: u64 = 5;

const WARM_UP_ROUNDS: f64 = 10.0;
const START: Duration = Duration::from_secs(60);
const INTERVAL: Duration = Duration::from_secs(1);
/// The name of the table's marks in README.md.
const MARKS: &str = "footprint";

/// What was measured of one process.
struct Cost {
    name: String,
    binary: u64,
    series: usize,
    end: Snapshot,
    /// Per minute.
    cpu_seconds: f64,
    context_switches: f64,
    written: f64,
}

/// Measures for so many seconds, prints the table, and with `update` puts it into README.md.
///
/// # Errors
/// The agent could not be built or does not work, or README.md has no place for the table.
pub(crate) fn footprint(context: &Context, seconds: u64, update: bool) -> Result<ExitCode> {
    let exporter = setup::locate(context, &setup::NODE_EXPORTER)?;
    if exporter.is_none() {
        context.say("no node_exporter (`cargo xtask setup` gets it): no ratios");
    }
    let mote = build::agent(context)?;
    let interrupt = Interrupt::install()?;
    let folder = TempDir::new("footprint")?;
    let table = measure(context, &interrupt, &folder, &mote, exporter.as_deref(), seconds)?;
    println!("\n{table}");
    if update {
        let path = context.root.join("README.md");
        let fail = |error| format!("{}: {error}", path.display());
        let text = fs::read_to_string(&path).map_err(fail)?;
        let text = page::insert(&text, MARKS, &table)?;
        fs::write(&path, text).map_err(fail)?;
        context.say("README.md has the new table");
    }
    Ok(ExitCode::SUCCESS)
}

fn measure(
    context: &Context,
    interrupt: &Interrupt,
    folder: &TempDir,
    mote: &Path,
    exporter: Option<&Path>,
    seconds: u64,
) -> Result<String> {
    let address = http::free_address()?;
    let mut agent = start_agent(folder.path(), mote, address)?;
    let mut peer = match exporter {
        Some(program) => {
            let collectors = common(mote, program)?;
            Some(start_exporter(interrupt, folder.path(), program, &collectors)?)
        }
        None => None,
    };
    // A second's sleep, a scrape of the peer; the agent works by itself.
    let mut next = Instant::now();
    let mut tick = |agent: &mut Running, peer: &mut Option<(Running, SocketAddr)>| {
        next += INTERVAL;
        std::thread::sleep(next.saturating_duration_since(Instant::now()));
        if interrupt.requested() {
            return Err("interrupted".to_owned());
        }
        agent.check()?;
        match peer {
            Some((running, address)) => {
                running.check()?;
                let body = http::get(*address, "/metrics")?.body;
                Ok(Some(series_in(&body)))
            }
            None => Ok(None),
        }
    };

    let before = context.step(&format!("warming up for {WARM_UP_ROUNDS} rounds"), || {
        interrupt.wait_for("the agent's first rounds", START, || {
            agent.check()?;
            tick(&mut agent, &mut peer)?;
            Ok(match records(address) {
                Ok(count) if count >= WARM_UP_ROUNDS => Answer::Yes(count),
                Ok(count) => Answer::NotYet(format!("{count} records in the WAL")),
                Err(reason) => Answer::NotYet(reason),
            })
        })
    })?;
    let first = Snapshot::take(agent.id())?;
    let first_of_peer = peer.as_ref().map(|(peer, _)| Snapshot::take(peer.id())).transpose()?;
    let mut peer_series = None;
    context.step(&format!("measuring for {seconds} s"), || {
        for _ in 0..seconds {
            peer_series = tick(&mut agent, &mut peer)?;
        }
        Ok(())
    })?;
    let last = Snapshot::take(agent.id())?;
    let last_of_peer = peer.as_ref().map(|(peer, _)| Snapshot::take(peer.id())).transpose()?;

    // An agent that had stopped collecting would look wonderfully cheap.
    let rounds = records(address)? - before;
    if rounds < seconds as f64 * 0.8 {
        return Err(format!(
            "the agent wrote {rounds} records in {seconds} s; at least one a \
            second was due, so the measurement is worth nothing"
        ));
    }
    let series = series_in(&http::get(address, "/metrics?collect=node")?.body);
    let probes = probe_modes(&http::get(address, "/metrics")?.body);
    agent.stop()?;

    let mut costs = vec![Cost::new("Mote".to_owned(), mote, series, first, last)?];
    if let (Some(program), Some(first), Some(last)) = (exporter, first_of_peer, last_of_peer) {
        let name = version_of(program)?;
        costs.push(Cost::new(name, program, peer_series.unwrap_or_default(), first, last)?);
    }
    Ok(table(&costs, &probes, seconds))
}

impl Cost {
    fn new(
        name: String,
        binary: &Path,
        series: usize,
        first: Snapshot,
        last: Snapshot,
    ) -> Result<Cost> {
        let size =
            fs::metadata(binary).map_err(|error| format!("{}: {error}", binary.display()))?;
        let minutes = last.at.duration_since(first.at).as_secs_f64() / 60.0;
        // Threads that have ended take their counts with them.
        let a_minute = |last: u64, first: u64| last.saturating_sub(first) as f64 / minutes;
        Ok(Cost {
            name,
            binary: size.len(),
            series,
            cpu_seconds: a_minute(last.cpu_nanoseconds, first.cpu_nanoseconds) / 1e9,
            context_switches: a_minute(last.context_switches, first.context_switches),
            written: a_minute(last.written, first.written),
            end: last,
        })
    }
}

fn start_agent(folder: &Path, program: &Path, address: SocketAddr) -> Result<Running> {
    let config = folder.join("mote.toml");
    let text = format!(
        "[agent]\ninterval = \"1s\"\nstate_dir = {:?}\n\n[http]\nlisten = \"{address}\"\n",
        folder.join("state")
    );
    fs::write(&config, text).map_err(|error| format!("{}: {error}", config.display()))?;
    let mut command = Command::new(program);
    command.arg("run").arg("--config").arg(&config);
    Running::start("the agent", &mut command, Some(&folder.join("mote.log")))
}

/// The agent's default collectors that node_exporter has, too, and runs here without others.
fn common(mote: &Path, exporter: &Path) -> Result<Vec<String>> {
    let said = |program: &Path, arguments: &[&str]| {
        let output = Command::new(program).args(arguments).output();
        let output = output.map_err(|error| format!("{}: {error}", program.display()))?;
        let text = [output.stdout, output.stderr].concat();
        Ok::<_, String>(String::from_utf8_lossy(&text).into_owned())
    };
    let help = said(exporter, &["--help"])?;
    let round = said(mote, &["run", "--once", "--stdout", "--set", "probes.default=off"])?;
    let mark = "node_scrape_collector_success{collector=\"";
    let ours = round.lines().filter_map(|line| line.strip_prefix(mark)?.split('"').next());
    let has =
        |name: &&str| help.split_whitespace().any(|word| word == format!("--collector.{name}"));
    let names: Vec<String> = ours.filter(has).map(str::to_owned).collect();
    if names.len() < 10 {
        return Err(format!("only {} collectors in common with node_exporter", names.len()));
    }
    Ok(names)
}

fn start_exporter(
    interrupt: &Interrupt,
    folder: &Path,
    program: &Path,
    collectors: &[String],
) -> Result<(Running, SocketAddr)> {
    let address = http::free_address()?;
    let mut command = Command::new(program);
    command
        .arg(format!("--web.listen-address={address}"))
        .args(["--web.disable-exporter-metrics", "--collector.disable-defaults"])
        .args(collectors.iter().map(|name| format!("--collector.{name}")));
    let mut running =
        Running::start("node_exporter", &mut command, Some(&folder.join("node_exporter.log")))?;
    interrupt.wait_for("node_exporter to answer", START, || {
        running.check()?;
        Ok(match http::get(address, "/metrics") {
            Ok(response) if response.status == 200 => Answer::Yes(()),
            Ok(response) => Answer::NotYet(format!("status {}", response.status)),
            Err(error) => Answer::NotYet(error),
        })
    })?;
    Ok((running, address))
}

/// How many records the agent has put into its WAL of metrics.
fn records(address: SocketAddr) -> Result<f64> {
    let body = http::get(address, "/metrics")?.body;
    body.lines()
        .find_map(|line| line.strip_prefix("mote_wal_records_total{wal=\"metrics\"} "))
        .and_then(|value| value.trim().parse().ok())
        .ok_or_else(|| {
            format!("http://{address}/metrics has no mote_wal_records_total{{wal=\"metrics\"}}")
        })
}

/// The samples in a page of the Prometheus text format.
fn series_in(page: &str) -> usize {
    page.lines().filter(|line| !line.is_empty() && !line.starts_with('#')).count()
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

/// `node_exporter 1.5.0`, from what its `--version` says.
fn version_of(program: &Path) -> Result<String> {
    let mut command = Command::new(program);
    let output = command
        .arg("--version")
        .output()
        .map_err(|error| format!("`{}`: {error}", process::describe(&command)))?;
    let text = [output.stdout, output.stderr].concat();
    let version = String::from_utf8_lossy(&text)
        .split_once("version ")
        .and_then(|(_, rest)| rest.split_ascii_whitespace().next().map(str::to_owned));
    Ok(format!("node_exporter {}", version.unwrap_or_default()).trim_end().to_owned())
}

/// The table, in Markdown. Ratios are the agent's number by the peer's.
fn table(costs: &[Cost], probes: &str, seconds: u64) -> String {
    type Column = (&'static str, fn(&Cost) -> f64, usize);
    const MIB: f64 = 1048576.0;
    let rows: [Column; 9] = [
        ("binary, MiB", |cost| cost.binary as f64 / MIB, 2),
        ("resident memory, MiB", |cost| cost.end.resident as f64 / MIB, 2),
        ("of it anonymous, MiB", |cost| cost.end.anonymous as f64 / MIB, 2),
        ("proportional memory (PSS), MiB", |cost| cost.end.proportional as f64 / MIB, 2),
        ("threads", |cost| cost.end.threads as f64, 0),
        ("CPU, seconds a minute", |cost| cost.cpu_seconds, 3),
        ("context switches a minute", |cost| cost.context_switches, 0),
        ("written to disk, KiB a minute", |cost| cost.written / 1024.0, 0),
        ("series", |cost| cost.series as f64, 0),
    ];
    let mut text = String::from("| |");
    for cost in costs {
        let _ = write!(text, " {} |", cost.name);
    }
    let with_ratio = costs.len() == 2;
    text.push_str(if with_ratio { " ratio |\n|---|" } else { "\n|---|" });
    text.push_str(&"---:|".repeat(costs.len() + usize::from(with_ratio)));
    for (name, value, digits) in rows {
        let _ = write!(text, "\n| {name} |");
        for cost in costs {
            let _ = write!(text, " {:.digits$} |", value(cost));
        }
        if let [ours, peer] = costs {
            match value(peer) {
                0.0 => text.push_str(" – |"),
                theirs => {
                    let _ = write!(text, " {:.2} |", value(ours) / theirs);
                }
            }
        }
    }
    let _ = write!(
        text,
        "\n\n{}, Linux {}, {} CPUs; {seconds} s at an interval of 1 s, defaults otherwise; probes: \
         {probes}.{} Repeat it with `cargo xtask footprint`.",
        std::env::consts::ARCH,
        rustix::system::uname().release().to_string_lossy(),
        std::thread::available_parallelism().map_or(1, usize::from),
        if with_ratio {
            " node_exporter runs the same collectors and is scraped as often; it stores nothing, \
             Mote also writes its WAL."
        } else {
            ""
        },
    );
    text
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_page_is_counted_and_the_probes_read() {
        let page = "# HELP a A.\n# TYPE a gauge\na 1\na{b=\"c\"} 2\n\
                    mote_probe_mode{probe=\"block\",mode=\"tracepoint\"} 1\n\
                    mote_probe_mode{probe=\"block\",mode=\"off\"} 0\n";
        assert_eq!(series_in(page), 4);
        assert_eq!(probe_modes(page), "block: tracepoint");
        assert_eq!(probe_modes(""), "none");
    }

    #[test]
    fn a_table_has_a_ratio_only_beside_a_peer() {
        let snapshot = Snapshot::take(std::process::id()).expect("our own process");
        let cost = |name: &str, cpu_seconds: f64| Cost {
            name: name.to_owned(),
            binary: 1 << 20,
            series: 500,
            end: snapshot,
            cpu_seconds,
            context_switches: 0.0,
            written: 0.0,
        };
        let both = table(&[cost("Mote", 0.01), cost("peer", 0.1)], "none", 60);
        assert!(both.contains("| CPU, seconds a minute | 0.010 | 0.100 | 0.10 |"), "{both}");
        assert!(both.contains("| context switches a minute | 0 | 0 | – |"), "{both}");
        let alone = table(&[cost("Mote", 0.01)], "none", 60);
        assert!(alone.contains("| CPU, seconds a minute | 0.010 |\n"), "{alone}");
        assert!(alone.starts_with("| | Mote |\n|---|---:|\n"), "{alone}");
    }
}
