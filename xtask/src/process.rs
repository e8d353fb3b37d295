//! Other programs: finding them, running them with their output shown, and keeping those that run
//! beside us so that they end when we do. It must not know what they are.

use std::os::unix::fs::PermissionsExt;
use std::os::unix::process::CommandExt;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, ExitStatus, Stdio};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::{Duration, Instant};

use rustix::process::{Pid, Signal, kill_process};

use crate::Result;

/// How long a program may take to end after SIGTERM.
const GRACE: Duration = Duration::from_secs(15);
/// How often a condition is looked at that nothing announces.
pub(crate) const POLL: Duration = Duration::from_millis(50);

/// The program of this name in PATH, or in the system's own folders, which an ordinary user's PATH
/// often lacks.
pub(crate) fn find(name: &str) -> Option<PathBuf> {
    let path = std::env::var_os("PATH").unwrap_or_default();
    std::env::split_paths(&path)
        .chain(["/usr/sbin".into(), "/sbin".into()])
        .map(|folder| folder.join(name))
        .find(|file| is_executable(file))
}

/// Whether this is a file that someone may execute.
pub(crate) fn is_executable(file: &Path) -> bool {
    file.metadata().is_ok_and(|meta| meta.is_file() && meta.permissions().mode() & 0o111 != 0)
}

/// Runs a program to its end; its output goes where ours goes.
///
/// # Errors
/// It could not be started, or said that it failed.
pub(crate) fn run(command: &mut Command) -> Result<()> {
    let status = status(command)?;
    if status.success() {
        return Ok(());
    }
    Err(format!("`{}` failed ({status}); its own words are above", describe(command)))
}

/// Runs a program to its end and returns how it ended.
///
/// # Errors
/// It could not be started.
pub(crate) fn status(command: &mut Command) -> Result<ExitStatus> {
    command
        .status()
        .map_err(|error| format!("`{}` could not be started: {error}", describe(command)))
}

/// The command as one would type it.
pub(crate) fn describe(command: &Command) -> String {
    let mut line = command.get_program().to_string_lossy().into_owned();
    for arg in command.get_args() {
        line.push(' ');
        line.push_str(&arg.to_string_lossy());
    }
    line
}

/// A program that runs beside us and ends with us: dropping it ends it.
pub(crate) struct Running {
    name: String,
    child: Child,
    log: Option<PathBuf>,
}

impl Running {
    /// Starts a program. With `log`, its output goes into that file, otherwise where ours goes. It
    /// gets a process group of its own, so that a Ctrl-C reaches only us and we end it in order.
    ///
    /// # Errors
    /// The log could not be created, or the program not started.
    pub(crate) fn start(name: &str, command: &mut Command, log: Option<&Path>) -> Result<Running> {
        if let Some(path) = log {
            let fail = |error| format!("the log {} can't be created: {error}", path.display());
            let file = std::fs::File::create(path).map_err(fail)?;
            command.stdout(file.try_clone().map_err(fail)?).stderr(file);
        }
        let child = command.stdin(Stdio::null()).process_group(0).spawn().map_err(|error| {
            format!("{name} (`{}`) could not be started: {error}", describe(command))
        })?;
        Ok(Running { name: name.to_owned(), child, log: log.map(Path::to_path_buf) })
    }

    /// Its process.
    pub(crate) fn id(&self) -> u32 {
        self.child.id()
    }

    /// That it still runs.
    ///
    /// # Errors
    /// It has ended; with the last lines of its log.
    pub(crate) fn check(&mut self) -> Result<()> {
        match self.child.try_wait() {
            Ok(None) => Ok(()),
            Ok(Some(status)) => Err(format!(
                "{} has ended by itself ({status}){}",
                self.name,
                self.log.as_deref().map_or_else(String::new, last_lines)
            )),
            Err(error) => Err(format!("{} can't be waited for: {error}", self.name)),
        }
    }

    /// Ends it: SIGTERM, and SIGKILL when that has not helped in 15 seconds.
    ///
    /// # Errors
    /// It needed the SIGKILL, or could not be waited for.
    pub(crate) fn stop(mut self) -> Result<ExitStatus> {
        self.end()
    }

    fn end(&mut self) -> Result<ExitStatus> {
        let fail = |name: &str, error| format!("{name} could not be ended: {error}");
        // While it has not been waited for, its pid can't belong to anyone else.
        if let Some(status) = self.child.try_wait().map_err(|error| fail(&self.name, error))? {
            return Ok(status);
        }
        kill_process(Pid::from_child(&self.child), Signal::TERM)
            .map_err(|error| fail(&self.name, error.into()))?;
        let deadline = Instant::now() + GRACE;
        while Instant::now() < deadline {
            if let Some(status) = self.child.try_wait().map_err(|error| fail(&self.name, error))? {
                return Ok(status);
            }
            std::thread::sleep(POLL);
        }
        self.child.kill().map_err(|error| fail(&self.name, error))?;
        let status = self.child.wait().map_err(|error| fail(&self.name, error))?;
        Err(format!(
            "{} did not end within {} s of SIGTERM and was killed ({status})",
            self.name,
            GRACE.as_secs()
        ))
    }
}

