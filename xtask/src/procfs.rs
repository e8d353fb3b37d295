//! What a running process costs, from /proc/PID. It must not know which process it is.

use std::collections::BTreeMap;
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
    /// The most that it has been since the start, bytes (`VmHWM`).
    pub(crate) peak: u64,
    /// The anonymous part of it, bytes (`RssAnon` of status).
    pub(crate) anonymous: u64,
    /// Proportional set size, bytes (`Pss` of smaps_rollup).
    pub(crate) proportional: u64,
    /// Threads.
    pub(crate) threads: u64,
    /// Time on a CPU, nanoseconds: of all threads that were seen (schedstat), or of all that there were (stat),
    /// which is whole ticks, if that is more.
    pub(crate) cpu_nanoseconds: u64,
    /// Context switches of all threads that were seen, voluntary or not (status of each).
    pub(crate) context_switches: u64,
    /// The voluntary ones: each is a thread that went to sleep, and will be woken.
    pub(crate) wake_ups: u64,
    /// Bytes that it has caused to be written to storage (`write_bytes` of io, less what was
    /// truncated away before it got there).
    pub(crate) written: u64,
}

/// What one thread has used.
#[derive(Clone, Copy, Debug, Default)]
struct Used {
    cpu_nanoseconds: u64,
    voluntary: u64,
    involuntary: u64,
}

/// A process that is looked at again and again: what a thread had used when it was last seen is still counted
/// when it has ended.
#[derive(Debug)]
pub(crate) struct Meter {
    pid: u32,
    threads: BTreeMap<String, Used>,
    /// Of threads whose number another has got.
    before: Vec<Used>,
}

impl Meter {
    /// Of the process `pid`.
    pub(crate) fn of(pid: u32) -> Meter {
        Meter { pid, threads: BTreeMap::new(), before: Vec::new() }
    }

    /// Looks at its threads, so that little is missed of those that end.
    ///
    /// # Errors
    /// The process is gone, or a file does not look as it should.
    pub(crate) fn look(&mut self) -> Result<()> {
        let tasks = format!("/proc/{}/task", self.pid);
        let fail = |error| format!("{tasks} can't be read: {error}");
        let plain = |text: &str, key: &str| field(text, key).map_err(|why| at_path(self.pid, why));
        for task in fs::read_dir(&tasks).map_err(fail)? {
            let task = task.map_err(fail)?;
            let (number, path) = (task.file_name().to_string_lossy().into_owned(), task.path());
            // A thread may end meanwhile.
            let Ok(schedule) = fs::read_to_string(path.join("schedstat")) else { continue };
            let Ok(status) = fs::read_to_string(path.join("status")) else { continue };
            let used = Used {
                cpu_nanoseconds: schedule
                    .split_ascii_whitespace()
                    .next()
                    .and_then(|token| token.parse().ok())
                    .ok_or_else(|| format!("{}/schedstat holds {schedule:?}", path.display()))?,
                voluntary: plain(&status, "voluntary_ctxt_switches")?,
                involuntary: plain(&status, "nonvoluntary_ctxt_switches")?,
            };
            let old = self.threads.insert(number, used).unwrap_or_default();
            if old.cpu_nanoseconds > used.cpu_nanoseconds {
                self.before.push(old);
            }
        }
        Ok(())
    }

