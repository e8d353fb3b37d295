//! What is changed in the object before it is loaded: fields' offsets are put into the programs' load
//! instructions (see `agent_common::direct`), and maps that nobody uses are made small. Knows the ELF
//! object and the form of an instruction and of a map, not what they mean.

use std::ops::Range;

use agent_common::direct;
use object::{Object as _, ObjectSection as _, ObjectSymbol as _, SectionKind};

use super::format::Field;

/// Bytes of an instruction (Documentation/bpf/standardization/instruction-set.rst): the opcode, two
/// registers, an offset of 2 bytes, an immediate of 4.
const INSTRUCTION: usize = 8;

/// `BPF_LDX | BPF_MEM` of 4, 2, 1 and 8 bytes.
const LOADS: [(u8, u32); 4] = [(0x61, 4), (0x69, 2), (0x71, 1), (0x79, 8)];

/// `BPF_ALU64 | BPF_MOV | BPF_K`.
const MOVE: u8 = 0xb7;

/// The section of the maps' definitions (`bpf_map_def` of aya-ebpf), and a definition's first fields:
/// type, size of a key, size of a value, entries, flags; each of 4 bytes.
const MAPS: &str = "maps";
const DEFINITION: usize = 5 * 4;
/// `BPF_MAP_TYPE_ARRAY` with a key and a value of 4 bytes and one entry, which every kernel has.
const SMALLEST: [u32; 5] = [2, 4, 4, 1, 0];

/// Why an object can't be changed.
#[derive(Debug, PartialEq, Eq)]
pub(super) struct PatchError {
    /// The number of the field that is to blame, if it is a field.
    pub(super) number: Option<i16>,
    /// A sentence.
    pub(super) reason: String,
}

fn parse(object: &[u8]) -> Result<object::File<'_>, String> {
    object::File::parse(object).map_err(|error| format!("the BPF object: {error}"))
}

/// Where an object has its instructions.
fn text(object: &[u8]) -> Result<Vec<Range<usize>>, String> {
    let file = parse(object)?;
    let ranges = file.sections().filter(|section| section.kind() == SectionKind::Text);
    let ranges = ranges.filter_map(|section| section.file_range());
    let range = |(start, len): (u64, u64)| {
        Some(usize::try_from(start).ok()?..usize::try_from(start.checked_add(len)?).ok()?)
    };
    Ok(ranges.filter_map(range).collect())
}

/// Replaces the numbers of fields by their offsets in every load. A field that is not among them is read
/// as 0: its program is not going to be loaded.
///
/// # Errors
/// The object can't be read, or a load does not fit the field that this kernel has.
pub(super) fn patch(object: &mut [u8], fields: &[(i16, &Field)]) -> Result<(), PatchError> {
    for range in text(object).map_err(|reason| PatchError { number: None, reason })? {
        let Some(text) = object.get_mut(range) else { continue };
        for instruction in text.chunks_exact_mut(INSTRUCTION) {
            let [opcode, registers, low, high, immediate @ ..] = instruction else { continue };
            let offset = i16::from_le_bytes([*low, *high]);
            let Some((_, size)) = LOADS.iter().find(|(load, _)| *load == *opcode) else { continue };
            let Some((number, into)) = direct::parse(offset) else { continue };
            let Some((_, field)) = fields.iter().find(|(have, _)| *have == number) else {
                *opcode = MOVE;
                // The destination stays, in the lower half; there is no source.
                *registers &= 0x0f;
                (*low, *high) = (0, 0);
                immediate.fill(0);
                continue;
            };
            let at = field.offset.saturating_add(u32::from(into));
            // The kernel refuses loads that are not aligned (tp_prog_is_valid_access).
            let fits = u32::from(into) + size <= field.size && at.is_multiple_of(*size);
            let place = i16::try_from(at).ok().filter(|place| fits && *place < direct::FIRST);
            let Some(place) = place else {
                let (name, have) = (&field.name, field.size);
                let reason = format!(
                    "the field {name:?} of {have} bytes at {} can't be read at {at} as {size} bytes",
                    field.offset
                );
                return Err(PatchError { number: Some(number), reason });
            };
            [*low, *high] = place.to_le_bytes();
        }
    }
    Ok(())
}

