//! Blocks there and back, their bytes, and what becomes of bytes that no encoder wrote.

use proptest::prelude::*;

use super::*;
use crate::model::Labels;

fn sample() -> Block {
    let mut block = Block::new();
    let a = block.stream(&Labels::from_pairs([("job", "a")]).unwrap()).unwrap();
    let b = block.stream(&Labels::from_pairs([("job", "b"), ("x", "")]).unwrap()).unwrap();
    block.push(a, -5, "line \u{fc}");
    block.push_with(b, i64::MAX, "", [("trace", "1")]);
    block.push(a, i64::MIN, "end");
    block.set_position("file:/x", b"\x01\x02");
    block
}

/// A block that is worth a frame, with positions that are.
fn large() -> Block {
    let mut block = Block::new();
    let stream = block.stream(&Labels::from_pairs([("job", "a")]).unwrap()).unwrap();
    for at in 0..40 {
        block.push(stream, 1_700_000_000_000_000_000 + at, "the same line again and again");
        block.set_position(&format!("file:/var/log/{at}.log"), &[at as u8; 33]);
    }
    block
}

fn encode(block: &Block) -> Vec<u8> {
    let mut out = Vec::new();
    let positions: Vec<_> = block.positions().map(|p| (p.key, p.position)).collect();
    assert_eq!(encode_block(block, positions.into_iter(), &mut out), block.len() as u32);
    out
}

/// The whole block, positions among it.
fn decode(payload: &[u8]) -> Result<(Block, Positions), crate::encode::DecodeError> {
    let (mut block, mut positions) = (Block::new(), Positions::new());
    decode_positions(payload, &mut positions)?;
    block_bytes(payload)?;
    decode_block(payload, &mut block)?;
    Ok((block, positions))
}

fn positions(block: &Block) -> Positions {
    block.positions().map(|p| (p.key.to_owned(), p.position.to_vec())).collect()
}

/// A record of a frame that stands for these bytes.
fn record_of_frame(flags: u8, entries: u64, raw: &[u8]) -> Vec<u8> {
    let frame = zstd::bulk::compress(raw, 1).unwrap();
    let mut record = vec![VERSION, flags];
    if flags & POSITIONS_PACKED != 0 {
        varint::put_bytes(&mut record, &frame);
        varint::put(&mut record, entries);
    } else {
        varint::put(&mut record, 0);
        varint::put(&mut record, entries);
        record.extend_from_slice(&frame);
    }
    record
}

#[test]
fn a_small_block_is_pinned() {
    let mut block = Block::new();
    let stream = block.stream(&Labels::from_pairs([("j", "a")]).unwrap()).unwrap();
    block.push(stream, 200, "hi");
    block.push_with(stream, 199, "\u{fc}", [("t", "1")]);
    block.set_position("k", &[9]);
    let mut want = b"\x02\0\x01\x01k\x01\x09\x02".to_vec();
    want.extend_from_slice(b"\x01\x01\x01j\x01a\0\0\x90\x03\x01\0\x01\x01t\x011\x02\x02hi\xc3\xbc");
    assert_eq!(encode(&block), want);
}

#[test]
fn blocks_come_back_and_add_up() {
    for (block, flags) in [(sample(), 0), (large(), BODY_PACKED | POSITIONS_PACKED)] {
        let bytes = encode(&block);
        assert_eq!(bytes[1], flags);
        let (mut back, read) = decode(&bytes).unwrap();
        assert!(back.entries().eq(block.entries()));
        assert_eq!((back.streams(), read), (block.streams(), positions(&block)));
        decode_block(&bytes, &mut back).unwrap();
        assert_eq!((back.len(), back.streams().len()), (2 * block.len(), block.streams().len()));
    }
}

#[test]
fn an_empty_position_forgets_its_source() {
    let mut positions = Positions::new();
    decode_positions(&encode(&sample()), &mut positions).unwrap();
    assert_eq!(positions.get("file:/x").map(Vec::as_slice), Some(&b"\x01\x02"[..]));
    let mut block = Block::new();
    block.set_position("file:/x", b"");
    decode_positions(&encode(&block), &mut positions).unwrap();
    assert!(positions.is_empty());
}

#[test]
fn positions_alone_have_no_body() {
    let mut block = Block::new();
    block.set_position("k", &[1]);
    let bytes = encode(&block);
    assert_eq!(bytes, b"\x02\0\x01\x01k\x01\x01\0");
    assert_eq!((decode(&bytes).unwrap().0.len(), block_bytes(&bytes)), (0, Ok(0)));
    assert!(decode(&[&bytes[..], &[0]].concat()).is_err());
    assert!(decode(b"\x02\x01\0\0").is_err());
}

