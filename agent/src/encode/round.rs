//! Rounds as the metrics WAL keeps them, and back.
//!
//! A segment has a table of series that grows as its records add to it; a round says which series of
//! the table it has, and their values. A record that knows no series starts the table anew, as the first
//! one of each segment does, so that a segment can be read alone.
//! ```text
//! version    u8 = 1
//! timestamp  i64   milliseconds since the Unix epoch
//! known      u32   series in the table before this record; 0: the table starts anew
//! added      u32   series that this record adds
//! added times:
//!   kind     u8    model::Kind
//!   labels   u16   how many, __name__ among them, sorted by name; each
//!     name   u16 + UTF-8
//!     value  u16 + UTF-8
//! present    ceil((known + added) / 8) bytes: bit i % 8 of byte i / 8 is set if series i has a value
//! values     f64 each, in the order of the table: the bits, so that a NaN keeps its payload
//! ```

use std::collections::HashMap;
use std::rc::Rc;

use super::bytes::{DecodeError, Reader, put_str};
use crate::model::{Kind, Labels, Sample, Samples};

/// The record's kind in the WAL.
pub const ROUND: u8 = 1;

const VERSION: u8 = 1;

/// The most series that a table may have; a record that claims more is damaged.
const MAX_SERIES: u32 = 1 << 20;

/// A series of the writer's table.
#[derive(Debug)]
struct Row {
    key: Rc<[u8]>,
    kind: Kind,
    name_len: usize,
}

/// Writes rounds. It remembers the table of the current segment.
#[derive(Debug)]
pub struct RoundEncoder {
    external: Labels,
    index: HashMap<Rc<[u8]>, u32>,
    table: Vec<Row>,
    values: Vec<f64>,
    present: Vec<u8>,
}

impl RoundEncoder {
    /// An encoder that gives every series these labels, unless the series has them itself.
    pub fn new(external: Labels) -> RoundEncoder {
        RoundEncoder {
            external,
            index: HashMap::new(),
            table: Vec::new(),
            values: Vec::new(),
            present: Vec::new(),
        }
    }

    /// Appends a round to `out`; with `fresh`, the table starts anew. Returns how many samples it has:
    /// a series that comes twice in one round is kept once, with its first value.
    ///
    /// If the record is not written after all, [`forget`](RoundEncoder::forget) it.
    pub fn encode(
        &mut self,
        timestamp_ms: i64,
        samples: &[&Samples],
        fresh: bool,
        out: &mut Vec<u8>,
    ) -> u32 {
        if fresh {
            self.forget();
        }
        let known = self.table.len();
        self.values.clear();
        self.values.resize(known, 0.0);
        self.present.clear();
        self.present.resize(known.div_ceil(8), 0);
        let mut count = 0;
        // Rounds repeat: a sample's series is nearly always the one after the last sample's.
        let mut likely = 0;
        for sample in samples.iter().flat_map(|samples| samples.iter()) {
            let series = self.series(&sample, likely) as usize;
            likely = series + 1;
            if self.values.len() <= series {
                self.values.resize(series + 1, 0.0);
                self.present.resize((series + 1).div_ceil(8), 0);
            }
            let (byte, bit) = (series / 8, 1 << (series % 8));
            if self.present[byte] & bit == 0 {
                self.present[byte] |= bit;
                self.values[series] = sample.value;
                count += 1;
            }
        }
        out.push(VERSION);
        out.extend_from_slice(&timestamp_ms.to_le_bytes());
        out.extend_from_slice(&(known as u32).to_le_bytes());
        out.extend_from_slice(&((self.table.len() - known) as u32).to_le_bytes());
        for row in &self.table[known..] {
            self.put_series(row, out);
        }
        out.extend_from_slice(&self.present);
        for (series, value) in self.values.iter().enumerate() {
            if self.present[series / 8] & (1 << (series % 8)) != 0 {
                out.extend_from_slice(&value.to_bits().to_le_bytes());
            }
        }
        count
    }

    /// Forgets the table, after a record that was encoded and could not be written: the next one starts
    /// anew.
    pub fn forget(&mut self) {
        self.index.clear();
        self.table.clear();
    }

