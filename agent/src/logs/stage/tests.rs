//! The engine with all of its stages: what comes out of blocks, restarts and bounds.

use std::collections::BTreeMap;
use std::time::Duration;

use proptest::prelude::*;
use tokio::time::Instant;

use super::*;
use crate::model::{Block, Labels};

const NOW: i64 = 1_700_000_000_000_000_000;

fn labels(pairs: &[(&str, &str)]) -> Labels {
    Labels::from_pairs(pairs.iter().copied()).unwrap()
}

fn stage(selector: &str, step: Step) -> Options {
    Options { selector: Selector::parse(selector).unwrap(), step }
}

fn lines(start: &str) -> Step {
    Step::Multiline(Lines {
        mark: Mark::Start(pattern(start).unwrap()),
        max_lines: 4,
        max_bytes: 100,
        max_wait: Duration::from_secs(3),
    })
}

fn drop_of(regex: &str) -> Step {
    Step::Drop(Conditions { regex: Some(pattern(regex).unwrap()), ..Conditions::default() })
}

fn setup(stages: Vec<Options>) -> Setup {
    let common = labels(&[("instance", "pi")]);
    Setup {
        stages,
        first: 0,
        max_line: 100,
        max_held: 1_000,
        max_streams: 100,
        limits: StreamLimits::default(),
        common,
    }
}

/// An agent that may be killed between two blocks: stages, and the positions that the WAL has.
struct Agent {
    setup: Setup,
    stages: Stages,
    positions: BTreeMap<String, Vec<u8>>,
    now: Instant,
    stored: Vec<(String, i64, String, String)>,
}

#[derive(Clone, Debug)]
struct In {
    stream: u8,
    line: String,
    partial: bool,
}

fn one(stream: u8, line: &str) -> In {
    In { stream, line: line.to_owned(), partial: false }
}

fn part(stream: u8, line: &str) -> In {
    In { partial: true, ..one(stream, line) }
}

impl Agent {
    fn new(setup: Setup) -> Agent {
        let now = Instant::now();
        let stages = Stages::new(&setup, &BTreeMap::new(), now);
        Agent { setup, stages, positions: BTreeMap::new(), now, stored: Vec::new() }
    }

    fn restart(&mut self) {
        self.stages = Stages::new(&self.setup, &self.positions, self.now);
    }

    /// One block; `first` counts the entries before it.
    fn block(&mut self, first: usize, entries: &[In]) {
        let mut block = Block::new();
        for (index, entry) in entries.iter().enumerate() {
            let n = entry.stream.to_string();
            let stream = labels(&[("__source__", "test"), ("instance", "pi"), ("n", &n)]);
            let stream = block.stream(&stream).unwrap();
            let at = NOW + (first + index) as i64;
            block.push_with(stream, at, &entry.line, [("nr", (first + index).to_string())]);
            if entry.partial {
                block.set_partial();
            }
        }
        block.set_position("source", &(first + entries.len()).to_le_bytes());
        self.run(block);
    }

    fn run(&mut self, mut block: Block) {
        self.stages.run(&mut block, NOW, self.now);
        for entry in block.entries() {
            let labels = block.streams()[usize::from(entry.stream.0)].to_string();
            let pairs: Vec<_> =
                entry.metadata.iter().map(|(name, value)| format!("{name}={value}")).collect();
            let line = entry.line.to_owned();
            self.stored.push((labels, entry.timestamp_ns - NOW, line, pairs.join(" ")));
            assert!(!entry.partial);
        }
        for position in block.positions() {
            match position.position {
                [] => drop(self.positions.remove(position.key)),
                bytes => drop(self.positions.insert(position.key.to_owned(), bytes.to_vec())),
            }
        }
    }

    fn wait(&mut self, time: Duration) {
        self.now += time;
        if self.stages.due().is_some_and(|due| due <= self.now) {
            self.run(Block::new());
        }
    }

