//! node_exporter's `btrfs`, from /sys/fs/btrfs (fs/btrfs/sysfs.c) and, for names, sizes and errors of
//! devices, from ioctls on one mount point of each file system. The counters of commits
//! (`commit_stats`, since Linux 5.19) are those of versions after 1.5.0.
//!
//! Where no mount point can be opened, as in a container, devices are what sysfs has: a size for each
//! name, and, which node_exporter lacks, errors for each number (`devinfo/*/error_stats`, since Linux 5.14):
//! there `node_btrfs_device_errors_total` has the label `devid` in place of `device`.

use std::fmt::Write as _;

use super::parse::{
    FirstError, Span, Texts, fields, lines, malformed, named, number, text, unsigned, whole,
};
use super::rows::{Rows, Shape};
use super::{CollectError, Collector};
use crate::host::btrfs::{ERRORS, Mounted, Uuid};
use crate::host::{Host, Names, Root};
use crate::model::{Desc, Samples};

const INFO: usize = 0;
const RESERVE: usize = 1;
const RESERVED: usize = 2;
const USED: usize = 3;
const SIZE: usize = 4;
const RATIO: usize = 5;
const DEVICE_SIZE: usize = 6;
const DEVICE_SIZE_SYSFS: usize = 7;
const DEVICE_UNUSED: usize = 8;
const DEVICE_ERRORS: usize = 9;
const DEVICE_ERRORS_SYSFS: usize = 10;
const COMMITS: usize = 11;

#[rustfmt::skip]
const SHAPES: [Shape; 15] = [
    (Desc::gauge("node_btrfs_info", "Filesystem information"), &["uuid", "label"]),
    (Desc::gauge("node_btrfs_global_rsv_size_bytes", "Size of global reserve."), &["uuid"]),
    (Desc::gauge("node_btrfs_reserved_bytes", "Amount of space reserved for a data type"), &["uuid", "block_group_type"]),
    (Desc::gauge("node_btrfs_used_bytes", "Amount of used space by a layout/data type"), &["uuid", "block_group_type", "mode"]),
    (Desc::gauge("node_btrfs_size_bytes", "Amount of space allocated for a layout/data type"), &["uuid", "block_group_type", "mode"]),
    (Desc::gauge("node_btrfs_allocation_ratio", "Data allocation ratio for a layout/data type"), &["uuid", "block_group_type", "mode"]),
    (Desc::gauge("node_btrfs_device_size_bytes", "Size of a device that is part of the filesystem."), &["uuid", "device", "btrfs_dev_uuid"]),
    (Desc::gauge("node_btrfs_device_size_bytes", "Size of a device that is part of the filesystem."), &["uuid", "device"]),
    (Desc::gauge("node_btrfs_device_unused_bytes", "Unused bytes unused on a device that is part of the filesystem."), &["uuid", "device", "btrfs_dev_uuid"]),
    (Desc::counter("node_btrfs_device_errors_total", "Errors reported for the device"), &["uuid", "type", "device", "btrfs_dev_uuid"]),
    (Desc::counter("node_btrfs_device_errors_total", "Errors reported for the device"), &["uuid", "type", "devid"]),
    (Desc::counter("node_btrfs_commits_total", "The total number of commits that have occurred."), &["uuid"]),
    (Desc::gauge("node_btrfs_last_commit_seconds", "Duration of the most recent commit, in seconds."), &["uuid"]),
    (Desc::gauge("node_btrfs_max_commit_seconds", "Duration of the slowest commit, in seconds."), &["uuid"]),
    (Desc::counter("node_btrfs_commit_seconds_total", "Sum of the duration of all commits, in seconds."), &["uuid"]),
];

/// Lines of `commit_stats`, in the order of the families from [`COMMITS`] on.
const COMMIT_KEYS: [&str; 4] = ["commits", "last_commit_ms", "max_commit_ms", "total_commit_ms"];

/// What sysfs calls the layouts (fs/btrfs/volumes.c, `btrfs_raid_array`).
const LAYOUTS: [&str; 9] =
    ["raid10", "raid1", "raid1c3", "raid1c4", "dup", "raid0", "single", "raid5", "raid6"];

