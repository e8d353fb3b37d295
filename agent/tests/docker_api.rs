//! Containers' logs by Docker's API, from a strict server that plays it: each message once and in order, over
//! connections that are cut anywhere, restarts of both sides, containers that come and go, and a server that
//! refuses, hangs and dribbles.

#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic, reason = "test code")]

mod docker_reader;
mod support;

use std::time::Duration;

use docker_reader::{Entry, Positions, Reader, limits, lines, options};
use mote::logs::docker::{KEY_PREFIX, Limits, Options, Read, Selector};
use mote::logs::{Progress, Source};
use serde_json::json;
use support::dockerd::{LIST, Message, START, expected, write_json_file};
use support::{Dice, Dockerd};
use tokio::time::{Instant, timeout};

#[tokio::test]
async fn frames_raw_output_and_parts_arrive_in_pieces_of_any_size() {
    let daemon = Dockerd::new();
    let labels =
        json!({ "com.docker.compose.project": "shop", "com.docker.compose.service": "web" });
    let web = daemon.run_as("web", |c| c.labels = labels);
    let tty = daemon.run_as("shell", |c| c.tty = true);
    daemon.change(|state| state.faults.dribble = Some(97));
    let part = "x".repeat(16 << 10);
    for text in ["one\n", "\n", "  tab\tü\r\n", &part, &part, "end\n", "no end"] {
        daemon.write(&web, 1, text);
        daemon.write(&tty, 1, &text.replace('\n', "\r\n").replace("\r\r", "\r"));
    }
    daemon.write(&web, 2, "err\n");
    let mut reader = Reader::new(options(&daemon), limits());
    reader.lines(14).await;
    daemon.die(&web);
    daemon.die(&tty);
    reader.until("the last line of a terminal", |reader| reader.entries.len() >= 15).await;
    reader.no_more().await;
    let expected = ["one", "", "  tab\tü", &part, &part, "end", "no end"];
    assert_eq!(reader.of("web", "stdout"), expected);
    assert_eq!(reader.of("web", "stderr"), ["err"]);
    assert_eq!(reader.of("shell", "stdout"), expected);
    // Docker's last line without an end goes on nowhere.
    for name in ["web", "shell"] {
        let partial = |e: &&Entry| e.label("container") == name && e.partial;
        assert_eq!(reader.entries.iter().filter(partial).count(), 2, "{name}");
    }
    let first = reader.entries.iter().find(|entry| entry.label("container") == "web").unwrap();
    let text = "{__container_id__=\"ID\", __source__=\"docker\", compose_project=\"shop\", \
                compose_service=\"web\", container=\"web\", image=\"busybox:1\", stream=\"stdout\"}";
    assert_eq!(first.labels.to_string(), text.replace("ID", &web));
    assert_eq!(first.time_ns, START + 1_003);
    daemon.assert_clean();
}

#[tokio::test]
async fn parts_that_are_cut_at_max_line_are_parts() {
    let daemon = Dockerd::new();
    let web = daemon.run("web");
    let tty = daemon.run_as("shell", |c| c.tty = true);
    let part = "x".repeat(16 << 10);
    for text in [&part, &part, "end\n", "no end"] {
        daemon.write(&web, 1, text);
        daemon.write(&tty, 1, &text.replace('\n', "\r\n"));
    }
    let mut options = options(&daemon);
    options.max_line = 8 << 10;
    let mut reader = Reader::new(options, limits());
    reader.lines(7).await;
    daemon.die(&web);
    daemon.die(&tty);
    reader.lines(8).await;
    for name in ["web", "shell"] {
        let of = reader.entries.iter().filter(|e| e.label("container") == name);
        let parts: Vec<_> = of.map(|entry| (entry.line.len(), entry.partial)).collect();
        assert_eq!(parts, [(8 << 10, true), (8 << 10, true), (3, false), (6, false)], "{name}");
    }
    daemon.assert_clean();
}

