//! node_exporter's `filesystem`: the mounts of process 1 (fs/proc_namespace.c), each asked with
//! statfs through the root that the host has for the agent.
//!
//! Labels are as node_exporter makes them, which decodes only `\040` and `\011`, and only in mount
//! points; the path that is asked is decoded whole.
//!
//! The parser is our own because the procfs crate's leaves `\040` undecoded and makes a map of each
//! mount's options.

use std::borrow::Cow;
use std::collections::HashSet;
use std::hash::{BuildHasher, RandomState};
use std::os::unix::ffi::OsStrExt;

use super::options::{FilesystemOptions, excludes};
use super::parse::{FirstError, Span, Texts, fields, lines, malformed, text, whole};
use super::statfs::{Asker, Unanswered, Usage};
use super::{CollectError, Collector};
use crate::host::{Host, ReadError};
use crate::model::{Desc, Samples};

const DEVICE_ERROR: Desc = Desc::gauge(
    "node_filesystem_device_error",
    "Whether an error occurred while getting statistics for the given device.",
);
const READONLY: Desc = Desc::gauge("node_filesystem_readonly", "Filesystem read-only status.");

type Size = (Desc, fn(&Usage) -> f64);

const SIZES: [Size; 5] = [
    (Desc::gauge("node_filesystem_size_bytes", "Filesystem size in bytes."), |usage| {
        usage.blocks as f64 * usage.block_size as f64
    }),
    (Desc::gauge("node_filesystem_free_bytes", "Filesystem free space in bytes."), |usage| {
        usage.free as f64 * usage.block_size as f64
    }),
    (
        Desc::gauge(
            "node_filesystem_avail_bytes",
            "Filesystem space available to non-root users in bytes.",
        ),
        |usage| usage.available as f64 * usage.block_size as f64,
    ),
    (Desc::gauge("node_filesystem_files", "Filesystem total file nodes."), |usage| {
        usage.files as f64
    }),
    (Desc::gauge("node_filesystem_files_free", "Filesystem total free file nodes."), |usage| {
        usage.files_free as f64
    }),
];

struct Mount {
    device: Span,
    point: Span,
    fs_type: Span,
    /// Where its path lies in [`Filesystem::paths`].
    path: std::ops::Range<usize>,
    readonly: bool,
    /// Whether the kernel answers from memory; see [`AT_ONCE`].
    at_once: bool,
    /// None if it could not be asked.
    usage: Option<Usage>,
}

/// Size, free space and file nodes of each mount.
pub(super) struct Filesystem {
    options: FilesystemOptions,
    asker: Asker,
    /// The file that the fields below were parsed from. It seldom changes, and matching its lines
    /// with the patterns takes longer than all else.
    parsed: Vec<u8>,
    mounts: Vec<Mount>,
    texts: Texts,
    paths: Vec<u8>,
    /// The root of the host, without its last slash.
    root: Vec<u8>,
    /// Hashes of the labels of the mounts, with keys of this process, while a list is parsed: it may have tens of
    /// thousands.
    seen: HashSet<u64>,
    hasher: RandomState,
}

/// File systems whose statfs gives counters that are in memory, and waits for no disk and no server:
/// fs/ext4/super.c `ext4_statfs`, fs/f2fs/super.c `f2fs_statfs`, mm/shmem.c `shmem_statfs`, fs/libfs.c
/// `simple_statfs`. The way to a mount point is in memory, too, for as long as something is mounted there.
const AT_ONCE: [&[u8]; 7] = [b"ext2", b"ext3", b"ext4", b"f2fs", b"ramfs", b"tmpfs", b"devtmpfs"];

/// Others through which a way leads without asking anybody but memory: of disks, and of the kernel's own.
/// All that are not here ask a server or a program (`d_revalidate`), or may.
const LOCAL: [&[u8]; 16] = [
    b"btrfs",
    b"cgroup",
    b"cgroup2",
    b"devpts",
    b"erofs",
    b"exfat",
    b"iso9660",
    b"overlay",
    b"proc",
    b"rootfs",
    b"squashfs",
    b"sysfs",
    b"ubifs",
    b"vfat",
    b"xfs",
    b"zfs",
];

