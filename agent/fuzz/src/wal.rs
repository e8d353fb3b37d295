//! The WAL over one file of foreign bytes. Random bytes never pass a checksum, so the first byte of the
//! input says which headers and checksums are set right: what a forged or a lucky file holds is then
//! read like a good one.

use mote::wal::{
    Encoded, Memory, OnFull, Options, Payload, ReaderId, Record, Storage, StorageFile, Wal,
};

use super::bytes::Input;

const SEGMENT: usize = 32;
const HEADER: usize = 24;
const SLOT: usize = 512;

/// Set the segment's header right.
const GOOD_HEADER: u8 = 1;
/// Set the records' checksums right.
const GOOD_RECORDS: u8 = 2;
/// Take the segment's position from the input; otherwise it is 0.
const PLACED: u8 = 4;
/// A good segment stands behind the foreign one, so that this one is not the newest.
const FOLLOWED: u8 = 8;

/// Numbers above this are refused. A log that stands just below it, as only a forged file can make it,
/// would pass it with its next record.
const MAX_POSITION: u64 = 1 << 63;

fn is_at_the_limit(number: u64) -> bool {
    number.abs_diff(MAX_POSITION) < 1 << 32
}

/// `[flags] [position u64, if PLACED] [the segment's bytes]`.
pub fn wal_segment(data: &[u8]) {
    let mut input = Input(data);
    let flags = input.u8();
    let base = if flags & PLACED != 0 { input.u64() } else { 0 };
    if is_at_the_limit(base) {
        return;
    }
    let mut file = input.0.to_vec();
    if flags & GOOD_HEADER != 0 {
        repair_header(&mut file, base);
    }
    if flags & GOOD_RECORDS != 0 {
        repair_records(&mut file, base);
    }
    let storage = Memory::default();
    put(&storage, &name(base), &file);
    if flags & FOLLOWED != 0
        && let Some(next) = base.checked_add(file.len() as u64)
    {
        let mut good = vec![0; SEGMENT + HEADER + 3];
        repair_header(&mut good, next);
        good[SEGMENT] = 3;
        repair_records(&mut good, next);
        put(&storage, &name(next), &good);
    }
    use_log(&storage);
}

/// `[flags] [the cursor file's bytes]` beside one good segment of three records.
pub fn wal_cursor(data: &[u8]) {
    let mut input = Input(data);
    let flags = input.u8();
    let mut file = input.0.to_vec();
    for slot in 0..2 {
        let Some(bytes) = file.get_mut(slot * SLOT..slot * SLOT + 28) else { break };
        let mut numbers = Input(&bytes[8..24]);
        if is_at_the_limit(numbers.u64()) || is_at_the_limit(numbers.u64()) {
            return;
        }
        if flags & (1 << slot) != 0 {
            bytes[0..8].copy_from_slice(b"MOTECURS");
            let crc = crc32c::crc32c(&bytes[0..24]);
            bytes[24..28].copy_from_slice(&crc.to_le_bytes());
        }
    }
    let storage = Memory::default();
    let mut segment = vec![0; SEGMENT + 3 * (HEADER + 5)];
    repair_header(&mut segment, 0);
    for record in 0..3 {
        segment[SEGMENT + record * (HEADER + 5)] = 5;
    }
    repair_records(&mut segment, 0);
    put(&storage, &name(0), &segment);
    put(&storage, "a.cursor", &file);
    use_log(&storage);
}

fn put(storage: &Memory, name: &str, bytes: &[u8]) {
    let mut file = storage.create(name).expect("memory has room");
    file.write_at(0, bytes).expect("memory has room");
}

fn name(base: u64) -> String {
    format!("{base:016x}.wal")
}

fn repair_header(file: &mut [u8], base: u64) {
    let Some(header) = file.get_mut(..SEGMENT) else { return };
    header[0..16].copy_from_slice(b"MOTE-WAL\x02\0\x20\0\x01\0\0\0");
    header[16..24].copy_from_slice(&base.to_le_bytes());
    header[24..28].fill(0);
    let crc = crc32c::crc32c(&header[0..28]);
    header[28..32].copy_from_slice(&crc.to_le_bytes());
}

