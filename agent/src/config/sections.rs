//! The sections of the configuration but `[metrics]`, one function each: keys, types, defaults,
//! documentation.

use std::net::SocketAddr;
use std::path::PathBuf;
use std::time::Duration;

use super::error::ConfigError;
use super::reader::{At, Reader};
use super::{Agent, Wal, units};
use crate::host::{self, Roots};
use crate::probe;

const SECOND: Duration = Duration::from_secs(1);
const DAY: Duration = Duration::from_secs(86_400);

/// Fluent Bit, Promtail and Vector all stop at a few GiB for good reasons; nobody needs more here.
const MAX_WAL: u64 = 64 << 30;

/// A few rounds of a busy host.
const MIN_MEMORY: u64 = 64 << 10;
const MAX_MEMORY: u64 = 256 << 20;

/// Twice what an agent on its defaults has live.
const MIN_LIMIT: u64 = 4 << 20;
const MAX_LIMIT: u64 = 4 << 30;

const HOUR: Duration = Duration::from_secs(3_600);

pub(super) fn agent(top: &Reader<'_>) -> Result<Agent, ConfigError> {
    let t = top.section("agent")?;
    let instance = t
        .string(
            "instance",
            "",
            "the label `instance` of every series and stream; default: the host's name",
        )?
        .map_or_else(host::hostname, |given| given.value);
    let labels = t.labels("labels", "labels on every series and every log stream")?;
    let interval = t.duration(
        "interval",
        Duration::from_secs(60),
        Duration::from_millis(100)..=DAY,
        "time from one collection to the next; rounds are aligned to it, each host's with an offset of its own",
    )?;
    t.string(
        "board",
        super::boards::AUTO,
        "the hardware profile whose values are the defaults of other keys; \"auto\": the one that this host is, by its device tree, its files and its memory; `mote boards` lists them",
    )?;
    let state_dir = t
        .string(
            "state_dir",
            "",
            "where the WALs are; default: `$STATE_DIRECTORY`, `/var/lib/mote` as root, `~/.local/state/mote` otherwise",
        )?
        .map_or_else(default_state_dir, |given| PathBuf::from(given.value));
    let shutdown_timeout = t.duration(
        "shutdown_timeout",
        Duration::from_secs(5),
        Duration::ZERO..=Duration::from_secs(300),
        "how long a shutdown may go on delivering what is in the WAL; the rest stays on disk",
    )?;
    let memory_limit = t.size(
        "memory_limit",
        16 << 20,
        MIN_LIMIT..=MAX_LIMIT,
        "a soft limit on the bytes that the agent has allocated: from 70% of it on it gives back, and does less, in a stated order (docs/memory.md); a cgroup's limit lowers it by itself",
    )?;
    let log = t.section("log")?;
    let log_level = log.choice(
        "level",
        "info",
        &[
            ("error", log::LevelFilter::Error),
            ("warn", log::LevelFilter::Warn),
            ("info", log::LevelFilter::Info),
            ("debug", log::LevelFilter::Debug),
        ],
        "what the agent itself logs, on standard error: \"error\", \"warn\", \"info\" or \"debug\"",
    )?;
    log.choice("format", "logfmt", &[("logfmt", ())], "how it logs")?;
    log.finish()?;
    t.finish()?;
    Ok(Agent { instance, labels, interval, state_dir, log_level, shutdown_timeout, memory_limit })
}

fn default_state_dir() -> PathBuf {
    let from = |name: &str| std::env::var_os(name).filter(|value| !value.is_empty());
    // systemd may list several directories, separated by colons; the first is the unit's own.
    if let Some(given) = from("STATE_DIRECTORY") {
        let text = given.to_string_lossy().into_owned();
        return PathBuf::from(text.split(':').next().unwrap_or(&text));
    }
    if rustix::process::geteuid().is_root() {
        return PathBuf::from("/var/lib/mote");
    }
    match (from("XDG_STATE_HOME"), from("HOME")) {
        (Some(state), _) => PathBuf::from(state).join("mote"),
        (None, Some(home)) => PathBuf::from(home).join(".local/state/mote"),
        (None, None) => std::env::temp_dir().join("mote"),
    }
}

pub(super) fn host(top: &Reader<'_>) -> Result<Roots, ConfigError> {
    let t = top.section("host")?;
    let path = |given: Option<At<String>>, default: &str| {
        PathBuf::from(given.map_or(default.to_owned(), |given| given.value))
    };
    let roots = Roots {
        proc: path(t.string("proc", "/proc", "where the host's /proc is mounted")?, "/proc"),
        sys: path(t.string("sys", "/sys", "where the host's /sys is mounted")?, "/sys"),
        root: path(t.string("root", "/", "where the host's root is mounted")?, "/"),
    };
    t.finish()?;
    Ok(roots)
}