impl Filesystem {
    pub(super) fn new(options: &FilesystemOptions) -> Filesystem {
        Filesystem {
            asker: Asker::new(options.statfs.clone(), options.mount_timeout),
            options: options.clone(),
            parsed: Vec::new(),
            mounts: Vec::new(),
            texts: Texts::default(),
            paths: Vec::new(),
            root: Vec::new(),
            seen: HashSet::new(),
            hasher: RandomState::new(),
        }
    }
}

impl Collector for Filesystem {
    fn collect(&mut self, host: &mut Host, out: &mut Samples) -> Result<(), CollectError> {
        let mut errors = FirstError::default();
        // Without its last slash, so that `/` is nothing.
        let root = host.roots().root.as_os_str().as_bytes();
        self.root.clear();
        self.root.extend_from_slice(root.strip_suffix(b"/").unwrap_or(root));
        let (file, bytes) = mounts_file(host)?;
        if bytes.is_empty() || bytes != self.parsed {
            self.parsed.clear();
            self.mounts.clear();
            self.seen.clear();
            self.texts.clear();
            self.paths.clear();
            let root = std::mem::take(&mut self.root);
            let list = whole(file, bytes, &mut errors);
            for line in lines(list) {
                self.parse(file, line, &root).unwrap_or_else(|error| errors.note(error));
            }
            self.decide(list, &root);
            self.root = root;
            // A malformed file is parsed, and refused, in every round.
            if errors.is_empty() {
                self.parsed.extend_from_slice(bytes);
            }
            self.shrink();
        }
        self.ask(&mut errors);
        self.write(out);
        errors.result()
    }

    fn give_back(&mut self) {
        self.parsed.clear();
        self.mounts.clear();
        self.texts.clear();
        self.paths.clear();
        self.shrink();
    }
}

/// The mounts of process 1; our own where that process can't be seen (hidepid).
fn mounts_file(host: &mut Host) -> Result<(&'static str, &[u8]), ReadError> {
    let hidden = match host.proc("1/mounts") {
        Ok(_) => false,
        Err(error) => {
            if !error.is_absent() && error.source.kind() != std::io::ErrorKind::PermissionDenied {
                return Err(error);
            }
            true
        }
    };
    if hidden {
        return Ok(("proc/self/mounts", host.proc("self/mounts")?));
    }
    Ok(("proc/1/mounts", host.last()))
}

impl Filesystem {
    /// Adds the mount of one line unless it is excluded or there already.
    fn parse(&mut self, file: &str, line: &[u8], root: &[u8]) -> Result<(), CollectError> {
        let mut fields = fields(line);
        let mut field = || {
            fields.next().ok_or_else(|| malformed(file, line, "device, mount point, type, options"))
        };
        let (device, point, fs_type, options) = (field()?, field()?, field()?, field()?);
        let label = decode(point, false);
        let label = strip_root(&label, root);
        if excludes(self.options.mount_points_exclude.as_ref(), label)
            || excludes(self.options.fs_types_exclude.as_ref(), fs_type)
        {
            return Ok(());
        }
        let (device, label, fs_type) = (text(device), text(label), text(fs_type));
        if !self.seen.insert(self.hasher.hash_one((&*device, &*label, &*fs_type))) {
            return Ok(());
        }
        let start = self.paths.len();
        self.paths.extend_from_slice(root);
        self.paths.extend_from_slice(strip_root(&decode(point, true), root));
        self.mounts.push(Mount {
            device: self.texts.keep(&device),
            point: self.texts.keep(&label),
            fs_type: self.texts.keep(&fs_type),
            path: start..self.paths.len(),
            readonly: options.split(|&byte| byte == b',').any(|option| option == b"ro"),
            at_once: AT_ONCE.contains(&fs_type.as_bytes()),
            usage: None,
        });
        Ok(())
    }

