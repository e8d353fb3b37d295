//! The black box of an OOM kill: what the kernel says of the victim, and what /proc says at that moment
//! of the victim, of those that use the most memory, and of the memory itself. The next second may not
//! come, so it reads little: a file for each process, and some more.

use std::fs;

use crate::host::Host;
use crate::model::Event;

/// How many of those that use the most memory are named.
const TOP: usize = 5;

/// More processes than a small machine has; a larger one does not hold up the event for all of its.
const MAX_PROCESSES: usize = 4096;

/// Kills of which everything is told in a stretch of this length: where one follows another, the agent
/// must not add to the load.
const WHOLE: u32 = 8;
const STRETCH_NS: i64 = 10_000_000_000;

/// How many kills may still be described with all that is around them.
#[derive(Debug, Default)]
pub(super) struct Whole {
    since_ns: i64,
    told: u32,
}

impl Whole {
    /// Takes one, at this time in nanoseconds since the Unix epoch; true if there is none left.
    pub(super) fn is_used_up(&mut self, now_ns: i64) -> bool {
        if now_ns.abs_diff(self.since_ns) > STRETCH_NS.unsigned_abs() {
            (self.since_ns, self.told) = (now_ns, 0);
        }
        self.told = self.told.saturating_add(1);
        self.told > WHOLE
    }
}

/// Who is killed, as far as it is known.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(super) struct Victim {
    pub(super) pid: u32,
    /// The process' name; may be empty.
    pub(super) comm: String,
    pub(super) uid: Option<u32>,
    pub(super) total_vm_kb: Option<u64>,
    pub(super) anon_rss_kb: Option<u64>,
    pub(super) file_rss_kb: Option<u64>,
    pub(super) shmem_rss_kb: Option<u64>,
    pub(super) pgtables_kb: Option<u64>,
    pub(super) oom_score_adj: Option<i32>,
    /// Who asked for memory when there was none: name and process ID.
    pub(super) trigger: Option<(String, u32)>,
    /// The victim's cgroup, where the kernel has said it.
    pub(super) cgroup: Option<String>,
}

/// The victim's unit, and the event. What is not there any more is left out, and with `brief` all that
/// would have to be gathered from many files.
pub(super) fn event(
    host: &mut Host,
    at_ns: i64,
    mut victim: Victim,
    brief: bool,
) -> (String, Event) {
    complete(host, &mut victim);
    let unit = victim.cgroup.as_deref().map_or("unknown".to_owned(), unit);
    let name = if victim.comm.is_empty() { "a process" } else { &victim.comm };
    let resident: Option<u64> = [victim.anon_rss_kb, victim.file_rss_kb, victim.shmem_rss_kb]
        .into_iter()
        .try_fold(0u64, |sum, kb| Some(sum.saturating_add(kb?)));
    let size = resident.map(|kb| format!(", {} MiB resident", kb / 1024)).unwrap_or_default();
    let message = format!("out of memory: {name} (PID {}{size}) of {unit} was killed", victim.pid);
    let mut event = Event::new("oom_kill", at_ns, message).with("pid", victim.pid.to_string());
    let mut add = |name, value: Option<String>| {
        if let Some(value) = value {
            event.fields.push((name, value));
        }
    };
    let number = |value: Option<u64>| value.map(|value| value.to_string());
    add("comm", Some(victim.comm).filter(|comm| !comm.is_empty()));
    add("unit", Some(unit.clone()));
    add("cgroup", victim.cgroup);
    add("uid", victim.uid.map(|uid| uid.to_string()));
    add("total_vm_kb", number(victim.total_vm_kb));
    add("anon_rss_kb", number(victim.anon_rss_kb));
    add("file_rss_kb", number(victim.file_rss_kb));
    add("shmem_rss_kb", number(victim.shmem_rss_kb));
    add("pgtables_kb", number(victim.pgtables_kb));
    add("oom_score_adj", victim.oom_score_adj.map(|adjust| adjust.to_string()));
    if let Some((comm, pid)) = victim.trigger {
        add("trigger", Some(comm));
        add("trigger_pid", Some(pid.to_string()));
    }
    if brief {
        return (unit, event);
    }
    let top = top(host);
    add("top", Some(top).filter(|top| !top.is_empty()));
    for (name, key) in [
        ("mem_total_kb", "MemTotal:"),
        ("mem_available_kb", "MemAvailable:"),
        ("swap_free_kb", "SwapFree:"),
    ] {
        add(name, number(meminfo(host, key)));
    }
    add("pressure_some_avg10", pressure(host, "some "));
    add("pressure_full_avg10", pressure(host, "full "));
    (unit, event)
}