#[tokio::test]
async fn connections_that_are_cut_anywhere_lose_and_repeat_nothing() {
    for (podman, filters_each) in [(false, false), (false, true), (true, false)] {
        let daemon = Dockerd::new();
        let id = daemon.run("app");
        daemon.change(|state| {
            state.faults.cut = Some(8_000);
            (state.faults.podman, state.faults.filters_each) = (podman, filters_each);
        });
        let mut dice = Dice::new(7);
        let mut reader = Reader::new(options(&daemon), limits());
        for round in 0..20 {
            daemon.change(|state| {
                for n in 0..30u32 {
                    // Outputs stand a little out of order, or share a time; now and then time passes.
                    state.now_ns += [0, 0, 1, -1, 900, 400_000_000][dice.roll(6) as usize];
                    let text = format!("{round} {n}\n").into_bytes();
                    let (output, time_ns) = (1 + dice.roll(2) as u8, state.now_ns);
                    state.container(&id).log.push(Message { output, time_ns, text });
                }
            });
            if dice.roll(3) == 0 {
                reader.restart();
            }
            let _ = timeout(dice.millis(1, 30), reader.source.ready()).await;
            reader.read();
        }
        reader.until("all of it", |r| r.entries.len() >= 600).await;
        reader.no_more().await;
        let expected = expected(daemon.state().container(&id));
        assert_eq!(reader.of("app", "stdout"), expected[&1], "podman: {podman}");
        assert_eq!(reader.of("app", "stderr"), expected[&2], "podman: {podman}");
        // Loki would drop what has the same time and text; here no two share a time.
        if podman {
            let mut times: Vec<_> =
                reader.entries.iter().map(|e| (e.label("stream").to_owned(), e.time_ns)).collect();
            times.sort();
            times.dedup();
            assert_eq!(times.len(), 600);
        }
        assert!(daemon.asked("&since=").len() > 3);
        daemon.assert_clean();
    }
}

#[tokio::test]
async fn a_container_goes_on_over_its_restarts_and_is_forgotten_with_its_removal() {
    let daemon = Dockerd::new();
    let mut reader = Reader::new(options(&daemon), limits());
    reader.until("a list", |_| !daemon.asked(LIST).is_empty()).await;
    reader.no_more().await;
    let id = daemon.run("app");
    let key = format!("{KEY_PREFIX}{id}");
    daemon.lines(&id, 1, 0..10);
    reader.lines(10).await;
    daemon.lines(&id, 1, 10..20);
    daemon.die(&id);
    reader.lines(20).await;
    reader.restart();
    reader.no_more().await;
    daemon.restart(&id);
    daemon.lines(&id, 1, 20..30);
    reader.lines(30).await;
    assert!(reader.positions.contains_key(&key));
    // What is left when it is removed is read; its position goes.
    daemon.lines(&id, 1, 30..2_000);
    daemon.remove(&id);
    reader.until("it is forgotten", |reader| !reader.positions.contains_key(&key)).await;
    assert_eq!(reader.of("app", "stdout"), lines(0..2_000));
    assert_eq!(reader.positions, Positions::new());
    // One that was removed while nobody looked is forgotten too.
    let id = daemon.run("other");
    daemon.lines(&id, 1, 0..1);
    reader.lines(2_001).await;
    daemon.change(|state| state.container(&id).removed = true);
    reader.restart();
    reader.until("it is forgotten", |reader| reader.positions.is_empty()).await;
    daemon.assert_clean();
}

