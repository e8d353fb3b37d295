//! What an ELF file says about itself, and what its code says: enough to know where it runs. Nothing is
//! taken for granted of the file. It must not know what is wanted of one ([`super::rules`] does).
//!
//! Sources: the gABI for headers and segments; "Addenda to, and Errata in, the ABI for the Arm
//! Architecture" for `.ARM.attributes`; the Arm Architecture Reference Manual, ARMv7-A, for the encodings.

use object::elf;
use object::read::elf::{Dyn as _, FileHeader, ProgramHeader as _, SectionHeader as _};
use object::{Endianness, FileKind};

use crate::Result;

/// A program.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(super) struct Binary {
    /// 32 or 64.
    pub(super) bits: u32,
    pub(super) little_endian: bool,
    /// `EM_…`.
    pub(super) machine: u16,
    /// `EF_…`, whose meaning is the machine's.
    pub(super) flags: u32,
    /// Whether it is loaded wherever the kernel likes.
    pub(super) position_independent: bool,
    /// The dynamic linker that it asks for.
    pub(super) interpreter: Option<String>,
    /// How many shared libraries it asks for.
    pub(super) needed: usize,
    /// Whether what is written once, at the start, is read-only afterwards.
    pub(super) relro: bool,
    /// Whether relocations write to code.
    pub(super) text_relocations: bool,
    /// Whether a segment is both writable and executable, or the stack is executable.
    pub(super) writable_code: bool,
    /// The largest page that its segments allow.
    pub(super) page: u64,
    /// Whether it has a table of symbols.
    pub(super) symbols: bool,
    /// Names and sizes of what it consists of, in its order; what has no bytes in the file is left out.
    pub(super) sections: Vec<(String, u64)>,
    /// What `.ARM.attributes` says, if there is one.
    pub(super) arm: Option<Attributes>,
    pub(super) code: Code,
}

impl Binary {
    /// Bytes of the code that agent/release.ld puts together.
    pub(super) fn hot(&self) -> u64 {
        self.sections.iter().filter(|(name, _)| name == ".text_hot").map(|(_, bytes)| bytes).sum()
    }
}

/// For what ARM it was built.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(super) struct Attributes {
    /// `Tag_CPU_arch`.
    pub(super) architecture: u64,
    /// `Tag_ABI_VFP_args`: 1 for floats in registers.
    pub(super) float_arguments: u64,
}

/// Instructions of 32-bit ARM, counted as if all code were such.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(super) struct Code {
    /// Words of code.
    pub(super) words: u64,
    /// Those that ARMv6 has not: MOVW, MOVT, UBFX, SBFX, BFI, BFC, and DMB, DSB, ISB.
    pub(super) of_armv7: u64,
}

const TAG_CPU_ARCH: u64 = 6;
const TAG_ABI_VFP_ARGS: u64 = 28;

/// Reads a program.
///
/// # Errors
/// It is none, or its parts contradict each other.
pub(super) fn read(data: &[u8]) -> Result<Binary> {
    let broken = |error: object::read::Error| format!("no sound ELF file: {error}");
    match FileKind::parse(data).map_err(broken)? {
        FileKind::Elf32 => parse::<elf::FileHeader32<Endianness>>(data, 32).map_err(broken),
        FileKind::Elf64 => parse::<elf::FileHeader64<Endianness>>(data, 64).map_err(broken),
        other => Err(format!("no ELF file but {other:?}")),
    }
}

