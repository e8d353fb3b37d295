//! Mote beside a real node_exporter with the collectors that both have: on this machine, and on each of
//! the fixture trees. The same families with the same help and type, the same series, and the same values
//! as far as they hold still. Which collectors those are, both sides say; what differs on purpose is in
//! the tables below, with the reason.
//!
//! It needs `prometheus-node-exporter` (Debian's package, version 1.5.0); `cargo xtask setup`
//! installs it, and `MOTE_NODE_EXPORTER` names another one.
#![allow(clippy::unwrap_used, clippy::panic, reason = "a test fails by panicking")]

#[path = "../../xtask/src/exposition.rs"]
#[allow(dead_code, reason = "the command uses other parts of it")]
mod exposition;
mod fixtures;

use std::collections::BTreeSet;
use std::fs;
use std::io::{BufRead, BufReader, Read, Write};
use std::net::TcpStream;
use std::path::Path;
use std::process::{Child, Command, Stdio};

use exposition::Exposition;
use mote::collector::{FilesystemOptions, Options, Set, TABLE};

/// A difference that is meant.
struct Exception {
    /// How the name of a family, or a series with some of its labels, begins.
    start: &'static str,
    /// node_exporter's versions before this one; empty: all.
    before: &'static str,
    why: &'static str,
}

const fn meant(start: &'static str, before: &'static str, why: &'static str) -> Exception {
    Exception { start, before, why }
}

/// What later versions have, on this machine and in trees: neither series nor values are compared.
const NEWER: &[Exception] = &[
    meant("node_btrfs_commit", "", "of later versions"),
    meant("node_btrfs_last_commit_seconds", "", "of later versions"),
    meant("node_btrfs_max_commit_seconds", "", "of later versions"),
    meant("node_cpu_scaling_governor", "1.6.0", "new there"),
    meant("node_md_degraded", "1.8.0", "new there"),
    meant("node_md_raid_disks", "1.8.0", "new there"),
    meant("node_mountstats_nfs_mountpoint_info", "", "of later versions"),
    meant("node_mountstats_nfs_operations_errors_total", "", "of later versions"),
    meant("node_netstat_TcpExt_TCPOFOQueue", "1.8.0", "new there by default"),
    meant("node_netstat_TcpExt_TCPRcvQDrop", "1.9.0", "new there by default"),
    meant("node_os_support_end_timestamp_seconds", "1.6.0", "new there"),
    meant("node_softnet_backlog_len", "1.7.0", "new there"),
    meant("node_softnet_cpu_collision_total", "1.7.0", "new there"),
    meant("node_softnet_flow_limit_count_total", "1.7.0", "new there"),
    meant("node_softnet_received_rps_total", "1.7.0", "new there"),
    meant("node_tcp_connection_states{state=\"established\"", "", "a scrape is a connection"),
    meant("node_watchdog_", "1.6.0", "new there"),
    meant("node_zfs_arc_memory_available_bytes", "1.6.0", "values below zero are new there"),
    meant("node_zfs_dbuf_", "1.9.0", "new there"),
    meant("node_zfs_zpool_state{state=\"suspended\"", "1.6.0", "new there"),
];

/// On this machine: neither series nor values are compared.
const ALLOWED: &[Exception] = &[meant(
    "node_processes_state{state=\"R\"}",
    "",
    "whoever reads is running, and the other sees it or does not",
)];

