//! A siege: the real binary in a memory cgroup of its own, with the bound of `systemd/mote.service`, attacked in
//! one way or in several at once, while its memory is read again and again. An [`Attack`] says what it needs
//! of the configuration, what it does, and what has to have arrived in the end.

#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic, reason = "test code")]
#![allow(dead_code, reason = "each test uses a part of it")]

pub(crate) mod containers;
pub(crate) mod journal;
pub(crate) mod logs;
pub(crate) mod mounts;
pub(crate) mod servers;

use std::fmt;
use std::path::Path;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex, PoisonError};
use std::thread::JoinHandle;
use std::time::{Duration, Instant, SystemTime, UNIX_EPOCH};

use crate::support::agent::request;
use crate::support::{Agent, Group, StrictLoki, StrictMimir};

/// `MemoryMax` of `systemd/mote.service`.
pub(crate) const MEMORY_MAX: u64 = 64 << 20;

/// What live bytes may pass the limit by, in percent: what is allocated between two looks at the pressure.
pub(crate) const TOLERANCE: u64 = 10;

/// From one round to the next, and by how much one may be late on a machine that does other things as well.
pub(crate) const INTERVAL: Duration = Duration::from_secs(2);
pub(crate) const LATE: Duration = Duration::from_millis(1_500);

const LIVE: &str = "mote_memory_live_bytes";

/// How long what waits may take to arrive once the servers are there.
const PATIENCE: Duration = Duration::from_secs(120);

/// Several times as long, and as much, where this is set: for a machine that has nothing else to do.
pub(crate) fn is_long() -> bool {
    std::env::var_os("MOTE_LONG_SIEGE").is_some()
}

/// The one or the other, by [`is_long`].
pub(crate) fn by_length<T>(short: T, long: T) -> T {
    if is_long() { long } else { short }
}

/// One way to attack.
pub(crate) trait Attack {
    /// For the report.
    fn name(&self) -> &'static str;

    /// Keys of `[host]`.
    fn host(&self) -> String {
        String::new()
    }

    /// Tables of the configuration; the last of them.
    fn tables(&self) -> String {
        String::new()
    }

    /// Shell commands of root's in a mount namespace of the agent's own, before it is there.
    fn before(&self) -> String {
        String::new()
    }

    /// The agent runs: begins, and goes on by itself.
    fn begin(&mut self, _field: &mut Field) {}

    /// Ends; servers answer again.
    fn end(&mut self, _field: &mut Field) {}

    /// Whether all that has to arrive has arrived.
    fn has_arrived(&self, _field: &Field) -> bool {
        true
    }

    /// Looks at what has arrived.
    fn check(&self, _field: &Field) {}
}

/// Who takes part.
pub(crate) struct Field {
    pub(crate) agent: Agent,
    pub(crate) mimir: StrictMimir,
    pub(crate) loki: StrictLoki,
}

/// What was read during a siege.
#[derive(Debug, Default)]
pub(crate) struct Readings {
    pub(crate) live_peak: u64,
    /// `VmHWM` of the process.
    pub(crate) resident_peak: u64,
    /// Anonymous memory of the cgroup.
    pub(crate) anonymous_peak: u64,
    /// All that was charged to the cgroup, page cache included.
    pub(crate) charged_peak: Option<u64>,
    pub(crate) kills: u64,
    /// Live bytes when all had arrived.
    pub(crate) live_after: u64,
    pub(crate) rounds: usize,
    pub(crate) gap: Duration,
    pub(crate) pressure: u64,
    pub(crate) polls: u64,
    /// For how long the agent could have run in the time of a gap and did not, because others had the CPU.
    pub(crate) stall: Duration,
    waited: Vec<(Instant, Duration)>,
}

impl fmt::Display for Readings {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let mib = |bytes: u64| bytes as f64 / f64::from(1 << 20);
        write!(
            f,
            "live peak {:.2} MiB, after it {:.2}; resident peak {:.2}, anonymous {:.2}, charged {:.2}; \
             {} kills; {} rounds, largest gap {:.2?} (others had the CPU for {:.2?}); pressure up to {}; {} readings",
            mib(self.live_peak),
            mib(self.live_after),
            mib(self.resident_peak),
            mib(self.anonymous_peak),
            mib(self.charged_peak.unwrap_or(0)),
            self.kills,
            self.rounds,
            self.gap,
            self.stall,
            self.pressure,
            self.polls
        )
    }
}

/// One siege at a time: they measure time as well.
static TURN: Mutex<()> = Mutex::new(());

