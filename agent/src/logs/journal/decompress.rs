//! The beginning of a compressed payload, as many bytes as wanted: the rest is not made. What is
//! compressed comes in pieces of at most 16 KiB.
//!
//! - zstd: a frame, by the zstd library. Its window is at most 8 MiB (systemd's are at most 2 MiB), and
//!   held only while a payload is longer than what is wanted.
//! - LZ4: the length in 8 bytes, then a block. lz4_flex decodes whole blocks only, and a core dump is
//!   one; hence the few lines here.
//! - XZ: a stream of one block with the one filter LZMA2, by lzma-rust2; the container, which is a few
//!   fields, is read here, since its reader of it has no bound. The dictionary is no larger than what is
//!   wanted.
//!
//! It must not know where the bytes come from.

use std::io::{self, Read};

use lzma_rust2::Lzma2Reader;
use zstd::stream::raw::{DParameter, Decoder, InBuffer, Operation, OutBuffer};

use super::format::Codec;

/// What does not hold what it should, or could not be read.
#[derive(Debug)]
pub(super) enum Failure {
    Io(io::Error),
    Damaged,
}

impl From<io::Error> for Failure {
    fn from(error: io::Error) -> Failure {
        Failure::Io(error)
    }
}

/// Owns what decoding needs.
#[derive(Default)]
pub(super) struct Decompressor {
    zstd: Option<Decoder<'static>>,
    input: Vec<u8>,
}

impl std::fmt::Debug for Decompressor {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Decompressor").finish_non_exhaustive()
    }
}

const PIECE: usize = 16 << 10;
const WINDOW_LOG_MAX: u32 = 23;
/// Above it the library would keep a large window for what may never come again.
const KEPT: usize = 128 << 10;

impl Decompressor {
    /// Puts the first `want` bytes into `out`, which it empties before; says whether that is all.
    pub(super) fn prefix(
        &mut self,
        codec: Codec,
        from: &mut dyn Read,
        want: usize,
        out: &mut Vec<u8>,
    ) -> Result<bool, Failure> {
        out.clear();
        match codec {
            Codec::Plain => Err(Failure::Damaged),
            Codec::Zstd => self.zstd(from, want, out),
            Codec::Lz4 => {
                let mut input = Buffered::new(from, &mut self.input);
                lz4(&mut input, want, out)
            }
            Codec::Xz => xz(&mut Buffered::new(from, &mut self.input), want, out),
        }
    }

    /// Gives the memory back.
    pub(super) fn clear(&mut self) {
        *self = Decompressor::default();
    }

    fn zstd(
        &mut self,
        from: &mut dyn Read,
        want: usize,
        out: &mut Vec<u8>,
    ) -> Result<bool, Failure> {
        let mut decoder = match self.zstd.take() {
            Some(decoder) => decoder,
            None => {
                let mut decoder = Decoder::new()?;
                decoder.set_parameter(DParameter::WindowLogMax(WINDOW_LOG_MAX))?;
                decoder
            }
        };
        decoder.reinit()?;
        self.input.resize(PIECE, 0);
        // One byte more tells whether there is more.
        let limit = want.saturating_add(1);
        let all = loop {
            let len = fill(from, &mut self.input)?;
            if len == 0 {
                return Err(Failure::Damaged);
            }
            let mut input = InBuffer::around(self.input.get(..len).unwrap_or_default());
            let mut ended = false;
            while !ended {
                let room = (limit - out.len()).min(out.len().max(PIECE));
                if room == 0 {
                    break;
                }
                let at = out.len();
                out.resize(at + room, 0);
                let before = input.pos();
                let mut output = OutBuffer::around_pos(out.as_mut_slice(), at);
                let hint = decoder.run(&mut input, &mut output);
                let made = output.pos();
                out.truncate(made);
                match hint {
                    Ok(hint) => ended = hint == 0,
                    Err(_) => return Err(Failure::Damaged),
                }
                if made == at && input.pos() == before {
                    break;
                }
                if made < at + room && input.pos() == len {
                    break;
                }
            }
            if ended || out.len() == limit {
                break out.len() <= want;
            }
            if input.pos() < len {
                // Nothing moves any more.
                return Err(Failure::Damaged);
            }
        };
        if out.len() <= KEPT {
            self.zstd = Some(decoder);
        }
        out.truncate(want);
        Ok(all)
    }
}

/// Reads until the piece is full or there is no more.
fn fill(from: &mut dyn Read, piece: &mut [u8]) -> io::Result<usize> {
    let mut done = 0;
    while let Some(rest) = piece.get_mut(done..).filter(|rest| !rest.is_empty()) {
        match from.read(rest)? {
            0 => break,
            len => done += len,
        }
    }
    Ok(done)
}