/// On the fixture trees: neither series nor values are compared. Each must be needed in some tree.
const ALLOWED_IN_TREES: &[Exception] = &[
    // pi5 has a CPU that is off.
    meant("node_cpu_seconds_total{cpu=\"2\"", "1.6.0", "zeros for a CPU that is off"),
    meant("node_interrupts_total{cpu=\"2\"", "", "its third column, which is CPU 3's"),
    meant("node_interrupts_total{cpu=\"3\"", "", "as above: it counts columns"),
    meant("node_cpu_guest_seconds_total{cpu=\"2\"", "1.6.0", "zeros for a CPU that is off"),
    meant("node_network_receive_nohandler_total", "", "it comes from netlink, which is no file"),
    meant("node_cpu_frequency_", "1.6.0", "those of a CPU that is off"),
    meant("node_cpu_scaling_frequency_", "1.6.0", "those of a CPU that is off"),
    meant("node_softnet_", "1.7.0", "lines are counted where a CPU is off"),
    meant("node_nfsd_requests_total{method=\"RelLockOwner\"", "1.6.0", "another method's count"),
    meant("node_nfsd_requests_total{method=\"Verify\"", "1.6.0", "another method's count"),
    meant("node_nfsd_requests_total{method=\"Write\"", "1.6.0", "another method's count"),
    meant("node_selinux_", "", "its library reads this machine's own files"),
    meant("node_btrfs_device_errors_total", "", "Mote's own where no mount point opens"),
    meant("node_md_mismatched_sectors", "", "Mote's own"),
    meant("node_md_sync_", "", "Mote's own"),
];

/// Collectors that can't be compared on a tree, because node_exporter asks this machine's kernel or
/// daemons and not files.
const NOT_IN_TREES: &[(&str, &str)] = &[
    ("ethtool", "the kernel, by ioctl"),
    ("network_route", "the kernel, by netlink"),
    ("qdisc", "the kernel, by netlink"),
    ("tcpstat", "the kernel, by netlink"),
];

/// Values that move between two readings of a tree: they are the kernel's or the clock's, not the tree's.
const MOVES_IN_TREES: &[(&str, &str)] = &[
    ("node_time_seconds", "the clock"),
    ("node_timex_", "the kernel's clock"),
    ("node_filesystem_avail_bytes", "of the file system that the tree lies on"),
    ("node_filesystem_files", "as above"),
    ("node_filesystem_free_bytes", "as above"),
];

/// Gauges and numbers without a type that the reading itself moves, so that they seem to hold still
/// between two scrapes and are others for Mote. They only have to be there.
const MOVED_BY_READING: &[(&str, &str)] = &[
    ("node_procs_running", "a scrape has threads of node_exporter's running"),
    ("node_processes_", "Mote's own process is there only while it reads"),
    ("node_netstat_Tcp_CurrEstab", "a scrape is a connection"),
    ("node_sockstat_", "as above"),
    ("node_processes_", "a run of Mote's is a process"),
];

/// Flags without which this package is not upstream's node_exporter, or not what Mote does: the
/// collector, its flag.
const FLAGS: &[(&str, &str)] = &[
    // Debian's package has other defaults for these.
    ("textfile", "--collector.textfile.directory="),
    ("netdev", "--collector.netdev.device-exclude="),
    ("filesystem", FILESYSTEM),
];
const FILESYSTEM: &str = "--collector.filesystem.mount-points-exclude=";

/// As above, for trees alone.
const FLAGS_IN_TREES: &[(&str, &str)] = &[("netdev", "--no-collector.netdev.netlink")];

/// Where the parts of a tree are.
const PATHS: [(&str, &str); 4] =
    [("procfs", "proc"), ("sysfs", "sys"), ("rootfs", "root"), ("udev.data", "root/run/udev/data")];

/// Not the collectors' own: about the run, the exporter and its HTTP handler.
const NOT_COMPARED: [&str; 5] =
    ["node_scrape_collector_", "node_exporter_", "promhttp_", "mote_", "process_"];

/// A mount or device may come or go between the reads, what holds still twice may not have held still in
/// between, and the kernel's idle and I/O wait may fall (proc_stat(5)). What differs each time differs.
const ATTEMPTS: usize = 4;

/// The node_exporter that is there.
struct Program {
    path: String,
    version: String,
    collectors: BTreeSet<String>,
}

