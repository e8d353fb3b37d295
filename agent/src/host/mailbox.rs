//! The mailbox of a Raspberry Pi's firmware: messages of the property interface, and the device /dev/vcio that
//! carries them (drivers/char/broadcom/vcio.c of the vendor's kernel; the mainline kernel has no such
//! device). It must not know what the answers mean.
//!
//! A message is an array of 32-bit words in the order of the CPU's bytes: its length in bytes, a code (0 in a
//! request, [`SUCCESS`] in an answer), tags, and a 0. A tag is its number, the length of its values in
//! bytes, a code (0 in a request; in an answer the top bit and the length of what was answered) and the
//! values, which the answer overwrites. A tag that the firmware does not know keeps its code 0, or makes the
//! whole message fail, as on a Raspberry Pi 5.
//!
//! The kernel hands one message at a time to the firmware, which answers in well under 1 ms, and waits for at
//! most 1 s (rpi_firmware_transaction); kernels before 4.20 wait without an end. **There was no such device
//! where this was written: the messages are tested byte by byte, the device's answers are not.**

use std::ffi::c_char;
use std::io;
use std::os::fd::{AsRawFd, OwnedFd};

use rustix::fs::{CWD, FileType, Mode, OFlags};

use super::{Host, Root};

/// The code of a message that was answered.
pub const SUCCESS: u32 = 0x8000_0000;

/// The bit of a tag's code that says that it was answered.
const ANSWERED: u32 = 0x8000_0000;

/// Length and code.
const HEADER: usize = 2;

/// Number, length and code.
const TAG_HEADER: usize = 3;

/// The closing 0.
const END: u32 = 0;

/// `_IOWR(100, 0, char *)`, of which the size of a pointer is a part.
const PROPERTY: u32 = 0xc000_6400 | (size_of::<*const c_char>() as u32) << 16;

/// A message whose memory is used again.
#[derive(Clone, Debug)]
pub struct Message {
    /// Never without a header and an end.
    words: Vec<u32>,
}

/// A tag of an answer.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Answer<'a> {
    /// The tag's number.
    pub tag: u32,
    /// What the firmware gave; empty if it does not know the tag.
    pub values: &'a [u32],
}

/// An answer that is not what the request's form allows, and what is wrong with it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Malformed(pub &'static str);

impl std::fmt::Display for Malformed {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str(self.0)
    }
}

impl std::error::Error for Malformed {}

impl Default for Message {
    fn default() -> Message {
        Message { words: vec![(HEADER as u32 + 1) * 4, 0, END] }
    }
}

impl Message {
    /// A message that asks nothing.
    pub fn new() -> Message {
        Message::default()
    }

    /// Forgets the tags, or the answer, and keeps the memory.
    pub fn clear(&mut self) {
        self.words.clear();
        self.words.extend([0, 0, END]);
        self.close();
    }

    /// Whether nothing is asked.
    pub fn is_empty(&self) -> bool {
        self.words.len() <= HEADER + 1
    }

    /// Asks for a tag with these values, which the answer replaces by as many.
    pub fn ask(&mut self, tag: u32, values: &[u32]) {
        self.words.pop();
        self.words.extend([tag, (values.len() * 4) as u32, 0]);
        self.words.extend_from_slice(values);
        self.words.push(END);
        self.close();
    }

    fn close(&mut self) {
        let length = (self.words.len() * 4) as u32;
        if let Some(first) = self.words.first_mut() {
            *first = length;
        }
    }

    /// The message as the device takes and gives it on a machine with little-endian words, as all boards are.
    pub fn to_bytes(&self) -> Vec<u8> {
        self.words.iter().flat_map(|word| word.to_le_bytes()).collect()
    }

    /// A message of these bytes. Bytes behind the last whole word are left out.
    pub fn from_bytes(bytes: &[u8]) -> Message {
        let (words, _) = bytes.as_chunks();
        Message { words: words.iter().map(|word| u32::from_le_bytes(*word)).collect() }
    }

    /// The tags of an answer, in the order in which they were asked. After an error there are no more.
    ///
    /// # Errors
    /// A message that is no answer, or whose tags don't fit into it.
    pub fn answers(&self) -> Result<Answers<'_>, Malformed> {
        let Some(([length, code], tags)) = self.words.split_first_chunk() else {
            return Err(Malformed("shorter than its header"));
        };
        if *length as usize != self.words.len() * 4 {
            return Err(Malformed("another length than was sent"));
        }
        if *code != SUCCESS {
            return Err(Malformed("the firmware did not take the message"));
        }
        Ok(Answers(Some(tags)))
    }
}

