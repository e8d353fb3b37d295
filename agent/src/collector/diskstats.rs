//! node_exporter's `diskstats`, from /proc/diskstats (block/genhd.c) and udev's database in
//! /run/udev/data. Where udev is missing, the labels that come from it are empty.

use super::options::{DiskstatsOptions, excludes};
use super::parse::{
    FirstError, Span, Texts, decimal, fields, lines, malformed, text, unsigned, whole,
};
use super::udev::{PROPERTIES, Property, parse as parse_udev};
use super::{CollectError, Collector};
use crate::host::{Host, Root};
use crate::model::{Desc, Samples};

const FILE: &str = "proc/diskstats";

/// The counters that every kernel gives.
const COLUMNS_MIN: usize = 11;

/// Sectors are of 512 bytes here, whatever the disk's are.
const SECTOR: f64 = 512.0;
/// Multiplied, not divided by 1000, because node_exporter does so and the last bit differs.
const MILLISECOND: f64 = 1.0 / 1000.0;

type Column = (Desc, f64);

/// In the order of the file's columns; those from the 12th on came with Linux 4.18 and 5.5.
#[rustfmt::skip]
const COLUMNS: [Column; 17] = [
    (Desc::counter("node_disk_reads_completed_total", "The total number of reads completed successfully."), 1.0),
    (Desc::counter("node_disk_reads_merged_total", "The total number of reads merged."), 1.0),
    (Desc::counter("node_disk_read_bytes_total", "The total number of bytes read successfully."), SECTOR),
    (Desc::counter("node_disk_read_time_seconds_total", "The total number of seconds spent by all reads."), MILLISECOND),
    (Desc::counter("node_disk_writes_completed_total", "The total number of writes completed successfully."), 1.0),
    (Desc::counter("node_disk_writes_merged_total", "The number of writes merged."), 1.0),
    (Desc::counter("node_disk_written_bytes_total", "The total number of bytes written successfully."), SECTOR),
    (Desc::counter("node_disk_write_time_seconds_total", "This is the total number of seconds spent by all writes."), MILLISECOND),
    (Desc::gauge("node_disk_io_now", "The number of I/Os currently in progress."), 1.0),
    (Desc::counter("node_disk_io_time_seconds_total", "Total seconds spent doing I/Os."), MILLISECOND),
    (Desc::counter("node_disk_io_time_weighted_seconds_total", "The weighted # of seconds spent doing I/Os."), MILLISECOND),
    (Desc::counter("node_disk_discards_completed_total", "The total number of discards completed successfully."), 1.0),
    (Desc::counter("node_disk_discards_merged_total", "The total number of discards merged."), 1.0),
    (Desc::counter("node_disk_discarded_sectors_total", "The total number of sectors discarded successfully."), 1.0),
    (Desc::counter("node_disk_discard_time_seconds_total", "This is the total number of seconds spent by all discards."), MILLISECOND),
    (Desc::counter("node_disk_flush_requests_total", "The total number of flush requests completed successfully"), 1.0),
    (Desc::counter("node_disk_flush_requests_time_seconds_total", "This is the total number of seconds spent by all flush requests."), MILLISECOND),
];

const INFO: Desc = Desc::gauge("node_disk_info", "Info of /sys/block/<block_device>.");
const FILESYSTEM_INFO: Desc =
    Desc::gauge("node_disk_filesystem_info", "Info about disk filesystem.");
const DEVICE_MAPPER_INFO: Desc =
    Desc::gauge("node_disk_device_mapper_info", "Info about disk device mapper.");
const ATA: [(Property, Desc); 3] = [
    (
        Property::AtaWriteCache,
        Desc::gauge("node_disk_ata_write_cache", "ATA disk has a write cache."),
    ),
    (
        Property::AtaWriteCacheEnabled,
        Desc::gauge("node_disk_ata_write_cache_enabled", "ATA disk has its write cache enabled."),
    ),
    (
        Property::AtaRotationRate,
        Desc::gauge(
            "node_disk_ata_rotation_rate_rpm",
            "ATA disk rotation rate in RPMs (0 for SSDs).",
        ),
    ),
];

struct Disk {
    name: Span,
    major: u64,
    minor: u64,
    /// The first `given` are of the file.
    columns: [u64; COLUMNS.len()],
    given: usize,
    udev: [Span; PROPERTIES],
}

/// I/O counters and identity of each disk.
pub(super) struct Diskstats {
    options: DiskstatsOptions,
    disks: Vec<Disk>,
    texts: Texts,
}

impl Diskstats {
    pub(super) fn new(options: &DiskstatsOptions) -> Diskstats {
        Diskstats { options: options.clone(), disks: Vec::new(), texts: Texts::default() }
    }
}

