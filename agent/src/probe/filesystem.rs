//! The probe `filesystem`: what file systems have lost or found broken, whether or not the program that
//! wrote it was ever told. The programs are agent-ebpf/src/filesystem.rs.

use agent_common::event::Kind;
use agent_common::filesystem::{EXT4, FilesystemErrorKey};
use aya::maps::MapError;

use super::device::{MINOR_BITS, Namer};
use super::errors::{Attached, Devices, Family, LOST_MAP};
use super::fallback::Fallback;
use super::mountinfo::{self, Mounted};
use super::record::Record;
use super::spec::{Shape, Sized, Spec, Tracepoint, needed};
use super::{Moment, Probe, Round, errno};
use crate::host::Host;
use crate::model::{Desc, Event};

/// What the loader has to find for it.
pub(super) static SPEC: Spec = Spec {
    name: "filesystem",
    about: "errors that file systems meet, and written data that they lose",
    tracepoints: &[
        Tracepoint {
            family: "ext4",
            event: "ext4_error",
            optional: true,
            fields: &[
                needed("dev", "EXT4_ERROR_DEV", Shape::Number(4)),
                needed("line", "EXT4_ERROR_LINE", Shape::Number(4)),
            ],
        },
        Tracepoint {
            family: "filemap",
            event: "filemap_set_wb_err",
            optional: true,
            fields: &[
                // 8 bytes since 7.2 on 32-bit kernels too.
                needed("i_ino", "WB_ERR_INODE", Shape::Word),
                needed("s_dev", "WB_ERR_DEV", Shape::Number(4)),
                needed("errseq", "WB_ERR_ERRSEQ", Shape::Number(4)),
            ],
        },
    ],
    maps: &["FILESYSTEM_ERRORS", LOST_MAP],
    sized: &[Sized { map: "FILESYSTEM_ERRORS", base: 32, each_device: 4, most: 1024, mask: None }],
    events: &[Kind::Filesystem],
    start: |report| {
        let errors = Attached::new(SPEC.name, FAMILY, report)?;
        Ok(Box::new(Filesystem { errors, names: Names::default() }))
    },
    fallback: Fallback::Kmsg,
};

pub(super) const ERRORS: Desc = Desc::counter(
    "mote_filesystem_errors_total",
    "Errors that a file system has met: \"ext4\" for a broken structure on the disk, else the number \
     of the error for which written data was lost.",
);
const FAMILY: Family<2> =
    Family { desc: &ERRORS, labels: ["device", "error"], kind: Kind::Filesystem };

/// The attached probe. Dropped, it detaches.
struct Filesystem {
    errors: Attached<FilesystemErrorKey, 2>,
    names: Names,
}

impl Probe for Filesystem {
    fn collect(&mut self, round: &mut Round<'_>) -> Result<(), MapError> {
        let Round { host, out, .. } = round;
        self.errors.collect(out, OnHost { names: &mut self.names, host })
    }

    fn event(&mut self, moment: &mut Moment<'_>, event: Record<'_>) -> Option<Event> {
        self.names.describe(moment.host, moment.at_ns, event)
    }
}

/// What the keys mean on this host.
struct OnHost<'a> {
    names: &'a mut Names,
    host: &'a mut Host,
}

impl Devices<FilesystemErrorKey, 2> for OnHost<'_> {
    fn name(&mut self, key: &FilesystemErrorKey) -> [String; 2] {
        [self.names.label(self.host, key.device), error_name(key.error)]
    }

    fn is_gone(&mut self, key: &FilesystemErrorKey) -> bool {
        self.names.is_gone(self.host, key.device)
    }
}

fn error_name(error: u32) -> String {
    if error == EXT4 { "ext4".to_owned() } else { errno::name(error) }
}

/// Where the host has mounted it. The agent's own mounts are asked only where those of the host's init
/// can't be read.
fn mounted(host: &mut Host, device: u32) -> Mounted {
    for path in ["1/mountinfo", "self/mountinfo"] {
        if let Ok(bytes) = host.proc(path) {
            return mountinfo::find(bytes, device);
        }
    }
    Mounted::default()
}

/// What file systems are called.
#[derive(Default)]
struct Names {
    namer: Namer,
    /// The number of the kernel's own file system with the pages of the block devices themselves
    /// (block/bdev.c), once an event has shown it: it stands nowhere.
    bdev: Option<u32>,
}

impl Names {
    /// The label `device`.
    fn label(&mut self, host: &mut Host, device: u32) -> String {
        if self.bdev == Some(device) {
            return "bdev".to_owned();
        }
        let mounted = mounted(host, device);
        self.name(host, device, &mounted)
    }

    /// The name of the block device. File systems of several devices or of none (btrfs, NFS) have a
    /// number of their own; they are called by what they were mounted from, and so are those whose device
    /// is gone.
    fn name(&mut self, host: &Host, device: u32, mounted: &Mounted) -> String {
        let mut name = String::new();
        if !self.namer.write(host, device, &mut name) && !mounted.source.is_empty() {
            let source = mounted.source.as_str();
            name = source.strip_prefix("/dev/").unwrap_or(source).to_owned();
        }
        name
    }

    /// Whether neither the block device nor, of a number of its own, a mounted file system is there.
    fn is_gone(&mut self, host: &mut Host, device: u32) -> bool {
        let is_there = self.bdev == Some(device)
            || self.namer.write(host, device, &mut String::new())
            || !mounted(host, device).source.is_empty();
        !is_there
    }

