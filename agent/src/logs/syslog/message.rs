//! A syslog message's bytes and what they say: RFC 5424 and, since RFC 3164 only describes what it found, the
//! forms in which senders really write. It must not know how a message came or what becomes of it.
//!
//! RFC 5424 has a version behind the priority: `<34>1 2003-10-11T22:14:15.003Z host app pid msgid [sd] text`.
//! Everything else is read as far as it goes, each part of it may be missing:
//! `<34>Oct 11 22:14:15 host tag[pid]: text`. Local programs leave the host out (glibc's syslog(), busybox), so a
//! word in its place is one only if a tag is behind it, or if the message came from another machine. Cisco has a
//! counter before the time, and `*` or `.` where its clock is not set; its `%FACILITY-5-NAME:` stays in the text.
//! What can't be taken apart is text: no byte of a message is dropped but the header's.

use memchr::{memchr, memchr2};

use super::stamp::Stamp;

/// The longest tag and the longest pid; a longer one is text.
const MAX_TAG: usize = 128;
const MAX_PID: usize = 64;
/// The longest name of a host.
const MAX_HOST: usize = 255;

/// Whose message it is, as far as that says how to read it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Origin {
    /// A program on this host, by a socket that only they have: it names no host.
    Local,
    /// A program or a relay on this host.
    Loopback,
    /// Another machine.
    Remote,
}

/// The parts of a message; those that it has not are empty.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Message<'a> {
    /// Facility times 8 plus level.
    pub priority: Option<u8>,
    pub(super) stamp: Option<Stamp>,
    /// Who sent it first, as it says itself.
    pub host: &'a [u8],
    /// RFC 5424's APP-NAME, RFC 3164's tag.
    pub tag: &'a [u8],
    /// RFC 5424's PROCID.
    pub pid: &'a [u8],
    /// RFC 5424's MSGID.
    pub msgid: &'a [u8],
    /// RFC 5424's STRUCTURED-DATA, `[id name="value"]…`; for [`params`].
    pub structured: &'a [u8],
    /// What is left.
    pub text: &'a [u8],
    /// It begins as RFC 5424 and breaks its rules then: what does not fit is in the text.
    pub malformed: bool,
}

impl<'a> Message<'a> {
    /// Takes a message apart.
    pub fn parse(bytes: &'a [u8], origin: Origin) -> Message<'a> {
        let (priority, rest) = match priority(bytes) {
            Some((priority, rest)) => (Some(priority), rest),
            None => (None, bytes),
        };
        let message = match priority.and_then(|_| rfc5424(rest)) {
            Some(message) => message,
            None => rfc3164(rest, origin, priority.is_some()),
        };
        Message { priority, ..message }
    }
}

/// `<0>` to `<191>`.
fn priority(bytes: &[u8]) -> Option<(u8, &[u8])> {
    let rest = bytes.strip_prefix(b"<")?;
    let (digits, rest) = split(rest, b'>')?;
    if digits.is_empty() || digits.len() > 3 || !digits.iter().all(u8::is_ascii_digit) {
        return None;
    }
    let priority = digits.iter().fold(0, |number, digit| number * 10 + u32::from(digit - b'0'));
    Some((u8::try_from(priority).ok().filter(|priority| *priority < 192)?, rest))
}

/// What is behind the priority, if it is a version with a time (or `-`) and all fields behind it.
fn rfc5424(bytes: &[u8]) -> Option<Message<'_>> {
    let (version, rest) = split(bytes, b' ')?;
    if !matches!(
        version,
        [b'1'..=b'9'] | [b'1'..=b'9', b'0'..=b'9'] | [b'1'..=b'9', b'0'..=b'9', b'0'..=b'9']
    ) {
        return None;
    }
    let (time, rest) = split(rest, b' ')?;
    let stamp = match time {
        b"-" => None,
        time if time.first()?.is_ascii_digit() => match Stamp::parse(time)? {
            (stamp, []) => Some(stamp),
            _ => return None,
        },
        _ => return None,
    };
    let (host, rest) = split(rest, b' ')?;
    let (tag, rest) = split(rest, b' ')?;
    let (pid, rest) = split(rest, b' ')?;
    // Some end with MSGID.
    let (msgid, rest) = split(rest, b' ').unwrap_or((rest, b""));
    let (structured, text, malformed) = match rest {
        [] => (&[][..], rest, true),
        [b'-'] => (&[][..], &[][..], false),
        [b'-', b' ', text @ ..] => (&[][..], text, false),
        _ => match elements(rest) {
            Some((structured, [])) => (structured, &[][..], false),
            Some((structured, [b' ', text @ ..])) => (structured, text, false),
            // No structured data, not even `-`, or something else than a space behind it.
            _ => (&[][..], rest, true),
        },
    };
    let text = text.strip_prefix(b"\xef\xbb\xbf").unwrap_or(text);
    let [host, tag, pid, msgid] = [host, tag, pid, msgid].map(nil);
    Some(Message { priority: None, stamp, host, tag, pid, msgid, structured, text, malformed })
}

