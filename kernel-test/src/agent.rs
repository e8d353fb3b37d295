//! The agent as a process of this machine: its configuration, its start, its end, its log and what its
//! WAL holds.

use std::fs;
use std::path::Path;
use std::process::{Child, Command, ExitStatus, Stdio};
use std::time::{Duration, Instant};

use crate::page::{PORT, Page};
use crate::plan::Plan;
use crate::{Result, guest};

const BINARY: &str = "/mote";
const LOG: &str = "/run/mote.log";
const STATE: &str = "/run/mote";
const LOGS_WAL: &str = "/run/mote/wal/logs";

/// On an emulated machine everything takes its time.
const START: Duration = Duration::from_secs(60);
const STOP: Duration = Duration::from_secs(30);

/// The running agent.
pub(crate) struct Agent(Child);

impl Agent {
    /// Starts it and waits for its page with a round.
    ///
    /// # Errors
    /// It does not start, or its page does not come; with the end of its log.
    pub(crate) fn start(plan: &Plan) -> Result<Agent> {
        // Files to follow make it open the logs WAL, where the probes' events go.
        let configuration = format!(
            "[agent]\ninterval = \"1s\"\nstate_dir = \"{STATE}\"\n\n[clock]\nwait = \"0s\"\n\n[http]\nlisten = \
             \"127.0.0.1:{PORT}\"\n\n[wal]\nmin_free = \"1MiB\"\n\n[wal.metrics]\nmax_bytes = \
             \"4MiB\"\n\n[wal.logs]\nmax_bytes = \"4MiB\"\n\n[[logs.file]]\npaths = \
             [\"/run/some.log\"]\nlabels = {{ job = \"file\" }}\n"
        );
        let path = "/run/mote.toml";
        fs::write(path, configuration).map_err(|error| format!("{path}: {error}"))?;
        let log = fs::File::create(LOG).map_err(|error| format!("{LOG}: {error}"))?;
        let copy = log.try_clone().map_err(|error| format!("{LOG}: {error}"))?;
        let child = guest::command(BINARY, plan.confine)
            .args(["run", "--config", path])
            .stdin(Stdio::null())
            .stdout(log)
            .stderr(copy)
            .spawn()
            .map_err(|error| format!("the agent can't be started: {error}"))?;
        let mut agent = Agent(child);
        let deadline = Instant::now() + START;
        loop {
            let why = match Page::get() {
                Ok(page) if page.has("node_time_seconds", &[]) => return Ok(agent),
                Ok(_) => "the page has no round".to_owned(),
                Err(error) => error,
            };
            agent.check()?;
            if Instant::now() >= deadline {
                return Err(format!("the agent does not work: {why}; {}", last_lines()));
            }
            std::thread::sleep(Duration::from_millis(200));
        }
    }

    /// That it still runs.
    ///
    /// # Errors
    /// It has ended; with the end of its log.
    pub(crate) fn check(&mut self) -> Result<()> {
        match self.0.try_wait() {
            Ok(None) => Ok(()),
            Ok(Some(status)) => Err(format!("the agent has ended: {status}; {}", last_lines())),
            Err(error) => Err(format!("the agent can't be waited for: {error}")),
        }
    }

    /// What it holds of the machine's memory, in KiB: `resident N anonymous N threads N`.
    ///
    /// # Errors
    /// The kernel does not say.
    pub(crate) fn memory(&self) -> Result<String> {
        let path = format!("/proc/{}/status", self.0.id());
        let text = fs::read_to_string(&path).map_err(|error| format!("{path}: {error}"))?;
        let of = |key: &str| {
            let line = text.lines().find_map(|line| line.strip_prefix(key)?.strip_prefix(':'));
            let value = line.and_then(|line| line.split_ascii_whitespace().next());
            value.ok_or_else(|| format!("{path} has no {key}"))
        };
        let (resident, anonymous) = (of("VmRSS")?, of("RssAnon")?);
        Ok(format!("resident {resident} anonymous {anonymous} threads {}", of("Threads")?))
    }

    /// Asks it to end and waits.
    ///
    /// # Errors
    /// It did not end in time.
    pub(crate) fn stop(mut self) -> Result<ExitStatus> {
        let fail = |error: std::io::Error| format!("ending the agent: {error}");
        rustix::process::kill_process(
            rustix::process::Pid::from_child(&self.0),
            rustix::process::Signal::TERM,
        )
        .map_err(|error| fail(error.into()))?;
        let deadline = Instant::now() + STOP;
        while Instant::now() < deadline {
            if let Some(status) = self.0.try_wait().map_err(fail)? {
                return Ok(status);
            }
            std::thread::sleep(Duration::from_millis(50));
        }
        Err(format!("the agent did not end within {} s; {}", STOP.as_secs(), last_lines()))
    }
}

/// One round of another agent with this configuration, as text.
///
/// # Errors
/// It could not be had; with what it said.
pub(crate) fn once(plan: &Plan, configuration: &str) -> Result<String> {
    let path = "/run/once.toml";
    fs::write(path, configuration).map_err(|error| format!("{path}: {error}"))?;
    let output = guest::command(BINARY, plan.confine)
        .args(["run", "--once", "--stdout", "--config", path])
        .output()
        .map_err(|error| format!("mote run --once: {error}"))?;
    if !output.status.success() {
        let why = String::from_utf8_lossy(&output.stderr);
        return Err(format!("mote run --once: {}: {}", output.status, why.trim()));
    }
    Ok(String::from_utf8_lossy(&output.stdout).into_owned())
}

/// Entries of the logs WAL that are events of this kind: `time {stream}+{metadata} line`, one each.
///
/// # Errors
/// `mote wal show` failed.
pub(crate) fn events(kind: &str) -> Result<Vec<String>> {
    let label = format!("event=\"{kind}\"");
    Ok(entries()?.into_iter().filter(|entry| entry.contains(&label)).collect())
}

/// All entries of the logs WAL that are events.
///
/// # Errors
/// `mote wal show` failed.
pub(crate) fn entries() -> Result<Vec<String>> {
    if !Path::new(LOGS_WAL).exists() {
        return Err(format!("the agent has made no {LOGS_WAL}"));
    }
    let output = Command::new(BINARY)
        .args(["wal", "show", LOGS_WAL])
        .output()
        .map_err(|error| format!("mote wal show: {error}"))?;
    let text = String::from_utf8_lossy(&output.stdout);
    if !output.status.success() {
        let why = String::from_utf8_lossy(&output.stderr);
        return Err(format!("mote wal show: {}: {}", output.status, why.trim()));
    }
    let is_event = |line: &&str| !line.starts_with('#') && line.contains("job=\"mote/events\"");
    Ok(text.lines().filter(is_event).map(str::to_owned).collect())
}

/// The agent's log, line by line.
pub(crate) fn log() -> Vec<String> {
    fs::read_to_string(LOG).unwrap_or_default().lines().map(str::to_owned).collect()
}

fn last_lines() -> String {
    let lines = log();
    let tail = lines.get(lines.len().saturating_sub(8)..).unwrap_or_default();
    format!("its last words: {}", tail.join(" / "))
}
