//! The agent's side of the loader: starts the child, takes its reports and its descriptors, and makes
//! sure that it ends. `loader` is the child's side.

use std::io;
use std::os::fd::{AsFd, OwnedFd};
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::time::{Duration, Instant};

use rustix::event::{PollFd, PollFlags, Timespec, poll};
use rustix::net::{AddressFamily, SocketFlags, SocketType, socketpair};

use super::channel::{self, Report};
use super::jit::Before;
use super::loader::LOADER_ARGUMENT;
use super::{Transport, object};

/// Who loads the object, and for how long.
#[derive(Clone, Debug)]
pub struct Loader {
    /// The binary `mote`. /proc/self/exe is right for it, also when its file has been replaced.
    pub executable: PathBuf,
    /// Whether there is any use in starting it: not in a binary that was built without its programs.
    pub has_object: bool,
    /// The way of the events; None for the best that the kernel has.
    pub transport: Option<Transport>,
    /// After this long the child is killed. Loading takes some 20 ms here, and the verifier of a
    /// slow board some 100 times as long.
    pub timeout: Duration,
}

impl Default for Loader {
    fn default() -> Loader {
        Loader {
            executable: "/proc/self/exe".into(),
            has_object: super::has_object(),
            transport: None,
            timeout: Duration::from_secs(10),
        }
    }
}

/// Loads the probes of these names; a report for each that the child came to, and what went wrong
/// with the child, if anything.
pub(super) fn run(loader: &Loader, sys: &Path, probes: &str) -> (Vec<Report>, Option<String>) {
    run_beside(&Before::remember(), loader, sys, probes)
}

fn run_beside(
    jit: &Before<'_>,
    loader: &Loader,
    sys: &Path,
    probes: &str,
) -> (Vec<Report>, Option<String>) {
    let (reports, fault) = load(loader, sys, probes);
    // It may have been killed between its two writes.
    if fault.is_some() {
        jit.put_back();
    }
    (reports, fault)
}

fn load(loader: &Loader, sys: &Path, probes: &str) -> (Vec<Report>, Option<String>) {
    if !loader.has_object {
        return (Vec::new(), Some(object::MISSING.to_owned()));
    }
    let (socket, mut child) = match spawn(loader, sys, probes) {
        Ok(spawned) => spawned,
        Err(error) => {
            let executable = loader.executable.display();
            return (Vec::new(), Some(format!("starting {executable} as the loader: {error}")));
        }
    };
    let deadline = Instant::now() + loader.timeout;
    let mut reports = Vec::new();
    let fault = loop {
        match readable(&socket, deadline) {
            Ok(true) => {}
            Ok(false) => break Some(format!("the loader took longer than {:?}", loader.timeout)),
            Err(error) => break Some(format!("waiting for the loader: {error}")),
        }
        match channel::receive(socket.as_fd()) {
            Ok(Some(report)) => reports.push(report),
            Ok(None) => break None,
            Err(error) => break Some(format!("listening to the loader: {error}")),
        }
    };
    let end = end(&mut child, &socket, fault.is_some());
    (reports, fault.or(end))
}

fn spawn(loader: &Loader, sys: &Path, probes: &str) -> io::Result<(OwnedFd, Child)> {
    let (ours, theirs) =
        socketpair(AddressFamily::UNIX, SocketType::SEQPACKET, SocketFlags::CLOEXEC, None)?;
    // The command owns the child's end; dropped here, it leaves the child as its only holder, so that
    // the child's end is the end of the socket.
    let child = Command::new(&loader.executable)
        .arg(LOADER_ARGUMENT)
        .arg(sys)
        .arg(probes)
        .arg(loader.transport.map_or("auto", Transport::name))
        .stdin(Stdio::from(theirs))
        .stdout(Stdio::null())
        .spawn()?;
    Ok((ours, child))
}

/// Waits until the socket has something to read; false at the deadline.
fn readable(socket: &OwnedFd, deadline: Instant) -> io::Result<bool> {
    loop {
        let left = deadline.saturating_duration_since(Instant::now());
        let timeout =
            Timespec { tv_sec: left.as_secs().min(3600) as _, tv_nsec: left.subsec_nanos().into() };
        match poll(&mut [PollFd::new(socket, PollFlags::IN)], Some(&timeout)) {
            Ok(0) => return Ok(false),
            Ok(_) => return Ok(true),
            Err(rustix::io::Errno::INTR) => {}
            Err(error) => return Err(error.into()),
        }
    }
}

