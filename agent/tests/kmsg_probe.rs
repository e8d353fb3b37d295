//! The kernel's log of this machine: real OOM kills and real failed requests, recognised in it; a
//! position that is kept; a ring that runs over. Needs root and util-linux.
//!
//! Others write into the same log, so each test looks for what is its own. What is written from here has
//! another facility than the kernel's.

#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic)]

use std::fs::{self, File, OpenOptions};
use std::io::Write as _;
use std::os::unix::fs::{FileExt as _, OpenOptionsExt as _};
use std::os::unix::process::ExitStatusExt as _;
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};
use std::time::{Duration, Instant, SystemTime, UNIX_EPOCH};

use mote::host::kmsg::{Position, Start, unix_ns};
use mote::host::{Host, Kmsg, Roots, SystemClock};
use mote::probe::kmsg::{Finding, IoError, Notice, OomKill, Recognizer};
use mote::probe::proc::OomCount;
use rustix::event::{PollFd, PollFlags, Timespec, poll};
use tokio::io::unix::AsyncFd;

const PATIENCE: Duration = Duration::from_secs(30);

fn open(start: Start) -> Kmsg {
    assert!(rustix::process::geteuid().is_root(), "the kernel's log is root's: run this as root");
    Kmsg::open(&mut Host::new(Roots::default()), start).unwrap()
}

/// Writes a line into the log, as programs may, with the facility 1. Without the line break the kernel
/// would keep it to itself until the next record, in case that there is more of it.
fn say(text: &str) {
    let mut file = OpenOptions::new().write(true).open("/dev/kmsg").unwrap();
    file.write_all(format!("<14>{text}\n").as_bytes()).unwrap();
}

/// Waits for the log to have more; false when nothing came in this time.
fn wait(kmsg: &Kmsg, time: Duration) -> bool {
    let time = Timespec { tv_sec: time.as_secs() as i64, tv_nsec: time.subsec_nanos().into() };
    poll(&mut [PollFd::new(kmsg, PollFlags::IN)], Some(&time)).unwrap() > 0
}

/// All texts there are.
fn drain(kmsg: &mut Kmsg) -> Vec<String> {
    let mut texts = Vec::new();
    while let Some(record) = kmsg.read().unwrap() {
        texts.push(record.text.to_owned());
    }
    texts
}

/// Reads until this text has come. Not at once: a record can't be read while one before it is being
/// written by another CPU.
fn read_until(kmsg: &mut Kmsg, text: &str) -> bool {
    let deadline = Instant::now() + PATIENCE;
    while Instant::now() < deadline {
        while let Some(record) = kmsg.read().unwrap() {
            if record.text == text {
                return true;
            }
        }
        wait(kmsg, Duration::from_secs(1));
    }
    false
}

/// Reads on until something is found that is wanted, and gives its time too.
fn find<T>(
    kmsg: &mut Kmsg,
    recognizer: &mut Recognizer,
    wanted: impl Fn(Finding) -> Option<T>,
) -> Option<(T, i64)> {
    let deadline = Instant::now() + PATIENCE;
    while Instant::now() < deadline {
        while let Some(record) = kmsg.read().unwrap() {
            let at = unix_ns(&SystemClock, record.usec);
            if let Some(found) = recognizer.look(&record).and_then(&wanted) {
                return Some((found, at));
            }
        }
        wait(kmsg, Duration::from_secs(1));
    }
    None
}

fn now_ns() -> i64 {
    SystemTime::now().duration_since(UNIX_EPOCH).unwrap().as_nanos() as i64
}

/// A memory cgroup with a limit, of whichever version this host has.
struct Group {
    path: PathBuf,
    limit: &'static str,
    kills: &'static str,
}

