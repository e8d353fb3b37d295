//! The bytes of `GET /containers/ID/logs?timestamps=1` to messages, in pieces of any size.
//!
//! Of a container without a terminal they come in frames: a byte for the stream (1 standard output, 2
//! standard error, 3 an error of the daemon's own), three of zero, the length as a big-endian u32, and so
//! many bytes. With a terminal they come as they are. Which of both it is, the first byte tells: raw output
//! begins with the digit of a year.
//!
//! A message is `TIMESTAMP SP TEXT`, with `\n` behind it or, if it is a part of a line, without. Docker parts
//! lines at 16 KiB, Podman wherever a read of its monitor ended. In raw output nothing marks a part's end but
//! the timestamp of the next one: it is believed where a chunk begins, since both daemons flush each message,
//! and behind Docker's 16 KiB, where no program writes a time to the nanosecond by chance. Docker writes nine
//! digits of a second, Podman before 5.0 none and the zone as an offset.
//!
//! It must not know HTTP, nor what becomes of a message.

use super::time::rfc3339;

/// Docker's parts; what was not UTF-8 at a part's ends has become longer.
const PART: usize = 16 << 10;
const PART_SLACK: usize = 12;

/// What is left of an unfinished message whose memory others need.
const SHORTENED: usize = 2 << 10;

/// The longest timestamp, `2026-11-21T22:12:48.845784056+00:00`, and the space behind it.
const STAMP: usize = 36;

/// Which of a container's outputs.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Output {
    /// Standard output, or a terminal.
    Stdout,
    /// Standard error.
    Stderr,
    /// The daemon itself, which tells of an error.
    Daemon,
}

/// A line, or a part of one.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Message<'a> {
    /// Where it was written.
    pub output: Output,
    /// When, in nanoseconds since the Unix epoch, if it says so.
    pub timestamp_ns: Option<i64>,
    /// Without its line break.
    pub text: &'a [u8],
    /// The line goes on in the next message of the same output.
    pub partial: bool,
    /// Its end was left out, since it is longer than was asked for.
    pub cut: bool,
}

/// Why bytes are no log.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct FrameError(pub [u8; 4]);

impl std::fmt::Display for FrameError {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "a frame that begins with {:02x?} instead of a stream's number", self.0)
    }
}

impl std::error::Error for FrameError {}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum State {
    Start,
    Header([u8; 8], usize),
    Frame(Output, u32),
    Raw,
}

/// Takes messages apart.
#[derive(Debug)]
pub struct Frames {
    state: State,
    /// A message of which the end has not come; empty and without memory most of the time.
    pending: Vec<u8>,
    cut: bool,
    /// The longest text.
    max: usize,
}

impl Frames {
    /// For a log from its first byte on, of which messages are cut at so many bytes.
    pub fn new(max: usize) -> Frames {
        Frames { state: State::Start, pending: Vec::new(), cut: false, max }
    }

