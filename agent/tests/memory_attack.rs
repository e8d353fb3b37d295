//! The bound on memory under attack: the real binary in a real memory cgroup with the unit's `MemoryMax`, and
//! everything that can be too large too large. Live bytes pass `agent.memory_limit` by no more than a tenth,
//! resident memory stays within the cgroup, nobody is killed, live metrics keep their interval, and what is
//! promised to arrive does. Needs root. `MOTE_LONG_SIEGE=1` makes all of it longer and larger.

#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic, reason = "test code")]

mod siege;
mod support;

use std::time::Duration;

use siege::containers::Containers;
use siege::journal::Backlog;
use siege::logs::{Flood, LongLine};
use siege::mounts::Mounts;
use siege::servers::{Bounds, Down, Targets};
use siege::{Attack, besiege, by_length};

/// `agent.memory_limit` where nobody sets it.
const DEFAULT: u64 = 16 << 20;

/// A board with little.
const TIGHT: u64 = 6 << 20;

fn attacked(attacks: Vec<Box<dyn Attack>>) {
    attacked_with(None, attacks);
}

fn attacked_with(limit: Option<u64>, mut attacks: Vec<Box<dyn Attack>>) {
    let lasts = Duration::from_secs(by_length(4, 60));
    besiege(limit, lasts, &mut attacks).hold(limit.unwrap_or(DEFAULT));
}

#[test]
fn both_backends_down() {
    attacked(vec![Box::new(Down), Box::new(Flood::new(2_000))]);
}

#[test]
fn twenty_thousand_log_lines_a_second() {
    attacked(vec![Box::new(Flood::new(20_000))]);
}

#[test]
fn targets_with_too_many_series_and_without_end() {
    attacked(vec![Box::new(Targets::new(Bounds::Default))]);
}

#[test]
fn targets_that_only_the_memory_limit_bounds() {
    attacked(vec![Box::new(Targets::new(Bounds::Highest))]);
}

#[test]
fn ten_thousand_containers_that_come_and_go() {
    attacked(vec![Box::new(Containers::new())]);
}

#[test]
fn one_line_of_a_gigabyte() {
    attacked(vec![Box::new(LongLine::new(by_length(128 << 20, 1 << 30)))]);
}

#[test]
fn a_journal_to_catch_up_on() {
    attacked(vec![Box::new(Backlog::new(by_length(20_000, 1_000_000), true))]);
}

#[test]
fn five_thousand_mounts() {
    attacked(vec![Box::new(Mounts::new(10))]);
}

#[test]
fn tight_limit() {
    attacked_with(
        Some(TIGHT),
        vec![
            Box::new(Down),
            Box::new(Flood::new(20_000)),
            Box::new(Targets::new(Bounds::Highest)),
            Box::new(LongLine::new(64 << 20)),
        ],
    );
}

#[test]
fn all_of_it_at_once() {
    attacked(vec![
        Box::new(Down),
        Box::new(Flood::new(20_000)),
        Box::new(Targets::new(Bounds::Default)),
        Box::new(Containers::new()),
        Box::new(LongLine::new(by_length(64 << 20, 1 << 30))),
        Box::new(Backlog::new(by_length(20_000, 1_000_000), false)),
        Box::new(Mounts::new(by_length(8, 10))),
    ]);
}
