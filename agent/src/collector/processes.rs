//! node_exporter's `processes`, from /proc/PID/stat and /proc/PID/task/TID/stat (fs/proc/array.c): how many
//! processes and threads there are, and in which state.
//!
//! A round reads a file for each thread, [`TASKS_MAX`] at most; on a host with more, states and threads are
//! left out and the collector is not successful. Processes that end while they are read don't count.

use std::io;

use super::parse::{FirstError, fields, number, unsigned};
use super::{CollectError, Collector};
use crate::host::{Host, Names, Root};
use crate::model::{Desc, Samples};

const THREADS: Desc = Desc::gauge("node_processes_threads", "Allocated threads in system");
const MAX_THREADS: Desc =
    Desc::gauge("node_processes_max_threads", "Limit of threads in the system");
const STATE: Desc = Desc::gauge("node_processes_state", "Number of processes in each state.");
const THREADS_STATE: Desc =
    Desc::gauge("node_processes_threads_state", "Number of threads in each state.");
const PIDS: Desc = Desc::gauge("node_processes_pids", "Number of PIDs");
const MAX_PROCESSES: Desc = Desc::gauge("node_processes_max_processes", "Number of max PIDs limit");

/// The most tasks that a round reads, some 200 ms on a fast machine.
const TASKS_MAX: usize = 32_768;

/// Tasks by the letter of their state.
#[derive(Clone, Copy)]
struct States([u32; 128]);

impl States {
    fn add(&mut self, state: u8) {
        if let Some(count) = self.0.get_mut(usize::from(state)) {
            *count = count.saturating_add(1);
        }
    }

    fn write(&self, desc: &Desc, label: &str, out: &mut Samples) {
        let mut family = out.family(desc);
        for (state, &count) in (0u8..).zip(&self.0).filter(|(_, count)| **count > 0) {
            family.add(&[(label, char::from(state).encode_utf8(&mut [0; 4]))], f64::from(count));
        }
    }
}

/// Processes and threads by state.
pub(super) struct Processes {
    most: usize,
    processes: Names,
    tasks: Names,
}

impl Processes {
    pub(super) fn new() -> Processes {
        Processes { most: TASKS_MAX, processes: Names::new(), tasks: Names::new() }
    }
}

impl Collector for Processes {
    fn collect(&mut self, host: &mut Host, out: &mut Samples) -> Result<(), CollectError> {
        let mut errors = FirstError::default();
        host.list(Root::Proc, "", &mut self.processes)?;
        let mut room = self.most;
        let mut processes = States([0; 128]);
        let mut threads = States([0; 128]);
        let (mut pids, mut count) = (0u64, 0u64);
        for pid in self.processes.iter().filter(|name| is_number(name)) {
            let Some(stat) = host.find(Root::Proc, format_args!("{pid}/stat")) else { continue };
            let Some((state, of_process)) = parse(stat) else {
                // Of a process that is about to be gone nothing is read, too.
                if !stat.is_empty() {
                    let file = format!("proc/{pid}/stat");
                    errors.note(super::parse::malformed(&file, stat, "the state of a process"));
                }
                continue;
            };
            pids += 1;
            count += of_process;
            processes.add(state);
            threads.add(state);
            room = room.saturating_sub(1);
            if of_process > 1 {
                // The process may have ended since.
                let _ = host.list(Root::Proc, format_args!("{pid}/task"), &mut self.tasks);
                for tid in self.tasks.iter().filter(|tid| is_number(tid) && *tid != pid) {
                    room = room.saturating_sub(1);
                    if room == 0 {
                        break;
                    }
                    let stat = host.find(Root::Proc, format_args!("{pid}/task/{tid}/stat"));
                    if let Some((state, _)) = stat.and_then(parse) {
                        threads.add(state);
                    }
                }
            }
            if room == 0 {
                break;
            }
        }
        if pids == 0 {
            let _ = host.path(Root::Proc, "");
            return Err(host.error(io::ErrorKind::NotFound.into()).into());
        }
        if room == 0 {
            errors.note(CollectError::System {
                attempt: "reading the states of all threads".to_owned(),
                source: io::Error::other(format!("there are {} or more", self.most)),
            });
        } else {
            out.value(&THREADS, count as f64);
            processes.write(&STATE, "state", out);
            threads.write(&THREADS_STATE, "thread_state", out);
            out.value(&PIDS, pids as f64);
        }
        for (file, desc) in [("threads-max", MAX_THREADS), ("pid_max", MAX_PROCESSES)] {
            let path = format_args!("sys/kernel/{file}");
            if let Some(limit) = number(host, Root::Proc, path, &mut errors) {
                out.value(&desc, limit as f64);
            }
        }
        errors.result()
    }
}

