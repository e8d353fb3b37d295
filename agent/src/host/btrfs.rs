//! What btrfs says by ioctl of the devices of a mounted file system (include/uapi/linux/btrfs.h): name,
//! size and errors. No right is needed beyond opening the mount point, and no sysfs has the names.
//!
//! The mount point is open for one round only: an open descriptor would keep it from being unmounted.

use std::io;
use std::os::fd::OwnedFd;
use std::path::Path;

use rustix::fs::{CWD, Mode, OFlags};
use rustix::io::Errno;
use rustix::ioctl::{Opcode, Updater, opcode};

/// The kinds of errors, in the order of `enum btrfs_dev_stat_values`.
pub(crate) const ERRORS: [&str; 5] = ["write", "read", "flush", "corruption", "generation"];

/// `struct btrfs_ioctl_fs_info_args`, 1,024 bytes: the highest device number, how many devices, the UUID.
type FsInfo = [u64; 128];
/// `struct btrfs_ioctl_dev_info_args`, 4,096 bytes: number, UUID, bytes used, bytes; the path at byte 3,072.
type DevInfo = [u64; 512];
/// `struct btrfs_ioctl_get_dev_stats`, 1,032 bytes: number, how many values, flags, values.
type DevStats = [u64; 129];

const FS_INFO: Opcode = opcode::read::<FsInfo>(0x94, 31);
const DEV_INFO: Opcode = opcode::read_write::<DevInfo>(0x94, 30);
const GET_DEV_STATS: Opcode = opcode::read_write::<DevStats>(0x94, 52);

const PATH_AT: usize = 3072 / size_of::<u64>();

/// Numbers of devices that are tried; they only rise, with each device that is added or replaced.
const MAX_ID: u64 = 4096;

/// A UUID in the kernel's order of bytes.
pub(crate) type Uuid = [u8; 16];

/// A file system whose mount point is open.
pub(crate) struct Mounted {
    directory: OwnedFd,
    pub(crate) uuid: Uuid,
    max_id: u64,
    devices: u64,
}

/// A device of a file system.
pub(crate) struct Device {
    pub(crate) uuid: Uuid,
    pub(crate) used: u64,
    pub(crate) size: u64,
    /// In the order of [`ERRORS`].
    pub(crate) errors: [u64; ERRORS.len()],
    path: [u64; 128],
}

impl Mounted {
    /// Opens a mount point; one of another type of file system is an error.
    pub(crate) fn open(point: &Path) -> io::Result<Mounted> {
        let flags = OFlags::RDONLY | OFlags::CLOEXEC | OFlags::DIRECTORY | OFlags::NONBLOCK;
        let directory = rustix::fs::openat(CWD, point, flags, Mode::empty())?;
        let mut info: FsInfo = [0; 128];
        ask::<FS_INFO, _>(&directory, &mut info)?;
        let [max_id, devices, first, second, ..] = info;
        Ok(Mounted { directory, uuid: uuid(first, second), max_id, devices })
    }

    /// Gives each device to `take`.
    pub(crate) fn devices(&self, mut take: impl FnMut(&Device)) -> io::Result<()> {
        let mut left = self.devices;
        for id in 0..=self.max_id.min(MAX_ID) {
            if left == 0 {
                break;
            }
            let mut info: DevInfo = [0; 512];
            info[0] = id;
            match ask::<DEV_INFO, _>(&self.directory, &mut info) {
                Ok(()) => left -= 1,
                Err(Errno::NODEV) => continue,
                Err(error) => return Err(error.into()),
            }
            let mut stats: DevStats = [0; 129];
            [stats[0], stats[1]] = [id, ERRORS.len() as u64];
            ask::<GET_DEV_STATS, _>(&self.directory, &mut stats)?;
            let [_, _, _, write, read, flush, corruption, generation, ..] = stats;
            let [_, first, second, used, size, ..] = info;
            let mut path = [0; 128];
            path.iter_mut().zip(info.iter().skip(PATH_AT)).for_each(|(to, from)| *to = *from);
            take(&Device {
                uuid: uuid(first, second),
                used,
                size,
                errors: [write, read, flush, corruption, generation],
                path,
            });
        }
        Ok(())
    }
}

impl Device {
    /// The last part of the device's path, such as `sda1`, at most 64 bytes of it.
    pub(crate) fn name(&self) -> heapless::Vec<u8, 64> {
        let bytes = self.path.iter().flat_map(|word| word.to_ne_bytes());
        let mut name = heapless::Vec::new();
        for byte in bytes.take_while(|byte| *byte != 0) {
            if byte == b'/' {
                name.clear();
            } else {
                // What is longer is cut.
                let _ = name.push(byte);
            }
        }
        name
    }
}

fn uuid(first: u64, second: u64) -> Uuid {
    let mut uuid = [0; 16];
    let bytes = first.to_ne_bytes().into_iter().chain(second.to_ne_bytes());
    uuid.iter_mut().zip(bytes).for_each(|(to, from)| *to = from);
    uuid
}

#[expect(unsafe_code, reason = "these requests have no wrapper")]
fn ask<const OPCODE: Opcode, T>(directory: &OwnedFd, argument: &mut T) -> Result<(), Errno> {
    // SAFETY: the three requests read and write their own struct, whose size is `T`'s as the opcode says,
    // and any bytes are a valid array of numbers.
    unsafe { rustix::ioctl::ioctl(directory, Updater::<OPCODE, T>::new(argument)) }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn requests_have_the_numbers_of_the_kernels_header() {
        assert_eq!(FS_INFO, 0x8400_941f);
        assert_eq!(DEV_INFO, 0xd000_941e);
        assert_eq!(GET_DEV_STATS, 0xc408_9434);
    }

    #[test]
    fn another_file_system_is_refused() {
        assert!(Mounted::open(Path::new("/proc")).is_err());
        assert!(Mounted::open(Path::new("/nowhere")).is_err());
    }

    #[test]
    fn a_device_has_the_last_part_of_its_path_as_name() {
        let device = |path: &[u8]| {
            let mut bytes = path.to_vec();
            bytes.resize(1024, 0);
            let mut words =
                bytes.chunks(8).map(|word| u64::from_ne_bytes(word.try_into().unwrap()));
            let path = std::array::from_fn(|_| words.next().unwrap());
            Device { uuid: [0; 16], used: 0, size: 0, errors: [0; 5], path }
        };
        assert_eq!(device(b"/dev/mapper/tank").name(), b"tank");
        assert_eq!(device(b"<missing disk>").name(), b"<missing disk>");
        assert_eq!(device(b"").name(), b"");
        assert_eq!(device(&[b'x'; 1024]).name(), [b'x'; 64]);
    }
}