/// Space, devices and commits of the mounted btrfs file systems.
#[derive(Default)]
pub(super) struct Btrfs {
    entries: Names,
    inside: Names,
    rows: Rows,
    /// Mount points of btrfs.
    points: Vec<Span>,
    texts: Texts,
    decoded: String,
    /// A UUID as text.
    uuid: String,
    /// The file systems whose devices ioctls have told.
    told: Vec<Uuid>,
}

impl Collector for Btrfs {
    fn collect(&mut self, host: &mut Host, out: &mut Samples) -> Result<(), CollectError> {
        let mut errors = FirstError::default();
        host.list(Root::Sys, "fs/btrfs", &mut self.entries)?;
        self.rows.clear();
        self.told.clear();
        let entries = std::mem::take(&mut self.entries);
        // `features` and `debug` stand beside the file systems.
        if entries.iter().any(|entry| entry.contains('-')) {
            self.ask(host, &entries, &mut errors);
        }
        for entry in entries.iter().filter(|entry| entry.contains('-')) {
            self.read(entry, host, &mut errors);
        }
        self.entries = entries;
        self.rows.write(&SHAPES, out);
        errors.result()
    }
}

impl Btrfs {
    /// Asks each file system of which a mount point opens about its devices.
    fn ask(&mut self, host: &mut Host, entries: &Names, errors: &mut FirstError) {
        self.points.clear();
        self.texts.clear();
        // Where process 1 can't be seen (hidepid), our own mounts.
        if host.find(Root::Proc, "1/mounts").is_none()
            && host.find(Root::Proc, "self/mounts").is_none()
        {
            return;
        }
        for line in lines(host.last()) {
            let mut words = fields(line).skip(1);
            let (point, kind) = (words.next().unwrap_or_default(), words.next());
            if kind == Some(b"btrfs") {
                decode(point, &mut self.decoded);
                self.points.push(self.texts.keep(&self.decoded));
            }
        }
        let file_systems = entries.iter().filter(|entry| entry.contains('-')).count();
        for point in &self.points {
            if self.told.len() == file_systems {
                return;
            }
            let point = self.texts.get(*point).trim_start_matches('/');
            let Ok(mounted) = Mounted::open(host.path(Root::Root, point)) else { continue };
            if self.told.contains(&mounted.uuid) {
                continue;
            }
            write_uuid(&mounted.uuid, &mut self.uuid);
            if !entries.iter().any(|entry| entry == self.uuid) {
                continue;
            }
            self.told.push(mounted.uuid);
            // The series have the UUID that readers of the disk see.
            let path = format_args!("fs/btrfs/{}/metadata_uuid", self.uuid);
            let shown = host.find(Root::Sys, path).map(<[u8]>::trim_ascii).unwrap_or_default();
            let shown = if shown.is_empty() { self.uuid.as_bytes() } else { shown };
            let uuid = self.rows.keep(&text(shown));
            let (rows, words) = (&mut self.rows, &mut self.uuid);
            let result = mounted.devices(|device| {
                let name = rows.keep(&text(&device.name()));
                write_uuid(&device.uuid, words);
                let id = rows.keep(words);
                rows.add(DEVICE_SIZE, &[uuid, name, id], device.size as f64);
                let unused = device.size.saturating_sub(device.used);
                rows.add(DEVICE_UNUSED, &[uuid, name, id], unused as f64);
                for (kind, count) in ERRORS.iter().zip(device.errors) {
                    let kind = rows.keep(kind);
                    rows.add(DEVICE_ERRORS, &[uuid, kind, name, id], count as f64);
                }
            });
            if let Err(source) = result {
                let attempt = format!("asking for the devices of btrfs on /{point}");
                errors.note(CollectError::System { attempt, source });
            }
        }
    }

