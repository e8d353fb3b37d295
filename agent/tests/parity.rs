//! Mote beside a real node_exporter, on this machine and on the fixture `pi`: the same families with
//! the same help and type, the same series, and the same values as far as they hold still.
//!
//! It needs `prometheus-node-exporter` (Debian's package, version 1.5.0); `cargo xtask setup`
//! installs it.
#![allow(clippy::unwrap_used, clippy::panic, reason = "a test fails by panicking")]

mod fixtures;

use std::collections::{BTreeMap, BTreeSet};
use std::fs;
use std::io::{BufRead, BufReader, Read, Write};
use std::net::TcpStream;
use std::path::Path;
use std::process::{Child, Command, Stdio};

use mote::collector::{FilesystemOptions, Options, Set, TABLE};

/// Differences on this machine that are meant. (Family, reason and node_exporter's version.)
const ALLOWED: &[(&str, &str)] = &[];

/// Differences on the fixture that are meant: the beginning of a series, and why.
const ALLOWED_ON_THE_FIXTURE: &[(&str, &str)] = &[
    ("node_cpu_seconds_total{cpu=\"2\"", "1.5.0 gives zeros for a CPU that is off; 1.6.0 does not"),
    ("node_cpu_guest_seconds_total{cpu=\"2\"", "as above"),
    ("node_network_receive_nohandler_total", "1.5.0 has it from netlink, which can't be a fixture"),
    ("node_mountstats_nfs_mountpoint_info", "of versions after 1.5.0"),
    ("node_mountstats_nfs_operations_errors_total", "of versions after 1.5.0"),
    ("node_uname_info", "of this machine, and not asked for here"),
    ("node_time_zone_offset_seconds", "each finds the zone of its own environment"),
];

/// Not the collectors' own: about the run, the exporter and its HTTP handler.
const NOT_COMPARED: [&str; 5] =
    ["node_scrape_collector_", "node_exporter_", "promhttp_", "mote_", "process_"];

/// Gauges that hold still while a test runs; the others only have to be there.
const STILL: &[&str] = &[
    "node_boot_time_seconds",
    "node_cpu_isolated",
    "node_disk_ata_",
    "node_disk_device_mapper_info",
    "node_disk_filesystem_info",
    "node_disk_info",
    "node_filesystem_device_error",
    "node_filesystem_files{",
    "node_filesystem_readonly",
    "node_filesystem_size_bytes",
    "node_memory_Cma",
    "node_memory_HugePages_",
    "node_memory_Hugepagesize_bytes",
    "node_memory_MemTotal_bytes",
    "node_memory_SwapTotal_bytes",
    "node_memory_VmallocTotal_bytes",
    "node_time_clocksource_",
    "node_time_zone_offset_seconds",
    "node_uname_info",
];

/// Attempts: a mount or device may come or go between the reads, and the kernel's idle and I/O wait
/// may fall (proc_stat(5)). What differs three times differs.
const ATTEMPTS: usize = 3;

#[derive(Debug, Default, PartialEq)]
struct Exposition {
    /// Family to help and type.
    families: BTreeMap<String, (String, String)>,
    /// Series, as it is written, to value.
    series: BTreeMap<String, f64>,
}

impl Exposition {
    fn parse(text: &str) -> Exposition {
        let mut parsed = Exposition::default();
        for line in text.lines() {
            if let Some(rest) = line.strip_prefix("# HELP ") {
                let (name, help) = rest.split_once(' ').unwrap();
                parsed.families.entry(name.into()).or_default().0 = help.into();
            } else if let Some(rest) = line.strip_prefix("# TYPE ") {
                let (name, kind) = rest.split_once(' ').unwrap();
                parsed.families.entry(name.into()).or_default().1 = kind.into();
            } else {
                let (series, value) = line.rsplit_once(' ').unwrap();
                let value = value.parse().unwrap_or_else(|_| panic!("no number in {line:?}"));
                assert_eq!(parsed.series.insert(series.into(), value), None, "twice: {line}");
            }
        }
        let compared = |name: &str| !NOT_COMPARED.iter().any(|not| name.starts_with(not));
        parsed.families.retain(|name, _| compared(name));
        parsed.series.retain(|name, _| compared(name));
        parsed
    }

