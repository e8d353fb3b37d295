//! A WAL whose disk fails and comes back, as the tasks of the pipeline see it.

use std::fs;
use std::io;

use super::*;
use crate::wal::{Encoded, OnFull};

impl Log {
    /// A WAL with one reader, "a".
    pub(in crate::pipeline) fn for_test(
        path: &Path,
        wal: Options,
        sync_every: Option<Duration>,
    ) -> Log {
        let options = LogOptions {
            name: if wal.on_full == OnFull::Refuse { "logs" } else { "metrics" },
            path: path.to_owned(),
            wal,
            readers: vec!["a".into()],
            sync_every,
            cursor_every: Duration::from_secs(60),
            memory_bytes: 256 << 10,
        };
        Log::open(options).unwrap()
    }
}

struct Bytes(u8);

impl Payload for Bytes {
    fn encode(&mut self, _fresh: bool, out: &mut Vec<u8>) -> Encoded {
        out.extend_from_slice(&[self.0; 100]);
        Encoded { items: 1, time_ms: i64::from(self.0) }
    }
}

fn log(dir: &tempfile::TempDir) -> Log {
    Log::for_test(dir.path(), Options::new(1 << 20, OnFull::Refuse, 2), None)
}

/// Fails the sync of what was appended, as a tired card does.
fn fail_sync(log: &Log) {
    let failed = log.with(|wal| {
        let job = wal.start_sync().unwrap().unwrap();
        wal.end_sync(&job, Err(io::ErrorKind::Other.into()))
    });
    log.failed(&failed.unwrap().unwrap_err());
}

async fn write(log: &Log, number: u8) {
    log.append(1, &mut Bytes(number)).unwrap();
    log.settle().await;
}

fn read_from(log: &Log, mut at: u64) -> Vec<u8> {
    let (reader, mut payload, mut all) = (log.reader("a").unwrap(), Vec::new(), Vec::new());
    while let Some(record) = log.read(reader, at, &mut payload).unwrap() {
        assert_eq!(payload, [payload[0]; 100]);
        all.push(payload[0]);
        at = record.next;
    }
    all
}

/// What another process would find.
fn on_disk(dir: &tempfile::TempDir) -> Vec<u8> {
    let copy = tempfile::tempdir().unwrap();
    for entry in fs::read_dir(dir.path()).unwrap() {
        let entry = entry.unwrap();
        fs::copy(entry.path(), copy.path().join(entry.file_name())).unwrap();
    }
    read_from(&log(&copy), 0)
}

/// Makes the directory one that can't be opened, and back.
fn take_away(dir: &tempfile::TempDir, away: bool) {
    let (lock, kept) = (dir.path().join("LOCK"), dir.path().join("kept"));
    if away {
        fs::rename(&lock, &kept).unwrap();
        fs::create_dir(&lock).unwrap();
    } else {
        fs::remove_dir(&lock).unwrap();
        fs::rename(&kept, &lock).unwrap();
    }
}

fn newest(dir: &tempfile::TempDir, log: &Log) -> PathBuf {
    let newest = log.with(|wal| wal.segments().next().unwrap()).unwrap();
    dir.path().join(format!("{newest:016x}.wal"))
}

#[tokio::test]
async fn what_is_not_synced_is_not_sent_where_each_record_is() {
    let dir = tempfile::tempdir().unwrap();
    let log = log(&dir);
    write(&log, 1).await;
    log.append(1, &mut Bytes(2)).unwrap();
    assert_eq!(read_from(&log, 0), [1]);
    log.settle().await;
    assert_eq!(read_from(&log, 0), [1, 2]);
    assert_eq!(log.with(|wal| wal.is_synced()), Some(true));
}

#[tokio::test(start_paused = true)]
async fn record_whose_sync_failed_is_written_again_once() {
    let dir = tempfile::tempdir().unwrap();
    let log = log(&dir);
    write(&log, 1).await;
    log.append(1, &mut Bytes(2)).unwrap();
    fail_sync(&log);
    // The disk never gets what the kernel has taken for written.
    let file = newest(&dir, &log);
    let whole = fs::read(&file).unwrap();
    fs::write(&file, &whole[..180]).unwrap();
    write(&log, 3).await;
    assert_eq!(read_from(&log, 0), [1, 2, 3], "2 from what was saved of it, 3 from memory");
    assert!(log.failure().is_some() && log.memory_bytes() > 0);
    tokio::time::advance(MEND).await;
    write(&log, 4).await;
    assert_eq!(read_from(&log, 0), [1, 2, 3, 4]);
    assert_eq!((log.failure(), log.memory_bytes()), (None, 0));
    assert_eq!(on_disk(&dir), [1, 2, 3, 4]);
}

