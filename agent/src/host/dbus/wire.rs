//! Values as D-Bus writes them ("Marshaling (Wire Format)"): each at a multiple of its size, strings with
//! their length and a NUL. Strict: padding is zero, a boolean 0 or 1, text is UTF-8 without NUL.

use std::fmt::{self, Write as _};
use std::str;

/// The most bytes of an array, as the specification has it.
const MAX_ARRAY: usize = 64 << 20;

/// Bytes that are not what they should be.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Malformed {
    /// What stands there, as far as it can be shown.
    pub token: String,
    /// What should.
    pub expected: &'static str,
}

impl Malformed {
    /// The token is cut at 80 characters.
    pub fn new(token: impl fmt::Display, expected: &'static str) -> Malformed {
        let mut cut = Cut(String::new());
        // Its only error is that there is no more room.
        let _ = write!(cut, "{token}");
        Malformed { token: cut.0, expected }
    }
}

/// The first 80 characters of what is written, and no memory for more: it may be a message of megabytes.
struct Cut(String);

impl fmt::Write for Cut {
    fn write_str(&mut self, text: &str) -> fmt::Result {
        let room = 80usize.saturating_sub(self.0.chars().count());
        self.0.extend(text.chars().take(room));
        if text.chars().nth(room).is_none() { Ok(()) } else { Err(fmt::Error) }
    }
}

impl fmt::Display for Malformed {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{:?} where {} should stand", self.token, self.expected)
    }
}

/// A value of one of the types that the agent asks for, or passes over.
#[derive(Clone, Copy, Debug, PartialEq)]
pub enum Value<'a> {
    /// `b`
    Bool(bool),
    /// `u`
    U32(u32),
    /// `t`
    U64(u64),
    /// `s`, `o` and `g`
    Text(&'a str),
    /// Another number.
    Other,
}

/// Reads values one after the other; positions count from the beginning of its bytes, which is at a
/// multiple of 8 of the message.
#[derive(Clone, Debug)]
pub struct Reader<'a> {
    bytes: &'a [u8],
    at: usize,
    big: bool,
}

impl<'a> Reader<'a> {
    /// Reads these bytes.
    pub fn new(bytes: &'a [u8], big: bool) -> Reader<'a> {
        Reader { bytes, at: 0, big }
    }

    /// How many bytes have been read.
    pub fn position(&self) -> usize {
        self.at
    }

    /// Passes over padding, which is zero.
    pub fn align(&mut self, to: usize) -> Result<(), Malformed> {
        let padding = self.take(self.at.next_multiple_of(to) - self.at)?;
        if padding.iter().any(|&byte| byte != 0) {
            return Err(Malformed::new(padding.escape_ascii(), "padding of zeros"));
        }
        Ok(())
    }

    fn take(&mut self, count: usize) -> Result<&'a [u8], Malformed> {
        let end = self.at.checked_add(count);
        let taken = end.and_then(|end| self.bytes.get(self.at..end));
        let taken = taken.ok_or_else(|| Malformed::new("the end", "more of the message"))?;
        self.at += count;
        Ok(taken)
    }

    fn array_of<const N: usize>(&mut self) -> Result<[u8; N], Malformed> {
        self.align(N)?;
        let bytes = self.take(N)?;
        let mut array: [u8; N] =
            bytes.try_into().map_err(|_| Malformed::new("the end", "more of the message"))?;
        if self.big {
            array.reverse();
        }
        Ok(array)
    }

    /// `y`
    pub fn byte(&mut self) -> Result<u8, Malformed> {
        self.array_of::<1>().map(u8::from_le_bytes)
    }

    /// `u`
    pub fn u32(&mut self) -> Result<u32, Malformed> {
        self.array_of().map(u32::from_le_bytes)
    }

    /// `t`
    pub fn u64(&mut self) -> Result<u64, Malformed> {
        self.array_of().map(u64::from_le_bytes)
    }

