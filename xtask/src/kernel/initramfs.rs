//! The file system that a kernel starts with, in the cpio format "newc"
//! (Documentation/driver-api/early-userspace/buffer-format.rst): folders, files and a console. Written
//! here, so that neither the tool nor root is needed.

use std::collections::BTreeSet;

const FOLDER: u32 = 0o040_755;
const PROGRAM: u32 = 0o100_755;
const CHARACTER_DEVICE: u32 = 0o020_600;

/// An archive that grows.
pub(super) struct Initramfs {
    bytes: Vec<u8>,
    entries: u32,
    folders: BTreeSet<String>,
}

impl Initramfs {
    /// With nothing but `/dev/console`, which the kernel opens before anything is mounted.
    pub(super) fn new() -> Initramfs {
        let mut archive = Initramfs { bytes: Vec::new(), entries: 0, folders: BTreeSet::new() };
        archive.folder("dev");
        archive.entry("dev/console", CHARACTER_DEVICE, (5, 1), &[]);
        archive
    }

    /// Adds a file that may be executed; its path has no `/` at its begin. Folders are made.
    pub(super) fn file(&mut self, path: &str, content: &[u8]) {
        for (at, _) in path.match_indices('/') {
            self.folder(path.get(..at).unwrap_or_default());
        }
        self.entry(path, PROGRAM, (0, 0), content);
    }

    /// The whole archive.
    pub(super) fn finish(mut self) -> Vec<u8> {
        self.entry("TRAILER!!!", 0, (0, 0), &[]);
        self.bytes
    }

    fn folder(&mut self, path: &str) {
        if self.folders.insert(path.to_owned()) {
            self.entry(path, FOLDER, (0, 0), &[]);
        }
    }

    fn entry(&mut self, path: &str, mode: u32, device: (u32, u32), content: &[u8]) {
        self.entries += 1;
        let links = 1;
        let fields: [usize; 13] = [
            self.entries as usize,
            mode as usize,
            0, // uid
            0, // gid
            links,
            0, // mtime
            content.len(),
            0, // the device it lies on
            0,
            device.0 as usize,
            device.1 as usize,
            path.len() + 1,
            0, // check
        ];
        self.bytes.extend_from_slice(b"070701");
        for field in fields {
            self.bytes.extend_from_slice(format!("{field:08X}").as_bytes());
        }
        self.bytes.extend_from_slice(path.as_bytes());
        self.bytes.push(0);
        self.pad();
        self.bytes.extend_from_slice(content);
        self.pad();
    }

    fn pad(&mut self) {
        self.bytes.resize(self.bytes.len().next_multiple_of(4), 0);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_entry_begins_on_four_bytes_and_says_its_sizes() {
        let mut archive = Initramfs::new();
        archive.file("init", b"12345");
        archive.file("a/b/c", b"");
        let bytes = archive.finish();
        let hex = |at: usize| {
            usize::from_str_radix(std::str::from_utf8(&bytes[at..at + 8]).unwrap(), 16).unwrap()
        };
        let (mut at, mut names) = (0, Vec::new());
        while at < bytes.len() {
            assert_eq!(&bytes[at..at + 6], b"070701");
            let (size, name) = (hex(at + 6 + 6 * 8), hex(at + 6 + 11 * 8));
            let text = &bytes[at + 110..at + 110 + name - 1];
            names.push(String::from_utf8(text.to_vec()).unwrap());
            let content = (at + 110 + name).next_multiple_of(4);
            if names.last().is_some_and(|name| name == "init") {
                assert_eq!(&bytes[content..content + size], b"12345");
            }
            at = (content + size).next_multiple_of(4);
        }
        assert_eq!(names, ["dev", "dev/console", "init", "a", "a/b", "a/b/c", "TRAILER!!!"]);
    }
}
