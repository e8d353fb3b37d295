//! Whether the wall clock is to be believed, and what becomes of records that were made while it was not. Pure: it
//! reads no clock, and of files only its own. It must not know rounds, blocks or servers.
//!
//! # When the clock is believed
//! Boards without a battery boot in the past: at the hour of the last shutdown, or in 1970. Until something vouches for
//! the clock, what is collected is *held*: written to the WAL at once, and marked. The clock is believed
//! - when it is vouched for: adjtimex(2) has no STA_UNSYNC, or `/run/systemd/timesync/synchronized` is there, which
//!   systemd-timesyncd touches when it has set the clock, on a file system that no boot outlives;
//! - when it was believed earlier in the same boot ([`Book`]): the kernel sets STA_UNSYNC again when NTP has been away
//!   for nine hours, and that is no reason to hold;
//! - when nothing has vouched for it and the machine has run for `clock.wait` since its boot. An agent that is started
//!   on a machine that has run for long holds nothing, and a machine without NTP is held for ten minutes after a boot.
//!   This does not hold for a clock that is certainly wrong: before the release of this agent, or less than a day before
//!   the newest time in the WAL that was believed. Servers would refuse what it stamps. Then records are held, within
//!   the WAL's bounds, until the clock passes that time or something vouches for it; the agent's log and status say
//!   so. More than a day before the newest time, that one was the wrong one, or there is nothing to choose;
//! - when `clock.wait` is 0: nothing is ever held.
//!
//! Once believed, it stays so up to the next boot, steps or not.
//!
//! # Held records
//! Their kind has the WAL's bit for a time that nobody vouches for, and before their payload stands a [`Stamp`]: the boot, and
//! by how much the wall clock was ahead of the time since the boot (its *offset*) when the record was made. Times
//! in the record are those of the wrong wall clock. When the clock is believed, its offset then is the *true offset* of
//! the boot: a time t that was told at an offset o was really at t - o + true offset, to the millisecond, and in order
//! whatever the wall clock did meanwhile, since nothing sets the time since the boot.
//!
//! The stamp travels with the data, and needs no other file: a state directory that is lost in part or a WAL that is
//! copied does not part them.
//!
//! A round's time is the agent's own and is always changed. Of log entries, those are changed whose time was told in this
//! boot by that clock: not before what it showed at the boot and not after the record was made, with a second to
//! spare. An older line of a file or of the journal keeps its time, and so does a message of another machine whose
//! clock is right. Since a record may hold entries from before a step of the clock, its stamp has the newest step too. What this can't tell: after a clock
//! that was set to the time of the last shutdown, lines of the last seconds before that shutdown count as lines of
//! this boot; entries of two steps ago keep their times.
//!
//! # Until the time is known
//! A reader of the WAL ends at the first held record of the running boot as if the WAL did: nothing overtakes it. When
//! the clock is believed, the true offset is written to the [`Book`] first, so that a crash can't give the same records
//! other times, and then readers go on.
//!
//! # Across a reboot
//! Held records of an earlier boot are given their times by the book, exactly. A boot that never learned the time is
//! *estimated*: it ended before the next boot began, and that one's beginning is known, or estimated itself. Its last
//! record is placed there, as if rebooting took no time, so no estimated time is before the real one, and none is
//! before a record ahead of it in the WAL whose time was right ([`estimate`]). It is told once, counted, and written to the book, so
//! that both WALs, every endpoint and the next start place that boot alike. An estimate needs the running boot's time,
//! unless the boot is followed by records whose time is believed.
//!
//! # Older versions
//! A WAL of a version that held nothing has no held records. An older version that meets held records can't decode
//! them: it counts them as damaged (`wal_damaged`), reads positions of log sources from the records before them, so that it reads
//! those lines again, and with `wal.max_age` it takes their times for the truth.
//!
//! # The book, `STATE_DIR/clock` (version 1; little-endian)
//! ```text
//!  0  magic    "MOTECLOC"
//!  8  version  u16 = 1
//! 10  boots    u16  at most 64, in the order in which their offsets became known
//! 12           of each, 32 bytes:
//!               0  boot      16 bytes of its id
//!              16  offset    i64  true offset in ms: real time (Unix epoch) less time since the boot
//!              24  flags     u32  1: estimated
//!              28  reserved  u32 = 0
//!     crc      u32  CRC32C of all before
//! ```
//! It is written beside its place, synced, renamed and the directory synced. One that is damaged or of
//! another version is taken for none: boots whose held records are still in the WAL are estimated.

mod belief;
mod book;
mod estimate;
mod stamp;

pub use belief::{Belief, Doubt, Look, Reason, Seen};
pub use book::{Book, Boot};
pub use estimate::{Unknown, estimate};
pub use stamp::{Stamp, VERSION};
