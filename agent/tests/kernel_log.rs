//! The kernel's log of this machine as a source, compared with util-linux' dmesg, and through the agent to a strict Loki over kills.
//! Needs root and util-linux.
//!
//! Others write into the same log, so each test looks for what is its own. What is written from here has another
//! facility than the kernel's, whatever is asked for (devkmsg_write in kernel/printk/printk.c).

#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic, reason = "test code")]

mod support;

use std::collections::BTreeMap;
use std::fs::{self, OpenOptions};
use std::io::Write as _;
use std::path::Path;
use std::process::Command;
use std::rc::Rc;
use std::time::{Duration, Instant};

use mote::host::{Roots, SystemClock};
use mote::logs::kernel::{KEY, KernelSource, Options, When};
use mote::logs::severity::LEVELS;
use mote::logs::{Progress, Source};
use mote::model::{Block, Labels};
use rustix::process::Signal;
use support::{Agent, StrictLoki};

const LONG: Duration = Duration::from_secs(60);

fn say(priority: u32, text: &str) {
    let file = OpenOptions::new().write(true).open("/dev/kmsg");
    let mut file = file.expect("the kernel's log is root's: run this as root");
    file.write_all(format!("<{priority}>{text}\n").as_bytes()).unwrap();
}

fn options() -> Options {
    Options {
        when: When::Always,
        journal: None,
        min_level: 7,
        labels: Labels::from_pairs([("job", "kernel")]).unwrap(),
        max_line: 64 << 10,
    }
}

type Positions = BTreeMap<String, Vec<u8>>;

/// Labels, time, text, metadata.
type Entry = (BTreeMap<String, String>, i64, String, BTreeMap<String, String>);

fn source(options: &Options, positions: &Positions) -> KernelSource {
    KernelSource::new(options, positions, Rc::new(SystemClock), &Roots::default())
}

fn counts(source: &KernelSource) -> BTreeMap<&'static str, u64> {
    let mut all = BTreeMap::new();
    source.counts(&mut |name, count| {
        all.insert(name, count);
    });
    all
}

/// A line of dmesg's.
struct Told {
    /// Facility and level, for the facilities that dmesg has words for.
    origin: Option<(String, String)>,
    text: String,
}

/// `daemon:err   : 2026-11-21T08:00:01,123456+00:00 test-3[3]: …`
fn dmesg() -> Vec<Told> {
    let mut dmesg = Command::new("dmesg");
    let output = dmesg.args(["-x", "--time-format", "iso"]).output().expect("util-linux' dmesg");
    assert!(output.status.success());
    let told = |line: &str| {
        let (origin, rest) = match line.split_once(" : ").or_else(|| line.split_once(": ")) {
            Some((origin, rest)) if origin.len() <= 16 => (origin.split_once(':'), rest),
            _ => (None, line),
        };
        let word = |level: &str| match level.trim() {
            "err" => "error".to_owned(),
            "warn" => "warning".to_owned(),
            word => word.to_owned(),
        };
        let origin = origin.map(|(facility, level)| (facility.trim().to_owned(), word(level)));
        let text = rest.trim_start().split_once(' ').unwrap_or_default().1.to_owned();
        Told { origin, text }
    };
    String::from_utf8_lossy(&output.stdout).lines().map(told).collect()
}

/// All there is, in blocks of this size.
fn read(source: &mut KernelSource, positions: &mut Positions, limit: usize) -> Vec<Entry> {
    let mut all = Vec::new();
    loop {
        let mut block = Block::new();
        let progress = source.read(&mut block, limit);
        assert_eq!(
            block.entries().next().is_some(),
            block.positions().next().is_some(),
            "entries and position go together"
        );
        for position in block.positions() {
            positions.insert(position.key.to_owned(), position.position.to_vec());
        }
        for entry in block.entries() {
            let owned = |(name, value): (&str, &str)| (name.to_owned(), value.to_owned());
            let labels = block.streams()[usize::from(entry.stream.0)].iter().map(owned).collect();
            let metadata = entry.metadata.iter().map(owned).collect();
            all.push((labels, entry.timestamp_ns, entry.line.to_owned(), metadata));
        }
        if progress == Progress::Idle {
            return all;
        }
    }
}

/// Reads until this many entries have the marker.
fn read_marked(
    source: &mut KernelSource,
    positions: &mut Positions,
    marker: &str,
    count: usize,
) -> Vec<Entry> {
    let end = Instant::now() + LONG;
    let mut all = Vec::new();
    while all.len() < count {
        assert!(Instant::now() < end, "{} of {count}", all.len());
        let mut came = read(source, positions, 4_000);
        came.retain(|entry| entry.2.contains(marker));
        all.append(&mut came);
    }
    all
}

fn runtime() -> tokio::runtime::Runtime {
    tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap()
}

fn marker(what: &str) -> String {
    format!("mote {what} {} {:?}", std::process::id(), Instant::now())
}

