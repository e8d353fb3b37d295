//! Containers whose runs, names and removals the agent sees late or not at all, by Docker's API: what they wrote
//! is read, and nothing of those that are not wanted.

#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic, reason = "test code")]

mod docker_reader;
mod support;

use std::time::Duration;

use docker_reader::{Reader, limits, lines, options};
use mote::logs::Source;
use mote::logs::docker::{Limits, Options, Read, Selector};
use support::Dockerd;
use support::dockerd::{LIST, Message, write_json_file};
use tokio::time::timeout;

#[tokio::test]
async fn runs_that_begin_and_end_unseen_are_read() {
    let daemon = Dockerd::new();
    let id = daemon.run("app");
    daemon.lines(&id, 1, 0..3);
    daemon.die(&id);
    daemon.change(|state| state.faults.hold = true);
    let mut reader = Reader::new(options(&daemon), limits());
    reader.lines(3).await;
    let brief = |lines| {
        daemon.change(|state| {
            state.container(&id).running = true;
            state.event("start", &id);
        });
        daemon.lines(&id, 1, lines);
        daemon.die(&id);
    };
    let seen = |count| daemon.asked(&format!("{id}/json")).len() == count;
    // While an answer is open that was to end with the log; the daemon may say before or afterwards that it runs.
    brief(3..6);
    reader.until("the start is seen", |_| seen(2)).await;
    reader.no_more().await;
    daemon.change(|state| state.faults.hold = false);
    reader.lines(6).await;
    daemon.change(|state| state.faults.hold = true);
    daemon.restart(&id);
    reader.until("the start is seen", |_| !daemon.asked("follow=1").is_empty()).await;
    daemon.lines(&id, 1, 6..9);
    daemon.die(&id);
    reader.lines(9).await;
    daemon.restart(&id);
    reader.until("the start is seen", |_| seen(4)).await;
    daemon.lines(&id, 1, 9..12);
    daemon.die(&id);
    reader.no_more().await;
    daemon.change(|state| state.faults.hold = false);
    reader.lines(12).await;
    // While there is none, and it has ended when the daemon is asked.
    reader.no_more().await;
    daemon.change(|state| {
        state.now_ns += 1_003;
        let (time_ns, text) = (state.now_ns, b"line 12\n".to_vec());
        state.container(&id).log.push(Message { output: 1, time_ns, text });
        state.event("start", &id);
        state.event("die", &id);
    });
    reader.lines(13).await;
    assert_eq!(reader.of("app", "stdout"), lines(0..13));
    daemon.assert_clean();
}

#[tokio::test]
async fn runs_between_two_lists_are_read_where_no_events_are_told() {
    let daemon = Dockerd::new();
    daemon.change(|state| state.faults.refuse.push(("/events".to_owned(), 403, String::new())));
    let status = |id: &str, ago: &str| {
        daemon.change(|state| state.container(id).status = format!("Exited (0) {ago} ago"));
    };
    let id = daemon.run_as("app", |c| c.running = false);
    status(&id, "3 days");
    daemon.lines(&id, 1, 0..3);
    let mut reader = Reader::new(options(&daemon), limits());
    reader.lines(3).await;
    reader.no_more().await;
    assert_eq!(daemon.asked("logs").len(), 1);
    daemon.lines(&id, 1, 3..6);
    status(&id, "Less than a second");
    reader.lines(6).await;
    // No more than it ran.
    status(&id, "10 seconds");
    reader.no_more().await;
    let asked = daemon.asked("logs").len();
    for ago in ["10 seconds", "About a minute", "47 hours", "3 days"] {
        status(&id, ago);
        reader.no_more().await;
    }
    assert_eq!(daemon.asked("logs").len(), asked);
    // Longer ago than the last list, as after an interruption in which the clock was set.
    daemon.lines(&id, 1, 6..9);
    status(&id, "2 hours");
    reader.lines(9).await;
    assert_eq!(reader.of("app", "stdout"), lines(0..9));
    daemon.assert_clean();
}