/// What /proc still has of the victim: a process that is killed is there until it has ended.
fn complete(host: &mut Host, victim: &mut Victim) {
    let pid = victim.pid;
    // A process that is ending has been moved to the root before it is gone.
    if victim.cgroup.is_none()
        && let Ok(text) = host.proc(format_args!("{pid}/cgroup"))
    {
        victim.cgroup = cgroup(&String::from_utf8_lossy(text));
        if victim.cgroup.as_deref() == Some("/")
            && host.proc(format_args!("{pid}/statm")).is_ok_and(|statm| statm.starts_with(b"0 "))
        {
            victim.cgroup = None;
        }
    }
    if (victim.comm.is_empty() || victim.uid.is_none())
        && let Ok(text) = host.proc(format_args!("{pid}/status"))
    {
        let text = String::from_utf8_lossy(text).into_owned();
        let value = |key: &str| text.lines().find_map(|line| line.strip_prefix(key));
        if victim.comm.is_empty() {
            victim.comm = value("Name:\t").unwrap_or_default().to_owned();
        }
        let uid = value("Uid:\t").and_then(|ids| ids.split('\t').next()?.parse().ok());
        victim.uid = victim.uid.or(uid);
        let kb = |key| value(key).and_then(|v| v.trim().strip_suffix(" kB")?.parse().ok());
        victim.total_vm_kb = victim.total_vm_kb.or_else(|| kb("VmSize:"));
        victim.anon_rss_kb = victim.anon_rss_kb.or_else(|| kb("RssAnon:"));
        victim.file_rss_kb = victim.file_rss_kb.or_else(|| kb("RssFile:"));
        victim.shmem_rss_kb = victim.shmem_rss_kb.or_else(|| kb("RssShmem:"));
        victim.pgtables_kb = victim.pgtables_kb.or_else(|| kb("VmPTE:"));
    }
}

/// The cgroup of /proc/PID/cgroup that tells the unit: version 2's, else systemd's own hierarchy, else
/// that of the memory controller.
fn cgroup(text: &str) -> Option<String> {
    let of = |wanted: &dyn Fn(&str) -> bool| {
        text.lines().find_map(|line| {
            let (controllers, path) = line.split_once(':')?.1.split_once(':')?;
            (wanted(controllers) && path != "/").then(|| path.to_owned())
        })
    };
    of(&|controllers| controllers.split(',').any(|one| one == "memory"))
        .or_else(|| of(&str::is_empty))
        .or_else(|| of(&|controllers| controllers == "name=systemd"))
        .or_else(|| text.contains(":/").then(|| "/".to_owned()))
}

/// The systemd unit or the container of a cgroup's path; else its last part. Of names that are made anew
/// each time only what stays: a session is of its user, a run of `run.scope`, a container its short ID.
pub(super) fn unit(path: &str) -> String {
    let parts = || path.split('/').filter(|part| !part.is_empty());
    let is_unit = |part: &&str| [".service", ".scope", ".slice"].iter().any(|e| part.ends_with(e));
    let Some(last) = parts().rfind(is_unit).or_else(|| parts().next_back()) else {
        return "-.slice".to_owned();
    };
    let stem = last.rsplit_once('.').map_or(last, |(stem, _)| stem);
    if let Some(short) = container(stem).or_else(|| container(parts().next_back()?)) {
        return short;
    }
    if last.starts_with("session-") && last.ends_with(".scope") {
        let user = parts().rfind(|part| part.starts_with("user-") && part.ends_with(".slice"));
        return user.unwrap_or("session.scope").to_owned();
    }
    match last.starts_with("run-") && last.ends_with(".scope") {
        true => "run.scope".to_owned(),
        false => last.to_owned(),
    }
}

/// `docker-0123456789ab` of `docker-<64 digits>`, `libpod-…`, or the digits alone.
fn container(stem: &str) -> Option<String> {
    let (runtime, id) = stem.rsplit_once('-').unwrap_or(("container", stem));
    let is_id = id.len() == 64 && id.bytes().all(|byte| byte.is_ascii_hexdigit());
    is_id.then(|| format!("{runtime}-{}", id.get(..12).unwrap_or(id)))
}

/// Those that use the most memory: `name[pid]=MiB`, separated by commas.
fn top(host: &mut Host) -> String {
    let Ok(entries) = fs::read_dir(&host.roots().proc) else { return String::new() };
    let page_kb = rustix::param::page_size() as u64 / 1024;
    let mut top: Vec<(u64, u32)> = Vec::with_capacity(TOP + 1);
    let pids = entries.flatten().filter_map(|entry| entry.file_name().to_str()?.parse().ok());
    for pid in pids.take(MAX_PROCESSES) {
        let pid: u32 = pid;
        let Ok(statm) = host.proc(format_args!("{pid}/statm")) else { continue };
        let resident = std::str::from_utf8(statm).ok().and_then(|s| s.split(' ').nth(1));
        let Some(pages) = resident.and_then(|pages| pages.parse::<u64>().ok()) else { continue };
        let at = top.partition_point(|(other, _)| *other >= pages);
        top.insert(at, (pages, pid));
        top.truncate(TOP);
    }
    let mut text = String::new();
    for (pages, pid) in top {
        let comm = match host.proc(format_args!("{pid}/comm")) {
            Ok(comm) => String::from_utf8_lossy(comm).trim().to_owned(),
            Err(_) => "?".to_owned(),
        };
        let comma = if text.is_empty() { "" } else { "," };
        text.push_str(&format!("{comma}{comm}[{pid}]={}MiB", pages * page_kb / 1024));
    }
    text
}