    /// What sysfs has of one file system.
    fn read(&mut self, entry: &str, host: &mut Host, errors: &mut FirstError) {
        let shown = |host: &mut Host, rows: &mut Rows, file| {
            let bytes = host.find(Root::Sys, format_args!("fs/btrfs/{entry}/{file}"));
            let bytes = bytes.map(<[u8]>::trim_ascii).unwrap_or_default();
            (!bytes.is_empty()).then(|| rows.keep(&text(bytes)))
        };
        // Since Linux 5.0.
        let uuid = shown(host, &mut self.rows, "metadata_uuid");
        let uuid = uuid.unwrap_or_else(|| self.rows.keep(entry));
        let label = shown(host, &mut self.rows, "label").unwrap_or_default();
        self.rows.add(INFO, &[uuid, label], 1.0);
        let path = format_args!("fs/btrfs/{entry}/allocation/global_rsv_size");
        if let Some(bytes) = number(host, Root::Sys, path, errors) {
            self.rows.add(RESERVE, &[uuid], bytes as f64);
        }
        let devices = self.read_devices(entry, uuid, host, errors);
        for kind in ["data", "metadata", "system"] {
            self.read_allocation(entry, kind, uuid, devices, host, errors);
        }
        let path = format_args!("fs/btrfs/{entry}/commit_stats");
        if let Some(bytes) = host.find(Root::Sys, path) {
            let rows = &mut self.rows;
            numbers(
                bytes,
                &COMMIT_KEYS,
                || named(Root::Sys, path),
                errors,
                |place, value| {
                    // The first is a count, the others are milliseconds.
                    let value = if place == 0 { value as f64 } else { value as f64 / 1000.0 };
                    rows.add(COMMITS + place, &[uuid], value);
                },
            );
        }
    }

    /// How many devices there are; their sizes and errors unless ioctls told those.
    fn read_devices(
        &mut self,
        entry: &str,
        uuid: Span,
        host: &mut Host,
        errors: &mut FirstError,
    ) -> usize {
        let told = self.told.iter().any(|told| {
            write_uuid(told, &mut self.uuid);
            self.uuid == entry
        });
        let path = format_args!("fs/btrfs/{entry}/devices");
        if host.list(Root::Sys, path, &mut self.inside).is_err() {
            return 0;
        }
        let devices = self.inside.len();
        if told {
            return devices;
        }
        for device in self.inside.iter() {
            let path = format_args!("fs/btrfs/{entry}/devices/{device}/size");
            if let Some(sectors) = number(host, Root::Sys, path, errors) {
                let device = self.rows.keep(device);
                // Sectors are of 512 bytes here, whatever the disk's are.
                self.rows.add(DEVICE_SIZE_SYSFS, &[uuid, device], sectors as f64 * 512.0);
            }
        }
        let path = format_args!("fs/btrfs/{entry}/devinfo");
        if host.list(Root::Sys, path, &mut self.inside).is_err() {
            return devices;
        }
        for id in self.inside.iter() {
            let path = format_args!("fs/btrfs/{entry}/devinfo/{id}/error_stats");
            let Some(bytes) = host.find(Root::Sys, path) else { continue };
            // While the device's statistics are not read yet.
            if bytes.starts_with(b"invalid") {
                continue;
            }
            let rows = &mut self.rows;
            let id = rows.keep(id);
            let keys =
                ["write_errs", "read_errs", "flush_errs", "corruption_errs", "generation_errs"];
            numbers(
                bytes,
                &keys,
                || named(Root::Sys, path),
                errors,
                |place, value| {
                    let kind = rows.keep(ERRORS.get(place).copied().unwrap_or_default());
                    rows.add(DEVICE_ERRORS_SYSFS, &[uuid, kind, id], value as f64);
                },
            );
        }
        devices
    }

    fn read_allocation(
        &mut self,
        entry: &str,
        kind: &str,
        uuid: Span,
        devices: usize,
        host: &mut Host,
        errors: &mut FirstError,
    ) {
        let group = self.rows.keep(kind);
        let folder = format_args!("fs/btrfs/{entry}/allocation/{kind}");
        let path = format_args!("{folder}/bytes_reserved");
        if let Some(bytes) = number(host, Root::Sys, path, errors) {
            self.rows.add(RESERVED, &[uuid, group], bytes as f64);
        }
        if host.list(Root::Sys, folder, &mut self.inside).is_err() {
            return;
        }
        for layout in self.inside.iter().filter(|name| LAYOUTS.contains(name)) {
            let mode = self.rows.keep(layout);
            for (family, file) in [(USED, "used_bytes"), (SIZE, "total_bytes")] {
                let path = format_args!("{folder}/{layout}/{file}");
                if let Some(bytes) = number(host, Root::Sys, path, errors) {
                    self.rows.add(family, &[uuid, group, mode], bytes as f64);
                }
            }
            self.rows.add(RATIO, &[uuid, group, mode], ratio(layout, devices as f64));
        }
    }
}