#[tokio::test(start_paused = true)]
async fn nothing_is_lost_nor_reordered_while_the_disk_is_away_and_positions_stay() {
    let dir = tempfile::tempdir().unwrap();
    let log = log(&dir);
    let reader = log.reader("a").unwrap();
    write(&log, 1).await;
    write(&log, 2).await;
    log.append(1, &mut Bytes(3)).unwrap();
    fail_sync(&log);
    take_away(&dir, true);
    for number in 4..10 {
        tokio::time::advance(MEND_MAX).await;
        write(&log, number).await;
        assert!(log.failure().is_some());
    }
    let all: Vec<u8> = (1..10).collect();
    assert_eq!(read_from(&log, 0), all);
    // A reader takes some of what is in memory.
    let (mut at, mut payload) = (0, Vec::new());
    for _ in 0..6 {
        at = log.read(reader, at, &mut payload).unwrap().unwrap().next;
    }
    log.acknowledge(reader, at).await;
    assert_eq!(log.cursor(reader), at);
    assert!(log.keeps_in_memory());
    take_away(&dir, false);
    tokio::time::advance(MEND_MAX).await;
    write(&log, 10).await;
    assert_eq!(read_from(&log, at), [7, 8, 9, 10]);
    assert!(!log.keeps_in_memory());
    assert_eq!(log.cursor(reader), at);
    assert_eq!(
        on_disk(&dir)[..],
        (4..11).collect::<Vec<u8>>()[..],
        "but for the segment that was read"
    );
    assert_eq!(log.stats().records, 10);
}

#[tokio::test(start_paused = true)]
async fn cursor_is_written_at_once_and_synced_now_and_then() {
    let dir = tempfile::tempdir().unwrap();
    let mut log = log(&dir);
    let reader = log.reader("a").unwrap();
    let mut due = Vec::new();
    for number in 1..=9 {
        tokio::time::advance(Duration::from_secs(17)).await;
        write(&log, number).await;
        due.push(log.is_cursor_due(reader));
        let end = log.end();
        log.acknowledge(reader, end).await;
        // As a process that is started after this one was killed finds it.
        let disk = Disk::new(dir.path()).unwrap();
        let seen = Wal::open_to_read(disk, log.options.wal, &["a"]).unwrap();
        assert_eq!(seen.cursor(seen.reader("a").unwrap()), end);
    }
    assert_eq!(due, [false, false, false, true, false, false, false, true, false]);
    log.options.cursor_every = Duration::ZERO;
    assert!(log.is_cursor_due(reader) && log.is_cursor_due(reader));
}

#[tokio::test(start_paused = true)]
async fn disk_is_tried_with_growing_pauses() {
    let dir = tempfile::tempdir().unwrap();
    let log = log(&dir);
    write(&log, 1).await;
    log.append(1, &mut Bytes(2)).unwrap();
    fail_sync(&log);
    take_away(&dir, true);
    let mut tries = 0;
    let mut before = log.mend_at.get();
    for _ in 0..600 {
        tokio::time::advance(Duration::from_secs(1)).await;
        let _ = log.append(1, &mut Bytes(3));
        tries += u32::from(std::mem::replace(&mut before, log.mend_at.get()) != log.mend_at.get());
    }
    assert!((12..=18).contains(&tries), "{tries} in ten minutes");
}

#[tokio::test(start_paused = true)]
async fn memory_has_a_bound_and_what_it_drops_is_counted() {
    let dir = tempfile::tempdir().unwrap();
    let log = Log::for_test(dir.path(), Options::new(1 << 20, OnFull::DropOldest, 1), None);
    write(&log, 1).await;
    log.append(1, &mut Bytes(2)).unwrap();
    fail_sync(&log);
    take_away(&dir, true);
    for _ in 0..10_000 {
        write(&log, 7).await;
        assert!(log.memory_bytes() <= 256 << 10);
    }
    let kept = read_from(&log, 0).len() as u64;
    assert!(kept > 1_000, "{kept}");
    assert_eq!(log.stats().evicted_items, 10_002 - kept);
    assert_eq!(log.take_losses().iter().map(|loss| loss.items).sum::<u64>(), 10_002 - kept);
}

#[tokio::test(start_paused = true)]
async fn sources_pause_when_memory_is_full_and_go_on_when_a_reader_has_taken_it() {
    let dir = tempfile::tempdir().unwrap();
    let log = log(&dir);
    let reader = log.reader("a").unwrap();
    write(&log, 1).await;
    log.append(1, &mut Bytes(2)).unwrap();
    fail_sync(&log);
    take_away(&dir, true);
    let mut written = 2;
    while log.append(1, &mut Bytes(3)).is_ok() {
        log.settle().await;
        written += 1;
    }
    assert!(matches!(log.append(1, &mut Bytes(3)), Err(AppendError::Full { .. })));
    assert_eq!(read_from(&log, 0).len(), written);
    log.acknowledge(reader, u64::MAX).await;
    write(&log, 4).await;
    assert_eq!(log.stats().evicted_items, 0);
}

