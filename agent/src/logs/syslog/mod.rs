//! Syslog, for boxes whose programs speak nothing else: messages over UDP, TCP (RFC 6587) and a Unix socket such as
//! /dev/log, in the forms of RFC 5424 and RFC 3164, as entries.
//!
//! **Use.** [`SyslogSource::new`] binds what its sections name, and goes on trying what can't be bound; then it is a
//! [`Source`](super::Source) like the others. [`Sockets`] outlives it: a reload ends the source and makes a new one,
//! and a socket that both want stays open in between, with what was received and not yet read, so that no datagram is
//! lost. Connections are closed by a reload, after what had come was read.
//!
//! **No position.** Files and journals can be read again; what a socket has given can't. A datagram is in the
//! agent's memory alone until it is in the WAL, for the second in which entries gather and while the WAL is full,
//! and a kill loses it. Of TCP only the beginning of an unfinished message is.
//!
//! **A full WAL** stops the reading of TCP, and senders wait. Datagrams are always taken, since over UDP there is
//! no waiting, and on /dev/log it would hang every program of the host: at most 256 KiB wait in the agent, and
//! then they are dropped. What the agent or the kernel drops is counted, `lost_entries`.
//!
//! **Labels**: `transport="syslog"`, `level`, `facility`, `syslog_identifier` (APP-NAME or tag), and of other
//! machines' messages `host`, their own word for it or else their address. Structured metadata: `pid`, `msgid`,
//! `hostname` where a relay on this host names another one, and RFC 5424's structured data as `sd_ID_NAME`, at most
//! 32 parameters and 8 KiB, the others counted (`dropped_metadata`).
//!
//! **Times** are those of reception, rising; or by choice the messages' own, where RFC 3164's lack of year and zone is
//! made up for by the nearest year and this host's zone. Below what they give, a millisecond or a microsecond,
//! messages are numbered, so that no two have one time: Loki would take them for one.
//!
//! **Strangers.** Other machines are heard only from the ranges that are allowed; the others' datagrams are dropped
//! and connections closed, counted (`refused`). So are connections beyond [`Options::max_connections`].
//!
//! It must not know the configuration's syntax nor the WAL.

mod address;
mod drops;
mod entry;
mod frames;
mod inbox;
mod message;
mod receive;
mod sockets;
mod source;
mod stamp;

use std::time::Duration;

use crate::model::Labels;

pub use address::{Listen, Range};
pub use frames::{Frame, Framer};
pub(super) use message::tag;
pub use message::{Message, Origin, params};
pub use sockets::Sockets;
pub use source::SyslogSource;

/// One section of the configuration.
#[derive(Clone, Debug)]
pub struct Options {
    /// Where it listens.
    pub listen: Listen,
    /// Other machines that may send; loopback always may.
    pub allow: Vec<Range>,
    /// The labels of every stream; the source's own win.
    pub labels: Labels,
    /// The longest text, in bytes.
    pub max_line: usize,
    /// Whether the messages' own times are taken.
    pub use_timestamp: bool,
    /// How long a connection may say nothing.
    pub idle_timeout: Duration,
    /// The most connections at once.
    pub max_connections: usize,
}
