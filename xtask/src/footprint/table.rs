//! The page's table: a row for each program, for those that do the work together, and for peers that were
//! measured elsewhere; then the ratios, and the targets with what came of them, kept or missed.

use std::fmt::Write as _;

use super::cost::Cost;
use super::{BOTH, EVERY, IDLE, LOGS, METRICS};

const MIB: f64 = 1_048_576.0;
const KIB: f64 = 1_024.0;

/// What of the agent is measured.
pub(super) const STATIC: &str = "the static binary of `cargo xtask dist`";
pub(super) const DYNAMIC: &str = "a release with the system's C library";

/// Peers that Debian does not have, measured with the same work in November 2026 on another x86_64 machine with
/// two CPUs, 185 s after 30 s, against a real Mimir and a real Loki.
fn elsewhere() -> Vec<Cost> {
    let peer =
        |name: &str, resident: f64, pss: f64, anonymous: f64, cpu, disk: f64, wire: f64| Cost {
            name: format!("*{name}*"),
            resident: resident * MIB,
            proportional: Some(pss * MIB),
            anonymous: Some(anonymous * MIB),
            cpu,
            written: Some(disk * KIB),
            wire: Some(wire * KIB),
            ..Cost::default()
        };
    vec![
        peer(
            "Fluent Bit 5.1.1, metrics and logs, file buffer",
            18.2,
            14.2,
            6.1,
            0.259,
            3_947.0,
            1_004.0,
        ),
        peer(
            "node_exporter 1.11.1 + Prometheus 3.5.3 in agent mode + Promtail 3.6.15",
            168.6,
            165.7,
            51.1,
            0.748,
            115.0,
            207.6,
        ),
    ]
}

/// Everything that goes between the marks.
pub(super) fn report(
    costs: &[Cost],
    seconds: u64,
    binary: &str,
    volumes: bool,
    probes: Option<&str>,
) -> String {
    let named = |start: &str| costs.iter().find(|cost| cost.name.starts_with(start));
    let mut rows: Vec<Cost> = costs.to_vec();
    // Each scraper stands behind its own node_exporter.
    let stack = |scraper: &str| {
        let at = costs.iter().position(|cost| cost.name.starts_with(scraper))?;
        Some((costs.get(at.checked_sub(1)?)?, costs.get(at)?))
    };
    let mut stacks = Vec::new();
    for (scraper, short) in [("Prometheus", "Prometheus"), ("vmagent", "vmagent")] {
        let Some((exporter, scraper)) = stack(scraper) else { continue };
        let name = format!("node_exporter + {short}");
        let metrics = Cost::together(&name, &[exporter, scraper]);
        if let Some(rsyslog) = named("rsyslog") {
            let name = format!("{name} + rsyslog");
            stacks.push((BOTH.0, Cost::together(&name, &[&metrics, rsyslog])));
        }
        stacks.push((METRICS.0, metrics));
    }
    rows.extend(stacks.iter().map(|(_, stack)| stack.clone()));
    rows.extend(elsewhere());
    if let Some(rsyslog) = named("rsyslog") {
        stacks.push((LOGS.0, rsyslog.clone()));
    }

    let mut text = table(&rows);
    text.push_str("\n\nRatios, each of the same work in the same minutes:\n\n");
    text.push_str(&ratios(costs, &stacks));
    text.push_str("\n\nTargets, against the peers that were measured elsewhere (Fluent Bit's figures above):\n\n");
    for target in targets(costs) {
        let _ = writeln!(text, "- {target}");
    }
    let _ = write!(
        text,
        "\n{}, Linux {}, {} CPUs; {seconds} s, all at once. The work: host metrics every 15 s to a \
         Prometheus, a log file at 100 lines of {} bytes a second to a stand-in for Loki that decodes every push; all \
         rounds came, and each line once. Memory at the end, in brackets the peak since the start; CPU is user and \
         system; written is what /proc/PID/io says, {}; the wire is client to server with all heads; a wake-up \
         is a voluntary context switch. Mote is {} and has its defaults but for the interval, the pace of sending that goes \
         with it, and the probes, which are off; with every part on they are not ({}), a journal \
         with an entry a second is read too, and both servers are spoken to by TLS and HTTP/2; idle is the defaults \
         with a round a minute and a log file that nobody writes to. node_exporter has the collectors that both \
         have; vmagent keeps nothing on disk while its server answers; rsyslog sends plain lines over TCP from a queue on \
         disk. *In italics*: measured in November 2026 on another x86_64 with 2 CPUs, 185 s, the same work to a real \
         Mimir and Loki. Repeat it with `cargo xtask footprint`.",
        std::env::consts::ARCH,
        rustix::system::uname().release().to_string_lossy(),
        std::thread::available_parallelism().map_or(1, usize::from),
        super::lines::LENGTH,
        match volumes {
            true => "to the device is all that reaches an ext4 of its own",
            false => "the device was not looked at, for want of root",
        },
        binary,
        probes.unwrap_or("not measured"),
    );
    text
}