/// The tags of an answer.
#[derive(Clone, Debug)]
pub struct Answers<'a>(Option<&'a [u32]>);

impl<'a> Iterator for Answers<'a> {
    type Item = Result<Answer<'a>, Malformed>;

    fn next(&mut self) -> Option<Self::Item> {
        let left = self.0.take()?;
        match left {
            [END, ..] => return None,
            [] => return Some(Err(Malformed("no end"))),
            _ => {}
        }
        let Some(([tag, length, code], rest)) = left.split_first_chunk() else {
            return Some(Err(Malformed("a tag that is cut")));
        };
        // Tags are aligned to words.
        let words = length.div_ceil(4) as usize;
        let Some((values, rest)) = rest.split_at_checked(words) else {
            return Some(Err(Malformed("a tag that is longer than the message")));
        };
        self.0 = Some(rest);
        // More than there was room for: the rest was cut off by the firmware.
        let given = if code & ANSWERED == 0 { 0 } else { (code & !ANSWERED) / 4 };
        let values = values.get(..given as usize).unwrap_or(values);
        Some(Ok(Answer { tag: *tag, values }))
    }
}

const _: () = assert!(HEADER == 2 && TAG_HEADER == 3);

/// The open device.
#[derive(Debug)]
pub struct Mailbox(OwnedFd);

impl Mailbox {
    /// Opens `dev/vcio` below the host's root, if it is a device of the driver of that name: nothing else
    /// may be given this ioctl. It belongs to the group `video` as a rule.
    ///
    /// # Errors
    /// Whatever opening gave; `NotFound` for something else of the name.
    pub fn open(host: &mut Host) -> io::Result<Mailbox> {
        let flags = OFlags::RDONLY | OFlags::CLOEXEC | OFlags::NONBLOCK | OFlags::NOCTTY;
        let path = host.path(Root::Root, "dev/vcio");
        let device = rustix::fs::openat(CWD, path, flags, Mode::empty())?;
        let stat = rustix::fs::fstat(&device)?;
        let other = || io::Error::new(io::ErrorKind::NotFound, "dev/vcio is not the driver's");
        if FileType::from_raw_mode(stat.st_mode) != FileType::CharacterDevice {
            return Err(other());
        }
        let (major, minor) = (rustix::fs::major(stat.st_rdev), rustix::fs::minor(stat.st_rdev));
        let link = host
            .link(Root::Sys, format_args!("dev/char/{major}:{minor}"))
            .map_err(|error| error.source)?;
        if link.ends_with(b"/vcio") { Ok(Mailbox(device)) } else { Err(other()) }
    }

