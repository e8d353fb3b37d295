//! One answer of a runtime's API as HTTP/1.1 has it (RFC 9112): status line, fields, and a body of known
//! length or in chunks. No more than that: what is ambiguous, foreign or too large is refused.

/// The status line and all fields; Docker's have some 300 bytes.
const MAX_HEAD: usize = 16 << 10;

/// All of the answer.
pub(super) const MAX: usize = 1 << 20;

/// The status code and the body of an answer of which these are the bytes so far; none if more must come.
///
/// # Errors
/// It is no such answer, or has more than 1 MiB.
pub fn answer(bytes: &[u8]) -> Result<Option<(u16, Vec<u8>)>, &'static str> {
    let Some((head, body)) = split(bytes, b"\r\n\r\n") else {
        if bytes.len() > MAX_HEAD {
            return Err("a head of more than 16 KiB");
        }
        return Ok(None);
    };
    if head.len() > MAX_HEAD {
        return Err("a head of more than 16 KiB");
    }
    let (status, fields) = split(head, b"\r\n").unwrap_or((head, b""));
    let status = code(status).ok_or("no status line of HTTP/1.1")?;
    let mut length = None;
    let mut chunked = false;
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
        }
    }
    match (length, chunked) {
        (Some(_), true) => Err("both a length and chunks"),
        (None, false) => Err("neither a length nor chunks"),
        (None, true) => Ok(chunks(body)?.map(|body| (status, body))),
        (Some(length), false) => {
            let length = usize::try_from(length).ok().filter(|length| *length <= MAX);
            let length = length.ok_or("more than 1 MiB")?;
            Ok(body.get(..length).map(|body| (status, body.to_vec())))
        }
    }
}

/// The body that chunks make; none if more must come.
fn chunks(mut rest: &[u8]) -> Result<Option<Vec<u8>>, &'static str> {
    let mut body = Vec::new();
    loop {
        let Some((line, after)) = split(rest, b"\r\n") else {
            return if rest.len() > 1 << 10 { Err("a long chunk size") } else { Ok(None) };
        };
        let digits = line.split(|&byte| byte == b';').next().unwrap_or_default().trim_ascii_end();
        let size = hexadecimal(digits).ok_or("a chunk size that is no number")?;
        if size == 0 {
            // Trailers, which nobody needs, end with an empty line.
            let ended = after.starts_with(b"\r\n") || split(after, b"\r\n\r\n").is_some();
            return Ok(ended.then_some(body));
        }
        if body.len().saturating_add(size) > MAX {
            return Err("more than 1 MiB");
        }
        let Some((chunk, after)) = after.split_at_checked(size) else { return Ok(None) };
        match after.strip_prefix(b"\r\n") {
            Some(after) => rest = after,
            None if b"\r\n".starts_with(after) => return Ok(None),
            None => return Err("a chunk that is longer than its size"),
        }
        body.extend_from_slice(chunk);
    }
}

fn code(line: &[u8]) -> Option<u16> {
    let rest = line.strip_prefix(b"HTTP/1.1 ").or_else(|| line.strip_prefix(b"HTTP/1.0 "))?;
    let (digits, reason) = rest.split_at_checked(3)?;
    let code = u16::try_from(crate::host::text::unsigned(digits)?).ok()?;
    // Interim answers come to who asks for them.
    (code >= 200 && (reason.is_empty() || reason.starts_with(b" "))).then_some(code)
}

fn hexadecimal(digits: &[u8]) -> Option<usize> {
    if digits.is_empty() || digits.len() > 7 {
        return None;
    }
    digits
        .iter()
        .try_fold(0, |number, &byte| Some(number << 4 | char::from(byte).to_digit(16)? as usize))
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
        let endless = [head.as_bytes(), &[b'x'; MAX_HEAD]].concat();
        assert!(answer(&endless).is_err());
    }
}