#[test]
fn a_block_of_one_short_line_is_smaller_than_its_fixed_width_form() {
    let path = "/var/log/syslog";
    let labels = [("filename", path), ("instance", "pi"), ("job", "file-logs")];
    for line in ["", "a", "Nov 21 12:00:01 pi CRON[4711]: (root) CMD (run-parts /etc/cron.hourly)"]
    {
        let mut block = Block::new();
        let stream = block.stream(&Labels::from_pairs(labels).unwrap()).unwrap();
        block.push(stream, 1_795_000_000_123_456_789, line);
        block.set_position(&format!("file:{path}"), &[0x5a; 33]);
        // Version, counts of 2 and 4 bytes, lengths of 2, a timestamp of 8, the line's length of 4.
        let pairs: usize = labels.iter().map(|(name, value)| 4 + name.len() + value.len()).sum();
        let fixed = 1 + 2 + 2 + pairs + 4 + 2 + 5 + path.len() + 2 + 33 + 4 + 2 + 8 + 2 + 4;
        let len = encode(&block).len();
        assert!(len + 15 <= fixed + line.len(), "{len} instead of {}", fixed + line.len());
    }
}

#[test]
fn lines_that_nothing_shortens_are_stored() {
    let mut block = Block::new();
    let stream = block.stream(&Labels::new()).unwrap();
    let mut state: u64 = 1;
    let mut line = String::new();
    while line.len() < 64 << 10 {
        state = state.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1);
        // Any of the characters of 3 bytes that are no surrogates.
        line.push(char::from_u32(0x1000 + (state >> 33) as u32 % 0xc000).unwrap());
    }
    block.push(stream, 1, &line);
    let bytes = encode(&block);
    assert!(bytes.len() < line.len() + 20, "{} of {}", bytes.len(), line.len());
    assert!(decode(&bytes).unwrap().0.entries().eq(block.entries()));
}

#[test]
fn line_of_16_mib_comes_back() {
    let mut block = Block::new();
    let stream = block.stream(&Labels::new()).unwrap();
    let line = "0123456789abcdef".repeat(1 << 20);
    block.push(stream, 1, &line);
    let bytes = encode(&block);
    assert!(bytes.len() < 1 << 20, "{}", bytes.len());
    assert!(block_bytes(&bytes).unwrap() > 16 << 20);
    assert!(decode(&bytes).unwrap().0.entries().eq(block.entries()));
}

#[test]
fn entries_that_could_not_be_read_back_are_left_out_and_not_counted() {
    let mut block = Block::new();
    let stream = block.stream(&Labels::new()).unwrap();
    for at in 0..400_000 {
        block.push(stream, at, "");
    }
    let mut out = Vec::new();
    let count = encode_block(&block, std::iter::empty(), &mut out) as usize;
    assert_eq!(count, (17 << 20) / 48 - 1);
    let (back, _) = decode(&out).unwrap();
    assert!(back.entries().eq(block.entries().take(count)));
}

/// The first record of a segment has the positions of all sources, and the smallest WAL, of 1 MiB, takes no
/// record of more than a quarter of that.
#[test]
fn first_record_with_a_thousand_files_and_a_full_block_fits_the_smallest_wal() {
    let mut state: u64 = 7;
    let mut digits = |count: usize| -> String {
        let mut digit = || {
            state = state.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1);
            char::from_digit((state >> 60) as u32, 16).unwrap()
        };
        (0..count).map(|_| digit()).collect()
    };
    let mut positions = Positions::new();
    for file in 0..1_000_u32 {
        // A pod's log: a path of 196 bytes. Two files of it, since it has just been rotated.
        let (id, container) = (digits(36), digits(64));
        let path = format!(
            "file:/var/log/pods/monitoring_{}-{}_{id}/{container}/{}.log",
            "a-deployment-with-a-long-name",
            digits(10),
            "0".repeat(20)
        );
        let mut position = vec![1];
        for inode in 0..2 {
            position.extend_from_slice(&0xfd01_u64.to_le_bytes());
            position.extend_from_slice(&(0x12_0000 + u64::from(file * 7 + inode)).to_le_bytes());
            let offset = u64::from_str_radix(&digits(6), 16).unwrap();
            position.extend_from_slice(&offset.to_le_bytes());
            position.extend_from_slice(&u32::from_str_radix(&digits(8), 16).unwrap().to_le_bytes());
            position.extend_from_slice(&[0, 1, 0, 0]);
        }
        assert!(path.len() > 196 && position.len() == 65, "{}", path.len());
        positions.insert(path, position);
    }
    let raw: usize = positions.iter().map(|(key, position)| key.len() + position.len() + 3).sum();

    let mut block = Block::new();
    let stream = block.stream(&Labels::new()).unwrap();
    // A line as long as logs.max_line may be there, an eighth of the WAL: more than a block of 64 KiB.
    // Random digits are halved at best, these not even that: random bytes of text.
    let mut line = String::new();
    while line.len() < 128 << 10 {
        let code = u32::from_str_radix(&digits(4), 16).unwrap();
        line.push(char::from_u32(0x1000 + code % 0xc000).unwrap());
    }
    block.push(stream, 1, &line);
    let mut out = Vec::new();
    let all = positions.iter().map(|(key, position)| (key.as_str(), position.as_slice()));
    assert_eq!(encode_block(&block, all, &mut out), 1);
    println!("{raw} bytes of positions and {} of lines: {} in the record", line.len(), out.len());
    assert!(raw + line.len() > 256 << 10, "{raw}: nothing to see");
    assert!(out.len() < 256 << 10, "{}", out.len());
    let (back, read) = decode(&out).unwrap();
    assert!(back.entries().eq(block.entries()));
    assert_eq!(read, positions);
}

