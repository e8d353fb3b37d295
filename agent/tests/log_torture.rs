//! Log files under rotations, crashes and a concurrent writer: each line once and in order.

// clippy.toml allows these in #[test] functions, not in their helpers.
#![allow(clippy::unwrap_used, clippy::expect_used)]

mod log_bench;

use std::collections::BTreeMap;
use std::fs::{self, OpenOptions};
use std::io::Write;
use std::time::Duration;

use log_bench::*;
use mote::logs::Progress;
use mote::logs::file::Limits;
use tokio::time::{advance, timeout};

/// A repeatable source of chances (xorshift).
struct Dice(u64);

impl Dice {
    fn roll(&mut self, sides: u64) -> u64 {
        self.0 ^= self.0 << 13;
        self.0 ^= self.0 >> 7;
        self.0 ^= self.0 << 17;
        self.0 % sides
    }
}

/// 100,000 lines, with rotations, crashes that throw away blocks, and blocks of all sizes.
async fn torture(seed: u64) {
    let mut bench = Bench::new(&["app.log"]);
    // The kernel frees inotify instances late, and has 128 for each user.
    bench.limits.watch = false;
    bench.restart();
    let mut dice = Dice(seed);
    let (mut line, mut rotations, mut crashes) = (0, 0, 0);
    // A name that is not matched must have been seen, and its position stored, before the next.
    let mut seen = false;
    while line < 100_000 {
        let mut text = String::new();
        for _ in 0..dice.roll(400) {
            text.push_str(&format!("line {line} {}\n", "x".repeat(dice.roll(80) as usize)));
            line += 1;
        }
        // In two writes, now and then with a crash in between.
        let cut = if text.is_empty() { 0 } else { dice.roll(text.len() as u64) as usize };
        bench.append("app.log", &text[..cut]);
        if dice.roll(3) == 0 {
            let commit = dice.roll(4) > 0;
            bench.read_once(1 << dice.roll(18), commit);
            bench.restart();
            crashes += 1;
        }
        bench.append("app.log", &text[cut..]);
        match dice.roll(6) {
            0 => {
                bench.read_once(1 << dice.roll(18), true);
            }
            1 => {
                while bench.read_once(1 << (10 + dice.roll(10)), true) == Progress::More {}
                seen = true;
            }
            2 => {
                bench.read_once(1 << dice.roll(18), true);
                bench.read_once(1 << dice.roll(18), false);
                bench.restart();
                crashes += 1;
            }
            3 => {
                advance(QUIET).await;
                bench.read_once(LIMIT, true);
            }
            _ => {}
        }
        if seen && dice.roll(2) == 0 {
            rotations += 1;
            bench.rename("app.log", &format!("app.log.{rotations}"));
            seen = false;
        }
    }
    bench.read();
    assert!(rotations > 20 && crashes > 50, "{rotations} rotations, {crashes} crashes");
    let number = |(name, text): &(String, String)| {
        assert_eq!(name, "app.log");
        text.split(' ').nth(1).unwrap().parse::<usize>().unwrap()
    };
    let numbers: Vec<usize> = bench.lines.iter().map(number).collect();
    let wrong = numbers.iter().enumerate().find(|&(at, &number)| at != number);
    assert_eq!((wrong, numbers.len()), (None, line), "seed {seed}");
    assert_eq!(bench.source.counters().lost_files, 0);
}

#[tokio::test(start_paused = true)]
async fn each_line_once_and_in_order_through_rotations_and_crashes() {
    for seed in [1, 0x9e37_79b9_7f4a_7c15, 77] {
        torture(seed).await;
    }
}

#[tokio::test]
async fn a_concurrent_writer_that_rotates_loses_nothing() {
    concurrent_writer(true).await;
}

#[tokio::test]
async fn a_concurrent_writer_that_rotates_loses_nothing_without_watches() {
    concurrent_writer(false).await;
}

async fn concurrent_writer(watch: bool) {
    const LINES: usize = 200_000;
    let mut bench = Bench::new(&["app.log*"]);
    bench.limits = Limits { watch, poll: Duration::from_millis(1), ..Limits::default() };
    bench.restart();
    let path = bench.path("app.log");
    let writer = std::thread::spawn(move || {
        let open = || OpenOptions::new().append(true).create(true).open(&path).unwrap();
        let (mut dice, mut file, mut old) = (Dice(5), open(), 0);
        for line in 0..LINES {
            writeln!(file, "line {line}").unwrap();
            if dice.roll(5_000) == 0 {
                old += 1;
                fs::rename(&path, path.with_extension(format!("log.{old}"))).unwrap();
                // As with logrotate's `create`: the new file is there, the old one still in use.
                let new = open();
                writeln!(file, "old {old}").unwrap();
                file = new;
            }
        }
        old
    });
    let (mut dice, mut crashes) = (Dice(9), 0);
    let last = format!("line {}", LINES - 1);
    let mut complete = false;
    while !complete {
        let missing = format!("no wake-up after {} lines", bench.lines.len());
        timeout(Duration::from_secs(9), bench.source.ready()).await.expect(&missing);
        let from = bench.lines.len();
        bench.read_once(LIMIT, true);
        complete = bench.lines[from..].iter().any(|(_, line)| *line == last);
        if crashes < 10 && dice.roll(10) == 0 {
            bench.read_once(LIMIT, false);
            bench.restart();
            crashes += 1;
        }
    }
    let rotations = writer.join().unwrap();
    bench.read();
    assert!(rotations > 10, "{rotations}");
    // A file that was renamed before it was first seen is read under its new name, so that the
    // order holds within a stream only.
    let mut numbers: BTreeMap<&str, Vec<usize>> = BTreeMap::new();
    for (name, text) in &bench.lines {
        if let Some(number) = text.strip_prefix("line ") {
            numbers.entry(name).or_default().push(number.parse().unwrap());
        }
    }
    for (name, numbers) in &numbers {
        let wrong = numbers.windows(2).find(|pair| pair[0] > pair[1]);
        assert_eq!(wrong, None, "{name}");
    }
    let mut all: Vec<usize> = numbers.into_values().flatten().collect();
    all.sort_unstable();
    let twice: Vec<_> = all.windows(2).filter(|pair| pair[0] == pair[1]).take(5).collect();
    let lost: Vec<_> = (0..LINES).filter(|line| all.binary_search(line).is_err()).take(5).collect();
    assert_eq!((twice, lost), Default::default());
    assert_eq!(bench.lines.len(), LINES + rotations);
}