#[test]
fn every_level_and_facility_is_told_as_dmesg_tells_it() {
    let runtime = runtime();
    let _entered = runtime.enter();
    let marker = marker("level");
    for facility in 1..24 {
        for level in 0..8 {
            say(
                facility << 3 | level,
                &format!("test-{facility}[{level}]: {marker} \\ \u{fc} \u{1b}"),
            );
        }
    }
    say(14, &format!("no tag here {marker}"));
    let mut positions = Positions::new();
    let entries =
        read_marked(&mut source(&options(), &positions), &mut positions, &marker, 23 * 8 + 1);
    let expected: Vec<Told> =
        dmesg().into_iter().filter(|told| told.text.contains(&marker)).collect();
    let of_dmesg = expected.len();
    for (entry, Told { origin, text }) in entries.iter().zip(expected) {
        let (labels, _, line, metadata) = entry;
        if let Some((facility, level)) = origin {
            assert_eq!((&labels["level"], &metadata["facility"]), (&level, &facility));
        }
        assert_eq!((labels["transport"].as_str(), labels["job"].as_str()), ("kernel", "kernel"));
        assert_eq!(labels["__source__"], "kernel");
        let whole = match (labels.get("syslog_identifier"), metadata.get("pid")) {
            (Some(tag), Some(pid)) => format!("{tag}[{pid}]: {line}"),
            _ => line.clone(),
        };
        // dmesg escapes again what is not printable.
        let plain = |text: &str| text.replace("\\x1b", "").replace(['\u{1b}', '\u{fc}', '\\'], "");
        assert_eq!(plain(&whole).trim_end(), plain(&text).trim_end());
    }
    assert_eq!(of_dmesg, entries.len());
    assert_eq!(entries[23 * 8].2, format!("no tag here {marker}"));
    assert!(!entries[23 * 8].0.contains_key("syslog_identifier"));
    assert_eq!(entries[0].2, format!("{marker} \\ \u{fc} \u{1b}"));
}

#[test]
fn a_first_start_reads_the_ring_as_dmesg_does_and_a_later_one_nothing_twice() {
    let runtime = runtime();
    let _entered = runtime.enter();
    // Others' messages may have taken the place of the kernel's own: it says what it thinks of an option.
    let folder = tempfile::tempdir().unwrap();
    for number in 0..3 {
        let option = std::ffi::CString::new(format!("nonsense{number}=1")).unwrap();
        let flags = rustix::mount::MountFlags::empty();
        rustix::mount::mount("none", folder.path(), "tmpfs", flags, &*option).unwrap_err();
    }
    let before = dmesg();
    let mut positions = Positions::new();
    let mut first = source(&options(), &positions);
    let entries = read(&mut first, &mut positions, 10_000);
    let kernel: Vec<_> = entries.iter().filter(|entry| !entry.3.contains_key("facility")).collect();
    // The kernel's own, and the newest of them: the ring runs on meanwhile.
    let newest: Vec<_> = before
        .iter()
        .filter_map(|told| Some((told.origin.as_ref()?, told.text.trim())))
        .filter(|((facility, _), text)| facility == "kern" && !text.contains('\\'))
        .map(|((_, level), text)| (level.as_str(), text))
        .collect();
    let newest = &newest[newest.len().saturating_sub(300)..];
    assert!(newest.len() >= 3, "the kernel has said {} lines", newest.len());
    let ours: Vec<_> = kernel
        .iter()
        .filter(|entry| !entry.2.contains(|c: char| c == '\\' || (c.is_control() && c != '\n')))
        .map(|(labels, _, line, _)| {
            (labels["level"].as_str(), line.lines().next().unwrap_or("").trim())
        })
        .collect();
    assert!(ours.windows(newest.len()).any(|window| window == newest), "{newest:?}");
    assert!(entries.is_sorted_by(|a, b| a.1 < b.1), "times rise");
    assert!(kernel.iter().all(|entry| entry.0["syslog_identifier"] == "kernel"));
    assert_eq!(counts(&first)["lost_entries"], 0);
    drop(first);

    let marker = marker("again");
    say(14, &marker);
    let mut second = source(&options(), &positions);
    let came = read_marked(&mut second, &mut positions, &marker, 1);
    assert_eq!(came.len(), 1);
    assert!(counts(&second)["lines"] < entries.len() as u64);
    // A boot that is over says nothing of this one.
    positions.get_mut(KEY).unwrap()[1] ^= 1;
    assert!(
        read(&mut source(&options(), &positions), &mut positions, 10_000).len() > entries.len() / 2
    );
}

#[test]
fn lower_levels_are_passed_over() {
    let runtime = runtime();
    let _entered = runtime.enter();
    let marker = marker("min");
    for level in 0..8 {
        say(8 | level, &format!("{marker} {level}"));
    }
    let options = Options { min_level: 4, ..options() };
    let mut positions = Positions::new();
    let entries = read_marked(&mut source(&options, &positions), &mut positions, &marker, 5);
    let levels: Vec<_> = entries.iter().map(|entry| entry.0["level"].as_str()).collect();
    assert_eq!(levels, LEVELS[..5]);
}

