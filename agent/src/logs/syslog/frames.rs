//! A stream of bytes to messages (RFC 6587): octet counting `45 <34>…`, or a line each, ended by a line break or a
//! NUL byte; a sender may mix them. It must not know what is in a message.
//!
//! A frame that begins with digits, a space and `<` is counted; a line that begins with a number, as a date does,
//! is a line. Lines are trimmed of nothing here; empty ones are none.
//!
//! A frame is held until it is whole, in at most `max` bytes: what is longer is given out cut, and its rest passed
//! over as it streams by.

use memchr::memchr2;

/// More digits than this are no count.
const MAX_DIGITS: usize = 9;

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum State {
    /// Before a frame; what is held may be the beginning of a count.
    Start,
    /// In a line.
    Line,
    /// In a frame of which so many bytes are missing.
    Counted(u32),
}

/// A message, and whether something was cut off its end.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Frame<'a> {
    /// Its bytes.
    pub bytes: &'a [u8],
    /// There was more.
    pub cut: bool,
}

/// Where in its stream one sender is.
#[derive(Debug)]
pub struct Framer {
    state: State,
    held: Vec<u8>,
    max: usize,
    /// Bytes of this frame were passed over.
    cut: bool,
    /// The frame was given out already: its rest is passed over.
    given: bool,
}

impl Framer {
    /// For frames of at most so many bytes.
    pub fn new(max: usize) -> Framer {
        Framer { state: State::Start, held: Vec::new(), max: max.max(16), cut: false, given: false }
    }

    /// Bytes that wait for the rest of their frame.
    pub fn held(&self) -> usize {
        self.held.len()
    }

