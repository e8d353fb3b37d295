//! Entries from blocks to requests.

use super::*;
use crate::encode::{BLOCK, encode_block};
use crate::host::SystemClock;
use crate::model::{Block, Labels};
use crate::wal::{Encoded, OnFull, Options, Payload};

struct Entries<'a>(&'a Block);

impl Payload for Entries<'_> {
    fn encode(&mut self, _fresh: bool, out: &mut Vec<u8>) -> Encoded {
        let positions = self.0.positions().map(|p| (p.key, p.position));
        Encoded { items: encode_block(self.0, positions, out), time_ms: 0 }
    }
}

fn log(dir: &tempfile::TempDir) -> Log {
    let hour = Some(std::time::Duration::from_secs(3_600));
    Log::for_test(dir.path(), Options::new(32 << 20, OnFull::Refuse, 2), hour)
}

fn clock() -> Rc<dyn Clock> {
    Rc::new(SystemClock)
}

fn dropped() -> Rc<Dropped> {
    Rc::new(Dropped::new(Rc::new(SystemClock)))
}

fn block(lines: usize, line: &str) -> Block {
    let mut block = Block::new();
    block.set_position("file:/a.log", &[7; 40]);
    for at in 0..lines {
        let stream = block.stream(&Labels::from_pairs([("job", "a")]).unwrap()).unwrap();
        block.push(stream, at as i64, line);
    }
    block
}

#[test]
fn positions_alone_fill_no_batch_and_leave_nothing_in_it() {
    let dir = tempfile::tempdir().unwrap();
    let log = log(&dir);
    let reader = log.reader("a").unwrap();
    log.append(BLOCK, &mut Entries(&block(0, ""))).unwrap();
    log.append(BLOCK, &mut Entries(&block(1, &"x".repeat(2_000)))).unwrap();
    let mut signal =
        EntriesSignal::new(1_024, Limits::default(), StreamShape::default(), dropped(), clock());
    let mut gathered = Gathered::default();
    signal.gather(&log, reader, &mut gathered).unwrap();
    // A full batch without an entry would end the sender.
    assert_eq!((gathered.items, gathered.full), (1, true));
    assert_eq!(gathered.until, log.with(|wal| wal.end()).unwrap());
}

#[test]
fn empty_lines_are_bounded_as_any_others_and_none_is_lost() {
    let dir = tempfile::tempdir().unwrap();
    let log = log(&dir);
    let reader = log.reader("a").unwrap();
    let blocks: u64 = 300;
    for _ in 0..blocks {
        log.append(BLOCK, &mut Entries(&block(1_300, ""))).unwrap();
    }
    for max in [256 << 10, 4 << 20] {
        let mut signal =
            EntriesSignal::new(max, Limits::default(), StreamShape::default(), dropped(), clock());
        let (mut sent, mut gathered) = (0, Gathered::default());
        loop {
            signal.gather(&log, reader, &mut gathered).unwrap();
            if gathered.items == 0 {
                break;
            }
            assert!(gathered.items * 16 <= max, "{} entries in a batch", gathered.items);
            while let Some(request) = signal.next_request(Bounds::NONE) {
                sent += request.items;
            }
            gathered = Gathered { until: gathered.until, ..Gathered::default() };
        }
        assert_eq!((sent, signal.dropped.total()), (blocks * 1_300, 0));
    }
}

#[test]
fn while_memory_is_short_a_batch_has_a_block_or_what_there_is_room_for() {
    let dir = tempfile::tempdir().unwrap();
    let log = log(&dir);
    let reader = log.reader("a").unwrap();
    for _ in 0..6 {
        log.append(BLOCK, &mut Entries(&block(10, "line"))).unwrap();
    }
    let mut signal = empty(Limits::default());
    let mut gathered = Gathered::default();
    let mut one = 0;
    for (blocks, items) in [(0, 10), (1, 10), (2, 20), (100, 20)] {
        signal.room(one * blocks);
        gathered = Gathered { until: gathered.until, ..Gathered::default() };
        signal.gather(&log, reader, &mut gathered).unwrap();
        assert_eq!((gathered.items, gathered.full), (items, blocks < 100));
        one = signal.holds() * 10 / items;
        while signal.next_request(Bounds::NONE).is_some() {}
    }
}