#[tokio::test]
async fn a_container_is_read_by_its_new_name_or_not_at_all() {
    let daemon = Dockerd::new();
    let id = daemon.run("old");
    daemon.lines(&id, 1, 0..5);
    let out = daemon.run_as("out", |c| c.labels = json!({ "mote.logs": "false" }));
    daemon.lines(&out, 1, 0..5);
    let db = daemon.run("db-1");
    daemon.lines(&db, 1, 0..5);
    let mut options = options(&daemon);
    options.exclude = vec![Selector::parse("db-*").unwrap()];
    let mut reader = Reader::new(options, limits());
    reader.lines(5).await;
    daemon.rename(&id, "new\n");
    reader.until("the rename is seen", |_| daemon.asked(&format!("{id}/json")).len() == 2).await;
    reader.no_more().await;
    daemon.lines(&id, 1, 5..10);
    reader.lines(10).await;
    assert_eq!(reader.of("old", "stdout"), lines(0..5));
    assert_eq!(reader.of("new\u{fffd}", "stdout"), lines(5..10));
    // Out of the excluded names, and back into them.
    daemon.rename(&db, "sql");
    reader.lines(15).await;
    daemon.rename(&db, "db-2");
    reader.until("the rename is seen", |_| daemon.asked(&format!("{db}/json")).len() == 3).await;
    reader.no_more().await;
    daemon.lines(&db, 1, 5..10);
    reader.no_more().await;
    daemon.rename(&db, "sql");
    reader.lines(20).await;
    assert_eq!(reader.of("sql", "stdout"), lines(0..10));
    daemon.assert_clean();
}

#[tokio::test]
async fn refusals_and_hangs_of_one_container_stop_no_other() {
    let daemon = Dockerd::new();
    let names = ["gone", "dead", "broken", "deaf", "unreadable", "foreign"];
    let ids = names.map(|name| daemon.run(name));
    let [gone, dead, broken, deaf, unreadable, foreign] = &ids;
    daemon.change(|state| {
        for (id, code, text) in [
            (gone, 404, "No such container"),
            (dead, 409, "can not get logs from container which is dead or marked for removal"),
            (broken, 500, "boom"),
            (unreadable, 501, "configured logging driver does not support reading"),
        ] {
            state.faults.refuse.push((format!("{id}/logs"), code, text.to_owned()));
        }
        state.faults.hang.push(format!("{deaf}/logs"));
        state.container(foreign).log.push(Message {
            output: 9,
            time_ns: START,
            text: b"what is this\n".to_vec(),
        });
    });
    let good = daemon.run("good");
    daemon.lines(&good, 2, 0..100);
    let mut reader = Reader::new(options(&daemon), limits());
    reader.lines(100).await;
    for id in &ids {
        daemon.lines(id, 1, 0..3);
    }
    reader.no_more().await;
    assert_eq!(reader.of("good", "stderr"), lines(0..100));
    assert!(reader.source.counters().errors >= 4);
    // It is not asked over and over, and asked again when it is started anew.
    assert_eq!(daemon.asked(&format!("{unreadable}/logs")).len(), 1);
    let tries = daemon.asked(&format!("{broken}/logs")).len();
    assert!((2..60).contains(&tries), "{tries}");
    daemon.change(|state| {
        state.faults.refuse.clear();
        state.faults.hang.clear();
        state.container(foreign).log.remove(0);
    });
    daemon.die(unreadable);
    daemon.restart(unreadable);
    reader.lines(100 + 6 * 3).await;
    for name in names {
        assert_eq!(reader.of(name, "stdout"), lines(0..3), "{name}");
    }
    daemon.assert_clean();
}

#[tokio::test]
async fn a_daemon_that_hangs_in_describing_one_container_tells_of_the_others() {
    let daemon = Dockerd::new();
    let deaf = daemon.run("deaf");
    daemon.change(|state| state.faults.hang.push(format!("{deaf}/json")));
    let good = daemon.run("good");
    daemon.lines(&deaf, 1, 0..3);
    daemon.lines(&good, 1, 0..3);
    let mut reader = Reader::new(options(&daemon), limits());
    reader.lines(6).await;
    assert_eq!(
        (reader.of("deaf", "stdout"), reader.of("good", "stdout")),
        (lines(0..3), lines(0..3))
    );
    daemon.assert_clean();
}

