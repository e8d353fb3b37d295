//! The probe `block`: how long the disks take, how much they move and which requests fail, by device and
//! operation. The programs are agent-ebpf/src/block.rs; here are the fields that they need, and their maps
//! read once a round.
//!
//! A latency is from the request's issue to its driver to the completion of its last sector: the time
//! that the device has it. /proc/diskstats adds the time that the request waited for its turn.

use std::fmt::Write as _;
use std::os::fd::OwnedFd;

use agent_common::block::{BlockCounters, BlockErrorKey, BlockHistogram, BlockKey, Operation};
use agent_common::direct as fields;
use agent_common::event::Kind;
use aya::maps::MapError;

use super::channel::Report;
use super::device::{MINOR_BITS, Namer};
use super::errors::{Devices, Errors, Family, LOST_MAP};
use super::fallback::Fallback;
use super::maps::{self, PerCpu, PerCpuTable, Value};
use super::perf::Attachment;
use super::record::Record;
use super::spec::{Needed, Presence, Shape, Sized, Spec, Target, Tracepoint, direct, needed};
use super::{LOST, Moment, Probe, Round, UNMATCHED, errno, histogram, nested};
use crate::host::Host;
use crate::model::{Desc, Event, Samples};

/// What the loader has to find for it.
pub(super) static SPEC: Spec = Spec {
    name: "block",
    about: "latency, bytes and errors of block I/O",
    tracepoints: &[
        Tracepoint {
            family: "block",
            event: "block_rq_complete",
            optional: false,
            fields: &[
                direct("dev", fields::COMPLETE_DEV, Shape::Number(4)),
                direct("sector", fields::COMPLETE_SECTOR, Shape::Number(8)),
                direct("nr_sector", fields::COMPLETE_NR_SECTOR, Shape::Number(4)),
                direct("rwbs", fields::COMPLETE_RWBS, Shape::Array(4)),
                Needed {
                    field: "error",
                    target: Target::Global("BLOCK_COMPLETE_ERROR"),
                    shape: Shape::Number(4),
                    presence: Presence::Without("block_rq_error"),
                },
            ],
        },
        // Since 5.16 (block: introduce block_rq_error tracepoint).
        Tracepoint {
            family: "block",
            event: "block_rq_error",
            optional: true,
            fields: &[
                needed("dev", "BLOCK_ERROR_DEV", Shape::Number(4)),
                needed("sector", "BLOCK_ERROR_SECTOR", Shape::Number(8)),
                needed("nr_sector", "BLOCK_ERROR_NR_SECTOR", Shape::Number(4)),
                needed("rwbs", "BLOCK_ERROR_RWBS", Shape::Array(4)),
                needed("error", "BLOCK_ERROR_ERROR", Shape::Number(4)),
            ],
        },
        // The last: what it has seen must not be completed unseen.
        Tracepoint {
            family: "block",
            event: "block_rq_issue",
            optional: false,
            fields: &[
                direct("dev", fields::ISSUE_DEV, Shape::Number(4)),
                direct("sector", fields::ISSUE_SECTOR, Shape::Number(8)),
                direct("nr_sector", fields::ISSUE_NR_SECTOR, Shape::Number(4)),
                direct("rwbs", fields::ISSUE_RWBS, Shape::Array(4)),
            ],
        },
    ],
    maps: &["BLOCK_LATENCY", "BLOCK_COUNTERS", "BLOCK_ERRORS", LOST_MAP],
    sized: &[
        // Each has room for four requests and 128 bytes. A fast NVMe device has 1,024 requests queued; a
        // card has one.
        Sized {
            map: "BLOCK_STARTS",
            base: 64,
            each_device: 64,
            most: 4096,
            mask: Some("BLOCK_PLACES"),
        },
        // Four operations for each device, and for some that come later.
        Sized { map: "BLOCK_LATENCY", base: 32, each_device: 4, most: 1024, mask: None },
        Sized { map: "BLOCK_ERRORS", base: 32, each_device: 4, most: 1024, mask: None },
    ],
    events: &[Kind::BlockError],
    start: |report| Ok(Box::new(Block::new(report)?)),
    fallback: Fallback::Diskstats,
};

pub(super) const DURATION: Desc = Desc::histogram(
    "mote_block_io_duration_seconds",
    "Time from a request's issue to the device's driver to its completion.",
);
pub(super) const BYTES: Desc =
    Desc::counter("mote_block_io_bytes_total", "Bytes of completed requests.");
