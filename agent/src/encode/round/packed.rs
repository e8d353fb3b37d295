//! Text that is written as a zstd frame where that is shorter, and read back within bounds. It must not
//! know what the text means.
//!
//! Contexts are made for each call and freed: schemas are rare, and a context (some 200 KiB to compress,
//! 90 KiB to read) would stay resident from one to the next.

use std::borrow::Cow;
use std::io::Cursor;

use zstd::zstd_safe::{CCtx, CParameter, DCtx, find_frame_compressed_size, get_frame_content_size};

/// Makes 1,355 bytes of the schema of 241 series, which has 6.1 KB; level 19 makes 7 % fewer of it.
const LEVEL: i32 = 3;
/// The least that is of use: schemas of small hosts have 4 to 16 KiB.
const WINDOW_LOG: u32 = 14;

/// What is shorter is not worth a context.
const MIN_RAW: usize = 64;
/// No frame may stand for more bytes.
const MAX_RAW: usize = 16 << 20;

/// How many bytes a frame may stand for; text for which a frame would stand for more is not packed.
fn most(frame: usize) -> usize {
    frame.saturating_mul(32).saturating_add(4096).min(MAX_RAW)
}

/// Appends `raw` to `out`, as one zstd frame if that is shorter. Returns whether it is. The frame refers to
/// `known`, text that the reader has, for what both have in common.
pub(super) fn put(raw: &[u8], known: &[u8], out: &mut Vec<u8>) -> bool {
    let start = out.len();
    if raw.len() >= MIN_RAW
        && let Some(len) = compress(raw, known, out)
        && len < raw.len()
        && raw.len() <= most(len)
    {
        return true;
    }
    out.truncate(start);
    out.extend_from_slice(raw);
    false
}

/// None if there is no memory, or the frame would be longer than `raw`.
fn compress(raw: &[u8], known: &[u8], out: &mut Vec<u8>) -> Option<usize> {
    let start = out.len();
    out.reserve(raw.len());
    let mut context = CCtx::try_create()?;
    context.set_parameter(CParameter::CompressionLevel(LEVEL)).ok()?;
    context.set_parameter(CParameter::WindowLog(WINDOW_LOG)).ok()?;
    if !known.is_empty() {
        context.load_dictionary(known).ok()?;
    }
    let mut rest = Cursor::new(out);
    rest.set_position(start as u64);
    context.compress2(&mut rest, raw).ok()
}

/// What [`put`] wrote, whose answer `packed` is, with the same `known`. None if it is no such frame, or if
/// there is no memory.
pub(super) fn open<'a>(bytes: &'a [u8], packed: bool, known: &[u8]) -> Option<Cow<'a, [u8]>> {
    if !packed {
        return Some(Cow::Borrowed(bytes));
    }
    if find_frame_compressed_size(bytes) != Ok(bytes.len()) {
        return None;
    }
    let len = usize::try_from(get_frame_content_size(bytes).ok()??).ok()?;
    if len > most(bytes.len()) {
        return None;
    }
    let mut raw = Vec::new();
    raw.try_reserve_exact(len).ok()?;
    let mut context = DCtx::try_create()?;
    if !known.is_empty() {
        context.load_dictionary(known).ok()?;
    }
    let written = context.decompress(&mut raw, bytes).ok()?;
    (written == len).then_some(Cow::Owned(raw))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn round_trip(raw: &[u8]) -> (bool, usize) {
        let mut out = b"before".to_vec();
        let packed = put(raw, b"", &mut out);
        assert_eq!(&out[..6], b"before");
        assert_eq!(open(&out[6..], packed, b"").unwrap(), raw);
        (packed, out.len() - 6)
    }

    #[test]
    fn text_comes_back_packed_or_not() {
        assert_eq!(round_trip(b""), (false, 0));
        assert_eq!(round_trip(b"short"), (false, 5));
        let text: Vec<u8> =
            (0..999u32).flat_map(|n| format!("node_{n}_total ").into_bytes()).collect();
        assert!(round_trip(&text).0);
        // A frame of it would stand for thousands of times its bytes.
        assert_eq!(round_trip(&[7; 100_000]), (false, 100_000));
    }

    #[test]
    fn what_is_known_is_not_written_again() {
        let text: Vec<u8> =
            (0..99u32).flat_map(|n| format!("node_{n}_total ").into_bytes()).collect();
        let (mut alone, mut out) = (Vec::new(), Vec::new());
        assert!(put(&text, b"", &mut alone) && put(&text, &text, &mut out));
        assert!(out.len() < 40 && alone.len() > 100, "{} {}", out.len(), alone.len());
        assert_eq!(open(&out, true, &text).unwrap(), text);
        assert_ne!(open(&out, true, b"").as_deref(), Some(&text[..]));
    }

    #[test]
    fn frames_that_promise_too_much_or_are_damaged_are_refused() {
        let mut bomb = Vec::new();
        compress(&vec![0; 1 << 20], b"", &mut bomb).unwrap();
        assert!(open(&bomb, true, b"").is_none());
        let text: Vec<u8> =
            (0..999u32).flat_map(|n| format!("node_{n}_total ").into_bytes()).collect();
        let mut frame = Vec::new();
        assert!(put(&text, b"", &mut frame));
        for len in 0..frame.len() {
            assert!(open(&frame[..len], true, b"").is_none(), "{len}");
        }
        frame.push(0);
        assert!(open(&frame, true, b"").is_none());
        for at in 0..frame.len() {
            let mut bad = frame.clone();
            bad[at] ^= 0x55;
            let _ = open(&bad, true, b"");
        }
    }
}
