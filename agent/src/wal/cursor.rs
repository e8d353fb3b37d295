//! A reader's cursor file: two slots that are written in turn.

use std::io;

use super::segment::MAX_POSITION;
use super::storage::{Storage, StorageFile};

/// Bytes of a slot, and of the distance between the slots: one sector each, so that a torn write never
/// reaches the other one.
pub(super) const SLOT: usize = 512;

/// Bytes of the whole file.
pub(super) const FILE: u64 = 2 * SLOT as u64;

const MAGIC: &[u8; 8] = b"MOTECURS";
/// Bytes of a slot that say something.
pub(super) const USED: usize = 28;

/// An open cursor file.
#[derive(Debug)]
pub(super) struct CursorFile<F> {
    file: F,
    generation: u64,
}

/// The end of a cursor file's name.
pub(super) const SUFFIX: &str = ".cursor";

/// The file's name for a reader's name.
pub(super) fn name(reader: &str) -> String {
    format!("{reader}{SUFFIX}")
}

/// The position in an open cursor file, and the generation of its slot; None if both slots are damaged.
///
/// # Errors
/// The file can't be read.
pub(super) fn newest(file: &impl StorageFile) -> io::Result<Option<(u64, u64)>> {
    let mut newest: Option<(u64, u64)> = None;
    for slot in 0..2 {
        let mut bytes = [0; USED];
        if file.read_exact_at(slot * SLOT as u64, &mut bytes)?
            && let Some(found) = parse(&bytes)
            && newest.is_none_or(|(generation, _)| found.0 > generation)
        {
            newest = Some(found);
        }
    }
    Ok(newest)
}

impl<F: StorageFile> CursorFile<F> {
    /// Opens or creates the file. The position is None if the file is new or damaged in both slots.
    ///
    /// # Errors
    /// The file can't be opened, created or read.
    pub(super) fn open<S: Storage<File = F>>(
        storage: &S,
        reader: &str,
    ) -> io::Result<(CursorFile<F>, Option<u64>)> {
        let name = name(reader);
        let mut file = match storage.open(&name) {
            Err(error) if error.kind() == io::ErrorKind::NotFound => {
                let mut file = storage.create(&name)?;
                // The whole file now, so that later writes change no metadata.
                file.write_at(0, &[0; FILE as usize])?;
                file
            }
            other => other?,
        };
        // The log's bound counts two slots; what somebody has appended is not the log's.
        if file.len()? > FILE {
            file.truncate(FILE)?;
        }
        let newest = newest(&file)?;
        let generation = newest.map_or(0, |(generation, _)| generation);
        Ok((CursorFile { file, generation }, newest.map(|(_, position)| position)))
    }

    /// Writes a position into the older slot.
    ///
    /// # Errors
    /// The write or the sync failed; the other slot still holds the position before.
    pub(super) fn write(&mut self, position: u64, sync: bool) -> io::Result<()> {
        let generation = self.generation + 1;
        let mut slot = [0; SLOT];
        slot[..USED].copy_from_slice(&encode(generation, position));
        self.file.write_at((generation % 2) * SLOT as u64, &slot)?;
        self.generation = generation;
        if sync { self.file.sync() } else { Ok(()) }
    }
}

impl<F: StorageFile> CursorFile<F> {
    /// Another handle of the file, for a sync on another thread.
    ///
    /// # Errors
    /// The system's.
    pub(super) fn share(&self) -> io::Result<F> {
        self.file.share()
    }
}

fn encode(generation: u64, position: u64) -> [u8; USED] {
    let mut bytes = [0; USED];
    bytes[0..8].copy_from_slice(MAGIC);
    bytes[8..16].copy_from_slice(&generation.to_le_bytes());
    bytes[16..24].copy_from_slice(&position.to_le_bytes());
    let crc = crc32c::crc32c(&bytes[0..24]);
    bytes[24..28].copy_from_slice(&crc.to_le_bytes());
    bytes
}

/// The generation and the position of a valid slot.
pub(super) fn parse(bytes: &[u8; USED]) -> Option<(u64, u64)> {
    let mut number = [0; 8];
    number.copy_from_slice(&bytes[8..16]);
    let generation = u64::from_le_bytes(number);
    number.copy_from_slice(&bytes[16..24]);
    let position = u64::from_le_bytes(number);
    // A generation is a count of writes, and a position one of bytes: neither gets so far.
    let plausible = generation <= MAX_POSITION && position <= MAX_POSITION;
    (plausible && *bytes == encode(generation, position)).then_some((generation, position))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_slot_is_pinned_and_every_flipped_bit_is_noticed() {
        let good = encode(3, 0x1234);
        assert_eq!(&good[..24], b"MOTECURS\x03\0\0\0\0\0\0\0\x34\x12\0\0\0\0\0\0");
        assert_eq!(parse(&good), Some((3, 0x1234)));
        for bit in 0..USED * 8 {
            let mut bad = good;
            bad[bit / 8] ^= 1 << (bit % 8);
            assert_eq!(parse(&bad), None, "bit {bit}");
        }
        assert_eq!(parse(&[0; USED]), None);
    }

    #[test]
    fn a_slot_near_the_end_of_numbers_is_none() {
        assert_eq!(parse(&encode(u64::MAX, 32)), None);
        assert_eq!(parse(&encode(1, u64::MAX)), None);
        assert_eq!(parse(&encode(MAX_POSITION, MAX_POSITION)), Some((MAX_POSITION, MAX_POSITION)));
    }
}