fn meminfo(host: &mut Host, key: &str) -> Option<u64> {
    let text = std::str::from_utf8(host.proc("meminfo").ok()?).ok()?;
    let value = text.lines().find_map(|line| line.strip_prefix(key))?;
    value.trim().strip_suffix(" kB")?.parse().ok()
}

fn pressure(host: &mut Host, key: &str) -> Option<String> {
    let text = std::str::from_utf8(host.proc("pressure/memory").ok()?).ok()?;
    let line = text.lines().find_map(|line| line.strip_prefix(key))?;
    let value = line.split(' ').find_map(|pair| pair.strip_prefix("avg10="))?;
    value.parse::<f64>().ok().map(|_| value.to_owned())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn kills_in_a_row_are_described_briefly_from_the_ninth_on() {
        let mut whole = Whole::default();
        let brief = |whole: &mut Whole, at| (0..20).filter(|_| whole.is_used_up(at)).count();
        assert_eq!(brief(&mut whole, 2 * STRETCH_NS), 12);
        assert_eq!(brief(&mut whole, 3 * STRETCH_NS), 20);
        assert_eq!(brief(&mut whole, 3 * STRETCH_NS + 1), 12);
    }

    #[test]
    fn unit_is_what_stays_of_a_cgroups_path() {
        let id = "0123456789abcdef".repeat(4);
        for (path, expected) in [
            ("/system.slice/nginx.service", "nginx.service"),
            ("/system.slice/nginx.service/worker", "nginx.service"),
            ("/user.slice/user-1000.slice/session-17.scope", "user-1000.slice"),
            ("/user.slice/user-1000.slice/user@1000.service/app.slice/a.service", "a.service"),
            ("/system.slice/run-r1f3a.scope", "run.scope"),
            ("/", "-.slice"),
            ("", "-.slice"),
            ("/my-group", "my-group"),
            (&format!("/system.slice/docker-{id}.scope"), "docker-0123456789ab"),
            (&format!("/machine.slice/libpod-{id}.scope/container"), "libpod-0123456789ab"),
            (&format!("/docker/{id}"), "container-0123456789ab"),
            (&format!("/kubepods.slice/pod7.slice/{id}"), "container-0123456789ab"),
        ] {
            assert_eq!(unit(path), expected, "{path}");
        }
    }

    #[test]
    fn cgroup_is_that_of_the_memory_then_of_version_2_then_of_systemd() {
        let v1 = "5:memory:/m\n4:cpu,cpuacct:/c\n1:name=systemd:/s\n0::/\n";
        assert_eq!(cgroup(v1).as_deref(), Some("/m"));
        assert_eq!(cgroup("1:name=systemd:/s\n0::/two\n").as_deref(), Some("/two"));
        assert_eq!(cgroup("5:memory:/\n1:name=systemd:/s\n").as_deref(), Some("/s"));
        assert_eq!(cgroup("0::/\n").as_deref(), Some("/"));
        assert_eq!(cgroup("nonsense\n"), None);
        assert_eq!(cgroup(""), None);
    }

    #[test]
    fn victim_that_is_there_is_completed_and_the_moment_is_described() {
        let mut host = Host::new(Default::default());
        let victim = Victim { pid: std::process::id(), ..Victim::default() };
        let (unit, event) = event(&mut host, 7, victim, false);
        assert!(!unit.is_empty() && unit != "unknown");
        let value = |name| event.fields.iter().find(|(n, _)| *n == name).map(|(_, v)| v.as_str());
        assert!(value("comm").is_some_and(|comm| event.message.contains(comm)), "{event:?}");
        assert_eq!(value("uid"), Some("0"));
        let top = value("top").unwrap();
        assert_eq!(top.split(',').count(), TOP, "{top}");
        assert!(value("mem_total_kb").unwrap().parse::<u64>().unwrap() > 100_000);
        assert!(value("anon_rss_kb").is_some());
    }

    #[test]
    fn victim_that_is_gone_keeps_what_the_kernel_has_said() {
        let mut host =
            Host::new(crate::host::Roots { proc: "/nonexistent".into(), ..Default::default() });
        let victim = Victim {
            pid: 12,
            comm: "hog".to_owned(),
            anon_rss_kb: Some(2048),
            file_rss_kb: Some(1024),
            shmem_rss_kb: Some(0),
            cgroup: Some("/system.slice/a.service".to_owned()),
            ..Victim::default()
        };
        let (unit, event) = event(&mut host, 7, victim, false);
        assert_eq!(unit, "a.service");
        let wanted = "out of memory: hog (PID 12, 3 MiB resident) of a.service was killed";
        assert_eq!(event.message, wanted);
        let names: Vec<_> = event.fields.iter().map(|(name, _)| *name).collect();
        let wanted =
            ["pid", "comm", "unit", "cgroup", "anon_rss_kb", "file_rss_kb", "shmem_rss_kb"];
        assert_eq!(names, wanted);
    }
}
