//! The true offsets of boots, in a file: what gives held records their times after a restart and after a reboot.
//! Layout and reasons are the [module](super)'s.

use std::fs::{self, File};
use std::io::{self, Write as _};
use std::path::Path;

use crate::host::BootId;

const MAGIC: &[u8; 8] = b"MOTECLOC";
const VERSION: u16 = 1;
const HEADER: usize = 12;
const ROW: usize = 32;
const ESTIMATED: u32 = 1;

/// The most boots: each has held records in the WAL, or once had; a board that reboots more often than that before the
/// WAL is sent has its oldest boots estimated anew.
const MAX_BOOTS: usize = 1_024;

/// A boot whose time is known.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Boot {
    /// Its id.
    pub id: BootId,
    /// Real time less time since the boot, in milliseconds.
    pub true_ms: i64,
    /// Nothing ever vouched for its clock.
    pub estimated: bool,
}

/// The boots whose time is known.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Book {
    boots: Vec<Boot>,
}

impl Book {
    /// The boot of this id.
    pub fn get(&self, id: &BootId) -> Option<Boot> {
        self.boots.iter().find(|boot| boot.id == *id).copied()
    }

    /// Adds a boot. One that is known stays as it is: some of its records may have been sent. The `running` one
    /// stays, whatever else has to go: all estimates need it.
    pub fn add(&mut self, boot: Boot, running: Option<&BootId>) {
        if self.get(&boot.id).is_some() {
            return;
        }
        if self.boots.len() >= MAX_BOOTS {
            let oldest = self.boots.iter().position(|have| Some(&have.id) != running);
            oldest.map(|oldest| self.boots.remove(oldest));
        }
        self.boots.push(boot);
    }

    /// The book at `path`; an empty one where there is none.
    ///
    /// # Errors
    /// It can't be read, or it is damaged.
    pub fn load(path: &Path) -> io::Result<Book> {
        match fs::read(path) {
            Ok(bytes) => Book::from_bytes(&bytes).ok_or_else(|| {
                io::Error::new(io::ErrorKind::InvalidData, "it is damaged or of another version")
            }),
            Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(Book::default()),
            Err(error) => Err(error),
        }
    }

    /// Writes it to `path`, for good when this returns. It may hang as the disk does.
    ///
    /// # Errors
    /// The system's. The file is then as it was.
    pub fn save(&self, path: &Path) -> io::Result<()> {
        let beside = path.with_extension("new");
        let mut file = File::create(&beside)?;
        file.write_all(&self.to_bytes())?;
        file.sync_all()?;
        drop(file);
        fs::rename(&beside, path)?;
        match path.parent() {
            Some(parent) => File::open(parent)?.sync_all(),
            None => Ok(()),
        }
    }

    /// Its bytes.
    pub fn to_bytes(&self) -> Vec<u8> {
        let mut out = MAGIC.to_vec();
        out.extend_from_slice(&VERSION.to_le_bytes());
        // At most MAX_BOOTS.
        out.extend_from_slice(&(self.boots.len() as u16).to_le_bytes());
        for boot in &self.boots {
            out.extend_from_slice(&boot.id);
            out.extend_from_slice(&boot.true_ms.to_le_bytes());
            out.extend_from_slice(&u32::from(boot.estimated).to_le_bytes());
            out.extend_from_slice(&[0; 4]);
        }
        let crc = crc32c::crc32c(&out);
        out.extend_from_slice(&crc.to_le_bytes());
        out
    }

    /// The inverse of [`to_bytes`](Book::to_bytes). None for anything else.
    pub fn from_bytes(bytes: &[u8]) -> Option<Book> {
        let (body, crc) = bytes.split_last_chunk::<4>()?;
        if crc32c::crc32c(body) != u32::from_le_bytes(*crc) {
            return None;
        }
        let (header, rows) = body.split_first_chunk::<HEADER>()?;
        let [magic @ .., v0, v1, c0, c1] = header;
        let count = usize::from(u16::from_le_bytes([*c0, *c1]));
        let is_this = magic == MAGIC && u16::from_le_bytes([*v0, *v1]) == VERSION;
        if !is_this || count > MAX_BOOTS || rows.len() != count * ROW {
            return None;
        }
        let boots = rows.chunks_exact(ROW).map(row).collect::<Option<Vec<Boot>>>()?;
        Some(Book { boots })
    }
}

