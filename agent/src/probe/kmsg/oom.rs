//! Messages of the OOM killer (mm/oom_kill.c, mm/memcontrol.c).
//!
//! A victim is told in one line, which every kernel writes once for each process that is killed, and
//! only that line makes a notice:
//!
//! ```text
//! Killed process 9 (x) total-vm:8kB, anon-rss:8kB, file-rss:0kB                      up to 5.0
//! Killed process 9 (x), UID 0, total-vm:8kB, anon-rss:8kB, file-rss:0kB, shmem-rss:0kB    RHEL 7
//! Memory cgroup out of memory: Killed process 9 (x) total-vm:8kB, …, shmem-rss:0kB       from 5.1
//! Out of memory: Killed process 9 (x) total-vm:8kB, …, UID:0 pgtables:44kB oom_score_adj:0    5.4
//! ```
//!
//! What it lacks stands before it: the cgroups, in `oom-kill:constraint=…` (from 5.0, left out after
//! ten kills in 5 s), in `Task in A killed as a result of limit of B` (before), or in `Tasks in A are
//! going to be killed due to memory.oom.group set`. A name of a process or cgroup may hold anything but
//! a NUL; the parts of a line are found from their unambiguous ends.

use std::collections::VecDeque;

use super::notice::{MEMORY, Notice, OomKill};
use super::scan::{Scan, number_after};
use crate::host::kmsg::Record;
use crate::probe::blackbox;

/// More than a record's text, less fragments than would grow.
const MAX_SUMMARY: usize = 4096;
/// Summaries that are remembered: the kernel writes ten in 5 s at most.
const MAX_EARLIER: usize = 10;
/// How long the lines of one kill take, on a slow serial console.
const WINDOW_US: u64 = 10_000_000;
/// The processes of a group are killed in one loop.
const GROUP_US: u64 = 50_000;

/// What has been said of a victim that is not named yet.
#[derive(Debug, Default)]
pub(super) struct Oom {
    /// What follows `oom-kill:constraint=`.
    summary: String,
    /// The summaries before it, the newest first.
    earlier: VecDeque<String>,
    /// Before 5.0, the cgroup of the task that is about to be killed, and that whose limit was met.
    task: Option<(String, String)>,
    /// Whether a victim has been named since these lines.
    used: bool,
    /// Whether it is for a cgroup's limit, where the victim's own line does not say.
    in_cgroup: bool,
    /// When the last of these lines came.
    usec: u64,
    /// The cgroup that is being killed as a whole.
    group: Option<String>,
    /// The victim that was chosen, which is named again when its group is killed.
    chosen: u32,
    /// When the last victim or group was named.
    named: u64,
}

impl Oom {
    pub(super) fn look(&mut self, record: &Record<'_>) -> Option<Notice> {
        let (text, usec) = (record.text, record.usec);
        if usec.saturating_sub(self.usec) > WINDOW_US {
            self.forget();
        }
        if let Some(victim) = victim(text) {
            return self.complete(victim, text, usec).map(Notice::OomKill);
        }
        if let Some(summary) = text.strip_prefix("oom-kill:constraint=") {
            self.forget();
            self.summary.push_str(summary);
        } else if let Some(rest) = text.strip_prefix("Task in ") {
            let (cgroup, limited) = rest.split_once(" killed as a result of limit of ")?;
            self.forget();
            self.task = Some((cgroup.to_owned(), limited.to_owned()));
        } else if let Some(rest) = text.strip_prefix("Tasks in ") {
            let end = " are going to be killed due to memory.oom.group set";
            self.group = Some(rest.strip_suffix(end)?.to_owned());
            self.named = usec;
            return None;
        } else if text.contains("ut of memory: Kill process ") {
            if self.used {
                self.forget();
            }
            self.in_cgroup = text.starts_with("Memory cgroup");
        } else {
            return None;
        }
        self.usec = usec;
        None
    }

    /// What comes behind an `oom-kill:` line that another CPU has interrupted.
    pub(super) fn more(&mut self, record: &Record<'_>) {
        let open = !self.summary.is_empty() && !self.summary.contains(",uid=");
        if open && self.summary.len() + record.text.len() <= MAX_SUMMARY {
            self.summary.push_str(record.text);
        }
    }

    /// The cgroup of a victim of the last summaries.
    pub(super) fn cgroup_of(&self, pid: u32, comm: &str) -> Option<String> {
        let victim = OomKill { pid, comm: comm.to_owned(), ..OomKill::default() };
        let last = Some(&self.summary).into_iter().chain(&self.earlier);
        last.filter_map(|text| summary(text, &victim)).find_map(|of| of.cgroup.map(str::to_owned))
    }