    fn kind(&self, series: &str) -> &str {
        let name = series.split('{').next().unwrap();
        &self.families.get(name).unwrap_or_else(|| panic!("{name} has no type")).1
    }

    fn without(mut self, allowed: &[(&str, &str)]) -> Exposition {
        let meant = |name: &str| allowed.iter().any(|(start, _)| name.starts_with(start));
        self.series.retain(|series, _| !meant(series));
        self.families.retain(|family, _| !meant(family));
        self
    }
}

struct Exporter {
    child: Child,
    address: String,
}

impl Exporter {
    /// Starts a node_exporter with Mote's collectors and upstream's defaults on a free port.
    fn start(more: &[String]) -> Exporter {
        let mut command = Command::new(
            std::env::var("MOTE_NODE_EXPORTER")
                .unwrap_or_else(|_| "prometheus-node-exporter".into()),
        );
        command.args(["--web.listen-address=127.0.0.1:0", "--collector.disable-defaults"]);
        command.args(TABLE.iter().map(|entry| format!("--collector.{}", entry.name)));
        command.arg("--web.disable-exporter-metrics");
        // Debian's package has other defaults for these two.
        command.arg("--collector.netdev.device-exclude=");
        command.arg(format!(
            "--collector.filesystem.mount-points-exclude={}",
            FilesystemOptions::MOUNT_POINTS_EXCLUDE
        ));
        command.args(more).stdout(Stdio::null()).stderr(Stdio::piped());
        let mut child = command.spawn().unwrap_or_else(|error| {
            panic!("prometheus-node-exporter: {error}; `cargo xtask setup` installs it")
        });
        let mut log = BufReader::new(child.stderr.take().unwrap());
        let mut said = String::new();
        let address = loop {
            let mut line = String::new();
            assert_ne!(log.read_line(&mut line).unwrap(), 0, "node_exporter ended: {said}");
            said.push_str(&line);
            if let Some((_, address)) = line.split_once("msg=\"Listening on\" address=") {
                break address.trim().to_owned();
            }
        };
        // Or it blocks once the pipe is full.
        std::thread::spawn(move || std::io::copy(&mut log, &mut std::io::sink()));
        Exporter { child, address }
    }

    fn scrape(&self) -> Exposition {
        let mut stream = TcpStream::connect(&self.address).unwrap();
        stream.write_all(b"GET /metrics HTTP/1.0\r\n\r\n").unwrap();
        let mut answer = String::new();
        stream.read_to_string(&mut answer).unwrap();
        let (head, body) = answer.split_once("\r\n\r\n").unwrap();
        assert!(head.starts_with("HTTP/1.0 200"), "{answer}");
        assert!(head.contains("version=0.0.4"), "{head}");
        Exposition::parse(body)
    }
}