impl Collector for Diskstats {
    fn collect(&mut self, host: &mut Host, out: &mut Samples) -> Result<(), CollectError> {
        let mut errors = FirstError::default();
        self.disks.clear();
        self.texts.clear();
        for line in lines(whole(FILE, host.proc("diskstats")?, &mut errors)) {
            self.parse(line).unwrap_or_else(|error| errors.note(error));
        }
        for disk in &mut self.disks {
            let path = format_args!("run/udev/data/b{}:{}", disk.major, disk.minor);
            // Not there in a container or without udev; the labels are empty then.
            if let Some(bytes) = host.find(Root::Root, path) {
                disk.udev = parse_udev(bytes, &mut self.texts);
            }
        }
        self.write(out, &mut errors);
        errors.result()
    }
}

impl Diskstats {
    fn parse(&mut self, line: &[u8]) -> Result<(), CollectError> {
        let name = fields(line).nth(2).unwrap_or_default();
        if excludes(self.options.device_exclude.as_ref(), name) {
            return Ok(());
        }
        let expected = "major, minor, name and at least 11 counters";
        let mut tokens = fields(line);
        let mut number = || tokens.next().and_then(unsigned);
        let (Some(major), Some(minor)) = (number(), number()) else {
            return Err(malformed(FILE, line, expected));
        };
        tokens.next();
        let mut columns = [0; COLUMNS.len()];
        let mut given = 0;
        for (column, token) in columns.iter_mut().zip(&mut tokens) {
            *column = match unsigned(token) {
                Some(value) => value,
                None if given < COLUMNS_MIN => return Err(malformed(FILE, line, expected)),
                None => return Err(malformed(FILE, token, "a number")),
            };
            given += 1;
        }
        if given < COLUMNS_MIN {
            return Err(malformed(FILE, line, expected));
        }
        let name = self.texts.keep(&text(name));
        self.disks.push(Disk { name, major, minor, columns, given, udev: Default::default() });
        Ok(())
    }

    fn write(&self, out: &mut Samples, errors: &mut FirstError) {
        let mut family = out.family(&INFO);
        for disk in &self.disks {
            let udev = |property| self.udev(disk, property);
            family.add(
                &[
                    ("device", self.name(disk)),
                    ("major", &decimal(disk.major)),
                    ("minor", &decimal(disk.minor)),
                    ("path", udev(Property::Path)),
                    ("wwn", udev(Property::Wwn)),
                    ("model", udev(Property::Model)),
                    ("serial", udev(Property::SerialShort)),
                    ("revision", udev(Property::Revision)),
                ],
                1.0,
            );
        }
        for (index, (desc, unit)) in COLUMNS.iter().enumerate() {
            let mut family = out.family(desc);
            for disk in &self.disks {
                if let Some(value) = disk.columns.get(index).filter(|_| index < disk.given) {
                    family.add(&[("device", self.name(disk))], *value as f64 * unit);
                }
            }
        }
        self.write_udev(out, errors);
    }

    /// The families that only disks with an entry of udev's have.
    fn write_udev(&self, out: &mut Samples, errors: &mut FirstError) {
        let mut family = out.family(&FILESYSTEM_INFO);
        for disk in &self.disks {
            let udev = |property| self.udev(disk, property);
            if !udev(Property::FsType).is_empty() {
                let labels = [
                    ("device", self.name(disk)),
                    ("type", udev(Property::FsType)),
                    ("usage", udev(Property::FsUsage)),
                    ("uuid", udev(Property::FsUuid)),
                    ("version", udev(Property::FsVersion)),
                ];
                family.add(&labels, 1.0);
            }
        }
        let mut family = out.family(&DEVICE_MAPPER_INFO);
        for disk in &self.disks {
            let udev = |property| self.udev(disk, property);
            if !udev(Property::DmName).is_empty() {
                let labels = [
                    ("device", self.name(disk)),
                    ("name", udev(Property::DmName)),
                    ("uuid", udev(Property::DmUuid)),
                    ("vg_name", udev(Property::DmVgName)),
                    ("lv_name", udev(Property::DmLvName)),
                    ("lv_layer", udev(Property::DmLvLayer)),
                ];
                family.add(&labels, 1.0);
            }
        }
        for (property, desc) in &ATA {
            let mut family = out.family(desc);
            for disk in &self.disks {
                let value = self.udev(disk, *property);
                if self.udev(disk, Property::Ata).is_empty() || value.is_empty() {
                    continue;
                }
                match value.parse() {
                    Ok(value) => {
                        family.add(&[("device", self.name(disk))], value);
                    }
                    Err(_) => errors.note(malformed(
                        &format!("run/udev/data/b{}:{}", disk.major, disk.minor),
                        text(value.as_bytes()).as_bytes(),
                        "a number",
                    )),
                }
            }
        }
    }

    fn name(&self, disk: &Disk) -> &str {
        self.texts.get(disk.name)
    }

    fn udev(&self, disk: &Disk, property: Property) -> &str {
        self.texts.get(disk.udev.get(property as usize).copied().unwrap_or_default())
    }
}
