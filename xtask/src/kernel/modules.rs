//! The kernel's modules: which files a machine needs, in an order in which each finds what it depends
//! on. `depmod` makes modules.dep of the unpacked package.

use std::fs;
use std::path::{Path, PathBuf};
use std::process::Command;

use crate::{Result, process};

/// What the machines' devices, ext4 and its checksums need. What a kernel has built in, or has not at
/// all, is not in its modules.dep and left out.
pub(super) const WANTED: &[&str] = &[
    "virtio_pci",
    "virtio_blk",
    "virtio_scsi",
    "sd_mod",
    "ahci",
    "nvme",
    "sdhci_pci",
    "bcm2835",
    "bcm2835_mmc",
    "sdhci_iproc",
    "mmc_block",
    "crc32c_generic",
    "crc32c_cryptoapi",
    "ext4",
];

/// The files of the wanted modules and of those they depend on, relative to the folder of modules.dep,
/// each once and behind what it depends on.
pub(super) fn in_order(modules_dep: &str, wanted: &[&str]) -> Vec<String> {
    let lines: Vec<(&str, Vec<&str>)> = modules_dep
        .lines()
        .filter_map(|line| line.split_once(':'))
        .map(|(module, needs)| (module.trim(), needs.split_ascii_whitespace().collect()))
        .collect();
    let mut ordered: Vec<String> = Vec::new();
    for name in wanted {
        let Some((module, needs)) = lines.iter().find(|(path, _)| module_name(path) == *name)
        else {
            continue;
        };
        // depmod lists all that is needed, transitively, what is needed last first.
        for path in needs.iter().rev().chain([module]) {
            if !ordered.iter().any(|known| known == path) {
                ordered.push((*path).to_owned());
            }
        }
    }
    ordered
}

/// `kernel/drivers/virtio/virtio-pci.ko.xz` is the module `virtio_pci`.
fn module_name(path: &str) -> String {
    let file = path.rsplit('/').next().unwrap_or(path);
    file.split(".ko").next().unwrap_or(file).replace('-', "_")
}

/// Makes modules.dep below `base`/lib/modules/`version`.
///
/// # Errors
/// depmod fails.
pub(super) fn index(base: &Path, version: &str) -> Result<()> {
    let program = process::find("depmod").ok_or("there is no depmod (Debian: kmod)")?;
    let mut command = Command::new(program);
    // It warns of lists that the package does not have and that are not needed.
    command.arg("-b").arg(base).arg(version).stderr(std::process::Stdio::null());
    process::run(&mut command)
}

/// The contents of a module's file, uncompressed: not every kernel can do that itself.
///
/// # Errors
/// It can't be read, or the program that uncompresses it fails.
pub(super) fn content(file: &Path) -> Result<Vec<u8>> {
    let program = match file.extension().and_then(|extension| extension.to_str()) {
        Some("xz") => "xz",
        Some("zst") => "zstd",
        _ => return fs::read(file).map_err(|error| format!("{}: {error}", file.display())),
    };
    let mut command = Command::new(program);
    let output = command
        .arg("-dc")
        .arg(file)
        .output()
        .map_err(|error| format!("`{}`: {error}", process::describe(&command)))?;
    if output.status.success() {
        return Ok(output.stdout);
    }
    let why = String::from_utf8_lossy(&output.stderr);
    Err(format!("`{}`: {}", process::describe(&command), why.trim()))
}

/// The folder with modules.dep, and its contents.
///
/// # Errors
/// It can't be read.
pub(super) fn dependencies(base: &Path, version: &str) -> Result<(PathBuf, String)> {
    let folder = base.join("lib/modules").join(version);
    let path = folder.join("modules.dep");
    let text = fs::read_to_string(&path).map_err(|error| format!("{}: {error}", path.display()))?;
    Ok((folder, text))
}

#[cfg(test)]
mod tests {
    use super::*;

    const DEP: &str = "\
kernel/drivers/block/virtio_blk.ko: kernel/drivers/virtio/virtio_ring.ko kernel/drivers/virtio/virtio.ko
kernel/drivers/virtio/virtio.ko:
kernel/drivers/virtio/virtio_ring.ko: kernel/drivers/virtio/virtio.ko
kernel/fs/ext4/ext4.ko.xz: kernel/lib/crc16.ko.xz kernel/fs/mbcache.ko.xz kernel/fs/jbd2/jbd2.ko.xz
kernel/fs/ext4/not-ext4.ko.zst:
";

    #[test]
    fn a_module_comes_behind_what_it_needs_and_once() {
        let ordered = in_order(DEP, &["ext4", "virtio_blk", "virtio_ring", "nvme", "not_ext4"]);
        let at = |end: &str| ordered.iter().position(|path| path.ends_with(end)).unwrap();
        assert!(at("/virtio.ko") < at("/virtio_ring.ko"));
        assert!(at("/virtio_ring.ko") < at("/virtio_blk.ko"));
        assert!(at("/crc16.ko.xz") < at("/ext4.ko.xz"));
        assert_eq!(ordered.len(), 8);
        assert_eq!(ordered.iter().filter(|path| path.ends_with("/virtio_ring.ko")).count(), 1);
    }

    #[test]
    fn what_is_no_modules_dep_has_no_modules() {
        for text in ["", "\n\n", "no colon", ": :", "kernel/ext4"] {
            assert_eq!(in_order(text, &["ext4"]), Vec::<String>::new(), "{text:?}");
        }
    }
}