    /// `b`
    pub fn bool(&mut self) -> Result<bool, Malformed> {
        match self.u32()? {
            0 => Ok(false),
            1 => Ok(true),
            other => Err(Malformed::new(other, "0 or 1")),
        }
    }

    /// `s`
    pub fn string(&mut self) -> Result<&'a str, Malformed> {
        let length = self.u32()? as usize;
        self.text(length)
    }

    /// `o`
    pub fn path(&mut self) -> Result<&'a str, Malformed> {
        let path = self.string()?;
        if is_path(path) { Ok(path) } else { Err(Malformed::new(path, "the path of an object")) }
    }

    /// `g`
    pub fn signature(&mut self) -> Result<&'a str, Malformed> {
        let length = self.byte()?;
        self.text(usize::from(length))
    }

    fn text(&mut self, length: usize) -> Result<&'a str, Malformed> {
        let bytes = self.take(length)?;
        if self.byte()? != 0 {
            return Err(Malformed::new(bytes.escape_ascii(), "a NUL behind a text"));
        }
        let text = str::from_utf8(bytes).ok().filter(|text| !text.contains('\0'));
        text.ok_or_else(|| Malformed::new(bytes.escape_ascii(), "UTF-8 without NUL"))
    }

    /// The length of an array, and where it ends; its elements follow.
    pub fn array(&mut self, alignment: usize) -> Result<usize, Malformed> {
        let length = self.u32()? as usize;
        self.align(alignment)?;
        let end = self.at.checked_add(length).filter(|&end| end <= self.bytes.len());
        let end = end.filter(|_| length <= MAX_ARRAY);
        end.ok_or_else(|| Malformed::new(length, "the length of an array"))
    }

    /// Makes sure that the last element ended where the array does.
    pub fn end_of_array(&self, end: usize) -> Result<(), Malformed> {
        if self.at == end { Ok(()) } else { Err(Malformed::new(end, "the end of an array")) }
    }

    /// `v`, of a type without others in it.
    pub fn variant(&mut self) -> Result<Value<'a>, Malformed> {
        let signature = self.signature()?;
        Ok(match signature {
            "b" => Value::Bool(self.bool()?),
            "u" => Value::U32(self.u32()?),
            "t" => Value::U64(self.u64()?),
            "s" => Value::Text(self.string()?),
            "o" => Value::Text(self.path()?),
            "g" => Value::Text(self.signature()?),
            "y" => self.byte().map(|_| Value::Other)?,
            "n" | "q" => self.array_of::<2>().map(|_| Value::Other)?,
            "i" | "h" => self.u32().map(|_| Value::Other)?,
            "x" | "d" => self.u64().map(|_| Value::Other)?,
            other => return Err(Malformed::new(other, "a simple type")),
        })
    }

    /// Makes sure that nothing follows.
    pub fn end(&self) -> Result<(), Malformed> {
        match self.bytes.get(self.at..) {
            None | Some([]) => Ok(()),
            Some(rest) => Err(Malformed::new(rest.len(), "the end of the message")),
        }
    }
}

fn is_path(path: &str) -> bool {
    let good = |name: &str| {
        !name.is_empty() && name.bytes().all(|b| b.is_ascii_alphanumeric() || b == b'_')
    };
    path == "/" || path.strip_prefix('/').is_some_and(|names| names.split('/').all(good))
}

/// Appends zeros up to a multiple.
pub(super) fn pad(out: &mut Vec<u8>, to: usize) {
    out.resize(out.len().next_multiple_of(to), 0);
}

/// Appends `u`.
pub(super) fn put_u32(out: &mut Vec<u8>, value: u32) {
    pad(out, 4);
    out.extend_from_slice(&value.to_le_bytes());
}

/// Appends `s` or `o`, of our own and short.
pub(super) fn put_string(out: &mut Vec<u8>, text: &str) {
    put_u32(out, text.len() as u32);
    out.extend_from_slice(text.as_bytes());
    out.push(0);
}