/// A batch of one block, and what its requests hold: time in ns, line, number of pairs.
fn sent(signal: &mut EntriesSignal, now_ms: Option<i64>) -> Vec<(i64, String, usize)> {
    let mut all = Vec::new();
    while let Some(request) =
        signal.next_request(Bounds { now_ms, server_ms: now_ms, ..Bounds::NONE })
    {
        all.extend(read(request.body));
    }
    all
}

fn read(body: &[u8]) -> Vec<(i64, String, usize)> {
    let entries = crate::encode::loki::read_push(body).streams.into_iter();
    let time =
        |at: crate::encode::proto::Timestamp| at.seconds * 1_000_000_000 + i64::from(at.nanos);
    entries
        .flat_map(|stream| stream.entries)
        .map(|e| (time(e.timestamp.unwrap()), e.line, e.structured_metadata.len()))
        .collect()
}

fn signal_of(block: &Block, limits: Limits) -> EntriesSignal {
    let dir = tempfile::tempdir().unwrap();
    let log = log(&dir);
    let reader = log.reader("a").unwrap();
    log.append(BLOCK, &mut Entries(block)).unwrap();
    let mut signal =
        EntriesSignal::new(1 << 20, limits, StreamShape::default(), dropped(), clock());
    signal.gather(&log, reader, &mut Gathered::default()).unwrap();
    signal
}

fn counted(signal: &EntriesSignal) -> Vec<(String, u64)> {
    signal.dropped.counts().into_iter().map(|(_, reason, count)| (reason, count)).collect()
}

const HOUR_MS: i64 = 3_600_000;

#[test]
fn what_loki_would_refuse_is_dropped_and_counted() {
    let mut block = Block::new();
    let stream = block.stream(&Labels::from_pairs([("job", "a")]).unwrap()).unwrap();
    for (hour, line) in [(0, "old"), (1, "older than it seems"), (3, "new"), (9, "of tomorrow")] {
        block.push(stream, hour * HOUR_MS * 1_000_000, line);
    }
    block.push(stream, 9 * HOUR_MS * 1_000_000 + 1, &"x".repeat(100));
    let limits = Limits {
        max_age: Some(std::time::Duration::from_secs(2 * 3_600)),
        max_line: Some(99),
        ..Limits::default()
    };
    let lines = |signal: &mut EntriesSignal, now_ms| -> Vec<String> {
        sent(signal, now_ms).into_iter().map(|(_, line, _)| line).collect()
    };
    let mut signal = signal_of(&block, limits);
    assert_eq!(lines(&mut signal, Some(3 * HOUR_MS + 1)), ["new", "of tomorrow"]);
    let expected = [("line_too_long".to_owned(), 1), ("too_old".to_owned(), 2)];
    assert_eq!(counted(&signal), expected);
    // While nobody knows what time it is for the server, nothing is too old.
    let mut signal = signal_of(&block, limits);
    assert_eq!(lines(&mut signal, None).len(), 4);
    assert_eq!(counted(&signal), [("line_too_long".to_owned(), 1)]);
    // Nothing is left, and nothing is sent.
    let mut signal = signal_of(&block, limits);
    assert_eq!(lines(&mut signal, Some(100 * HOUR_MS)), [""; 0]);
    assert_eq!(counted(&signal), [("too_old".to_owned(), 5)]);
}

#[test]
fn entries_of_a_stream_go_in_the_order_of_their_time_and_equal_ones_as_they_came() {
    let mut block = Block::new();
    let [a, b] =
        ["a", "b"].map(|job| block.stream(&Labels::from_pairs([("job", job)]).unwrap()).unwrap());
    for (stream, time, line) in
        [(b, 5, "b5"), (a, 3, "a3"), (b, 4, "b4"), (a, 1, "a1"), (a, 3, "a3 too"), (b, 5, "b5 too")]
    {
        block.push(stream, time, line);
    }
    let got = sent(&mut signal_of(&block, Limits::default()), None);
    let lines: Vec<&str> = got.iter().map(|(_, line, _)| line.as_str()).collect();
    // Streams in the order in which the block has them.
    let of =
        |first: char| lines.iter().filter(|l| l.starts_with(first)).copied().collect::<Vec<_>>();
    assert_eq!((of('a'), of('b')), (vec!["a1", "a3", "a3 too"], vec!["b4", "b5", "b5 too"]));
}

