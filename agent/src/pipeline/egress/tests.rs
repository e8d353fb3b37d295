//! Days of bytes, restarts and clocks that step.

use super::*;

const MIB: u64 = 1 << 20;
const HOUR: i64 = 3_600_000;
/// A midnight.
const TODAY: i64 = 20_000 * DAY_MS;
use Share::{Backlog, LiveLogs, LiveMetrics};

fn open(dir: &tempfile::TempDir, now_ms: i64) -> Egress {
    Egress::open(dir.path(), Some(64 * MIB), now_ms)
}

fn close(egress: &Egress) {
    let mut runtime = tokio::runtime::Builder::new_current_thread();
    let runtime = runtime.enable_time().build().unwrap();
    runtime.block_on(egress.close());
    // As the agent does.
    runtime.shutdown_timeout(Duration::from_millis(100));
}

fn waits(egress: &Egress, now_ms: i64) -> [Option<Reason>; 3] {
    [LiveMetrics, LiveLogs, Backlog]
        .map(|share| egress.wait(share, now_ms).map(|(reason, _)| reason))
}

#[test]
fn bytes_on_disk_are_these() {
    let mut book = Book::default();
    book.turn_to(20_000);
    book.days[0].bytes = 7;
    book.turn_to(20_001);
    book.metrics = Need { bytes: 0x0102, ms: 3 };
    let bytes = book.to_bytes();
    let numbers = [20_001_u64, 0, 20_000, 7, 0, 0, 0, 0, 0x0102, 3, 0, 0];
    let mut expected = b"MOTEEGR1".to_vec();
    numbers.iter().for_each(|number| expected.extend(number.to_le_bytes()));
    expected.extend(crc32c::crc32c(&expected).to_le_bytes());
    assert_eq!(bytes.as_slice(), expected);
    assert_eq!(Book::from_bytes(&bytes), Some(book));
    for at in 0..LEN {
        let mut damaged = bytes;
        damaged[at] ^= 0x10;
        assert_eq!(Book::from_bytes(&damaged), None, "{at}");
        assert_eq!(Book::from_bytes(&bytes[..at]), None, "{at}");
    }
}

#[test]
fn without_a_bound_nothing_waits_and_nothing_is_written() {
    let dir = tempfile::tempdir().unwrap();
    let egress = Egress::open(dir.path(), None, TODAY);
    egress.spent(LiveMetrics, u64::MAX, TODAY);
    assert_eq!(waits(&egress, TODAY), [None; 3]);
    close(&egress);
    assert!(!dir.path().join("egress").exists());
}

#[test]
fn everything_waits_when_the_day_is_used_up_and_goes_on_after_midnight() {
    let dir = tempfile::tempdir().unwrap();
    let egress = open(&dir, TODAY);
    egress.spent(Backlog, 64 * MIB - 1, TODAY);
    assert_eq!(waits(&egress, TODAY), [None; 3]);
    egress.spent(Backlog, 1, TODAY + 20 * HOUR);
    let late = TODAY + DAY_MS - 60_000;
    assert_eq!(waits(&egress, late), [Some(Reason::Spent); 3]);
    let (_, wait) = egress.wait(LiveMetrics, late).unwrap();
    let minute = Duration::from_secs(60);
    assert!(wait >= minute && wait <= minute + SPREAD, "{wait:?}");
    assert_eq!(waits(&egress, TODAY + DAY_MS), [None; 3]);
}

#[tokio::test(start_paused = true)]
async fn logs_and_backlogs_wait_for_what_metrics_need_until_midnight() {
    let dir = tempfile::tempdir().unwrap();
    let egress = open(&dir, TODAY);
    // A MiB of metrics an hour, and of logs.
    for minute in 0..12 * 60 {
        tokio::time::advance(Duration::from_secs(60)).await;
        let now = TODAY + minute * 60_000;
        egress.spent(LiveMetrics, MIB / 60, now);
        egress.spent(LiveLogs, MIB / 60, now);
        assert_eq!(waits(&egress, now), [None; 3], "{minute}");
    }
    // 40 MiB are left of 64, and 24 of them are needed.
    let noon = TODAY + 12 * HOUR;
    egress.spent(Backlog, 15 * MIB, noon);
    assert_eq!(waits(&egress, noon), [None; 3]);
    egress.spent(Backlog, 2 * MIB, noon);
    assert_eq!(waits(&egress, noon), [None, None, Some(Reason::Reserved)]);
    assert!(egress.wait(Backlog, noon).unwrap().1 <= LOOK);
    // A burst of logs takes what is left beyond the metrics.
    egress.spent(LiveLogs, 11 * MIB + MIB / 2, noon);
    assert_eq!(waits(&egress, noon), [None, Some(Reason::Reserved), Some(Reason::Reserved)]);
    // Later less is needed.
    assert_eq!(waits(&egress, TODAY + 23 * HOUR), [None; 3]);
}

