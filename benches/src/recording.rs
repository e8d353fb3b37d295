//! Rounds of a real host in a file, so that a measurement can be repeated: what `record` writes. The hour
//! in `benches/data/hour.zst` was recorded on a virtual machine with two CPUs that was compiling and, in
//! the last twenty rounds, mounting file systems under new names: a hard case. Device and mount point of one
//! mount are replaced by others of the same length.
//!
//! Round after round: time `i64` in milliseconds since the Unix epoch, number of samples `u32`, and each
//! sample: length of the key `u16`, key (as `mote::model::Samples` makes it), kind `u8`, the value's bits
//! `u64`; all little-endian. A file that ends in `.zst` is one zstd frame of it.

use std::path::{Path, PathBuf};

use mote::model::{Kind, Samples};

use crate::Result;

/// A round that was recorded.
pub struct Recorded {
    /// Milliseconds since the Unix epoch.
    pub time_ms: i64,
    /// Its samples. Histograms come back as single series; nothing here tells them apart.
    pub samples: Samples,
}

/// The hour that is kept with the sources: 61 rounds, 60 s apart.
pub fn hour() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("data/hour.zst")
}

/// Appends a round.
///
/// # Errors
/// More samples or a longer key than the numbers can say.
pub fn put(time_ms: i64, samples: &Samples, out: &mut Vec<u8>) -> Result<()> {
    out.extend_from_slice(&time_ms.to_le_bytes());
    out.extend_from_slice(&u32::try_from(samples.len())?.to_le_bytes());
    for sample in samples.iter() {
        out.extend_from_slice(&u16::try_from(sample.key.len())?.to_le_bytes());
        out.extend_from_slice(sample.key);
        out.push(sample.kind as u8);
        out.extend_from_slice(&sample.value.to_bits().to_le_bytes());
    }
    Ok(())
}

/// All rounds of a file. What a recorder that still runs has written of the last one is left out.
///
/// # Errors
/// The file can't be read, or is no recording.
pub fn read(path: &Path) -> Result<Vec<Recorded>> {
    let mut bytes = std::fs::read(path).map_err(|e| format!("{}: {e}", path.display()))?;
    if path.extension().is_some_and(|extension| extension == "zst") {
        bytes = zstd::decode_all(bytes.as_slice())?;
    }
    let mut rest = bytes.as_slice();
    let mut rounds = Vec::new();
    while let Some((round, after)) = read_round(rest)? {
        rounds.push(round);
        rest = after;
    }
    Ok(rounds)
}

/// The first round, and what follows it; None if it is not all there.
fn read_round(bytes: &[u8]) -> Result<Option<(Recorded, &[u8])>> {
    let Some((time, rest)) = bytes.split_first_chunk() else { return Ok(None) };
    let Some((count, mut rest)) = rest.split_first_chunk() else { return Ok(None) };
    let count = u32::from_le_bytes(*count);
    let mut samples = Samples::with_limit(count as usize);
    for _ in 0..count {
        let Some((len, after)) = rest.split_first_chunk() else { return Ok(None) };
        let len = usize::from(u16::from_le_bytes(*len));
        let Some((key, after)) = after.split_at_checked(len) else { return Ok(None) };
        let Some((kind, after)) = after.split_first() else { return Ok(None) };
        let Some((bits, after)) = after.split_first_chunk() else { return Ok(None) };
        add(&mut samples, key, *kind, f64::from_bits(u64::from_le_bytes(*bits)))?;
        rest = after;
    }
    Ok(Some((Recorded { time_ms: i64::from_le_bytes(*time), samples }, rest)))
}

fn add(samples: &mut Samples, key: &[u8], kind: u8, value: f64) -> Result<()> {
    let parts: Vec<&str> = key
        .split(|&byte| byte == 0xff)
        .map(std::str::from_utf8)
        .collect::<std::result::Result<_, _>>()?;
    let kind = Kind::from_u8(kind).ok_or("a kind that is none")?;
    let (name, labels) = parts.split_first().ok_or("a key without a name")?;
    let labels: Vec<_> = labels.chunks_exact(2).map(|pair| (pair[0], pair[1])).collect();
    samples.family_named(name, "", kind).add(&labels, value);
    Ok(())
}