#[tokio::test]
async fn what_a_removed_container_left_is_read_however_long_that_takes() {
    let daemon = Dockerd::new();
    let relist = Duration::from_millis(30);
    let mut reader = Reader::new(options(&daemon), Limits { relist, ..limits() });
    reader.until("a list", |_| !daemon.asked(LIST).is_empty()).await;
    let id = daemon.run("app");
    daemon.lines(&id, 1, 0..3);
    // The WAL is full, for some lists.
    let _ = timeout(Duration::from_millis(200), reader.source.hold()).await;
    daemon.remove(&id);
    let _ = timeout(Duration::from_millis(200), reader.source.hold()).await;
    reader.lines(3).await;
    assert_eq!(reader.of("app", "stdout"), lines(0..3));
    reader.until("it is forgotten", |reader| reader.positions.is_empty()).await;
    assert_eq!(reader.source.counters().errors, 0);
    // An answer that a daemon does not end is given up, and said so.
    let id = daemon.run("deaf");
    daemon.lines(&id, 1, 0..3);
    daemon.change(|state| state.faults.hold = true);
    reader.lines(6).await;
    daemon.remove(&id);
    reader.until("it is forgotten", |reader| reader.positions.is_empty()).await;
    assert_eq!(reader.source.counters().errors, 1);
    daemon.assert_clean();
}

#[tokio::test]
async fn containers_that_are_gone_make_room_for_those_that_took_their_places() {
    let daemon = Dockerd::new();
    let old: Vec<String> = (0..4).map(|n| daemon.run(&format!("old{n}"))).collect();
    for id in &old {
        daemon.lines(id, 1, 0..2);
    }
    let relist = Duration::from_millis(50);
    let mut reader = Reader::new(options(&daemon), Limits { max_known: 4, relist, ..limits() });
    reader.lines(8).await;
    // As while events are lost.
    let quiet = |name: &str| {
        let id = daemon.run_as(name, |c| c.running = false);
        daemon.lines(&id, 1, 0..2);
        id
    };
    let new = ["new0", "new1", "new2"].map(&quiet);
    reader.no_more().await;
    daemon.change(|state| {
        for id in &old {
            state.container(id).removed = true;
        }
    });
    reader.lines(14).await;
    reader.until("the old ones are forgotten", |reader| reader.positions.len() == 3).await;
    // One place is left, and as many are followed as may be.
    quiet("new3");
    quiet("new4");
    reader.lines(16).await;
    reader.no_more().await;
    daemon.change(|state| state.container(&new[0]).removed = true);
    reader.lines(18).await;
    daemon.assert_clean();
}

#[tokio::test]
async fn a_container_that_gets_an_unwanted_name_is_not_read_from_disk_either() {
    let daemon = Dockerd::new();
    let dir = tempfile::tempdir().unwrap();
    let id = daemon.run("db");
    let folder = dir.path().join("containers").join(&id);
    std::fs::create_dir_all(&folder).unwrap();
    let path = folder.join(format!("{id}-json.log"));
    daemon.change(|state| state.container(&id).log_path = path.display().to_string());
    let write = |lines| {
        daemon.lines(&id, 1, lines);
        write_json_file(&path, &daemon.state().container(&id).log.clone());
    };
    write(0..5);
    let exclude = vec![Selector::parse("tmp-*").unwrap()];
    let options = Options { read: Read::Auto, exclude, ..options(&daemon) };
    let mut reader = Reader::new(options, limits());
    reader.lines(5).await;
    daemon.rename(&id, "tmp-db");
    reader.until("the rename is seen", |_| daemon.asked(&format!("{id}/json")).len() == 2).await;
    reader.no_more().await;
    assert_eq!(reader.source.followed(), (0, 0));
    write(5..10);
    reader.no_more().await;
    // Also by the next run, which knows how far it has been read.
    reader.restart();
    reader.no_more().await;
    daemon.rename(&id, "db");
    reader.lines(10).await;
    reader.no_more().await;
    assert_eq!(reader.of("db", "stdout"), lines(0..10));
    daemon.remove(&id);
    reader.until("it is forgotten", |reader| reader.positions.is_empty()).await;
    daemon.assert_clean();
}
