//! Messages: the header ("Message Format"), and calls of which every argument is a string.

use super::MAX_MESSAGE;
use super::wire::{Malformed, Reader, pad, put_string, put_u32};

/// The bytes before the header's fields: their own length is the last of them.
pub(super) const FIXED: usize = 16;

/// No service is started because it is asked.
const NO_AUTO_START: u8 = 2;

/// A method call.
#[derive(Clone, Copy, Debug)]
pub struct Call<'a> {
    /// Whom, on a bus.
    pub destination: &'a str,
    /// Which of its objects.
    pub path: &'a str,
    /// Which of the object's interfaces.
    pub interface: &'a str,
    /// Which of its methods.
    pub member: &'a str,
    /// With what.
    pub arguments: &'a [&'a str],
}

/// What a message is.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum MessageType {
    /// Asks.
    Call,
    /// Answers.
    Return,
    /// Answers with an error.
    Error,
    /// Tells.
    Signal,
}

/// What matters of a message's header.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Header<'a> {
    /// What it is.
    pub kind: MessageType,
    /// What it answers.
    pub reply_serial: Option<u32>,
    /// Which error it is.
    pub error_name: Option<&'a str>,
    /// The types of its body.
    pub signature: &'a str,
}

/// Writes a call.
pub fn write_call(call: &Call<'_>, serial: u32, out: &mut Vec<u8>) {
    out.clear();
    out.extend_from_slice(&[b'l', 1, NO_AUTO_START, 1]);
    // The lengths of body and fields come when they are known.
    put_u32(out, 0);
    put_u32(out, serial);
    put_u32(out, 0);
    let fields = [
        (1, b'o', call.path),
        (2, b's', call.interface),
        (3, b's', call.member),
        (6, b's', call.destination),
    ];
    for (code, kind, text) in fields {
        pad(out, 8);
        out.extend_from_slice(&[code, 1, kind, 0]);
        put_string(out, text);
    }
    if !call.arguments.is_empty() {
        pad(out, 8);
        out.extend_from_slice(&[8, 1, b'g', 0, call.arguments.len() as u8]);
        out.extend(call.arguments.iter().map(|_| b's'));
        out.push(0);
    }
    let fields = (out.len() - FIXED) as u32;
    pad(out, 8);
    let start = out.len();
    call.arguments.iter().for_each(|text| put_string(out, text));
    let body = (out.len() - start) as u32;
    let mut put = |at: usize, value: u32| {
        if let Some(place) = out.get_mut(at..at + 4) {
            place.copy_from_slice(&value.to_le_bytes());
        }
    };
    put(4, body);
    put(12, fields);
}

/// The length of a whole message by its first bytes, and whether its numbers are big-endian.
pub(super) fn length(bytes: &[u8]) -> Result<(usize, bool), Malformed> {
    let big = match bytes.first() {
        Some(b'l') => false,
        Some(b'B') => true,
        _ => return Err(Malformed::new(bytes.escape_ascii(), "a message of D-Bus")),
    };
    let mut reader = Reader::new(bytes, big);
    reader.u32()?;
    let (body, _, fields) = (reader.u32()? as usize, reader.u32()?, reader.u32()? as usize);
    let length = fields.checked_next_multiple_of(8).and_then(|fields| fields.checked_add(body));
    match length.and_then(|length| length.checked_add(FIXED)) {
        Some(length) if length <= MAX_MESSAGE => Ok((length, big)),
        _ => Err(Malformed::new(body, "a message of at most 4 MiB")),
    }
}

/// Reads the header of a whole message, and where its body begins.
///
/// # Errors
/// The message is not as long as it says, or its header not what the specification allows.
pub fn read_header(message: &[u8]) -> Result<(Header<'_>, usize), Malformed> {
    let (length, big) = length(message)?;
    if length != message.len() {
        return Err(Malformed::new(message.len(), "as many bytes as the message says"));
    }
    let mut reader = Reader::new(message, big);
    reader.byte()?;
    let kind = match reader.byte()? {
        1 => MessageType::Call,
        2 => MessageType::Return,
        3 => MessageType::Error,
        4 => MessageType::Signal,
        other => return Err(Malformed::new(other, "a type of message")),
    };
    reader.byte()?;
    let version = reader.byte()?;
    if version != 1 {
        return Err(Malformed::new(version, "version 1"));
    }
    let body = reader.u32()?;
    let serial = reader.u32()?;
    if serial == 0 {
        return Err(Malformed::new(serial, "a serial number"));
    }
    let mut header = Header { kind, reply_serial: None, error_name: None, signature: "" };
    let end = reader.array(8)?;
    while reader.position() < end {
        reader.align(8)?;
        let code = reader.byte()?;
        let wrong = |name| Malformed::new(code, name);
        let before = reader.clone();
        let kind = reader.signature()?;
        reader = before;
        match (code, kind) {
            (4, "s") => {
                reader.signature()?;
                header.error_name = Some(reader.string()?);
            }
            (5, "u") => {
                reader.signature()?;
                header.reply_serial = Some(reader.u32()?);
            }
            (8, "g") => {
                reader.signature()?;
                header.signature = reader.signature()?;
            }
            (0, _) => return Err(wrong("a field of a header")),
            (1, "o") | (2 | 3 | 6 | 7, "s") | (9, "u") | (10.., _) => drop(reader.variant()?),
            _ => return Err(wrong("a field of the type that it has")),
        }
    }
    if reader.position() != end {
        return Err(Malformed::new(end, "the end of the header's fields"));
    }
    reader.align(8)?;
    if header.signature.is_empty() != (body == 0) {
        return Err(Malformed::new(header.signature, "the signature of the body"));
    }
    Ok((header, reader.position()))
}