    /// Takes what has come, and gives out the frames that are whole.
    pub fn feed(&mut self, mut input: &[u8], out: &mut dyn FnMut(Frame<'_>)) {
        while let Some(&byte) = input.first() {
            match self.state {
                State::Start => match begin(&self.held, byte) {
                    Begin::Nothing => input = input.get(1..).unwrap_or_default(),
                    Begin::Digits => {
                        self.held.push(byte);
                        input = input.get(1..).unwrap_or_default();
                    }
                    Begin::Line => self.state = State::Line,
                    Begin::Counted(count) => {
                        self.held.clear();
                        self.state = State::Counted(count);
                    }
                },
                State::Line => {
                    let end = memchr2(b'\n', 0, input);
                    let (piece, rest) = input.split_at(end.unwrap_or(input.len()));
                    self.take(piece, end.is_some(), out);
                    input = if end.is_some() { rest.get(1..).unwrap_or_default() } else { rest };
                }
                State::Counted(missing) => {
                    let (piece, rest) = input.split_at(input.len().min(missing as usize));
                    let missing = missing - piece.len() as u32;
                    self.state = State::Counted(missing);
                    self.take(piece, missing == 0, out);
                    input = rest;
                }
            }
        }
    }

    /// The stream has ended: a line without its end is one, a counted frame is cut.
    pub fn finish(&mut self, out: &mut dyn FnMut(Frame<'_>)) {
        self.cut |= matches!(self.state, State::Counted(_));
        self.take(b"", true, out);
    }

    /// Gives out what is held and passes over the rest of the frame, to have its memory.
    pub fn give_up(&mut self, out: &mut dyn FnMut(Frame<'_>)) {
        if self.state != State::Start && !self.held.is_empty() {
            out(Frame { bytes: &self.held, cut: true });
            self.held = Vec::new();
            self.given = true;
        }
    }

    fn take(&mut self, piece: &[u8], ends: bool, out: &mut dyn FnMut(Frame<'_>)) {
        if !self.given {
            let room = self.max - self.held.len().min(self.max);
            let (fits, over) = piece.split_at(piece.len().min(room));
            self.cut |= !over.is_empty();
            if !ends {
                self.held.extend_from_slice(fits);
                return;
            }
            // What comes in one piece is never copied.
            let whole = self.held.is_empty();
            if !whole {
                self.held.extend_from_slice(fits);
            }
            let bytes = if whole { fits } else { &self.held };
            if !bytes.is_empty() {
                out(Frame { bytes, cut: self.cut });
            }
        }
        if ends {
            // Between frames an idle sender holds no memory.
            self.held = Vec::new();
            (self.state, self.cut, self.given) = (State::Start, false, false);
        }
    }
}

enum Begin {
    /// An empty line.
    Nothing,
    /// It may be a count.
    Digits,
    Line,
    Counted(u32),
}

/// What a byte makes of the beginning of a frame.
fn begin(held: &[u8], byte: u8) -> Begin {
    match (held, byte) {
        ([], b'\n' | b'\r' | 0) => Begin::Nothing,
        ([], b'1'..=b'9') => Begin::Digits,
        ([.., b'0'..=b'9'], b'0'..=b'9') if held.len() < MAX_DIGITS => Begin::Digits,
        ([.., b'0'..=b'9'], b' ') => Begin::Digits,
        ([digits @ .., b' '], b'<') => Begin::Counted(
            digits.iter().fold(0, |count, digit| count * 10 + u32::from(digit.wrapping_sub(b'0'))),
        ),
        _ => Begin::Line,
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    /// The frames of a stream that comes in pieces of so many bytes; those that were cut end in `…`.
    fn frames(stream: &[u8], piece: usize, max: usize) -> Vec<String> {
        let mut framer = Framer::new(max);
        let mut all = Vec::new();
        let mut out = |frame: Frame<'_>| {
            let end = if frame.cut { "…" } else { "" };
            all.push(format!("{}{end}", String::from_utf8_lossy(frame.bytes)));
        };
        for piece in stream.chunks(piece) {
            framer.feed(piece, &mut out);
            assert!(framer.held() <= max.max(16));
        }
        framer.finish(&mut out);
        assert_eq!(framer.held(), 0);
        all
    }

    #[test]
    fn both_framings_mixed_and_in_any_pieces() {
        let stream = b"8 <1>a\nb c<2>line\r\n\n\x005 <3>xx4 <4>y\n2024-01-01 z\0<5>nul\x0012 apples\n123456789012 <6>x\nlast";
        for piece in 1..stream.len() {
            let expected = [
                "<1>a\nb c",
                "<2>line\r",
                "<3>xx",
                "<4>y",
                "2024-01-01 z",
                "<5>nul",
                "12 apples",
                "123456789012 <6>x",
                "last",
            ];
            assert_eq!(frames(stream, piece, 64), expected, "{piece}");
        }
    }

    #[test]
    fn a_long_frame_is_cut_and_its_rest_passed_over() {
        for piece in [1, 7, 1000] {
            let stream =
                [&b"30 <1>"[..], &[b'a'; 27], b"<2>b\n<3>", &[b'c'; 100], b"\n3 <4>"].concat();
            let expected = [
                format!("<1>{}…", "a".repeat(17)),
                "<2>b".into(),
                format!("<3>{}…", "c".repeat(17)),
                "<4>".into(),
            ];
            assert_eq!(frames(&stream, piece, 20), expected, "{piece}");
        }
    }

    #[test]
    fn a_stream_that_ends_in_a_frame_gives_what_there_is() {
        assert_eq!(frames(b"100 <1>abc", 3, 64), ["<1>abc…"]);
        assert_eq!(frames(b"12", 1, 64), ["12"]);
        assert_eq!(frames(b"12 ", 1, 64), ["12 "]);
        assert!(frames(b"\n\n\0", 1, 64).is_empty());
    }

    #[test]
    fn what_was_given_up_is_given_out_once() {
        let mut framer = Framer::new(64);
        let mut all = Vec::new();
        let mut out = |frame: Frame<'_>| all.push((frame.bytes.to_vec(), frame.cut));
        framer.feed(b"<1>ab", &mut out);
        framer.give_up(&mut out);
        assert_eq!(framer.held(), 0);
        framer.feed(b"cdef\n<2>x\n", &mut out);
        assert_eq!(all, [(b"<1>ab".to_vec(), true), (b"<2>x".to_vec(), false)]);
    }

    proptest! {
        #[test]
        fn pieces_make_no_difference(stream in prop::collection::vec(prop::sample::select(b"<>0123 \n\0ab".to_vec()), 0..200), piece in 1usize..20, max in 16usize..40) {
            prop_assert_eq!(frames(&stream, piece, max), frames(&stream, stream.len().max(1), max));
        }
    }
}