/// RFC 5424's NILVALUE means that there is none.
fn nil(value: &[u8]) -> &[u8] {
    if value == b"-" { &[] } else { value }
}

/// `[id name="value" …]…` at the beginning, and what is behind it.
fn elements(bytes: &[u8]) -> Option<(&[u8], &[u8])> {
    let (mut quoted, mut inside, mut escaped) = (false, false, false);
    for (at, &byte) in bytes.iter().enumerate() {
        match byte {
            _ if escaped => escaped = false,
            b'\\' if quoted => escaped = true,
            b'"' if inside => quoted = !quoted,
            b']' if inside && !quoted => inside = false,
            b'[' if !inside => inside = true,
            _ if inside => {}
            _ if at == 0 => return None,
            _ => return Some(bytes.split_at(at)),
        }
    }
    (!inside && !bytes.is_empty()).then_some((bytes, &[]))
}

/// The parameters of structured data: the element's id, the name, and the value with its escapes, which
/// `unescape` resolves. Ends where the form ends.
pub fn params(structured: &[u8]) -> impl Iterator<Item = (&[u8], &[u8], &[u8])> {
    let mut rest = structured;
    let mut id: &[u8] = b"";
    std::iter::from_fn(move || {
        loop {
            match rest {
                [b'[', inside @ ..] => {
                    let length = memchr2(b' ', b']', inside)?;
                    (id, rest) = inside.split_at(length);
                }
                [b' ', inside @ ..] => rest = inside,
                [b']', behind @ ..] => rest = behind,
                [] => return None,
                _ => {
                    let (name, behind) = split(rest, b'=')?;
                    let value = behind.strip_prefix(b"\"")?;
                    let mut escaped = false;
                    let end = value.iter().position(|&byte| {
                        let ends = byte == b'"' && !escaped;
                        escaped = byte == b'\\' && !escaped;
                        ends
                    })?;
                    rest = value.get(end + 1..)?;
                    return Some((id, name, value.get(..end)?));
                }
            }
        }
    })
}

/// A value without its escapes: `\"`, `\\` and `\]`; another backslash is one.
pub(super) fn unescape(value: &[u8], out: &mut Vec<u8>) {
    let mut bytes = value.iter().copied().peekable();
    while let Some(byte) = bytes.next() {
        match bytes.peek() {
            Some(next @ (b'"' | b'\\' | b']')) if byte == b'\\' => {
                out.push(*next);
                bytes.next();
            }
            _ => out.push(byte),
        }
    }
}