    /// Of mounts that answer from memory, those to which the way leads through others that may not, such as
    /// a server's, are left to the thread.
    fn decide(&mut self, bytes: &[u8], root: &[u8]) {
        for line in lines(bytes) {
            let mut fields = fields(line).skip(1);
            let (Some(point), Some(fs_type)) = (fields.next(), fields.next()) else { continue };
            if AT_ONCE.contains(&fs_type) || LOCAL.contains(&fs_type) {
                continue;
            }
            let point = decode(point, true);
            let point = strip_root(&point, root);
            let point = point.strip_suffix(b"/").unwrap_or(point);
            for mount in self.mounts.iter_mut().filter(|mount| mount.at_once) {
                let path = self.paths.get(mount.path.clone()).unwrap_or_default();
                let below = path.strip_prefix(root).unwrap_or(path).strip_prefix(point);
                mount.at_once = !below.is_some_and(|rest| rest.starts_with(b"/"));
            }
        }
    }

    /// Thousands of mounts may come and go: no more memory is kept than the newest list needs.
    fn shrink(&mut self) {
        self.seen = HashSet::new();
        self.parsed.shrink_to_fit();
        self.mounts.shrink_to_fit();
        self.texts.shrink();
        self.paths.shrink_to_fit();
    }

    fn ask(&mut self, errors: &mut FirstError) {
        let patience = self.asker.begin();
        let mut not_asked = 0usize;
        for mount in &mut self.mounts {
            let path = self.paths.get(mount.path.clone()).unwrap_or_default();
            mount.usage = None;
            let fs_type = self.texts.get(mount.fs_type);
            let answer = if mount.at_once {
                self.asker.ask_here(path)
            } else {
                self.asker.ask(path, fs_type, patience)
            };
            match answer {
                Ok(usage) => mount.usage = Some(usage),
                // What node_filesystem_device_error says is enough.
                Err(Unanswered::Refused(error)) => {
                    log::debug!("statfs on {}: {error}", text(path));
                }
                Err(Unanswered::Stuck) => {}
                Err(Unanswered::Full) => not_asked += 1,
                Err(Unanswered::NoThread(source)) => errors.note(CollectError::System {
                    attempt: "starting a thread for statfs".into(),
                    source,
                }),
            }
        }
        if not_asked > 0 {
            errors.note(CollectError::System {
                attempt: format!("statfs on {not_asked} mounts"),
                source: std::io::Error::other(format!(
                    "not asked, because {} other mounts don't answer",
                    self.asker.stuck()
                )),
            });
        }
    }

    fn write(&self, out: &mut Samples) {
        let mut family = |desc: &Desc, value: &dyn Fn(&Mount) -> Option<f64>| {
            let mut family = out.family(desc);
            for mount in &self.mounts {
                let Some(value) = value(mount) else { continue };
                let labels = [
                    ("device", self.texts.get(mount.device)),
                    ("mountpoint", self.texts.get(mount.point)),
                    ("fstype", self.texts.get(mount.fs_type)),
                ];
                family.add(&labels, value);
            }
        };
        family(&DEVICE_ERROR, &|mount| Some(if mount.usage.is_none() { 1.0 } else { 0.0 }));
        for (desc, value) in &SIZES {
            family(desc, &|mount| mount.usage.as_ref().map(value));
        }
        family(&READONLY, &|mount| mount.usage.map(|_| f64::from(u8::from(mount.readonly))));
    }
}

/// A mount point with its octal escapes decoded: all of them, or the two that node_exporter decodes.
fn decode(point: &[u8], all: bool) -> Cow<'_, [u8]> {
    if !point.contains(&b'\\') {
        return Cow::Borrowed(point);
    }
    let mut decoded = Vec::with_capacity(point.len());
    let mut rest = point;
    while let Some((&byte, after)) = rest.split_first() {
        let escape = match rest {
            [b'\\', a @ b'0'..=b'3', b @ b'0'..=b'7', c @ b'0'..=b'7', after @ ..] => {
                Some(((a - b'0') << 6 | (b - b'0') << 3 | (c - b'0'), after))
            }
            _ => None,
        };
        match escape {
            Some((escaped, after)) if all || matches!(escaped, b' ' | b'\t') => {
                decoded.push(escaped);
                rest = after;
            }
            _ => {
                decoded.push(byte);
                rest = after;
            }
        }
    }
    Cow::Owned(decoded)
}