fn parse<Elf: FileHeader<Endian = Endianness>>(
    data: &[u8],
    bits: u32,
) -> object::read::Result<Binary> {
    let header = Elf::parse(data)?;
    let endian = header.endian()?;
    let mut binary = Binary {
        bits,
        little_endian: endian == Endianness::Little,
        machine: header.e_machine(endian),
        flags: header.e_flags(endian),
        position_independent: header.e_type(endian) == elf::ET_DYN,
        // Without PT_GNU_STACK the kernel makes the stack executable.
        writable_code: true,
        page: u64::MAX,
        ..Binary::default()
    };
    let mut writable_code = false;
    for segment in header.program_headers(endian, data)? {
        let flags = segment.p_flags(endian);
        match segment.p_type(endian) {
            elf::PT_LOAD => {
                writable_code |= flags & elf::PF_W != 0 && flags & elf::PF_X != 0;
                binary.page = binary.page.min(segment.p_align(endian).into());
            }
            elf::PT_GNU_STACK => binary.writable_code = flags & elf::PF_X != 0,
            elf::PT_GNU_RELRO => binary.relro = true,
            _ => {}
        }
        if let Some(name) = segment.interpreter(endian, data)? {
            binary.interpreter = Some(String::from_utf8_lossy(name).into_owned());
        }
        for entry in segment.dynamic(endian, data)?.into_iter().flatten() {
            match entry.tag(endian) {
                elf::DT_NULL => break,
                elf::DT_NEEDED => binary.needed += 1,
                elf::DT_TEXTREL => binary.text_relocations = true,
                elf::DT_FLAGS if entry.val(endian) & u64::from(elf::DF_TEXTREL) != 0 => {
                    binary.text_relocations = true;
                }
                _ => {}
            }
        }
    }
    binary.writable_code |= writable_code;

    let sections = header.sections(endian, data)?;
    for section in sections.iter() {
        let kind = section.sh_type(endian);
        let bytes = section.data(endian, data)?;
        binary.symbols |= kind == elf::SHT_SYMTAB;
        if !bytes.is_empty() {
            let name = sections.section_name(endian, section)?;
            let name = String::from_utf8_lossy(name).into_owned();
            binary.sections.push((name, bytes.len() as u64));
        }
        let flags: u64 = section.sh_flags(endian).into();
        if flags & u64::from(elf::SHF_EXECINSTR) != 0 {
            binary.code.count(bytes);
        }
        if binary.machine == elf::EM_ARM && kind == elf::SHT_ARM_ATTRIBUTES {
            binary.arm = Some(attributes(section.attributes(endian, data)?)?);
        }
    }
    Ok(binary)
}

/// The attributes of the whole file, of the vendor `aeabi`.
fn attributes<Elf: FileHeader>(
    section: object::read::elf::AttributesSection<'_, Elf>,
) -> object::read::Result<Attributes> {
    let mut found = Attributes::default();
    for subsection in section.subsections()? {
        let subsection = subsection?;
        if subsection.vendor() != b"aeabi" {
            continue;
        }
        for part in subsection.subsubsections() {
            let part = part?;
            if part.tag() != elf::Tag_File {
                continue;
            }
            let mut reader = part.attributes();
            while let Some(tag) = reader.read_tag()? {
                match tag {
                    TAG_CPU_ARCH => found.architecture = reader.read_integer()?,
                    TAG_ABI_VFP_ARGS => found.float_arguments = reader.read_integer()?,
                    // Tag_CPU_raw_name, Tag_CPU_name.
                    4 | 5 => drop(reader.read_string()?),
                    // Tag_compatibility has both.
                    32 => {
                        reader.read_integer()?;
                        reader.read_string()?;
                    }
                    // From here on odd ones are strings.
                    _ if tag > 32 && tag % 2 == 1 => drop(reader.read_string()?),
                    _ => drop(reader.read_integer()?),
                }
            }
        }
    }
    Ok(found)
}

impl Code {
    fn count(&mut self, bytes: &[u8]) {
        let (words, _) = bytes.as_chunks::<4>();
        for word in words {
            self.words += 1;
            self.of_armv7 += u64::from(of_armv7(u32::from_le_bytes(*word)));
        }
    }
}

/// Whether an A32 instruction is one that came with ARMv6T2 or ARMv7. Only those that are always
/// executed are looked at: data between the code rarely looks like them.
fn of_armv7(word: u32) -> bool {
    // DSB, DMB, ISB.
    if matches!(word & 0xffff_fff0, 0xf57f_f040 | 0xf57f_f050 | 0xf57f_f060) {
        return true;
    }
    // MOVW, MOVT.
    if matches!(word & 0xfff0_0000, 0xe300_0000 | 0xe340_0000) {
        return true;
    }
    // SBFX, BFI and BFC, UBFX.
    matches!(word & 0xffe0_0070, 0xe7a0_0050 | 0xe7c0_0010 | 0xe7e0_0050)
}

