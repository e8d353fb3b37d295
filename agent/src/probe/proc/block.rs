//! Block I/O from /proc/diskstats (diskstats_show in block/genhd.c), of the devices that the probe sees.
//!
//! The kernel gives a sum and a count where the probe has a distribution: a histogram with the one
//! bucket `+Inf`, so that `rate(_sum) / rate(_count)` is the mean latency from either. The times contain
//! the wait in the kernel's queue, which the probe's do not; before 4.20 they are sums of whole ticks.
//!
//! Which lines are left out says `devices`. The requests in flight are sysfs', as the probe's are: here
//! is only their sum.

use std::fmt::Write as _;

use super::devices::{Device, Devices};
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
pub(super) const COLUMNS: usize = 17;

struct Operation {
    name: &'static str,
    /// The columns, counted behind the device's name.
    count: usize,
    sectors: Option<usize>,
    milliseconds: usize,
    /// The place in sysfs' `inflight`, which has those that read, and all others.
    inflight: Option<usize>,
}

const OPERATIONS: [Operation; 4] = [
    Operation { name: "read", count: 0, sectors: Some(2), milliseconds: 3, inflight: Some(0) },
    Operation { name: "write", count: 4, sectors: Some(6), milliseconds: 7, inflight: Some(1) },
    Operation { name: "discard", count: 11, sectors: Some(13), milliseconds: 14, inflight: None },
    Operation { name: "flush", count: 15, sectors: None, milliseconds: 16, inflight: None },
];

/// The probe `block` without BPF.
#[derive(Debug, Default)]
pub struct BlockStats {
    devices: Devices,
    path: String,
}

impl BlockStats {
    /// Reads the file and writes, for each device that takes requests, a histogram, the bytes and the
    /// requests in flight of each operation that it has ever had.
    ///
    /// # Errors
    /// The file can't be read, or the first line that is malformed; the others are written.
    pub fn collect(&mut self, host: &mut Host, out: &mut Samples) -> Result<(), ProcError> {
        let mut error = None;
        self.devices.begin();
        for line in lines(host.proc(FILE)?) {
            match Row::parse(line) {
                // Whoever never had a request is not asked about.
                Ok(row) if OPERATIONS.iter().any(|operation| row.has(operation)) => {
                    self.devices.put(row.number, row.name, row.columns);
                }
                Ok(_) => {}
                Err(()) => _ = error.get_or_insert_with(|| ProcError::malformed(FILE, line)),
            }
        }
        self.devices.end(host);
        let mut family = out.family(&DURATION);
        for (device, operation, count) in self.operations() {
            let labels = [("device", device.name()), ("operation", operation.name)];
            let milliseconds = device.column(operation.milliseconds);
            family.histogram(&labels, [], milliseconds as f64 / 1e3, count);
        }
        let mut family = out.family(&BYTES);
        for (device, operation, _) in self.operations() {
            if let Some(at) = operation.sectors {
                let labels = [("device", device.name()), ("operation", operation.name)];
                family.add(&labels, device.column(at) as f64 * SECTOR as f64);
            }
        }
        self.inflight(host, out);
        error.map_or(Ok(()), Err)
    }

    /// The operations that each device has had, and how many of them.
    fn operations(&self) -> impl Iterator<Item = (&Device, &'static Operation, u64)> {
        let devices = self.devices.counted();
        let each = |device| OPERATIONS.iter().map(move |operation| (device, operation));
        devices.flat_map(each).filter_map(|(device, operation)| {
            let count = device.column(operation.count);
            (count > 0).then_some((device, operation, count))
        })
    }

    fn inflight(&mut self, host: &mut Host, out: &mut Samples) {
        let mut family = out.family(&INFLIGHT);
        for device in self.devices.counted() {
            let (major, minor) = device.number();
            self.path.clear();
            let _ = write!(self.path, "dev/block/{major}:{minor}/inflight");
            let Ok(bytes) = host.sys(&self.path) else { continue };
            for operation in &OPERATIONS {
                let mut numbers = fields(bytes).map(unsigned);
                let number = operation.inflight.and_then(|at| numbers.nth(at)).flatten();
                if let (Some(number), 1..) = (number, device.column(operation.count)) {
                    let labels = [("device", device.name()), ("operation", operation.name)];
                    family.add(&labels, number as f64);
                }
            }
        }
    }
}

/// A line of which each column that is there is a number. Those that are not are 0.
struct Row<'a> {
    number: (u64, u64),
    name: &'a str,
    columns: [u64; COLUMNS],
}

impl<'a> Row<'a> {
    fn parse(line: &'a [u8]) -> Result<Row<'a>, ()> {
        let mut tokens = fields(line);
        let mut numbers = tokens.by_ref().take(2).filter_map(unsigned);
        let number = numbers.next().zip(numbers.next()).ok_or(())?;
        drop(numbers);
        let name = tokens.next().and_then(|name| std::str::from_utf8(name).ok()).ok_or(())?;
        let mut row = Row { number, name, columns: [0; COLUMNS] };
        let mut known = 0;
        for (column, token) in row.columns.iter_mut().zip(tokens) {
            *column = unsigned(token).ok_or(())?;
            known += 1;
        }
        if known < COLUMNS_MIN { Err(()) } else { Ok(row) }
    }

    fn has(&self, operation: &Operation) -> bool {
        self.columns.get(operation.count).is_some_and(|count| *count > 0)
    }
}
