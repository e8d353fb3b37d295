//! Round trips, gaps, damage and the bytes themselves.

use proptest::prelude::*;

use super::*;
use crate::model::{Desc, Kind, Labels, Samples};

const A: Desc = Desc::gauge("a", "");
const B: Desc = Desc::counter("b_total", "");

fn external() -> Labels {
    Labels::from_pairs([("instance", "h"), ("job", "j")]).unwrap()
}

fn labels(decoder: &RoundDecoder, series: usize) -> Vec<(&str, &str)> {
    decoder.table().get(series).unwrap().labels().collect()
}

fn samples_of(values: &[(u8, u64)]) -> Samples {
    let mut samples = Samples::with_limit(10_000);
    for (series, bits) in values {
        let desc = if series % 3 == 0 { &B } else { &A };
        let label = format!("{}", series / 7);
        let pair = [("x", label.as_str()), ("y", ["", "1", "2", "3", "4", "5", "6"][usize::from(series % 7)])];
        samples.family(desc).add(&pair[..usize::from(series % 5 != 0) + 1], f64::from_bits(*bits));
    }
    samples
}

/// Labels and bits of a round's samples, in the order of the table.
fn read(decoder: &RoundDecoder, round: &Round) -> Vec<(Kind, Vec<(String, String)>, u64)> {
    let owned = |(name, value): (&str, &str)| (name.to_owned(), value.to_owned());
    (0..decoder.table().len())
        .filter_map(|series| {
            let labels = decoder.table().get(series).unwrap();
            let bits = round.value(series)?.to_bits();
            Some((labels.kind, labels.labels().map(owned).collect(), bits))
        })
        .collect()
}

/// What [`read`] has to say of these samples, up to the order.
fn wanted(samples: &Samples, external: &Labels) -> Vec<(Kind, Vec<(String, String)>, u64)> {
    let mut keys = Vec::new();
    let mut all = Vec::new();
    for sample in samples.iter() {
        if keys.contains(&sample.key) {
            continue;
        }
        keys.push(sample.key);
        let mut labels = external.clone();
        for (name, value) in sample.labels().filter(|(_, value)| !value.is_empty()) {
            labels.set(name, value);
        }
        labels.set("__name__", sample.name());
        let labels = labels.iter().map(|(n, v)| (n.to_owned(), v.to_owned())).collect();
        all.push((sample.kind, labels, sample.value.to_bits()));
    }
    all.sort_by(|a, b| (&a.1, a.2).cmp(&(&b.1, b.2)));
    all
}

fn sorted(mut all: Vec<(Kind, Vec<(String, String)>, u64)>) -> Vec<(Kind, Vec<(String, String)>, u64)> {
    all.sort_by(|a, b| (&a.1, a.2).cmp(&(&b.1, b.2)));
    all
}

fn value() -> impl Strategy<Value = u64> {
    let special = [
        0x7ff0_0000_0000_0002,
        (-0.0f64).to_bits(),
        f64::INFINITY.to_bits(),
        f64::NEG_INFINITY.to_bits(),
        0x7ff8_0000_0000_dead,
        u64::MAX,
        1,
        0,
        9_007_199_254_740_993.0f64.to_bits(),
        f64::MAX.to_bits(),
    ];
    prop_oneof![
        4 => (0u32..3).prop_map(|n| f64::from(n).to_bits()),
        2 => any::<u16>().prop_map(|n| (f64::from(n) / 100.0).to_bits()),
        2 => any::<u32>().prop_map(|n| (f64::from(n) * 4096.0).to_bits()),
        1 => any::<u32>().prop_map(|n| (f64::from(n) * 1e-3).to_bits()),
        1 => any::<i64>().prop_map(|n| (n as f64).to_bits()),
        1 => prop::sample::select(special.to_vec()),
        1 => any::<u64>(),
    ]
}

#[derive(Clone, Debug)]
struct Step {
    values: Vec<(u8, u64)>,
    fresh: bool,
    forget: bool,
    lost: bool,
    twice: bool,
    repeat: u8,
}