    /// The series of a sample, which is added if the table has not seen it; `likely` is looked at first,
    /// because comparing a key costs a fraction of hashing it.
    fn series(&mut self, sample: &Sample<'_>, likely: usize) -> u32 {
        if self.table.get(likely).is_some_and(|row| *row.key == *sample.key) {
            return likely as u32;
        }
        if let Some(&series) = self.index.get(sample.key) {
            return series;
        }
        let series = self.table.len() as u32;
        let key: Rc<[u8]> = sample.key.into();
        self.index.insert(Rc::clone(&key), series);
        self.table.push(Row { key, kind: sample.kind, name_len: sample.name().len() });
        series
    }

    /// Writes a series' own labels and the external ones, merged in the order of their names.
    fn put_series(&self, row: &Row, out: &mut Vec<u8>) {
        out.push(row.kind as u8);
        let count_at = out.len();
        out.extend_from_slice(&[0, 0]);
        let mut count: u16 = 0;
        let mut put = |name: &str, value: &str, out: &mut Vec<u8>| {
            put_str(out, name);
            put_str(out, value);
            count += 1;
        };
        let parts: Vec<&str> = row
            .key
            .split(|&b| b == 0xff)
            .map(|p| std::str::from_utf8(p).unwrap_or_default())
            .collect();
        let name = parts.first().map_or("", |name| &name[..row.name_len.min(name.len())]);
        // Prometheus drops a label with an empty value, and refuses none: it equals no label.
        let mut own: Vec<(&str, &str)> = parts[1..]
            .chunks_exact(2)
            .map(|pair| (pair[0], pair[1]))
            .filter(|(_, value)| !value.is_empty())
            .collect();
        // A name twice would make the whole round one that can't be read back.
        own.dedup_by_key(|(name, _)| *name);
        own.retain(|(name, _)| *name != "__name__");
        let at = own.partition_point(|(have, _)| *have < "__name__");
        own.insert(at, ("__name__", name));
        let mut external = self.external.iter().filter(|(_, value)| !value.is_empty()).peekable();
        for (name, value) in own {
            while let Some((other, value)) = external.next_if(|(other, _)| *other < name) {
                put(other, value, out);
            }
            external.next_if(|(other, _)| *other == name);
            put(name, value, out);
        }
        for (name, value) in external {
            put(name, value, out);
        }
        out[count_at..count_at + 2].copy_from_slice(&count.to_le_bytes());
    }
}

/// The timestamp of a record, in milliseconds since the Unix epoch; None if it is no round.
pub fn round_timestamp(payload: &[u8]) -> Option<i64> {
    let mut reader = Reader::new(payload);
    if reader.u8("a version").ok()? != VERSION {
        return None;
    }
    reader.i64("a timestamp").ok()
}

/// A series of the reader's table.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Series {
    /// Its family's type.
    pub kind: Kind,
    labels: Box<[u8]>,
}

impl Series {
    /// Its labels in the order of their names, `__name__` among them.
    pub fn labels(&self) -> impl Iterator<Item = (&str, &str)> + Clone {
        let mut reader = Reader::new(&self.labels);
        // Checked when the record was decoded; ends at the first thing that is no text.
        std::iter::from_fn(move || Some((reader.text("").ok()?, reader.text("").ok()?)))
    }
}

/// Reads the rounds of one segment, from its first record on.
#[derive(Debug, Default)]
pub struct RoundDecoder {
    table: Vec<Series>,
}

/// A round that was read. Series and value by the index in the decoder's table.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct Round {
    /// Milliseconds since the Unix epoch.
    pub timestamp_ms: i64,
    present: Vec<u8>,
    values: Vec<f64>,
}

impl Round {
    /// The value of a series of the table, by its index; None if the round has none.
    pub fn value(&self, series: usize) -> Option<f64> {
        let set = self.present.get(series / 8)? & (1 << (series % 8)) != 0;
        if set { self.values.get(series).copied() } else { None }
    }
}

impl RoundDecoder {
    /// A decoder with an empty table.
    pub fn new() -> RoundDecoder {
        RoundDecoder::default()
    }

    /// The series of the segment so far.
    pub fn table(&self) -> &[Series] {
        &self.table
    }

    /// Whether this record starts the table anew, and so does not belong with the rounds before it.
    pub fn restarts(payload: &[u8]) -> bool {
        payload.get(9..13) == Some(&[0; 4])
    }

