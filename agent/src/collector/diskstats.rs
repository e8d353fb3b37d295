//! node_exporter's `diskstats`, from /proc/diskstats (block/genhd.c) and udev's database in
//! /run/udev/data. Where udev is missing, the labels that come from it are empty.

use std::str;

use procfs::DiskStat;

use super::options::{DiskstatsOptions, excludes};
use super::parse::{FirstError, Span, Texts, decimal, fields, lines, malformed, text, whole};
use super::udev::{PROPERTIES, Property, parse as parse_udev};
use super::{CollectError, Collector};
use crate::host::{Host, Root};
use crate::model::{Desc, Samples};

const FILE: &str = "proc/diskstats";

/// Major, minor and name come before the counters.
const COLUMNS_BEFORE: usize = 3;
/// The counters that every kernel gives.
const COLUMNS_MIN: usize = 11;

/// Sectors are of 512 bytes here, whatever the disk's are.
const SECTOR: f64 = 512.0;
/// Multiplied, not divided by 1000, because node_exporter does so and the last bit differs.
const MILLISECOND: f64 = 1.0 / 1000.0;

type Column = (Desc, fn(&DiskStat) -> Option<u64>, f64);

/// In the order of the file's columns; those from the 12th on came with Linux 4.18 and 5.5.
#[rustfmt::skip]
const COLUMNS: [Column; 17] = [
    (Desc::counter("node_disk_reads_completed_total", "The total number of reads completed successfully."), |d| Some(d.reads), 1.0),
    (Desc::counter("node_disk_reads_merged_total", "The total number of reads merged."), |d| Some(d.merged), 1.0),
    (Desc::counter("node_disk_read_bytes_total", "The total number of bytes read successfully."), |d| Some(d.sectors_read), SECTOR),
    (Desc::counter("node_disk_read_time_seconds_total", "The total number of seconds spent by all reads."), |d| Some(d.time_reading), MILLISECOND),
    (Desc::counter("node_disk_writes_completed_total", "The total number of writes completed successfully."), |d| Some(d.writes), 1.0),
    (Desc::counter("node_disk_writes_merged_total", "The number of writes merged."), |d| Some(d.writes_merged), 1.0),
    (Desc::counter("node_disk_written_bytes_total", "The total number of bytes written successfully."), |d| Some(d.sectors_written), SECTOR),
    (Desc::counter("node_disk_write_time_seconds_total", "This is the total number of seconds spent by all writes."), |d| Some(d.time_writing), MILLISECOND),
    (Desc::gauge("node_disk_io_now", "The number of I/Os currently in progress."), |d| Some(d.in_progress), 1.0),
    (Desc::counter("node_disk_io_time_seconds_total", "Total seconds spent doing I/Os."), |d| Some(d.time_in_progress), MILLISECOND),
    (Desc::counter("node_disk_io_time_weighted_seconds_total", "The weighted # of seconds spent doing I/Os."), |d| Some(d.weighted_time_in_progress), MILLISECOND),
    (Desc::counter("node_disk_discards_completed_total", "The total number of discards completed successfully."), |d| d.discards, 1.0),
    (Desc::counter("node_disk_discards_merged_total", "The total number of discards merged."), |d| d.discards_merged, 1.0),
    (Desc::counter("node_disk_discarded_sectors_total", "The total number of sectors discarded successfully."), |d| d.sectors_discarded, 1.0),
    (Desc::counter("node_disk_discard_time_seconds_total", "This is the total number of seconds spent by all discards."), |d| d.time_discarding, MILLISECOND),
    (Desc::counter("node_disk_flush_requests_total", "The total number of flush requests completed successfully"), |d| d.flushes, 1.0),
    (Desc::counter("node_disk_flush_requests_time_seconds_total", "This is the total number of seconds spent by all flush requests."), |d| d.time_flushing, MILLISECOND),
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
    stat: DiskStat,
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
            let path = format_args!("run/udev/data/b{}:{}", disk.stat.major, disk.stat.minor);
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
        let line_text = str::from_utf8(line).map_err(|_| malformed(FILE, line, expected))?;
        let stat = DiskStat::from_line(line_text).map_err(|_| malformed(FILE, line, expected))?;
        // procfs takes a malformed later column for one that the kernel does not have.
        let columns = fields(line).count().saturating_sub(COLUMNS_BEFORE).min(COLUMNS.len());
        for (index, (_, value, _)) in COLUMNS.iter().enumerate().take(columns).skip(COLUMNS_MIN) {
            if value(&stat).is_none() {
                let token = fields(line).nth(COLUMNS_BEFORE + index).unwrap_or_default();
                return Err(malformed(FILE, token, "a number"));
            }
        }
        self.disks.push(Disk { stat, udev: Default::default() });
        Ok(())
    }

    fn write(&self, out: &mut Samples, errors: &mut FirstError) {
        let mut family = out.family(&INFO);
        for disk in &self.disks {
            let udev = |property| self.udev(disk, property);
            family.add(
                &[
                    ("device", &disk.stat.name),
                    ("major", &decimal(u64::try_from(disk.stat.major).unwrap_or_default())),
                    ("minor", &decimal(u64::try_from(disk.stat.minor).unwrap_or_default())),
                    ("path", udev(Property::Path)),
                    ("wwn", udev(Property::Wwn)),
                    ("model", udev(Property::Model)),
                    ("serial", udev(Property::SerialShort)),
                    ("revision", udev(Property::Revision)),
                ],
                1.0,
            );
        }
        for (desc, value, unit) in &COLUMNS {
            let mut family = out.family(desc);
            for disk in &self.disks {
                if let Some(value) = value(&disk.stat) {
                    family.add(&[("device", &disk.stat.name)], value as f64 * unit);
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
                    ("device", disk.stat.name.as_str()),
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
                    ("device", disk.stat.name.as_str()),
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
                        family.add(&[("device", &disk.stat.name)], value);
                    }
                    Err(_) => errors.note(malformed(
                        &format!("run/udev/data/b{}:{}", disk.stat.major, disk.stat.minor),
                        text(value.as_bytes()).as_bytes(),
                        "a number",
                    )),
                }
            }
        }
    }

    fn udev(&self, disk: &Disk, property: Property) -> &str {
        self.texts.get(disk.udev.get(property as usize).copied().unwrap_or_default())
    }
}