#[tokio::test]
async fn a_proxy_that_refuses_events_and_descriptions_costs_lists() {
    let daemon = Dockerd::over_tcp();
    daemon.change(|state| {
        let refuse = |part: &str| (part.to_owned(), 403, String::new());
        state.faults.refuse = vec![refuse("/events"), refuse("/json\0"), refuse("0/json")];
    });
    let first = daemon.run("first");
    daemon.lines(&first, 1, 0..3);
    let mut reader = Reader::new(options(&daemon), limits());
    reader.lines(3).await;
    let second = daemon.run("second");
    daemon.lines(&second, 2, 0..3);
    reader.lines(6).await;
    daemon.die(&second);
    reader.no_more().await;
    daemon.restart(&second);
    daemon.lines(&second, 2, 3..6);
    reader.lines(9).await;
    daemon.remove(&first);
    let key = format!("{KEY_PREFIX}{first}");
    reader.until("it is forgotten", |reader| !reader.positions.contains_key(&key)).await;
    assert_eq!(reader.of("second", "stderr"), lines(0..6));
    daemon.assert_clean();
}

#[tokio::test]
async fn a_daemon_that_comes_late_and_is_restarted_is_found() {
    let mut daemon = Dockerd::stopped();
    let mut reader = Reader::new(options(&daemon), limits());
    reader.no_more().await;
    let id = daemon.run("app");
    daemon.lines(&id, 1, 0..10);
    daemon.start();
    reader.lines(10).await;
    daemon.stop();
    daemon.lines(&id, 1, 10..20);
    reader.no_more().await;
    let other = daemon.run("other");
    daemon.lines(&other, 1, 0..5);
    daemon.start();
    reader.lines(25).await;
    assert_eq!(reader.of("app", "stdout"), lines(0..20));
    // And what was stored when it was away is not forgotten.
    daemon.stop();
    reader.restart();
    reader.no_more().await;
    assert_eq!(reader.positions.len(), 2);
    daemon.start();
    daemon.lines(&id, 1, 20..21);
    reader.lines(26).await;
    reader.no_more().await;
    daemon.assert_clean();
}

#[tokio::test]
async fn a_chatty_container_does_not_keep_the_others_waiting() {
    let daemon = Dockerd::new();
    let chatty = daemon.run("chatty");
    daemon.lines(&chatty, 1, 0..200_000);
    let quiet = daemon.run("quiet");
    daemon.lines(&quiet, 1, 0..10);
    let mut reader = Reader::new(options(&daemon), limits());
    reader.until("the quiet one", |reader| reader.of("quiet", "stdout").len() == 10).await;
    let count = reader.entries.len();
    assert!(count < 190_000, "{count} entries before it");
    reader.lines(200_010).await;
    assert_eq!(reader.of("chatty", "stdout"), lines(0..200_000));
}

#[tokio::test]
async fn what_is_not_read_stays_with_the_daemon() {
    let daemon = Dockerd::new();
    let id = daemon.run("app");
    daemon.lines(&id, 1, 0..60_000);
    let mut reader = Reader::new(options(&daemon), limits());
    reader.lines(1).await;
    // The WAL is full: nothing is read, and the daemon can't go on.
    let before = daemon.state().written;
    let _ = timeout(Duration::from_millis(300), reader.source.hold()).await;
    let after = daemon.state().written;
    assert!(after - before < 1 << 20, "{}", after - before);
    // A new container is connected to nevertheless: it may be gone before there is room.
    let brief = daemon.run("brief");
    daemon.lines(&brief, 1, 0..3);
    let end = Instant::now() + Duration::from_secs(20);
    while daemon.state().open_logs < 2 {
        assert!(Instant::now() < end, "it is not connected to");
        let _ = timeout(Duration::from_millis(100), reader.source.hold()).await;
    }
    daemon.remove(&brief);
    let _ = timeout(Duration::from_millis(100), reader.source.hold()).await;
    reader.lines(60_003).await;
    assert_eq!(reader.of("app", "stdout"), lines(0..60_000));
    assert_eq!(reader.of("brief", "stdout"), lines(0..3));
}

