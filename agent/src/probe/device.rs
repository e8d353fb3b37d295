//! The names of devices: from the kernel's numbers to what people call them.

use std::fmt::Write as _;
use std::mem::MaybeUninit;

use crate::host::Host;

/// Bits of a dev_t that are the minor number (include/linux/kdev_t.h).
pub(super) const MINOR_BITS: u32 = 20;

/// Names block devices, with memory that is used again.
#[derive(Default)]
pub(super) struct Namer {
    path: String,
}

impl Namer {
    /// Writes the kernel's name of a block device to `name`, as /proc/diskstats has it, or `MAJ:MIN` and
    /// false if there is no such device. Asked anew each time, because minor numbers are given out again.
    pub(super) fn write(&mut self, host: &Host, device: u32, name: &mut String) -> bool {
        let (major, minor) = (device >> MINOR_BITS, device & ((1 << MINOR_BITS) - 1));
        self.path.clear();
        let _ = write!(self.path, "{}/dev/block/{major}:{minor}", host.roots().sys.display());
        let mut target = [MaybeUninit::uninit(); 1024];
        let found = rustix::fs::readlinkat_raw(rustix::fs::CWD, self.path.as_str(), &mut target);
        name.clear();
        // ../../devices/pci0000:00/…/block/sda
        let last = found.ok().and_then(|(target, _)| {
            let target = std::str::from_utf8(target).ok()?;
            target.rsplit('/').next().filter(|last| !last.is_empty())
        });
        match last {
            // Sysfs can't have the slash of names like cciss/c0d0 and writes it so.
            Some(last) => {
                name.extend(last.chars().map(|c| if c == '!' { '/' } else { c }));
                true
            }
            None => {
                let _ = write!(name, "{major}:{minor}");
                false
            }
        }
    }

    /// The name as a string of its own.
    pub(super) fn name(&mut self, host: &Host, device: u32) -> String {
        let mut name = String::new();
        self.write(host, device, &mut name);
        name
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_device_that_is_not_there_is_called_by_its_numbers() {
        let host =
            Host::new(crate::host::Roots { sys: "/nonexistent".into(), ..Default::default() });
        let mut name = "old".to_owned();
        assert!(!Namer::default().write(&host, (8 << MINOR_BITS) | 17, &mut name));
        assert_eq!(name, "8:17");
    }

    #[test]
    fn a_device_is_called_as_the_kernel_calls_it_and_not_as_sysfs_writes_it() {
        let sys = tempfile::tempdir().unwrap();
        let folder = sys.path().join("dev/block");
        std::fs::create_dir_all(&folder).unwrap();
        for (numbers, target) in [("104:0", "cciss!c0d0"), ("8:0", "sda")] {
            let target = format!("../../devices/pci0000:00/block/{target}");
            std::os::unix::fs::symlink(target, folder.join(numbers)).unwrap();
        }
        let host = Host::new(crate::host::Roots { sys: sys.path().into(), ..Default::default() });
        for (device, expected) in [(104 << MINOR_BITS, "cciss/c0d0"), (8 << MINOR_BITS, "sda")] {
            assert_eq!(Namer::default().name(&host, device), expected);
        }
    }
}