#[test]
fn it_is_ready_when_the_kernel_speaks_and_not_before() {
    let runtime = runtime();
    runtime.block_on(async {
        let mut positions = Positions::new();
        let mut source = source(&options(), &positions);
        let marker = marker("ready");
        read(&mut source, &mut positions, 10_000);
        say(14, &marker);
        // Waits are dropped and made anew all the time.
        for _ in 0..10 {
            drop(source.ready());
            let _ = tokio::time::timeout(Duration::from_millis(1), source.ready()).await;
        }
        tokio::time::timeout(LONG, source.ready()).await.unwrap();
        assert_eq!(read_marked(&mut source, &mut positions, &marker, 1).len(), 1);
    });
}

#[test]
fn it_rests_where_the_journal_is_read_and_is_absent_quietly() {
    let runtime = runtime();
    let _entered = runtime.enter();
    let root = tempfile::tempdir().unwrap();
    let make = |path: &str| fs::create_dir_all(root.path().join(path)).unwrap();
    let id = "0123456789abcdef0123456789abcdef";
    make("etc");
    make("dev");
    fs::write(root.path().join("etc/machine-id"), format!("{id}\n")).unwrap();
    let dev = root.path().join("dev/kmsg");
    let kmsg = rustix::fs::FileType::CharacterDevice;
    rustix::fs::mknodat(rustix::fs::CWD, &dev, kmsg, 0o600.into(), rustix::fs::makedev(1, 11))
        .unwrap();
    let lines = |options: &Options, root: &Path| {
        let roots = Roots { root: root.into(), ..Roots::default() };
        let mut positions = Positions::new();
        let mut source = KernelSource::new(options, &positions, Rc::new(SystemClock), &roots);
        read(&mut source, &mut positions, 10_000).len()
    };
    let options = Options { when: When::NoJournal, journal: Some(Vec::new()), ..options() };
    assert!(lines(&options, root.path()) > 0, "no journal");
    let journal = |id: &str| {
        make(&format!("run/log/journal/{id}"));
        fs::write(root.path().join(format!("run/log/journal/{id}/system.journal")), "").unwrap();
    };
    journal(&id.replace('0', "1"));
    assert!(lines(&options, root.path()) > 0, "another machine's journal");
    make(&format!("run/log/journal/{id}"));
    assert!(lines(&options, root.path()) > 0, "a directory that was left, or may not be read");
    journal(id);
    assert_eq!(lines(&options, root.path()), 0);
    let elsewhere = Some(vec![root.path().join("var/log/journal/remote")]);
    assert!(lines(&Options { journal: elsewhere, ..options.clone() }, root.path()) > 0);
    let here = Some(vec![root.path().join("run/log/journal")]);
    assert_eq!(lines(&Options { journal: here, ..options.clone() }, root.path()), 0);
    assert!(lines(&Options { journal: None, ..options.clone() }, root.path()) > 0);
    assert!(lines(&Options { when: When::Always, ..options.clone() }, root.path()) > 0);
    fs::remove_file(dev).unwrap();
    assert_eq!(lines(&Options { when: When::Always, ..options }, root.path()), 0);
}

#[test]
fn each_message_arrives_once_and_in_order_over_kills_and_reloads() {
    let loki = StrictLoki::new();
    loki.tolerate_aborts();
    let mut agent = Agent::new("");
    agent.configure(&format!(
        "instance = \"box\"\ninterval = \"5s\"\n\
         [[loki]]\nurl = {:?}\nbatch_wait = \"100ms\"\nbackoff = {{ min = \"50ms\", max = \"300ms\" }}\n\
         [logs.kernel]\nwhen = \"always\"\n",
        loki.url()
    ));
    let marker = format!("mote-kill-{}", std::process::id());
    let mut expected = Vec::new();
    for round in 0..5 {
        agent.spawn();
        for n in 0..40 {
            let text = format!("line {round} {n}");
            say(14, &format!("{marker}: {text}"));
            expected.push(text);
            std::thread::sleep(Duration::from_millis(if n % 10 == 0 { 40 } else { 1 }));
        }
        match round {
            // What is said while it starts, runs, gathers, or is sent.
            0 | 2 => std::thread::sleep(Duration::from_millis(300)),
            1 => std::thread::sleep(Duration::from_millis(1_200)),
            _ => {
                agent.wait("ready", LONG, Agent::is_ready);
                agent.signal(Signal::HUP);
                std::thread::sleep(Duration::from_millis(700));
            }
        }
        agent.kill();
    }
    agent.start();
    let labels =
        [("syslog_identifier", marker.as_str()), ("transport", "kernel"), ("instance", "box")];
    agent.wait("all lines", LONG, |_| loki.lines(&labels).len() >= expected.len());
    assert!(agent.terminate().0.success());
    assert_eq!(loki.lines(&labels), expected);
    assert!(!agent.log().contains("kernel's log is not read"), "{}", agent.log());
    loki.assert_clean();
}
