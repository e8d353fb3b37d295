//! Containers' logs, from Docker's API, which Podman speaks too, or from the files that they are kept in.
//!
//! **Use.** [`DockerSource`] is a [`Source`](crate::logs::Source) for one section of the configuration. Each
//! daemon is asked for a list of its containers and for events, each container for its log, over connections
//! that stay open: nothing is asked while nothing happens. While nothing may be read (a full WAL), connections
//! are not read, and the daemons wait.
//!
//! **Position.** How far a container's log has been read is kept until the container is removed, over its
//! restarts, the daemon's, and the agent's, see `position`. Its key is [`KEY_PREFIX`] and the id.
//!
//! **Order.** Within each output of a container messages stay in the order of the log, with the timestamps that
//! the daemon gave them; where two have the same, the later one gets a nanosecond more.
//!
//! **Parts** of long lines are entries that are marked so. Docker writes what a program leaves without a line
//! break at its end as a part as well; that is told from the 16 KiB of a real one.
//!
//! **A proxy** that refuses events costs a list every ten seconds, one that refuses to tell of one container
//! its log's driver and path. Each is told once.
//!
//! **Not covered**: what a container wrote that is removed before the agent has connected to it, some
//! milliseconds after its start. Docker before 23.0 leaves out what has an earlier timestamp than the one that
//! is asked for, so there lines are lost of a container whose clock was set back by more than a second while
//! the agent was not connected, unless it still is behind when it connects. Podman before 5.0 tells seconds
//! only.
//!
//! It must not know the configuration, nor the WAL.

mod api;
mod discover;
pub mod disk;
mod follow;
mod frames;
mod labels;
mod links;
mod objects;
mod options;
mod place;
mod position;
mod said;
mod source;
mod time;

pub use follow::Counters;
pub use frames::{FrameError, Frames, Message, Output};
pub use labels::ID;
pub use options::{Limits, Options, Read, Selector};
pub use position::{Mark, MarkError, Resume};
pub use source::DockerSource;

/// What metrics and labels call the source.
pub const NAME: &str = "docker";

/// Docker's parts of a line have so much text, or more where something in it was no UTF-8; what is shorter
/// and has no end was a program's last.
const PART: usize = 16 << 10;

/// What every key of a position by the API starts with; the container's id follows.
pub const KEY_PREFIX: &str = "docker:api:";

/// Takes JSON objects out of bytes and reads each as all that the API says; gives every text that would become
/// a label or be logged. For the fuzz target.
#[doc(hidden)]
pub fn fuzz_said(bytes: &[u8]) -> Vec<String> {
    let (mut objects, mut rest, mut texts) = (objects::Objects::new(1 << 12), bytes, Vec::new());
    while let Some(object) = objects.next(&mut rest) {
        let _ = said::event(object);
        for container in [said::listed(object), said::inspected(object)].into_iter().flatten() {
            texts.extend([container.name, container.image, container.driver]);
            texts.extend(container.labels.into_values());
        }
    }
    texts.push(said::failure(bytes));
    texts
}
