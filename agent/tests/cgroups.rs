//! The collectors `containers` and `services` on the kernel's own control groups: groups made here, in each
//! hierarchy that this machine has, in which processes of ours burn CPU, take memory, write and are killed;
//! what the collectors say is held against the groups' files. Then thousands of groups that come and go.
//! Needs root.
#![allow(clippy::unwrap_used, clippy::panic, reason = "a test fails by panicking")]

mod fixtures;

use std::fs;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::time::{Duration, Instant};

use mote::collector::{Outcome, Set};
use mote::host::{Host, Roots};

const ID: &str = "0123456789abcdef0123456789abcdef0123456789abcdef0123456789abcdef";

/// A group of one path in every hierarchy; removed at the end, with what is left in it.
struct Everywhere {
    folders: Vec<PathBuf>,
    children: Vec<Child>,
}

impl Everywhere {
    fn new(path: &str) -> Everywhere {
        let root = Path::new("/sys/fs/cgroup");
        let mut folders = Vec::new();
        if root.join("cgroup.controllers").exists() {
            let mut above = root.to_owned();
            for name in path.split('/') {
                // Already there where systemd has set it.
                for controller in ["+cpu", "+memory", "+io", "+pids"] {
                    let _ = fs::write(above.join("cgroup.subtree_control"), controller);
                }
                above.push(name);
                fs::create_dir_all(&above).unwrap();
            }
            folders.push(above);
        } else {
            for entry in fs::read_dir(root).unwrap() {
                let entry = entry.unwrap();
                let is_ours = entry.file_type().unwrap().is_dir()
                    && !entry.file_name().to_string_lossy().contains("cpuset");
                if is_ours {
                    let folder = entry.path().join(path);
                    fs::create_dir_all(&folder).unwrap();
                    folders.push(folder);
                }
            }
        }
        assert!(!folders.is_empty(), "no control groups here, or no right to make one");
        Everywhere { folders, children: Vec::new() }
    }

    fn is_v2(&self) -> bool {
        self.folders.len() == 1
    }

    /// The group's file of one of these names, in whichever hierarchy it is.
    fn file(&self, names: [&str; 2]) -> PathBuf {
        let mut all = self.folders.iter().flat_map(|folder| names.map(|name| folder.join(name)));
        all.find(|path| path.exists()).unwrap_or_else(|| panic!("no group has {names:?}"))
    }

    /// The number behind a key, or the whole file's.
    fn number(&self, names: [&str; 2], key: &str) -> f64 {
        let text = fs::read_to_string(self.file(names)).unwrap();
        let found = match key {
            "" => text.trim(),
            _ => text.lines().find_map(|line| line.strip_prefix(key)?.strip_prefix(' ')).unwrap(),
        };
        found.trim().parse().unwrap()
    }

    /// A shell in the group that does this.
    fn run(&mut self, script: &str) {
        let mut command = Command::new("sh");
        let enter = "for g in \"$@\"; do echo $$ > \"$g/cgroup.procs\" || exit 9; done; ";
        command.args(["-c", &format!("{enter}{script}"), "sh"]).args(&self.folders);
        self.children.push(command.stdout(Stdio::null()).stderr(Stdio::null()).spawn().unwrap());
    }
}

impl Drop for Everywhere {
    fn drop(&mut self) {
        for child in &mut self.children {
            let _ = child.kill();
            let _ = child.wait();
        }
        for folder in &self.folders {
            let deadline = Instant::now() + Duration::from_secs(10);
            // The kernel lets go of the last process a moment later.
            while fs::remove_dir(folder).is_err() && folder.exists() && Instant::now() < deadline {
                std::thread::sleep(Duration::from_millis(5));
            }
            // The slice or folder above, if nobody else has a group in it.
            let _ = fs::remove_dir(folder.parent().unwrap());
        }
    }
}

fn set() -> Set {
    Set::new(|entry| ["services", "containers"].contains(&entry.name), &fixtures::options())
}

/// The value of the series of a family with these labels.
fn value(text: &str, family: &str, labels: &str) -> Option<f64> {
    let mut lines = text.lines().filter_map(|line| line.strip_prefix(family));
    let found = lines.find(|rest| rest.starts_with('{') && rest.contains(labels))?;
    found.rsplit(' ').next().unwrap().parse().ok()
}

fn wait_until(mut done: impl FnMut() -> bool, what: &str) {
    let deadline = Instant::now() + Duration::from_secs(30);
    while !done() {
        assert!(Instant::now() < deadline, "{what}");
        std::thread::sleep(Duration::from_millis(10));
    }
}