impl Group {
    fn new(name: &str) -> Group {
        let (root, limit, kills) = match fs::exists("/sys/fs/cgroup/memory").unwrap() {
            true => ("/sys/fs/cgroup/memory", "memory.limit_in_bytes", "memory.oom_control"),
            false => ("/sys/fs/cgroup", "memory.max", "memory.events"),
        };
        if limit == "memory.max" {
            // Already there where systemd has set it.
            let _ = fs::write("/sys/fs/cgroup/cgroup.subtree_control", "+memory");
        }
        let path = Path::new(root).join(format!("mote-{name}-{}.service", std::process::id()));
        fs::create_dir(&path).unwrap();
        fs::write(path.join(limit), (16 << 20).to_string()).unwrap();
        Group { path, limit, kills }
    }

    /// As the kernel calls it.
    fn cgroup(&self) -> String {
        format!("/{}", self.path.file_name().unwrap().to_str().unwrap())
    }

    fn kills(&self) -> u64 {
        let text = fs::read_to_string(self.path.join(self.kills)).unwrap();
        let line = text.lines().find_map(|line| line.strip_prefix("oom_kill ")).unwrap();
        line.trim().parse().unwrap()
    }
}

impl Drop for Group {
    fn drop(&mut self) {
        let _ = fs::write(self.path.join(self.limit), "-1");
        // Its processes have been waited for.
        let _ = fs::remove_dir(&self.path);
    }
}

#[test]
fn a_process_that_is_killed_for_want_of_memory_is_named_with_its_cgroup() {
    let mut host = Host::new(Roots::default());
    let mut kmsg = open(Start::End);
    let mut recognizer = Recognizer::new();
    let group = Group::new("kmsg");
    let folder = tempfile::tempdir().unwrap();
    // A name that looks like the end of one, and like other fields.
    let comm = "x,pid=1) total-";
    let eater = folder.path().join(comm);
    fs::copy("/usr/bin/tail", &eater).unwrap();

    // The kernel leaves the line with the cgroup out when there were ten kills in 5 s, of anybody's.
    let mut kills = 0;
    let kill = loop {
        let mut count = OomCount::default();
        count.look(&mut host).unwrap();
        // Reads one line of which there is no end.
        let script = "echo $$ > \"$0\"; exec \"$1\" /dev/zero";
        let mut child = Command::new("sh")
            .args(["-c", script])
            .args([&group.path.join("cgroup.procs"), &eater])
            .stdout(Stdio::null())
            .spawn()
            .unwrap();
        assert_eq!(child.wait().unwrap().signal(), Some(9), "not killed");
        kills += 1;
        let of_child = |finding: Finding| match finding.notice {
            Notice::OomKill(kill) if kill.pid == child.id() => Some((kill, finding.repeated)),
            _ => None,
        };
        let ((kill, repeated), at) = find(&mut kmsg, &mut recognizer, of_child).expect("no notice");
        assert_eq!((kill.comm.as_str(), kill.uid, repeated), (comm, Some(0), Some(0)));
        assert!(kill.in_cgroup);
        let age = now_ns() - at;
        assert!((0..PATIENCE.as_nanos() as i64).contains(&age), "{age} ns old");
        let [total_vm, anon_rss, file_rss, ..] = kill.memory_kb.map(Option::unwrap_or_default);
        assert!(total_vm > anon_rss && anon_rss > 1 << 10 && file_rss > 0, "{kill:?}");
        assert!(anon_rss <= 16 << 10, "more than the limit: {kill:?}");
        assert_eq!(drain_kills(&mut kmsg, &mut recognizer, &group), 0, "told twice");
        assert_eq!(group.kills(), kills);
        assert!(count.look(&mut host).unwrap().unwrap() >= 1);
        if kill.cgroup.is_some() {
            break kill;
        }
        assert!(kills < 5, "the kernel never named the cgroup");
        std::thread::sleep(Duration::from_secs(5));
    };
    assert_eq!(kill.cgroup.as_deref(), Some(group.cgroup().as_str()), "{kill:?}");
    assert_eq!(kill.limited, kill.cgroup);
    assert_eq!(kill.unit, group.cgroup().trim_start_matches('/'));
}