#[tokio::test(start_paused = true)]
async fn deleted_directory_is_noticed_and_made_anew() {
    let parent = tempfile::tempdir().unwrap();
    let path = parent.path().join("wal");
    let log = Log::for_test(&path, Options::new(1 << 20, OnFull::DropOldest, 1), None);
    write(&log, 1).await;
    write(&log, 2).await;
    fs::remove_dir_all(&path).unwrap();
    write(&log, 3).await;
    assert_eq!((log.failure(), log.memory_bytes()), (None, 0));
    assert_eq!(read_from(&log, 0), [1, 2, 3], "the open file could still be read");
    fs::remove_dir_all(&path).unwrap();
    fs::write(&path, "in the way").unwrap();
    write(&log, 4).await;
    assert!(log.failure().is_some() && log.memory_bytes() > 0);
    assert_eq!(
        read_from(&log, 0),
        [3, 4],
        "the file that is written to is still open, the one before is not"
    );
    fs::remove_file(&path).unwrap();
    tokio::time::advance(MEND_MAX).await;
    write(&log, 5).await;
    assert_eq!(log.failure(), None);
    assert_eq!(read_from(&log, 0), [3, 4, 5]);
    drop(log);
    let again = Log::for_test(&path, Options::new(1 << 20, OnFull::DropOldest, 1), None);
    assert_eq!(read_from(&again, 0), [3, 4, 5]);
}

#[tokio::test(start_paused = true)]
async fn disk_without_room_to_spare_is_left_alone() {
    let dir = tempfile::tempdir().unwrap();
    let options = Options { min_free: 1 << 60, ..Options::new(1 << 20, OnFull::DropOldest, 1) };
    let log = Log::for_test(dir.path(), options, None);
    write(&log, 1).await;
    assert!(log.failure().unwrap().contains("min_free"), "{:?}", log.failure());
    write(&log, 2).await;
    assert_eq!(read_from(&log, 0), [1, 2]);
    assert_eq!(log.bytes(), 1_024, "the cursor alone");
}

#[tokio::test]
async fn readers_and_writers_are_woken_when_the_wal_is_open_again() {
    let dir = tempfile::tempdir().unwrap();
    let log = log(&dir);
    log.append(1, &mut Bytes(1)).unwrap();
    fail_sync(&log);
    log.mend_at.set(Instant::now());
    let (appended, freed) = (log.appended(), log.freed());
    log.append(1, &mut Bytes(2)).unwrap();
    let both = async { tokio::join!(appended, freed) };
    tokio::time::timeout(Duration::from_secs(5), both).await.unwrap();
}

#[tokio::test(start_paused = true)]
async fn a_sync_that_hangs_with_a_disk_that_was_taken_away_does_not_hold_up_the_next_disk() {
    let dir = tempfile::tempdir().unwrap();
    let log = log(&dir);
    log.append(1, &mut Bytes(1)).unwrap();
    let hanging = Syncing::begin(&log.syncing.borrow());
    log.synced_device.set(log.device());
    log.with(Wal::break_off);
    log.append(1, &mut Bytes(2)).unwrap();
    tokio::time::advance(MEND_MAX).await;
    log.mend();
    assert!(log.failure().is_some(), "not held up by a sync of the same disk");
    // As if another device were mounted there.
    log.synced_device.set(None);
    tokio::time::advance(MEND_MAX).await;
    log.mend();
    assert_eq!(log.failure(), None);
    assert!(!log.is_syncing() && !log.keeps_in_memory());
    drop(hanging);
    assert!(!log.is_syncing());
}

#[tokio::test(start_paused = true)]
async fn what_goes_when_the_log_is_closed_is_lost_though_a_reader_held_it() {
    let dir = tempfile::tempdir().unwrap();
    let options = Options::new(1 << 20, OnFull::DropOldest, 1);
    let log = Log::for_test(dir.path(), options, Some(Duration::from_secs(60)));
    let reader = log.reader("a").unwrap();
    while log.bytes() < 900 << 10 {
        log.append(1, &mut Bytes(1)).unwrap();
    }
    log.sync().await.unwrap();
    log.append(1, &mut Bytes(1)).unwrap();
    log.hold(reader, log.end());
    fail_sync(&log);
    for _ in 0..1_500 {
        log.append(1, &mut Bytes(2)).unwrap();
    }
    assert!(log.keeps_in_memory());
    log.give_up_held();
    assert_eq!(log.take_losses(), []);
    log.close().await;
    assert!(!log.keeps_in_memory());
    let left = read_from(&log, log.cursor(reader)).len();
    let lost: u64 = log.take_losses().iter().map(|loss| loss.items).sum();
    assert!(lost > 0, "{left} are left");
}