#[test]
fn loki_without_structured_metadata_gets_the_entries_without_it() {
    let mut block = Block::new();
    let stream = block.stream(&Labels::from_pairs([("job", "a")]).unwrap()).unwrap();
    block.push_with(stream, 1, "one", [("pid", "1")]);
    block.push(stream, 2, "two");
    let mut signal = signal_of(&block, Limits::default());
    let first = read(signal.next_request(Bounds::NONE).unwrap().body);
    assert_eq!(first, [(1, "one".to_owned(), 1), (2, "two".to_owned(), 0)]);
    let why = "POST x: 400 stream '{job=\"a\"}' includes structured metadata, but this feature is disallowed.";
    assert_eq!(signal.refused(&refusal(400, why, 2)), Verdict::Again);
    assert_eq!(sent(&mut signal, None), [(1, "one".to_owned(), 0), (2, "two".to_owned(), 0)]);
}

#[test]
fn metadata_beyond_lokis_bounds_costs_itself_and_not_its_entry() {
    let mut block = Block::new();
    let stream = block.stream(&Labels::from_pairs([("job", "a")]).unwrap()).unwrap();
    block.push_with(stream, 1, "many", (0..200).map(|n| (format!("n{n}"), "v")));
    block.push_with(stream, 2, "much", [("a", "v"), ("b", &"x".repeat(70_000))]);
    let got = sent(&mut signal_of(&block, Limits::default()), None);
    assert_eq!(got, [(1, "many".to_owned(), 128), (2, "much".to_owned(), 1)]);
}

fn refusal(code: u16, said: &str, items: u64) -> Refusal<'_> {
    Refusal { code, why: said, said, written: Written::default(), items }
}

/// Streams of so many lines, with times of their own from 1 ns on.
fn streams(count: usize, lines: usize) -> Block {
    let mut block = Block::new();
    for at in 0..count {
        let labels = Labels::from_pairs([("job", at.to_string())]).unwrap();
        let stream = block.stream(&labels).unwrap();
        for line in 0..lines {
            block.push(stream, (line + 1) as i64, &format!("{at} {line} {}", "x".repeat(90)));
        }
    }
    block
}

fn bounds(bytes: u64) -> Bounds {
    Bounds { bytes, ..Bounds::NONE }
}

#[test]
fn requests_are_cut_anywhere_by_bounds_that_change_and_each_entry_goes_once_and_in_order() {
    for json in [false, true] {
        let limits = Limits { json, ..Limits::default() };
        let mut signal = signal_of(&streams(5, 40), limits);
        let mut got: Vec<Vec<(u32, u32)>> = vec![Vec::new(); 5];
        let (mut requests, mut sizes) = (0, [700u64, 5_000, 1, 100_000].into_iter().cycle());
        loop {
            let most = sizes.next().unwrap();
            let Some(request) = signal.next_request(bounds(most)) else { break };
            assert!(request.bytes <= most || request.items == 1, "{} of {most}", request.bytes);
            assert!(request.bytes >= 100 * request.items);
            requests += 1;
            if requests % 3 == 0 {
                signal.again();
                continue;
            }
            let lines: Vec<String> = match json {
                false => read(request.body).into_iter().map(|(_, line, _)| line).collect(),
                true => {
                    let read: serde_json::Value = serde_json::from_slice(request.body).unwrap();
                    let streams = read["streams"].as_array().unwrap().iter();
                    let values = streams.flat_map(|stream| stream["values"].as_array().unwrap());
                    values.map(|value| value[1].as_str().unwrap().to_owned()).collect()
                }
            };
            assert_eq!(lines.len() as u64, request.items);
            for line in lines {
                let mut words = line.split(' ').map(|word| word.parse().unwrap_or(0));
                let (stream, number): (u32, u32) = (words.next().unwrap(), words.next().unwrap());
                got[stream as usize].push((stream, number));
            }
            assert_eq!(signal.accepted(Written::default(), 0), Verdict::Done { lost: 0 });
        }
        for (stream, lines) in got.iter().enumerate() {
            let expected: Vec<_> = (0..40).map(|line| (stream as u32, line)).collect();
            assert_eq!(*lines, expected);
        }
        assert_eq!(signal.dropped.total(), 0);
    }
}

