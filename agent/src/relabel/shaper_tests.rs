//! Rules for samples: what they see, what is written once, what is remembered and for how long.

use std::cell::RefCell;
use std::rc::Rc;

use super::*;
use crate::model::{Desc, Labels, Samples};

const A: Desc = Desc::gauge("a", "");

fn rule(action: Action, of: &[(&str, &str)]) -> Rule {
    let find = |key: &str| of.iter().find(|(have, _)| *have == key).map(|(_, v)| (*v).to_owned());
    Rule::new(Options {
        source_labels: find("from").map(|names| names.split(',').map(str::to_owned).collect()),
        regex: find("regex"),
        target_label: find("target"),
        replacement: find("replacement"),
        action: Some(action),
        ..Options::default()
    })
    .unwrap()
}

struct Bench {
    shaper: Rc<RefCell<Shaper>>,
    samples: Samples,
}

impl Bench {
    fn new(rules: Vec<Rule>, limit: usize) -> Bench {
        let common = Labels::from_pairs([("instance", "box"), ("job", "node")]).unwrap();
        let shaper = Shaper::new(rules.into_iter().collect(), common);
        let shaper = Rc::new(RefCell::new(shaper));
        let samples = Samples::with_limit(limit).shaped(Some(Box::new(Rc::clone(&shaper))));
        Bench { shaper, samples }
    }

    /// A round of samples of `a` with these labels, as it is written.
    fn round(&mut self, all: &[&[(&str, &str)]]) -> Vec<String> {
        self.shaper.borrow_mut().begin();
        self.samples.clear();
        for labels in all {
            self.samples.family(&A).add(labels, 1.0);
        }
        let show = |sample: crate::model::Sample<'_>| {
            let labels: Vec<_> = sample.labels().map(|(n, v)| format!("{n}={v}")).collect();
            format!("{} {}", sample.name(), labels.join(" "))
        };
        self.samples.iter().map(show).collect()
    }

    fn counts(&self) -> Counts {
        self.shaper.borrow_mut().take_counts().0
    }
}

