//! A push to Loki, decoded: `logproto.PushRequest` in snappy's block format. Streams (1) have labels (1) and
//! entries (2); an entry has a timestamp (1: seconds 1, nanoseconds 2), a line (2) and pairs of structured
//! metadata (3: name 1, value 2). What a Loki would not know is an error. It must not know what lines are.

use crate::Result;

/// Hands each line of a request's body on.
///
/// # Errors
/// The body is no push, or one that says nothing.
pub(crate) fn decode(body: &[u8], mut take: impl FnMut(&str)) -> Result<()> {
    let raw = snap::raw::Decoder::new()
        .decompress_vec(body)
        .map_err(|error| format!("a push of {} bytes: {error}", body.len()))?;
    let mut streams = 0;
    each("PushRequest", &raw, |field, value| match (field, value) {
        (1, Value::Bytes(bytes)) => {
            streams += 1;
            stream(bytes, &mut take)
        }
        _ => Err(unknown("PushRequest", field)),
    })?;
    if streams == 0 { Err("a push without streams".to_owned()) } else { Ok(()) }
}

fn stream(bytes: &[u8], take: &mut impl FnMut(&str)) -> Result<()> {
    let (mut labelled, mut entries) = (false, 0);
    each("StreamAdapter", bytes, |field, value| match (field, value) {
        (1, Value::Bytes(bytes)) => {
            labelled = text(bytes)?.starts_with('{');
            Ok(())
        }
        (2, Value::Bytes(bytes)) => {
            entries += 1;
            entry(bytes, take)
        }
        _ => Err(unknown("StreamAdapter", field)),
    })?;
    match labelled && entries > 0 {
        true => Ok(()),
        false => Err(format!("a stream with {entries} entries, with labels: {labelled}")),
    }
}

fn entry(bytes: &[u8], take: &mut impl FnMut(&str)) -> Result<()> {
    let (mut time, mut line) = (0, None);
    each("EntryAdapter", bytes, |field, value| match (field, value) {
        (1, Value::Bytes(bytes)) => each("Timestamp", bytes, |field, value| match (field, value) {
            (1, Value::Number(seconds)) => {
                time = seconds;
                Ok(())
            }
            (2, Value::Number(0..1_000_000_000)) => Ok(()),
            _ => Err(unknown("Timestamp", field)),
        }),
        (2, Value::Bytes(bytes)) => {
            line = Some(text(bytes)?);
            Ok(())
        }
        (3, Value::Bytes(bytes)) => each("LabelPairAdapter", bytes, |field, value| match value {
            Value::Bytes(bytes) if field == 1 || field == 2 => text(bytes).map(drop),
            _ => Err(unknown("LabelPairAdapter", field)),
        }),
        _ => Err(unknown("EntryAdapter", field)),
    })?;
    match line {
        Some(line) if time > 0 => {
            take(line);
            Ok(())
        }
        _ => Err(format!("an entry of the second {time} with the line {line:?}")),
    }
}

enum Value<'a> {
    Number(u64),
    Bytes(&'a [u8]),
}

/// The fields of a message, one by one.
fn each<'a>(
    message: &str,
    mut bytes: &'a [u8],
    mut take: impl FnMut(u64, Value<'a>) -> Result<()>,
) -> Result<()> {
    while !bytes.is_empty() {
        let key = number(message, &mut bytes)?;
        let value = match key & 7 {
            0 => Value::Number(number(message, &mut bytes)?),
            2 => {
                let length = usize::try_from(number(message, &mut bytes)?).unwrap_or(usize::MAX);
                let (value, rest) = bytes
                    .split_at_checked(length)
                    .ok_or_else(|| format!("{message}: a field of {length} bytes is cut"))?;
                bytes = rest;
                Value::Bytes(value)
            }
            other => return Err(format!("{message}: wire type {other}")),
        };
        take(key >> 3, value)?;
    }
    Ok(())
}

fn number(message: &str, bytes: &mut &[u8]) -> Result<u64> {
    let mut value = 0;
    for shift in (0..64).step_by(7) {
        let (&byte, rest) =
            bytes.split_first().ok_or_else(|| format!("{message}: ends within a number"))?;
        *bytes = rest;
        value |= u64::from(byte & 0x7f) << shift;
        if byte & 0x80 == 0 {
            return Ok(value);
        }
    }
    Err(format!("{message}: a number of more than 64 bits"))
}

fn text(bytes: &[u8]) -> Result<&str> {
    std::str::from_utf8(bytes).map_err(|error| format!("what should be text is not: {error}"))
}

fn unknown(message: &str, field: u64) -> String {
    format!("{message}: field {field} is unknown, or not of its type")
}

#[cfg(test)]
mod tests {
    use super::*;

    fn field(number: u8, bytes: &[u8]) -> Vec<u8> {
        let length = u8::try_from(bytes.len()).expect("a short field");
        [&[number << 3 | 2, length], bytes].concat()
    }

    fn lines(raw: &[u8]) -> Result<Vec<String>> {
        let body = snap::raw::Encoder::new().compress_vec(raw).expect("small");
        let mut lines = Vec::new();
        decode(&body, |line| lines.push(line.to_owned())).map(|()| lines)
    }

    #[test]
    fn lines_come_out_and_what_is_no_push_does_not() {
        let time = field(1, &[0x08, 5, 0x10, 7]);
        let pair = field(3, &[field(1, b"level"), field(2, b"info")].concat());
        let entry = |line: &[u8]| field(2, &[time.clone(), field(2, line), pair.clone()].concat());
        let labels = field(1, b"{a=\"b\"}");
        let good = field(1, &[labels.clone(), entry(b"one"), entry(b"two")].concat());
        assert_eq!(lines(&good), Ok(vec!["one".to_owned(), "two".to_owned()]));
        for (bad, why) in [
            (Vec::new(), "without streams"),
            (good.get(..good.len() - 1).unwrap_or_default().to_vec(), "cut"),
            (field(1, &labels), "0 entries"),
            (field(1, &entry(b"one")), "labels: false"),
            (field(2, b""), "PushRequest: field 2"),
            (field(1, &[labels.clone(), field(2, &field(2, b"x"))].concat()), "second 0"),
            (field(1, &[labels.clone(), field(2, &time)].concat()), "None"),
            (field(1, &[labels.clone(), entry(b"\xff")].concat()), "text"),
            (vec![0x80; 12], "64 bits"),
            (vec![0x80], "within a number"),
            (vec![0x0d, 0, 0, 0, 0], "wire type 5"),
        ] {
            let error = lines(&bad).expect_err(why);
            assert!(error.contains(why), "{error:?} for {why}");
        }
        assert!(decode(b"\xff\xff\xff", |_| {}).is_err());
    }
}
