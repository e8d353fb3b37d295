//! The report as a person reads it: what `mote status` prints and the status page shows.

use std::fmt::Write;

/// The state of a collector for which there is nothing on this host.
const NO_DATA: &str = "no data";

use super::{ClockReport, MemoryReport, PartReport, Report};

/// The report as text.
pub fn render(report: &Report) -> String {
    let mut out = String::new();
    // Writing to a String does not fail.
    let _ = write(report, &mut out);
    out
}

fn write(r: &Report, out: &mut String) -> std::fmt::Result {
    writeln!(
        out,
        "mote {} on {}, pid {}, up {}",
        r.version,
        r.instance,
        r.pid,
        span(r.uptime_seconds)
    )?;
    let config = if r.config.is_empty() { "the built-in default" } else { &r.config };
    writeln!(out, "configuration: {config}")?;
    if !r.board.is_empty() {
        writeln!(out, "board: {} ({})", r.board, r.board_by)?;
    }
    writeln!(
        out,
        "memory: {} resident, {} live; CPU: {:.2} s",
        bytes(r.memory.resident_bytes),
        bytes(r.memory.live_bytes),
        r.cpu_seconds
    )?;
    budget(&r.memory, out)?;
    writeln!(
        out,
        "rounds: every {}, {} samples in the newest",
        span(r.interval_seconds),
        r.last_round_samples
    )?;

    clock(&r.clock, out)?;

    writeln!(out, "\ncollectors")?;
    for c in r.collectors.iter().filter(|c| c.state != NO_DATA) {
        let ms = c.duration_seconds * 1000.0;
        let state = if c.state == "failed" { "FAILED" } else { &c.state };
        let every = match c.every_seconds {
            0.0 => String::new(),
            seconds => format!("every {}  ", span(seconds)),
        };
        let refused = match c.refused {
            0 => String::new(),
            refused => format!("REFUSED {refused} samples: metrics.max_series  "),
        };
        let note = match c.passed_over {
            true => "PASSED OVER: memory is short",
            false => c.note.as_deref().unwrap_or_default(),
        };
        let line = format!(
            "  {:<16} {state:<8} {:>5} series {ms:>8.2} ms  {every}{refused}{note}",
            c.name, c.series
        );
        writeln!(out, "{}", line.trim_end())?;
    }
    // Why is in the JSON: a line for each would hide the others.
    let absent: Vec<_> =
        r.collectors.iter().filter(|c| c.state == NO_DATA).map(|c| c.name.as_str()).collect();
    for (index, names) in absent.chunks(8).enumerate() {
        let head = if index == 0 { "no data here:" } else { "" };
        writeln!(out, "  {head:<16} {}", names.join(", "))?;
    }
    writeln!(out, "\nprobes")?;
    for p in &r.probes {
        writeln!(out, "{}", format!("  {:<12} {:<10} {}", p.name, p.mode, p.reason).trim_end())?;
    }
    if !r.targets.is_empty() {
        writeln!(out, "\nscrapes")?;
    }
    for t in &r.targets {
        let state = if t.state == "down" { "DOWN" } else { &t.state };
        let ms = t.duration_seconds * 1000.0;
        let failed = match t.failures {
            0 => String::new(),
            failures => format!("  {failures} of {} scrapes failed", t.scrapes),
        };
        let error = t.error.as_deref().map(|error| format!("  {error}")).unwrap_or_default();
        writeln!(
            out,
            "  {:<16} {:<24} {state:<8} {:>5} series {ms:>8.2} ms{failed}{error}",
            t.job, t.instance, t.series
        )?;
    }
    if !r.sources.is_empty() || r.stages.is_some() {
        writeln!(out, "\nlogs")?;
    }
    for source in &r.sources {
        let paused = match (source.paused, source.short) {
            (true, true) => "  PAUSED: memory is short",
            (true, false) => "  PAUSED: the WAL is full",
            (false, _) => "",
        };
        let counts: Vec<_> = source
            .counts
            .iter()
            .filter(|(_, count)| **count > 0)
            .map(|(what, count)| format!("{count} {what}"))
            .collect();
        writeln!(out, "  {}  {}{paused}", source.name, counts.join(", "))?;
    }
    if let Some(stages) = &r.stages {
        let counts = [
            (stages.held, "entries waiting for more lines"),
            (
                stages.overflow,
                "entries in job=\"mote/overflow\": more streams than logs.max_streams",
            ),
            (stages.trimmed, "entries trimmed to Loki's bounds"),
            (stages.truncated, "joined lines cut at logs.max_line"),
        ];
        let counts = counts.iter().filter(|(count, _)| *count > 0);
        let counts: String = counts.map(|(count, what)| format!(", {count} {what}")).collect();
        writeln!(out, "  streams  {} active{counts}", stages.streams)?;
        for (stage, count) in &stages.misses {
            writeln!(out, "  [[logs.stage]] {stage}  could do nothing with {count} entries")?;
        }
    }
    writeln!(out, "\nWALs")?;
    for w in &r.wals {
        writeln!(
            out,
            "  {:<8} {} of {}, {} records and {} written, in {}",
            w.name,
            bytes(w.bytes),
            bytes(w.max_bytes),
            w.records,
            bytes(w.written_bytes),
            w.path
        )?;
        if let Some(failure) = &w.failure {
            writeln!(out, "           FAILED: {failure}")?;
        }
    }
    writeln!(out, "\nendpoints")?;
    if r.endpoints.is_empty() {
        writeln!(out, "  none configured: data stays in the WAL, up to its bound")?;
    }
    for e in &r.endpoints {
        let requests: Vec<_> =
            e.requests.iter().map(|(code, count)| format!("{count}×{code}")).collect();
        writeln!(
            out,
            "  {:<8} {}  {} sent, oldest waiting {}, answers: {}",
            e.signal,
            e.url,
            e.sent,
            span(e.lag_seconds),
            if requests.is_empty() { "none yet".to_owned() } else { requests.join(" ") }
        )?;
        if !e.protocol.is_empty() {
            writeln!(out, "           {}", e.protocol)?;
        }
        if let Some(trouble) = &e.trouble {
            writeln!(out, "           TROUBLE: {trouble}")?;
        }
        if let Some(why) = &e.waits {
            writeln!(out, "           WAITS: {why}")?;
        }
    }
    if let Some(egress) = &r.egress {
        let (today, daily) = (bytes(egress.today_bytes), bytes(egress.daily_bytes));
        writeln!(out, "  today {today} of {daily} were sent (UTC)")?;
    }
    if !r.dropped.is_empty() {
        writeln!(out, "\ndropped")?;
    }
    for d in &r.dropped {
        writeln!(out, "  {:<8} {:<16} {}", d.signal, d.reason, d.count)?;
    }
    Ok(())
}