fn is_number(name: &str) -> bool {
    unsigned(name.as_bytes()).is_some()
}

/// State and number of threads. The command stands in parentheses and may hold any byte; what follows the
/// last one that closes is the kernel's.
fn parse(stat: &[u8]) -> Option<(u8, u64)> {
    let close = stat.iter().rposition(|&byte| byte == b')')?;
    let mut columns = fields(stat.get(close + 1..)?);
    let &[state] = columns.next()? else { return None };
    let threads = columns.nth(16).and_then(unsigned)?;
    state.is_ascii_alphabetic().then_some((state, threads))
}

#[cfg(test)]
mod tests {
    use super::super::testing::Tree;
    use super::*;

    fn stat(command: &str, state: char, threads: u32) -> String {
        format!("7 ({command}) {state} 1 7 7 0 -1 0 0 0 0 0 0 0 0 0 20 0 {threads} 0 42 0 0\n")
    }

    #[test]
    fn commands_with_parentheses_and_garbage() {
        assert_eq!(parse(stat("a) R 9 (", 'S', 3).as_bytes()), Some((b'S', 3)));
        for bad in ["", "1", "1 (x", "1 (x)", "1 (x) SS 1 2", "1 (x) S 1 2 3"] {
            assert_eq!(parse(bad.as_bytes()), None, "{bad}");
        }
        assert_eq!(parse(stat("x", '?', 1).as_bytes()), None);
    }

    #[test]
    fn processes_that_vanish_and_a_malformed_one_leave_the_others() {
        let tree = Tree::new(&[
            ("proc/1/stat", &stat("init", 'S', 1)),
            ("proc/20/stat", &stat("two", 'S', 2)),
            ("proc/20/task/20/stat", &stat("two", 'S', 2)),
            ("proc/20/task/21/stat", &stat("two", 'D', 2)),
            ("proc/20/task/22/comm", "vanished"),
            ("proc/30/comm", "vanished"),
            ("proc/31/stat", ""),
            ("proc/40/stat", "40 (odd) "),
            ("proc/41/stat", &stat("threads gone", 'Z', 9)),
            ("proc/sys/kernel/pid_max", "4194304\n"),
        ]);
        let mut processes = Processes::new();
        let (text, result) = tree.collect(&mut processes);
        let want = [
            "node_processes_threads 12",
            "node_processes_state{state=\"S\"} 2",
            "node_processes_state{state=\"Z\"} 1",
            "node_processes_threads_state{thread_state=\"D\"} 1",
            "node_processes_threads_state{thread_state=\"S\"} 2",
            "node_processes_threads_state{thread_state=\"Z\"} 1",
            "node_processes_pids 3",
            "node_processes_max_processes 4194304",
        ];
        assert_eq!(text, want);
        assert!(result.unwrap_err().to_string().contains("proc/40/stat"));
    }

    #[test]
    fn more_tasks_than_are_read_have_no_states() {
        let tree = Tree::new(&[
            ("proc/1/stat", &stat("init", 'S', 1)),
            ("proc/2/stat", &stat("two", 'S', 1)),
            ("proc/sys/kernel/pid_max", "32768\n"),
        ]);
        let mut processes = Processes { most: 2, ..Processes::new() };
        let (text, result) = tree.collect(&mut processes);
        assert_eq!(text, ["node_processes_max_processes 32768"]);
        assert!(result.unwrap_err().to_string().contains("there are 2 or more"));
        let mut processes = Processes { most: 3, ..Processes::new() };
        assert!(tree.collect(&mut processes).1.is_ok());
    }
}
