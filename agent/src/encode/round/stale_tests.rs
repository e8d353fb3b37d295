//! Series that go away are said to be gone, once for each time, whatever becomes of the table meanwhile.

use std::collections::{BTreeMap, BTreeSet};

use proptest::prelude::*;

use super::*;
use crate::model::{Desc, Labels, STALE, Samples};

const A: Desc = Desc::gauge("a", "");

/// Sections 1 and 2, each with some of eight series; one that is None has not been asked.
type Asked = [Option<BTreeSet<u8>>; 2];

fn samples_of(asked: &Asked) -> Samples {
    let mut samples = Samples::with_limit(100);
    for (section, series) in (1u16..).zip(asked) {
        let Some(series) = series else { continue };
        samples.begin(section);
        for number in series {
            let value = f64::from(*number);
            samples.family(&A).add(&[("n", &format!("{section}.{number}"))], value);
        }
    }
    samples
}

fn read(decoder: &RoundDecoder, round: &Round) -> BTreeMap<String, u64> {
    let name = |series| {
        let series = decoder.table().get(series).unwrap();
        series.labels().find(|(name, _)| *name == "n").unwrap().1.to_owned()
    };
    (0..decoder.table().len())
        .filter_map(|series| Some((name(series), round.value(series)?.to_bits())))
        .collect()
}

fn asked() -> impl Strategy<Value = Option<BTreeSet<u8>>> {
    prop::option::weighted(0.7, prop::collection::btree_set(0u8..8, 0..8))
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(300))]

    /// A server that has every record shows a series from its first sample to the round in which its
    /// section is asked and does not have it; `twice` is a round that is encoded again for a new segment,
    /// `lost` one that could not be written.
    #[test]
    fn servers_see_the_series_that_there_are(
        steps in prop::collection::vec((asked(), asked(), 0u8..8, 1u16..40), 1..40)
    ) {
        let (mut encoder, mut decoder) = (RoundEncoder::new(Labels::new()), RoundDecoder::new());
        let mut round = Round::default();
        let (mut there, mut shown) = (BTreeSet::new(), BTreeSet::new());
        for (one, two, accident, repeat) in steps {
            let asked = [one, two];
            let samples = samples_of(&asked);
            let (twice, lost, repeat) = (accident == 1, accident == 2, if accident == 3 { repeat } else { 1 });
            for _ in 0..repeat {
                for (section, series) in (1u16..).zip(&asked) {
                    let Some(series) = series else { continue };
                    there.retain(|name: &String| !name.starts_with(&format!("{section}.")));
                    there.extend(series.iter().map(|number| format!("{section}.{number}")));
                }
                let mut out = Vec::new();
                if twice {
                    encoder.encode(&[&samples], false, &mut out);
                    out.clear();
                }
                let count = encoder.encode(&[&samples], twice, &mut out);
                if lost {
                    encoder.forget();
                    continue;
                }
                decoder.decode(&out, 0, &mut round).unwrap();
                let got = read(&decoder, &round);
                prop_assert_eq!(got.len(), count as usize);
                for (name, bits) in got {
                    if bits == STALE {
                        // Said of nothing that is there; and again only of what a lost record said it of.
                        prop_assert!(!there.contains(&name), "{name} is there");
                        shown.remove(&name);
                    } else {
                        shown.insert(name);
                    }
                }
                for (section, series) in (1u16..).zip(&asked) {
                    if series.is_none() {
                        continue;
                    }
                    let of = |names: &BTreeSet<String>| {
                        let start = format!("{section}.");
                        names.iter().filter(|name| name.starts_with(&start)).cloned().collect::<Vec<_>>()
                    };
                    prop_assert_eq!(of(&shown), of(&there));
                }
            }
        }
    }
}

