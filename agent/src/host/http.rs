//! Answers as HTTP/1.1 has them (RFC 9112), for what talks to a daemon over a socket of its own: status
//! line, fields, and a body of known length, in chunks or up to the end of the connection; whole
//! ([`answer`]) or as it comes ([`head`], [`Body`]). What is ambiguous, foreign or too large is refused.
//! It must not know who asks, and reads nothing itself.

/// The status line and all fields; Docker's have some 300 bytes.
pub const MAX_HEAD: usize = 16 << 10;

/// All of an answer that comes whole.
pub const MAX: usize = 1 << 20;

/// A chunk's size with its extensions, and a line of the trailers.
const MAX_LINE: usize = 1 << 10;

/// Where a body ends.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Framing {
    /// After so many bytes.
    Length(u64),
    /// After a chunk of size 0.
    Chunked,
    /// With the connection.
    Close,
}

/// What the head of an answer says.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Head {
    /// 200 and above.
    pub status: u16,
    /// Where the body ends.
    pub framing: Framing,
    /// The server calls itself `Docker/…`.
    pub is_docker: bool,
}

/// The head of an answer that begins with these bytes, and how many of them it has; none if more must come.
///
/// # Errors
/// It is no such answer, or its head has more than 16 KiB.
pub fn head(bytes: &[u8]) -> Result<Option<(Head, usize)>, &'static str> {
    let Some((head, _)) = split(bytes, b"\r\n\r\n") else {
        return if bytes.len() > MAX_HEAD { Err("a head of more than 16 KiB") } else { Ok(None) };
    };
    if head.len() > MAX_HEAD {
        return Err("a head of more than 16 KiB");
    }
    let (status, fields) = split(head, b"\r\n").unwrap_or((head, b""));
    let status = code(status).ok_or("no status line of HTTP/1.1")?;
    let mut length = None;
    let mut chunked = false;
    let mut is_docker = false;
    let mut rest = fields;
    while !rest.is_empty() {
        let (line, after) = split(rest, b"\r\n").unwrap_or((rest, b""));
        rest = after;
        let colon = line.iter().position(|&byte| byte == b':').ok_or("a field without a colon")?;
        let (name, value) = line.split_at(colon);
        let value = value.get(1..).unwrap_or_default().trim_ascii();
        if name.is_empty() || !name.iter().all(|byte| byte.is_ascii_graphic()) {
            return Err("a field with a strange name");
        }
        if name.eq_ignore_ascii_case(b"content-length") {
            let digits = crate::host::text::unsigned(value).ok_or("a length that is no number")?;
            if length.replace(digits).is_some() {
                return Err("two lengths");
            }
        } else if name.eq_ignore_ascii_case(b"transfer-encoding") {
            if chunked || !value.eq_ignore_ascii_case(b"chunked") {
                return Err("a transfer encoding other than chunked");
            }
            chunked = true;
        } else if name.eq_ignore_ascii_case(b"content-encoding") {
            return Err("a content encoding that was not asked for");
        } else if name.eq_ignore_ascii_case(b"server") {
            is_docker = value.starts_with(b"Docker/");
        }
    }
    let framing = match (length, chunked) {
        (Some(_), true) => return Err("both a length and chunks"),
        (None, false) => Framing::Close,
        (None, true) => Framing::Chunked,
        (Some(length), false) => Framing::Length(length),
    };
    Ok(Some((Head { status, framing, is_docker }, head.len() + 4)))
}

