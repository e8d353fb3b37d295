//! Who this machine is.

/// The host's name, as `uname -n` prints it.
pub fn hostname() -> String {
    rustix::system::uname().nodename().to_string_lossy().into_owned()
}