    /// Until nothing is held.
    fn finish(&mut self) {
        for _ in 0..100 {
            let Some(due) = self.stages.due() else { return };
            self.now = self.now.max(due);
            self.run(Block::new());
        }
        panic!("it has no end");
    }

    fn lines(&self) -> Vec<&str> {
        self.stored.iter().map(|(_, _, line, _)| line.as_str()).collect()
    }

    fn held(&self) -> usize {
        self.positions.keys().filter(|key| key.starts_with(KEY_PREFIX)).count()
    }
}

#[test]
fn without_stages_only_internal_labels_go() {
    let mut agent = Agent::new(setup(vec![]));
    agent.block(0, &[one(1, "a"), one(2, ""), one(1, "b")]);
    let stream = |n: u8| format!("{{instance=\"pi\", n=\"{n}\"}}");
    assert_eq!(
        agent.stored,
        [
            (stream(1), 0, "a".into(), "nr=0".into()),
            (stream(2), 1, String::new(), "nr=1".into()),
            (stream(1), 2, "b".into(), "nr=2".into()),
        ]
    );
    assert_eq!(agent.positions.len(), 1);
    assert_eq!(agent.stages.counts(), Counts { streams: 2, ..Counts::default() });
}

#[test]
fn stages_work_in_order_on_the_streams_that_match() {
    struct Relabel;
    impl Action for Relabel {
        fn apply(&mut self, entry: &mut Work, _now_ns: i64) -> Verdict {
            entry.set_label("made", "yes");
            Verdict::Keep
        }
    }
    let mut agent = Agent::new(setup(vec![
        stage(r#"{n="1", __source__="test"}"#, drop_of("noise")),
        stage(r#"{made="yes"}"#, drop_of("early")),
        stage(r#"{n="1"}"#, drop_of("first")),
        stage(r#"{made="yes"}"#, drop_of("late")),
    ]));
    agent.stages.replace_action(3, Box::new(Relabel));
    let given = ["noise", "early", "late", "fine"];
    let all: Vec<In> = (1..=2).flat_map(|n| given.map(|line| one(n, line))).collect();
    agent.block(0, &all);
    assert_eq!(agent.lines(), ["early", "fine", "noise", "early", "late", "fine"]);
    assert_eq!(agent.stored[1].0, r#"{instance="pi", made="yes", n="1"}"#);
    let mut dropped = Vec::new();
    agent.stages.take_dropped(&mut |reason, count| dropped.push((reason.to_owned(), count)));
    assert_eq!(dropped, [("stage_drop".to_owned(), 2)]);
    agent.stages.take_dropped(&mut |_, _| panic!("it was told already"));
}

#[test]
fn parts_become_one_line_with_the_first_ones_timestamp() {
    let mut agent = Agent::new(setup(vec![]));
    agent.block(0, &[part(1, "a"), one(2, "x"), part(1, "b"), one(1, "c"), one(1, "d")]);
    assert_eq!(agent.lines(), ["x", "abc", "d"]);
    assert_eq!((agent.stored[1].1, agent.stored[1].3.as_str()), (0, "nr=0"));
    // Nothing of it has been on the disk twice.
    assert_eq!(agent.positions.len(), 1);
}

#[test]
fn parts_beyond_the_longest_line_are_cut_on_a_character() {
    let mut agent = Agent::new(setup(vec![]));
    let mut all: Vec<In> = (0..9).map(|_| part(1, "ääääääääääääa")).collect();
    all.push(one(1, "end"));
    agent.block(0, &all);
    assert_eq!(agent.lines(), ["ääääääääääääa".repeat(4)]);
    assert_eq!(agent.stages.counts().truncated, 1);
    agent.block(10, &[one(1, "next")]);
    assert_eq!(agent.lines()[1], "next");
}

#[test]
fn a_line_without_an_end_goes_when_it_has_waited_and_a_quiet_group_too() {
    let mut agent = Agent::new(setup(vec![stage(r#"{n="2"}"#, lines("^S"))]));
    agent.block(0, &[part(1, "a"), one(2, "S"), one(2, "t")]);
    assert_eq!((agent.lines().len(), agent.held()), (0, 2));
    agent.wait(Duration::from_secs(2));
    agent.block(3, &[one(2, "u")]);
    agent.wait(Duration::from_secs(2));
    assert!(agent.lines().is_empty());
    agent.wait(Duration::from_secs(1));
    assert_eq!((agent.lines(), agent.held()), (vec!["a", "S\nt\nu"], 0));
    // What comes late belongs to nothing.
    agent.block(4, &[one(2, "v"), one(1, "b")]);
    assert_eq!((agent.lines().len(), agent.held()), (4, 0));
    assert_eq!(agent.stages.due(), None);
}

#[test]
fn groups_have_bounds_in_lines_and_bytes() {
    let mut agent = Agent::new(setup(vec![stage("{}", lines("^S"))]));
    let given = ["x", "S1", "2", "3", "4", "5", "S6"];
    agent.block(0, &given.map(|line| one(1, line)));
    assert_eq!(agent.lines(), ["x", "S1\n2\n3\n4", "5"]);
    let long = "l".repeat(99);
    agent.block(7, &[one(1, &long), one(1, "7"), one(1, &long), one(1, "S")]);
    assert_eq!(agent.lines()[3..], ["S6", &long, "7", &long]);
}

#[test]
fn a_group_that_is_complete_within_a_block_has_no_position() {
    let mut agent = Agent::new(setup(vec![stage("{}", lines("^S"))]));
    agent.block(0, &[one(1, "S1"), one(1, "2"), one(1, "S3")]);
    assert_eq!((agent.lines(), agent.held()), (vec!["S1\n2"], 1));
    let bytes = agent.positions.values().map(Vec::len).max().unwrap();
    assert!(bytes < 200, "{bytes}");
}

#[test]
fn too_many_groups_give_out_the_oldest() {
    let mut agent =
        Agent::new(Setup { max_held: usize::MAX, ..setup(vec![stage("{}", lines("^S"))]) });
    let all: Vec<In> = (0..70).map(|n| one(n, &format!("S{n}"))).collect();
    agent.block(0, &all);
    assert_eq!(agent.lines(), ["S0", "S1", "S2", "S3", "S4", "S5"]);
    assert_eq!(agent.held(), 64);
    // By bytes.
    let mut agent = Agent::new(setup(vec![stage("{}", lines("^S"))]));
    let all: Vec<In> = (0..9).map(|n| one(n, &format!("S{n}{}", "x".repeat(90)))).collect();
    agent.block(0, &all);
    assert!(agent.held() < 9 && agent.lines()[0].starts_with("S0"), "{}", agent.held());
}

#[test]
fn two_joiners_in_a_row_keep_the_order() {
    let mut agent = Agent::new(setup(vec![
        stage("{}", lines("^[SM]")),
        stage("{}", lines("^M")),
        stage("{}", lines("^M")),
    ]));
    let given = ["M1", "a", "S2", "b", "M3", "c", "S4"];
    agent.block(0, &given.map(|line| one(1, line)));
    agent.finish();
    assert_eq!(agent.lines(), ["M1\na\nS2\nb", "M3\nc\nS4"]);
}

#[test]
fn what_a_stage_that_is_gone_held_still_meets_the_others() {
    let mut agent =
        Agent::new(setup(vec![stage("{}", lines("^S")), stage("{}", drop_of("secret"))]));
    agent.block(0, &[one(1, "S"), one(1, "secret"), one(2, "S"), one(2, "fine")]);
    assert_eq!(agent.held(), 2);
    agent.setup.stages.remove(0);
    agent.restart();
    assert!(agent.stages.due().is_some_and(|due| due <= agent.now));
    agent.wait(Duration::ZERO);
    assert_eq!((agent.lines(), agent.held()), (vec!["S\nfine"], 0));
    assert_eq!(agent.stages.due(), None);
}

#[test]
fn a_held_position_of_foreign_bytes_is_forgotten() {
    let mut agent = Agent::new(setup(vec![]));
    agent.positions.insert("held:0".into(), vec![9]);
    agent.restart();
    assert!(agent.stages.due().is_some());
    agent.run(Block::new());
    assert_eq!((agent.positions.len(), agent.stages.due()), (0, None));
}

#[test]
fn streams_beyond_the_bound_share_one_and_nothing_is_lost() {
    for stages in [vec![], vec![stage("{}", drop_of("nothing"))]] {
        let mut agent = Agent::new(Setup { max_streams: 2, ..setup(stages) });
        agent.block(0, &[one(1, "a"), one(2, "b"), one(3, "c"), one(4, "d")]);
        agent.block(4, &[one(3, "e"), one(1, "f")]);
        let overflow = r#"{instance="pi", job="mote/overflow"}"#;
        let of: Vec<_> = agent.stored.iter().map(|(labels, ..)| labels == overflow).collect();
        assert_eq!(of, [false, false, true, true, true, false]);
        assert_eq!(agent.stored[2].3, "nr=2 n=3");
        let counts = agent.stages.counts();
        assert_eq!((counts.streams, counts.overflow, counts.trimmed), (2, 3, 0));
    }
}

#[test]
fn metadata_beyond_what_loki_takes_is_left_out_and_counted() {
    let mut agent = Agent::new(setup(vec![]));
    let mut block = Block::new();
    let stream = block.stream(&labels(&[("a", "1")])).unwrap();
    let many = (0..200).map(|n| (format!("n{n}"), "x"));
    block.push_with(stream, NOW, "many", many);
    block.push_with(stream, NOW, "large", [("a", "x".repeat(70 << 10)), ("b", "y".to_owned())]);
    agent.run(block);
    assert_eq!(agent.stored[0].3.split(' ').count(), 128);
    assert_eq!(agent.stored[1].3, "b=y");
    assert_eq!(agent.stages.counts().trimmed, 2);
}

/// Stages that keep no state but what is held: a restart forgets nothing else.
fn some_stages() -> impl Strategy<Value = Vec<Options>> {
    let one = prop_oneof![
        Just(stage("{}", lines("^S"))),
        Just(stage(r#"{n=~"[01]"}"#, lines("^[SM]"))),
        Just(stage(
            r#"{n!="2"}"#,
            Step::Multiline(Lines {
                mark: Mark::Continues(pattern("^ ").unwrap()),
                max_lines: 3,
                max_bytes: 20,
                max_wait: Duration::from_secs(1),
            })
        )),
        Just(stage("{}", drop_of("d"))),
        Just(stage(
            r#"{n="0"}"#,
            Step::Keep(Conditions { longer_than: Some(1), ..Conditions::default() })
        )),
    ];
    proptest::collection::vec(one, 0..4)
}

fn entries() -> impl Strategy<Value = Vec<In>> {
    let line =
        prop_oneof![Just("S"), Just("M"), Just(" c"), Just("d"), Just("xyz"), Just("ä"), Just("")];
    let entry = (0u8..4, line, prop::bool::weighted(0.2)).prop_map(|(stream, line, partial)| In {
        stream,
        line: line.to_owned(),
        partial,
    });
    proptest::collection::vec(entry, 0..60)
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(400))]

    #[test]
    fn blocks_and_restarts_between_them_change_nothing(
        stages in some_stages(),
        entries in entries(),
        cuts in proptest::collection::vec((0usize..60, any::<bool>()), 0..12),
        max_line in 1usize..40,
        max_held in 50usize..2_000,
    ) {
        let setup = Setup { max_line, max_held, ..setup(stages) };
        let mut whole = Agent::new(setup.clone());
        whole.block(0, &entries);
        whole.finish();

        let mut cut = Agent::new(setup);
        let mut ends: BTreeMap<usize, bool> =
            cuts.into_iter().map(|(at, restart)| (at.min(entries.len()), restart)).collect();
        ends.insert(entries.len(), true);
        let mut first = 0;
        for (end, restart) in ends {
            cut.block(first, &entries[first..end]);
            first = end;
            if restart {
                cut.restart();
            }
        }
        cut.finish();
        prop_assert_eq!(&cut.stored, &whole.stored);
        prop_assert_eq!((cut.held(), whole.held()), (0, 0));
        prop_assert_eq!(cut.stages.due(), None);
    }

    #[test]
    fn joining_loses_and_repeats_nothing(entries in entries(), cut in 0usize..60) {
        let stages = vec![stage("{}", lines("^S")), stage(r#"{n="1"}"#, lines("^ "))];
        let mut agent = Agent::new(Setup { max_line: 1_000, ..setup(stages) });
        let (one, two) = entries.split_at(cut.min(entries.len()));
        agent.block(0, one);
        agent.restart();
        agent.block(one.len(), two);
        agent.finish();
        for stream in 0..4u8 {
            let given: String =
                entries.iter().filter(|e| e.stream == stream).map(|e| e.line.as_str()).collect();
            let label = format!("n=\"{stream}\"");
            let of_stream = agent.stored.iter().filter(|(labels, ..)| labels.contains(&label));
            let stored: String = of_stream.map(|(_, _, line, _)| line.replace('\n', "")).collect();
            prop_assert_eq!(stored, given);
        }
    }
}

#[test]
fn ten_thousand_streams_at_once_are_five_hundred_and_one() {
    const HOUR: i64 = 3_600_000_000_000;
    let by_id = pattern(r"^(?P<id>\d+)").unwrap();
    let group = extract::regex::group(&by_id, "id").unwrap();
    let take = extract::Options::Regex(extract::regex::Options {
        input: extract::Input::Line,
        expression: by_id,
        groups: vec![group],
        to: vec![extract::Destination::Label("id".into())],
    });
    let setup = Setup { max_streams: 500, ..setup(vec![stage("{}", Step::Extract(take))]) };
    let mut stages = Stages::new(&setup, &BTreeMap::new(), Instant::now());
    // How many streams of their own the entries of a block got, and how many entries went to the common one.
    let run = |stages: &mut Stages, ids: std::ops::Range<u32>, at: i64| {
        let mut block = Block::new();
        let stream = block.stream(&labels(&[("job", "a"), ("instance", "pi")])).unwrap();
        ids.for_each(|id| block.push(stream, at, &id.to_string()));
        stages.run(&mut block, at, Instant::now());
        let is_own = |labels: &Labels| labels.get("job") == Some("a");
        let all = block.streams().len();
        let own = block.streams().iter().filter(|labels| is_own(labels)).count();
        assert!(all - own <= 1, "{all} streams");
        let common = block.entries().filter(|e| {
            let own = is_own(&block.streams()[usize::from(e.stream.0)]);
            // What would have been a label is there.
            assert!(own || e.metadata.get("id") == Some(e.line));
            !own
        });
        (own, common.count())
    };
    assert_eq!(run(&mut stages, 0..10_000, 0), (500, 9_500));
    // The first ones stay what they are, an hour after each one's last entry the others may come.
    assert_eq!(run(&mut stages, 0..1_000, HOUR / 2), (500, 500));
    assert_eq!(run(&mut stages, 500..1_000, HOUR + HOUR / 4), (0, 500));
    assert_eq!(run(&mut stages, 500..1_100, HOUR * 2), (500, 100));
    assert_eq!((stages.counts().streams, stages.counts().overflow), (500, 10_600));
    // A new run knows nothing of the last one's.
    let mut stages = Stages::new(&setup, &BTreeMap::new(), Instant::now());
    assert_eq!(run(&mut stages, 5_000..6_000, HOUR * 2), (500, 500));
}