/// The mount point as the host calls it, where the list of mounts is a container's own.
fn strip_root<'a>(point: &'a [u8], root: &[u8]) -> &'a [u8] {
    match point.strip_prefix(root) {
        Some(b"") => b"/",
        Some(stripped) if stripped.starts_with(b"/") => stripped,
        _ => point,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn escapes_are_decoded_once() {
        let all = |point| decode(point, true).into_owned();
        assert_eq!(all(br"/a\040b\011c\134d\012e\043f"), b"/a b\tc\\d\ne#f");
        assert_eq!(*decode(br"/a\040b\011c\134d\012e", false), *b"/a b\tc\\134d\\012e");
        // A backslash that was decoded does not begin another escape.
        assert_eq!(all(br"\134040"), br"\040");
        for odd in [&br"\"[..], br"\0", br"\04", br"\400", br"\0x0", br"a\"] {
            assert_eq!(all(odd), odd);
        }
    }

    #[test]
    fn a_containers_own_mounts_lose_the_root() {
        assert_eq!(strip_root(b"/host", b"/host"), b"/");
        assert_eq!(strip_root(b"/host/boot", b"/host"), b"/boot");
        assert_eq!(strip_root(b"/boot", b"/host"), b"/boot");
        assert_eq!(strip_root(b"/hosting", b"/host"), b"/hosting");
        assert_eq!(strip_root(b"/boot", b""), b"/boot");
    }

    #[test]
    fn of_mounts_with_the_same_labels_the_first_counts_however_many_there_are() {
        let mut filesystem = Filesystem::new(&FilesystemOptions::default());
        let start = std::time::Instant::now();
        for _ in 0..2 {
            for number in 0..20_000 {
                let line = format!("/dev/sda1 /srv/{number} ext4 rw 0 0");
                filesystem.parse("proc/1/mounts", line.as_bytes(), b"").unwrap();
            }
        }
        assert_eq!(filesystem.mounts.len(), 20_000);
        // Each with each would be half a minute.
        assert!(start.elapsed() < std::time::Duration::from_secs(6), "{:?}", start.elapsed());
    }

    #[test]
    fn only_the_option_ro_makes_a_mount_read_only() {
        let mut filesystem = Filesystem::new(&FilesystemOptions::default());
        for (point, options) in [("/a", "rw,errors=remount-ro"), ("/b", "nosuid,ro"), ("/c", "ro")]
        {
            let line = format!("/dev/sda1 {point} ext4 {options} 0 0");
            filesystem.parse("proc/1/mounts", line.as_bytes(), b"").unwrap();
        }
        let readonly: Vec<bool> = filesystem.mounts.iter().map(|mount| mount.readonly).collect();
        assert_eq!(readonly, [false, true, true]);
    }

    #[test]
    fn mounts_behind_a_server_are_not_asked_here() {
        let text = "/dev/sda1 / ext4 rw 0 0\n/dev/sda2 /srv\\040x ext4 rw 0 0\nnas:/ /net nfs4 rw 0 0\n\
                    /dev/sdb1 /net/disk ext4 rw 0 0\ntmpfs /network tmpfs rw 0 0\n\
                    /dev/sdc1 /boot vfat rw 0 0\nauto /auto autofs rw 0 0\ntmpfs /auto/a tmpfs rw 0 0\n";
        for (root, prefix) in [("", ""), ("/host", "/host")] {
            let mut filesystem = Filesystem::new(&FilesystemOptions::default());
            let text: String = text.replace(" /", &format!(" {prefix}/"));
            for line in lines(text.as_bytes()) {
                filesystem.parse("proc/1/mounts", line, root.as_bytes()).unwrap();
            }
            filesystem.decide(text.as_bytes(), root.as_bytes());
            let here: Vec<_> = filesystem
                .mounts
                .iter()
                .filter(|mount| mount.at_once)
                .map(|mount| filesystem.texts.get(mount.point))
                .collect();
            assert_eq!(here, ["/", "/srv x", "/network"], "{root:?}");
        }
    }

    #[test]
    fn list_of_thousands_leaves_no_memory_behind_it() {
        use super::super::Statfs;
        use crate::host::Roots;

        let folder = tempfile::tempdir().unwrap();
        std::fs::create_dir(folder.path().join("1")).unwrap();
        let list = |count: usize| {
            let text: String = (0..count).map(|n| format!("m /mnt/{n} tmpfs rw 0 0\n")).collect();
            std::fs::write(folder.path().join("1/mounts"), text).unwrap();
        };
        let mut host = Host::new(Roots { proc: folder.path().to_owned(), ..Roots::default() });
        let statfs = Statfs::new(|_| Ok(Usage::default()));
        let options = FilesystemOptions { statfs, ..FilesystemOptions::default() };
        let mut filesystem = Filesystem::new(&options);
        let mut kept = |filesystem: &mut Filesystem, count| {
            list(count);
            filesystem.collect(&mut host, &mut Samples::with_limit(100)).unwrap();
            filesystem.mounts.capacity()
                + filesystem.parsed.capacity()
                + filesystem.paths.capacity()
        };
        let few = kept(&mut filesystem, 3);
        assert!(kept(&mut filesystem, 5_000) > 100_000);
        assert_eq!(kept(&mut filesystem, 3), few);
        kept(&mut filesystem, 5_000);
        filesystem.give_back();
        assert_eq!(filesystem.mounts.capacity() + filesystem.parsed.capacity(), 0);
        // As if nothing had been.
        assert_eq!(kept(&mut filesystem, 3), few);
    }

    #[test]
    fn many_dead_mounts_do_not_hide_the_disks() {
        use std::sync::{Condvar, Mutex};

        use super::super::Statfs;
        use crate::host::Roots;

        static ANSWERS: (Mutex<bool>, Condvar) = (Mutex::new(false), Condvar::new());
        let statfs = Statfs::new(|path| {
            if path.starts_with("/dead") {
                drop(ANSWERS.1.wait_while(ANSWERS.0.lock().unwrap(), |answers| !*answers).unwrap());
            }
            Ok(Usage::default())
        });
        let folder = tempfile::tempdir().unwrap();
        std::fs::create_dir(folder.path().join("1")).unwrap();
        let list = |more: &str| {
            let dead: String =
                (0..12).map(|n| format!("nas:/{n} /dead/{n} nfs4 rw 0 0\n")).collect();
            let text = format!("/dev/sda1 / ext4 rw 0 0\n{dead}/dev/sda2 /srv ext4 rw 0 0\n{more}");
            std::fs::write(folder.path().join("1/mounts"), text).unwrap();
        };
        let mut host = Host::new(Roots { proc: folder.path().to_owned(), ..Roots::default() });
        let mount_timeout = std::time::Duration::ZERO;
        let options = FilesystemOptions { statfs, mount_timeout, ..FilesystemOptions::default() };
        let mut filesystem = Filesystem::new(&options);
        for (round, more) in ["", "", "/dev/sdb1 /mnt ext4 rw 0 0\n"].into_iter().enumerate() {
            list(more);
            let mut out = Samples::with_limit(1000);
            let error = filesystem.collect(&mut host, &mut out).unwrap_err();
            assert!(error.to_string().contains("statfs on 4 mounts"), "{error}");
            for point in ["/", "/srv"] {
                let error = out.iter().find(|sample| {
                    sample.family == "node_filesystem_device_error"
                        && sample.labels().any(|label| label == ("mountpoint", point))
                });
                assert_eq!(error.unwrap().value, 0.0, "{point} in round {round}");
            }
        }
        *ANSWERS.0.lock().unwrap() = true;
        ANSWERS.1.notify_all();
    }
}