fn drain_kills(kmsg: &mut Kmsg, recognizer: &mut Recognizer, group: &Group) -> usize {
    let mut kills = 0;
    while let Some(record) = kmsg.read().unwrap() {
        if let Some(Finding { notice: Notice::OomKill(OomKill { cgroup, .. }), .. }) =
            recognizer.look(&record)
        {
            kills += usize::from(cgroup == Some(group.cgroup()));
        }
    }
    kills
}

/// A disk of which the last part has no room behind it: a loop device over a sparse file in a full
/// tmpfs.
struct FullDisk {
    folder: tempfile::TempDir,
    path: PathBuf,
}

impl FullDisk {
    fn new() -> FullDisk {
        let folder = tempfile::tempdir().unwrap();
        run(Command::new("mount")
            .args(["-t", "tmpfs", "-o", "size=1M", "none"])
            .arg(folder.path()));
        let image = folder.path().join("image");
        File::create(&image).unwrap().set_len(16 << 20).unwrap();
        let mut rest = File::create(folder.path().join("rest")).unwrap();
        while rest.write_all(&[0; 4096]).is_ok() {}
        let path = run(Command::new("losetup").args(["--find", "--show"]).arg(&image));
        FullDisk { folder, path: path.trim().into() }
    }

    fn name(&self) -> &str {
        self.path.file_name().unwrap().to_str().unwrap()
    }
}

impl Drop for FullDisk {
    fn drop(&mut self) {
        let _ = Command::new("losetup").arg("--detach").arg(&self.path).status();
        // The device lets go of the file a moment later.
        for _ in 0..100 {
            let unmounted = Command::new("umount")
                .arg(self.folder.path())
                .stderr(Stdio::null())
                .status()
                .is_ok_and(|status| status.success());
            if unmounted {
                break;
            }
            std::thread::sleep(Duration::from_millis(50));
        }
    }
}

fn run(command: &mut Command) -> String {
    let output = command.output().unwrap();
    assert!(output.status.success(), "{command:?}: {}", String::from_utf8_lossy(&output.stderr));
    String::from_utf8(output.stdout).unwrap()
}

/// O_DIRECT wants memory that is aligned like the device's blocks.
#[repr(align(4096))]
struct Aligned([u8; 4096]);

#[test]
fn a_write_that_fails_is_told_with_device_and_sector() {
    let mut kmsg = open(Start::End);
    let mut recognizer = Recognizer::new();
    let disk = FullDisk::new();
    let direct = rustix::fs::OFlags::DIRECT.bits() as i32;
    let file = OpenOptions::new().write(true).custom_flags(direct).open(&disk.path).unwrap();
    let block = Aligned([7; 4096]);
    let of_disk = |finding: Finding| match finding.notice {
        Notice::IoError(io) if io.device == disk.name() => Some(io),
        _ => None,
    };
    // Of all disks together the kernel tells ten in 5 s, and others may have used them up.
    let deadline = Instant::now() + PATIENCE;
    let mut offset = 8 << 20;
    let (sectors, io) = loop {
        let mut sectors = Vec::new();
        for _ in 0..3 {
            offset += 4096;
            file.write_all_at(&block.0, offset).expect_err("room for a block on a full disk");
            sectors.push(offset / 512);
        }
        let mut found = None;
        while let Some(record) = kmsg.read().unwrap() {
            found = found.or(recognizer.look(&record).and_then(of_disk));
        }
        if let Some(found) = found {
            break (sectors, found);
        }
        assert!(Instant::now() < deadline, "no notice of {}", disk.name());
        std::thread::sleep(Duration::from_secs(1));
    };
    let IoError { sector, operation, error, .. } = &io;
    assert!(sectors.contains(&sector.unwrap()), "{io:?}, written were {sectors:?}");
    assert_eq!(*operation, "write");
    // Kernels before 5.10 or so made EIO of what the file system below said.
    assert!(matches!(*error, "ENOSPC" | "EIO"), "{io:?}");
}