impl Program {
    fn find() -> Program {
        let path = std::env::var("MOTE_NODE_EXPORTER");
        let path = path.unwrap_or_else(|_| "prometheus-node-exporter".into());
        let says = |flag: &str| {
            let output = Command::new(&path)
                .arg(flag)
                .output()
                .unwrap_or_else(|error| panic!("{path}: {error}; `cargo xtask setup` installs it"));
            String::from_utf8([output.stdout, output.stderr].concat()).unwrap()
        };
        let version = says("--version");
        let (_, version) = version.split_once("version ").unwrap();
        let version = version.split([' ', ',']).next().unwrap().to_owned();
        // `--collector.arp   Enable the arp collector (default: enabled).`, in later versions
        // `--[no-]collector.arp`; what has a value or a second dot is an option of a collector.
        let flag = |line: &str| {
            let flag = line.split_whitespace().next()?.replace("[no-]", "");
            let name = flag.strip_prefix("--collector.")?;
            (!name.contains(['.', '='])).then(|| name.to_owned())
        };
        let mut collectors: BTreeSet<_> = says("--help").lines().filter_map(flag).collect();
        assert!(collectors.remove("disable-defaults") && collectors.len() > 20, "{collectors:?}");
        Program { path, version, collectors }
    }

    /// The collectors that both have, of those that Mote has on, or off, unless told otherwise.
    fn in_common(&self, default: bool) -> Vec<&'static str> {
        let ours = TABLE.iter().filter(|entry| entry.default == default).map(|entry| entry.name);
        ours.filter(|name| self.collectors.contains(*name)).collect()
    }

    /// The beginnings of what is not compared with this version.
    fn without(&self, page: Exposition, exceptions: &[Exception]) -> Exposition {
        let starts = exceptions.iter().chain(NEWER).filter(|exception| self.has(exception));
        page.without(starts.map(|exception| exception.start))
    }

    fn has(&self, exception: &Exception) -> bool {
        let number = |version: &str| -> Vec<u32> {
            version.split('.').map(|part| part.parse().unwrap_or(0)).collect()
        };
        assert!(!exception.why.is_empty(), "{}", exception.start);
        exception.before.is_empty() || number(&self.version) < number(exception.before)
    }
}

struct Exporter {
    child: Child,
    address: String,
    tree: Option<String>,
}

impl Exporter {
    /// Starts it with these collectors, and upstream's defaults, on a free port; for this machine or for a
    /// tree, none of which has a time zone.
    fn start(program: &Program, collectors: &[&str], tree: Option<&Path>) -> Exporter {
        let mut command = Command::new(&program.path);
        command.args(["--web.listen-address=127.0.0.1:0", "--collector.disable-defaults"]);
        command.args(collectors.iter().map(|name| format!("--collector.{name}")));
        command.arg("--web.disable-exporter-metrics");
        for (_, flag) in FLAGS.iter().filter(|(collector, _)| collectors.contains(collector)) {
            let points = FilesystemOptions::MOUNT_POINTS_EXCLUDE;
            let value = if *flag == FILESYSTEM { points } else { "" };
            command.arg(format!("{flag}{value}"));
        }
        if let Some(tree) = tree {
            for (flag, folder) in PATHS {
                command.arg(format!("--path.{flag}={}", tree.join(folder).display()));
            }
            let flags = FLAGS_IN_TREES.iter().filter(|(name, _)| collectors.contains(name));
            command.args(flags.map(|(_, flag)| flag)).env("TZ", "UTC");
        }
        command.stdout(Stdio::null()).stderr(Stdio::piped());
        let mut child = command.spawn().unwrap();
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
        Exporter { child, address, tree: tree.map(|tree| tree.display().to_string()) }
    }

    fn scrape(&self) -> Exposition {
        let mut stream = TcpStream::connect(&self.address).unwrap();
        stream.write_all(b"GET /metrics HTTP/1.0\r\n\r\n").unwrap();
        let mut answer = String::new();
        stream.read_to_string(&mut answer).unwrap();
        let (head, body) = answer.split_once("\r\n\r\n").unwrap();
        assert!(head.starts_with("HTTP/1.0 200"), "{answer}");
        assert!(head.contains("version=0.0.4"), "{head}");
        // Labels that are paths begin with the tree's; Mote's are the machine's own.
        let body = match &self.tree {
            Some(tree) => body.replace(tree, ""),
            None => body.to_owned(),
        };
        page(&body)
    }
}

