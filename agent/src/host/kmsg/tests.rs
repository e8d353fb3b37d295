//! Records of every form, and a ring that behaves as kernel/printk/printk.c's devkmsg_read does.

use std::collections::VecDeque;

use super::*;
use crate::host::ManualClock;

const BOOT: [u8; 16] = [7; 16];
const EAGAIN: i32 = 11;
const EPIPE: i32 = 32;

fn text(bytes: &[u8]) -> String {
    let mut bytes = [b"6,1,2,-;", bytes].concat();
    Record::parse(&mut bytes).unwrap().text.to_owned()
}

#[test]
fn a_record_says_who_when_and_what() {
    let mut bytes =
        b"30,340,5690716,-,caller=T1;udevd[80]: starting version 181\n SUBSYSTEM=acpi\n \
                      DEVICE=+acpi:PNP0A03:00\n"
            .to_vec();
    let record = Record::parse(&mut bytes).unwrap();
    let expected = Record {
        level: 6,
        facility: 3,
        seq: 340,
        usec: 5_690_716,
        fragment: false,
        text: "udevd[80]: starting version 181",
    };
    assert_eq!(record, expected);
    for (flags, fragment) in [("c", true), ("+", true), ("-", false), ("", false), ("-,c", false)] {
        let mut bytes = format!("4,1,2,{flags};x\n").into_bytes();
        assert_eq!(Record::parse(&mut bytes).unwrap().fragment, fragment, "{flags}");
    }
}

#[test]
fn escapes_are_resolved_and_what_is_no_text_is_replaced() {
    assert_eq!(text(b"a\\x5cb\\xc3\\xbc\n"), "a\\bü");
    assert_eq!(text(b"res 51\\x0a  x\\x1b[31m"), "res 51   x [31m");
    assert_eq!(text(b"\\xff\\xfeA\\xc3"), "??A?");
    assert_eq!(text(b"a\\xc2\\x85b\\xc2\\xa0c"), "a  b\u{a0}c");
    assert_eq!(text(b"raw \xff\x00\x7f."), "raw ?  .");
    // No escapes, though they begin as one.
    assert_eq!(text(b"\\x4\\xzz\\y\\"), "\\x4\\xzz\\y\\");
    assert_eq!(text(b""), "");
    assert_eq!(text(b"\n KEY=value\n"), "");
}

#[test]
fn what_is_passed_on_keeps_its_bytes_and_says_which_device() {
    let mut bytes = b"3,340,5690716,-;sd 0:0:0:0: a\\x0a\\x1b\\xff\\x5cx \n SUBSYSTEM=scsi\n \
                      DEVICE=+scsi:0:0:0:0\\x5c\n"
        .to_vec();
    let verbatim = Verbatim::parse(&mut bytes).unwrap();
    assert_eq!((verbatim.level, verbatim.facility, verbatim.usec), (3, 0, 5_690_716));
    assert_eq!(verbatim.text, b"sd 0:0:0:0: a\n\x1b\xff\\x ");
    assert_eq!(verbatim.subsystem, b"scsi");
    assert_eq!(verbatim.device, b"+scsi:0:0:0:0\\");
    for (bytes, text) in [("6,1,2,-;", ""), ("6,1,2,-;x", "x"), ("6,1,2,-;x\n SUBSYSTEM\n=", "x")] {
        let mut bytes = bytes.as_bytes().to_vec();
        let verbatim = Verbatim::parse(&mut bytes).unwrap();
        assert_eq!(verbatim.text, text.as_bytes());
        assert!(verbatim.subsystem.is_empty() && verbatim.device.is_empty());
    }
}

#[test]
fn what_is_no_record_is_none() {
    for bad in [
        "",
        ";",
        "6,1,2;x",
        "6,1;x",
        "6,1,2,-",
        "a,1,2,-;x",
        "6,-1,2,-;x",
        "6,1,2 ,-;x",
        "6,,2,-;x",
        "4294967296,1,2,-;x",
        "6,9223372036854775808,2,-;x",
        "6,18446744073709551615,2,-;x",
        "6,99999999999999999999,2,-;x",
        "[    0.0] Linux version",
    ] {
        assert_eq!(Record::parse(&mut bad.as_bytes().to_vec()), None, "{bad:?}");
    }
}