    /// Hands the message to the firmware and waits for the answer, which replaces it.
    ///
    /// # Errors
    /// What the kernel gave: EINVAL where the firmware refused the message, which the kernel also logs,
    /// ETIMEDOUT where it did not answer.
    #[expect(unsafe_code, reason = "the request has no wrapper")]
    pub fn call(&self, message: &mut Message) -> io::Result<()> {
        // What was read by `from_bytes` may claim any length.
        message.close();
        if message.words.len() <= HEADER {
            return Err(io::ErrorKind::InvalidInput.into());
        }
        // SAFETY: the driver, which `open` has made sure of, reads the first word and then reads and writes
        // as many bytes as it says; `close` has made these the bytes of `words`, which are initialised,
        // aligned, borrowed alone and alive during the call. It keeps no pointer. Any bytes are a u32.
        let result =
            unsafe { libc::ioctl(self.0.as_raw_fd(), PROPERTY as _, message.words.as_mut_ptr()) };
        if result < 0 { Err(io::Error::last_os_error()) } else { Ok(()) }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::host::Roots;

    fn answers(bytes: &[u8]) -> Result<Vec<(u32, Vec<u32>)>, Malformed> {
        let message = Message::from_bytes(bytes);
        message.answers()?.map(|a| a.map(|a| (a.tag, a.values.to_vec()))).collect()
    }

    /// Two tags: get throttled (0x00030046), and the measured rate of clock 3.
    #[rustfmt::skip]
    const ANSWER: [u8; 48] = [
        48, 0, 0, 0,            0, 0, 0, 0x80,
        0x46, 0x00, 0x03, 0x00, 4, 0, 0, 0,     4, 0, 0, 0x80,
        0x05, 0x00, 0x05, 0x00,
        0x47, 0x00, 0x03, 0x00, 8, 0, 0, 0,     8, 0, 0, 0x80,
        3, 0, 0, 0,             0x00, 0x2f, 0x68, 0x59,
        0, 0, 0, 0,
    ];

    #[test]
    fn a_request_byte_by_byte() {
        let mut message = Message::new();
        assert!(message.is_empty());
        assert_eq!(message.to_bytes(), [12, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0]);
        message.ask(0x0003_0046, &[0]);
        message.ask(0x0003_0047, &[3, 0]);
        let mut request = ANSWER;
        for at in [7, 16, 19, 20, 22, 32, 35, 40, 41, 42, 43] {
            request[at] = 0;
        }
        assert_eq!(message.to_bytes(), request);
        assert!(!message.is_empty());
        message.clear();
        assert!(message.is_empty() && message.to_bytes() == Message::new().to_bytes());
    }

    #[test]
    fn an_answer_byte_by_byte() {
        assert_eq!(
            answers(&ANSWER),
            Ok(vec![(0x0003_0046, vec![0x0005_0005]), (0x0003_0047, vec![3, 1_500_000_000])])
        );
    }

    #[test]
    fn a_tag_that_was_not_answered_has_no_values() {
        let mut answer = ANSWER;
        answer[19] = 0;
        let found = answers(&answer).unwrap();
        assert_eq!(found[0], (0x0003_0046, vec![]));
        assert_eq!(found[1].1.len(), 2);
        // Shorter and longer than asked.
        answer[32] = 4;
        assert_eq!(answers(&answer).unwrap()[1].1, [3]);
        answer[33] = 0xff;
        assert_eq!(answers(&answer).unwrap()[1].1.len(), 2);
    }

    #[test]
    fn an_answer_of_another_form_is_an_error() {
        for length in 0..ANSWER.len() {
            assert!(answers(&ANSWER[..length]).is_err(), "{length} bytes");
        }
        let altered = |at: usize, byte: u8| {
            let mut answer = ANSWER;
            answer[at] = byte;
            answers(&answer).unwrap_err().0
        };
        assert_eq!(altered(0, 44), "another length than was sent");
        assert_eq!(altered(4, 1), "the firmware did not take the message");
        assert_eq!(altered(7, 0), "the firmware did not take the message");
        assert_eq!(altered(12, 64), "a tag that is longer than the message");
        assert_eq!(altered(15, 0xff), "a tag that is longer than the message");
        assert_eq!(altered(44, 1), "a tag that is cut");
        assert_eq!(altered(28, 12), "no end");
    }

    #[test]
    fn after_an_error_there_are_no_more_tags() {
        let mut cut = ANSWER;
        cut[12] = 64;
        let cut = Message::from_bytes(&cut);
        let mut answers = cut.answers().unwrap();
        assert!(answers.next().unwrap().is_err());
        assert_eq!(answers.next(), None);
    }

    #[test]
    fn what_is_not_the_device_is_not_asked() {
        let root = tempfile::tempdir().unwrap();
        let roots = |root: &std::path::Path| Roots { root: root.into(), ..Roots::default() };
        let mut host = Host::new(roots(root.path()));
        assert_eq!(Mailbox::open(&mut host).unwrap_err().kind(), io::ErrorKind::NotFound);
        let vcio = root.path().join("dev/vcio");
        std::fs::create_dir(root.path().join("dev")).unwrap();
        std::fs::write(&vcio, "").unwrap();
        assert_eq!(Mailbox::open(&mut host).unwrap_err().kind(), io::ErrorKind::NotFound);
        std::fs::remove_file(&vcio).unwrap();
        // A device of another driver.
        std::os::unix::fs::symlink("/dev/null", &vcio).unwrap();
        assert!(Mailbox::open(&mut host).is_err());
    }

    #[test]
    fn the_number_of_the_ioctl() {
        let size = if cfg!(target_pointer_width = "64") { 8 } else { 4 };
        assert_eq!(PROPERTY, 0b11 << 30 | size << 16 | 100 << 8);
    }
}