#[test]
fn records_that_end_early_or_late_are_errors() {
    for block in [sample(), large()] {
        let bytes = encode(&block);
        for len in 0..bytes.len() {
            assert!(decode(&bytes[..len]).is_err(), "{len}");
        }
        assert!(decode(&[&bytes[..], &[0]].concat()).is_err());
    }
}

#[test]
fn a_record_with_any_bit_flipped_is_an_error_or_another_block() {
    for block in [sample(), large()] {
        let bytes = encode(&block);
        let mut errors = 0;
        for bit in 0..bytes.len() * 8 {
            let mut bad = bytes.clone();
            bad[bit / 8] ^= 1 << (bit % 8);
            match decode(&bad) {
                Ok((back, read)) => assert!(
                    !back.entries().eq(block.entries())
                        || back.streams() != block.streams()
                        || read != positions(&block)
                        // Bits of a frame that no decoder looks at.
                        || bad[1] != 0,
                    "bit {bit}"
                ),
                Err(error) => {
                    errors += 1;
                    assert!(error.offset <= bad.len(), "{error}");
                }
            }
        }
        assert!(errors > bytes.len(), "{errors}");
    }
}

#[test]
fn bombs_are_refused_before_they_take_memory() {
    let zeros = vec![0; 64 << 20];
    // More than 17 MiB by their own word.
    for (flags, entries) in [(BODY_PACKED, 1), (POSITIONS_PACKED, 0)] {
        let bomb = record_of_frame(flags, entries, &zeros);
        assert!(bomb.len() < 8 << 10, "{}", bomb.len());
        assert!(decode(&bomb).is_err());
    }
    // 17 MiB that a million rows are made of, or a million pairs, labels or positions.
    let body = &zeros[..17 << 20];
    let mut pairs = b"\0\0\0\xff\xff\xff\x03".to_vec();
    pairs.extend_from_slice(&body[..16 << 20]);
    let mut streams = b"\xff\xff\xff\x03".to_vec();
    streams.extend_from_slice(&body[..16 << 20]);
    let refusal = |result: Result<(), crate::encode::DecodeError>| result.unwrap_err().expected;
    let rows = record_of_frame(BODY_PACKED, 1 << 20, body);
    let error = refusal(decode_block(&rows, &mut Block::new()));
    assert_eq!(error, "a plausible number of entries");
    for (raw, want) in
        [(&pairs, "no more than 17 MiB"), (&streams, "a number of streams that a block has")]
    {
        let record = record_of_frame(BODY_PACKED, 1, raw);
        let error = refusal(decode_block(&record, &mut Block::new()));
        assert_eq!(error, want);
    }
    let many = record_of_frame(POSITIONS_PACKED, 0, &streams);
    let error = refusal(decode_positions(&many, &mut Positions::new()));
    assert_eq!(error, "no more than 17 MiB");
    // A few bytes that claim 17 MiB: no frame expands so much.
    let mut claim = record_of_frame(BODY_PACKED, 1, b"");
    let frame = b"\x28\xb5\x2f\xfd\xa0\x00\x00\x10\x01\x01\x00\x00";
    claim.splice(4.., frame.iter().copied());
    assert!(block_bytes(&claim).is_err());
}