impl Drop for Running {
    fn drop(&mut self) {
        if let Err(message) = self.end() {
            eprintln!("{message}");
        }
    }
}

/// The end of a log, to be appended to an error.
fn last_lines(log: &Path) -> String {
    const LINES: usize = 20;
    let text = match std::fs::read(log) {
        Ok(bytes) => String::from_utf8_lossy(&bytes).into_owned(),
        Err(error) => return format!("; its log {} can't be read: {error}", log.display()),
    };
    let lines: Vec<&str> = text.lines().collect();
    if lines.is_empty() {
        return "; it said nothing".to_owned();
    }
    let tail = lines.get(lines.len().saturating_sub(LINES)..).unwrap_or_default();
    format!("; its last words:\n{}", tail.join("\n"))
}

/// Whether the user wants us to end: set by SIGINT (Ctrl-C), SIGTERM and SIGHUP.
#[derive(Default)]
pub(crate) struct Interrupt(Arc<AtomicBool>);

impl Interrupt {
    /// From here on those signals don't end the process but set the flag.
    ///
    /// # Errors
    /// The system refuses a handler.
    pub(crate) fn install() -> Result<Interrupt> {
        let interrupt = Interrupt::default();
        for signal in
            [signal_hook::consts::SIGINT, signal_hook::consts::SIGTERM, signal_hook::consts::SIGHUP]
        {
            signal_hook::flag::register(signal, Arc::clone(&interrupt.0))
                .map_err(|error| format!("signal {signal} can't be handled: {error}"))?;
        }
        Ok(interrupt)
    }

    /// Whether one has come.
    pub(crate) fn requested(&self) -> bool {
        self.0.load(Ordering::Relaxed)
    }

    /// Asks `condition` again and again until it has an answer.
    ///
    /// # Errors
    /// `condition` failed, the user interrupted, or there was none within `limit`: then with the
    /// reason that `condition` gave last.
    pub(crate) fn wait_for<T>(
        &self,
        what: &str,
        limit: Duration,
        mut condition: impl FnMut() -> Result<Answer<T>>,
    ) -> Result<T> {
        let deadline = Instant::now() + limit;
        loop {
            let reason = match condition()? {
                Answer::Yes(value) => return Ok(value),
                Answer::NotYet(reason) => reason,
            };
            if self.requested() {
                return Err(format!("interrupted while waiting for {what}"));
            }
            if Instant::now() >= deadline {
                return Err(format!(
                    "waited {} s for {what} in vain; last: {reason}",
                    limit.as_secs()
                ));
            }
            std::thread::sleep(POLL);
        }
    }
}

/// Whether what is waited for has happened.
pub(crate) enum Answer<T> {
    /// It has.
    Yes(T),
    /// It hasn't, for this reason.
    NotYet(String),
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_program_ends_when_it_is_dropped() {
        let running =
            Running::start("sleep", Command::new("sleep").arg("1000"), None).expect("sleep starts");
        let stat = format!("/proc/{}/stat", running.id());
        assert!(Path::new(&stat).exists());
        drop(running);
        assert!(!Path::new(&stat).exists());
    }

    #[test]
    fn a_program_that_ended_is_reported_with_its_last_words() {
        let folder = crate::temp::TempDir::new("process-test").expect("a folder");
        let log = folder.path().join("log");
        let mut command = Command::new("sh");
        command.args(["-c", "echo no such key >&2; exit 3"]);
        let mut running = Running::start("sh", &mut command, Some(&log)).expect("sh starts");
        let interrupt = Interrupt::default();
        let error = interrupt
            .wait_for("an end", Duration::from_secs(10), || {
                running.check().map(|()| Answer::<()>::NotYet("runs".to_owned()))
            })
            .expect_err("sh ends");
        assert!(error.contains("exit status: 3") && error.ends_with("no such key"), "{error}");
    }

    #[test]
    fn waiting_has_an_end_and_says_what_was_missing() {
        let interrupt = Interrupt::default();
        let error = interrupt
            .wait_for("rain", Duration::ZERO, || Ok(Answer::<()>::NotYet("sunshine".to_owned())))
            .expect_err("never");
        assert!(error.contains("rain") && error.contains("sunshine"), "{error}");
    }
}
