//! `cargo xtask size`: what the static binary of a target is made of: sections, crates, and the whole
//! beside its target. It is the release built once more with its table of symbols, so that what the
//! symbols add is not counted.
//!
//! [`crates`] says to which crate a symbol belongs. Code and data without a symbol, such as most strings
//! and tables, can't be attributed and are told apart.

mod crates;

use std::collections::{BTreeMap, HashMap};
use std::fmt::Write as _;
use std::fs;
use std::process::ExitCode;

use object::{Object as _, ObjectSection as _, ObjectSymbol as _, SectionFlags, SectionIndex, elf};

use crate::context::Context;
use crate::static_build::{Profile, Target, Toolchain};
use crate::{Result, build, dist};

/// How many crates are shown; the others are summed up.
const SHOWN: usize = 25;

/// Builds for these, for this machine if there are none, and reports.
///
/// # Errors
/// Something is missing and could not be got, or the agent could not be built.
pub(crate) fn size(context: &Context, targets: &[Target]) -> Result<ExitCode> {
    let mut targets = targets.to_vec();
    if targets.is_empty() {
        targets.push(Target::host()?);
    }
    let toolchains: Vec<(Target, Toolchain)> = targets
        .into_iter()
        .map(|target| Ok((target, Toolchain::get(context, target)?)))
        .collect::<Result<_>>()?;
    build::bpf_object(context)?;
    for (target, toolchain) in toolchains {
        let built = toolchain.build(context, &["agent"], Profile::Symbols)?.join("mote");
        let bytes = fs::read(&built).map_err(|error| format!("{}: {error}", built.display()))?;
        let sizes = Sizes::of(&bytes).map_err(|error| format!("{}: {error}", built.display()))?;
        println!("{}\n{}", target.triple(), sizes.report());
    }
    Ok(ExitCode::SUCCESS)
}

/// What takes which part of a binary, in bytes.
#[derive(Debug, Default, PartialEq, Eq)]
struct Sizes {
    /// Of the file, but for symbols and what belongs to debugging.
    whole: u64,
    /// In the file's order.
    sections: Vec<(String, u64)>,
    /// Code and data of each crate.
    crates: BTreeMap<String, Part>,
    /// Without a symbol.
    nameless: Part,
    /// Held in memory from the start without a byte in the file.
    zeroed: u64,
}

#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
struct Part {
    code: u64,
    data: u64,
}

impl Part {
    fn add(&mut self, is_code: bool, bytes: u64) {
        if is_code { self.code += bytes } else { self.data += bytes }
    }

    fn sum(self) -> u64 {
        self.code + self.data
    }
}

/// A section that is loaded, and how much of it symbols have named.
struct Loaded {
    end: u64,
    size: u64,
    is_code: bool,
    named: u64,
    /// Behind the last symbol that was counted: symbols that overlap count once.
    counted_to: u64,
}

impl Sizes {
    /// Reads a binary.
    ///
    /// # Errors
    /// It is none, or has no symbols.
    fn of(data: &[u8]) -> Result<Sizes> {
        let file =
            object::File::parse(data).map_err(|error| format!("no sound program: {error}"))?;
        let mut sizes = Sizes { whole: data.len() as u64, ..Sizes::default() };
        let mut loaded: HashMap<SectionIndex, Loaded> = HashMap::new();
        for section in file.sections() {
            let name = section.name().unwrap_or("?").to_owned();
            let bytes = section.file_range().map_or(0, |(_, size)| size);
            let SectionFlags::Elf { sh_flags } = section.flags() else {
                return Err("no ELF file".to_owned());
            };
            let in_memory = sh_flags & u64::from(elf::SHF_ALLOC) != 0;
            if !in_memory && is_for_debugging(&name) {
                sizes.whole = sizes.whole.saturating_sub(bytes);
                continue;
            }
            if bytes == 0 {
                sizes.zeroed += if in_memory { section.size() } else { 0 };
                continue;
            }
            sizes.sections.push((name, bytes));
            if in_memory {
                let known = Loaded {
                    end: section.address().saturating_add(section.size()),
                    size: bytes,
                    is_code: sh_flags & u64::from(elf::SHF_EXECINSTR) != 0,
                    named: 0,
                    counted_to: 0,
                };
                loaded.insert(section.index(), known);
            }
        }
        let mut symbols: Vec<_> = file
            .symbols()
            .filter(|symbol| symbol.is_definition() && symbol.size() > 0)
            .filter_map(|symbol| {
                Some((
                    symbol.address(),
                    symbol.size(),
                    symbol.section_index()?,
                    symbol.name().ok()?,
                ))
            })
            .collect();
        if symbols.is_empty() {
            return Err("it has no symbols".to_owned());
        }
        symbols.sort_unstable_by_key(|&(address, size, ..)| (address, std::cmp::Reverse(size)));
        for (address, size, section, name) in symbols {
            let Some(section) = loaded.get_mut(&section) else { continue };
            let end = address.saturating_add(size).min(section.end);
            let bytes = end.saturating_sub(address.max(section.counted_to));
            if bytes > 0 {
                section.counted_to = end;
                section.named += bytes;
                let owner = crates::owner(name);
                sizes.crates.entry(owner).or_default().add(section.is_code, bytes);
            }
        }
        for section in loaded.values() {
            sizes.nameless.add(section.is_code, section.size.saturating_sub(section.named));
        }
        Ok(sizes)
    }