#[tokio::test]
async fn no_more_containers_are_followed_than_may_be() {
    let daemon = Dockerd::new();
    let ids: Vec<String> = (0..12).map(|n| daemon.run(&format!("c{n}"))).collect();
    for id in &ids {
        daemon.lines(id, 1, 0..2);
    }
    let mut reader = Reader::new(options(&daemon), Limits { max_containers: 4, ..limits() });
    reader.lines(8).await;
    reader.no_more().await;
    assert_eq!(daemon.state().most_logs, 4);
    assert_eq!(reader.source.counters().waiting, 8);
    // Who ends makes room.
    for id in &ids {
        daemon.die(id);
    }
    reader.lines(24).await;
    assert_eq!(daemon.state().most_logs, 4);
    daemon.assert_clean();
}

#[tokio::test]
async fn a_first_reading_asks_for_nothing_older_than_max_age() {
    let daemon = Dockerd::new();
    let id = daemon.run("app");
    daemon.lines(&id, 1, 0..3);
    let mut options = options(&daemon);
    options.max_age = Some(Duration::from_secs(7_200));
    let mut reader = Reader::new(options, limits());
    reader.lines(3).await;
    let now = START / 1_000_000_000 + 3_600;
    assert!(daemon.asked("logs")[0].ends_with(&format!("&since={}", now - 7_200)));
    reader.restart();
    reader.no_more().await;
    assert!(daemon.asked("logs")[1].ends_with(&format!("&since={}", START / 1_000_000_000 - 1)));
}

#[tokio::test]
async fn a_log_is_read_from_disk_where_root_says_so_and_goes_on_by_the_api() {
    let daemon = Dockerd::new();
    let dir = tempfile::tempdir().unwrap();
    let id = daemon.run("app");
    let folder = dir.path().join("containers").join(&id);
    std::fs::create_dir_all(&folder).unwrap();
    let path = folder.join(format!("{id}-json.log"));
    daemon.change(|state| state.container(&id).log_path = path.display().to_string());
    daemon.lines(&id, 1, 0..50);
    daemon.lines(&id, 2, 0..50);
    write_json_file(&path, &daemon.state().container(&id).log.clone());
    let options = Options { read: Read::Auto, ..options(&daemon) };
    let mut reader = Reader::new(options, limits());
    reader.lines(100).await;
    assert_eq!(reader.source.followed(), (0, 1), "the test runs as root");
    assert_eq!(daemon.asked("logs"), Vec::<String>::new());
    // Rights are gone: by the API from there on.
    std::fs::remove_file(&path).unwrap();
    daemon.lines(&id, 1, 50..60);
    reader.restart();
    reader.lines(110).await;
    assert_eq!(reader.source.followed(), (1, 0));
    // They are back: what the API has begun it goes on with.
    write_json_file(&path, &daemon.state().container(&id).log.clone());
    daemon.lines(&id, 1, 60..70);
    reader.restart();
    reader.lines(120).await;
    reader.no_more().await;
    assert_eq!(reader.of("app", "stdout"), lines(0..70));
    assert_eq!(reader.of("app", "stderr"), lines(0..50));
    daemon.remove(&id);
    reader.until("it is forgotten", |reader| reader.positions.is_empty()).await;
    daemon.assert_clean();
}

