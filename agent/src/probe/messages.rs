//! What the programs say for those who work on them (`say!` in agent-ebpf): lines of the agent's own log at
//! level debug. Only with the feature `bpf-log`, and only where events go through a ring buffer; else
//! nothing is here. It must not know what is said.
//!
//! aya-log panics at a record that it can't read, which ends the agent. That is acceptable in a debug build
//! alone, and in no other can this be built.

#[cfg(all(feature = "bpf-log", not(debug_assertions)))]
compile_error!("the feature bpf-log is for debug builds: aya-log panics at a record it can't read");

use std::io;
use std::os::fd::OwnedFd;

/// The agent's end of the messages, of all programs together.
#[derive(Default)]
pub(super) struct Messages {
    #[cfg(feature = "bpf-log")]
    logger: Option<aya_log::EbpfLogger<&'static dyn log::Log>>,
    #[cfg(feature = "bpf-log")]
    failed: bool,
}

#[cfg(not(feature = "bpf-log"))]
impl Messages {
    pub(super) fn attach(&mut self, _: &[OwnedFd]) {}

    pub(super) fn descriptor(&self) -> Option<io::Result<OwnedFd>> {
        None
    }

    pub(super) fn flush(&mut self) {}
}

#[cfg(feature = "bpf-log")]
impl Messages {
    /// Looks for the buffer of the messages among the maps of these programs; all that write to it share
    /// one. Takes CAP_SYS_ADMIN (bpf_prog_get_fd_by_id in kernel/bpf/syscall.c).
    pub(super) fn attach(&mut self, programs: &[OwnedFd]) {
        for program in programs {
            if self.logger.is_some() || self.failed {
                return;
            }
            let found = match id(program) {
                Ok(id) => aya_log::EbpfLogger::init_from_id(id).map(Some),
                Err(error) => return self.fail(&error),
            };
            match found {
                Ok(logger) => self.logger = logger,
                // It says nothing.
                Err(aya_log::Error::MapNotFound) => {}
                Err(error) => self.fail(&error),
            }
        }
    }

    fn fail(&mut self, error: &dyn std::error::Error) {
        self.failed = true;
        log::warn!("what the BPF programs say is not read, which takes CAP_SYS_ADMIN: {error}");
    }

    /// A descriptor that is readable while there are messages.
    pub(super) fn descriptor(&self) -> Option<io::Result<OwnedFd>> {
        use std::os::fd::AsFd as _;
        self.logger.as_ref().map(|logger| logger.as_fd().try_clone_to_owned())
    }

    /// Writes what has been said since the last call to the log.
    pub(super) fn flush(&mut self) {
        if let Some(logger) = &mut self.logger {
            logger.flush();
        }
    }
}

/// The number of a program, which the kernel gives in its fdinfo (bpf_prog_show_fdinfo).
#[cfg(feature = "bpf-log")]
fn id(program: &OwnedFd) -> io::Result<u32> {
    use std::os::fd::AsRawFd as _;
    let fdinfo = std::fs::read_to_string(format!("/proc/self/fdinfo/{}", program.as_raw_fd()))?;
    let id = fdinfo.lines().find_map(|line| line.strip_prefix("prog_id:"));
    let id = id.and_then(|id| id.trim().parse().ok());
    id.ok_or_else(|| io::Error::other("the kernel does not number its programs"))
}