#[cfg(test)]
pub(super) mod tests {
    use super::*;

    /// A program of one segment of each kind: 32-bit ARM, with attributes, code, and symbols.
    pub(in crate::dist) fn small() -> Vec<u8> {
        Small::default().build()
    }

    /// What a test wants differently.
    pub(in crate::dist) struct Small {
        pub(in crate::dist) kind: u16,
        pub(in crate::dist) segments: Vec<(u32, u32, u32)>,
        pub(in crate::dist) dynamic: Vec<(u32, u32)>,
        pub(in crate::dist) attributes: Vec<u8>,
        pub(in crate::dist) code: Vec<u32>,
    }

    impl Default for Small {
        fn default() -> Small {
            Small {
                kind: elf::ET_EXEC,
                segments: vec![
                    (elf::PT_LOAD, elf::PF_R | elf::PF_X, 0x10000),
                    (elf::PT_LOAD, elf::PF_R | elf::PF_W, 0x8000),
                    (elf::PT_GNU_STACK, elf::PF_R | elf::PF_W, 0),
                    (elf::PT_GNU_RELRO, elf::PF_R, 1),
                ],
                dynamic: Vec::new(),
                // Tag_CPU_name "arm1176jzf-s", Tag_CPU_arch v6KZ, Tag_ABI_VFP_args in registers.
                attributes: b"\x05arm1176jzf-s\x00\x06\x07\x1c\x01".to_vec(),
                // mov r0, #0; bx lr
                code: vec![0xe3a0_0000, 0xe12f_ff1e],
            }
        }
    }

    impl Small {
        pub(in crate::dist) fn build(&self) -> Vec<u8> {
            let names = b"\0.text\0.ARM.attributes\0.shstrtab\0";
            let code: Vec<u8> = self.code.iter().flat_map(|word| word.to_le_bytes()).collect();
            let mut attributes = vec![b'A'];
            let inner = 5 + self.attributes.len() as u32;
            attributes.extend((inner + 10).to_le_bytes());
            attributes.extend(b"aeabi\0\x01");
            attributes.extend(inner.to_le_bytes());
            attributes.extend(&self.attributes);
            let dynamic: Vec<u8> = self
                .dynamic
                .iter()
                .flat_map(|(tag, value)| [tag.to_le_bytes(), value.to_le_bytes()].concat())
                .collect();

            let segments = self.segments.len() + usize::from(!dynamic.is_empty());
            let mut at = 52 + 32 * segments as u32;
            let mut bodies: Vec<u8> = Vec::new();
            let mut place = |body: &[u8]| {
                let placed = (at, body.len() as u32);
                bodies.extend(body);
                at += placed.1;
                placed
            };
            let dynamic_at = place(&dynamic);
            let sections = [
                (1, 1, 6, place(&code)),
                (7, 0x7000_0003, 0, place(&attributes)),
                (23, 3, 0, place(names)),
            ];

            let mut file = b"\x7fELF\x01\x01\x01\0\0\0\0\0\0\0\0\0".to_vec();
            file.extend(self.kind.to_le_bytes());
            file.extend(40u16.to_le_bytes());
            for word in [1, 0x10000, 52, at, 0x0500_0400u32] {
                file.extend(word.to_le_bytes());
            }
            for half in [52, 32, segments as u16, 40, 4, 3u16] {
                file.extend(half.to_le_bytes());
            }
            let dynamic = (!dynamic.is_empty()).then_some((elf::PT_DYNAMIC, elf::PF_R, 4));
            for (kind, flags, align) in self.segments.iter().copied().chain(dynamic) {
                let (offset, size) = if kind == elf::PT_DYNAMIC { dynamic_at } else { (0, 52) };
                for word in [kind, offset, 0, 0, size, size, flags, align] {
                    file.extend(word.to_le_bytes());
                }
            }
            file.extend(bodies);
            file.extend([0; 40]);
            for (name, kind, flags, (offset, size)) in sections {
                for word in [name, kind, flags, 0, offset, size, 0, 0, 1, 0u32] {
                    file.extend(word.to_le_bytes());
                }
            }
            file
        }
    }

