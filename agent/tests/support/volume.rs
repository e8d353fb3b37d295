//! A small ext4 file system on a loop device, to be filled, made read-only and taken away. Needs root,
//! util-linux and e2fsprogs; unmounted when it is dropped.

use std::fs::{self, File};
use std::io::Write;
use std::path::{Path, PathBuf};
use std::process::Command;

/// Small blocks, so that little of the WAL fits into what a full disk has left of them.
const BLOCK: usize = 1 << 10;

pub struct Volume {
    dir: tempfile::TempDir,
    /// How often another image has taken the place of the first.
    replaced: u32,
    mounted: bool,
}

impl Volume {
    pub fn new(mib: u64) -> Volume {
        assert!(rustix::process::geteuid().is_root(), "this test mounts: run it as root");
        let mut volume = Volume { dir: tempfile::tempdir().unwrap(), replaced: 0, mounted: false };
        fs::create_dir(volume.path()).unwrap();
        File::create(volume.image()).unwrap().set_len(mib << 20).unwrap();
        let image = volume.image();
        command("mkfs.ext4", &["-q", "-F", "-m", "0", "-b", "1024"], &[&image]);
        volume.mount();
        volume
    }

    /// Where it is mounted.
    pub fn path(&self) -> PathBuf {
        self.dir.path().join("mount")
    }

    fn image(&self) -> PathBuf {
        self.dir.path().join(format!("image.{}", self.replaced))
    }

    fn mount(&mut self) {
        let (image, path) = (self.image(), self.path());
        command("mount", &["-o", "loop,errors=remount-ro"], &[&image, &path]);
        self.mounted = true;
    }

    /// Takes all room that is left.
    pub fn fill(&self) {
        let mut file =
            File::options().create(true).append(true).open(self.path().join("full")).unwrap();
        loop {
            let mut grown = false;
            for size in [64 * BLOCK, BLOCK] {
                while file.write_all(&vec![b'x'; size]).is_ok() {
                    grown = true;
                }
            }
            // Writing it out frees what was set apart for metadata.
            file.sync_all().unwrap();
            if !grown {
                return;
            }
        }
    }

    /// Gives it back.
    pub fn free(&self) {
        fs::remove_file(self.path().join("full")).unwrap();
    }

    /// Bytes that may still be written.
    pub fn available(&self) -> u64 {
        let stat = rustix::fs::statvfs(self.path()).unwrap();
        stat.f_bavail * stat.f_frsize
    }

    /// As an administrator does it, `ro` or `rw`. Linux refuses `ro` while a file is open for writing.
    pub fn remount(&self, how: &str) {
        command("mount", &["-o", &format!("remount,{how}")], &[&self.path()]);
    }

    /// As the kernel does it when it meets an error on a card: whatever is open, nothing can be written
    /// from now on. There is no way back but another mount.
    pub fn turn_read_only(&self) {
        let out = command("losetup", &["--noheadings", "--output", "NAME", "-j"], &[&self.image()]);
        let device = out.trim().rsplit('/').next().unwrap().to_owned();
        let trigger = format!("/sys/fs/ext4/{device}/trigger_fs_error");
        fs::write(&trigger, "an error for a test")
            .unwrap_or_else(|error| panic!("{trigger}: {error}"));
        let refused = fs::write(self.path().join("refused"), "x");
        assert!(refused.is_err(), "still writable after an error");
    }

    /// Takes it away, open files or not, and mounts a copy of it in its place, which can be written.
    pub fn replace(&mut self) {
        let old = self.image();
        self.unmount_lazily();
        self.replaced += 1;
        fs::copy(&old, self.image()).unwrap();
        let checked = Command::new("e2fsck").args(["-p", "-f"]).arg(self.image()).output();
        let code = checked.expect("e2fsck, of e2fsprogs").status.code();
        // 1: mended, as after any error.
        assert!(code <= Some(1), "e2fsck: {code:?}");
        self.mount();
    }

    /// Takes it away; what is open stays readable and writable for those who have it.
    pub fn unmount_lazily(&mut self) {
        command("umount", &["--lazy"], &[&self.path()]);
        self.mounted = false;
    }
}

impl Drop for Volume {
    fn drop(&mut self) {
        if self.mounted {
            let _ = Command::new("umount").arg("--lazy").arg(self.path()).status();
        }
    }
}

/// Runs a program of the system, which has to succeed, and gives what it printed.
pub(super) fn command(program: &str, options: &[&str], paths: &[&Path]) -> String {
    let output = Command::new(program).args(options).args(paths).output();
    let output = output.unwrap_or_else(|error| {
        panic!("{program}: {error}; install the packages util-linux, mount and e2fsprogs")
    });
    let said = String::from_utf8_lossy(&output.stderr);
    assert!(output.status.success(), "{program} {options:?} {paths:?}: {said}");
    String::from_utf8(output.stdout).unwrap()
}
