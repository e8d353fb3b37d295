//! What the service manager is told of the agent: that it is ready, reads its configuration again or stops, a
//! line on how it does, and that it still lives. All of it is sent by the thread that does the work, so that
//! silence means that this thread hangs; not that a disk or a server does, which only a task waits for.
//!
//! Where a round comes often enough it carries the sign of life, and there is no timer of its own.

use std::cell::{Cell, RefCell};
use std::fmt::Write as _;
use std::rc::Rc;
use std::time::Duration;

use tokio::time::Instant;

use crate::host::Notify;
use crate::status::{Report, summary};

/// How soon what could not be sent is sent again; each time in a row twice as late, up to a minute.
const AGAIN: Duration = Duration::from_secs(1);

/// What the end may take beyond the time for delivery: the last events and losses, and closing the WALs.
const CLOSING: Duration = Duration::from_secs(20);

/// The service manager.
pub(super) struct Service {
    notify: Notify,
    /// How often a sign of life is due: half of what the service manager waits for.
    every: Option<Duration>,
    /// When the last one was sent.
    beat: Cell<Instant>,
    /// What must be told, and did not get through yet.
    unsent: RefCell<String>,
    /// The line that was told last.
    status: RefCell<String>,
    /// How often in a row sending has failed; the first is logged.
    failures: Cell<u32>,
    /// Something was sent, or is to be sent again.
    changed: tokio::sync::Notify,
}

impl Service {
    pub(super) fn new(notify: Notify) -> Rc<Service> {
        Rc::new(Service {
            every: notify.watchdog().map(|watchdog| watchdog / 2),
            notify,
            beat: Cell::new(Instant::now()),
            unsent: RefCell::default(),
            status: RefCell::default(),
            failures: Cell::new(0),
            changed: tokio::sync::Notify::new(),
        })
    }

    /// For an agent that nobody waits for.
    pub(super) fn none() -> Rc<Service> {
        Service::new(Notify::default())
    }

    /// The WALs are about to be opened, which may take a while.
    pub(super) fn opening(&self) {
        self.tell("", "opening the WALs");
    }

    /// The WALs are open, and the first round is due.
    pub(super) fn ready(&self) {
        self.tell("READY=1\n", "collecting the first round");
    }

    /// The configuration is read again. `systemctl reload` of a `Type=notify-reload` (systemd 253 and later)
    /// waits for this with a time that is not before its own, and then for READY.
    pub(super) fn reloading(&self) {
        let now = rustix::time::clock_gettime(rustix::time::ClockId::Monotonic);
        let usec = now.tv_sec * 1_000_000 + now.tv_nsec / 1_000;
        let lines = format!("RELOADING=1\nMONOTONIC_USEC={usec}\n");
        self.tell(&lines, "reading the configuration again");
    }

    /// The agent goes on as it was; `ready` says whether it runs already.
    pub(super) fn not_reloaded(&self, why: &str, ready: bool) {
        self.tell(if ready { "READY=1\n" } else { "" }, &format!("not reloaded: {why}"));
    }

    /// What is in the WALs is delivered for at most this long.
    pub(super) fn stopping(&self, limit: Duration) {
        let usec = (limit + CLOSING).as_micros();
        let lines = format!("STOPPING=1\nEXTEND_TIMEOUT_USEC={usec}\n");
        self.tell(&lines, "stopping: delivering what the time allows");
    }

    /// A round was collected, and the next one comes after `interval`.
    pub(super) fn round(&self, report: &Report, interval: Duration) {
        if !self.notify.is_on() {
            return;
        }
        let due = self.every.is_some_and(|every| {
            // The next round may be late.
            self.beat.get().elapsed() + interval * 2 >= every
        });
        let line = summary(report);
        let changed = *self.status.borrow() != line;
        if due || changed || !self.unsent.borrow().is_empty() {
            self.tell("", &line);
        }
    }

    /// Sends these lines, those before them that did not get through, the status where it is another one,
    /// and a sign of life.
    fn tell(&self, lines: &str, status: &str) {
        if !self.notify.is_on() {
            return;
        }
        let mut unsent = self.unsent.borrow_mut();
        if !lines.is_empty() {
            // A state ends the one before it.
            unsent.clear();
            unsent.push_str(lines);
        }
        let mut datagram = unsent.clone();
        if *self.status.borrow() != status {
            let _ = writeln!(datagram, "STATUS={}", one_line(status));
        }
        if self.every.is_some() {
            datagram.push_str("WATCHDOG=1\n");
        }
        if datagram.is_empty() {
            return;
        }
        match self.notify.send(&datagram) {
            Ok(()) => {
                unsent.clear();
                status.clone_into(&mut self.status.borrow_mut());
                self.beat.set(Instant::now());
                if self.failures.replace(0) > 0 {
                    ::log::info!("the service manager is told again what the agent does");
                }
            }
            Err(error) => {
                let failures = self.failures.get();
                self.failures.set(failures.saturating_add(1));
                if failures == 0 {
                    let name = self.notify.name();
                    ::log::warn!(
                        "telling the service manager what the agent does, on NOTIFY_SOCKET {name}: {error}; \
                         the agent runs on, and tries again"
                    );
                }
            }
        }
        self.changed.notify_one();
    }

