//! Rounds and blocks as the WAL keeps them.

use mote::encode::{
    Positions, Round, RoundDecoder, RoundEncoder, RoundError, block_bytes, decode_block,
    decode_positions, encode_block,
};
use mote::model::{Block, Desc, Labels, Samples};

use super::bytes::Input;

/// Records of one segment, each with its length before it. What decodes is decoded the same again, has at
/// most the values that its table has series, and labels in order; what does not leaves the table alone.
pub fn rounds(data: &[u8]) {
    let mut input = Input(data);
    let (mut decoder, mut twin) = (RoundDecoder::new(), RoundDecoder::new());
    let (mut round, mut same) = (Round::default(), Round::default());
    while !input.is_empty() {
        let payload = input.long();
        let before = decoder.table().clone();
        let result = decoder.decode(payload, 7, &mut round);
        assert_eq!(twin.decode(payload, 7, &mut same), result);
        match result {
            Ok(()) => {
                assert_eq!(round, same);
                assert_eq!(round.value(decoder.table().len()), None);
                assert_eq!(decoder.table(), twin.table());
                for series in decoder.table().iter() {
                    assert!(series.labels().is_sorted_by(|a, b| a.0 < b.0), "each name once");
                    assert!(series.labels().any(|(name, _)| name == "__name__"));
                }
            }
            Err(error) => {
                if let RoundError::Malformed(error) = error {
                    assert!(error.offset <= payload.len(), "{error}");
                }
                assert_eq!(*decoder.table(), before);
            }
        }
        // A schema stands for 32 times its bytes and 4 KiB at most, and a series has some.
        assert!(decoder.memory() < (1 << 16) + 4096 * (data.len() + 128));
    }
}

/// Rounds of samples that a collector might write: `[fresh u8] [samples u8] [family, labels u8,
/// values, the sample's bits]*`. What is encoded decodes to the same samples.
pub fn samples(data: &[u8]) {
    const OWN: [&str; 4] = ["A", "device", "job", "zone"];
    const FAMILIES: [Desc; 3] =
        [Desc::gauge("a", ""), Desc::counter("b_total", ""), Desc::untyped("c", "")];
    let external = Labels::from_pairs([("instance", "h"), ("job", "external")]).expect("labels");
    let mut encoder = RoundEncoder::new(external.clone());
    let mut decoder = RoundDecoder::new();
    let (mut record, mut round) = (Vec::new(), Round::default());
    let mut input = Input(data);
    let mut fresh = true;
    while !input.is_empty() {
        fresh |= input.u8() & 1 != 0;
        let mut samples = Samples::with_limit(1_000);
        for _ in 0..input.u8() % 32 {
            let desc = &FAMILIES[usize::from(input.u8()) % FAMILIES.len()];
            let which = input.u8();
            let values: Vec<String> = OWN.iter().map(|_| input.text()).collect();
            let labels: Vec<_> = OWN
                .iter()
                .zip(&values)
                .enumerate()
                .filter(|(index, _)| which & (1 << index) != 0)
                .map(|(_, (name, value))| (*name, value.as_str()))
                .collect();
            samples.family(desc).add(&labels, f64::from_bits(input.u64()));
        }
        record.clear();
        let count = encoder.encode(&[&samples], fresh, &mut record);
        decoder.decode(&record, 5, &mut round).expect("what was encoded");
        fresh = false;
        let present = (0..decoder.table().len()).filter(|&at| round.value(at).is_some()).count();
        assert_eq!(present, count as usize);
        for sample in samples.iter() {
            // An empty value is no label, and so hides no external one.
            let mut labels = external.clone();
            for (name, value) in sample.labels().filter(|(_, value)| !value.is_empty()) {
                labels.set(name, value);
            }
            labels.set("__name__", sample.name());
            let found = decoder.table().iter().enumerate().any(|(index, series)| {
                series.kind == sample.kind
                    && series.labels().eq(labels.iter())
                    && round.value(index).is_some()
            });
            assert!(found, "{labels:?} is not in the table");
        }
    }
}

/// A block's record. What decodes, entries and positions, is encoded and decoded to the same, and takes no
/// more memory than a record may.
pub fn blocks(data: &[u8]) {
    let mut block = Block::new();
    let mut positions = Positions::new();
    let bytes = block_bytes(data);
    let read = decode_positions(data, &mut positions);
    let decoded = decode_block(data, &mut block);
    for error in [read.err(), decoded.err()].into_iter().flatten() {
        assert!(error.offset <= data.len(), "{error}");
    }
    let pairs = block.entries().flat_map(|entry| entry.metadata.iter());
    let metadata: usize = pairs.map(|(name, value)| 48 + name.len() + value.len()).sum();
    assert!(48 * block.len() + block.text_len() + metadata <= 17 << 20);
    if read.is_err() || decoded.is_err() {
        return;
    }
    let bytes = bytes.expect("a record that decodes");
    assert!(bytes >= (16 * block.len() + block.text_len()) as u64);

    let mut record = Vec::new();
    let written = positions.iter().map(|(key, position)| (key.as_str(), position.as_slice()));
    let count = encode_block(&block, written, &mut record);
    assert_eq!(count as usize, block.len());
    let (mut again, mut positions_again) = (Block::new(), Positions::new());
    decode_block(&record, &mut again).expect("what was encoded");
    decode_positions(&record, &mut positions_again).expect("what was encoded");
    assert_eq!(positions_again, positions);
    // Streams without an entry are not written where there is no entry at all.
    assert!(again == block || block.is_empty());
}