#[test]
fn frames_that_are_none_are_errors() {
    let good = zstd::bulk::compress(&[7; 300], 1).unwrap();
    // Two frames, a skippable one, and one that does not say how long it is.
    let two = [&good[..], &good].concat();
    let skippable = b"\x50\x2a\x4d\x18\x01\0\0\0x";
    let mut context = zstd::zstd_safe::CCtx::create();
    context.set_parameter(zstd::zstd_safe::CParameter::ContentSizeFlag(false)).unwrap();
    let mut silent = Vec::with_capacity(1_000);
    context.compress2(&mut silent, &[7; 300]).unwrap();
    for frame in [&two[..], skippable, &silent, b"", b"\x28\xb5\x2f\xfd"] {
        assert!(packed::raw_len(frame).is_none_or(|len| len == 0), "{frame:?}");
        let record = [&[VERSION, BODY_PACKED, 0, 1][..], frame].concat();
        assert!(decode(&record).is_err(), "{frame:?}");
    }
    assert_eq!(packed::raw_len(&good), Some(300));
}

#[test]
fn values_that_no_encoder_writes_are_errors() {
    let cases: [(&[u8], &str); 10] = [
        (b"\x01\0\0\0", "another version"),
        (b"\x02\x04\0\0", "an unknown flag"),
        (b"\x02\0\x01\x01\xff\x00\0", "a key that is no UTF-8"),
        (b"\x02\0\0\x01\x01\0\x01\0\0\0", "a stream that is not there"),
        (b"\x02\0\0\x01\x00\0\0\0\0", "no stream"),
        (b"\x02\0\0\x01\x01\x02\x01b\0\x01a\0\0\0\0\0", "labels that are not in order"),
        (b"\x02\0\0\x01\x01\x02\x01a\0\x01a\0\0\0\0\0", "a label twice"),
        (b"\x02\0\0\x01\x01\x01\x011\0\0\0\0\0", "a name that is none"),
        (b"\x02\0\0\x02\x01\0\0\0\0\0\0\0\x01\x01\xc3\xbc", "a character in two lines"),
        (b"\x02\0\0\xff\xff\xff\xff\xff\xff\xff\xff\x7f", "more entries than bytes"),
    ];
    for (bytes, what) in cases {
        assert!(decode(bytes).is_err(), "{what}");
    }
    // The same with nothing wrong.
    assert!(decode(b"\x02\0\0\x01\x01\0\0\0\0\0").is_ok());
}

fn texts(max: usize) -> impl Strategy<Value = String> {
    prop_oneof![
        Just(String::new()),
        proptest::collection::vec(any::<char>(), 0..max).prop_map(String::from_iter),
        (any::<char>(), 0..max * 20).prop_map(|(c, count)| c.to_string().repeat(count)),
    ]
}

fn timestamps() -> impl Strategy<Value = i64> {
    prop_oneof![any::<i64>(), -3..3_i64, Just(i64::MIN), Just(i64::MAX)]
}

proptest! {
    #[test]
    fn any_block_comes_back(
        streams in proptest::collection::vec(texts(9), 1..9),
        entries in proptest::collection::vec(
            (any::<u16>(), timestamps(), texts(40), proptest::collection::vec((texts(5), texts(5)), 0..3)),
            0..60,
        ),
        sources in proptest::collection::btree_map(texts(9), proptest::collection::vec(any::<u8>(), 1..40), 0..20),
    ) {
        let mut block = Block::new();
        for (stream, timestamp_ns, line, metadata) in entries {
            let value = &streams[usize::from(stream) % streams.len()];
            let labels = Labels::from_pairs([("a", value.as_str()), ("b", "c")]).unwrap();
            let stream = block.stream(&labels).unwrap();
            block.push_with(stream, timestamp_ns, &line, metadata);
        }
        sources.iter().for_each(|(key, position)| block.set_position(key, position));
        let bytes = encode(&block);
        let (back, read) = decode(&bytes).unwrap();
        prop_assert!(back.entries().eq(block.entries()));
        prop_assert_eq!(back.streams(), block.streams());
        prop_assert_eq!(read, sources);
        let lines = block.text_len() + 16 * block.len();
        prop_assert!(block_bytes(&bytes).unwrap() >= lines as u64);
        // The whole record has been read: nothing may be before it in the buffer or after it.
        let mut appended = b"before".to_vec();
        let own: Vec<_> = block.positions().map(|p| (p.key, p.position)).collect();
        encode_block(&block, own.into_iter(), &mut appended);
        prop_assert_eq!(&appended[6..], &bytes);
    }

    #[test]
    fn arbitrary_bytes_make_no_panic(bytes in proptest::collection::vec(any::<u8>(), 0..300)) {
        let mut with_head = vec![VERSION, bytes.first().map_or(0, |byte| byte & 3)];
        with_head.extend_from_slice(&bytes);
        for bytes in [bytes, with_head] {
            if let Err(error) = decode(&bytes) {
                prop_assert!(error.offset <= bytes.len());
            }
        }
    }
}
