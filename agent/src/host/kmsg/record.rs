//! A record's bytes and what they say. It must not know where they come from.
//!
//! `prefix,seq,usec,flags[,…];text\n`, then lines ` KEY=value`, of which the kernel writes SUBSYSTEM and
//! DEVICE: prefix is facility times 8 plus level, usec the time since boot, `c` among the flags a piece of
//! a line. What is not printable ASCII in text and values, and a backslash, is written `\xNN`
//! (msg_print_ext_header and _body in kernel/printk/printk.c).

use std::ops::Range;
use std::str;

use memchr::memchr;

/// A message of the kernel's log.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Record<'a> {
    /// 0 (emergency) to 7 (debug).
    pub level: u8,
    /// 0 is the kernel; what user space writes has another.
    pub facility: u32,
    /// Rises by 1 with each record of a boot.
    pub seq: u64,
    /// Microseconds since boot, by printk's clock; see [`unix_ns`](super::unix_ns).
    pub usec: u64,
    /// Whether it is a piece of a line, which other messages may have interrupted.
    pub fragment: bool,
    /// The message: one line, without control characters, at most 8 KiB.
    pub text: &'a str,
}

impl<'a> Record<'a> {
    /// A record from the bytes of one read, in which escapes are resolved in place. None if the bytes
    /// are none.
    pub fn parse(bytes: &'a mut [u8]) -> Option<Record<'a>> {
        Some(Header::parse(bytes)?.record(bytes))
    }
}

/// A message as it was said, for who passes it on.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Verbatim<'a> {
    /// See [`Record::level`].
    pub level: u8,
    /// See [`Record::facility`].
    pub facility: u32,
    /// See [`Record::usec`].
    pub usec: u64,
    /// The message with its escapes resolved: any bytes, line breaks too.
    pub text: &'a [u8],
    /// `SUBSYSTEM=`, such as `usb`; empty without one.
    pub subsystem: &'a [u8],
    /// `DEVICE=`, such as `+usb:1-1`, `b8:0`, `c4:64` or `n2`; empty without one.
    pub device: &'a [u8],
}

impl<'a> Verbatim<'a> {
    /// As [`Record::parse`].
    pub fn parse(bytes: &'a mut [u8]) -> Option<Verbatim<'a>> {
        Some(Header::parse(bytes)?.verbatim(bytes))
    }
}

/// What stands before the text, and where the text is.
#[derive(Clone, Debug)]
pub(super) struct Header {
    pub(super) seq: u64,
    usec: u64,
    prefix: u32,
    fragment: bool,
    text: Range<usize>,
}

impl Header {
    pub(super) fn parse(bytes: &[u8]) -> Option<Header> {
        let end = memchr(b';', bytes)?;
        let mut fields = bytes.get(..end)?.split(|&byte| byte == b',');
        let prefix = u32::try_from(number(fields.next()?)?).ok()?;
        let seq = number(fields.next()?)?;
        let usec = number(fields.next()?)?;
        // Before 4.10 the pieces behind the first one had a '+'.
        let fragment = fields.next()?.iter().any(|&flag| flag == b'c' || flag == b'+');
        let start = end + 1;
        let length = bytes.get(start..)?;
        let length = memchr(b'\n', length).unwrap_or(length.len());
        Some(Header { seq, usec, prefix, fragment, text: start..start + length })
    }

    /// The record, of the same bytes.
    pub(super) fn record(self, bytes: &mut [u8]) -> Record<'_> {
        Record {
            level: (self.prefix & 7) as u8,
            facility: self.prefix >> 3,
            seq: self.seq,
            usec: self.usec,
            fragment: self.fragment,
            text: clean(bytes.get_mut(self.text).unwrap_or_default()),
        }
    }

    /// The record as it was said, of the same bytes.
    pub(super) fn verbatim(self, bytes: &mut [u8]) -> Verbatim<'_> {
        let end = self.text.end.min(bytes.len());
        let (text, rest) = bytes.split_at_mut(end);
        let (mut subsystem, mut device): (&[u8], &[u8]) = (b"", b"");
        for line in rest.split_mut(|&byte| byte == b'\n') {
            if line.starts_with(b" SUBSYSTEM=") {
                subsystem = unescaped(line.get_mut(11..).unwrap_or_default());
            } else if line.starts_with(b" DEVICE=") {
                device = unescaped(line.get_mut(8..).unwrap_or_default());
            }
        }
        Verbatim {
            level: (self.prefix & 7) as u8,
            facility: self.prefix >> 3,
            usec: self.usec,
            text: unescaped(text.get_mut(self.text.start..).unwrap_or_default()),
            subsystem,
            device,
        }
    }
}

fn unescaped(bytes: &mut [u8]) -> &[u8] {
    let length = unescape(bytes);
    bytes.get(..length).unwrap_or_default()
}

/// Digits only, below 2^63, which no counter of the kernel's reaches.
fn number(digits: &[u8]) -> Option<u64> {
    if digits.is_empty() {
        return None;
    }
    let number = digits.iter().try_fold(0u64, |number, byte| {
        let digit = byte.checked_sub(b'0').filter(|digit| *digit < 10)?;
        number.checked_mul(10)?.checked_add(u64::from(digit))
    })?;
    (number < 1 << 63).then_some(number)
}

/// Resolves escapes, and replaces control characters by spaces and what is not UTF-8 by question
/// marks, all in place, for nothing of it becomes longer.
fn clean(bytes: &mut [u8]) -> &str {
    let length = unescape(bytes);
    let bytes = bytes.get_mut(..length).unwrap_or_default();
    let mut good = 0;
    while let Err(error) = str::from_utf8(bytes.get(good..).unwrap_or_default()) {
        good += error.valid_up_to();
        let bad = error.error_len().unwrap_or(bytes.len() - good);
        bytes.get_mut(good..good + bad).unwrap_or_default().fill(b'?');
        good += bad;
    }
    let mut before = 0;
    for byte in bytes.iter_mut() {
        // U+0080 to U+009F are C2 80 to C2 9F.
        let is_c1 = before == 0xc2 && (0x80..0xa0).contains(byte);
        before = *byte;
        if byte.is_ascii_control() {
            *byte = b' ';
        } else if is_c1 {
            *byte = b'\0';
        }
    }
    if memchr(b'\0', bytes).is_some() {
        for at in 1..bytes.len() {
            if let Some([first, second @ 0]) = bytes.get_mut(at - 1..=at) {
                (*first, *second) = (b' ', b' ');
            }
        }
    }
    str::from_utf8(bytes).unwrap_or_default().trim_end()
}

/// Resolves `\xNN`; returns how many bytes are left.
fn unescape(bytes: &mut [u8]) -> usize {
    let Some(mut to) = memchr(b'\\', bytes) else { return bytes.len() };
    let mut from = to;
    while let Some(&byte) = bytes.get(from) {
        let escaped = match bytes.get(from..from + 4) {
            Some(&[b'\\', b'x', high, low]) => hex(high).zip(hex(low)),
            _ => None,
        };
        let (byte, width) = match escaped {
            Some((high, low)) => (high << 4 | low, 4),
            None => (byte, 1),
        };
        // Never ahead of what is read.
        if let Some(slot) = bytes.get_mut(to) {
            *slot = byte;
        }
        to += 1;
        from += width;
    }
    to
}

fn hex(digit: u8) -> Option<u8> {
    char::from(digit).to_digit(16).map(|digit| digit as u8)
}