    fn report(&self) -> String {
        let mut text = format!("  {}\n\n  section bytes\n", dist::size_in_words(self.whole));
        let of_sections: u64 = self.sections.iter().map(|(_, bytes)| bytes).sum();
        for (name, bytes) in &self.sections {
            let _ = writeln!(text, "  {bytes:>9}  {:>5.1} %  {name}", self.percent(*bytes));
        }
        let rest = self.whole.saturating_sub(of_sections);
        let _ = writeln!(text, "  {rest:>9}  {:>5.1} %  headers and gaps", self.percent(rest));
        let _ =
            writeln!(text, "  {:>9}           more in memory, zeros at the start\n", self.zeroed);

        let mut crates: Vec<(&str, Part)> =
            self.crates.iter().map(|(name, part)| (name.as_str(), *part)).collect();
        crates.sort_by_key(|(name, part)| (std::cmp::Reverse(part.sum()), *name));
        text.push_str("       code       data    of all  crate\n");
        let mut line = |part: Part, name: &str| {
            let percent = self.percent(part.sum());
            let _ =
                writeln!(text, "  {:>9}  {:>9}  {percent:>5.1} %  {name}", part.code, part.data);
        };
        for (name, part) in crates.iter().take(SHOWN) {
            line(*part, name);
        }
        let mut others = Part::default();
        for (_, part) in crates.iter().skip(SHOWN) {
            others.code += part.code;
            others.data += part.data;
        }
        if crates.len() > SHOWN {
            line(others, &format!("{} others", crates.len() - SHOWN));
        }
        line(self.nameless, "no symbol: strings, tables, unwinding");
        text
    }

    fn percent(&self, bytes: u64) -> f64 {
        100.0 * bytes as f64 / self.whole.max(1) as f64
    }
}

/// What a release has not.
fn is_for_debugging(section: &str) -> bool {
    matches!(section, ".symtab" | ".strtab") || section.starts_with(".debug_")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_no_program_or_has_no_symbols_is_an_error() {
        for data in [&b""[..], b"no program", b"\x7fELF\x02\x01\x01"] {
            assert!(Sizes::of(data).is_err());
        }
        let stripped = dist::small_binary();
        assert_eq!(Sizes::of(&stripped), Err("it has no symbols".to_owned()));
        for length in 0..stripped.len() {
            assert!(Sizes::of(&stripped[..length]).is_err());
        }
    }

    #[test]
    fn this_very_program_is_made_of_what_its_sections_say() {
        let data = fs::read(std::env::current_exe().unwrap()).unwrap();
        let sizes = Sizes::of(&data).unwrap();
        let of_sections: u64 = sizes.sections.iter().map(|(_, bytes)| bytes).sum();
        assert!(of_sections <= sizes.whole && sizes.whole <= data.len() as u64);
        let of_crates: u64 = sizes.crates.values().map(|part| part.sum()).sum();
        assert!(of_crates + sizes.nameless.sum() <= of_sections, "counted twice");
        for name in ["std", "core", "object"] {
            assert!(sizes.crates.get(name).is_some_and(|part| part.code > 1000), "{name}");
        }
        let report = sizes.report();
        assert!(report.contains("  .text\n") && report.contains(" others\n"), "{report}");
    }
}
