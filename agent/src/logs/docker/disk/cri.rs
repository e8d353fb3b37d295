//! The CRI's format, which containerd and CRI-O write for Kubernetes (and so k3s) and Podman as
//! `k8s-file`: `2016-10-06T00:17:09.669794202Z stdout F text`. The third word is a list of tags that
//! `:` separates, of which the first is `P` where the line goes on in the next record and else `F`.
//!
//! It must not know files.

use super::time::rfc3339;
use crate::logs::file::{Entry, Format, Stream};

/// Time, stream and tags, with spaces: 35 bytes for the time with its offset, some for tags.
const ENVELOPE: usize = 128;

/// The format.
pub const CRI: &dyn Format = &Cri;

#[derive(Debug)]
struct Cri;

impl Format for Cri {
    fn name(&self) -> &'static str {
        "cri"
    }

    fn max_record(&self, max_line: usize) -> usize {
        max_line + ENVELOPE
    }

    fn start<'a>(&self, data: &'a [u8]) -> &'a [u8] {
        super::without_nul(data)
    }

    fn decode<'a>(&self, record: &'a [u8], _: usize, _: &'a mut Vec<u8>) -> Option<Entry<'a>> {
        let (time, rest) = word(record)?;
        let (stream, rest) = word(rest)?;
        // An empty line may end behind its tag.
        let (tags, text) = word(rest).unwrap_or((rest, b""));
        let time_ns = rfc3339(time)?;
        let stream = Stream::of(stream);
        let partial = match tags.split(|&byte| byte == b':').next()? {
            b"F" => false,
            b"P" => true,
            _ => return None,
        };
        (stream != Stream::None).then_some(Entry {
            text,
            time_ns: Some(time_ns),
            stream,
            partial,
            ..Entry::default()
        })
    }
}

fn word(text: &[u8]) -> Option<(&[u8], &[u8])> {
    let at = memchr::memchr(b' ', text)?;
    Some((text.get(..at)?, text.get(at + 1..)?))
}

#[cfg(test)]
mod tests {
    use super::*;

    const TIME: &str = "2016-10-06T00:17:09.669794202Z";
    const TIME_NS: i64 = 1_475_713_029_669_794_202;

    fn decode(record: &str) -> Option<(String, Stream, bool)> {
        let mut scratch = Vec::new();
        let entry = Cri.decode(record.as_bytes(), 1024, &mut scratch)?;
        assert_eq!(entry.time_ns, Some(TIME_NS));
        Some((String::from_utf8(entry.text.to_vec()).unwrap(), entry.stream, entry.partial))
    }

    #[test]
    fn records_of_both_streams_with_any_text() {
        let some = |text: &str, stream, partial| Some((text.to_owned(), stream, partial));
        assert_eq!(decode(&format!("{TIME} stdout F a b")), some("a b", Stream::Stdout, false));
        assert_eq!(decode(&format!("{TIME} stderr P a ")), some("a ", Stream::Stderr, true));
        assert_eq!(decode(&format!("{TIME} stdout P:x:y a")), some("a", Stream::Stdout, true));
        assert_eq!(decode(&format!("{TIME} stdout F ")), some("", Stream::Stdout, false));
        assert_eq!(decode(&format!("{TIME} stdout F")), some("", Stream::Stdout, false));
        let zoned = "2016-10-06T02:17:09.669794202+02:00 stdout F  x";
        assert_eq!(decode(zoned), some(" x", Stream::Stdout, false));
    }

    #[test]
    fn what_is_no_record_is_malformed() {
        for record in [
            String::new(),
            "stdout F text".to_owned(),
            TIME.to_owned(),
            format!("{TIME} stdout"),
            format!("{TIME} stdlog F text"),
            format!("{TIME} stdout X text"),
            format!("{TIME}  stdout F text"),
            "yesterday stdout F text".to_owned(),
        ] {
            assert_eq!(decode(&record), None, "{record}");
        }
    }
}
