//! Foreign rules on foreign labels, and on samples round after round.

use std::cell::RefCell;
use std::rc::Rc;

use mote::model::{Desc, Labels, Samples};
use mote::relabel::{Action, LabelSet, Options, Rule, Rules, Shaper, Verdict, is_metric_name};

use super::bytes::Input;

fn rule(input: &mut Input<'_>) -> Option<Rule> {
    let (action, given) = (input.u8(), input.u8());
    let mut text = |bit: u8| (given & bit != 0).then(|| input.text());
    let source = text(1);
    let (separator, regex) = (text(2), text(4));
    let (target_label, replacement) = (text(8), text(16));
    let options = Options {
        source_labels: source.map(|names| names.split(',').map(str::to_owned).collect()),
        separator,
        regex,
        modulus: u32::from(given >> 5),
        target_label,
        replacement,
        action: Some(Action::ALL[usize::from(action) % Action::ALL.len()].1),
    };
    Rule::new(options).ok()
}

pub fn relabel(data: &[u8]) {
    let mut input = Input(data);
    let count = input.u8() % 6;
    let rules: Rules = (0..count).filter_map(|_| rule(&mut input)).collect();
    let mut labels = Vec::new();
    while !input.is_empty() && labels.len() < 20 {
        labels.push((input.text(), input.text()));
    }

    let mut set = LabelSet::new();
    labels.iter().for_each(|(name, value)| set.add(name, value));
    set.sort();
    let before: Vec<String> = set.iter().map(|(name, _)| name.to_owned()).collect();
    if rules.apply(&mut set) == Verdict::Keep {
        set.sort();
        let all: Vec<_> = set.iter().collect();
        assert!(all.is_sorted_by(|a, b| a.0 < b.0), "{all:?}");
        for (name, value) in &all {
            assert!(!value.is_empty());
            // What rules name is a name.
            let came = before.iter().any(|had| had == name);
            assert!(came || Labels::from_pairs([(*name, "")]).is_ok(), "{name:?}");
        }
    }

    // Each label's value as a series of two labels; what is remembered is what was worked out.
    const A: Desc = Desc::gauge("a", "");
    let common = Labels::from_pairs([("instance", "box"), ("job", "node")]).unwrap();
    let shaper = Rc::new(RefCell::new(Shaper::new(rules, common)));
    let mut samples = Samples::with_limit(15).shaped(Some(Box::new(Rc::clone(&shaper))));
    let mut rounds = Vec::new();
    for _ in 0..2 {
        shaper.borrow_mut().begin();
        samples.clear();
        for (index, (name, value)) in labels.iter().enumerate() {
            samples.family(&A).add(&[("job", name), ("x", value)], index as f64);
        }
        let round: Vec<_> =
            samples.iter().map(|sample| (sample.key.to_vec(), sample.value)).collect();
        assert!(samples.iter().all(|sample| is_metric_name(sample.name())));
        let (counts, _) = shaper.borrow_mut().take_counts();
        let gone = counts.dropped + counts.duplicates + counts.nameless + counts.too_large;
        assert_eq!(gone + samples.refused() + samples.len() as u64, labels.len() as u64);
        rounds.push(round);
    }
    assert_eq!(rounds.first(), rounds.last());
}