    fn forget(&mut self) {
        if !self.summary.is_empty() {
            self.earlier.truncate(MAX_EARLIER - 1);
            self.earlier.push_front(std::mem::take(&mut self.summary));
        }
        self.summary.clear();
        self.task = None;
        (self.used, self.in_cgroup) = (false, false);
    }

    /// The victim with what was said before. None if it has been named already.
    fn complete(&mut self, mut victim: OomKill, text: &str, usec: u64) -> Option<OomKill> {
        if usec.saturating_sub(self.named) > GROUP_US {
            self.group = None;
        }
        self.named = usec;
        self.used = true;
        match self.group {
            Some(_) if victim.pid == self.chosen => return None,
            Some(_) => {}
            None => self.chosen = victim.pid,
        }
        victim.in_cgroup = self.in_cgroup || text.starts_with("Memory cgroup");
        let task = self.task.as_ref();
        if let Some(of) = summary(&self.summary, &victim) {
            victim.uid = victim.uid.or(of.uid);
            victim.cgroup = of.cgroup.map(str::to_owned);
            victim.limited = of.limited.map(str::to_owned);
        } else if self.group.is_some() {
            victim.cgroup.clone_from(&self.group);
            let limited = limited(&self.summary).or(task.map(|(_, limited)| limited.as_str()));
            victim.limited = limited.map(str::to_owned);
        } else if let Some((cgroup, limited)) = task.filter(|_| victim.in_cgroup) {
            victim.cgroup = Some(cgroup.clone());
            victim.limited = Some(limited.clone());
        }
        let unit = victim.cgroup.as_deref().map(blackbox::unit);
        victim.unit = unit.unwrap_or_else(|| "unknown".to_owned());
        Some(victim)
    }
}

fn victim(text: &str) -> Option<OomKill> {
    let mut scan = Scan(text);
    if scan.tag("Killed process ").is_none() {
        let is_oom = text.starts_with("Out of memory") || text.starts_with("Memory cgroup out of");
        let _ = is_oom.then(|| scan.until(": Killed process ")).flatten()?;
    }
    let pid = u32::try_from(scan.number()?).ok()?;
    scan.tag(" (")?;
    // The last one, because a process may have it in its name.
    let end = scan
        .0
        .rfind(") total-vm:")
        .or_else(|| scan.0.rfind("), UID "))
        .or_else(|| scan.0.rfind(')'))?;
    let comm = scan.0.get(..end)?.to_owned();
    let rest = scan.0.get(end..)?;
    let mut victim = OomKill { pid, comm, ..OomKill::default() };
    for (kb, (name, _)) in victim.memory_kb.iter_mut().zip(MEMORY) {
        let (_, value) = rest.split_once(name).unwrap_or_default();
        *kb = value.strip_prefix(':').and_then(|value| Scan(value).number());
    }
    let uid = number_after(rest, "UID:").or_else(|| number_after(rest, "UID "));
    victim.uid = uid.and_then(|uid| u32::try_from(uid).ok());
    let (_, adj) = rest.split_once("oom_score_adj:").unwrap_or_default();
    victim.oom_score_adj = adj.parse().ok();
    Some(victim)
}

struct Summary<'a> {
    cgroup: Option<&'a str>,
    limited: Option<&'a str>,
    uid: Option<u32>,
}

/// What follows `oom-kill:constraint=`, if it is about this victim:
/// `C,nodemask=N,cpuset=S,mems_allowed=0-1,3[,oom_memcg=L|,global_oom][,task_memcg=G],task=x,pid=9,uid=0`.
fn summary<'a>(text: &'a str, victim: &OomKill) -> Option<Summary<'a>> {
    let (before, uid) = text.rsplit_once(",uid=")?;
    let (before, pid) = before.rsplit_once(",pid=")?;
    if pid.parse() != Ok(victim.pid) {
        return None;
    }
    let before = match victim.comm.as_str() {
        // Kernels before 6.9 do not say it where they tell of the victim first.
        "" => before.rsplit_once(",task=")?.0,
        comm => before.strip_suffix(comm)?.strip_suffix(",task=")?,
    };
    let cgroup = before.split_once(",task_memcg=").map(|(_, cgroup)| cgroup);
    Some(Summary { cgroup, limited: limited(text), uid: uid.parse().ok() })
}

fn limited(summary: &str) -> Option<&str> {
    let (_, limited) = summary.split_once(",oom_memcg=")?;
    Some(limited.split_once(",task_memcg=").map_or(limited, |(limited, _)| limited))
}