#[test]
fn what_is_too_large_is_cut_down_to_the_entry_that_is_and_nothing_else_is_lost() {
    let page = "<html><head><title>413 Request Entity Too Large</title></head></html>";
    for (code, said) in [
        (413, page),
        (
            500,
            "rpc error: code = ResourceExhausted desc = grpc: received message larger than max (9 vs. 4)",
        ),
        (406, page),
    ] {
        let mut block = streams(3, 10);
        let stream = block.stream(&Labels::from_pairs([("job", "1")]).unwrap()).unwrap();
        block.push(stream, 5, &"y".repeat(3_000));
        let mut signal = signal_of(&block, Limits::default());
        let (mut good, mut lost, mut requests) = (0, 0, 0);
        while let Some(request) = signal.next_request(Bounds::NONE) {
            let (items, is_bad) =
                (request.items, read(request.body).iter().any(|e| e.1.len() > 2_000));
            requests += 1;
            if !is_bad {
                good += items;
                signal.accepted(Written::default(), items);
            } else if let Verdict::Done { lost: more } = signal.refused(&refusal(code, said, items))
            {
                lost += more;
            }
        }
        assert_eq!((good, lost), (30, 1), "{code}");
        assert!(requests < 25, "{requests} requests");
    }
}

#[test]
fn a_server_that_refuses_everything_is_not_sent_each_entry_by_itself() {
    let mut signal = signal_of(&streams(3, 300), Limits::default());
    let (mut lost, mut requests) = (0, 0);
    while let Some(Request { items, .. }) = signal.next_request(Bounds::NONE) {
        requests += 1;
        if let Verdict::Done { lost: more } = signal.refused(&refusal(406, "", items)) {
            lost += more;
        }
    }
    assert_eq!(lost, 900);
    assert!(requests < 200, "{requests} requests");
}

const SECOND: i64 = 1_000_000_000;

fn job(job: &str) -> Labels {
    Labels::from_pairs([("job", job)]).unwrap()
}

/// One entry for each stream and time in seconds.
fn block_of(entries: &[(&str, i64)]) -> Block {
    let mut block = Block::new();
    for (stream, seconds) in entries {
        let stream = block.stream(&job(stream)).unwrap();
        block.push(stream, seconds * SECOND, &format!("at {seconds}"));
    }
    block
}

/// Gathers a batch of this block, read at that second.
fn refill(signal: &mut EntriesSignal, block: &Block, read_at: i64) {
    let dir = tempfile::tempdir().unwrap();
    let log = log(&dir);
    let reader = log.reader("a").unwrap();
    struct At<'a>(&'a Block, i64);
    impl Payload for At<'_> {
        fn encode(&mut self, _fresh: bool, out: &mut Vec<u8>) -> Encoded {
            Encoded { items: encode_block(self.0, std::iter::empty(), out), time_ms: self.1 }
        }
    }
    log.append(BLOCK, &mut At(block, read_at * 1_000)).unwrap();
    signal.gather(&log, reader, &mut Gathered::default()).unwrap();
}

/// The times in seconds of each request, all of which are accepted.
fn requests(signal: &mut EntriesSignal, now: Option<i64>) -> Vec<Vec<i64>> {
    let mut all = Vec::new();
    let now_ms = now.map(|now| now * 1_000);
    let bounds = Bounds { now_ms, server_ms: now_ms, ..Bounds::NONE };
    while let Some(request) = signal.next_request(bounds) {
        all.push(read(request.body).iter().map(|(ns, ..)| ns / SECOND).collect());
        signal.accepted(Written::default(), 0);
    }
    all
}

fn lokis() -> Limits {
    let hour = std::time::Duration::from_secs(3_600);
    Limits {
        max_age: Some(hour * 168),
        max_behind: Some(hour),
        max_ahead: Some(hour / 6),
        ..Limits::default()
    }
}

fn empty(limits: Limits) -> EntriesSignal {
    EntriesSignal::new(1 << 20, limits, StreamShape::default(), dropped(), clock())
}

const NOW: i64 = 1_700_000_000;