fn rfc3164(bytes: &[u8], origin: Origin, has_priority: bool) -> Message<'_> {
    let whole = Message { text: bytes, ..Message::default() };
    let (named, after) = match has_priority {
        true => cisco(bytes).unwrap_or((b"", bytes)),
        false => (&b""[..], bytes),
    };
    let unset = after.strip_prefix(b"*").or_else(|| after.strip_prefix(b".")).unwrap_or(after);
    let Some((stamp, rest)) = Stamp::parse(unset).filter(|(_, rest)| ends_a_word(rest)) else {
        // Without a time nothing says that a first word is the host; with neither, a tag is a guess too.
        return match tag(bytes).filter(|_| has_priority) {
            Some((tag, pid, text)) => Message { tag, pid, text, ..Message::default() },
            None => whole,
        };
    };
    let rest = rest.strip_prefix(b":").unwrap_or(rest);
    let rest = rest.strip_prefix(b" ").unwrap_or(rest);
    let stamped = Message { stamp: Some(stamp), host: named, text: rest, ..Message::default() };
    if rest.starts_with(b"last message ") {
        return stamped;
    }
    // AIX says which host it speaks for.
    if let Some((host, rest)) =
        rest.strip_prefix(b"Message forwarded from ").and_then(|rest| split(rest, b':'))
        && is_host(host)
    {
        let rest = rest.strip_prefix(b" ").unwrap_or(rest);
        let (tag, pid, text) = tag(rest).unwrap_or((b"", b"", rest));
        return Message { host, tag, pid, text, ..stamped };
    }
    if let Some((tag, pid, text)) = tag(rest) {
        return Message { tag, pid, text, ..stamped };
    }
    let Some((host, behind)) = split(rest, b' ').filter(|(word, _)| is_host(word)) else {
        return stamped;
    };
    match (tag(behind), origin) {
        (_, Origin::Local) => stamped,
        (Some((tag, pid, text)), _) => Message { host, tag, pid, text, ..stamped },
        (None, Origin::Remote) => Message { host, text: behind, ..stamped },
        (None, Origin::Loopback) => stamped,
    }
}

/// `45: ` or `45: host: `, if a time is behind it.
fn cisco(bytes: &[u8]) -> Option<(&[u8], &[u8])> {
    let (counter, rest) = split(bytes, b':')?;
    if counter.is_empty() || counter.len() > 10 || !counter.iter().all(u8::is_ascii_digit) {
        return None;
    }
    let rest = rest.strip_prefix(b" ")?;
    let is_time = |bytes: &[u8]| {
        let bytes = bytes.strip_prefix(b"*").or_else(|| bytes.strip_prefix(b".")).unwrap_or(bytes);
        Stamp::parse(bytes).is_some()
    };
    if is_time(rest) {
        return Some((b"", rest));
    }
    let (host, rest) = split(rest, b' ')?;
    let host = host.strip_suffix(b":").filter(|host| is_host(host))?;
    is_time(rest).then_some((host, rest))
}

/// `tag: text`, `tag[pid]: text` or `tag[pid] text`: tag, pid and text.
pub(crate) fn tag(bytes: &[u8]) -> Option<(&[u8], &[u8], &[u8])> {
    let of_tag = |byte: &&u8| byte.is_ascii_graphic() && !b"\"<>[]:=,;{}%".contains(*byte);
    let length = bytes.iter().take(MAX_TAG + 1).take_while(of_tag).count();
    let (tag, rest) = bytes.split_at_checked(length).filter(|_| length <= MAX_TAG)?;
    if !tag.iter().any(u8::is_ascii_alphabetic) {
        return None;
    }
    let (pid, rest) = match rest.strip_prefix(b"[") {
        None => (&b""[..], rest),
        Some(inside) => {
            let end = memchr(b']', inside.get(..MAX_PID.min(inside.len()))?)?;
            let (pid, rest) = inside.split_at_checked(end)?;
            if pid.is_empty() || !pid.iter().all(u8::is_ascii_graphic) {
                return None;
            }
            (pid, rest.get(1..)?)
        }
    };
    let text = match rest {
        [b':', b' ', text @ ..] => text,
        [b':', text @ ..] if text.is_empty() || !pid.is_empty() => text,
        [b' ', text @ ..] if pid.iter().all(u8::is_ascii_digit) && !pid.is_empty() => text,
        _ => return None,
    };
    Some((tag, pid, text))
}

fn is_host(word: &[u8]) -> bool {
    !word.is_empty()
        && word.len() <= MAX_HOST
        && word.iter().all(|byte| byte.is_ascii_alphanumeric() || b"-._:%".contains(byte))
        && word.iter().any(u8::is_ascii_alphanumeric)
        && !word.starts_with(b"%")
        && !word.ends_with(b":")
}

fn ends_a_word(rest: &[u8]) -> bool {
    matches!(rest.first(), None | Some(b' ' | b':'))
}

/// What is before and behind the first such byte.
fn split(bytes: &[u8], at: u8) -> Option<(&[u8], &[u8])> {
    let (before, behind) = bytes.split_at_checked(memchr(at, bytes)?)?;
    Some((before, behind.get(1..)?))
}

#[cfg(test)]
mod tests;