pub(super) const INFLIGHT: Desc =
    Desc::gauge("mote_block_io_inflight", "Requests that the device's driver has at the moment.");
pub(super) const ERRORS: Desc = Desc::counter(
    "mote_block_io_errors_total",
    "Requests, or parts of them, that have failed, by the error's number.",
);

const FAMILY: Family<3> =
    Family { desc: &ERRORS, labels: ["device", "error", "operation"], kind: Kind::BlockError };

/// A device and operation that have been seen.
struct Known {
    key: BlockKey,
    operation: Operation,
    /// The device's name when it was last there, or `MAJ:MIN`.
    device: String,
    /// The sum over the CPUs of the last round.
    total: BlockHistogram,
}

/// The attached probe. Dropped, it detaches.
struct Block {
    latency: PerCpuTable<BlockKey, BlockHistogram>,
    errors: Errors<BlockErrorKey, 3>,
    counters: PerCpu<BlockCounters>,
    programs: Vec<OwnedFd>,
    _events: Attachment,
    known: Vec<Known>,
    namer: Namer,
    text: String,
}

impl Block {
    /// The probe from what the loader handed over.
    fn new(report: Report) -> Result<Block, String> {
        let [latency, counters, errors, lost] = maps::all(report.maps)?;
        Ok(Block {
            latency: maps::per_cpu_table(latency)?,
            errors: Errors::new(FAMILY, errors, lost)?,
            counters: maps::per_cpu(counters)?,
            programs: report.programs,
            _events: report.events,
            known: Vec::new(),
            namer: Namer::default(),
            text: String::new(),
        })
    }

    /// Takes up the keys that are new in the kernel's maps.
    fn discover(&mut self) -> Result<(), MapError> {
        for key in self.latency.keys() {
            let Value(key) = key?;
            // The programs write no other operation.
            let Some(operation) = Operation::from_u32(key.operation) else { continue };
            let place = |known: &Known| (known.key.device, known.key.operation);
            if let Err(at) = self.known.binary_search_by_key(&(key.device, key.operation), place) {
                let (total, device) = (BlockHistogram::ZERO, String::new());
                self.known.insert(at, Known { key, operation, device, total });
            }
        }
        Ok(())
    }

    fn collect_devices(&mut self, host: &mut Host, out: &mut Samples) -> Result<(), MapError> {
        let mut at = 0;
        while let Some(known) = self.known.get_mut(at) {
            let before = known.total;
            known.read(&self.latency)?;
            let present = self.namer.write(host, known.key.device, &mut self.text);
            if present && known.device != self.text {
                known.device.clone_from(&self.text);
            }
            if !present && known.total == before {
                // Gone, and nothing came since: its place is for another device.
                match self.latency.remove(&Value(known.key)) {
                    Ok(()) | Err(MapError::KeyNotFound) => {}
                    Err(error) => return Err(error),
                }
                self.known.remove(at);
                continue;
            }
            if known.device.is_empty() {
                known.device.clone_from(&self.text);
            }
            at += 1;
        }
        for known in &self.known {
            histogram::write(out, &DURATION, &known.labels(), &known.total.latency);
        }
        for known in &self.known {
            out.family(&BYTES).add(&known.labels(), known.total.bytes as f64);
        }
        for known in &self.known {
            // One of a device's operations stands for it, and the kernel counts by two of them.
            if let Operation::Read | Operation::Write = known.operation
                && let Some(count) = inflight(host, known.key, &mut self.text)
            {
                out.family(&INFLIGHT).add(&known.labels(), count as f64);
            }
        }
        Ok(())
    }

    fn collect_errors(&mut self, host: &Host, out: &mut Samples) -> Result<(), MapError> {
        let disks = Disks { namer: &mut self.namer, known: &self.known, host };
        self.errors.collect(out, disks)
    }
}

/// What the keys of errors mean on this host.
struct Disks<'a> {
    namer: &'a mut Namer,
    known: &'a [Known],
    host: &'a Host,
}

impl Devices<BlockErrorKey, 3> for Disks<'_> {
    fn name(&mut self, key: &BlockErrorKey) -> [String; 3] {
        let mut device = String::new();
        if !self.namer.write(self.host, key.device, &mut device) {
            // A disk that has been pulled out fails, and is gone.
            let same = |known: &&Known| known.key.device == key.device;
            let named = self.known.iter().filter(same).find(|known| !known.device.is_empty());
            device = named.map_or(device, |known| known.device.clone());
        }
        [device, errno::name(key.error), operation_name(key.operation).to_owned()]
    }

    fn is_gone(&mut self, key: &BlockErrorKey) -> bool {
        !self.namer.write(self.host, key.device, &mut String::new())
    }
}