/// The status code and the body of an answer of which these are the bytes so far; none if more must come.
///
/// # Errors
/// It is no such answer, does not say where it ends, or has more than 1 MiB.
pub fn answer(bytes: &[u8]) -> Result<Option<(u16, Vec<u8>)>, &'static str> {
    let Some((head, length)) = head(bytes)? else { return Ok(None) };
    match head.framing {
        Framing::Close => return Err("neither a length nor chunks"),
        Framing::Length(length) if length > MAX as u64 => return Err("more than 1 MiB"),
        Framing::Length(_) | Framing::Chunked => {}
    }
    let mut rest = bytes.get(length..).unwrap_or_default();
    let mut decoder = Body::new(head.framing);
    let mut body = Vec::new();
    loop {
        match decoder.next(&mut rest)? {
            Piece::Data { bytes, .. } if body.len() + bytes.len() > MAX => {
                return Err("more than 1 MiB");
            }
            Piece::Data { bytes, .. } => body.extend_from_slice(bytes),
            Piece::More if body.len() as u64 + decoder.left() > MAX as u64 => {
                return Err("more than 1 MiB");
            }
            Piece::More => return Ok(None),
            Piece::End => return Ok(Some((head.status, body))),
        }
    }
}

/// A body as it comes, in pieces of any size.
#[derive(Clone, Debug)]
pub struct Body {
    state: State,
    /// A chunk's size, or a trailer, of which the end has not come.
    line: Vec<u8>,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum State {
    /// So many bytes of the body are left.
    Length(u64),
    Close,
    Size,
    /// In a chunk with so many bytes left, of which some may have come.
    Chunk {
        left: u64,
        begins: bool,
    },
    /// Behind a chunk.
    Break,
    Trailer,
    End,
}

/// A part of a body.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Piece<'a> {
    /// Some bytes of it.
    Data {
        /// The bytes; never none.
        bytes: &'a [u8],
        /// They are the first of a chunk.
        begins: bool,
    },
    /// All input is used up, and more must come.
    More,
    /// The body has come to its end.
    End,
}

impl Body {
    /// A body of which nothing has come.
    pub fn new(framing: Framing) -> Body {
        let state = match framing {
            Framing::Length(0) => State::End,
            Framing::Length(length) => State::Length(length),
            Framing::Chunked => State::Size,
            Framing::Close => State::Close,
        };
        Body { state, line: Vec::new() }
    }

    /// Whether the connection's end is the body's.
    pub fn may_end_here(&self) -> bool {
        matches!(self.state, State::Close | State::End)
    }

    /// How much is certain to come.
    fn left(&self) -> u64 {
        match self.state {
            State::Length(left) | State::Chunk { left, .. } => left,
            State::Close | State::Size | State::Break | State::Trailer | State::End => 0,
        }
    }

    /// Takes bytes up to a line's end; true when `line` has all of it, without its break.
    fn line(&mut self, input: &mut &[u8]) -> Result<bool, &'static str> {
        while let Some((&byte, rest)) = input.split_first() {
            *input = rest;
            if byte == b'\n' && self.line.pop_if(|last| *last == b'\r').is_some() {
                return Ok(true);
            }
            if self.line.len() >= MAX_LINE {
                return Err("a long chunk size");
            }
            self.line.push(byte);
        }
        Ok(false)
    }

    /// The next piece, which is taken from the front of the input.
    ///
    /// # Errors
    /// It is not in chunks although it should be.
    pub fn next<'a>(&mut self, input: &mut &'a [u8]) -> Result<Piece<'a>, &'static str> {
        loop {
            match self.state {
                State::End => return Ok(Piece::End),
                _ if input.is_empty() => return Ok(Piece::More),
                State::Close => {
                    let bytes = std::mem::take(input);
                    return Ok(Piece::Data { bytes, begins: false });
                }
                State::Length(left) => {
                    let (bytes, left) = take(input, left);
                    self.state = if left == 0 { State::End } else { State::Length(left) };
                    return Ok(Piece::Data { bytes, begins: false });
                }
                State::Chunk { left, begins } => {
                    let (bytes, left) = take(input, left);
                    self.state =
                        if left == 0 { State::Break } else { State::Chunk { left, begins: false } };
                    return Ok(Piece::Data { bytes, begins });
                }
                State::Break => {
                    let ended = self.line(input)?;
                    if self.line != b"" && (ended || self.line != b"\r") {
                        return Err("a chunk that is longer than its size");
                    }
                    if ended {
                        self.state = State::Size;
                    }
                }
                State::Size => {
                    if self.line(input)? {
                        let digits = self.line.split(|&byte| byte == b';').next();
                        let digits = digits.unwrap_or_default().trim_ascii_end();
                        let size = hexadecimal(digits).ok_or("a chunk size that is no number")?;
                        self.state = match size {
                            0 => State::Trailer,
                            left => State::Chunk { left, begins: true },
                        };
                        self.line.clear();
                    }
                }
                // Trailers, which nobody needs, end with an empty line.
                State::Trailer => {
                    if self.line(input)? {
                        if self.line.is_empty() {
                            self.state = State::End;
                        }
                        self.line.clear();
                    }
                }
            }
        }
    }
}