fn repair_records(file: &mut [u8], base: u64) {
    let mut at = SEGMENT;
    while let Some(header) = file.get(at..at + HEADER) {
        let length = u32::from_le_bytes([header[0], header[1], header[2], header[3]]) as usize;
        let Some(record) = file.get_mut(at..).and_then(|rest| rest.get_mut(..HEADER + length))
        else {
            return;
        };
        record[16] = record[16].max(1);
        record[17] &= 1;
        let position = crc32c::crc32c(&base.wrapping_add(at as u64).to_le_bytes());
        let check = crc32c::crc32c_append(position, &record[0..18]) as u16;
        record[18..20].copy_from_slice(&check.to_le_bytes());
        let crc = crc32c::crc32c_append(position, &record[0..20]);
        let crc = crc32c::crc32c_append(crc, &record[HEADER..]);
        record[20..24].copy_from_slice(&crc.to_le_bytes());
        at += HEADER + length;
    }
}

struct Marker;

const MARK: &[u8] = b"appended after all that";

impl Payload for Marker {
    fn encode(&mut self, fresh: bool, out: &mut Vec<u8>) -> Encoded {
        assert!(fresh, "the first append after an opening begins a segment");
        out.extend_from_slice(MARK);
        Encoded { items: 7, time_ms: 1 }
    }
}

fn open(storage: &Memory) -> (Wal<Memory>, ReaderId) {
    let wal =
        Wal::open(storage.clone(), Options::new(Options::MIN_BYTES, OnFull::DropOldest, 1), &["a"])
            .expect("a storage that never fails opens, whatever it holds");
    let reader = wal.reader("a").expect("the reader that was named");
    let files = storage.list().expect("memory can be listed");
    assert!(
        wal.bytes() >= files.iter().map(|(_, bytes)| bytes).sum::<u64>(),
        "bytes on disk that the bound does not count"
    );
    (wal, reader)
}

/// Reads everything, appends a record, and finds it again after a restart; once acknowledged, it and
/// all before it stay so.
fn use_log(storage: &Memory) {
    let (mut wal, reader) = open(storage);
    let from = wal.cursor(reader);
    let end = wal.end();
    read_all(&mut wal, reader, from);
    let appended = wal.append(9, &mut Marker).expect("there is room");
    assert!(appended.position >= end && appended.position >= from);
    assert!(wal.bytes() <= wal.max_bytes());
    wal.sync().expect("a storage that never fails syncs");
    drop(wal);

    let (mut wal, reader) = open(storage);
    let from = wal.cursor(reader);
    let (last, payload) = read_all(&mut wal, reader, from).expect("the appended record");
    assert_eq!((last, payload.as_slice()), (appended, MARK));
    wal.acknowledge(reader, last.next, true).expect("a storage that never fails");
    drop(wal);

    let (mut wal, reader) = open(storage);
    let from = wal.cursor(reader);
    assert_eq!(from, appended.next, "what was acknowledged stays so");
    assert_eq!(read_all(&mut wal, reader, from), None);
}

/// Reads from `from` to the end; the last record with its payload.
fn read_all(wal: &mut Wal<Memory>, reader: ReaderId, from: u64) -> Option<(Record, Vec<u8>)> {
    let (mut at, mut payload, mut last) = (from, Vec::new(), None);
    while let Some(record) = wal.read(reader, at, &mut payload).expect("it never fails") {
        assert!(record.position >= at && record.segment < record.position);
        assert_eq!(record.next, record.position + (HEADER + payload.len()) as u64);
        assert!(record.next <= wal.end());
        at = record.next;
        last = Some((record, payload.clone()));
    }
    let mut scanned = 0;
    let mut at = 0;
    while let Some(record) = wal.scan(at, &mut payload).expect("it never fails") {
        at = record.next;
        scanned += 1;
    }
    assert!(scanned > 0 || last.is_none(), "a scan sees at least what a reader sees");
    last
}