#[tokio::test]
async fn lines_with_one_text_and_one_time_are_told_apart_over_restarts() {
    let daemon = Dockerd::new();
    let id = daemon.run("app");
    let write = |time_ns: i64, count: usize| {
        let message = Message { output: 1, time_ns, text: b"again\n".to_vec() };
        daemon.change(|state| {
            state.container(&id).log.extend(std::iter::repeat_n(message, count));
        });
    };
    write(START + 1, 3_000);
    // Within the nanoseconds that those get.
    write(START + 100, 5);
    let mut reader = Reader::new(options(&daemon), limits());
    reader.limit = 1 << 10;
    for _ in 0..20 {
        let before = reader.entries.len();
        while reader.entries.len() < before + 50 {
            let _ = timeout(Duration::from_millis(20), reader.source.ready()).await;
            reader.read();
        }
        reader.restart();
    }
    reader.limit = 64 << 10;
    reader.lines(3_005).await;
    reader.no_more().await;
    assert_eq!(reader.entries.len(), 3_005);
    assert!(reader.entries.is_sorted_by(|a, b| a.time_ns < b.time_ns));
    daemon.assert_clean();
}

#[tokio::test]
async fn a_container_that_starts_while_describing_it_hangs_is_read() {
    let daemon = Dockerd::new();
    let first = daemon.run("first");
    daemon.lines(&first, 1, 0..1);
    let mut reader = Reader::new(options(&daemon), limits());
    reader.lines(1).await;
    daemon.change(|state| state.faults.hang.push("/json".to_owned()));
    let late = daemon.run("late");
    daemon.lines(&late, 1, 0..3);
    reader.until("the request", |_| !daemon.asked(&format!("{late}/json")).is_empty()).await;
    daemon.change(|state| state.faults.hang = vec![format!("{late}/json")]);
    reader.lines(4).await;
    daemon.assert_clean();
}

#[tokio::test]
async fn a_line_of_a_clock_that_was_ahead_stops_nothing_when_it_is_rotated_away() {
    let mut daemon = Dockerd::new();
    let id = daemon.run("app");
    let at = |daemon: &Dockerd, after_s: i64, line: u32| {
        let time_ns = START + after_s * 1_000_000_000;
        let text = format!("line {line}\n").into_bytes();
        let message = Message { output: 1, time_ns, text };
        daemon.change(|state| state.container(&id).log.push(message));
    };
    at(&daemon, 3 * 3_600, 0);
    at(&daemon, 60, 1);
    let mut reader = Reader::new(options(&daemon), limits());
    reader.lines(2).await;
    // The first is rotated away; what was written meanwhile stands behind the last that was read.
    daemon.stop();
    daemon.change(|state| state.container(&id).log.remove(0));
    at(&daemon, 120, 2);
    daemon.start();
    reader.lines(3).await;
    at(&daemon, 180, 3);
    reader.lines(4).await;
    // That is gone too: what is written from now on is told, and from the next time on all.
    daemon.stop();
    daemon.change(|state| state.container(&id).log.clear());
    at(&daemon, 240, 100);
    daemon.start();
    reader.no_more().await;
    at(&daemon, 3_600, 4);
    reader.lines(5).await;
    reader.restart();
    at(&daemon, 3_600, 5);
    reader.lines(6).await;
    assert_eq!(reader.of("app", "stdout"), lines(0..6));
    daemon.assert_clean();
}

#[tokio::test]
async fn small_messages_that_fill_the_kernels_buffer_do_not_wait_for_entries_to_gather() {
    let daemon = Dockerd::new();
    let id = daemon.run("app");
    daemon.lines(&id, 1, 0..20_000);
    let mut reader = Reader::new(options(&daemon), limits());
    let (began, mut blocks) = (Instant::now(), 0);
    while reader.entries.len() < 20_000 {
        reader.source.ready().await;
        reader.source.gather(Instant::now() + Duration::from_secs(1)).await;
        while reader.read() == Progress::More {}
        blocks += 1;
        assert!(began.elapsed() < Duration::from_secs(30), "{} entries", reader.entries.len());
    }
    // One of about 280 messages a second, as much as the socket takes, would be 70.
    assert!((10..60).contains(&blocks), "{blocks} blocks");
    assert_eq!(reader.of("app", "stdout"), lines(0..20_000));
}