impl Drop for Exporter {
    fn drop(&mut self) {
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

fn page(text: &str) -> Exposition {
    let page = Exposition::parse(text).unwrap_or_else(|error| panic!("{error}"));
    page.without(NOT_COMPARED.into_iter())
}

/// What the agent prints, with these collectors.
fn mote(collectors: &[&str]) -> Exposition {
    let only = format!("metrics.collectors.only={collectors:?}");
    let mut command = Command::new(env!("CARGO_BIN_EXE_mote"));
    command.args(["run", "--once", "--stdout", "--set", &only]);
    command.args(["--set", "probes.default=\"off\"", "--set", "metrics.max_series=60000"]);
    let output = command.output().unwrap();
    let errors = String::from_utf8_lossy(&output.stderr);
    assert!(output.status.success(), "mote: {} {errors}", output.status);
    page(&String::from_utf8(output.stdout).unwrap())
}

/// The names that only one side has, both ways, and families that are described otherwise.
fn different_names(theirs: &Exposition, ours: &Exposition) -> BTreeSet<String> {
    let found = theirs.compare(ours);
    let only = |who: &str, what: &[String]| -> Vec<String> {
        what.iter().map(|name| format!("only {who}: {name}")).collect()
    };
    let described = found.described.iter().map(|(name, theirs, ours)| {
        format!("{name}: {theirs:?} by node_exporter, {ours:?} by mote")
    });
    described
        .chain(only("node_exporter", &found.missing))
        .chain(only("node_exporter", &found.missing_families))
        .chain(only("mote", &found.extra))
        .chain(only("mote", &found.extra_families))
        .collect()
}

fn starts(series: &str, table: &[(&str, &str)]) -> bool {
    table.iter().any(|(start, _)| series.starts_with(start))
}

/// Series whose values can't have been read between the two scrapes, and how.
fn different_values(
    before: &Exposition,
    ours: &Exposition,
    after: &Exposition,
) -> Vec<(String, String)> {
    let mut found = Vec::new();
    for (series, value) in &ours.series {
        let (Some(low), Some(high)) = (before.series.get(series), after.series.get(series)) else {
            continue;
        };
        let still = low.to_bits() == high.to_bits();
        let between = low <= value && value <= high;
        let right = match ours.kind(series) {
            "counter" | "histogram" | "summary" => between,
            _ if starts(series, MOVED_BY_READING) => true,
            "gauge" if series == "node_time_seconds" => between,
            // A number without a type may be either: node_vmstat_pgfault, node_netstat_Tcp_CurrEstab.
            _ => !still || value.to_bits() == low.to_bits(),
        };
        if !right {
            let how = format!("{series}: {low} before, {value} by mote, {high} after");
            found.push((series.clone(), how));
        }
    }
    found
}

/// Compares on this machine, and gives the number of series and what differs each time.
fn on_this_machine(program: &Program, collectors: &[&str]) -> (usize, Vec<String>) {
    let exporter = Exporter::start(program, collectors, None);
    let mut each_time: Option<BTreeSet<String>> = None;
    let mut newest = Vec::new();
    for _ in 0..ATTEMPTS {
        let scrape = || program.without(exporter.scrape(), ALLOWED);
        let (before, ours) = (scrape(), program.without(mote(collectors), ALLOWED));
        let after = scrape();
        newest = different_names(&before, &ours).into_iter().map(|it| (it.clone(), it)).collect();
        newest.extend(different_values(&before, &ours, &after));
        let now: BTreeSet<_> = newest.iter().map(|(what, _)| what.clone()).collect();
        let left = each_time.take().map_or(now.clone(), |earlier| &earlier & &now);
        if left.is_empty() {
            return (ours.series.len(), Vec::new());
        }
        each_time = Some(left);
    }
    newest.retain(|(what, _)| each_time.as_ref().unwrap().contains(what));
    (0, newest.into_iter().map(|(_, how)| how).collect())
}

#[test]
fn series_and_values_are_node_exporters_on_this_machine() {
    let program = Program::find();
    let mut differ = Vec::new();
    for (default, least) in [(true, 100), (false, 1)] {
        let collectors = program.in_common(default);
        if collectors.is_empty() {
            assert!(!default, "no collector in common");
            continue;
        }
        let (series, found) = on_this_machine(&program, &collectors);
        if found.is_empty() {
            println!("{series} series of {collectors:?}");
        }
        assert!(!found.is_empty() || series >= least, "{series} series of {collectors:?}");
        differ.extend(found);
    }
    assert!(differ.is_empty(), "{} differences:\n{}", differ.len(), differ.join("\n"));
}

#[test]
fn series_and_values_are_node_exporters_on_every_fixture() {
    let program = Program::find();
    let collectors = [program.in_common(true), program.in_common(false)].concat();
    let in_trees = |name: &&str| !NOT_IN_TREES.iter().any(|(other, _)| other == name);
    let collectors: Vec<_> = collectors.into_iter().filter(in_trees).collect();
    let mut differ = Vec::new();
    let mut needed = BTreeSet::new();
    for name in fixtures::TREES {
        let found = on_the_fixture(&program, name, &collectors, &mut needed);
        differ.extend(found.into_iter().map(|line| format!("{name}: {line}")));
    }
    assert!(differ.is_empty(), "{} differences:\n{}", differ.len(), differ.join("\n"));
    let exceptions = ALLOWED_IN_TREES.iter().filter(|exception| program.has(exception));
    let idle: Vec<_> =
        exceptions.map(|it| it.start).filter(|start| !needed.contains(start)).collect();
    assert!(idle.is_empty(), "exceptions that nothing needs: {idle:?}");
}

fn on_the_fixture(
    program: &Program,
    name: &str,
    collectors: &[&str],
    needed: &mut BTreeSet<&'static str>,
) -> Vec<String> {
    let tree = fixtures::Copy::of(name);
    mount_points(tree.path());
    let theirs = Exporter::start(program, collectors, Some(tree.path())).scrape();
    let ours = in_process(tree.path(), collectors);
    let all = different_on_the_fixture(&theirs, &ours);
    for exception in ALLOWED_IN_TREES {
        // What is written after a name's or a series' beginning in a line that tells a difference.
        if all.iter().any(|line| line.contains(exception.start)) {
            needed.insert(exception.start);
        }
    }
    let theirs = program.without(theirs, ALLOWED_IN_TREES);
    let ours = program.without(ours, ALLOWED_IN_TREES);
    println!("{name}: {} series in {} families", ours.series.len(), ours.families.len());
    assert!(ours.series.len() > 100, "{name}: {} series", ours.series.len());
    different_on_the_fixture(&theirs, &ours)
}

fn different_on_the_fixture(theirs: &Exposition, ours: &Exposition) -> Vec<String> {
    let mut found: Vec<_> = different_names(theirs, ours).into_iter().collect();
    for (series, value) in &ours.series {
        let Some(theirs) = theirs.series.get(series) else { continue };
        if theirs.to_bits() != value.to_bits() && !starts(series, MOVES_IN_TREES) {
            found.push(format!("{series}: {value} by mote, {theirs} by node_exporter"));
        }
    }
    found
}

/// Makes folders of the mount points: both sides ask the kernel about them. Those with a tab or a
/// backslash stay missing.
fn mount_points(tree: &Path) {
    let mounts = fs::read_to_string(tree.join("proc/1/mounts")).unwrap();
    let points = mounts.lines().filter_map(|line| line.split(' ').nth(1));
    for point in points.filter(|point| !point.contains("\\011") && !point.contains("\\134")) {
        let point = point.replace("\\040", " ");
        fs::create_dir_all(tree.join("root").join(point.trim_start_matches('/'))).unwrap();
    }
}

/// The fixture's samples, with the kernel's statfs.
fn in_process(tree: &Path, collectors: &[&str]) -> Exposition {
    let mut set = Set::new(|entry| collectors.contains(&entry.name), &Options::default());
    page(&fixtures::collect(&mut set, &mut fixtures::host(tree)))
}
