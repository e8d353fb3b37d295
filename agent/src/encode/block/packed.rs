//! Bytes that are written as a zstd frame where that is shorter, and read back within bounds. It must not
//! know what the bytes mean.
//!
//! **Level and window.** Level 1 with a window of 64 KiB: most of a block, of which the largest has 128 KiB (a window
//! over all of it makes it a hundredth shorter). Lines of blocks of 64 KiB, a generated syslog
//! (benches/src/bin/blocks.rs): ratio 4.62, 1.38 million instructions a block, a context of 234 KB.
//! A window of 16 KiB: 4.29, 1.50 million, 120 to 211 KB. Level 3: 4.64, 1.99 million, 597 KB.
//!
//! **No context is kept**, neither to write nor to read. Resident memory is promised, and sources that are
//! read to their end make a block in some seconds, so 234 KB and 96 KB would lie there for nothing; the
//! buffers in the clear are given back for the same reason. A new context costs 4,000 instructions more than
//! a kept one for a block of one line (33,500 instead of 29,500), 36,000 more for a full one (1.38 instead
//! of 1.34 million), and 600 more to read; with the kernel's part, for its pages, some 40 µs. A short line a
//! second pays none of it: what is below [`MIN_RAW`] is stored.

use std::borrow::Cow;
use std::io::Cursor;

use zstd::zstd_safe::{CCtx, CParameter, DCtx, find_frame_compressed_size, get_frame_content_size};

const LEVEL: i32 = 1;
const WINDOW_LOG: u32 = 16;

/// Fewer bytes, such as one line and its labels, would be a tenth shorter at ten times the work.
const MIN_RAW: usize = 256;

/// The most bytes that are unpacked: the longest line (16 MiB) and a block beside it.
pub(super) const MAX_RAW: u64 = 17 << 20;

/// The most that a frame can expand: a block of 4 bytes (a repeated one) stands for 128 KiB.
const MAX_EXPANSION: u64 = 32 << 10;

/// Appends `raw` to `out`, as one zstd frame if that is shorter. Whether it is.
pub(super) fn put(raw: &[u8], out: &mut Vec<u8>) -> bool {
    let start = out.len();
    if raw.len() >= MIN_RAW && compress(raw, out).is_some_and(|len| len < raw.len()) {
        return true;
    }
    out.truncate(start);
    out.extend_from_slice(raw);
    false
}

/// None if there is no memory, or the frame is much longer than `raw`.
fn compress(raw: &[u8], out: &mut Vec<u8>) -> Option<usize> {
    let start = out.len();
    out.reserve(raw.len());
    let mut context = CCtx::try_create()?;
    context.set_parameter(CParameter::CompressionLevel(LEVEL)).ok()?;
    context.set_parameter(CParameter::WindowLog(WINDOW_LOG)).ok()?;
    let mut rest = Cursor::new(out);
    rest.set_position(start as u64);
    context.compress2(&mut rest, raw).ok()
}

/// How many bytes [`open`] makes of a frame, by its own word. None if it is not one whole frame that says
/// so, or if they are more than it can hold or than [`MAX_RAW`].
pub(super) fn raw_len(frame: &[u8]) -> Option<u64> {
    let len = get_frame_content_size(frame).ok()??;
    let whole = find_frame_compressed_size(frame) == Ok(frame.len());
    let most = (frame.len() as u64).saturating_mul(MAX_EXPANSION).min(MAX_RAW);
    (whole && len <= most).then_some(len)
}

/// What [`put`] wrote, whose answer `packed` is. None if it is no such frame.
pub(super) fn open(bytes: &[u8], packed: bool) -> Option<Cow<'_, [u8]>> {
    if !packed {
        return Some(Cow::Borrowed(bytes));
    }
    // Fits: it is at most MAX_RAW. The pages become resident as contents come.
    let len = raw_len(bytes)? as usize;
    let mut raw = Vec::new();
    raw.try_reserve_exact(len).ok()?;
    let written = DCtx::try_create()?.decompress(&mut raw, bytes).ok()?;
    (written == len).then_some(Cow::Owned(raw))
}