    #[test]
    fn a_program_is_read() {
        let binary = read(&small()).unwrap();
        assert_eq!((binary.bits, binary.machine, binary.flags), (32, elf::EM_ARM, 0x0500_0400));
        assert!(binary.little_endian && binary.relro && !binary.position_independent);
        assert!(!binary.symbols && !binary.writable_code && !binary.text_relocations);
        assert_eq!((binary.interpreter, binary.needed, binary.page), (None, 0, 0x8000));
        assert_eq!(binary.arm, Some(Attributes { architecture: 7, float_arguments: 1 }));
        assert_eq!(binary.code, Code { words: 2, of_armv7: 0 });
        let names: Vec<&str> = binary.sections.iter().map(|(name, _)| name.as_str()).collect();
        assert_eq!(names, [".text", ".ARM.attributes", ".shstrtab"]);
    }

    #[test]
    fn what_a_static_program_should_not_have_is_seen() {
        let changed = |change: &dyn Fn(&mut Small)| {
            let mut small = Small::default();
            change(&mut small);
            read(&small.build()).unwrap()
        };
        let dynamic =
            changed(&|small| small.dynamic = vec![(1, 5), (1, 9), (22, 0), (0, 0), (1, 1)]);
        assert_eq!((dynamic.needed, dynamic.text_relocations), (2, true));
        assert!(changed(&|small| small.dynamic = vec![(30, 4)]).text_relocations);
        assert!(changed(&|small| small.segments.truncate(2)).writable_code);
        assert!(changed(&|small| small.segments[1].1 |= elf::PF_X).writable_code);
        assert!(changed(&|small| small.kind = elf::ET_DYN).position_independent);
        // The segment's first bytes are the file's own, which end at a zero.
        let asks = changed(&|small| small.segments.push((elf::PT_INTERP, elf::PF_R, 1)));
        assert!(asks.interpreter.unwrap().contains("ELF"));
        let newer = changed(&|small| small.code.extend([0xe301_0000, 0xe340_0000, 0xf57f_f05b]));
        assert_eq!(newer.code, Code { words: 5, of_armv7: 3 });
    }

    #[test]
    fn instructions_that_armv6_has_are_not_taken_for_newer_ones() {
        // ubfx r0, r0, #0, #8; bfi r0, r1, #0, #4; bfc r0, #4, #4; sbfx r0, r0, #0, #8; dsb sy; isb sy
        for word in [0xe7e7_0050, 0xe7c3_0011, 0xe7c7_021f, 0xe7a7_0050, 0xf57f_f04f, 0xf57f_f06f] {
            assert!(of_armv7(word), "{word:#x}");
        }
        // tst r0, #0; cmp r0, #0; mcr p15, 0, r0, c7, c10, 5 (a barrier); uxtb r0, r0; rev r0, r0;
        // usad8 r0, r0, r0; clrex; a float; movweq
        for word in [
            0xe310_0000,
            0xe350_0000,
            0xee07_0fba,
            0xe6ef_0070,
            0xe6bf_0f30,
            0xe780_f010,
            0xf57f_f01f,
            0x3f80_0000,
            0x0300_0000,
        ] {
            assert!(!of_armv7(word), "{word:#x}");
        }
    }

    #[test]
    fn a_cut_or_altered_file_is_an_error_or_another_program_and_never_a_panic() {
        let whole = Small { dynamic: vec![(1, 5), (0, 0)], ..Small::default() }.build();
        for length in 0..whole.len() {
            assert!(read(&whole[..length]).is_err(), "{length} bytes");
        }
        for at in 0..whole.len() {
            for byte in [0, 1, 0x7f, 0xff] {
                let mut altered = whole.clone();
                altered[at] = byte;
                let _ = read(&altered);
            }
        }
        for attributes in [&b"\x06"[..], b"\x06\x80", b"\x05no end", b"\x20\x01x", b"\xff\xff\xff"]
        {
            let small = Small { attributes: attributes.to_vec(), ..Small::default() };
            assert!(read(&small.build()).is_err(), "{attributes:?}");
        }
        for other in [&b"#!/bin/sh\n"[..], b"", b"\x7fELF", b"MZ"] {
            assert!(read(other).is_err(), "{other:?}");
        }
    }
}