#[tokio::test(start_paused = true)]
async fn what_is_too_far_behind_is_dropped_while_that_is_certain_and_sent_alone_where_it_is_not() {
    let mut signal = empty(lokis());
    // Nothing is known of the streams: each goes alone, since one may be one too many for Loki, and the entry old.
    refill(&mut signal, &block_of(&[("a", NOW - 9_000), ("b", NOW), ("c", NOW)]), NOW);
    assert_eq!(requests(&mut signal, Some(NOW)), [vec![NOW - 9_000], vec![NOW], vec![NOW]]);
    // Its stream goes on from there in the order of time, however old.
    let on = [("a", NOW - 8_000), ("a", NOW - 5_000), ("b", NOW)];
    refill(&mut signal, &block_of(&on), NOW);
    assert_eq!(requests(&mut signal, Some(NOW)), [vec![NOW - 8_000, NOW - 5_000, NOW]]);
    // More than an hour behind for sure; and within the hour, but close to it.
    let behind = [("b", NOW - 3_601), ("b", NOW - 3_500), ("b", NOW), ("c", NOW)];
    refill(&mut signal, &block_of(&behind), NOW);
    assert_eq!(requests(&mut signal, Some(NOW)), [vec![NOW - 3_500, NOW], vec![NOW]]);
    assert_eq!(counted(&signal), [("too_far_behind".to_owned(), 1)]);
    // Half an hour later Loki may have forgotten the stream.
    tokio::time::advance(std::time::Duration::from_secs(1_801)).await;
    refill(&mut signal, &block_of(&[("b", NOW - 4_000), ("c", NOW)]), NOW);
    assert_eq!(requests(&mut signal, Some(NOW)), [vec![NOW - 4_000], vec![NOW]]);
    assert_eq!(counted(&signal), [("too_far_behind".to_owned(), 1)]);
    // Whoever turns it off gets everything sent together, once Loki has the streams.
    let mut signal = empty(Limits { max_behind: None, ..lokis() });
    for expected in [2, 1, 1] {
        refill(&mut signal, &block_of(&behind), NOW);
        assert_eq!(requests(&mut signal, Some(NOW)).len(), expected);
    }
}

#[tokio::test(start_paused = true)]
async fn loki_says_how_far_behind_a_stream_is_and_that_is_remembered() {
    let mut signal = empty(lokis());
    refill(&mut signal, &block_of(&[("a", NOW - 9_000), ("b", NOW)]), NOW);
    let Some(request) = signal.next_request(Bounds::NONE) else { panic!("no request") };
    assert_eq!(request.items, 1);
    let time = humantime::format_rfc3339_seconds(
        std::time::UNIX_EPOCH + std::time::Duration::from_secs(NOW as u64 - 3_600),
    );
    let said = format!(
        "entry with timestamp x ignored, reason: 'entry too far behind, entry timestamp is: x, oldest acceptable \
         timestamp is: {time}',\nuser 'fake', total ignored: 1 out of 1 for stream: {{job=\"a\"}}"
    );
    assert_eq!(signal.refused(&refusal(400, &said, 1)), Verdict::Done { lost: 1 });
    assert_eq!(requests(&mut signal, None), [vec![NOW]]);
    refill(&mut signal, &block_of(&[("a", NOW - 9_000), ("a", NOW)]), NOW);
    assert_eq!(requests(&mut signal, None), [vec![NOW]]);
    assert_eq!(counted(&signal), [("too_far_behind".to_owned(), 1)]);
}

#[test]
fn of_many_new_streams_a_few_go_alone_and_the_others_together_once_those_were_taken() {
    let mut signal = empty(Limits { max_behind: None, ..lokis() });
    let names: Vec<String> = (0..30).map(|n| format!("s{n:02}")).collect();
    let new: Vec<_> = names.iter().map(|name| (name.as_str(), NOW)).collect();
    refill(&mut signal, &block_of(&new), NOW);
    let lengths = |requests: Vec<Vec<i64>>| requests.iter().map(Vec::len).collect::<Vec<_>>();
    assert_eq!(lengths(requests(&mut signal, Some(NOW))), [1, 1, 1, 1, 1, 1, 1, 1, 22]);
    refill(&mut signal, &block_of(&new), NOW);
    assert_eq!(lengths(requests(&mut signal, Some(NOW))), [30]);
}

#[test]
fn entries_close_to_the_greatest_age_go_one_stream_a_push() {
    let week = 168 * 3_600;
    let mut signal = empty(Limits { max_behind: None, ..lokis() });
    let old = [("a", NOW - week + 60), ("b", NOW - week + 60), ("b", NOW), ("c", NOW), ("d", NOW)];
    refill(&mut signal, &block_of(&old), NOW);
    let first = [vec![NOW - week + 60], vec![NOW - week + 60, NOW], vec![NOW], vec![NOW]];
    assert_eq!(requests(&mut signal, Some(NOW)), first, "Loki has none of these streams");
    refill(&mut signal, &block_of(&old), NOW);
    let then = [vec![NOW - week + 60], vec![NOW - week + 60, NOW], vec![NOW, NOW]];
    assert_eq!(requests(&mut signal, Some(NOW)), then);
}