fn budget(m: &MemoryReport, out: &mut String) -> std::fmt::Result {
    let share = m.live_bytes.saturating_mul(100) / m.limit_bytes.max(1);
    write!(out, "  {share} % of {}", bytes(m.limit_bytes))?;
    match m.cgroup_bytes {
        Some([limit, held]) if m.limit_bytes < m.configured_bytes => write!(
            out,
            ", what the cgroup's {} leave with {} held; agent.memory_limit is {}",
            bytes(limit),
            bytes(held),
            bytes(m.configured_bytes)
        )?,
        _ => write!(out, " (agent.memory_limit)")?,
    }
    write!(out, ", at most {} so far", bytes(m.peak_bytes))?;
    match m.pressure.0 {
        0 => writeln!(out)?,
        _ => writeln!(out, "; SHORT: giving back {}", m.pressure.1)?,
    }
    // Small ones say little; what is freed by another part than has allocated it may be below zero.
    let parts = m.parts.iter().filter(|part| part.live_bytes >= 16 << 10);
    let part = |part: &PartReport| {
        let live = bytes(u64::try_from(part.live_bytes).unwrap_or(0));
        match part.reserved_bytes {
            Some(reserved) if reserved > 0 => {
                format!("{} {live} ({} reserved)", part.name, bytes(reserved))
            }
            _ => format!("{} {live}", part.name),
        }
    };
    let parts: Vec<_> = parts.map(part).collect();
    if !parts.is_empty() {
        writeln!(out, "  of it {}", parts.join(", "))?;
    }
    let begun: Vec<_> = m.steps.iter().filter(|(_, count)| *count > 0).collect();
    if !begun.is_empty() {
        let begun: Vec<_> = begun.iter().map(|(step, count)| format!("{step} {count}×")).collect();
        writeln!(out, "  it has been short before: {}", begun.join(", "))?;
    }
    Ok(())
}