impl Drop for Exporter {
    fn drop(&mut self) {
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

fn mote() -> Exposition {
    let output =
        Command::new(env!("CARGO_BIN_EXE_mote")).args(["run", "--once", "--stdout"]).output();
    let output = output.unwrap();
    let errors = String::from_utf8_lossy(&output.stderr);
    assert!(output.status.success(), "mote: {} {errors}", output.status);
    Exposition::parse(&String::from_utf8(output.stdout).unwrap())
}

/// The names that only one side has, both ways, and families that are described otherwise.
fn different_names(theirs: &Exposition, ours: &Exposition) -> Vec<String> {
    let keys = |exposition: &Exposition| exposition.series.keys().cloned().collect::<BTreeSet<_>>();
    let (their_keys, our_keys) = (keys(theirs), keys(ours));
    let mut found = Vec::new();
    found.extend(their_keys.difference(&our_keys).map(|key| format!("only node_exporter: {key}")));
    found.extend(our_keys.difference(&their_keys).map(|key| format!("only mote: {key}")));
    for (name, described) in &ours.families {
        match theirs.families.get(name) {
            Some(theirs) if theirs == described => {}
            other => found.push(format!("{name}: mote {described:?}, node_exporter {other:?}")),
        }
    }
    found
}

/// Values that can't have been read between the two scrapes.
fn different_values(before: &Exposition, ours: &Exposition, after: &Exposition) -> Vec<String> {
    let mut found = Vec::new();
    for (series, value) in &ours.series {
        let (Some(low), Some(high)) = (before.series.get(series), after.series.get(series)) else {
            continue;
        };
        let still = STILL.iter().any(|start| series.starts_with(start));
        let right = match ours.kind(series) {
            "gauge" if still => low == value && value == high,
            "gauge" if series == "node_time_seconds" => low <= value && value <= high,
            "gauge" => true,
            // node_vmstat_* are counters without saying so.
            _ => low <= value && value <= high,
        };
        if !right {
            found.push(format!("{series}: {low} before, {value} by mote, {high} after"));
        }
    }
    found
}

#[test]
fn series_and_values_are_node_exporters_on_this_machine() {
    let exporter = Exporter::start(&[]);
    let mut found = Vec::new();
    for _ in 0..ATTEMPTS {
        let before = exporter.scrape().without(ALLOWED);
        let ours = mote().without(ALLOWED);
        let after = exporter.scrape().without(ALLOWED);
        assert!(before.series.len() > 100, "node_exporter gives {} series", before.series.len());
        found = different_names(&before, &ours);
        found.extend(different_values(&before, &ours, &after));
        if found.is_empty() {
            println!("{} series in {} families", ours.series.len(), ours.families.len());
            return;
        }
    }
    panic!("{} differences:\n{}", found.len(), found.join("\n"));
}

#[test]
fn series_and_values_are_node_exporters_on_the_fixture() {
    let tree = fixtures::Copy::new();
    // Both sides ask the kernel about these; `/mnt/tab<TAB>here` and the others stay missing.
    for mount in ["boot/firmware", "run", "mnt/usb stick", "mnt/dead"] {
        fs::create_dir_all(tree.path().join("root").join(mount)).unwrap();
    }
    let path = |below: &str| tree.path().join(below).display().to_string();
    let exporter = Exporter::start(&[
        format!("--path.procfs={}", path("proc")),
        format!("--path.sysfs={}", path("sys")),
        format!("--path.rootfs={}", path("root")),
        format!("--path.udev.data={}", path("root/run/udev/data")),
        "--no-collector.netdev.netlink".into(),
    ]);
    let theirs = exporter.scrape().without(ALLOWED_ON_THE_FIXTURE);
    let ours = in_process(tree.path()).without(ALLOWED_ON_THE_FIXTURE);
    let mut found = different_names(&theirs, &ours);
    // The fixture holds still, but what the kernel says of the file system that it lies on.
    let moves =
        ["node_time_seconds", "node_filesystem_avail", "node_filesystem_f", "node_filesystem_free"];
    for (series, value) in &ours.series {
        let theirs = theirs.series.get(series);
        let moves = moves.iter().any(|start| series.starts_with(start));
        if theirs.is_some_and(|theirs| theirs.to_bits() != value.to_bits()) && !moves {
            found.push(format!("{series}: {value} by mote, {theirs:?} by node_exporter"));
        }
    }
    assert!(ours.series.len() > 200, "mote gives {} series", ours.series.len());
    assert!(found.is_empty(), "{} differences:\n{}", found.len(), found.join("\n"));
}

/// The fixture's samples, with the kernel's statfs.
fn in_process(tree: &Path) -> Exposition {
    let mut set = Set::new(|_| true, &Options::default());
    Exposition::parse(&fixtures::collect(&mut set, &mut fixtures::host(tree)))
}
