//! The kernel's log as /dev/kmsg gives it (Documentation/ABI/testing/dev-kmsg, kernel/printk/printk.c):
//! one record a read, without waiting, through one buffer that never grows. It must not know what a
//! message means.
//!
//! [`Kmsg::read`] gives records until there is none, and [`AsFd`] the descriptor that becomes readable
//! with the next one: while the kernel says nothing, nobody wakes. [`Kmsg::position`] is what to keep so
//! that a later process begins where this one ended.
//!
//! A message that the kernel has not ended with a line break can't be read before the next one comes,
//! and none can while an earlier one is being written by another CPU.
//!
//! The log is a ring. What the kernel has overwritten is counted by the gap in the records' numbers,
//! [`Kmsg::lost`], and reading goes on with the oldest record that is left.

mod record;

use std::fs::File;
use std::io;
use std::os::fd::{AsFd, AsRawFd, BorrowedFd, RawFd};
use std::os::unix::fs::{FileTypeExt as _, MetadataExt as _, OpenOptionsExt as _};

use super::{Clock, Host, ReadError};

use record::Header;
pub use record::{Record, Verbatim};

/// CONSOLE_EXT_LOG_MAX, the kernel's own buffer for a record until 6.3, PRINTK_MESSAGE_MAX (2,048)
/// since: no record is larger.
const BUFFER: usize = 8192;

/// Reads in a row that may fail for a record that was overwritten or is too large, before the log is
/// taken for broken.
const FAILURES: u32 = 64;

/// Records that are passed over to find the beginning: as many as the largest ring holds
/// (CONFIG_LOG_BUF_SHIFT is at most 25), so that a kernel that writes without end holds nobody up.
const MAX_RECORDS: u32 = 1 << 20;

/// /dev/kmsg's numbers (drivers/char/mem.c).
const DEVICE: (u32, u32) = (1, 11);

/// Up to where a log has been read.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Position {
    /// The boot whose log it is: /proc/sys/kernel/random/boot_id.
    pub boot: [u8; 16],
    /// The number of the first record that has not been read.
    pub next: u64,
}

impl Position {
    /// Bytes of a stored position.
    pub const BYTES: usize = 25;
    const VERSION: u8 = 1;

    /// For storing: a version (1), the boot's 16 bytes, the number as a little-endian u64.
    pub fn to_bytes(self) -> [u8; Position::BYTES] {
        let mut bytes = [0; Position::BYTES];
        let fields =
            [Position::VERSION].into_iter().chain(self.boot).chain(self.next.to_le_bytes());
        bytes.iter_mut().zip(fields).for_each(|(byte, field)| *byte = field);
        bytes
    }

    /// What was stored; none if it is of another version or length.
    pub fn from_bytes(bytes: &[u8]) -> Option<Position> {
        let (version, rest) = bytes.split_first()?;
        let (boot, next) = rest.split_first_chunk()?;
        let next = u64::from_le_bytes(next.try_into().ok()?);
        (*version == Position::VERSION).then_some(Position { boot: *boot, next })
    }
}

/// Where reading begins.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Start {
    /// With what the kernel says from now on.
    End,
    /// With the oldest record there is; those before it are not missed.
    Oldest,
    /// Behind what has been read. If that was in another boot, or can't have been in this one, with the
    /// oldest record there is: nobody has read this boot's log.
    After(Position),
}

/// An open kernel log.
#[derive(Debug)]
pub struct Kmsg(Reader<File>);

impl Kmsg {
    /// Opens `dev/kmsg` below the host's root. It reads what is before the beginning, all of the ring
    /// at most, which takes some milliseconds.
    ///
    /// # Errors
    /// Whatever opening or reading gave: no such device in many containers, EPERM without CAP_SYSLOG
    /// where `kernel.dmesg_restrict` is set. Also a file that is not the kernel's log.
    pub fn open(host: &mut Host, start: Start) -> Result<Kmsg, ReadError> {
        let boot = boot(host)?;
        let path = host.roots().root.join("dev/kmsg");
        let open = || {
            let nonblocking = rustix::fs::OFlags::NONBLOCK.bits() as i32;
            let file = File::options().read(true).custom_flags(nonblocking).open(&path)?;
            let meta = file.metadata()?;
            let device = (rustix::fs::major(meta.rdev()), rustix::fs::minor(meta.rdev()));
            if !meta.file_type().is_char_device() || device != DEVICE {
                return Err(io::Error::new(io::ErrorKind::NotFound, "not the kernel's log"));
            }
            Reader::open(file, boot, start).map(Kmsg)
        };
        open().map_err(|source| ReadError { path: path.clone().into(), source })
    }

