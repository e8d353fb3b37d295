//! Every collector on each fixture, compared byte by byte with `fixtures/<name>.prom`. After a change
//! on purpose: `MOTE_GOLDEN=write cargo test -p agent --test collectors_golden`.
#![allow(clippy::unwrap_used, clippy::panic, reason = "a test fails by panicking")]

mod fixtures;

use std::fs;

use mote::collector::{Outcome, Set};

/// What this machine and this moment say, not the fixture.
const NOT_THE_FIXTURES: &[&str] = &[
    "node_uname_info{",
    "container_last_seen{",
    "container_start_time_seconds{",
    "node_time_seconds ",
    "node_timex_",
    "node_time_zone_offset_seconds{",
    "node_scrape_collector_duration_seconds{",
    "mote_collector_duration_seconds{",
    "node_textfile_mtime_seconds{",
];

#[test]
fn each_fixture_gives_its_golden_text() {
    for name in fixtures::TREES {
        gives_its_golden_text(name);
    }
}

fn gives_its_golden_text(name: &str) {
    let tree = fixtures::tree(name);
    let mut host = fixtures::host(&tree);
    let mut set = Set::new(|_| true, &fixtures::options());
    let text = fixtures::collect(&mut set, &mut host);
    for status in set.status() {
        let failed = matches!(status.outcome, Outcome::Failed(_) | Outcome::Pending);
        assert!(!failed, "{name}: {}: {:?}", status.name, status.outcome);
    }
    // The second collection reads through buffers and memories that the first has filled.
    assert_eq!(masked(&fixtures::collect(&mut set, &mut host)), masked(&text));

    let golden = tree.with_extension("prom");
    if std::env::var_os("MOTE_GOLDEN").is_some_and(|value| value == "write") {
        fs::write(&golden, masked(&text)).unwrap();
    }
    let expected = fs::read_to_string(&golden).unwrap();
    for (number, (got, want)) in masked(&text).lines().zip(expected.lines()).enumerate() {
        assert_eq!(got, want, "line {} of {}", number + 1, golden.display());
    }
    assert_eq!(masked(&text), expected);
}

fn masked(text: &str) -> String {
    let kept = |line: &&str| !NOT_THE_FIXTURES.iter().any(|other| line.starts_with(other));
    text.lines().filter(kept).flat_map(|line| [line, "\n"]).collect()
}

#[test]
fn the_page_of_collectors_has_each_of_them_in_order() {
    let page = include_str!("../../docs/collectors.md");
    let rows: Vec<_> = page
        .lines()
        .filter_map(|line| {
            let mut cells = line.strip_prefix("| `")?.split(" | ");
            let name = cells.next()?.trim_end_matches('`');
            Some((name.to_owned(), cells.next()?.to_owned()))
        })
        .collect();
    let runs = |entry: &mote::collector::Entry| {
        let when = if entry.default { "by default" } else { "if enabled" };
        match entry.every.as_secs() {
            0 => when.to_owned(),
            seconds => format!("{when}, every {} min", seconds / 60),
        }
    };
    let table: Vec<_> =
        mote::collector::TABLE.iter().map(|entry| (entry.name.to_owned(), runs(entry))).collect();
    assert_eq!(rows, table);
}