/// Bytes one after the other, read in pieces.
struct Buffered<'a> {
    from: &'a mut dyn Read,
    piece: &'a mut Vec<u8>,
    at: usize,
    len: usize,
}

impl<'a> Buffered<'a> {
    fn new(from: &'a mut dyn Read, piece: &'a mut Vec<u8>) -> Buffered<'a> {
        piece.resize(PIECE, 0);
        Buffered { from, piece, at: 0, len: 0 }
    }

    /// What is there, empty at the end.
    fn have(&mut self) -> io::Result<&[u8]> {
        if self.at == self.len {
            self.len = fill(self.from, self.piece)?;
            self.at = 0;
        }
        Ok(self.piece.get(self.at..self.len).unwrap_or_default())
    }

    fn byte(&mut self) -> Result<Option<u8>, Failure> {
        let byte = self.have()?.first().copied();
        self.at += usize::from(byte.is_some());
        Ok(byte)
    }

    fn must(&mut self) -> Result<u8, Failure> {
        self.byte()?.ok_or(Failure::Damaged)
    }

    fn array<const N: usize>(&mut self) -> Result<[u8; N], Failure> {
        let mut bytes = [0; N];
        for byte in &mut bytes {
            *byte = self.must()?;
        }
        Ok(bytes)
    }
}

impl Read for Buffered<'_> {
    fn read(&mut self, into: &mut [u8]) -> io::Result<usize> {
        let have = self.have()?;
        let len = have.len().min(into.len());
        if let (Some(to), Some(have)) = (into.get_mut(..len), have.get(..len)) {
            to.copy_from_slice(have);
        }
        self.at += len;
        Ok(len)
    }
}

/// Sequences of literals and a match each; the last has literals only.
fn lz4(input: &mut Buffered<'_>, want: usize, out: &mut Vec<u8>) -> Result<bool, Failure> {
    let size = u64::from_le_bytes(input.array()?);
    let all = size <= want as u64;
    let want = if all { size as usize } else { want };
    while out.len() < want {
        let token = input.must()?;
        let mut literals = length(input, token >> 4)?.min(want - out.len());
        while literals > 0 {
            let have = input.have()?;
            let have = have.get(..literals.min(have.len())).unwrap_or_default();
            if have.is_empty() {
                return Err(Failure::Damaged);
            }
            let len = have.len();
            out.extend_from_slice(have);
            input.at += len;
            literals -= len;
        }
        if out.len() >= want {
            break;
        }
        let distance = usize::from(u16::from_le_bytes(input.array()?));
        let mut rest = length(input, token & 15)?.saturating_add(4).min(want - out.len());
        let Some(start) = out.len().checked_sub(distance).filter(|_| distance > 0) else {
            return Err(Failure::Damaged);
        };
        // It may overlap what it makes: what is there already is copied as often as needed.
        while rest > 0 {
            let len = rest.min(out.len() - start);
            out.extend_from_within(start..start + len);
            rest -= len;
        }
    }
    Ok(all)
}

/// journald's largest data has 768 MiB.
const MAX_LENGTH: usize = 1 << 30;

/// A length of which the token has four bits.
fn length(input: &mut Buffered<'_>, token: u8) -> Result<usize, Failure> {
    let mut length = usize::from(token);
    if token == 15 {
        loop {
            let byte = input.must()?;
            length += usize::from(byte);
            if byte != 255 {
                break;
            }
            if length > MAX_LENGTH {
                return Err(Failure::Damaged);
            }
        }
    }
    Ok(length)
}

const LZMA2: u8 = 0x21;
const DICTIONARY_MIN: u32 = 4_096;