/// An ext4 file system that becomes read-only with its first error.
struct Ext4 {
    folder: tempfile::TempDir,
    path: PathBuf,
}

impl Ext4 {
    fn new() -> Ext4 {
        let folder = tempfile::tempdir().unwrap();
        let (image, mount) = (folder.path().join("image"), folder.path().join("mount"));
        File::create(&image).unwrap().set_len(16 << 20).unwrap();
        fs::create_dir(&mount).unwrap();
        run(Command::new("mkfs.ext4").arg("-q").arg(&image));
        let path = run(Command::new("losetup").args(["--find", "--show"]).arg(&image));
        let path = PathBuf::from(path.trim());
        run(Command::new("mount").args(["-o", "errors=remount-ro"]).args([&path, &mount]));
        Ext4 { folder, path }
    }

    fn name(&self) -> &str {
        self.path.file_name().unwrap().to_str().unwrap()
    }
}

impl Drop for Ext4 {
    fn drop(&mut self) {
        let _ = Command::new("umount").arg(self.folder.path().join("mount")).status();
        let _ = Command::new("losetup").arg("--detach").arg(&self.path).status();
    }
}

#[test]
fn a_file_system_that_meets_an_error_is_told_with_what_became_of_it() {
    let mut kmsg = open(Start::End);
    let mut recognizer = Recognizer::new();
    let disk = Ext4::new();
    let trigger = format!("/sys/fs/ext4/{}/trigger_fs_error", disk.name());
    fs::write(trigger, "mote test").unwrap();
    for expected in ["ext4", "read_only"] {
        let of_disk = |finding: Finding| match finding.notice {
            Notice::FilesystemError(fs) if fs.device == disk.name() && fs.error == expected => {
                Some((fs.filesystem, fs.message))
            }
            _ => None,
        };
        let ((filesystem, message), _) =
            find(&mut kmsg, &mut recognizer, of_disk).expect("no notice");
        assert_eq!(filesystem, "ext4");
        assert!(expected != "ext4" || message.ends_with("mote test"), "{message}");
    }
}

#[test]
fn a_position_goes_on_where_it_was_and_repeats_nothing() {
    let marker = |name: &str| format!("mote test position {name} {}", std::process::id());
    let (first, second) = (marker("first"), marker("second"));
    let mut kmsg = open(Start::End);
    say(&first);
    assert!(read_until(&mut kmsg, &first));
    let position = Position::from_bytes(&kmsg.position().to_bytes()).unwrap();
    drop(kmsg);
    say(&second);

    let mut kmsg = open(Start::After(position));
    let texts = drain(&mut kmsg);
    assert!(!texts.contains(&first), "{texts:?}");
    assert!(texts.contains(&second) || read_until(&mut kmsg, &second), "{texts:?}");
    let mut again = open(Start::After(kmsg.position()));
    let texts = drain(&mut again);
    assert!(!texts.contains(&second) && !texts.contains(&first), "{texts:?}");
    let mut end = open(Start::End);
    assert!(!drain(&mut end).contains(&second));

    // Another boot's number means nothing here.
    let began = Instant::now();
    let mut kmsg = open(Start::After(Position { boot: [0; 16], next: u64::MAX }));
    let oldest = kmsg.read().unwrap().unwrap().seq;
    assert_eq!(kmsg.lost(), oldest, "what this boot has overwritten");
    let texts = drain(&mut kmsg);
    assert!(texts.contains(&first) && texts.contains(&second));
    assert_eq!(kmsg.position().boot, position.boot);
    println!("{} records in {:?}", kmsg.position().next - oldest, began.elapsed());
}