pub(super) fn probes(top: &Reader<'_>) -> Result<probe::Options, ConfigError> {
    let t = top.section("probes")?;
    let modes = [("auto", probe::Mode::Auto), ("on", probe::Mode::On), ("off", probe::Mode::Off)];
    let default = t.choice(
        "default",
        "auto",
        &modes,
        "for the probes that are not named: \"auto\" (by the best source that this host has), \"on\" (refuse to start where its best source does not work), \"off\"",
    )?;
    let word = modes.iter().find(|(_, mode)| *mode == default).map_or("auto", |(word, _)| word);
    let mut named = Vec::new();
    for (name, about) in probe::table() {
        named.push((name, t.choice(name, word, &modes, about)?));
    }
    t.finish()?;
    Ok(probe::Options { default, named, ..probe::Options::default() })
}

pub(super) fn wal(top: &Reader<'_>) -> Result<Wal, ConfigError> {
    let t = top.section("wal")?;
    let sync = match t.string(
        "sync",
        "round",
        "\"round\": fsync after each round and block; or a duration of 1s and more: the most that a power cut may cost",
    )? {
        None => None,
        Some(given) if given.value == "round" => None,
        Some(given) => match units::parse_duration(&given.value) {
            Ok(duration) if duration >= SECOND => Some(duration),
            Ok(_) => return Err(given.error("wal.sync is shorter than 1s", "\"round\" is the strictest")),
            Err(problem) => {
                let hint = "\"round\", or a duration such as \"5m\"";
                return Err(given.error(format!("wal.sync: {problem}"), hint));
            }
        },
    };
    let min_free = t.size(
        "min_free",
        64 << 20,
        0..=u64::MAX,
        "bytes of the file system that stay free: with less than that the WALs grow no further",
    )?;
    let memory = t.size(
        "memory",
        256 << 10,
        MIN_MEMORY..=MAX_MEMORY,
        "the most bytes that each WAL keeps in memory while its disk takes nothing",
    )?;
    let max_age = match t.string(
        "max_age",
        "off",
        "data that is older than this goes, in steps of an eighth of it, when newer data comes; at least 1h; \"off\": its age has no bound",
    )? {
        None => None,
        Some(given) if given.value == "off" => None,
        Some(given) => match units::parse_duration(&given.value) {
            Ok(age) if age >= HOUR => Some(age),
            Ok(_) => {
                return Err(
                    given.error("wal.max_age is shorter than 1h", "\"off\", or 1h and more")
                );
            }
            Err(problem) => {
                let hint = "\"off\", or a duration such as \"168h\"";
                return Err(given.error(format!("wal.max_age: {problem}"), hint));
            }
        },
    };
    let range = crate::wal::Options::MIN_BYTES..=MAX_WAL;
    let bound = "the most bytes on disk, every file counted";
    let metrics = t.section("metrics")?;
    let metrics_max_bytes = metrics.size("max_bytes", 32 << 20, range.clone(), bound)?;
    metrics.finish()?;
    let logs = t.section("logs")?;
    let logs_max_bytes = logs.size("max_bytes", 32 << 20, range, bound)?;
    let logs_drop_oldest = logs.choice(
        "on_full",
        "pause",
        &[("pause", false), ("drop-oldest", true)],
        "\"pause\": sources are read no further; \"drop-oldest\": the oldest entries go",
    )?;
    logs.finish()?;
    t.finish()?;
    Ok(Wal { sync, min_free, memory, max_age, metrics_max_bytes, logs_max_bytes, logs_drop_oldest })
}

/// The most bytes of a day that are sent, or None.
pub(super) fn egress(top: &Reader<'_>) -> Result<Option<u64>, ConfigError> {
    let t = top.section("egress")?;
    let daily = t.optional_size(
        "daily",
        64 << 10..=1 << 50,
        "the most bytes that are written to the sockets of all endpoints in a day (UTC), for metered links; live metrics go first, then logs, a backlog last; what has to wait stays in the WAL; default: no bound",
    )?;
    t.finish()?;
    Ok(daily)
}

/// How long after the boot the clock has to be synchronised to be believed.
pub(super) fn clock(top: &Reader<'_>) -> Result<Duration, ConfigError> {
    let t = top.section("clock")?;
    let wait = t.duration(
        "wait",
        Duration::from_secs(600),
        Duration::ZERO..=DAY * 365,
        "how long after the boot what is collected is held on disk until the clock is synchronised, and then given its right time; after that a clock that nothing has synchronised is believed, unless it is certainly wrong; \"0s\": always believed",
    )?;
    t.finish()?;
    Ok(wait)
}

pub(super) fn http(top: &Reader<'_>) -> Result<Option<SocketAddr>, ConfigError> {
    const DEFAULT: &str = "127.0.0.1:9911";
    let t = top.section("http")?;
    let given = t.string(
        "listen",
        DEFAULT,
        "address and port of the status page and of /metrics; \"\" for none",
    )?;
    t.finish()?;
    let text = given.as_ref().map_or(DEFAULT, |given| given.value.as_str());
    if text.is_empty() {
        return Ok(None);
    }
    match (text.parse(), given) {
        (Ok(address), _) => Ok(Some(address)),
        (Err(_), Some(given)) => Err(given.error(
            format!("http.listen: {:?} is no address and port", given.value),
            "for example \"127.0.0.1:9911\" or \"[::1]:9911\"",
        )),
        (Err(_), None) => Ok(None),
    }
}