    /// Decodes a record of the segment, the next one after the last that was decoded, into `round`.
    ///
    /// # Errors
    /// The record is not well-formed, or a record before it was not seen. The table stays as it was.
    pub fn decode(&mut self, payload: &[u8], round: &mut Round) -> Result<(), DecodeError> {
        let mut reader = Reader::new(payload);
        if reader.u8("a version")? != VERSION {
            return Err(DecodeError { expected: "version 1", offset: 0 });
        }
        round.timestamp_ms = reader.i64("a timestamp")?;
        let known = reader.u32("a number of known series")? as usize;
        if known != 0 && known != self.table.len() {
            return Err(reader.error("the record before this one"));
        }
        let added = reader.u32("a number of added series")?;
        if added > MAX_SERIES {
            return Err(reader.error("a plausible number of series"));
        }
        let mut new = Vec::new();
        for _ in 0..added {
            new.push(read_series(payload, &mut reader)?);
        }
        let total = known + new.len();
        round.present.clear();
        round.present.extend_from_slice(reader.take(total.div_ceil(8), "a bitmap")?);
        if !total.is_multiple_of(8)
            && round.present.last().is_some_and(|last| last >> (total % 8) != 0)
        {
            return Err(reader.error("no bit beyond the last series"));
        }
        round.values.clear();
        for series in 0..total {
            let set = round.present[series / 8] & (1 << (series % 8)) != 0;
            let bits = if set { reader.i64("a value")? as u64 } else { 0 };
            round.values.push(f64::from_bits(bits));
        }
        reader.end()?;
        self.table.truncate(known);
        self.table.append(&mut new);
        Ok(())
    }
}