    /// Sends what is due between rounds.
    pub(super) async fn keep(self: Rc<Self>) {
        if !self.notify.is_on() {
            return;
        }
        loop {
            let pause = AGAIN * (1 << self.failures.get().saturating_sub(1).min(6));
            let again = (!self.unsent.borrow().is_empty()).then(|| Instant::now() + pause);
            let beat = self.every.map(|every| match self.failures.get() {
                0 => self.beat.get() + every,
                _ => Instant::now() + every.min(pause),
            });
            let due = async {
                match again.into_iter().chain(beat).min() {
                    Some(due) => crate::host::alarm::sleep_until(due).await,
                    None => std::future::pending().await,
                }
            };
            tokio::select! {
                () = self.changed.notified() => continue,
                () = due => {}
            }
            let status = self.status.borrow().clone();
            self.tell("", &status);
        }
    }
}

/// A status of one line that a terminal shows whole.
fn one_line(text: &str) -> String {
    text.chars().map(|c| if c.is_control() { ' ' } else { c }).take(300).collect()
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::os::unix::net::UnixDatagram;

    struct Manager {
        socket: UnixDatagram,
        _dir: tempfile::TempDir,
    }

    impl Manager {
        fn new(usec: u64) -> (Manager, Rc<Service>) {
            let dir = tempfile::tempdir().unwrap();
            let path = dir.path().join("notify");
            let socket = UnixDatagram::bind(&path).unwrap();
            socket.set_nonblocking(true).unwrap();
            let notify = Notify::new(
                |name| match name {
                    "NOTIFY_SOCKET" => Some(path.clone().into()),
                    "WATCHDOG_USEC" if usec > 0 => Some(usec.to_string().into()),
                    _ => None,
                },
                1,
            );
            (Manager { socket, _dir: dir }, Service::new(notify))
        }

        fn told(&self) -> Vec<String> {
            let mut buffer = [0; 1_000];
            std::iter::from_fn(|| {
                let length = self.socket.recv(&mut buffer).ok()?;
                Some(String::from_utf8(buffer[..length].to_vec()).unwrap())
            })
            .collect()
        }
    }

    #[tokio::test(start_paused = true)]
    async fn rounds_that_come_often_enough_are_the_sign_of_life_without_a_timer() {
        let (manager, service) = Manager::new(300_000_000);
        let tasks = tokio::task::LocalSet::new();
        tasks.spawn_local(Rc::clone(&service).keep());
        let report = Report { interval_seconds: 60.0, ..Report::default() };
        let work = async {
            service.ready();
            let mut told = manager.told();
            for _ in 0..10 {
                tokio::time::sleep(Duration::from_secs(60)).await;
                service.round(&report, Duration::from_secs(60));
                told.extend(manager.told());
            }
            assert_eq!(told.len(), 11, "{told:?}");
            assert!(told.iter().all(|lines| lines.ends_with("WATCHDOG=1\n")), "{told:?}");
            // One line when it becomes another, and not again.
            assert_eq!(
                told.iter().filter(|lines| lines.contains("STATUS=")).count(),
                2,
                "{told:?}"
            );
            // Many rounds in that time need no datagram each.
            for _ in 0..100 {
                tokio::time::sleep(Duration::from_secs(1)).await;
                service.round(&report, Duration::from_secs(1));
            }
            assert!(manager.told().is_empty());
        };
        tasks.run_until(work).await;
    }

    #[tokio::test(start_paused = true)]
    async fn rounds_that_are_rare_or_stuck_leave_the_sign_of_life_to_a_timer() {
        let (manager, service) = Manager::new(300_000_000);
        let tasks = tokio::task::LocalSet::new();
        tasks.spawn_local(Rc::clone(&service).keep());
        let work = async {
            service.ready();
            assert_eq!(manager.told().len(), 1);
            // A disk that does not finish a sync: no round comes, and the thread lives.
            for _ in 0..24 {
                tokio::time::sleep(Duration::from_secs(150)).await;
                tokio::task::yield_now().await;
                assert_eq!(manager.told(), ["WATCHDOG=1\n"]);
            }
        };
        tasks.run_until(work).await;
    }

    #[tokio::test(start_paused = true)]
    async fn what_there_was_no_room_for_is_sent_again_in_the_newest_state() {
        let (manager, service) = Manager::new(0);
        let tasks = tokio::task::LocalSet::new();
        tasks.spawn_local(Rc::clone(&service).keep());
        let work = async {
            while service.notify.send("X=1").is_ok() {}
            service.ready();
            service.reloading();
            tokio::time::sleep(Duration::from_secs(5)).await;
            assert!(manager.told().iter().all(|lines| lines == "X=1"));
            tokio::time::sleep(Duration::from_secs(2)).await;
            let told = manager.told();
            assert_eq!(told.len(), 1, "{told:?}");
            assert!(told[0].starts_with("RELOADING=1\nMONOTONIC_USEC="), "{told:?}");
            service.ready();
            assert_eq!(manager.told(), ["READY=1\nSTATUS=collecting the first round\n"]);
            service.not_reloaded("a\nREADY=0\nb", true);
            assert_eq!(manager.told(), ["READY=1\nSTATUS=not reloaded: a READY=0 b\n"]);
            service.stopping(Duration::from_secs(5));
            let told = manager.told();
            assert!(
                told[0].starts_with("STOPPING=1\nEXTEND_TIMEOUT_USEC=25000000\nSTATUS="),
                "{told:?}"
            );
        };
        tasks.run_until(work).await;
    }
}