/// Bytes on disk for a byte of data; 0 for the layouts that node_exporter does not know.
fn ratio(layout: &str, devices: f64) -> f64 {
    match layout {
        "single" | "raid0" => 1.0,
        "dup" | "raid1" | "raid10" => 2.0,
        "raid5" => devices / (devices - 1.0),
        "raid6" => devices / (devices - 2.0),
        _ => 0.0,
    }
}

/// Gives the numbers of the lines that begin with one of the keys, with the key's place.
fn numbers(
    bytes: &[u8],
    keys: &[&str],
    file: impl Fn() -> String,
    errors: &mut FirstError,
    mut take: impl FnMut(usize, u64),
) {
    let bytes = if bytes.ends_with(b"\n") { bytes } else { whole(&file(), bytes, errors) };
    for line in lines(bytes) {
        let mut words = fields(line);
        let key = words.next().unwrap_or_default();
        let Some(place) = keys.iter().position(|known| known.as_bytes() == key) else { continue };
        let token = words.next().unwrap_or_default();
        match unsigned(token) {
            Some(value) => take(place, value),
            None => errors.note(malformed(&file(), line, "a word and a number")),
        }
    }
}

/// A mount point with its octal escapes decoded; empty if it is not UTF-8.
fn decode(point: &[u8], decoded: &mut String) {
    let mut bytes = std::mem::take(decoded).into_bytes();
    bytes.clear();
    let mut rest = point;
    while let Some((&byte, behind)) = rest.split_first() {
        let digits = behind.first_chunk::<3>().filter(|digits| {
            byte == b'\\' && digits.iter().all(|digit| (b'0'..=b'7').contains(digit))
        });
        match digits {
            Some(&[a, b, c]) => {
                let code = u32::from(a & 7) << 6 | u32::from(b & 7) << 3 | u32::from(c & 7);
                bytes.push(code as u8);
                rest = behind.get(3..).unwrap_or_default();
            }
            None => {
                bytes.push(byte);
                rest = behind;
            }
        }
    }
    *decoded = String::from_utf8(bytes).unwrap_or_default();
}

fn write_uuid(uuid: &Uuid, text: &mut String) {
    text.clear();
    for (index, byte) in uuid.iter().enumerate() {
        if [4, 6, 8, 10].contains(&index) {
            text.push('-');
        }
        // Writing to a String can't fail.
        let _ = write!(text, "{byte:02x}");
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn mount_points_are_decoded() {
        let mut decoded = "old".into();
        for (point, expected) in [
            (&b"/mnt/a\\040b"[..], "/mnt/a b"),
            (b"/a\\134\\012", "/a\\\n"),
            (b"/a\\04", "/a\\04"),
            (b"/a\\", "/a\\"),
            (b"/\\777", ""),
            (b"/\xff", ""),
        ] {
            decode(point, &mut decoded);
            assert_eq!(decoded, expected);
        }
    }

    #[test]
    fn a_uuid_reads_as_the_kernel_prints_it() {
        let mut text = String::new();
        write_uuid(&std::array::from_fn(|index| index as u8 * 16 + 1), &mut text);
        assert_eq!(text, "01112131-4151-6171-8191-a1b1c1d1e1f1");
    }

    #[test]
    fn a_malformed_line_costs_itself_and_is_named() {
        let (mut got, mut errors) = (Vec::new(), FirstError::default());
        let bytes = b"commits 5\nlast_commit_ms x\nmax_commit_ms\nnew 1\ntotal_commit_ms 7\n";
        numbers(
            bytes,
            &COMMIT_KEYS,
            || "stats".into(),
            &mut errors,
            |place, value| {
                got.push((place, value));
            },
        );
        assert_eq!(got, [(0, 5), (3, 7)]);
        let error = errors.result().unwrap_err().to_string();
        assert!(error.contains("stats") && error.contains("last_commit_ms x"), "{error}");
    }
}