#[test]
fn a_time_that_is_too_far_ahead_gives_way_to_that_of_reading() {
    let mut signal = empty(lokis());
    let entries = [("a", NOW + 7_200), ("a", NOW + 590), ("a", NOW + 7_201), ("a", NOW - 1)];
    refill(&mut signal, &block_of(&entries), NOW - 5);
    let mut got = Vec::new();
    while let Some(request) = signal.next_request(Bounds {
        now_ms: Some(NOW * 1_000),
        server_ms: Some(NOW * 1_000),
        ..Bounds::NONE
    }) {
        got.extend(read(request.body).into_iter().map(|(ns, line, _)| (ns - NOW * SECOND, line)));
    }
    let line = |seconds: i64| format!("at {}", NOW + seconds);
    let expected = [
        // Not the same time for both, which Loki would take for one if the lines were equal.
        (-5 * SECOND, line(7_200)),
        (-5 * SECOND + 2, line(7_201)),
        (-SECOND, line(-1)),
        (590 * SECOND, line(590)),
    ];
    assert_eq!(got, expected);
    assert_eq!(signal.dropped.total(), 0);
}

#[test]
fn what_a_clock_read_that_was_ahead_goes_as_it_is_until_the_clock_is_right() {
    let clock = crate::host::ManualClock::default();
    let mut signal = EntriesSignal::new(
        1 << 20,
        lokis(),
        StreamShape::default(),
        dropped(),
        Rc::new(clock.clone()),
    );
    let ahead = NOW + 86_400;
    refill(&mut signal, &block_of(&[("a", ahead), ("a", ahead + 1)]), ahead);
    let bounds = Bounds { now_ms: Some(NOW * 1_000), server_ms: Some(NOW * 1_000), ..Bounds::NONE };
    clock.set((ahead + 2) * SECOND);
    let first = read(signal.next_request(bounds).unwrap().body);
    assert_eq!(first[0].0, ahead * SECOND);
    // The sender waits for the clock.
    signal.again();
    clock.set((NOW + 1) * SECOND);
    let got = read(signal.next_request(bounds).unwrap().body);
    let times: Vec<_> = got.iter().map(|(ns, ..)| *ns).collect();
    assert_eq!(times, [NOW * SECOND, NOW * SECOND + 1]);
}

#[test]
fn what_was_refused_as_too_new_before_the_time_was_known_comes_again_with_another() {
    let mut signal = empty(lokis());
    refill(&mut signal, &block_of(&[("a", NOW), ("a", NOW + 7_200)]), NOW);
    assert_eq!(signal.next_request(Bounds::NONE).unwrap().items, 2);
    let said = "entry for stream '{job=\"a\"}' has timestamp too new: 2026-11-22T00:00:00Z";
    assert_eq!(signal.refused(&refusal(400, said, 2)), Verdict::Again);
    let bounds = Bounds { now_ms: Some(NOW * 1_000), server_ms: Some(NOW * 1_000), ..Bounds::NONE };
    let again = read(signal.next_request(bounds).unwrap().body);
    assert!(again.iter().all(|(ns, ..)| *ns < (NOW + 1) * SECOND), "{again:?}");
    // Once.
    assert_eq!(signal.refused(&refusal(400, said, 2)), Verdict::Done { lost: 1 });
}

#[test]
fn labels_that_loki_would_refuse_are_trimmed_at_the_last_moment() {
    let mut block = Block::new();
    let many = Labels::from_pairs((0..20).map(|n| (format!("l{n:02}"), "v"))).unwrap();
    for labels in [many, Labels::new()] {
        let stream = block.stream(&labels).unwrap();
        block.push(stream, 1, "line");
    }
    let mut signal = signal_of(&block, Limits::default());
    let mut streams = Vec::new();
    while let Some(request) = signal.next_request(Bounds::NONE) {
        streams.extend(crate::encode::loki::read_push(request.body).streams);
    }
    assert_eq!(streams[0].labels.matches('=').count(), 15);
    assert_eq!(streams[1].labels, "{job=\"mote/unlabeled\"}");
}