    /// The next record, or none if the kernel has said nothing more. The descriptor tells of new ones
    /// only after this was none.
    ///
    /// # Errors
    /// What the system said, other than that records were overwritten, which is counted.
    pub fn read(&mut self) -> io::Result<Option<Record<'_>>> {
        self.0.read()
    }

    /// As [`read`](Kmsg::read), as it was said.
    ///
    /// # Errors
    /// The same.
    pub fn read_verbatim(&mut self) -> io::Result<Option<Verbatim<'_>>> {
        self.0.read_verbatim()
    }

    /// Where the next record will be.
    pub fn position(&self) -> Position {
        Position { boot: self.0.boot, next: self.0.next }
    }

    /// Records that were overwritten before they were read, since this was opened, and those that
    /// nobody read between a [`Start::After`] and the oldest record there was.
    pub fn lost(&self) -> u64 {
        self.0.lost
    }
}

impl AsFd for Kmsg {
    fn as_fd(&self) -> BorrowedFd<'_> {
        self.0.source.as_fd()
    }
}

/// For tokio's `AsyncFd`, which wants this one.
impl AsRawFd for Kmsg {
    fn as_raw_fd(&self) -> RawFd {
        self.0.source.as_raw_fd()
    }
}

/// Nanoseconds since the Unix epoch of a record's time, in microseconds since boot.
///
/// It is as far off as printk's clock is: that one is not slewed with the time of day (milliseconds a
/// day), and does not count suspend, so that what was said before the machine slept appears later than
/// it was by as long as it slept. Never later than now.
pub fn unix_ns(clock: &dyn Clock, usec: u64) -> i64 {
    Moment::now(clock).unix_ns(usec)
}

/// The time of day and the time since boot at one moment, for the times of several records.
#[derive(Clone, Copy, Debug)]
pub struct Moment {
    now_ns: i64,
    since_boot_ns: i128,
}

impl Moment {
    /// This one.
    pub fn now(clock: &dyn Clock) -> Moment {
        let monotonic = rustix::time::clock_gettime(rustix::time::ClockId::Monotonic);
        let seconds = i128::from(monotonic.tv_sec);
        let since_boot_ns = seconds * 1_000_000_000 + i128::from(monotonic.tv_nsec);
        Moment { now_ns: clock.now_ns(), since_boot_ns }
    }

    /// As [`unix_ns`].
    pub fn unix_ns(&self, usec: u64) -> i64 {
        let age = (self.since_boot_ns - i128::from(usec) * 1_000).max(0);
        i64::try_from(i128::from(self.now_ns) - age).unwrap_or(i64::MIN)
    }
}

/// The boot's id: 32 hexadecimal digits with dashes between them.
fn boot(host: &mut Host) -> Result<[u8; 16], ReadError> {
    const FILE: &str = "sys/kernel/random/boot_id";
    let text = host.proc(FILE)?;
    let mut boot = [0; 16];
    let digits = text.iter().filter_map(|&byte| char::from(byte).to_digit(16)).map(|d| d as u8);
    let mut count = 0;
    for (at, digit) in digits.enumerate() {
        count += 1;
        if let Some(byte) = boot.get_mut(at / 2) {
            *byte = *byte << 4 | digit;
        }
    }
    if count != 32 {
        let source = io::Error::new(io::ErrorKind::InvalidData, "not a boot's id");
        return Err(ReadError { path: host.roots().proc.join(FILE).into(), source });
    }
    Ok(boot)
}