impl Probe for Block {
    fn collect(&mut self, round: &mut Round<'_>) -> Result<(), MapError> {
        self.discover()?;
        // While devices that are gone still have their names.
        self.collect_errors(round.host, round.out)?;
        self.collect_devices(round.host, round.out)?;
        let errors_lost = self.errors.lost()?;
        let mut sum = BlockCounters { unmatched: 0, starts_lost: 0, histograms_lost: 0 };
        maps::sum(&self.counters, 0, |cpu: BlockCounters| {
            sum.unmatched += cpu.unmatched;
            sum.starts_lost += cpu.starts_lost;
            sum.histograms_lost += cpu.histograms_lost;
        })?;
        let nested = nested(&self.programs, &mut self.text);
        round.out.family(&UNMATCHED).add(&[("probe", SPEC.name)], sum.unmatched as f64);
        for (reason, count) in [
            ("starts_full", sum.starts_lost),
            ("histograms_full", sum.histograms_lost),
            ("errors_full", errors_lost),
            ("nested", nested),
        ] {
            let labels = [("probe", SPEC.name), ("reason", reason)];
            round.out.family(&LOST).add(&labels, count as f64);
        }
        Ok(())
    }

    fn event(&mut self, moment: &mut Moment<'_>, mut event: Record<'_>) -> Option<Event> {
        let (device, operation) = (event.u32()?, event.u32()?);
        let (error, _padding) = (event.u32()?, event.u32()?);
        let (sector, sectors) = (event.u64()?, event.u64()?);
        let (device, operation) = (self.namer.name(moment.host, device), operation_name(operation));
        let error = errno::name(error);
        let bytes = sectors.saturating_mul(512);
        let message = match bytes {
            0 => format!("{operation} of {device}: {error}"),
            _ => format!("{operation} of {bytes} bytes at sector {sector} of {device}: {error}"),
        };
        Some(
            Event::new("io_error", moment.at_ns, message)
                .with("device", device)
                .with("operation", operation)
                .with("sector", sector.to_string())
                .with("bytes", bytes.to_string())
                .with("error", error),
        )
    }
}

impl Known {
    fn labels(&self) -> [(&str, &str); 2] {
        [("device", &self.device), ("operation", self.operation.as_str())]
    }

    fn read(&mut self, map: &PerCpuTable<BlockKey, BlockHistogram>) -> Result<(), MapError> {
        let mut now = self.sum(map)?;
        let jumps = histogram::jumps(self.total.bytes, now.bytes);
        if jumps || histogram::any_jumps(&self.total.latency, &now.latency) {
            let again = self.sum(map)?;
            histogram::keep_smaller(&mut now.latency, &again.latency);
            now.bytes = now.bytes.min(again.bytes);
        }
        histogram::advance(&mut self.total.latency, &now.latency);
        self.total.bytes = self.total.bytes.max(now.bytes);
        Ok(())
    }

    fn sum(&self, map: &PerCpuTable<BlockKey, BlockHistogram>) -> Result<BlockHistogram, MapError> {
        let mut sum = BlockHistogram::ZERO;
        for Value(cpu) in map.get(&Value(self.key), 0)?.iter() {
            histogram::add(&mut sum.latency, &cpu.latency);
            sum.bytes += cpu.bytes;
        }
        Ok(sum)
    }
}

/// The requests that the kernel says a device's driver has (Documentation/ABI/stable/sysfs-block):
/// `inflight` has those that read, and all others. A count of the programs' own would drift with each
/// event that they miss.
fn inflight(host: &mut Host, key: BlockKey, path: &mut String) -> Option<u64> {
    let (major, minor) = (key.device >> MINOR_BITS, key.device & ((1 << MINOR_BITS) - 1));
    path.clear();
    let _ = write!(path, "dev/block/{major}:{minor}/inflight");
    let text = std::str::from_utf8(host.sys(path).ok()?).ok()?;
    let at = usize::from(key.operation != Operation::Read as u32);
    text.split_ascii_whitespace().nth(at)?.parse().ok()
}

fn operation_name(operation: u32) -> &'static str {
    Operation::from_u32(operation).map_or("other", Operation::as_str)
}