#[test]
fn a_series_that_is_gone_is_said_to_be_gone_once() {
    let mut encoder = RoundEncoder::new(Labels::new());
    let set = |numbers: &[u8]| Some(numbers.iter().copied().collect());
    let rounds: [(Asked, u32); 7] = [
        ([set(&[1, 2]), set(&[1])], 3),
        // Not asked is not gone.
        ([set(&[1, 2]), None], 2),
        ([set(&[1]), None], 2),
        ([set(&[1]), None], 1),
        ([None, set(&[])], 1),
        ([set(&[1, 2]), set(&[])], 2),
        ([set(&[]), None], 2),
    ];
    for (asked, count) in rounds {
        let mut out = Vec::new();
        assert_eq!(encoder.encode(&[&samples_of(&asked)], false, &mut out), count, "{asked:?}");
    }
}

#[test]
fn slow_sections_don_t_make_every_record_a_full_one() {
    let mut encoder = RoundEncoder::new(Labels::new());
    let round = |slow: bool| {
        let mut samples = Samples::with_limit(10_000);
        for (section, count) in [(1u16, 500), (2, if slow { 4_000 } else { 0 })] {
            if count > 0 {
                samples.begin(section);
            }
            for n in 0..count {
                samples.family(&A).add(&[("n", &format!("{section}.{n}"))], f64::from(n));
            }
        }
        samples
    };
    let (slow, fast) = (round(true), round(false));
    let mut full = 0;
    for n in 0..FULL_EVERY {
        let mut out = Vec::new();
        encoder.encode(&[if n % 5 == 0 { &slow } else { &fast }], false, &mut out);
        full += u32::from(out[1] & KIND == FULL);
    }
    assert_eq!(full, 1);
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(200))]

    /// Rounds of the host and of targets come in any order: each ends its own series alone, over new tables
    /// and lost records.
    #[test]
    fn a_round_of_a_target_says_nothing_of_other_series(
        steps in prop::collection::vec((0u16..5, prop::collection::btree_set(0u8..6, 0..6), 0u8..8), 1..120)
    ) {
        let (mut encoder, mut decoder) = (RoundEncoder::new(Labels::new()), RoundDecoder::new());
        let mut round = Round::default();
        let mut there: [BTreeSet<String>; 5] = Default::default();
        let mut shown: [BTreeSet<String>; 5] = Default::default();
        // What the newest record said to be gone may be said again in a new table, and counts as there.
        let mut exact = true;
        for (who, series, accident) in steps {
            let section = if who == 0 { 1 } else { crate::model::FIRST_TARGET + 100 * who };
            let mut samples = Samples::with_limit(100);
            samples.begin(section);
            for number in &series {
                samples.family(&A).add(&[("n", &format!("{who}.{number}"))], f64::from(*number));
            }
            let before = encoder.added(&samples, false);
            let (mine, shown) = (&mut there[usize::from(who)], &mut shown[usize::from(who)]);
            let now: BTreeSet<_> = series.iter().map(|number| format!("{who}.{number}")).collect();
            exact &= accident > 1;
            if exact {
                prop_assert_eq!(before as usize, now.difference(mine).count());
            }
            *mine = now;
            let mut out = Vec::new();
            encoder.encode(&[&samples], accident == 0, &mut out);
            if accident == 1 {
                encoder.forget();
                continue;
            }
            decoder.decode(&out, 0, &mut round).unwrap();
            for (name, bits) in read(&decoder, &round) {
                prop_assert!(name.starts_with(&format!("{who}.")), "{name} in a round of {who}");
                if bits == STALE { shown.remove(&name) } else { shown.insert(name) };
            }
            prop_assert_eq!(shown, mine);
        }
    }
}

#[test]
fn rounds_of_targets_bring_no_key_record_nearer() {
    let mut encoder = RoundEncoder::new(Labels::new());
    let round = |section| {
        let mut samples = Samples::with_limit(10);
        samples.begin(section);
        samples.family(&A).add(&[("n", &format!("{section}"))], 1.0);
        samples
    };
    let (host, target) = (round(1), round(crate::model::FIRST_TARGET));
    let mut kinds = [0; 3];
    for _ in 0..FULL_EVERY {
        for samples in [&host, &target, &target, &target] {
            let mut out = Vec::new();
            encoder.encode(&[samples], false, &mut out);
            kinds[usize::from(out[1] & KIND)] += 1;
        }
    }
    // Behind the last round of the host, another full one is due.
    assert_eq!(kinds, [2, 3, 4 * FULL_EVERY - 5]);
}
