//! Block I/O from /proc/diskstats (diskstats_show in block/genhd.c).
//!
//! The kernel gives a sum and a count where the probe has a distribution: a histogram with the one
//! bucket `+Inf`, so that `rate(_sum) / rate(_count)` is the mean latency from either. The times contain
//! the wait in the kernel's queue, which the probe's do not; before 4.20 they are sums of whole ticks.

use super::{ProcError, fields, lines, unsigned};
use crate::host::Host;
use crate::model::Samples;
use crate::probe::block::{BYTES, DURATION, INFLIGHT};

const FILE: &str = "diskstats";

/// Sectors are of 512 bytes here, whatever the disk's are.
const SECTOR: u64 = 512;

/// Counters of the first 2.6; discards came with 4.18, flushes with 5.5. More than the last are not
/// known, and ignored.
const COLUMNS_MIN: usize = 11;
const COLUMNS: usize = 17;
const COLUMN_INFLIGHT: usize = 8;

struct Operation {
    name: &'static str,
    /// The columns, counted behind the device's name.
    count: usize,
    sectors: Option<usize>,
    milliseconds: usize,
}

const OPERATIONS: [Operation; 4] = [
    Operation { name: "read", count: 0, sectors: Some(2), milliseconds: 3 },
    Operation { name: "write", count: 4, sectors: Some(6), milliseconds: 7 },
    Operation { name: "discard", count: 11, sectors: Some(13), milliseconds: 14 },
    Operation { name: "flush", count: 15, sectors: None, milliseconds: 16 },
];

/// The probe `block` without BPF.
#[derive(Clone, Copy, Debug, Default)]
pub struct BlockStats;

impl BlockStats {
    /// Reads the file and writes, for each device that is not left out, a histogram and the bytes of
    /// each operation that it has ever had, and the requests in flight.
    ///
    /// # Errors
    /// The file can't be read, or the first line that is malformed; the others are written.
    pub fn collect(
        &mut self,
        left_out: impl Fn(&[u8]) -> bool,
        host: &mut Host,
        out: &mut Samples,
    ) -> Result<(), ProcError> {
        let bytes = host.proc(FILE)?;
        let mut error = None;
        let rows = || lines(bytes).filter_map(|line| Row::parse(line).ok());
        let rows = || rows().filter(|row| !left_out(row.name.as_bytes()));
        for line in lines(bytes) {
            if Row::parse(line).is_err() {
                error.get_or_insert_with(|| ProcError::malformed(FILE, line));
            }
        }
        let mut family = out.family(&DURATION);
        for row in rows() {
            for operation in &OPERATIONS {
                let count = row.column(operation.count).unwrap_or_default();
                let milliseconds = row.column(operation.milliseconds).unwrap_or_default();
                if count > 0 {
                    let labels = [("device", row.name), ("operation", operation.name)];
                    family.histogram(&labels, [], milliseconds as f64 / 1e3, count);
                }
            }
        }
        let mut family = out.family(&BYTES);
        for row in rows() {
            for operation in &OPERATIONS {
                let sectors = operation.sectors.and_then(|at| row.column(at));
                if let (Some(sectors), Some(1..)) = (sectors, row.column(operation.count)) {
                    let labels = [("device", row.name), ("operation", operation.name)];
                    family.add(&labels, sectors as f64 * SECTOR as f64);
                }
            }
        }
        let mut family = out.family(&INFLIGHT);
        for row in rows() {
            let inflight = row.column(COLUMN_INFLIGHT).unwrap_or_default();
            family.add(&[("device", row.name)], inflight as f64);
        }
        error.map_or(Ok(()), Err)
    }
}

/// A line of which each column that is there is a number.
struct Row<'a> {
    name: &'a str,
    columns: [u64; COLUMNS],
    known: usize,
}

impl<'a> Row<'a> {
    fn parse(line: &'a [u8]) -> Result<Row<'a>, ()> {
        let mut tokens = fields(line);
        let mut numbers = tokens.by_ref().take(2).filter_map(unsigned);
        let (_major, _minor) = numbers.next().zip(numbers.next()).ok_or(())?;
        drop(numbers);
        let name = tokens.next().and_then(|name| std::str::from_utf8(name).ok()).ok_or(())?;
        let mut row = Row { name, columns: [0; COLUMNS], known: 0 };
        for (column, token) in row.columns.iter_mut().zip(tokens) {
            *column = unsigned(token).ok_or(())?;
            row.known += 1;
        }
        if row.known < COLUMNS_MIN { Err(()) } else { Ok(row) }
    }

    fn column(&self, at: usize) -> Option<u64> {
        self.columns.get(at).copied().filter(|_| at < self.known)
    }
}

/// Whether node_exporter's `diskstats` leaves a device out by default:
/// `^(ram|loop|fd|(h|s|v|xv)d[a-z]|nvme\d+n\d+p)\d+$`, which are RAM disks, loop devices, floppies and
/// the partitions of most disks.
pub fn is_left_out(name: &[u8]) -> bool {
    let digits = name.iter().rev().take_while(|byte| byte.is_ascii_digit()).count();
    let Some((stem, 1..)) = name.len().checked_sub(digits).map(|at| (name.get(..at), digits))
    else {
        return false;
    };
    match stem.unwrap_or_default() {
        b"ram" | b"loop" | b"fd" => true,
        [b'h' | b's' | b'v', b'd', b'a'..=b'z'] | [b'x', b'v', b'd', b'a'..=b'z'] => true,
        [b'n', b'v', b'm', b'e', rest @ .., b'p'] => {
            let mut parts = rest.split(|&byte| byte == b'n');
            let number = |part: Option<&[u8]>| {
                part.is_some_and(|part| !part.is_empty() && part.iter().all(u8::is_ascii_digit))
            };
            number(parts.next()) && number(parts.next()) && parts.next().is_none()
        }
        _ => false,
    }
}