/// Attacks an agent with this limit for so long, and gives what was read. `agent` has further keys of `[agent]`.
pub(crate) fn besiege(
    limit: Option<u64>,
    lasts: Duration,
    attacks: &mut [Box<dyn Attack>],
) -> Readings {
    let _turn = TURN.lock().unwrap_or_else(PoisonError::into_inner);
    let (mimir, loki) = (StrictMimir::new(), StrictLoki::new());
    mimir.tolerate_aborts();
    loki.tolerate_aborts();
    let all = |of: &dyn Fn(&dyn Attack) -> String| -> String {
        attacks.iter().map(|attack| of(attack.as_ref())).collect()
    };
    let limit =
        limit.map_or(String::new(), |bytes| format!("memory_limit = \"{}KiB\"\n", bytes >> 10));
    let agent = Agent::new(&format!(
        "instance = \"box\"\ninterval = \"{}s\"\nshutdown_timeout = \"1s\"\n{limit}\
         log = {{ level = \"warn\" }}\n\
         [host]\n{}[probes]\ndefault = \"off\"\n\
         [[mimir]]\nurl = {:?}\nsend_interval = \"0s\"\nmetadata_interval = \"off\"\n\
         backoff = {{ min = \"50ms\", max = \"500ms\" }}\n\
         [[loki]]\nurl = {:?}\nbatch_wait = \"0s\"\nmax_rate = \"64MiB\"\n\
         backoff = {{ min = \"50ms\", max = \"500ms\" }}\n{}",
        INTERVAL.as_secs(),
        all(&|attack| attack.host()),
        mimir.url(),
        loki.url(),
        all(&|attack| attack.tables()),
    ));
    let group = Arc::new(Group::new("siege", MEMORY_MAX));
    let before = all(&|attack| attack.before());
    let mut field = Field { agent, mimir, loki };
    let script = format!(
        "set -e\nmount --make-rprivate /\n{before}\necho $$ > {}\nexec \"$0\" \"$@\"",
        group.path.join("cgroup.procs").display()
    );
    field.agent.spawn_by("unshare", &["--mount", "sh", "-c", &script]);
    field.agent.wait("the first round", Duration::from_secs(60), Agent::is_ready);
    let watch = Watch::begin(&field.agent, Arc::clone(&group));
    attacks.iter_mut().for_each(|attack| attack.begin(&mut field));
    std::thread::sleep(lasts);
    attacks.iter_mut().for_each(|attack| attack.end(&mut field));
    let end = Instant::now() + PATIENCE;
    let mut late = Vec::new();
    for attack in attacks.iter() {
        let mut is_late = false;
        while !attack.has_arrived(&field) && !is_late {
            is_late = Instant::now() > end || !field.agent.is_alive();
            std::thread::sleep(Duration::from_millis(50));
        }
        late.extend(is_late.then(|| attack.name()));
    }
    let status = field.agent.try_status();
    // The newest round, too.
    let now = SystemTime::now().duration_since(UNIX_EPOCH).unwrap().as_millis() as i64;
    let newest =
        || field.mimir.find(LIVE, &[]).pop().and_then(|(_, samples)| samples.last().copied());
    while newest().is_none_or(|(time, _)| time < now) && Instant::now() < end {
        std::thread::sleep(Duration::from_millis(100));
    }
    let mut readings = watch.end();
    let ended = field.agent.terminate().0;
    let times: Vec<i64> = field.mimir.samples(LIVE, &[]).iter().map(|sample| sample.0).collect();
    let gaps = times.windows(2).map(|pair| pair[1] - pair[0]);
    readings.gap = Duration::from_millis(gaps.max().unwrap_or(i64::MAX) as u64);
    readings.rounds = times.len();
    readings.stall = readings.longest_wait();
    let names: Vec<&str> = attacks.iter().map(|attack| attack.name()).collect();
    println!("{}: {readings}", names.join(" + "));
    let log = field.agent.log();
    assert!(late.is_empty(), "{status:#?}\n{log}{late:?} not arrived within {PATIENCE:?}");
    assert!(ended.success(), "{ended}: {log}");
    attacks.iter().for_each(|attack| attack.check(&field));
    let _ = field.mimir.take_violations();
    let mut violations = field.loki.take_violations();
    // Streams beyond `logs.max_streams` are put into one, in which times need not rise.
    violations.retain(|violation| !violation.contains("mote/overflow"));
    assert!(violations.is_empty(), "{violations:#?}");
    readings
}

impl Readings {
    /// What is promised.
    pub(crate) fn hold(&self, limit: u64) {
        let most = limit + limit * TOLERANCE / 100;
        assert!(self.live_peak <= most, "live bytes beyond {most}: {self}");
        assert!(self.resident_peak < MEMORY_MAX, "{self}");
        assert_eq!(self.kills, 0, "{self}");
        assert!(self.gap <= INTERVAL + LATE + self.stall, "{self}");
        assert!(self.polls > 10, "{self}");
    }
}