/// Reaps the child, killed before if it failed; says how it ended if that was not well. A child that
/// can't even be killed, in the middle of a system call that hangs, is left behind.
fn end(child: &mut Child, socket: &OwnedFd, kill: bool) -> Option<String> {
    if kill {
        // It may be gone already.
        let _ = child.kill();
        // Its death closes the socket.
        let patience = Instant::now() + Duration::from_secs(1);
        while let Ok(true) = readable(socket, patience) {
            if !matches!(channel::receive(socket.as_fd()), Ok(Some(_))) {
                let _ = child.wait();
                return None;
            }
        }
        return None;
    }
    match child.wait() {
        Ok(status) if status.success() => None,
        Ok(status) => Some(format!("the loader ended with {status}")),
        Err(error) => Some(format!("waiting for the loader's end: {error}")),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn run_with(executable: &str, timeout: Duration) -> String {
        let executable = executable.into();
        let loader = Loader { executable, has_object: true, transport: None, timeout };
        let (reports, fault) = run(&loader, Path::new("/sys"), "block");
        assert!(reports.is_empty());
        fault.unwrap_or_default()
    }

    #[test]
    fn a_binary_without_an_object_says_how_to_build_it() {
        let loader = Loader { has_object: false, ..Loader::default() };
        let (reports, fault) = run(&loader, Path::new("/sys"), "block");
        assert!(reports.is_empty());
        assert!(fault.unwrap().contains("cargo xtask build-ebpf"));
    }

    #[test]
    fn an_executable_that_is_not_there_is_a_reason() {
        let reason = run_with("/nonexistent/mote", Duration::from_secs(5));
        assert!(reason.contains("/nonexistent/mote"), "{reason}");
    }

    #[test]
    fn a_child_that_fails_is_a_reason() {
        let reason = run_with("/bin/false", Duration::from_secs(5));
        assert!(reason.contains("exit status: 1"), "{reason}");
    }

    #[test]
    fn a_child_that_hangs_is_killed() {
        // A script, because it has to ignore the loader's arguments and to keep its standard input.
        let script = std::env::temp_dir().join(format!("mote-hang-{}", std::process::id()));
        std::fs::write(&script, "#!/bin/sh\nexec sleep 600\n").unwrap();
        let mode = std::os::unix::fs::PermissionsExt::from_mode(0o755);
        std::fs::set_permissions(&script, mode).unwrap();
        let begin = Instant::now();
        let reason = run_with(&script.to_string_lossy(), Duration::from_millis(300));
        std::fs::remove_file(&script).unwrap();
        assert!(reason.contains("longer than 300ms"), "{reason}");
        assert!(begin.elapsed() < Duration::from_secs(5));
    }

    #[test]
    fn a_child_that_is_killed_before_it_puts_the_jit_back_leaves_it_on() {
        let folder = tempfile::tempdir().unwrap();
        let (script, switch) = (folder.path().join("loader"), folder.path().join("switch"));
        std::fs::write(&switch, "1\n").unwrap();
        let (path, left) = (switch.display(), folder.path().join("left"));
        let left = left.display();
        let lines = format!("#!/bin/sh\necho 0 > {path}\ncp {path} {left}\nexec sleep 600\n");
        std::fs::write(&script, lines).unwrap();
        let mode = std::os::unix::fs::PermissionsExt::from_mode(0o755);
        std::fs::set_permissions(&script, mode).unwrap();
        let timeout = Duration::from_secs(1);
        let loader = Loader { executable: script, has_object: true, transport: None, timeout };
        let before = Before::remember_at(&switch);
        let (_, fault) = run_beside(&before, &loader, Path::new("/sys"), "block");
        assert!(fault.unwrap().contains("longer than 1s"));
        let left = std::fs::read_to_string(folder.path().join("left")).unwrap();
        assert_eq!((left.trim(), std::fs::read_to_string(&switch).unwrap().as_str()), ("0", "1"));
    }
}