#[test]
fn a_position_comes_back_and_no_other_bytes_are_one() {
    let position = Position { boot: *b"0123456789abcdef", next: 0x0102_0304_0506_0708 };
    let bytes = position.to_bytes();
    assert_eq!(&bytes, b"\x010123456789abcdef\x08\x07\x06\x05\x04\x03\x02\x01");
    assert_eq!(Position::from_bytes(&bytes), Some(position));
    for bad in [&bytes[..24], &[&bytes[..], b"x"].concat(), b"", &[2; 25]] {
        assert_eq!(Position::from_bytes(bad), None);
    }
}

/// The kernel's ring, with room for so many records.
struct Ring {
    records: VecDeque<(u64, Vec<u8>)>,
    room: usize,
    written: u64,
    reader: u64,
    /// Errors to give before anything else.
    errors: Vec<i32>,
}

impl Ring {
    fn new(room: usize) -> Ring {
        let records = VecDeque::new();
        Ring { records, room, written: 0, reader: 0, errors: Vec::new() }
    }

    fn write(&mut self, count: u64) {
        for _ in 0..count {
            let seq = self.written;
            self.records.push_back((seq, format!("6,{seq},{seq},-;line {seq}\n").into_bytes()));
            self.written += 1;
            if self.records.len() > self.room {
                self.records.pop_front();
            }
        }
    }

    fn oldest(&self) -> u64 {
        self.written - self.records.len() as u64
    }
}

impl Source for Ring {
    fn read(&mut self, buffer: &mut [u8]) -> io::Result<usize> {
        let refuse = |code| Err(io::Error::from_raw_os_error(code));
        if let Some(code) = self.errors.pop() {
            return refuse(code);
        }
        if self.reader == self.written {
            return refuse(EAGAIN);
        }
        if self.reader < self.oldest() {
            self.reader = self.oldest();
            return refuse(EPIPE);
        }
        let (_, bytes) = &self.records[(self.reader - self.oldest()) as usize];
        self.reader += 1;
        // As the kernel does: it has moved on already.
        let Some(room) = buffer.get_mut(..bytes.len()) else { return refuse(22) };
        room.copy_from_slice(bytes);
        Ok(bytes.len())
    }

    fn rewind(&mut self) -> io::Result<()> {
        self.reader = self.oldest();
        Ok(())
    }
}

fn open(ring: Ring, start: Start) -> Reader<Ring> {
    let mut ring = ring;
    // As an open does.
    ring.rewind().unwrap();
    Reader::open(ring, BOOT, start).unwrap()
}

fn after(boot: [u8; 16], next: u64) -> Start {
    Start::After(Position { boot, next })
}

fn rest(reader: &mut Reader<Ring>) -> Vec<u64> {
    std::iter::from_fn(|| reader.read().unwrap().map(|record| record.seq)).collect()
}

fn full(written: u64) -> Ring {
    let mut ring = Ring::new(10);
    ring.write(written);
    ring
}

#[test]
fn from_the_end_only_what_comes_is_read_and_the_end_is_known() {
    let mut reader = open(full(25), Start::End);
    assert_eq!((rest(&mut reader), reader.next, reader.lost), (vec![], 25, 0));
    reader.source.write(3);
    assert_eq!((rest(&mut reader), reader.next, reader.lost), (vec![25, 26, 27], 28, 0));
    let mut empty = open(Ring::new(3), Start::End);
    empty.source.write(2);
    assert_eq!((rest(&mut empty), empty.lost), (vec![0, 1], 0));
}

#[test]
fn after_a_position_nothing_is_repeated_and_nothing_left_out() {
    let mut reader = open(full(25), after(BOOT, 22));
    assert_eq!((rest(&mut reader), reader.lost), (vec![22, 23, 24], 0));
    let mut reader = open(full(25), after(BOOT, 25));
    assert!(rest(&mut reader).is_empty());
    reader.source.write(1);
    assert_eq!((rest(&mut reader), reader.lost), (vec![25], 0));
}

#[test]
fn what_was_overwritten_while_nobody_read_is_counted() {
    let mut reader = open(full(25), after(BOOT, 5));
    assert_eq!((rest(&mut reader), reader.lost), ((15..25).collect(), 10));
}