/// Reads memory until it is told to stop.
struct Watch {
    stop: Arc<AtomicBool>,
    thread: JoinHandle<Readings>,
}

impl Watch {
    fn begin(agent: &Agent, group: Arc<Group>) -> Watch {
        let stop = Arc::new(AtomicBool::new(false));
        let (told, port, pid) = (Arc::clone(&stop), agent.port(), agent.pid());
        let thread = std::thread::spawn(move || {
            let mut readings = Readings::default();
            let process = format!("/proc/{}", pid.as_raw_nonzero());
            while !told.load(Ordering::SeqCst) {
                readings.look(port, &process, &group);
                std::thread::sleep(Duration::from_millis(100));
            }
            readings.look(port, &process, &group);
            readings
        });
        Watch { stop, thread }
    }

    fn end(self) -> Readings {
        self.stop.store(true, Ordering::SeqCst);
        self.thread.join().unwrap()
    }
}

impl Readings {
    /// Documentation/scheduler/sched-stats.rst: nanoseconds on a CPU, and in the queue for one.
    fn wait(&mut self, schedule: &str) {
        let text = std::fs::read_to_string(schedule).unwrap_or_default();
        let queued = text.split(' ').nth(1).and_then(|text| text.parse().ok());
        let (now, queued) = (Instant::now(), Duration::from_nanos(queued.unwrap_or(0)));
        self.waited.push((now, queued));
    }

    /// The most of such a wait in any time as long as the largest gap.
    fn longest_wait(&self) -> Duration {
        let within = |(at, (began, before)): (usize, &(Instant, Duration))| {
            let later = self.waited[at..].iter().take_while(|(time, _)| *time - *began <= self.gap);
            later.last().map_or(Duration::ZERO, |(_, queued)| queued.saturating_sub(*before))
        };
        self.waited.iter().enumerate().map(within).max().unwrap_or_default()
    }

    fn look(&mut self, port: u16, process: &str, group: &Group) {
        let [status, schedule] = ["status", "schedstat"].map(|file| format!("{process}/{file}"));
        self.kills = group.kills();
        self.charged_peak = group.peak().max(self.charged_peak);
        self.anonymous_peak = self.anonymous_peak.max(group.anonymous());
        let status = std::fs::read_to_string(&status).unwrap_or_default();
        let resident = status.lines().find_map(|line| line.strip_prefix("VmHWM:"));
        let resident =
            resident.and_then(|text| text.split_whitespace().next()?.parse::<u64>().ok());
        self.resident_peak = self.resident_peak.max(resident.unwrap_or(0) << 10);
        self.wait(&schedule);
        let Some((200, page)) = request(port, "GET", "/metrics") else { return };
        self.polls += 1;
        let value = |name: &str| {
            let line = page.lines().find_map(|line| line.strip_prefix(name)?.strip_prefix(' '));
            line.and_then(|value| value.parse::<f64>().ok()).unwrap_or(0.0) as u64
        };
        self.live_after = value(LIVE);
        self.live_peak = self.live_peak.max(value("mote_memory_peak_bytes"));
        self.pressure = self.pressure.max(value("mote_memory_pressure"));
    }
}

/// A thread of an attack's that goes on until the attack ends, and what it gives then.
pub(crate) struct Going<T> {
    stop: Arc<AtomicBool>,
    thread: JoinHandle<T>,
}

impl<T: Send + 'static> Going<T> {
    pub(crate) fn start(work: impl FnOnce(&AtomicBool) -> T + Send + 'static) -> Going<T> {
        let stop = Arc::new(AtomicBool::new(false));
        let told = Arc::clone(&stop);
        Going { stop, thread: std::thread::spawn(move || work(&told)) }
    }

    pub(crate) fn end(self) -> T {
        self.stop.store(true, Ordering::SeqCst);
        self.thread.join().unwrap()
    }
}

/// The numbers behind the first space of lines.
pub(crate) fn numbers(lines: &[String]) -> Vec<u64> {
    lines.iter().map(|line| line.split(' ').nth(1).unwrap().parse().unwrap()).collect()
}

/// Each of so many once, and in order.
pub(crate) fn once_and_in_order(what: &str, got: &[u64], count: u64) {
    let wrong = got.iter().zip(0u64..).find(|(got, expected)| *got != expected);
    assert_eq!(wrong, None, "{what}: the first that is missing, repeated or twisted");
    assert_eq!(got.len() as u64, count, "{what}");
}

/// As TOML has it.
pub(crate) fn quoted(path: &Path) -> String {
    format!("{:?}", path.display().to_string())
}