/// A stream header of 12 bytes, the header of the first block, its LZMA2 data. Checks are not looked
/// at: systemd writes none.
fn xz(input: &mut Buffered<'_>, want: usize, out: &mut Vec<u8>) -> Result<bool, Failure> {
    let head: [u8; 12] = input.array()?;
    if !head.starts_with(b"\xfd7zXZ\0") {
        return Err(Failure::Damaged);
    }
    let size = usize::from(input.must()?);
    if size == 0 {
        return Err(Failure::Damaged);
    }
    let mut block = [0; 4 * 256];
    let block = block.get_mut(1..(size + 1) * 4).unwrap_or_default();
    input.read_exact(block).map_err(|_| Failure::Damaged)?;
    let mut block = &*block;
    let flags = byte(&mut block)?;
    // More than one filter, or reserved bits.
    if flags & 0x3f != 0 {
        return Err(Failure::Damaged);
    }
    for size in [0x40, 0x80] {
        if flags & size != 0 {
            while byte(&mut block)? & 0x80 != 0 {}
        }
    }
    if byte(&mut block)? != LZMA2 || byte(&mut block)? != 1 {
        return Err(Failure::Damaged);
    }
    let dictionary = match byte(&mut block)? {
        bits @ 0..40 => (2 | u32::from(bits & 1)) << (bits / 2 + 11),
        40 => u32::MAX,
        _ => return Err(Failure::Damaged),
    };
    // No match reaches back beyond what has been made.
    let limit = want.saturating_add(1);
    let room = u32::try_from(limit).unwrap_or(u32::MAX).max(DICTIONARY_MIN);
    let mut reader = Lzma2Reader::new(input, dictionary.min(room), None);
    let mut made = 0;
    loop {
        out.resize(made + (limit - made).min(made.max(PIECE)), 0);
        let Some(rest) = out.get_mut(made..).filter(|rest| !rest.is_empty()) else { break };
        match reader.read(rest) {
            Ok(0) => break,
            Ok(len) => made += len,
            Err(error) if error.kind() == io::ErrorKind::Interrupted => {}
            Err(_) => return Err(Failure::Damaged),
        }
    }
    out.truncate(made.min(want));
    Ok(made <= want)
}

fn byte(bytes: &mut &[u8]) -> Result<u8, Failure> {
    let (&first, rest) = bytes.split_first().ok_or(Failure::Damaged)?;
    *bytes = rest;
    Ok(first)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn prefix(codec: Codec, packed: &[u8], want: usize) -> Option<(Vec<u8>, bool)> {
        let mut out = Vec::new();
        let all = Decompressor::default().prefix(codec, &mut &*packed, want, &mut out).ok()?;
        Some((out, all))
    }

    fn lz4_of(bytes: &[u8]) -> Vec<u8> {
        let mut packed = (bytes.len() as u64).to_le_bytes().to_vec();
        packed.extend(lz4_flex::block::compress(bytes));
        packed
    }

    fn texts() -> Vec<Vec<u8>> {
        let mut number = 1u32;
        let mut noise = || {
            number = number.wrapping_mul(1_664_525).wrapping_add(1_013_904_223);
            (number >> 24) as u8
        };
        let noisy: Vec<u8> = (0..70_000).map(|_| noise()).collect();
        let words: Vec<u8> =
            (0..300_000).map(|at: usize| b"disk gone "[at * at / 7 % 10]).collect();
        vec![b"a".to_vec(), vec![b'x'; 100_000], noisy, words]
    }

    #[test]
    fn any_prefix_is_the_texts_own() {
        for text in texts() {
            let zstd = zstd::bulk::compress(&text, 3).unwrap();
            for (codec, packed) in [(Codec::Zstd, zstd), (Codec::Lz4, lz4_of(&text))] {
                for want in [0, 1, 5, 100, 16_384, 65_537, text.len() - 1, text.len(), 1 << 20] {
                    let (out, all) = prefix(codec, &packed, want).unwrap();
                    assert_eq!(out, text[..want.min(text.len())], "{codec:?} {want}");
                    assert_eq!(all, want >= text.len(), "{codec:?} {want}");
                }
            }
        }
    }

    #[test]
    fn what_is_cut_or_damaged_ends_and_stays_in_its_bound() {
        let text: Vec<u8> = (0..3_000).map(|at: usize| b"disk gone "[at * at / 7 % 10]).collect();
        let packed = [
            (Codec::Zstd, zstd::bulk::compress(&text, 3).unwrap()),
            (Codec::Lz4, lz4_of(&text)),
            (Codec::Xz, include_bytes!("../../../tests/fixtures/journal.xz").to_vec()),
        ];
        for (codec, packed) in packed {
            for len in 0..packed.len() {
                if let Some((_, all)) = prefix(codec, &packed[..len], usize::MAX >> 1) {
                    // XZ's index and footer are not read.
                    assert!(codec == Codec::Xz && all, "{codec:?} {len}");
                }
            }
            for at in 0..packed.len() {
                let mut bad = packed.clone();
                bad[at] ^= 0x55;
                if let Some((out, _)) = prefix(codec, &bad, 2_000) {
                    assert!(out.len() <= 2_000);
                }
            }
        }
    }

    #[test]
    fn an_xz_stream_gives_any_prefix() {
        let packed = include_bytes!("../../../tests/fixtures/journal.xz");
        let (text, all) = prefix(Codec::Xz, packed, 1 << 20).unwrap();
        assert!(all && text.len() == 20_000 && text.starts_with(b"MESSAGE=1 2 3 "));
        for want in [0, 1, 9, 5_000, 19_999, 20_000] {
            let (out, all) = prefix(Codec::Xz, packed, want).unwrap();
            assert_eq!((&out[..], all), (&text[..want], want == 20_000));
        }
    }
}