#[test]
fn what_was_overwritten_while_it_was_open_is_counted() {
    let mut reader = open(full(25), Start::End);
    reader.source.write(4);
    assert_eq!(reader.read().unwrap().unwrap().seq, 25);
    reader.source.write(30);
    assert_eq!((rest(&mut reader), reader.lost), ((49..59).collect(), 23));
}

#[test]
fn another_boot_is_read_from_its_beginning() {
    let mut reader = open(full(7), after([8; 16], 3));
    assert_eq!((rest(&mut reader), reader.lost), ((0..7).collect(), 0));
    let mut reader = open(full(25), after([8; 16], 1_000));
    assert_eq!((rest(&mut reader), reader.lost), ((15..25).collect(), 15));
}

#[test]
fn a_first_reading_begins_with_the_oldest_and_misses_nothing() {
    let mut reader = open(full(25), Start::Oldest);
    assert_eq!(rest(&mut reader), Vec::from_iter(15..25));
    assert_eq!(reader.lost, 0);
    assert!(rest(&mut open(Ring::new(3), Start::Oldest)).is_empty());
}

#[test]
fn a_position_that_this_boot_never_had_is_not_waited_for() {
    let mut reader = open(full(7), after(BOOT, 8));
    assert_eq!(rest(&mut reader), (0..7).collect::<Vec<_>>());
    let mut reader = open(full(25), after(BOOT, u64::MAX));
    assert_eq!((rest(&mut reader), reader.next), ((15..25).collect(), 25));
}

#[test]
fn a_record_that_is_too_large_or_none_costs_itself() {
    let mut ring = full(3);
    ring.records[1].1 = vec![b'x'; BUFFER + 1];
    ring.records[2].1 = b"no record".to_vec();
    ring.write(1);
    let mut reader = open(ring, after(BOOT, 0));
    assert_eq!((rest(&mut reader), reader.lost), (vec![0, 3], 2));
}

#[test]
fn a_log_that_only_fails_ends_with_an_error_and_not_in_a_loop() {
    for code in [EPIPE, 22, 4] {
        let mut reader = open(full(3), Start::End);
        reader.source.errors = vec![code; 1_000];
        assert_eq!(reader.read().unwrap_err().raw_os_error(), Some(code));
    }
    let mut reader = open(full(3), after(BOOT, 0));
    assert_eq!(reader.read().unwrap().unwrap().seq, 0, "the one that was read at the opening");
    reader.source.errors = vec![5];
    assert_eq!(reader.read().unwrap_err().raw_os_error(), Some(5));
    assert_eq!(rest(&mut reader), vec![1, 2]);
}

#[test]
fn a_records_time_is_its_age_before_now_and_never_later() {
    let clock = ManualClock::at(1_700_000_000_000_000_000);
    let monotonic = rustix::time::clock_gettime(rustix::time::ClockId::Monotonic);
    let usec = monotonic.tv_sec as u64 * 1_000_000 + monotonic.tv_nsec as u64 / 1_000;
    let second_ago = unix_ns(&clock, usec - 1_000_000);
    let age = clock.now_ns() - second_ago;
    assert!((1_000_000_000..2_000_000_000).contains(&age), "{age}");
    assert_eq!(unix_ns(&clock, usec + 60_000_000), clock.now_ns());
    assert!(unix_ns(&clock, 0) < second_ago);
    assert_eq!(unix_ns(&clock, u64::MAX), clock.now_ns());
}

#[test]
fn a_file_that_is_not_the_kernels_log_is_refused_and_none_is_absent() {
    let folder = tempfile::tempdir().unwrap();
    let root = crate::host::Roots { root: folder.path().into(), ..Default::default() };
    let mut host = Host::new(root);
    assert!(Kmsg::open(&mut host, Start::End).unwrap_err().is_absent());
    std::fs::create_dir(folder.path().join("dev")).unwrap();
    std::fs::write(folder.path().join("dev/kmsg"), "6,0,0,-;x\n").unwrap();
    let error = Kmsg::open(&mut host, Start::End).unwrap_err();
    assert!(error.is_absent() && error.to_string().contains("not the kernel's log"), "{error}");
}
