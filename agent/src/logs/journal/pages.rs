//! Pieces of files in memory: 32 pages of 4 KiB that all files share. A page belongs to a tag; whoever
//! wants to read a file's bytes anew takes a new tag. It must not know what is in the files.

use std::fs::File;
use std::io;
use std::os::unix::fs::FileExt;

const PAGE: usize = 4_096;
const PAGES: usize = 32;

/// The cache. It holds no memory before the first read.
#[derive(Debug, Default)]
pub(super) struct Pages {
    rows: Vec<Row>,
    memory: Vec<u8>,
    clock: u32,
    tags: u32,
    last: usize,
}

#[derive(Clone, Copy, Debug)]
struct Row {
    tag: u32,
    number: u64,
    len: usize,
    used: u32,
}

impl Pages {
    /// A tag that no page has.
    pub(super) fn tag(&mut self) -> u32 {
        self.tags = self.tags.wrapping_add(1);
        if self.tags == 0 {
            // After four billion of them: none may be met again.
            self.rows.clear();
            self.tags = 1;
        }
        self.tags
    }

    /// Gives the memory back.
    pub(super) fn clear(&mut self) {
        self.rows = Vec::new();
        self.memory = Vec::new();
    }

    /// Fills `into` with the file's bytes from `offset` on, as far as the file goes; says how many.
    pub(super) fn read(
        &mut self,
        file: &File,
        tag: u32,
        mut offset: u64,
        into: &mut [u8],
    ) -> io::Result<usize> {
        if into.len() > PAGE {
            return read_at(file, into, offset);
        }
        let mut done = 0;
        while let Some(rest) = into.get_mut(done..).filter(|rest| !rest.is_empty()) {
            let page = self.page(file, tag, offset / PAGE as u64)?;
            // Below PAGE, which fits.
            let from = (offset % PAGE as u64) as usize;
            let Some(have) = page.get(from..).filter(|have| !have.is_empty()) else { break };
            let len = have.len().min(rest.len());
            let (Some(to), Some(have)) = (rest.get_mut(..len), have.get(..len)) else { break };
            to.copy_from_slice(have);
            done += len;
            offset += len as u64;
        }
        Ok(done)
    }

    fn page(&mut self, file: &File, tag: u32, number: u64) -> io::Result<&[u8]> {
        self.clock = self.clock.wrapping_add(1);
        let is = |row: &Row| row.tag == tag && row.number == number;
        let at = match self.rows.get(self.last).filter(|row| is(row)) {
            Some(_) => self.last,
            None => match self.rows.iter().position(is) {
                Some(at) => at,
                None => self.load(file, tag, number)?,
            },
        };
        self.last = at;
        let Some(row) = self.rows.get_mut(at) else { return Ok(&[]) };
        row.used = self.clock;
        Ok(self.memory.get(at * PAGE..at * PAGE + row.len).unwrap_or_default())
    }

    fn load(&mut self, file: &File, tag: u32, number: u64) -> io::Result<usize> {
        if self.memory.is_empty() {
            self.memory.resize(PAGES * PAGE, 0);
        }
        let clock = self.clock;
        let fresh = Row { tag: 0, number: 0, len: 0, used: clock };
        let at = if self.rows.len() < PAGES {
            self.rows.push(fresh);
            self.rows.len() - 1
        } else {
            let age = |row: &Row| clock.wrapping_sub(row.used);
            let oldest = self.rows.iter().enumerate().max_by_key(|(_, row)| age(row));
            oldest.map_or(0, |(at, _)| at)
        };
        if let Some(row) = self.rows.get_mut(at) {
            // A failed read leaves no page behind.
            *row = fresh;
        }
        let page = self.memory.get_mut(at * PAGE..(at + 1) * PAGE).unwrap_or_default();
        let len = read_at(file, page, number * PAGE as u64)?;
        if let Some(row) = self.rows.get_mut(at) {
            *row = Row { tag, number, len, used: clock };
        }
        Ok(at)
    }
}

/// pread until there is no more.
pub(super) fn read_at(file: &File, into: &mut [u8], offset: u64) -> io::Result<usize> {
    let mut done = 0;
    while let Some(rest) = into.get_mut(done..).filter(|rest| !rest.is_empty()) {
        let at = offset.saturating_add(done as u64);
        if at.saturating_add(rest.len() as u64) > i64::MAX as u64 {
            // No file goes that far.
            break;
        }
        match file.read_at(rest, at) {
            Ok(0) => break,
            Ok(len) => done += len,
            Err(error) if error.kind() == io::ErrorKind::Interrupted => {}
            Err(error) => return Err(error),
        }
    }
    Ok(done)
}

#[cfg(test)]
mod tests {
    use std::io::Write;

    use super::*;

    #[test]
    fn every_piece_is_the_files_own_and_stale_ones_end_with_their_tag() {
        let mut file = tempfile::tempfile().unwrap();
        let bytes: Vec<u8> = (0..300_000u32).map(|at| (at % 251) as u8).collect();
        file.write_all(&bytes).unwrap();
        let mut pages = Pages::default();
        let tag = pages.tag();
        let mut into = [0; 9_000];
        for (at, len) in (0..2_000usize).map(|n| ((n * 7_919) % 300_100, (n * 31) % 9_000)) {
            let have = pages.read(&file, tag, at as u64, &mut into[..len]).unwrap();
            let want = &bytes[at.min(bytes.len())..(at + len).min(bytes.len())];
            assert_eq!(&into[..have], want, "{at} {len}");
        }
        pages.read(&file, tag, 5, &mut into[..1]).unwrap();
        file.write_all_at(b"x", 5).unwrap();
        pages.read(&file, tag, 5, &mut into[..1]).unwrap();
        assert_eq!(into[0], 5);
        let tag = pages.tag();
        pages.read(&file, tag, 5, &mut into[..1]).unwrap();
        assert_eq!(into[0], b'x');
        assert_eq!(pages.read(&file, tag, u64::MAX, &mut into).unwrap(), 0);
        assert_eq!(pages.read(&file, tag, u64::MAX / 2, &mut into[..1]).unwrap(), 0);
    }
}