type Figure = (&'static str, fn(&Cost) -> Option<f64>, usize);

/// What the ratios are about; the other columns are the table's alone.
const RATIOS: [Figure; 8] = [
    ("resident", |cost| Some(cost.resident), 2),
    ("anonymous", |cost| cost.anonymous, 2),
    ("PSS", |cost| cost.proportional, 2),
    ("CPU", |cost| Some(cost.cpu), 2),
    ("written", |cost| cost.written, 2),
    ("to the device", |cost| cost.device, 2),
    ("wire", |cost| cost.wire, 2),
    ("context switches", |cost| cost.switches, 2),
];

fn table(rows: &[Cost]) -> String {
    const FIGURES: [Figure; 11] = [
        ("anonymous", |cost| cost.anonymous.map(|v| v / MIB), 1),
        ("PSS", |cost| cost.proportional.map(|v| v / MIB), 1),
        ("CPU s/min", |cost| Some(cost.cpu), 3),
        ("written KiB/min", |cost| cost.written.map(|v| v / KIB), 0),
        ("to the device", |cost| cost.device.map(|v| v / KIB), 0),
        ("wire KiB/min", |cost| cost.wire.map(|v| v / KIB), 0),
        ("bytes a sample", |cost| cost.sample, 1),
        ("wake-ups/min", |cost| cost.wake_ups, 0),
        ("switches/min", |cost| cost.switches, 0),
        ("threads", |cost| cost.threads, 0),
        ("binary MiB", |cost| cost.binary.map(|v| v / MIB), 1),
    ];
    let mut text = String::from("| | resident MiB (peak) |");
    FIGURES.iter().for_each(|(head, ..)| {
        let _ = write!(text, " {head} |");
    });
    text.push_str(" series |\n|---|---:|");
    text.push_str(&"---:|".repeat(FIGURES.len() + 1));
    for cost in rows {
        let peak = match cost.peak {
            0.0 => String::new(),
            peak => format!(" ({:.1})", peak / MIB),
        };
        let _ = write!(text, "\n| {} | {:.1}{peak} |", cost.name, cost.resident / MIB);
        let series: Figure = ("", |cost| cost.series, 0);
        for (_, figure, digits) in FIGURES.iter().chain([&series]) {
            text.push_str(&cell(figure(cost), *digits));
        }
    }
    text
}

fn ratios(costs: &[Cost], stacks: &[(&str, Cost)]) -> String {
    let mut text = String::from("| |");
    RATIOS.iter().for_each(|(head, ..)| {
        let _ = write!(text, " {head} |");
    });
    text.push_str("\n|---|");
    text.push_str(&"---:|".repeat(RATIOS.len()));
    for (ours, theirs) in stacks {
        let Some(ours) = costs.iter().find(|cost| cost.name == *ours) else { continue };
        let _ = write!(text, "\n| {} / {} |", ours.name.replace("**", ""), theirs.name);
        for (_, figure, digits) in &RATIOS {
            let ratio = figure(ours).zip(figure(theirs).filter(|value| *value > 0.0));
            text.push_str(&cell(ratio.map(|(ours, theirs)| ours / theirs), *digits));
        }
    }
    text
}

fn cell(value: Option<f64>, digits: usize) -> String {
    value.map_or_else(|| " – |".to_owned(), |value| format!(" {value:.digits$} |"))
}

/// Each with its figure, and whether it is met. Nothing is rounded in anyone's favour.
fn targets(costs: &[Cost]) -> Vec<String> {
    let of = |name: &str| costs.iter().find(|cost| cost.name == name);
    let said = |what: &str, limit: f64, value: Option<f64>, unit: &str, digits: usize| match value {
        None => format!("{what}, at most {limit:.digits$} {unit}: not measured"),
        Some(value) if value <= limit => {
            format!("{what}, at most {limit:.digits$} {unit}: {value:.digits$}, met")
        }
        Some(value) => {
            format!("{what}, at most {limit:.digits$} {unit}: {value:.digits$}, **missed**")
        }
    };
    let every = of(EVERY.0);
    vec![
        said(
            "resident memory with every part on (a third of Fluent Bit's)",
            6.0,
            every.map(|cost| cost.resident / MIB),
            "MiB",
            2,
        ),
        said(
            "anonymous memory with every part on",
            3.0,
            every.and_then(|cost| cost.anonymous).map(|bytes| bytes / MIB),
            "MiB",
            2,
        ),
        said(
            "CPU for metrics and logs (a fifth of Fluent Bit's)",
            0.259 / 5.0,
            of(BOTH.0).map(|cost| cost.cpu),
            "s a minute",
            4,
        ),
        said(
            "written for metrics and logs (a hundredth of Fluent Bit's)",
            3_947.0 / 100.0,
            of(BOTH.0).and_then(|cost| cost.written).map(|bytes| bytes / KIB),
            "KiB a minute",
            1,
        ),
        format!(
            "wake-ups at idle, for which there is no target: {} a minute",
            of(IDLE.0)
                .and_then(|cost| cost.wake_ups)
                .map_or("–".to_owned(), |n| format!("{n:.0}"))
        ),
    ]
}

#[cfg(test)]
mod tests {
    use super::*;

    fn cost(name: &str, mib: f64) -> Cost {
        Cost {
            name: name.to_owned(),
            resident: mib * MIB,
            cpu: 0.04,
            written: Some(50.0 * KIB),
            wire: Some(KIB),
            ..Cost::default()
        }
    }

    #[test]
    fn a_miss_is_told_with_its_figure() {
        let said = targets(&[cost(EVERY.0, 6.01), cost(BOTH.0, 5.0)]).join("\n");
        assert!(said.contains("at most 6.00 MiB: 6.01, **missed**"), "{said}");
        assert!(said.contains("s a minute: 0.0400, met"), "{said}");
        assert!(said.contains("39.5 KiB a minute: 50.0, **missed**"), "{said}");
        assert!(said.contains("3.00 MiB: not measured"), "{said}");
        assert!(targets(&[])[0].ends_with("not measured"));
    }

    #[test]
    fn ratios_are_of_the_same_work() {
        let costs = [
            cost(BOTH.0, 5.0),
            cost(METRICS.0, 4.0),
            cost(LOGS.0, 4.0),
            cost("node_exporter 1", 10.0),
            cost("Prometheus 2, agent mode", 30.0),
            cost("rsyslog 8", 10.0),
        ];
        let text = report(&costs, 45, STATIC, true, Some("none"));
        for line in [
            "| Mote, metrics and logs / node_exporter + Prometheus + rsyslog | 0.10 | – | – | 0.33 |",
            "| Mote, metrics alone / node_exporter + Prometheus | 0.10 |",
            "| Mote, logs alone / rsyslog 8 | 0.40 |",
            "| node_exporter + Prometheus | 40.0 |",
            "| *Fluent Bit 5.1.1, metrics and logs, file buffer* | 18.2 | 6.1 | 14.2 | 0.259 | 3947 | – |",
        ] {
            assert!(text.contains(line), "{line} is not in:\n{text}");
        }
        assert!(!text.contains("vmagent |"), "{text}");
    }
}