fn read_series(payload: &[u8], reader: &mut Reader<'_>) -> Result<Series, DecodeError> {
    let kind = Kind::from_u8(reader.u8("a kind")?).ok_or(reader.error("a kind of 0 to 3"))?;
    let labels = reader.u16("a number of labels")?;
    let start = reader.offset();
    let mut before = "";
    for index in 0..labels {
        let name = reader.text("a label name")?;
        if index > 0 && name <= before {
            return Err(reader.error("label names in order"));
        }
        before = name;
        reader.text("a label value")?;
    }
    Ok(Series { kind, labels: payload.get(start..reader.offset()).unwrap_or_default().into() })
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::model::Desc;

    const A: Desc = Desc::gauge("a", "");
    const B: Desc = Desc::counter("b_total", "");

    fn external() -> Labels {
        Labels::from_pairs([("instance", "h"), ("job", "j")]).unwrap()
    }

    fn labels(series: &Series) -> Vec<(&str, &str)> {
        series.labels().collect()
    }

    #[test]
    fn a_round_is_pinned() {
        let mut samples = Samples::with_limit(9);
        samples.family(&A).add(&[("z", "1")], 2.0);
        let mut out = Vec::new();
        let mut encoder = RoundEncoder::new(Labels::from_pairs([("job", "j")]).unwrap());
        assert_eq!(encoder.encode(258, &[&samples], true, &mut out), 1);
        let mut want = b"\x01\x02\x01\0\0\0\0\0\0\0\0\0\0\x01\0\0\0\x02\x03\0".to_vec();
        want.extend_from_slice(b"\x08\0__name__\x01\0a\x03\0job\x01\0j\x01\0z\x01\x001");
        want.extend_from_slice(b"\x01\0\0\0\0\0\0\0\x40");
        assert_eq!(out, want);
    }

    #[test]
    fn series_that_come_and_go_keep_their_values_apart() {
        let mut encoder = RoundEncoder::new(external());
        let mut decoder = RoundDecoder::new();
        let mut round = Round::default();
        let mut samples = Samples::with_limit(99);
        let mut out = Vec::new();

        samples.family(&A).add(&[("x", "1")], 1.0).add(&[("x", "2")], 2.0);
        encoder.encode(1, &[&samples], true, &mut out);
        decoder.decode(&out, &mut round).unwrap();
        assert_eq!((round.value(0), round.value(1), round.value(2)), (Some(1.0), Some(2.0), None));

        samples.clear();
        out.clear();
        samples.family(&B).add(&[], 7.0);
        samples.family(&A).add(&[("x", "2")], 3.0).add(&[("x", "2")], 4.0);
        assert_eq!(encoder.encode(2, &[&samples], false, &mut out), 2);
        decoder.decode(&out, &mut round).unwrap();
        assert_eq!((round.value(0), round.value(1), round.value(2)), (None, Some(3.0), Some(7.0)));
        assert_eq!(
            labels(&decoder.table()[2]),
            [("__name__", "b_total"), ("instance", "h"), ("job", "j")]
        );
        assert_eq!(decoder.table()[2].kind, Kind::Counter);

        out.clear();
        encoder.encode(3, &[&samples], true, &mut out);
        decoder.decode(&out, &mut round).unwrap();
        assert_eq!(decoder.table().len(), 2);
    }

    #[test]
    fn a_series_own_label_wins_and_an_empty_one_is_none() {
        let mut samples = Samples::with_limit(9);
        samples.family(&A).add(&[("job", "own"), ("B", "upper"), ("e", "")], 1.0);
        let (mut out, mut round) = (Vec::new(), Round::default());
        RoundEncoder::new(external()).encode(1, &[&samples], true, &mut out);
        let mut decoder = RoundDecoder::new();
        decoder.decode(&out, &mut round).unwrap();
        assert_eq!(
            labels(&decoder.table()[0]),
            [("B", "upper"), ("__name__", "a"), ("instance", "h"), ("job", "own")]
        );
    }

    #[test]
    fn a_label_that_is_given_twice_costs_no_round() {
        let mut samples = Samples::with_limit(9);
        samples.family(&A).add(&[("x", "1"), ("x", "2"), ("__name__", "z")], 1.0);
        let (mut out, mut round) = (Vec::new(), Round::default());
        RoundEncoder::new(Labels::new()).encode(1, &[&samples], true, &mut out);
        let mut decoder = RoundDecoder::new();
        decoder.decode(&out, &mut round).unwrap();
        assert_eq!(
            decoder.table()[0].labels().map(|(n, _)| n).collect::<Vec<_>>(),
            ["__name__", "x"]
        );
    }

    #[test]
    fn special_values_keep_their_bits() {
        let bits = [0x7ff0_0000_0000_0002, (-0.0f64).to_bits(), f64::INFINITY.to_bits(), 1, !0];
        let mut samples = Samples::with_limit(9);
        for (index, bits) in bits.iter().enumerate() {
            samples.family(&A).add(&[("i", &index.to_string())], f64::from_bits(*bits));
        }
        let (mut out, mut round) = (Vec::new(), Round::default());
        RoundEncoder::new(external()).encode(1, &[&samples], true, &mut out);
        RoundDecoder::new().decode(&out, &mut round).unwrap();
        for (index, bits) in bits.iter().enumerate() {
            assert_eq!(round.value(index).map(f64::to_bits), Some(*bits));
        }
    }

    #[test]
    fn malformed_records_are_errors_and_leave_the_table() {
        let mut samples = Samples::with_limit(9);
        samples.family(&A).add(&[("x", "1")], 1.0).add(&[("x", "2")], 2.0);
        let (mut out, mut round) = (Vec::new(), Round::default());
        RoundEncoder::new(external()).encode(1, &[&samples], true, &mut out);
        for len in 0..out.len() {
            assert!(RoundDecoder::new().decode(&out[..len], &mut round).is_err(), "{len}");
        }
        let mut decoder = RoundDecoder::new();
        assert!(decoder.decode(&[&out[..], &[0]].concat(), &mut round).is_err());
        assert!(decoder.decode(&[2], &mut round).is_err());
        decoder.decode(&out, &mut round).unwrap();
        // A record whose predecessor is missing.
        let mut later = out.clone();
        later[9] = 9;
        assert!(decoder.decode(&later, &mut round).is_err());
        assert_eq!(decoder.table().len(), 2);
        // Any byte changed: an error or other contents, never a panic.
        for at in 0..out.len() {
            for byte in [0, 1, 0x7f, 0xff] {
                let mut bad = out.clone();
                bad[at] = byte;
                let _ = RoundDecoder::new().decode(&bad, &mut round);
            }
        }
    }

    #[test]
    fn round_whose_predecessor_is_missing_is_refused() {
        let (mut encoder, mut records) = (RoundEncoder::new(external()), Vec::new());
        for count in 1..=3 {
            let mut samples = Samples::with_limit(9);
            for x in 0..count {
                samples.family(&A).add(&[("x", &x.to_string())], f64::from(x));
            }
            let mut out = Vec::new();
            encoder.encode(i64::from(count), &[&samples], count == 1, &mut out);
            records.push(out);
        }
        let (mut decoder, mut round) = (RoundDecoder::new(), Round::default());
        decoder.decode(&records[0], &mut round).unwrap();
        assert!(decoder.decode(&records[2], &mut round).is_err());
        decoder.decode(&records[1], &mut round).unwrap();
        decoder.decode(&records[2], &mut round).unwrap();
        assert_eq!(round.value(2), Some(2.0));
    }
}
