//! What a running process costs, from /proc/PID. It must not know which process it is.

use std::fs;
use std::time::Instant;

use crate::Result;

/// The state of a process at one moment.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Snapshot {
    /// When it was taken.
    pub(crate) at: Instant,
    /// Resident memory, bytes (`VmRSS` of status).
    pub(crate) resident: u64,
    /// The anonymous part of it, bytes (`RssAnon` of status).
    pub(crate) anonymous: u64,
    /// Proportional set size, bytes (`Pss` of smaps_rollup).
    pub(crate) proportional: u64,
    /// Threads.
    pub(crate) threads: u64,
    /// Time on a CPU of all threads that live, nanoseconds (schedstat).
    pub(crate) cpu_nanoseconds: u64,
    /// Context switches of all threads that live, voluntary or not (status of each).
    pub(crate) context_switches: u64,
    /// Bytes that it has caused to be written to storage (`write_bytes` of io, less what was
    /// truncated away before it got there).
    pub(crate) written: u64,
}

impl Snapshot {
    /// Takes one of the process `pid`.
    ///
    /// # Errors
    /// The process is gone or is not ours to look at, or a file does not look as it should.
    pub(crate) fn take(pid: u32) -> Result<Snapshot> {
        let process = format!("/proc/{pid}");
        let at = Instant::now();
        let status = read(&format!("{process}/status"))?;
        let memory = read(&format!("{process}/smaps_rollup"))?;
        let io = read(&format!("{process}/io"))?;
        let kibibytes = |text: &str, key: &str| {
            field(text, key).map(|value| value * 1024).map_err(|why| at_path(pid, why))
        };
        let plain = |text: &str, key: &str| field(text, key).map_err(|why| at_path(pid, why));

        let mut snapshot = Snapshot {
            at,
            resident: kibibytes(&status, "VmRSS")?,
            anonymous: kibibytes(&status, "RssAnon")?,
            proportional: kibibytes(&memory, "Pss")?,
            threads: plain(&status, "Threads")?,
            cpu_nanoseconds: 0,
            context_switches: 0,
            written: plain(&io, "write_bytes")?
                .saturating_sub(plain(&io, "cancelled_write_bytes")?),
        };
        let tasks = format!("{process}/task");
        let fail = |error| format!("{tasks} can't be read: {error}");
        for task in fs::read_dir(&tasks).map_err(fail)? {
            let task = task.map_err(fail)?.path();
            // A thread may end meanwhile.
            let Ok(schedule) = fs::read_to_string(task.join("schedstat")) else { continue };
            let Ok(status) = fs::read_to_string(task.join("status")) else { continue };
            snapshot.cpu_nanoseconds += schedule
                .split_ascii_whitespace()
                .next()
                .and_then(|token| token.parse::<u64>().ok())
                .ok_or_else(|| format!("{}/schedstat holds {schedule:?}", task.display()))?;
            snapshot.context_switches += plain(&status, "voluntary_ctxt_switches")?
                + plain(&status, "nonvoluntary_ctxt_switches")?;
        }
        Ok(snapshot)
    }
}

fn at_path(pid: u32, why: String) -> String {
    format!("/proc/{pid}: {why}")
}

fn read(path: &str) -> Result<String> {
    fs::read_to_string(path).map_err(|error| format!("{path} can't be read: {error}"))
}

/// The number behind `key:` at the beginning of a line.
fn field(text: &str, key: &str) -> Result<u64> {
    text.lines()
        .find_map(|line| line.strip_prefix(key)?.strip_prefix(':'))
        .and_then(|rest| rest.split_ascii_whitespace().next()?.parse().ok())
        .ok_or_else(|| format!("no number behind {key}:"))
}

#[cfg(test)]
mod tests {
    use std::process::Command;
    use std::time::Duration;

    use super::*;
    use crate::process::{Answer, Interrupt, Running};

    #[test]
    fn a_busy_process_is_seen_to_be_busy() {
        let mut busy = Command::new("sh");
        busy.args(["-c", "while :; do :; done"]);
        let busy = Running::start("sh", &mut busy, None).expect("sh starts");
        let first = Snapshot::take(busy.id()).expect("a process of ours");
        let last = Interrupt::default()
            .wait_for("20 ms of work", Duration::from_secs(30), || {
                let now = Snapshot::take(busy.id())?;
                let worked = now.cpu_nanoseconds - first.cpu_nanoseconds;
                Ok(match worked > 20_000_000 && now.context_switches > first.context_switches {
                    true => Answer::Yes(now),
                    false => Answer::NotYet(format!("{first:?} {now:?}")),
                })
            })
            .expect("it works");
        assert_eq!(last.threads, 1);
        assert!(last.resident > last.anonymous && last.anonymous > 0, "{last:?}");
        assert!((1..=last.resident).contains(&last.proportional), "{last:?}");
    }

    #[test]
    fn a_field_is_the_whole_key() {
        let text = "VmRSSx:\t9 kB\nVmRSS:\t   123 kB\nBroken:\n";
        assert_eq!(field(text, "VmRSS"), Ok(123));
        assert!(field(text, "Broken").is_err());
        assert!(field(text, "Absent").is_err());
    }
}
