//! Whether the built object keeps the rule of agent-ebpf/src/main.rs that no program calls a function of
//! its own. It knows the form of an instruction and nothing of the programs.

use object::{Object as _, ObjectSection as _, ObjectSymbol as _, SectionIndex, SectionKind};

/// Bytes of an instruction (Documentation/bpf/standardization/instruction-set.rst): the opcode, the
/// source register in the upper half of the second byte, an offset, an immediate. Of an instruction of
/// twice the size the second half has the opcode 0.
const INSTRUCTION: usize = 8;
/// `BPF_JMP | BPF_CALL`, and `BPF_PSEUDO_CALL` as its source register; a helper's is 0.
const CALL: u8 = 0x85;
const PSEUDO_CALL: u8 = 1;

/// Refuses an object in which a function calls another, whether it lies in the same section or not.
///
/// # Errors
/// The bytes are no object, or where the calls are.
pub(super) fn refuse(object: &[u8]) -> Result<(), String> {
    let file = object::File::parse(object).map_err(|e| format!("reading the BPF object: {e}"))?;
    let mut found = Vec::new();
    for section in file.sections().filter(|section| section.kind() == SectionKind::Text) {
        let data = section.data().map_err(|e| format!("reading the BPF object: {e}"))?;
        for at in calls(data) {
            found.push(format!("{} at {at:#x}", function(&file, section.index(), at)));
        }
    }
    if found.is_empty() {
        return Ok(());
    }
    Err(format!(
        "the programs must not call functions of their own, which 32-bit JITs refuse, and these do: {}; \
         write what they call so that it is inlined (`llvm-objdump -dr` shows what it is)",
        found.join(", ")
    ))
}

/// Where the instructions call a function of the object, in bytes from their start.
fn calls(instructions: &[u8]) -> impl Iterator<Item = usize> {
    let (instructions, _) = instructions.as_chunks::<INSTRUCTION>();
    let is_call = |[opcode, registers, ..]: &[u8; INSTRUCTION]| {
        *opcode == CALL && registers >> 4 == PSEUDO_CALL
    };
    let places = (0..).step_by(INSTRUCTION).zip(instructions);
    places.filter(move |(_, instruction)| is_call(instruction)).map(|(at, _)| at)
}

/// The last function that begins at or before this place.
fn function<'f>(file: &object::File<'f>, section: SectionIndex, at: usize) -> &'f str {
    let before = |symbol: &object::Symbol<'f, '_>| {
        let name = symbol.name().unwrap_or_default();
        symbol.section_index() == Some(section)
            && symbol.address() <= at as u64
            // llc's labels of jumps.
            && !name.is_empty()
            && !name.starts_with("LBB")
    };
    let last = file.symbols().filter(before).max_by_key(|symbol| symbol.address());
    last.and_then(|symbol| symbol.name().ok()).unwrap_or("a function without a name")
}

#[cfg(test)]
mod tests {
    use super::*;

    const HELPER: [u8; 8] = [0x85, 0x00, 0, 0, 5, 0, 0, 0];
    const LOCAL: [u8; 8] = [0x85, 0x10, 0, 0, 0xff, 0xff, 0xff, 0xff];
    const EXIT: [u8; 8] = [0x95, 0, 0, 0, 0, 0, 0, 0];

    /// An ELF object with a section of these instructions and one symbol at its start.
    fn object(instructions: &[u8]) -> Vec<u8> {
        let strings = b"\0prog\0tp\0.symtab\0.strtab\0";
        let code_at = 64;
        let symbols_at = code_at + instructions.len();
        let strings_at = symbols_at + 2 * 24;
        let sections_at = (strings_at + strings.len()).next_multiple_of(8);
        let mut bytes = b"\x7fELF\x02\x01\x01".to_vec();
        bytes.resize(16, 0);
        // e_type (ET_REL), e_machine (EM_BPF), e_version, e_entry, e_phoff.
        bytes.extend([1, 0, 247, 0, 1, 0, 0, 0]);
        bytes.extend([0; 16]);
        bytes.extend((sections_at as u64).to_le_bytes());
        // e_flags, e_ehsize, e_phentsize, e_phnum, e_shentsize, e_shnum, e_shstrndx.
        bytes.extend([0, 0, 0, 0, 64, 0, 0, 0, 0, 0, 64, 0, 4, 0, 3, 0]);
        bytes.extend(instructions);
        bytes.extend([0; 24]);
        // st_name, st_info (a global function), st_other, st_shndx, st_value, st_size.
        bytes.extend([1, 0, 0, 0, 0x12, 0, 1, 0]);
        bytes.extend([0; 16]);
        bytes.extend(strings);
        bytes.resize(sections_at, 0);
        let mut section = |name: u32, kind: u32, flags: u64, at: usize, size: usize, link: u32| {
            bytes.extend(name.to_le_bytes());
            bytes.extend(kind.to_le_bytes());
            bytes.extend(flags.to_le_bytes());
            bytes.extend([0; 8]);
            bytes.extend((at as u64).to_le_bytes());
            bytes.extend((size as u64).to_le_bytes());
            bytes.extend(link.to_le_bytes());
            bytes.extend(1u32.to_le_bytes());
            bytes.extend(8u64.to_le_bytes());
            bytes.extend(if kind == 2 { 24u64 } else { 0 }.to_le_bytes());
        };
        section(0, 0, 0, 0, 0, 0);
        // SHT_PROGBITS with SHF_ALLOC and SHF_EXECINSTR, SHT_SYMTAB, SHT_STRTAB.
        section(6, 1, 6, code_at, instructions.len(), 0);
        section(9, 2, 0, symbols_at, 48, 3);
        section(17, 3, 0, strings_at, strings.len(), 0);
        bytes
    }

    #[test]
    fn a_call_of_an_own_function_is_refused_and_named() {
        let error = refuse(&object(&[HELPER, LOCAL, EXIT].concat())).unwrap_err();
        assert!(error.contains("these do: prog at 0x8;"), "{error}");
    }

    #[test]
    fn a_call_of_a_helper_is_none() {
        refuse(&object(&[HELPER, EXIT].concat())).unwrap();
    }

    #[test]
    fn what_looks_like_a_call_within_a_constant_is_none() {
        // A load of 64 bits whose halves hold the call's bytes.
        let load = [0x18, 1, 0, 0, 0x85, 0x10, 0, 0, 0, 0, 0, 0, 0x85, 0x10, 0, 0];
        refuse(&object(&[load.as_slice(), &EXIT].concat())).unwrap();
    }

    #[test]
    fn what_is_no_object_is_an_error() {
        assert!(refuse(b"").is_err());
        assert!(refuse(b"\x7fELF\x02\x01\x01garbage").is_err());
    }
}