#[test]
fn rules_see_the_labels_that_all_series_have_and_these_are_not_written_again() {
    let mut bench = Bench::new(
        vec![
            rule(Action::Drop, &[("from", "instance,x"), ("regex", "box;1")]),
            rule(
                Action::Replace,
                &[
                    ("from", "job,x"),
                    ("regex", "(.*);2"),
                    ("target", "job"),
                    ("replacement", "two-$1"),
                ],
            ),
        ],
        10,
    );
    assert_eq!(bench.shaper.borrow().for_all().to_string(), r#"{instance="box"}"#);
    // A replacement with groups could be empty, so each series has its own `job`.
    let own = [("instance", "own"), ("x", "1")];
    let got = bench.round(&[&[("x", "1")], &[("x", "2")], &[("x", "3")], &own]);
    assert_eq!(got, ["a job=two-node x=2", "a job=node x=3", "a instance=own job=node x=1"]);
    assert_eq!(bench.counts(), Counts { dropped: 1, ..Counts::default() });
}

#[test]
fn a_label_of_all_series_can_be_taken_from_all_or_from_one_and_not_from_the_agents_own() {
    let mut bench = Bench::new(vec![rule(Action::LabelDrop, &[("regex", "instance")])], 10);
    assert_eq!(bench.round(&[&[("x", "1")]]), ["a x=1"]);
    assert_eq!(bench.shaper.borrow().for_all().to_string(), r#"{job="node"}"#);
    bench.samples.begin_own();
    bench.samples.value(&Desc::gauge("up", ""), 1.0);
    let up = bench.samples.iter().last().unwrap();
    assert_eq!(up.labels().collect::<Vec<_>>(), [("instance", "box")]);
    let one = [("from", "x"), ("regex", "1"), ("target", "job"), ("replacement", "")];
    let mut bench = Bench::new(vec![rule(Action::Replace, &one)], 10);
    assert_eq!(bench.round(&[&[("x", "1")], &[("x", "2")]]), ["a x=1", "a job=node x=2"]);
    // What can't remove it costs nothing.
    let set = [("target", "job"), ("replacement", "other")];
    let mut bench = Bench::new(vec![rule(Action::Replace, &set)], 10);
    assert_eq!(bench.shaper.borrow().for_all().len(), 2);
    assert_eq!(bench.round(&[&[("x", "1")]]), ["a job=other x=1"]);
}

#[test]
fn what_rules_let_go_takes_no_place_below_the_limit() {
    let mut bench = Bench::new(vec![rule(Action::Drop, &[("from", "x"), ("regex", "[1-4]")])], 2);
    let of = |x: &'static str| [("x", x)];
    let all = ["1", "2", "5", "3", "6", "7", "4"].map(of);
    let all: Vec<&[(&str, &str)]> = all.iter().map(|labels| &labels[..]).collect();
    assert_eq!(bench.round(&all), ["a x=5", "a x=6"]);
    assert_eq!((bench.samples.refused(), bench.counts().dropped), (1, 4));
}

#[test]
fn of_series_that_become_one_the_first_stays_and_it_is_told_once() {
    let mut bench = Bench::new(vec![rule(Action::LabelDrop, &[("regex", "x")])], 10);
    for round in 0..3 {
        assert_eq!(bench.round(&[&[("x", "1")], &[("x", "2")], &[]]), ["a "]);
        let (counts, twin) = bench.shaper.borrow_mut().take_counts();
        assert_eq!(counts.duplicates, 2);
        assert_eq!(twin.is_some(), round == 0, "{twin:?}");
    }
    // The first of another round is another one.
    assert_eq!(bench.round(&[&[("x", "2")]]), ["a "]);
}

#[test]
fn a_series_without_a_name_is_let_go_and_counted() {
    let no_name = [("from", "x"), ("target", "__name__"), ("regex", "(.*)")];
    let mut bench = Bench::new(vec![rule(Action::Replace, &no_name)], 10);
    let got = bench.round(&[&[("x", "")], &[("x", "1a")], &[("x", "b:c")]]);
    assert_eq!(got, ["b:c x=b:c"]);
    assert_eq!(bench.counts().nameless, 2);
    let large = [("from", "x"), ("target", "x"), ("regex", "(.*)()"), ("replacement", "$1$1$1$1")];
    let mut bench = Bench::new((0..20).map(|_| rule(Action::Replace, &large)).collect(), 10);
    assert!(bench.round(&[&[("x", "1")]]).is_empty());
    assert_eq!(bench.counts().too_large, 1);
}

#[test]
fn series_that_come_and_go_are_forgotten_and_those_that_stay_are_not_wrong() {
    let to = [("from", "x"), ("regex", "(.*)5"), ("target", "x"), ("replacement", "${1}five")];
    let mut bench = Bench::new(vec![rule(Action::Replace, &to)], 1_000);
    let mut most = 0;
    for round in 0..300 {
        // A few that change for long, then many that do.
        let count = if round < 250 { 50 } else { 900 };
        let names: Vec<String> = (0..count).map(|n| format!("{round}-{n}")).collect();
        let pairs: Vec<[(&str, &str); 1]> = names.iter().map(|name| [("x", &name[..])]).collect();
        let mut all: Vec<&[(&str, &str)]> = vec![&[("x", "always 5")]];
        all.extend(pairs.iter().map(|labels| &labels[..]));
        let got = bench.round(&all);
        assert_eq!((got.len(), &got[0][..]), (count + 1, "a x=always five"));
        assert_eq!(got[6], format!("a x={round}-five"));
        assert_eq!(bench.counts(), Counts::default());
        most = most.max(bench.shaper.borrow().memory());
    }
    assert!(most < 2 << 20, "{most} bytes for at most 901 series");
}
