//! A loop device over a file that is larger than the tmpfs that it is on, so that the disk can't take what
//! it promises to. Needs root and util-linux; taken away when it is dropped.

use std::fs::{File, OpenOptions};
use std::io::Write as _;
use std::os::unix::fs::OpenOptionsExt as _;
use std::path::{Path, PathBuf};
use std::process::Command;

use super::volume::command;

pub const BLOCK: usize = 4096;

/// O_DIRECT wants memory that is aligned like the device's blocks.
#[repr(align(4096))]
pub struct Aligned<const N: usize>(pub [u8; N]);

/// A loop device, undone when dropped.
pub struct Loop(PathBuf);

impl Loop {
    /// Over a new file of so many KiB.
    pub fn new(image: &Path, kib: u64) -> Loop {
        File::create(image).unwrap().set_len(kib << 10).unwrap();
        let device = command("losetup", &["--find", "--show"], &[image]);
        Loop(device.trim().into())
    }

    /// `loop3`
    pub fn name(&self) -> &str {
        self.0.file_name().unwrap().to_str().unwrap()
    }

    /// Past the page cache: each read and write is a request.
    pub fn open(&self) -> File {
        let direct = rustix::fs::OFlags::DIRECT.bits() as i32;
        OpenOptions::new().read(true).write(true).custom_flags(direct).open(&self.0).unwrap()
    }
}

impl Drop for Loop {
    fn drop(&mut self) {
        if !self.0.as_os_str().is_empty() {
            let _ = Command::new("losetup").arg("--detach").arg(&self.0).status();
        }
    }
}

pub struct SmallDisk {
    dir: tempfile::TempDir,
    device: Loop,
    mounted: bool,
}

impl SmallDisk {
    /// With room for so many KiB, and a device of `device_kib`.
    pub fn new(room_kib: u64, device_kib: u64) -> SmallDisk {
        assert!(rustix::process::geteuid().is_root(), "this test mounts: run it as root");
        let dir = tempfile::tempdir().unwrap();
        let options = format!("size={room_kib}k");
        command("mount", &["-t", "tmpfs", "-o", &options, "tmpfs"], &[dir.path()]);
        let mut disk = SmallDisk { dir, device: Loop(PathBuf::new()), mounted: false };
        std::fs::create_dir(disk.mountpoint()).unwrap();
        disk.device = Loop::new(&disk.image(), device_kib);
        disk
    }

    fn image(&self) -> PathBuf {
        self.dir.path().join("image")
    }

    /// Where [`mount`](SmallDisk::mount) puts its file system.
    pub fn mountpoint(&self) -> PathBuf {
        self.dir.path().join("mount")
    }

    pub fn device(&self) -> &Path {
        &self.device.0
    }

    /// `loop3`
    pub fn name(&self) -> &str {
        self.device.name()
    }

    pub fn open(&self) -> File {
        self.device.open()
    }

    /// Takes the room below it, so that nothing new can be written.
    pub fn fill(&self) {
        let mut rest = File::create(self.dir.path().join("rest")).unwrap();
        while rest.write_all(&[0x11; BLOCK]).is_ok() {}
    }

    /// Cuts the file below it; the device keeps its size.
    pub fn truncate(&self, bytes: u64) {
        OpenOptions::new().write(true).open(self.image()).unwrap().set_len(bytes).unwrap();
    }

    /// What is on the disk.
    pub fn image_bytes(&self) -> Vec<u8> {
        std::fs::read(self.image()).unwrap()
    }

    /// Undoes [`truncate`](SmallDisk::truncate): all is as it was then.
    pub fn restore(&self, bytes: &[u8]) {
        std::os::unix::fs::FileExt::write_all_at(
            &OpenOptions::new().write(true).open(self.image()).unwrap(),
            bytes,
            0,
        )
        .unwrap();
    }

    /// Makes an ext4 on it and mounts it. A block has 1 KiB.
    pub fn mount(&mut self) {
        command("mkfs.ext4", &["-q", "-F", "-m", "0", "-b", "1024"], &[self.device()]);
        command("mount", &[], &[self.device(), &self.mountpoint()]);
        self.mounted = true;
    }
}

impl Drop for SmallDisk {
    fn drop(&mut self) {
        if self.mounted {
            let _ = Command::new("umount").arg("--lazy").arg(self.mountpoint()).status();
        }
        let _ = Command::new("umount").arg("--lazy").arg(self.dir.path()).status();
    }
}