#[test]
fn what_a_program_writes_into_the_log_is_no_oom_kill() {
    let mut kmsg = open(Start::End);
    let mut recognizer = Recognizer::new();
    let pid = 4_000_000 + std::process::id() % 100_000;
    let forged = format!("Out of memory: Killed process {pid} (init) total-vm:1kB, anon-rss:1kB");
    // The kernel makes facility 0 the user's.
    let mut file = OpenOptions::new().write(true).open("/dev/kmsg").unwrap();
    file.write_all(format!("<3>{forged}\n").as_bytes()).unwrap();
    let deadline = Instant::now() + PATIENCE;
    loop {
        let Some(record) = kmsg.read().unwrap() else {
            assert!(Instant::now() < deadline, "the line was not in the log");
            wait(&kmsg, Duration::from_secs(1));
            continue;
        };
        let is_forged = record.text == forged;
        let finding = recognizer.look(&record);
        if is_forged {
            assert_eq!((finding, record.facility), (None, 1), "{record:?}");
            break;
        }
    }
}

#[test]
fn a_log_that_is_read_up_wakes_nobody_until_there_is_more() {
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap();
    runtime.block_on(async {
        let mut kmsg = open(Start::End);
        // Others may say something between the last read and the look.
        let quiet = (0..1_000).any(|_| {
            drain(&mut kmsg);
            !wait(&kmsg, Duration::ZERO)
        });
        assert!(quiet, "readable with nothing to read");
        let position = kmsg.position();
        #[allow(deprecated, reason = "the descriptor lives in the AsyncFd and is not exchanged")]
        let mut kmsg = AsyncFd::new(kmsg).unwrap();
        let marker = format!("mote test readiness {}", std::process::id());
        let seen = async {
            loop {
                let mut guard = kmsg.readable_mut().await.unwrap();
                if drain(guard.get_inner_mut()).contains(&marker) {
                    return;
                }
                guard.clear_ready();
            }
        };
        let write = async {
            tokio::time::sleep(Duration::from_millis(50)).await;
            say(&marker);
        };
        let both = async { tokio::join!(seen, write) };
        tokio::time::timeout(PATIENCE, both).await.expect("nobody was woken");
        assert!(kmsg.get_ref().position().next > position.next);
        assert_eq!(kmsg.get_ref().lost(), 0);
    });
}

/// It pushes everything out of this machine's log: run it where nobody needs that.
#[test]
#[ignore = "overwrites this machine's kernel log"]
fn records_that_the_kernel_has_overwritten_are_counted() {
    let mut kmsg = open(Start::End);
    let before = kmsg.position().next;
    let mut oldest = open(Start::After(Position { boot: [0; 16], next: 0 }));
    let seq = |kmsg: &mut Kmsg| kmsg.read().unwrap().map(|record| record.seq);
    let beginning = seq(&mut oldest).unwrap();
    let text = format!("<15>{}\n", "x".repeat(900));
    // Until the ring has no record from before; each open file may write ten in 5 s.
    for _ in 0..10_000 {
        let mut file = OpenOptions::new().write(true).open("/dev/kmsg").unwrap();
        for _ in 0..10 {
            file.write_all(text.as_bytes()).unwrap();
        }
        let mut now = open(Start::After(Position { boot: [0; 16], next: 0 }));
        if seq(&mut now).unwrap() > before + 20 {
            break;
        }
    }
    let first = seq(&mut kmsg).expect("a record");
    assert!(first > before + 20, "the ring is larger than what was written");
    assert_eq!(kmsg.lost(), first - before);
    let mut last = first;
    while let Some(seq) = seq(&mut kmsg) {
        assert_eq!(seq, last + 1, "others wrote enough to overwrite it while it was read");
        last = seq;
    }
    // One that was in the middle of it.
    let next = seq(&mut oldest).expect("a record");
    assert!(next >= first);
    assert_eq!(oldest.lost(), beginning + (next - beginning - 1));
}
