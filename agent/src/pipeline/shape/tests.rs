//! Two series or streams that become one, tables that begin anew, and what is counted.

use std::path::Path;
use std::rc::Rc;

use super::*;
use crate::config::Endpoint;
use crate::encode::{Round, RoundDecoder, RoundEncoder};
use crate::host::SystemClock;
use crate::model::{Block, Desc, Labels, STALE, Samples};

const A: Desc = Desc::gauge("a", "");

fn dropped() -> Dropped {
    Dropped::new(Rc::new(SystemClock))
}

fn counted(dropped: &Dropped) -> Vec<(String, u64)> {
    dropped.counts().into_iter().map(|(_, reason, count)| (reason, count)).collect()
}

fn endpoint(section: &str, rest: &str) -> Endpoint {
    let text = format!("[[{section}]]\nurl = \"http://h/push\"\n{rest}");
    let mut config = crate::config::parse(&text, Path::new("t"), &[]).unwrap();
    config.mimir.pop().or_else(|| config.loki.pop()).unwrap()
}

/// An endpoint's view of rounds of `a` with one label `x` each.
struct Bench {
    encoder: RoundEncoder,
    decoder: RoundDecoder,
    shape: SeriesShape,
    dropped: Dropped,
}

impl Bench {
    fn new(rest: &str) -> Bench {
        Bench {
            encoder: RoundEncoder::new(Labels::from_pairs([("job", "node")]).unwrap()),
            decoder: RoundDecoder::new(),
            shape: SeriesShape::new(&endpoint("mimir", rest)),
            dropped: dropped(),
        }
    }

    /// A round, begun anew or not, as it leaves: labels, and the value's bits unless it is 1.
    fn round(&mut self, fresh: bool, all: &[&str]) -> Vec<String> {
        let mut samples = Samples::with_limit(99);
        samples.begin(1);
        all.iter().for_each(|x| _ = samples.family(&A).add(&[("x", x)], 1.0));
        let (mut out, mut round) = (Vec::new(), Round::default());
        let items = u64::from(self.encoder.encode(&[&samples], fresh, &mut out));
        if RoundDecoder::restarts(&out) {
            self.shape.forget();
        }
        self.decoder.decode(&out, 0, &mut round).unwrap();
        let table = self.decoder.table();
        let gone = self.shape.round(table, &mut round, &self.dropped);
        let mut left = Vec::new();
        for (index, series) in table.iter().enumerate() {
            let Some(value) = round.value(index) else { continue };
            let labels = self.shape.labels(series, index).map(|(n, v)| format!("{n}={v}"));
            let labels = labels.collect::<Vec<_>>().join(" ");
            left.push(if value.to_bits() == STALE { labels + " stale" } else { labels });
        }
        assert_eq!(items, left.len() as u64 + gone);
        assert_eq!(round.is_empty(), left.is_empty());
        left
    }
}

const DROP_X: &str = "[[mimir.relabel]]\naction = \"labeldrop\"\nregex = \"x\"\n";

#[test]
fn external_labels_are_given_where_there_are_none_and_come_before_the_rules() {
    let mut bench = Bench::new(
        "labels = { cluster = \"c\", job = \"other\", zone = \"z\" }\n\
         [[mimir.relabel]]\nsource_labels = [\"cluster\", \"x\"]\nregex = \"c;(2)\"\ntarget_label = \"y\"\n\
         [[mimir.relabel]]\nsource_labels = [\"cluster\", \"x\"]\nregex = \"c;3\"\naction = \"drop\"\n\
         [[mimir.relabel]]\nsource_labels = [\"x\"]\nregex = \"4\"\ntarget_label = \"__name__\"\nreplacement = \"4\"\n",
    );
    for fresh in [true, false, false, true] {
        assert_eq!(
            bench.round(fresh, &["1", "2", "3", "4"]),
            [
                "__name__=a cluster=c job=node x=1 zone=z",
                "__name__=a cluster=c job=node x=2 y=2 zone=z",
            ]
        );
    }
    assert_eq!(counted(&bench.dropped), [("relabel".into(), 4), ("relabel_invalid".into(), 4)]);
}

