//! A file system of its own for one agent's state: ext4 on a loop device, so that all that reaches the device
//! is counted, the journal's blocks and the metadata that no process is charged for included. Only root has
//! one; without it the state is in an ordinary folder and that column stays empty.

use std::fs::{self, File};
use std::path::{Path, PathBuf};
use std::process::Command;

use crate::context::is_root;
use crate::{Result, process};

/// Sparse: most of it never becomes real.
const SIZE: u64 = 512 << 20;
/// Of the numbers in a device's `stat`, that of the sectors written.
const SECTORS_WRITTEN: usize = 6;

/// Unmounted when it is dropped.
pub(crate) struct Volume {
    path: PathBuf,
    /// The `stat` of its loop device.
    device: PathBuf,
}

impl Volume {
    /// Whether this user may have one here.
    pub(crate) fn can_be() -> bool {
        is_root() && ["mkfs.ext4", "losetup", "mount"].iter().all(|p| process::find(p).is_some())
    }

    /// Makes one and mounts it at `path`; its image is beside it.
    ///
    /// # Errors
    /// mkfs.ext4 or mount failed.
    pub(crate) fn mount(path: &Path) -> Result<Volume> {
        let image = path.with_extension("img");
        let fail = |error| format!("{}: {error}", image.display());
        File::create(&image).and_then(|file| file.set_len(SIZE)).map_err(fail)?;
        // Nothing is left to be initialised later, which would be counted as the agent's.
        let eager = "lazy_itable_init=0,lazy_journal_init=0";
        said(Command::new("mkfs.ext4").args(["-q", "-F", "-E", eager]).arg(&image))?;
        fs::create_dir_all(path).map_err(|error| format!("{}: {error}", path.display()))?;
        said(Command::new("mount").args(["-o", "loop,noatime"]).arg(&image).arg(path))?;
        let mut volume = Volume { path: path.to_path_buf(), device: PathBuf::new() };
        let mut losetup = Command::new("losetup");
        let devices = said(losetup.args(["--noheadings", "--output", "NAME", "-j"]).arg(&image))?;
        let device = devices.trim().rsplit('/').next().unwrap_or_default();
        volume.device = Path::new("/sys/block").join(device).join("stat");
        volume.written()?;
        Ok(volume)
    }

    /// Bytes that were written to the device, after what was still in memory has been.
    ///
    /// # Errors
    /// The file system can't be synced, or the kernel does not tell.
    pub(crate) fn written(&self) -> Result<u64> {
        File::open(&self.path)
            .and_then(|file| Ok(rustix::fs::syncfs(file)?))
            .map_err(|error| format!("{} can't be synced: {error}", self.path.display()))?;
        let text = fs::read_to_string(&self.device)
            .map_err(|error| format!("{}: {error}", self.device.display()))?;
        let sectors = text.split_ascii_whitespace().nth(SECTORS_WRITTEN);
        let sectors: u64 = sectors
            .and_then(|number| number.parse().ok())
            .ok_or_else(|| format!("{} holds {text:?}", self.device.display()))?;
        Ok(sectors * 512)
    }
}

impl Drop for Volume {
    fn drop(&mut self) {
        // Lazily: a program that was killed may still be going.
        if let Err(why) = said(Command::new("umount").arg("--lazy").arg(&self.path)) {
            eprintln!("{why}");
        }
    }
}

/// Runs a program to its end; what it printed.
///
/// # Errors
/// It could not be started or failed; with what it said.
pub(super) fn said(command: &mut Command) -> Result<String> {
    let output =
        command.output().map_err(|error| format!("`{}`: {error}", process::describe(command)))?;
    if output.status.success() {
        return Ok(String::from_utf8_lossy(&output.stdout).into_owned());
    }
    let why = String::from_utf8_lossy(&output.stderr);
    Err(format!("`{}`: {}: {}", process::describe(command), output.status, why.trim()))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_written_reaches_the_device() {
        if !Volume::can_be() {
            eprintln!("not root, or no e2fsprogs: nothing to mount");
            return;
        }
        let folder = crate::temp::TempDir::new("volume-test").expect("a folder");
        let path = folder.path().join("volume");
        let volume = Volume::mount(&path).expect("a file system");
        let before = volume.written().expect("a count");
        fs::write(path.join("a"), vec![7; 100_000]).expect("room");
        let written = volume.written().expect("a count") - before;
        assert!((100_000..1_000_000).contains(&written), "{written}");
        drop(volume);
        assert!(!path.join("a").exists());
    }
}