fn step() -> impl Strategy<Value = Step> {
    let values = prop::collection::vec((0u8..40, value()), 0..30);
    let rare = || prop::bool::weighted(0.08);
    (values, rare(), rare(), rare(), rare(), prop_oneof![4 => Just(0u8), 1 => 0u8..80]).prop_map(
        |(values, fresh, forget, lost, twice, repeat)| Step { values, fresh, forget, lost, twice, repeat },
    )
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(300))]

    /// Series come and go, records are lost, the table starts anew: what is decoded is what was encoded,
    /// and what is not decoded is a gap that ends with the next key or full record.
    #[test]
    fn rounds_come_back_bit_for_bit_or_not_at_all(steps in prop::collection::vec(step(), 1..25)) {
        let (mut encoder, mut decoder) = (RoundEncoder::new(external()), RoundDecoder::new());
        let mut round = Round::default();
        let mut out = Vec::new();
        // Since the last record that was decoded, and whether a full record was among what is lost.
        let (mut gap, mut full_lost) = (true, true);
        let mut first = true;
        for (index, step) in steps.iter().enumerate() {
            if step.forget {
                encoder.forget();
            }
            for repeat in 0..=step.repeat {
                let mut samples = samples_of(&step.values);
                if repeat % 2 == 1 {
                    samples = samples_of(&step.values[step.values.len() / 4..]);
                }
                out.clear();
                if step.twice && repeat == 0 {
                    encoder.encode(&[&samples], false, &mut out);
                    out.clear();
                }
                let fresh = (step.fresh || step.twice || first) && repeat == 0;
                let (one, two) = (&samples, Samples::with_limit(1));
                let count = encoder.encode(&[one, &two], fresh, &mut out);
                first = false;
                let want = wanted(&samples, &external());
                prop_assert_eq!(count as usize, want.len());
                let restarts = RoundDecoder::restarts(&out);
                prop_assert!(!fresh || restarts);
                if step.lost && repeat == 0 {
                    gap = true;
                    full_lost |= restarts;
                    continue;
                }
                let time = index as i64;
                match decoder.decode(&out, time, &mut round) {
                    Ok(()) => {
                        prop_assert!(!gap || out[1] & KIND != DIFFERENCE);
                        prop_assert!(!full_lost || restarts);
                        prop_assert_eq!(round.timestamp_ms, time);
                        prop_assert_eq!(sorted(read(&decoder, &round)), want);
                        (gap, full_lost) = (false, false);
                    }
                    Err(error) => {
                        prop_assert_eq!(error, RoundError::Gap);
                        prop_assert!(gap && !restarts);
                        prop_assert!(full_lost || out[1] & KIND == DIFFERENCE, "a key that is a gap");
                    }
                }
            }
        }
    }

    #[test]
    fn bytes_from_outside_are_errors_or_rounds(bytes in prop::collection::vec(any::<u8>(), 0..200), flags in 0u8..32) {
        let mut decoder = RoundDecoder::new();
        let mut round = Round::default();
        let head = [&[VERSION, flags, 0, 0][..], &bytes].concat();
        let _ = decoder.decode(&head, 0, &mut round);
        let _ = decoder.decode(&bytes, 0, &mut round);
    }
}

#[test]
fn lost_record_costs_the_rounds_up_to_the_next_key() {
    let mut encoder = RoundEncoder::new(external());
    let (mut decoder, mut round) = (RoundDecoder::new(), Round::default());
    let mut lost = Vec::new();
    for index in 0..3 * KEY_EVERY {
        // Series come with each round, in the one that is lost too.
        let values: Vec<_> = (0..=(index % 200) as u8).map(|n| (n, f64::from(n).to_bits())).collect();
        let samples = samples_of(&values);
        let mut out = Vec::new();
        encoder.encode(&[&samples], false, &mut out);
        assert_eq!(out[1] & KIND == KEY, index % KEY_EVERY == 0 && index > 0);
        if index == 10 || index == 70 {
            lost.push(index);
        } else if let Err(error) = decoder.decode(&out, 0, &mut round) {
            assert_eq!(error, RoundError::Gap);
            lost.push(index);
        } else {
            assert_eq!(sorted(read(&decoder, &round)), wanted(&samples, &external()), "{index}");
        }
    }
    let want: Vec<_> = (10..KEY_EVERY).chain(70..2 * KEY_EVERY).collect();
    assert_eq!(lost, want);
}

#[test]
fn lost_full_record_is_not_made_up_for_by_an_equal_table() {
    let mut encoder = RoundEncoder::new(external());
    let (mut decoder, mut round) = (RoundDecoder::new(), Round::default());
    let samples = samples_of(&[(1, 0), (2, 0)]);
    let mut records = Vec::new();
    for index in 0..2 * KEY_EVERY + 2 {
        let mut out = Vec::new();
        encoder.encode(&[&samples], index == KEY_EVERY / 2, &mut out);
        records.push(out);
    }
    records.remove(KEY_EVERY as usize / 2);
    let good = records.iter().filter(|bytes| decoder.decode(bytes, 0, &mut round).is_ok()).count();
    assert_eq!(good, KEY_EVERY as usize / 2);
    assert_eq!(KEY, records[KEY_EVERY as usize * 3 / 2 - 1][1] & KIND);
}

#[test]
fn table_of_series_that_are_gone_starts_anew() {
    let mut encoder = RoundEncoder::new(Labels::new());
    let mut sizes = Vec::new();
    for index in 0..10 * KEY_EVERY {
        let mut samples = Samples::with_limit(9);
        samples.family(&A).add(&[("x", &(index * 7).to_string())], 1.0);
        let mut out = Vec::new();
        encoder.encode(&[&samples], index == 0, &mut out);
        if RoundDecoder::restarts(&out) {
            sizes.push(index);
        }
    }
    assert_eq!(sizes, [0, 2, 4, 6, 8].map(|keys| keys * KEY_EVERY));
}