#[test]
fn what_a_service_and_a_container_use_is_what_their_groups_say() {
    let pid = std::process::id();
    let service = format!("mote-test-{pid}.service");
    let mut unit = Everywhere::new(&format!("mote.slice/{service}"));
    let mut container = Everywhere::new(&format!("docker/{ID}"));
    let root = tempfile::tempdir().unwrap();
    let config = root.path().join(format!("var/lib/docker/containers/{ID}"));
    fs::create_dir_all(&config).unwrap();
    let json = format!(r#"{{"ID":"{ID}","Name":"/burn","Config":{{"Image":"busybox:1"}}}}"#);
    fs::write(config.join("config.v2.json"), json).unwrap();

    let limit = if unit.is_v2() { "memory.max" } else { "memory.limit_in_bytes" };
    fs::write(unit.file([limit, limit]), (64 << 20).to_string()).unwrap();
    fs::write(container.file([limit, limit]), (32 << 20).to_string()).unwrap();
    // Memory that is held, and a disk that is written to, by a process that then burns CPU.
    let file = root.path().join("written");
    let written = format!(
        "dd if=/dev/zero of={} bs=64k count=32 conv=fsync 2>/dev/null; \
         x=$(head -c 8000000 /dev/zero | tr '\\0' x); while :; do :; done",
        file.display()
    );
    unit.run(&written);
    container.run("exec sleep 1000");
    container.run("while :; do :; done");
    // As much as it can get, until it is killed.
    container.run("x=xxxxxxxxxxxxxxxx; while :; do x=$x$x; done");
    let events = ["memory.events", "memory.oom_control"];
    wait_until(|| container.number(events, "oom_kill") >= 1.0, "nobody is killed");
    // Who is not waited for counts as a task still.
    container.children.pop().unwrap().wait().unwrap();
    let memory = ["memory.current", "memory.usage_in_bytes"];
    wait_until(|| unit.number(memory, "") > 8e6, "the memory does not grow");
    let cpu_files = if unit.is_v2() { ["cpu.stat"; 2] } else { ["cpuacct.usage"; 2] };
    let cpu = |group: &Everywhere| {
        if group.is_v2() {
            group.number(cpu_files, "usage_usec") / 1e6
        } else {
            group.number(cpu_files, "") / 1e9
        }
    };
    wait_until(|| cpu(&unit) > 0.2 && cpu(&container) > 0.2, "no CPU time");

    let roots = Roots { root: root.path().into(), ..Roots::default() };
    let (mut host, mut set) = (Host::new(roots), set());
    fixtures::collect(&mut set, &mut host);
    let before = [cpu(&unit), cpu(&container)];
    let text = fixtures::collect(&mut set, &mut host);
    let after = [cpu(&unit), cpu(&container)];
    for collector in ["services", "containers"] {
        assert_eq!(fixtures::outcome(&set, collector), Outcome::Good);
    }

    let own = format!("name=\"{service}\"");
    let of_service = |family: &str, more: &str| {
        let labels = format!("{more}{own}");
        value(&text, family, &labels).unwrap_or_else(|| panic!("no {family} with {labels}: {text}"))
    };
    let user = of_service("systemd_unit_cpu_seconds_total", "mode=\"user\",");
    let system = of_service("systemd_unit_cpu_seconds_total", "mode=\"system\",");
    // v1 counts user and system time in ticks of 10 ms.
    assert!(user + system > before[0] - 0.05 && user + system < after[0] + 0.05);
    assert!(user > 0.1, "{user}");
    let current = of_service("systemd_unit_memory_current_bytes", "");
    assert!((8e6..=64e6 * 1.05).contains(&current), "{current}");
    assert!(of_service("systemd_unit_memory_working_set_bytes", "") <= current);
    assert!(of_service("systemd_unit_memory_anon_bytes", "") > 7e6);
    assert!(of_service("systemd_unit_memory_peak_bytes", "") >= current);
    assert_eq!(of_service("systemd_unit_memory_max_bytes", ""), f64::from(64 << 20));
    assert!(of_service("systemd_unit_tasks_current", "") >= 1.0);
    assert!(of_service("systemd_unit_pressure_cpu_waiting_seconds_total", "") >= 0.0);
    // Where the temporary directory is on a disk, and the machine counts it.
    let io = if unit.is_v2() { ["io.stat"; 2] } else { ["blkio.throttle.io_service_bytes"; 2] };
    let io = fs::read_to_string(unit.file(io)).unwrap_or_default();
    let told = value(&text, "systemd_unit_io_written_bytes_total", &own).is_some_and(|w| w >= 2e6);
    let counted = io.contains(" Write 2097152") || io.contains("wbytes=2097152");
    assert!(told || !counted, "{io}\n{text}");

    let own = "id=\"0123456789ab\",image=\"busybox:1\",name=\"burn\"";
    let of_container =
        |family: &str| value(&text, family, own).unwrap_or_else(|| panic!("no {family}: {text}"));
    let usage = of_container("container_cpu_usage_seconds_total");
    assert!((before[1]..=after[1]).contains(&usage), "{before:?} {usage} {after:?}");
    let kills = container.number(events, "oom_kill");
    assert_eq!(of_container("container_oom_events_total"), kills);
    assert_eq!(of_container("container_spec_memory_limit_bytes"), f64::from(32 << 20));
    assert_eq!(of_container("container_processes"), 2.0);
    assert_eq!(of_container("container_threads"), 2.0);
    let failures = if container.is_v2() {
        container.number(["memory.events"; 2], "max")
    } else {
        container.number(["memory.failcnt"; 2], "")
    };
    assert_eq!(of_container("container_memory_failcnt"), failures);
    assert!(failures > 0.0);

    // With its end nothing of it is left, and that is no failure.
    drop(container);
    let text = fixtures::collect(&mut set, &mut host);
    assert!(!text.contains(own) && text.contains(&service), "{text}");
    assert_eq!(fixtures::outcome(&set, "containers"), Outcome::Good);
}

#[test]
fn the_tree_of_cgroup_v2_is_read_as_well_where_a_machine_mounts_it_beside_v1() {
    let unified = Path::new("/sys/fs/cgroup/unified");
    let (tree, source) = if unified.exists() {
        (tempfile::tempdir().unwrap(), unified)
    } else {
        (tempfile::tempdir().unwrap(), Path::new("/sys/fs/cgroup"))
    };
    fs::create_dir_all(tree.path().join("fs")).unwrap();
    std::os::unix::fs::symlink(source, tree.path().join("fs/cgroup")).unwrap();
    let service = format!("mote-v2-{}.service", std::process::id());
    let mut unit = Everywhere::new(&format!("motev2.slice/{service}"));
    unit.run("while :; do :; done");
    let stat = source.join(format!("motev2.slice/{service}/cpu.stat"));
    let usage = || -> f64 {
        let text = fs::read_to_string(&stat).unwrap();
        text.lines().next().unwrap().strip_prefix("usage_usec ").unwrap().parse().unwrap()
    };
    wait_until(|| usage() > 2e5, "no CPU time");
    let mut host = Host::new(Roots { sys: tree.path().into(), ..Roots::default() });
    let mut set = set();
    let before = usage();
    let text = fixtures::collect(&mut set, &mut host);
    let after = usage();
    let mode = |mode: &str| {
        let labels = format!("mode=\"{mode}\",name=\"{service}\"");
        value(&text, "systemd_unit_cpu_seconds_total", &labels).unwrap()
    };
    let told = (mode("user") + mode("system")) * 1e6;
    assert!((before - 2.0..=after + 2.0).contains(&told), "{before} {told} {after}");
    assert_eq!(fixtures::outcome(&set, "services"), Outcome::Good);
}

/// A v2 tree of plain files, with so many containers of this life.
fn many(tree: &Path, life: usize, count: usize) -> PathBuf {
    let slice = tree.join("sys/fs/cgroup/system.slice");
    for number in 0..count {
        let folder = slice.join(format!("docker-{life:032x}{number:032x}.scope"));
        fs::create_dir_all(&folder).unwrap();
        fs::write(folder.join("cpu.stat"), "usage_usec 1000000\n").unwrap();
    }
    slice
}

#[test]
fn thousands_of_containers_that_come_and_go_are_a_hundred_at_a_time() {
    let tree = tempfile::tempdir().unwrap();
    let cgroup = tree.path().join("sys/fs/cgroup");
    fs::create_dir_all(&cgroup).unwrap();
    fs::write(cgroup.join("cgroup.controllers"), "cpu memory\n").unwrap();
    let (mut set, mut host) = (set(), fixtures::host(tree.path()));
    for life in 0..4 {
        let slice = many(tree.path(), life, 1_000);
        for _ in 0..2 {
            let text = fixtures::collect(&mut set, &mut host);
            let shown = text.matches("container_cpu_usage_seconds_total{").count();
            assert_eq!(shown, 100);
            assert!(text.contains("mote_containers_ignored 900\n"), "{life}");
            // Those that were there first, with their short names as nobody knows better.
            let first = format!("{life:032x}{:032x}", 0);
            assert!(text.contains(&format!("id=\"{}\"", &first[..12])));
        }
        fs::remove_dir_all(slice).unwrap();
    }
    let text = fixtures::collect(&mut set, &mut host);
    assert!(!text.contains("container_cpu") && text.contains("mote_containers_ignored 0\n"));
    assert_eq!(fixtures::outcome(&set, "containers"), Outcome::Good);
}

#[test]
fn a_malformed_file_costs_itself_and_names_itself() {
    let unit = "sys/fs/cgroup/system.slice/plex.service";
    let cases = [
        (
            "cpu.stat",
            "usage_usec x\nuser_usec 5\nsystem_usec 6\n",
            "systemd_unit_cpu_seconds_total",
        ),
        ("memory.current", "12a\n", "systemd_unit_memory_anon_bytes"),
        ("memory.max", "maximum\n", "systemd_unit_memory_anon_bytes"),
        ("memory.stat", "anon 5\nfile\n", "systemd_unit_memory_anon_bytes"),
        ("memory.events", "oom_kill -1\n", "systemd_unit_memory_current_bytes"),
        ("io.stat", "8:x rbytes=1\n", "systemd_unit_tasks_current"),
        ("io.stat", "8:0 rbytes=1 wbytes=2 rios=3\n", "systemd_unit_tasks_current"),
        ("io.stat", "8:0 rbytes=1 wbytes=y rios=3 wios=4\n", "systemd_unit_tasks_current"),
        ("pids.max", "\u{fffd}\n", "systemd_unit_tasks_current"),
        ("cpu.max", "half 100000\n", "systemd_unit_tasks_current"),
        ("io.pressure", "some avg10=0.00 total\n", "systemd_unit_pressure_cpu_waiting"),
        ("memory.pressure", "none total=1\n", "systemd_unit_pressure_cpu_waiting"),
    ];
    for (file, bytes, stays) in cases {
        let tree = fixtures::Copy::of("nas");
        tree.write(&format!("{unit}/{file}"), bytes.as_bytes());
        let mut set = set();
        let text = fixtures::collect(&mut set, &mut fixtures::host(tree.path()));
        let Outcome::Failed(why) = fixtures::outcome(&set, "services") else {
            panic!("{file} {bytes:?}: {:?}", fixtures::outcome(&set, "services"));
        };
        assert!(why.contains(&format!("{unit}/{file}")), "{why}");
        assert_eq!(fixtures::outcome(&set, "containers"), Outcome::Good, "{file}");
        let series = |line: &str| line.starts_with(stays) && line.contains("plex.service");
        assert!(text.lines().any(series), "{file} {bytes:?}: {text}");
    }
}

#[test]
fn cut_and_altered_files_of_the_runtimes_cost_the_names_alone() {
    let tree = fixtures::Copy::of("nas");
    let files = [
        "root/etc/passwd",
        "root/var/lib/containers/storage/overlay-containers/containers.json",
        "root/home/ada/.local/share/containers/storage/overlay-containers/containers.json",
    ];
    for file in files {
        let whole = tree.read(file);
        for length in (0..whole.len()).step_by(7) {
            tree.write(file, &whole[..length]);
            let mut set = set();
            let text = fixtures::collect(&mut set, &mut fixtures::host(tree.path()));
            assert_eq!(fixtures::outcome(&set, "containers"), Outcome::Good, "{file} {length}");
            assert_eq!(text.matches("container_cpu_usage_seconds_total{").count(), 8);
        }
        tree.write(file, &whole);
    }
}

#[test]
fn no_control_groups_are_no_data_and_no_failure() {
    let tree = tempfile::tempdir().unwrap();
    let (mut set, mut host) = (set(), fixtures::host(tree.path()));
    for _ in 0..2 {
        fixtures::collect(&mut set, &mut host);
        for collector in ["services", "containers"] {
            assert!(matches!(fixtures::outcome(&set, collector), Outcome::NoData(_)));
        }
    }
    // They come to be, as when a container's mounts change.
    fs::create_dir_all(tree.path().join("sys/fs/cgroup/memory")).unwrap();
    fixtures::collect(&mut set, &mut host);
    assert_eq!(fixtures::outcome(&set, "services"), Outcome::Good);
}