/// Makes every map that is not used the smallest that there is. Programs that use it can't be loaded any
/// more.
///
/// # Errors
/// The object can't be read.
pub(super) fn drop_maps(
    object: &mut [u8],
    mut is_used: impl FnMut(&str) -> bool,
) -> Result<(), String> {
    let mut unused = Vec::new();
    {
        let file = parse(object)?;
        let Some(section) = file.section_by_name(MAPS) else { return Ok(()) };
        let start = section.file_range().map_or(0, |(start, _)| start);
        let of_section = |s: &object::Symbol<'_, '_>| s.section_index() == Some(section.index());
        for symbol in file.symbols().filter(of_section) {
            // A section has a symbol of its own, without a size.
            let Some(name) = symbol.name().ok().filter(|_| symbol.size() > 0) else { continue };
            if !is_used(name) {
                unused.extend(usize::try_from(start.saturating_add(symbol.address())));
            }
        }
    }
    for at in unused {
        let definition = object.get_mut(at..).and_then(|rest| rest.get_mut(..DEFINITION));
        let (fields, _) = definition.unwrap_or_default().as_chunks_mut::<4>();
        for (field, value) in fields.iter_mut().zip(SMALLEST) {
            *field = value.to_le_bytes();
        }
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::super::{Transport, object};
    use super::*;

    fn field(offset: u32, size: u32) -> Field {
        let name = "f".to_owned();
        Field { name, offset, size, signed: false, array: false, located: false, relative: false }
    }

    /// Every load whose offset is a field's number.
    fn numbers(object: &[u8]) -> Vec<i16> {
        let ranges = text(object).unwrap();
        let instructions = ranges.iter().flat_map(|range| object[range.clone()].chunks_exact(8));
        let loads = instructions.filter(|i| LOADS.iter().any(|(load, _)| *load == i[0]));
        let offsets = loads.map(|i| i16::from_le_bytes([i[2], i[3]]));
        offsets.filter(|offset| direct::parse(*offset).is_some()).collect()
    }

    #[test]
    fn every_number_is_replaced_by_what_the_kernel_has_or_by_nothing() {
        let Some(object) = object::object(Transport::Ring) else { return };
        // The four fields of two programs, one of which is read byte by byte.
        assert_eq!(numbers(object).len(), 2 * (3 + 3));
        let (dev, sector, sectors, rwbs) = (field(8, 4), field(16, 8), field(24, 4), field(34, 10));
        let fields = [
            (direct::ISSUE_DEV, &dev),
            (direct::ISSUE_SECTOR, &sector),
            (direct::ISSUE_NR_SECTOR, &sectors),
            (direct::ISSUE_RWBS, &rwbs),
        ];
        let mut patched = object.to_vec();
        patch(&mut patched, &fields).unwrap();
        assert!(numbers(&patched).is_empty());
        let changed = object.iter().zip(&patched).filter(|(a, b)| a != b).count();
        assert!(changed > 0 && object.len() == patched.len());
    }

    #[test]
    fn a_field_that_a_load_does_not_fit_is_refused() {
        let Some(object) = object::object(Transport::Ring) else { return };
        // Unaligned, too small, too far behind, at the end of all numbers.
        for wrong in [field(9, 4), field(8, 2), field(0x4000, 4), field(u32::MAX - 8, 4)] {
            let error = patch(&mut object.to_vec(), &[(direct::ISSUE_DEV, &wrong)]).unwrap_err();
            assert!(error.reason.contains("can't be read"), "{error:?}");
            assert_eq!(error.number, Some(direct::ISSUE_DEV));
        }
    }

    #[test]
    fn a_map_that_is_not_used_is_small_and_the_others_are_as_they_were() {
        let Some(object) = object::object(Transport::Ring) else { return };
        let mut patched = object.to_vec();
        drop_maps(&mut patched, |name| name != "TCP_PEERS").unwrap();
        let file = parse(object).unwrap();
        let symbol = file.symbols().find(|symbol| symbol.name() == Ok("TCP_PEERS")).unwrap();
        let section = file.section_by_name(MAPS).unwrap();
        let at = (section.file_range().unwrap().0 + symbol.address()) as usize;
        let words = |object: &[u8]| -> Vec<u32> {
            let (words, _) = object[at..at + DEFINITION].as_chunks::<4>();
            words.iter().map(|word| u32::from_le_bytes(*word)).collect()
        };
        // BPF_MAP_TYPE_LRU_HASH with a TcpPeer and a TcpRetransmits.
        assert_eq!(words(object), [9, 24, 16, 256, 0]);
        assert_eq!(words(&patched), SMALLEST);
        patched[at..at + DEFINITION].copy_from_slice(&object[at..at + DEFINITION]);
        assert_eq!(patched, object);
    }

    #[test]
    fn what_is_no_object_is_an_error() {
        assert!(drop_maps(&mut [], |_| false).is_err());
        assert!(patch(&mut [], &[]).is_err());
        assert!(patch(&mut b"\x7fELF\x02\x01\x01garbage".to_vec(), &[]).is_err());
    }
}