    /// The block device whose own pages these are: the data of whoever writes to it directly, and the
    /// metadata of its file system. In the file system `bdev` the inode has the device's number.
    fn block_device(&mut self, host: &Host, device: u32, inode: u64) -> Option<(u32, String)> {
        let number = u32::try_from(inode).ok().filter(|number| number >> MINOR_BITS != 0)?;
        let mut name = String::new();
        let found = device >> MINOR_BITS == 0 && self.namer.write(host, number, &mut name);
        found.then(|| {
            self.bdev = Some(device);
            (number, name)
        })
    }

    fn describe(&mut self, host: &mut Host, at_ns: i64, mut event: Record<'_>) -> Option<Event> {
        let (device, error) = (event.u32()?, event.u32()?);
        let inode = event.u64()?;
        let (line, _padding) = (event.u32()?, event.u32()?);
        let error_name = error_name(error);
        let mut mounted_at = mounted(host, device);
        let raw = (error != EXT4 && mounted_at.source.is_empty())
            .then(|| self.block_device(host, device, inode))
            .flatten();
        let name = match &raw {
            Some((number, name)) => {
                mounted_at = mounted(host, *number);
                name.clone()
            }
            None => self.name(host, device, &mounted_at),
        };
        let places = mounted_at.places.join(",");
        let at = if places.is_empty() { String::new() } else { format!(" ({places})") };
        let (message, detail) = if error == EXT4 {
            let message = format!("ext4 found an error in the file system on {name}{at}");
            (message, Some(("line", line.to_string())))
        } else if raw.is_some() {
            let what = format!("data written to the device {name} itself{at}");
            (format!("{what} has been lost: {error_name}"), None)
        } else {
            let what = format!("data written to inode {inode} of the file system on {name}{at}");
            let message = format!("{what} has been lost: {error_name}");
            (message, Some(("inode", inode.to_string())))
        };
        let event = Event::new("filesystem_error", at_ns, message)
            .with("device", name)
            .with("mountpoint", places)
            .with("error", error_name);
        Some(match detail {
            Some((name, value)) => event.with(name, value),
            None => event,
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::host::Roots;

    fn bytes(device: u32, error: u32, inode: u64, line: u32) -> Vec<u8> {
        let mut bytes: Vec<u8> = [device, error].into_iter().flat_map(u32::to_ne_bytes).collect();
        bytes.extend(inode.to_ne_bytes());
        bytes.extend([line, 0].into_iter().flat_map(u32::to_ne_bytes));
        bytes
    }

    /// A host with sdb1 (8:17) at /srv, a btrfs (0:45) of sdc at /pool, and sdd (8:48).
    fn host(folder: &std::path::Path) -> Host {
        let (proc, sys) = (folder.join("proc"), folder.join("sys"));
        std::fs::create_dir_all(proc.join("self")).unwrap();
        std::fs::create_dir_all(sys.join("dev/block")).unwrap();
        let mounts = "31 22 8:17 / /srv rw - ext4 /dev/sdb1 rw\n\
                      32 22 0:45 / /pool rw - btrfs /dev/sdc rw\n";
        std::fs::write(proc.join("self/mountinfo"), mounts).unwrap();
        for (numbers, name) in [("8:17", "sdb1"), ("8:48", "sdd")] {
            let target = format!("../../devices/x/block/{name}");
            std::os::unix::fs::symlink(target, sys.join("dev/block").join(numbers)).unwrap();
        }
        Host::new(Roots { proc, sys, ..Roots::default() })
    }

    fn told(bytes: &[u8]) -> Option<Event> {
        let folder = tempfile::tempdir().unwrap();
        Names::default().describe(&mut host(folder.path()), 7, Record::new(bytes))
    }

    #[test]
    fn an_event_names_the_device_and_where_it_is_mounted() {
        let event = told(&bytes((8 << MINOR_BITS) | 17, EXT4, 0, 99)).unwrap();
        assert_eq!(
            event.line(),
            "msg=\"ext4 found an error in the file system on sdb1 (/srv)\" device=sdb1 \
             mountpoint=/srv error=ext4 line=99"
        );
        let event = told(&bytes(45, 5, 257, 0)).unwrap();
        assert_eq!(
            event.line(),
            "msg=\"data written to inode 257 of the file system on sdc (/pool) has been lost: \
             EIO\" device=sdc mountpoint=/pool error=EIO inode=257"
        );
    }

    #[test]
    fn data_of_the_device_itself_is_told_from_that_of_a_file() {
        // The block devices' own file system, 0:6 here, is mounted nowhere.
        let event = told(&bytes(6, 5, (8 << MINOR_BITS) | 48, 0)).unwrap();
        assert_eq!(event.message, "data written to the device sdd itself has been lost: EIO");
        let event = told(&bytes(6, 5, 12, 0)).unwrap();
        assert!(event.message.contains("inode 12 of the file system on 0:6"), "{event:?}");
    }

    #[test]
    fn an_event_that_is_cut_is_none() {
        let whole = bytes(45, 5, 257, 0);
        for len in 0..whole.len() {
            assert_eq!(told(&whole[..len]), None, "{len}");
        }
    }
}