fn take<'a>(input: &mut &'a [u8], left: u64) -> (&'a [u8], u64) {
    let count = usize::try_from(left).unwrap_or(usize::MAX).min(input.len());
    let (bytes, rest) = input.split_at_checked(count).unwrap_or((input, b""));
    *input = rest;
    (bytes, left.saturating_sub(bytes.len() as u64))
}

fn code(line: &[u8]) -> Option<u16> {
    let rest = line.strip_prefix(b"HTTP/1.1 ").or_else(|| line.strip_prefix(b"HTTP/1.0 "))?;
    let (digits, reason) = rest.split_at_checked(3)?;
    let code = u16::try_from(crate::host::text::unsigned(digits)?).ok()?;
    // Interim answers come to who asks for them.
    (code >= 200 && (reason.is_empty() || reason.starts_with(b" "))).then_some(code)
}

fn hexadecimal(digits: &[u8]) -> Option<u64> {
    if digits.is_empty() || digits.len() > 7 {
        return None;
    }
    digits
        .iter()
        .try_fold(0, |number, &byte| Some(number << 4 | u64::from(char::from(byte).to_digit(16)?)))
}

/// What is before and behind the first of these separators.
fn split<'a>(bytes: &'a [u8], separator: &[u8]) -> Option<(&'a [u8], &'a [u8])> {
    let at = memchr::memmem::find(bytes, separator)?;
    Some((bytes.get(..at)?, bytes.get(at + separator.len()..)?))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn good(text: &str) -> (u16, String) {
        // What is cut is never an answer, nor an error.
        for length in 0..text.len() {
            assert_eq!(answer(&text.as_bytes()[..length]), Ok(None), "{length} of {text:?}");
        }
        let (code, body) = answer(text.as_bytes()).unwrap().unwrap();
        (code, String::from_utf8(body).unwrap())
    }

    #[test]
    fn lengths_and_chunks() {
        assert_eq!(good("HTTP/1.1 200 OK\r\nContent-Length: 2\r\n\r\n{}"), (200, "{}".into()));
        assert_eq!(good("HTTP/1.1 404\r\ncontent-length:0\r\n\r\n"), (404, String::new()));
        let chunked = "HTTP/1.1 200 OK\r\nTransfer-Encoding: Chunked\r\n\r\n";
        let chunks = "3;x=y\r\n{\"a\r\nA \r\n0123456789\r\n0\r\n\r\n";
        assert_eq!(good(&format!("{chunked}{chunks}")), (200, "{\"a0123456789".into()));
        let trailers = "1\r\nx\r\n0\r\nA: b\r\n\r\n";
        assert_eq!(good(&format!("{chunked}{trailers}")), (200, "x".into()));
    }

    #[test]
    fn what_is_ambiguous_foreign_or_too_large_is_refused() {
        let head = "HTTP/1.1 200 OK\r\n";
        for bad in [
            "\r\n\r\n",
            "SSH-2.0-OpenSSH\r\n\r\n",
            "HTTP/2 200\r\n\r\n",
            "HTTP/1.1 100 Continue\r\nContent-Length: 0\r\n\r\n",
            "HTTP/1.1 20x OK\r\nContent-Length: 0\r\n\r\n",
            "HTTP/1.1 2000\r\nContent-Length: 0\r\n\r\n",
            "HTTP/1.1 200 OK\r\n\r\nbody",
            "HTTP/1.1 200 OK\r\nContent-Length: 1\r\nTransfer-Encoding: chunked\r\n\r\n",
            "HTTP/1.1 200 OK\r\nContent-Length: 1\r\nContent-Length: 1\r\n\r\nx",
            "HTTP/1.1 200 OK\r\nContent-Length: -1\r\n\r\n",
            "HTTP/1.1 200 OK\r\nContent-Length: 1048577\r\n\r\n",
            "HTTP/1.1 200 OK\r\nContent-Length: 99999999999999999999\r\n\r\n",
            "HTTP/1.1 200 OK\r\nTransfer-Encoding: gzip, chunked\r\n\r\n",
            "HTTP/1.1 200 OK\r\nContent-Encoding: gzip\r\nContent-Length: 0\r\n\r\n",
            "HTTP/1.1 200 OK\r\nno colon\r\nContent-Length: 0\r\n\r\n",
            "HTTP/1.1 200 OK\r\nfolded: a\r\n b: c\r\nContent-Length: 0\r\n\r\n",
            "HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\nx\r\n",
            "HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n1\r\nabc\r\n",
            "HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\nfffffff\r\n",
            "HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n10000000\r\n",
        ] {
            assert!(answer(bad.as_bytes()).is_err(), "{bad:?}");
        }
        let mut long = "HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n".to_owned();
        long.push_str(&"0".repeat(MAX_LINE + 1));
        assert!(answer(long.as_bytes()).is_err());
        let endless = [head.as_bytes(), &[b'x'; MAX_HEAD]].concat();
        assert!(answer(&endless).is_err());
    }

    #[test]
    fn a_body_is_the_same_in_pieces_of_any_size() {
        let framed = [
            (Framing::Length(9), "one two 3rest"),
            (Framing::Chunked, "4\r\none \r\n5;x\r\ntwo 3\r\n0\r\na: b\r\n\r\nrest"),
            (Framing::Close, "one two 3"),
        ];
        for (framing, text) in framed {
            for size in 1..=text.len() {
                let (mut body, mut decoder, mut begins, mut ended) =
                    (Vec::new(), Body::new(framing), 0, false);
                'all: for part in text.as_bytes().chunks(size) {
                    let mut rest = part;
                    loop {
                        match decoder.next(&mut rest).unwrap() {
                            Piece::Data { bytes, begins: first } => {
                                body.extend_from_slice(bytes);
                                begins += usize::from(first);
                            }
                            Piece::More => break,
                            Piece::End => {
                                ended = true;
                                break 'all;
                            }
                        }
                    }
                }
                assert_eq!(body, b"one two 3", "{framing:?} by {size}");
                assert_eq!(begins, if framing == Framing::Chunked { 2 } else { 0 });
                assert!(ended || framing == Framing::Close);
                assert!(decoder.may_end_here());
            }
        }
        assert!(!Body::new(Framing::Chunked).may_end_here());
        assert_eq!(Body::new(Framing::Length(0)).next(&mut &b""[..]), Ok(Piece::End));
    }

    #[test]
    fn a_head_says_where_the_body_ends_and_whose_it_is() {
        let docker = b"HTTP/1.1 200 OK\r\nServer: Docker/20.10.24 (linux)\r\n\r\nx";
        let (head, length) = head(docker).unwrap().unwrap();
        assert_eq!(length, docker.len() - 1);
        assert_eq!(head, Head { status: 200, framing: Framing::Close, is_docker: true });
    }
}