/// What a [`Reader`] needs of /dev/kmsg.
trait Source {
    /// One record, or how /dev/kmsg refuses: EAGAIN, EPIPE, EINVAL.
    fn read(&mut self, buffer: &mut [u8]) -> io::Result<usize>;
    /// Back to the oldest record.
    fn rewind(&mut self) -> io::Result<()>;
}

impl Source for File {
    fn read(&mut self, buffer: &mut [u8]) -> io::Result<usize> {
        io::Read::read(self, buffer)
    }

    fn rewind(&mut self) -> io::Result<()> {
        io::Seek::rewind(self)
    }
}

struct Reader<S> {
    source: S,
    boot: [u8; 16],
    buffer: Box<[u8; BUFFER]>,
    /// The bytes of the record in it.
    length: usize,
    /// A record that lies in the buffer and has not been given out.
    held: Option<Header>,
    /// The number of the next record.
    next: u64,
    lost: u64,
}

impl<S> std::fmt::Debug for Reader<S> {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Reader").field("next", &self.next).field("lost", &self.lost).finish()
    }
}

impl<S: Source> Reader<S> {
    fn open(source: S, boot: [u8; 16], start: Start) -> io::Result<Reader<S>> {
        let buffer = Box::new([0; BUFFER]);
        let mut reader = Reader { source, boot, buffer, length: 0, held: None, next: 0, lost: 0 };
        let next = match start {
            Start::End => u64::MAX,
            Start::Oldest => 0,
            Start::After(position) if position.boot == boot => position.next,
            Start::After(_) => return Ok(reader),
        };
        for _ in 0..MAX_RECORDS {
            let Some(header) = reader.fill()? else { break };
            if header.seq >= next {
                reader.lost = if start == Start::Oldest { 0 } else { header.seq - next };
                reader.next = header.seq;
                reader.held = Some(header);
                return Ok(reader);
            }
            // Records that are not to be read can't be lost.
            reader.next = header.seq + 1;
        }
        // A position behind the newest record is none of this log's.
        if start != Start::End && reader.next < next {
            reader.next = 0;
            reader.source.rewind()?;
        }
        Ok(reader)
    }

    fn read(&mut self) -> io::Result<Option<Record<'_>>> {
        Ok(self.next()?.map(|header| header.record(self.buffer.as_mut_slice())))
    }

    fn read_verbatim(&mut self) -> io::Result<Option<Verbatim<'_>>> {
        let Some((header, length)) = self.next()?.zip(Some(self.length)) else { return Ok(None) };
        // Behind the record lies what is left of longer ones.
        Ok(Some(header.verbatim(self.buffer.get_mut(..length).unwrap_or_default())))
    }

    fn next(&mut self) -> io::Result<Option<Header>> {
        let header = match self.held.take() {
            Some(header) => header,
            None => match self.fill()? {
                Some(header) => header,
                None => return Ok(None),
            },
        };
        self.lost += header.seq.saturating_sub(self.next);
        self.next = header.seq + 1;
        Ok(Some(header))
    }

    /// Reads a record into the buffer.
    fn fill(&mut self) -> io::Result<Option<Header>> {
        let mut failures = 0;
        loop {
            let error = match self.source.read(self.buffer.as_mut_slice()) {
                Ok(0) => return Ok(None),
                Ok(length) => match self.buffer.get(..length).and_then(Header::parse) {
                    Some(header) => {
                        self.length = length;
                        return Ok(Some(header));
                    }
                    None => io::Error::new(io::ErrorKind::InvalidData, "not a record of kmsg's"),
                },
                Err(error) => error,
            };
            match error.kind() {
                io::ErrorKind::WouldBlock => return Ok(None),
                // Overwritten, and the next read gives the oldest record that is left; larger than
                // the buffer, and the next read gives the one behind it. Numbers tell how many.
                io::ErrorKind::BrokenPipe
                | io::ErrorKind::InvalidInput
                | io::ErrorKind::InvalidData
                | io::ErrorKind::Interrupted
                    if failures < FAILURES =>
                {
                    failures += 1;
                }
                _ => return Err(error),
            }
        }
    }
}

#[cfg(test)]
mod tests;
