//! Which lines of /proc/diskstats the probe `block` would have counted too: those of devices that take
//! requests. What each of them is, is asked of sysfs once, and remembered while the line is there.
//!
//! The tracepoints tell of requests, which drivers of disks take from a queue. A partition has none: its
//! requests are its disk's. Neither have devices that pass on what they are given to others (device
//! mapper, md, bcache, the head of NVMe's multipath) or do it themselves (zram, ram); what the former
//! pass on is counted where it arrives, and would be counted twice. A loop device takes requests, and
//! those of a file system in a file are seen by the tracepoints at both places: so they are here.

use std::path::Path;

use super::block::COLUMNS;
use crate::host::Host;

/// A line of a device that has had a request.
#[derive(Debug)]
pub(super) struct Device {
    number: (u64, u64),
    name: String,
    columns: [u64; COLUMNS],
    /// Whether it takes requests; none if nobody has asked yet.
    counted: Option<bool>,
    /// Whether it was there in this round.
    present: bool,
}

impl Device {
    pub(super) fn number(&self) -> (u64, u64) {
        self.number
    }

    pub(super) fn name(&self) -> &str {
        &self.name
    }

    /// A column behind the name; 0 where the kernel has it not.
    pub(super) fn column(&self, at: usize) -> u64 {
        self.columns.get(at).copied().unwrap_or_default()
    }
}

/// The devices, in the order of the file. A round is [`begin`](Devices::begin), each line, and
/// [`end`](Devices::end).
#[derive(Debug, Default)]
pub(super) struct Devices(Vec<Device>);

impl Devices {
    pub(super) fn begin(&mut self) {
        self.0.iter_mut().for_each(|device| device.present = false);
    }

    /// Takes a line.
    pub(super) fn put(&mut self, number: (u64, u64), name: &str, columns: [u64; COLUMNS]) {
        let same = |device: &&mut Device| device.number == number && device.name == name;
        match self.0.iter_mut().find(same) {
            Some(device) => (device.columns, device.present) = (columns, true),
            None => {
                let name = name.to_owned();
                self.0.push(Device { number, name, columns, counted: None, present: true });
            }
        }
    }

    /// Forgets devices whose line is not there any more, and asks what the new ones are.
    pub(super) fn end(&mut self, host: &mut Host) {
        self.0.retain(|device| device.present);
        for device in self.0.iter_mut().filter(|device| device.counted.is_none()) {
            device.counted = Some(takes_requests(host, device));
        }
    }

    /// Those that take requests.
    pub(super) fn counted(&self) -> impl Iterator<Item = &Device> {
        self.0.iter().filter(|device| device.counted == Some(true))
    }
}

/// A device with a queue of requests has `mq` in sysfs (since 3.13; all of them since 5.0), and one of the
/// queues before it names its scheduler in brackets; without a queue that is `none` or not there.
fn takes_requests(host: &mut Host, device: &Device) -> bool {
    let (major, minor) = device.number;
    let folder = format!("dev/block/{major}:{minor}");
    let path = host.roots().sys.join(&folder);
    if !path.exists() {
        return looks_so(&device.name);
    }
    let is_there = |path: &Path, name: &str| path.join(name).exists();
    is_there(&path, "mq")
        || host.sys(format_args!("{folder}/queue/scheduler")).is_ok_and(|text| text.contains(&b'['))
}

/// By its name, where sysfs says nothing: neither a partition (bdev_name in block/genhd.c: the disk's name
/// and a number, with a `p` between them if the disk's name ends with a digit) nor one of the kernel's own
/// kinds without requests.
fn looks_so(name: &str) -> bool {
    let kinds = ["dm-", "md", "ram", "zram", "bcache", "drbd", "pmem"];
    let stem = name.trim_end_matches(|c: char| c.is_ascii_digit());
    let is_numbered = stem.len() < name.len();
    let is_letters = ["hd", "sd", "vd", "xvd"].iter().any(|disk| {
        let letters = stem.strip_prefix(disk);
        letters.is_some_and(|l| !l.is_empty() && l.bytes().all(|b| b.is_ascii_lowercase()))
    });
    let with_p =
        stem.strip_suffix('p').is_some_and(|disk| disk.ends_with(|c: char| c.is_ascii_digit()));
    let is_partition = is_numbered && (is_letters || with_p);
    !(is_partition || is_numbered && kinds.contains(&stem))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn without_sysfs_names_tell_partitions_and_what_passes_on_from_disks() {
        for name in [
            "sda",
            "sdaa",
            "hdb",
            "vdc",
            "xvda",
            "nvme0n1",
            "nvme12n34",
            "mmcblk0",
            "mmcblk0boot0",
            "sr0",
            "loop0",
            "nbd3",
            "fd0",
            "vd",
            "sd1",
            "",
            "7",
            "cciss/c0d0",
            "mdx",
            "p1",
        ] {
            assert!(looks_so(name), "{name:?}");
        }
        for name in [
            "sda1",
            "sdaa15",
            "hdb2",
            "vdc1",
            "xvda1",
            "nvme0n1p1",
            "mmcblk0p2",
            "loop0p1",
            "nbd3p1",
            "md0p1",
            "cciss/c0d0p1",
            "dm-0",
            "md127",
            "ram0",
            "zram1",
            "bcache0",
            "drbd1",
            "pmem0",
        ] {
            assert!(!looks_so(name), "{name:?}");
        }
    }

    #[test]
    fn this_machines_devices_are_what_their_names_say() {
        let mut host = Host::new(Default::default());
        let text = String::from_utf8(host.proc("diskstats").unwrap().to_vec()).unwrap();
        let mut seen = 0;
        for line in text.lines() {
            let mut tokens = line.split_ascii_whitespace();
            let mut number = || tokens.next().unwrap().parse().unwrap();
            let number = (number(), number());
            let name = tokens.next().unwrap().to_owned();
            let device =
                Device { number, name, columns: [0; COLUMNS], counted: None, present: true };
            // A device may have gone in between.
            if host.roots().sys.join(format!("class/block/{}", device.name)).exists() {
                assert_eq!(
                    takes_requests(&mut host, &device),
                    looks_so(&device.name),
                    "{device:?}"
                );
                seen += 1;
            }
        }
        assert!(seen > 0);
    }
}