fn clock(c: &ClockReport, out: &mut String) -> std::fmt::Result {
    write!(out, "clock: ")?;
    match c.held {
        true => write!(out, "NOT BELIEVED, all is held for {}", span(c.held_seconds))?,
        false => write!(out, "believed")?,
    }
    write!(out, ": {}", c.why)?;
    if c.steps_forward + c.steps_backward > 0 {
        write!(out, "; set forward {}×, back {}×", c.steps_forward, c.steps_backward)?;
    }
    if c.estimated_samples + c.estimated_entries > 0 {
        let (samples, entries) = (c.estimated_samples, c.estimated_entries);
        write!(out, "; estimated times of {samples} samples and {entries} entries")?;
    }
    match c.server_ahead_seconds {
        Some(ahead) if ahead.abs() > 120.0 => {
            let way = if ahead > 0.0 { "ahead" } else { "behind" };
            writeln!(out, "; THE SERVER'S IS {} {way}", span(ahead.abs()))
        }
        _ => writeln!(out),
    }
}

fn bytes(count: u64) -> String {
    match count {
        0..1024 => format!("{count} B"),
        1024..1_048_576 => format!("{:.1} KiB", count as f64 / 1024.0),
        _ => format!("{:.1} MiB", count as f64 / 1_048_576.0),
    }
}

pub(super) fn span(seconds: f64) -> String {
    let whole = seconds as u64;
    match whole {
        0..10 => format!("{seconds:.1} s"),
        10..120 => format!("{whole} s"),
        120..7_200 => format!("{} min", whole / 60),
        7_200..172_800 => format!("{} h {} min", whole / 3_600, whole % 3_600 / 60),
        _ => format!("{} d {} h", whole / 86_400, whole % 86_400 / 3_600),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::status::{CollectorReport, EgressReport, EndpointReport, StagesReport};

    #[test]
    fn trouble_is_seen() {
        let report = Report {
            collectors: vec![
                CollectorReport {
                    name: "cpu".into(),
                    state: "failed".into(),
                    note: Some("parsing proc/stat".into()),
                    refused: 17,
                    ..Default::default()
                },
                CollectorReport {
                    name: "bonding".into(),
                    state: NO_DATA.into(),
                    ..Default::default()
                },
            ],
            endpoints: vec![EndpointReport {
                trouble: Some("connection refused".into()),
                lag_seconds: 300.0,
                waits: Some("egress.daily is used up".into()),
                ..Default::default()
            }],
            stages: Some(StagesReport {
                streams: 3,
                overflow: 7,
                misses: vec![(2, 9)],
                ..Default::default()
            }),
            egress: Some(EgressReport { daily_bytes: 50 << 20, today_bytes: 50 << 20 }),
            board: "nas".into(),
            board_by: "agent.board".into(),
            ..Default::default()
        };
        let text = render(&report);
        assert!(text.contains("\nboard: nas (agent.board)\n"), "{text}");
        assert!(text.contains("WAITS: egress.daily is used up"), "{text}");
        assert!(text.contains("today 50.0 MiB of 50.0 MiB were sent"), "{text}");
        assert!(text.contains("  streams  3 active, 7 entries in job=\"mote/overflow\""), "{text}");
        assert!(text.contains("[[logs.stage]] 2  could do nothing with 9 entries"), "{text}");
        assert!(text.contains("REFUSED 17 samples"), "{text}");
        assert!(text.contains("no data here:    bonding\n"), "{text}");
        assert!(text.contains("FAILED") && text.contains("parsing proc/stat"), "{text}");
        assert!(text.contains("TROUBLE: connection refused") && text.contains("5 min"), "{text}");
    }
}