#[test]
fn of_two_series_that_become_one_a_batch_has_each_time_once_and_in_order() {
    let one = "__name__=a job=node";
    let mut bench = Bench::new(DROP_X);
    bench.shape.begin();
    assert_eq!(bench.round(true, &["1", "2", "3"]), [one]);
    assert_eq!(counted(&bench.dropped), [("relabel_duplicate".into(), 2)]);
    // The second goes on where the first ends, whose marker does not win.
    assert_eq!(bench.round(false, &["2"]), [one]);
    assert_eq!(bench.round(false, &["2"]), [one]);
    // The first comes back in the same batch: its samples would stand before the second's.
    assert_eq!(bench.round(false, &["1"]), [format!("{one} stale")]);
    assert!(bench.round(false, &["1"]).is_empty());
    bench.shape.begin();
    assert_eq!(bench.round(false, &["1"]), [one]);
    // All gone: one marker.
    assert_eq!(bench.round(false, &[]), [format!("{one} stale")]);
}

#[test]
fn a_table_that_begins_anew_has_other_numbers() {
    let mut bench = Bench::new(
        "[[mimir.relabel]]\nsource_labels = [\"x\"]\nregex = \"1\"\naction = \"drop\"\n",
    );
    assert_eq!(bench.round(true, &["1", "2"]), ["__name__=a job=node x=2"]);
    bench.encoder = RoundEncoder::new(Labels::new());
    assert_eq!(bench.round(true, &["2", "1"]), ["__name__=a x=2"]);
    assert_eq!(bench.round(false, &["2", "1", "3"]), ["__name__=a x=2", "__name__=a x=3"]);
    let mut plain = Bench::new("");
    assert_eq!(plain.round(true, &["2"]), ["__name__=a job=node x=2"]);
    assert!(plain.dropped.counts().is_empty());
}

#[test]
fn streams_become_one_another_or_none_and_their_entries_are_counted() {
    let mut block = Block::new();
    for (index, labels) in [("a", "1"), ("a", "2"), ("b", "1"), ("c", "x")].iter().enumerate() {
        let stream = block.stream(&Labels::from_pairs([*labels]).unwrap()).unwrap();
        (0..=index).for_each(|at| block.push(stream, at as i64, "line"));
    }
    let rules = "[[loki.relabel]]\nsource_labels = [\"c\"]\nregex = \".+\"\naction = \"drop\"\n\
                 [[loki.relabel]]\nsource_labels = [\"a\"]\ntarget_label = \"__a\"\n\
                 [[loki.relabel]]\naction = \"labeldrop\"\nregex = \"[a-c]\"\n\
                 [[loki.relabel]]\nsource_labels = [\"__a\"]\nregex = \".+\"\ntarget_label = \"d\"\nreplacement = \"1\"\n";
    let mut shape = StreamShape::new(&endpoint("loki", rules));
    for batch in 1..3 {
        let dropped = dropped();
        shape.batch(&block, &dropped);
        let number = |at| shape.stream(crate::model::StreamId(at));
        assert_eq!(number(0), number(1), "batch {batch}");
        assert_eq!((number(2), number(3)), (None, None));
        let labels = shape.labels(&block, number(0).unwrap()).unwrap();
        assert_eq!(labels.to_string(), r#"{d="1"}"#);
        assert_eq!(counted(&dropped), [("relabel".into(), 4), ("relabel_invalid".into(), 3)]);
        shape.rest();
    }
    let external = "labels = { a = \"9\", z = \"9\" }";
    let mut shape = StreamShape::new(&endpoint("loki", external));
    shape.batch(&block, &dropped());
    let first = shape.stream(crate::model::StreamId(0)).unwrap();
    assert_eq!(shape.labels(&block, first).unwrap().to_string(), r#"{a="1", z="9"}"#);
    // Streams beyond what is kept are worked out again.
    let mut many = Block::new();
    for n in 0..1_000 {
        let stream = many.stream(&Labels::from_pairs([("n", n.to_string())]).unwrap()).unwrap();
        many.push(stream, 0, "");
    }
    shape.batch(&many, &dropped());
    let last = shape.stream(crate::model::StreamId(999)).unwrap();
    assert_eq!(shape.labels(&many, last).unwrap().to_string(), r#"{a="9", n="999", z="9"}"#);
}