#[test]
fn power_cut_forgets_little_and_never_gives_a_byte_twice() {
    let dir = tempfile::tempdir().unwrap();
    let mut real = 0;
    let mut egress = open(&dir, TODAY);
    for step in 0..200_u64 {
        if egress.wait(LiveMetrics, TODAY).is_some() {
            break;
        }
        egress.spent(LiveMetrics, 100_000 + step * 5_000, TODAY);
        real += 100_000 + step * 5_000;
        if step % 10 == 9 {
            // What the last process counted is gone.
            egress = open(&dir, TODAY);
            let said = egress.day(TODAY).unwrap().1;
            assert!(said >= real && said - real <= (step / 10 + 1) * MIB, "{said} of {real}");
        }
    }
    assert!(real <= 64 * MIB + 1_100_000, "{real}");
    assert!(real >= 40 * MIB, "{real}: too much was forgotten");
    // An orderly end is exact.
    let dir = tempfile::tempdir().unwrap();
    let egress = open(&dir, TODAY);
    egress.spent(LiveMetrics, 12_345, TODAY);
    close(&egress);
    assert_eq!(open(&dir, TODAY + HOUR).day(TODAY + HOUR), Some((64 * MIB, 12_345)));
}

#[test]
fn disk_that_hangs_does_not_hold_up_the_end() {
    let dir = tempfile::tempdir().unwrap();
    let egress = open(&dir, TODAY);
    egress.spent(LiveMetrics, 12_345, TODAY);
    // Nobody ever reads from it: to open it hangs.
    let pipe = dir.path().join("egress.new");
    let made = std::process::Command::new("mkfifo").arg(&pipe).status().unwrap();
    assert!(made.success());
    let began = std::time::Instant::now();
    close(&egress);
    let took = began.elapsed();
    assert!(took >= PATIENCE && took < 3 * PATIENCE, "{took:?}");
    // It says more than was sent, and never less.
    assert!(open(&dir, TODAY).day(TODAY).unwrap().1 > 12_345);
    drop(File::options().read(true).write(true).open(&pipe).unwrap());
}

#[test]
fn file_is_written_rarely() {
    let dir = tempfile::tempdir().unwrap();
    let egress = open(&dir, TODAY);
    for _ in 0..64 * 1024 {
        egress.spent(LiveMetrics, 1024, TODAY);
    }
    assert!((60..=65).contains(&egress.writes.get()), "{}", egress.writes.get());
}

#[test]
fn clock_that_steps_gives_no_day_twice() {
    let dir = tempfile::tempdir().unwrap();
    let mut egress = open(&dir, TODAY);
    egress.spent(LiveMetrics, 64 * MIB, TODAY);
    // Forward, to a day that counts too, and back; over a restart as well.
    for again in 0..3 {
        for (day, spent) in [(1, again == 0), (0, false), (-10_000, false), (3_000, again == 0)] {
            let now = TODAY + day * DAY_MS;
            assert_eq!(egress.wait(LiveMetrics, now).is_none(), spent, "{again} {day}");
            egress.spent(LiveMetrics, if spent { 64 * MIB } else { 0 }, now);
        }
        close(&egress);
        egress = open(&dir, TODAY - 400 * DAY_MS);
        assert!(egress.wait(LiveMetrics, TODAY - 400 * DAY_MS).is_some());
    }
    // The day after, although a clock has been years ahead.
    assert_eq!(waits(&egress, TODAY + 2 * DAY_MS), [None; 3]);
}

#[test]
fn damaged_file_counts_as_the_part_of_the_day() {
    let dir = tempfile::tempdir().unwrap();
    fs::write(dir.path().join("egress"), b"MOTEEGR1 and something").unwrap();
    let egress = open(&dir, TODAY + 6 * HOUR);
    assert_eq!(egress.day(TODAY + 6 * HOUR), Some((64 * MIB, 16 * MIB)));
    let dir = tempfile::tempdir().unwrap();
    fs::create_dir(dir.path().join("egress")).unwrap();
    let egress = open(&dir, TODAY + 12 * HOUR);
    assert_eq!(egress.day(TODAY + 12 * HOUR), Some((64 * MIB, 32 * MIB)));
    // What can't be written stops nothing.
    egress.spent(LiveMetrics, MIB, TODAY + 12 * HOUR);
    egress.spent(LiveMetrics, 2 * MIB, TODAY + 12 * HOUR);
    close(&egress);
    assert_eq!(egress.day(TODAY + 12 * HOUR), Some((64 * MIB, 35 * MIB)));
}