    /// Takes the next bytes, which `begin` a chunk or not, and gives out each message that ends in them.
    ///
    /// # Errors
    /// They are no frames. Nothing can be read behind that.
    pub fn feed(
        &mut self,
        mut bytes: &[u8],
        begin: bool,
        out: &mut dyn FnMut(Message<'_>),
    ) -> Result<(), FrameError> {
        let mut first = begin;
        while let Some((&byte, rest)) = bytes.split_first() {
            match self.state {
                State::Start if byte.is_ascii_digit() => self.state = State::Raw,
                State::Start => self.state = State::Header([0; 8], 0),
                State::Header(mut header, have) => {
                    bytes = rest;
                    if let Some(place) = header.get_mut(have) {
                        *place = byte;
                    }
                    self.state = State::Header(header, have + 1);
                    if have + 1 == header.len() {
                        let [kind, z1, z2, z3, length @ ..] = header;
                        let output = match [kind, z1, z2, z3] {
                            // 0 is standard input, which Docker writes as output.
                            [0 | 1, 0, 0, 0] => Output::Stdout,
                            [2, 0, 0, 0] => Output::Stderr,
                            [3, 0, 0, 0] => Output::Daemon,
                            other => return Err(FrameError(other)),
                        };
                        self.state = match u32::from_be_bytes(length) {
                            0 => State::Header([0; 8], 0),
                            length => State::Frame(output, length),
                        };
                    }
                }
                State::Frame(output, left) => {
                    let count = usize::try_from(left).unwrap_or(usize::MAX).min(bytes.len());
                    let (part, rest) = bytes.split_at_checked(count).unwrap_or((bytes, b""));
                    bytes = rest;
                    let left = left.saturating_sub(part.len() as u32);
                    self.lines(output, part, out);
                    self.state = if left > 0 {
                        State::Frame(output, left)
                    } else {
                        self.end(output, b"", true, out);
                        State::Header([0; 8], 0)
                    };
                }
                State::Raw => {
                    if first && !self.pending.is_empty() && stamp(bytes).is_some() {
                        self.end(Output::Stdout, b"", true, out);
                    }
                    self.lines(Output::Stdout, bytes, out);
                    bytes = b"";
                }
            }
            first = false;
        }
        Ok(())
    }

    /// The stream has come to its end: a terminal's last line may have none.
    pub fn finish(&mut self, out: &mut dyn FnMut(Message<'_>)) {
        if self.state == State::Raw {
            self.end(Output::Stdout, b"", true, out);
        }
    }

    /// What memory it holds.
    pub fn held(&self) -> usize {
        self.pending.capacity()
    }

    /// Keeps only the beginning of the unfinished message, to have its memory. The rest is left out as it comes.
    pub fn shorten(&mut self) {
        self.pending.truncate(SHORTENED);
        self.pending.shrink_to_fit();
        self.cut = true;
    }

    /// Gives out the lines that end here, and keeps the rest.
    fn lines(&mut self, output: Output, mut bytes: &[u8], out: &mut dyn FnMut(Message<'_>)) {
        while let Some(at) = memchr::memchr(b'\n', bytes) {
            let (line, rest) = bytes.split_at_checked(at).unwrap_or((bytes, b"\n"));
            self.end(output, line, false, out);
            bytes = rest.get(1..).unwrap_or_default();
        }
        self.keep(bytes);
    }

    fn keep(&mut self, bytes: &[u8]) {
        // With room for a `\r`, and in raw output for the timestamps of the parts of the longest line.
        let bound = self.max + self.max / PART * STAMP + STAMP + 2;
        let room = if self.cut { 0 } else { bound.saturating_sub(self.pending.len()) };
        let (kept, left) = bytes.split_at_checked(room).unwrap_or((bytes, b""));
        self.pending.extend_from_slice(kept);
        self.cut |= !left.is_empty();
    }

    /// Gives out what is pending with these last bytes.
    fn end(
        &mut self,
        output: Output,
        last: &[u8],
        partial: bool,
        out: &mut dyn FnMut(Message<'_>),
    ) {
        if self.pending.is_empty() {
            if !(partial && last.is_empty()) {
                self.say(output, last, partial, out);
            }
            return;
        }
        self.keep(last);
        let pending = std::mem::take(&mut self.pending);
        self.say(output, &pending, partial, out);
        self.cut = false;
    }

    fn say(
        &self,
        output: Output,
        mut bytes: &[u8],
        partial: bool,
        out: &mut dyn FnMut(Message<'_>),
    ) {
        loop {
            let (timestamp_ns, text) = match stamp(bytes) {
                Some((time, length)) => (Some(time), bytes.get(length..).unwrap_or_default()),
                None => (None, bytes),
            };
            if self.state == State::Raw
                && let Some(at) = (PART..=PART + PART_SLACK)
                    .find(|&at| text.get(at..).is_some_and(|rest| stamp(rest).is_some()))
            {
                let (part, rest) = text.split_at_checked(at).unwrap_or((text, b""));
                let part = cut(part, self.max);
                out(Message { output, timestamp_ns, text: part.0, partial: true, cut: part.1 });
                bytes = rest;
                continue;
            }
            let text = if partial { text } else { text.strip_suffix(b"\r").unwrap_or(text) };
            let (text, shorter) = cut(text, self.max);
            out(Message { output, timestamp_ns, text, partial, cut: shorter || self.cut });
            return;
        }
    }
}

fn cut(text: &[u8], max: usize) -> (&[u8], bool) {
    (text.get(..max).unwrap_or(text), text.len() > max)
}

/// The timestamp at the start of a message, and how many bytes it has with the space behind it.
fn stamp(bytes: &[u8]) -> Option<(i64, usize)> {
    let head = bytes.get(..STAMP).unwrap_or(bytes);
    if !head.first()?.is_ascii_digit() || head.get(10) != Some(&b'T') {
        return None;
    }
    let space = memchr::memchr(b' ', head)?;
    Some((rfc3339(head.get(..space)?)?, space + 1))
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    type Owned = (Output, Option<i64>, String, bool, bool);

    fn frame(kind: u8, text: &[u8]) -> Vec<u8> {
        [&[kind, 0, 0, 0][..], &(text.len() as u32).to_be_bytes(), text].concat()
    }

    fn read(bytes: &[u8], size: usize, max: usize) -> Vec<Owned> {
        let mut frames = Frames::new(max);
        let mut all = Vec::new();
        let mut out = |m: Message<'_>| {
            let text = String::from_utf8_lossy(m.text).into_owned();
            all.push((m.output, m.timestamp_ns, text, m.partial, m.cut));
        };
        for part in bytes.chunks(size) {
            frames.feed(part, false, &mut out).unwrap();
        }
        frames.finish(&mut out);
        all
    }

    const T: i64 = 1_795_299_168_845_784_056;
    const STAMPED: &str = "2026-11-21T22:12:48.845784056Z ";

    fn line(output: Output, text: &str, partial: bool) -> Owned {
        (output, Some(T), text.to_owned(), partial, false)
    }

    #[test]
    fn frames_are_the_same_split_at_every_byte() {
        let bytes = [
            frame(1, format!("{STAMPED}one\n").as_bytes()),
            frame(2, format!("{STAMPED}\r\n").as_bytes()),
            frame(1, format!("{STAMPED}a part").as_bytes()),
            frame(2, format!("{STAMPED}between\r\n").as_bytes()),
            frame(1, b""),
            frame(1, format!("{STAMPED}its end\n{STAMPED}and another\n").as_bytes()),
            frame(3, b"Error grabbing logs: EOF\n"),
        ]
        .concat();
        let expected = [
            line(Output::Stdout, "one", false),
            line(Output::Stderr, "", false),
            line(Output::Stdout, "a part", true),
            line(Output::Stderr, "between", false),
            line(Output::Stdout, "its end", false),
            line(Output::Stdout, "and another", false),
            (Output::Daemon, None, "Error grabbing logs: EOF".to_owned(), false, false),
        ];
        for size in 1..=bytes.len() {
            assert_eq!(read(&bytes, size, 100), expected, "by {size}");
        }
        // What is cut off in the middle of a frame is nothing.
        assert_eq!(read(&bytes[..20], 7, 100), []);
    }

    #[test]
    fn a_terminal_s_lines_come_raw() {
        let raw = format!("{STAMPED}one\r\n2026-11-21T23:12:48+01:00 two\r\n\r\n{STAMPED}no end");
        for size in 1..=raw.len() {
            let all = read(raw.as_bytes(), size, 100);
            assert_eq!(all[0], line(Output::Stdout, "one", false));
            assert_eq!(all[1].1, Some(T / 1_000_000_000 * 1_000_000_000));
            assert_eq!((all[1].2.as_str(), all[1].3), ("two", false));
            assert_eq!((all[2].1, all[2].2.as_str()), (None, ""));
            assert_eq!(all[3..], [line(Output::Stdout, "no end", true)]);
        }
    }

    #[test]
    fn parts_of_a_terminal_s_long_line_are_found_by_their_timestamps() {
        let part = "x".repeat(PART);
        let raw = format!("{STAMPED}{part}{STAMPED}{part}{STAMPED}end\r\n{STAMPED}next\r\n");
        for size in [1, 17, 1 << 10, 1 << 20] {
            let all = read(raw.as_bytes(), size, 1 << 16);
            let expected = [
                line(Output::Stdout, &part, true),
                line(Output::Stdout, &part, true),
                line(Output::Stdout, "end", false),
                line(Output::Stdout, "next", false),
            ];
            assert_eq!(all, expected, "by {size}");
        }
        // Podman's are shorter, and each is a chunk.
        let mut frames = Frames::new(100);
        let mut all = Vec::new();
        for chunk in [format!("{STAMPED}one "), format!("{STAMPED}line\n"), "x\n".to_owned()] {
            let out = &mut |m: Message<'_>| all.push((m.text.to_vec(), m.partial));
            frames.feed(chunk.as_bytes(), true, out).unwrap();
        }
        let expected = [(&b"one "[..], true), (b"line", false), (b"x", false)];
        assert_eq!(all, expected.map(|(text, partial)| (text.to_vec(), partial)));
    }

    #[test]
    fn a_frame_of_4_gib_is_cut_and_takes_no_memory() {
        let mut frames = Frames::new(10);
        let mut count = 0;
        frames.feed(&[1, 0, 0, 0, 255, 255, 255, 255], false, &mut |_| count += 1).unwrap();
        frames.feed(STAMPED.as_bytes(), false, &mut |_| count += 1).unwrap();
        let much = vec![b'x'; 1 << 20];
        for _ in 0..100 {
            frames.feed(&much, false, &mut |_| count += 1).unwrap();
        }
        assert!(count == 0 && frames.held() < 1 << 10, "{}", frames.held());
        let mut said = None;
        let mut out = |m: Message<'_>| said = Some((m.text.to_vec(), m.cut, m.timestamp_ns));
        frames.feed(b"\n", false, &mut out).unwrap();
        assert_eq!(said, Some((b"xxxxxxxxxx".to_vec(), true, Some(T))));
    }

    #[test]
    fn what_is_no_frame_is_an_error() {
        let mut frames = Frames::new(10);
        let error = frames.feed(b"HTTP/1.1 200", false, &mut |_| panic!("a message"));
        assert_eq!(error, Err(FrameError(*b"HTTP")));
        assert!(Frames::new(10).feed(&[4, 0, 0, 0, 0, 0, 0, 1], false, &mut |_| {}).is_err());
        assert!(Frames::new(10).feed(&[1, 0, 1, 0, 0, 0, 0, 1], false, &mut |_| {}).is_err());
    }

    proptest! {
        #[test]
        fn any_bytes_make_the_same_messages_in_any_pieces(
            bytes: Vec<u8>,
            kinds in proptest::collection::vec((0u8..4, ".{0,40}"), 0..6),
            size in 1usize..40,
        ) {
            let framed: Vec<u8> =
                kinds.iter().flat_map(|(kind, text)| frame(*kind, text.as_bytes())).collect();
            for bytes in [framed, bytes] {
                let run = |size| {
                    let mut frames = Frames::new(16);
                    let mut all = Vec::new();
                    for part in bytes.chunks(size) {
                        let out = &mut |m: Message<'_>| all.push((m.output, m.text.to_vec()));
                        if let Err(error) = frames.feed(part, false, out) {
                            return (all, Some(error));
                        }
                    }
                    (all, None)
                };
                prop_assert_eq!(run(size), run(bytes.len().max(1)));
            }
        }
    }
}
