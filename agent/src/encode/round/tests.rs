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
        let pair = [
            ("x", label.as_str()),
            ("y", ["", "1", "2", "3", "4", "5", "6"][usize::from(series % 7)]),
        ];
        samples.family(desc).add(&pair[..usize::from(series % 5 != 0) + 1], f64::from_bits(*bits));
    }
    samples
}

/// A sample: its family's type, its labels, its value's bits.
type Row = (Kind, Vec<(String, String)>, u64);

/// A round's samples in the order of the table.
fn read(decoder: &RoundDecoder, round: &Round) -> Vec<Row> {
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
fn wanted(samples: &Samples, external: &Labels) -> Vec<Row> {
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

fn sorted(mut all: Vec<Row>) -> Vec<Row> {
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
        |(values, fresh, forget, lost, twice, repeat)| Step {
            values,
            fresh,
            forget,
            lost,
            twice,
            repeat,
        },
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
        let values: Vec<_> =
            (0..=(index % 200) as u8).map(|n| (n, f64::from(n).to_bits())).collect();
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
        samples.begin(0);
        samples.family(&A).add(&[("x", &(index * 7).to_string())], 1.0);
        let mut out = Vec::new();
        encoder.encode(&[&samples], index == 0, &mut out);
        if RoundDecoder::restarts(&out) {
            sizes.push(index);
        }
    }
    assert_eq!(sizes, [0, 2, 4, 6, 8].map(|keys| keys * KEY_EVERY));
}

#[test]
fn churn_in_every_round_makes_the_table_no_larger_than_a_few_rounds() {
    let mut encoder = RoundEncoder::new(Labels::new());
    let mut decoder = RoundDecoder::new();
    for index in 0..2 * KEY_EVERY {
        let mut samples = Samples::with_limit(300);
        samples.begin(0);
        for series in 0..300 {
            samples.family(&A).add(&[("x", &(index * 300 + series).to_string())], 1.0);
        }
        let mut out = Vec::new();
        encoder.encode(&[&samples], index == 0, &mut out);
        decoder.decode(&out, 0, &mut Round::default()).unwrap();
        assert!(decoder.table().len() <= 2 * 300 + 256 + 300, "{}", decoder.table().len());
    }
}

#[test]
fn table_that_is_more_than_half_full_goes_on_and_what_is_beyond_it_is_left_out() {
    let mut encoder = RoundEncoder::new(Labels::new());
    for (count, kept, full) in
        [(40_000, 40_000, true), (40_000, 40_000, false), (65_540, 65_536, true)]
    {
        let mut samples = Samples::with_limit(70_000);
        (0..count).for_each(|x| _ = samples.family(&A).add(&[("x", &x.to_string())], 1.0));
        let mut out = Vec::new();
        assert_eq!(encoder.encode(&[&samples], false, &mut out), kept);
        assert_eq!(RoundDecoder::restarts(&out), full);
    }
}

#[test]
fn memory_of_a_large_round_is_freed_when_small_ones_follow() {
    let mut encoder = RoundEncoder::new(Labels::new());
    for (count, most) in [(9_999, usize::MAX), (9, usize::MAX), (9, usize::MAX), (9, 64 << 10)] {
        let mut samples = Samples::with_limit(10_000);
        samples.begin(0);
        (0..count).for_each(|x| _ = samples.family(&A).add(&[("x", &x.to_string())], 1.0));
        encoder.encode(&[&samples], false, &mut Vec::new());
        assert!(encoder.memory() <= most, "{}", encoder.memory());
    }
}

#[test]
fn bytes_are_pinned() {
    let mut encoder = RoundEncoder::new(Labels::from_pairs([("job", "j")]).unwrap());
    let record = |encoder: &mut RoundEncoder, values: &[(&str, f64)]| {
        let mut samples = Samples::with_limit(9);
        values.iter().for_each(|(z, value)| _ = samples.family(&A).add(&[("z", z)], *value));
        let mut out = Vec::new();
        encoder.encode(&[&samples], false, &mut out);
        out
    };
    let full = record(&mut encoder, &[("1", 2.0), ("2", 0.25)]);
    let mut want =
        b"\x02\x08\0\0\x12\0\0\0\x01job\xffj\xff\x02\x01\x02a\xffz\xff1\xff2\xff".to_vec();
    want.extend_from_slice(FULL_VALUES);
    assert_eq!(full, want);
    let difference = record(&mut encoder, &[("1", 3.0), ("2", 0.25), ("3", 4096.0)]);
    let mut want = b"\x02\x0a\x01\0\x09\0\0\0\x02\x01\x01a\xffz\xff3\xff".to_vec();
    want.extend_from_slice(DIFFERENCE_VALUES);
    assert_eq!(difference, want);
    for _ in 2..KEY_EVERY {
        record(&mut encoder, &[("1", 3.0)]);
    }
    let key = record(&mut encoder, &[("1", 5.0), ("2", f64::INFINITY)]);
    let mut want = b"\x02\x0d\x40\0\x02\0\0\0".to_vec();
    want.extend_from_slice(CHECK);
    want.extend_from_slice(b"\x09\0\0\0\x02\x01\x01a\xffz\xff3\xff");
    want.extend_from_slice(KEY_VALUES);
    assert_eq!(key, want);
}

const FULL_VALUES: &[u8] = &[207, 237, 89, 217];
const DIFFERENCE_VALUES: &[u8] = &[123, 255, 130];
const KEY_VALUES: &[u8] = &[103, 236, 60, 235, 21, 116, 65, 127, 255, 255, 255, 245];
const CHECK: &[u8] = &[192, 153, 55, 224];

/// A full record, differences and a key record, with series that come and go.
fn sequence() -> Vec<Vec<u8>> {
    let mut encoder = RoundEncoder::new(external());
    let mut records = Vec::new();
    for index in 0..KEY_EVERY + 3 {
        let values: Vec<_> = (0..8 + (index % 3) as u8)
            .map(|n| (n, (f64::from(index) * f64::from(n)).to_bits()))
            .collect();
        let mut out = Vec::new();
        encoder.encode(&[&samples_of(&values)], false, &mut out);
        if index < 3 || index + 4 > KEY_EVERY {
            records.push(out);
        }
    }
    records
}

#[test]
fn flipped_bits_cut_and_lengthened_records_make_no_panic() {
    let records = sequence();
    let kinds: Vec<_> = records.iter().map(|bytes| bytes[1] & KIND).collect();
    assert!(kinds.contains(&KEY) && kinds.contains(&FULL) && kinds.contains(&DIFFERENCE));
    let mut round = Round::default();
    for (index, record) in records.iter().enumerate() {
        for bit in 0..record.len() * 8 {
            let mut bad = record.clone();
            bad[bit / 8] ^= 1 << (bit % 8);
            let mut decoder = RoundDecoder::new();
            for (at, good) in records.iter().enumerate() {
                let before = decoder.table().clone();
                let bytes = if at == index { &bad } else { good };
                if let Err(error) = decoder.decode(bytes, 0, &mut round) {
                    assert_eq!(*decoder.table(), before, "{error}");
                }
                decoder.table().iter().for_each(|series| assert!(series.labels().count() < 9));
            }
        }
        for len in 0..record.len() {
            let mut decoder = RoundDecoder::new();
            for good in &records[..index] {
                let _ = decoder.decode(good, 0, &mut round);
            }
            // What is left may be the whole record of other values.
            let _ = decoder.decode(&record[..len], 0, &mut round);
        }
    }
    let longer = [&records[0][..], &[0]].concat();
    assert!(RoundDecoder::new().decode(&longer, 0, &mut round).is_err());
}

#[test]
fn after_a_malformed_record_no_difference_is_believed() {
    let records = sequence();
    let (mut decoder, mut round) = (RoundDecoder::new(), Round::default());
    decoder.decode(&records[0], 0, &mut round).unwrap();
    let mut bad = records[1].clone();
    bad.push(1);
    assert!(matches!(decoder.decode(&bad, 0, &mut round), Err(RoundError::Malformed(_))));
    assert_eq!(decoder.decode(&records[1], 0, &mut round), Err(RoundError::Gap));
    let after: Vec<_> = records[2..].iter().map(|r| decoder.decode(r, 0, &mut round)).collect();
    let key = records[2..].iter().position(|record| record[1] & KIND == KEY).unwrap();
    assert!(after[..key].iter().all(|result| *result == Err(RoundError::Gap)));
    assert!(after[key..].iter().all(Result::is_ok));
}

#[test]
fn version_of_an_earlier_agent_is_an_error() {
    let mut round = Round::default();
    let error = RoundDecoder::new().decode(&[1, 0, 0, 0, 0, 0, 0, 0, 0], 0, &mut round);
    assert!(matches!(error, Err(RoundError::Malformed(error)) if error.offset == 0));
    assert!(!RoundDecoder::restarts(&[1, 0]));
    assert!(!RoundDecoder::restarts(&[]));
}

#[test]
fn a_series_own_label_wins_and_an_empty_one_is_none() {
    let mut samples = Samples::with_limit(9);
    samples.family(&A).add(&[("job", "own"), ("B", "upper"), ("e", ""), ("instance", "")], 1.0);
    let (mut out, mut round) = (Vec::new(), Round::default());
    RoundEncoder::new(external()).encode(&[&samples], true, &mut out);
    let mut decoder = RoundDecoder::new();
    decoder.decode(&out, 1, &mut round).unwrap();
    assert_eq!(
        labels(&decoder, 0),
        [("B", "upper"), ("__name__", "a"), ("instance", "h"), ("job", "own")]
    );
}

#[test]
fn a_label_that_is_given_twice_costs_no_round() {
    let mut samples = Samples::with_limit(9);
    samples.family(&A).add(&[("x", "1"), ("x", "2"), ("__name__", "z")], 1.0);
    let (mut out, mut round) = (Vec::new(), Round::default());
    RoundEncoder::new(Labels::new()).encode(&[&samples], true, &mut out);
    let mut decoder = RoundDecoder::new();
    decoder.decode(&out, 1, &mut round).unwrap();
    let names: Vec<_> = labels(&decoder, 0).into_iter().map(|(name, _)| name).collect();
    assert_eq!(names, ["__name__", "x"]);
}

#[test]
fn a_series_that_comes_twice_is_kept_once() {
    let mut samples = Samples::with_limit(9);
    samples.family(&A).add(&[("x", "1")], 3.0).add(&[("x", "1")], 4.0);
    let (mut out, mut round) = (Vec::new(), Round::default());
    assert_eq!(RoundEncoder::new(external()).encode(&[&samples, &samples], true, &mut out), 1);
    let mut decoder = RoundDecoder::new();
    decoder.decode(&out, 1, &mut round).unwrap();
    assert_eq!((decoder.table().len(), round.value(0), round.value(1)), (1, Some(3.0), None));
    assert_eq!(decoder.table().get(0).unwrap().kind, Kind::Gauge);
}

#[test]
fn families_larger_than_a_group_come_back() {
    let mut samples = Samples::with_limit(9_999);
    for n in 0..600 {
        samples.family(&A).add(&[("x", &n.to_string())], f64::from(n));
    }
    let (mut out, mut round) = (Vec::new(), Round::default());
    RoundEncoder::new(external()).encode(&[&samples], true, &mut out);
    let mut decoder = RoundDecoder::new();
    decoder.decode(&out, 1, &mut round).unwrap();
    assert_eq!(sorted(read(&decoder, &round)), wanted(&samples, &external()));
}

#[test]
fn nan_that_ends_leaves_a_series_as_it_was() {
    let mut encoder = RoundEncoder::new(Labels::new());
    let (mut decoder, mut round) = (RoundDecoder::new(), Round::default());
    for bits in
        [5.0f64.to_bits(), 0x7ff0_0000_0000_0002, 0, 0x7ff0_0000_0000_0002, 7.0f64.to_bits()]
    {
        let mut out = Vec::new();
        encoder.encode(&[&samples_of(&[(1, bits)])], false, &mut out);
        decoder.decode(&out, 0, &mut round).unwrap();
        assert_eq!(round.value(0).map(f64::to_bits), Some(bits));
    }
}

#[test]
fn remembered_of_a_series_is_little() {
    let mut samples = Samples::with_limit(9_999);
    for n in 0..1024 {
        samples.family(&A).add(&[("device", &format!("sd{n}"))], f64::from(n));
    }
    let mut encoder = RoundEncoder::new(external());
    let (mut decoder, mut round, mut out) = (RoundDecoder::new(), Round::default(), Vec::new());
    encoder.encode(&[&samples], true, &mut out);
    decoder.decode(&out, 1, &mut round).unwrap();
    const { assert!(model::STATE_BYTES <= 64) };
    assert!(encoder.memory() / 1024 < 160, "{}", encoder.memory() / 1024);
    assert!(decoder.memory() / 1024 < 120, "{}", decoder.memory() / 1024);
}