    /// The state of the process now.
    ///
    /// # Errors
    /// The process is gone or is not ours to look at, or a file does not look as it should.
    pub(crate) fn snapshot(&mut self) -> Result<Snapshot> {
        let process = format!("/proc/{}", self.pid);
        let at = Instant::now();
        self.look()?;
        let status = read(&format!("{process}/status"))?;
        let stat = read(&format!("{process}/stat"))?;
        let memory = read(&format!("{process}/smaps_rollup"))?;
        let io = read(&format!("{process}/io"))?;
        let plain = |text: &str, key: &str| field(text, key).map_err(|why| at_path(self.pid, why));
        let kibibytes = |text: &str, key: &str| plain(text, key).map(|value| value * 1024);
        let ticks = ticks(&stat).ok_or_else(|| format!("{process}/stat holds {stat:?}"))?;
        let all = || self.threads.values().chain(&self.before);
        let wake_ups = all().map(|used| used.voluntary).sum();
        let cpu: u64 = all().map(|used| used.cpu_nanoseconds).sum();
        Ok(Snapshot {
            at,
            resident: kibibytes(&status, "VmRSS")?,
            peak: kibibytes(&status, "VmHWM")?,
            anonymous: kibibytes(&status, "RssAnon")?,
            proportional: kibibytes(&memory, "Pss")?,
            threads: plain(&status, "Threads")?,
            cpu_nanoseconds: cpu
                .max(ticks * (1_000_000_000 / rustix::param::clock_ticks_per_second())),
            context_switches: all().map(|used| used.involuntary).sum::<u64>() + wake_ups,
            wake_ups,
            written: plain(&io, "write_bytes")?
                .saturating_sub(plain(&io, "cancelled_write_bytes")?),
        })
    }
}

fn at_path(pid: u32, why: String) -> String {
    format!("/proc/{pid}: {why}")
}

fn read(path: &str) -> Result<String> {
    fs::read_to_string(path).map_err(|error| format!("{path} can't be read: {error}"))
}

/// User and system time, in ticks: the 14th and 15th field; the 2nd may hold anything, also a bracket.
fn ticks(stat: &str) -> Option<u64> {
    let (_, rest) = stat.rsplit_once(')')?;
    let mut fields = rest.split_ascii_whitespace().skip(11);
    Some(fields.next()?.parse::<u64>().ok()? + fields.next()?.parse::<u64>().ok()?)
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
        let mut meter = Meter::of(busy.id());
        let first = meter.snapshot().expect("a process of ours");
        let last = Interrupt::default()
            .wait_for("20 ms of work", Duration::from_secs(30), || {
                let now = meter.snapshot()?;
                let worked = now.cpu_nanoseconds - first.cpu_nanoseconds;
                Ok(match worked > 20_000_000 && now.context_switches > first.context_switches {
                    true => Answer::Yes(now),
                    false => Answer::NotYet(format!("{first:?} {now:?}")),
                })
            })
            .expect("it works");
        assert_eq!(last.threads, 1);
        assert!(last.resident > last.anonymous && last.anonymous > 0, "{last:?}");
        assert!(last.peak >= last.resident && last.wake_ups <= last.context_switches, "{last:?}");
        assert!((1..=last.resident).contains(&last.proportional), "{last:?}");
    }

    #[test]
    fn a_thread_that_has_ended_is_still_counted() {
        let mut meter = Meter::of(std::process::id());
        std::thread::spawn(|| ()).join().expect("it ends");
        meter.look().expect("our own process");
        let used = Used { cpu_nanoseconds: 1 << 60, voluntary: 1 << 40, involuntary: 1 << 50 };
        meter.threads.insert("of a thread that was".to_owned(), used);
        let one = meter.threads.keys().next().cloned().expect("a thread");
        meter.threads.insert(one, used);
        let now = meter.snapshot().expect("our own process");
        assert!(now.cpu_nanoseconds >= 2 << 60 && now.wake_ups >= 2 << 40, "{now:?}");
        assert!(now.context_switches >= 2 << 50, "{now:?}");
    }

    #[test]
    fn a_name_with_brackets_does_not_shift_the_ticks() {
        let stat = "1 (a) b) S 0 1 1 0 -1 4194560 1 2 3 4 50 7 8 9 20 0 1 0 1 1 1";
        assert_eq!(ticks(stat), Some(57));
        assert_eq!(ticks("1 (a) S 0"), None);
    }

    #[test]
    fn a_field_is_the_whole_key() {
        let text = "VmRSSx:\t9 kB\nVmRSS:\t   123 kB\nBroken:\n";
        assert_eq!(field(text, "VmRSS"), Ok(123));
        assert!(field(text, "Broken").is_err());
        assert!(field(text, "Absent").is_err());
    }
}