fn row(bytes: &[u8]) -> Option<Boot> {
    let (id, rest) = bytes.split_first_chunk::<16>()?;
    let (offset, rest) = rest.split_first_chunk::<8>()?;
    let (flags, reserved) = rest.split_first_chunk::<4>()?;
    let flags = u32::from_le_bytes(*flags);
    (flags & !ESTIMATED == 0 && *reserved == [0; 4]).then(|| Boot {
        id: *id,
        true_ms: i64::from_le_bytes(*offset),
        estimated: flags == ESTIMATED,
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    fn boot(number: u8, true_ms: i64) -> Boot {
        Boot { id: [number; 16], true_ms, estimated: number % 2 == 1 }
    }

    #[test]
    fn layout_is_as_written() {
        let mut book = Book::default();
        book.add(Boot { id: *b"0123456789abcdef", true_ms: -2, estimated: false }, None);
        book.add(Boot { id: [9; 16], true_ms: 0x0102, estimated: true }, None);
        let mut expected = b"MOTECLOC\x01\x00\x02\x000123456789abcdef\xfe".to_vec();
        expected.extend_from_slice(&[0xff; 7]);
        expected.extend_from_slice(&[0; 8]);
        expected.extend_from_slice(&[9; 16]);
        expected.extend_from_slice(&[2, 1, 0, 0, 0, 0, 0, 0, 1, 0, 0, 0, 0, 0, 0, 0]);
        expected.extend_from_slice(&[0x13, 0xab, 0xe4, 0xa7]);
        assert_eq!(book.to_bytes(), expected);
        assert_eq!(Book::from_bytes(&expected), Some(book));
        assert_eq!(Book::from_bytes(&Book::default().to_bytes()), Some(Book::default()));
    }

    #[test]
    fn damage_anywhere_is_noticed() {
        let mut book = Book::default();
        (0..3).for_each(|number| book.add(boot(number, 5), None));
        let good = book.to_bytes();
        for at in 0..good.len() {
            for bit in 0..8 {
                let mut bad = good.clone();
                bad[at] ^= 1 << bit;
                assert_eq!(Book::from_bytes(&bad), None, "bit {bit} of byte {at}");
            }
            assert_eq!(Book::from_bytes(&good[..at]), None);
        }
        assert_eq!(Book::from_bytes(&[&good[..], &[0]].concat()), None);
        // A good checksum over what this version can't know.
        for (at, value) in [(8, 2), (10, 2), (36, 2), (40, 1)] {
            let mut bad = good[..good.len() - 4].to_vec();
            bad[at] = value;
            let crc = crc32c::crc32c(&bad);
            bad.extend_from_slice(&crc.to_le_bytes());
            assert_eq!(Book::from_bytes(&bad), None, "byte {at}");
        }
    }

    #[test]
    fn what_is_known_stays_and_the_oldest_gives_way() {
        let mut book = Book::default();
        book.add(boot(1, 5), None);
        book.add(boot(1, 6), None);
        assert_eq!(book.get(&[1; 16]), Some(boot(1, 5)));
        book.add(boot(2, 7), None);
        let running = [1; 16];
        for number in 0..MAX_BOOTS as u64 {
            let id = std::array::from_fn(|at| if at < 8 { number.to_le_bytes()[at] } else { 77 });
            book.add(Boot { id, true_ms: 7, estimated: true }, Some(&running));
        }
        assert_eq!((book.get(&[1; 16]), book.get(&[2; 16])), (Some(boot(1, 5)), None));
        assert_eq!(Book::from_bytes(&book.to_bytes()), Some(book));
    }

    #[test]
    fn the_file_is_whole_or_as_it_was() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("clock");
        assert_eq!(Book::load(&path).unwrap(), Book::default());
        let mut book = Book::default();
        for number in 0..3 {
            book.add(boot(number, 1), None);
            book.save(&path).unwrap();
            assert_eq!(Book::load(&path).unwrap(), book);
        }
        // What a power cut left beside it is no harm.
        fs::write(dir.path().join("clock.new"), b"torn").unwrap();
        assert_eq!(Book::load(&path).unwrap(), book);
        book.save(&path).unwrap();
        fs::write(&path, b"MOTECLOC").unwrap();
        assert_eq!(Book::load(&path).unwrap_err().kind(), io::ErrorKind::InvalidData);
        assert!(Book::default().save(&dir.path().join("not/there/clock")).is_err());
    }
}
