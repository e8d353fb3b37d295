//! What a binary must be to run on its machine, and a line that says what it is.

use object::elf;

use super::elf::Binary;
use crate::static_build::Target;

/// `Tag_CPU_arch` of the ARM11 of the first Pi and the Zero, and of what runs there: ARMv6, v6KZ, v6K.
const ARMV6: [u64; 3] = [6, 7, 9];
const ARMV7: u64 = 10;

/// How many of a million words of an ARMv6 binary may look like later instructions. Data between code
/// may, and libraries bring code for later processors that they ask for at run time; code that was
/// compiled for ARMv7 has twenty thousand and more.
const STRAY: u64 = 2000;

/// The pages of the Pi 5's own kernel. What a binary allows beyond that is told, and none of the rules:
/// some servers have 64 KiB, and some NAS with ARMv7 32 KiB.
const PAGE_AARCH64: u64 = 16 << 10;
const PAGE: u64 = 4 << 10;

/// Why it does not do for the target; empty if it does.
pub(super) fn problems(target: Target, binary: &Binary) -> Vec<String> {
    let mut found = Vec::new();
    let mut wrong = |is_wrong: bool, what: String| {
        if is_wrong {
            found.push(what);
        }
    };
    let (bits, machine) = match target {
        Target::X86_64 => (64, elf::EM_X86_64),
        Target::Aarch64 => (64, elf::EM_AARCH64),
        Target::Armv7 | Target::Armv6 => (32, elf::EM_ARM),
    };
    wrong(
        (binary.bits, binary.machine) != (bits, machine) || !binary.little_endian,
        format!(
            "it is for machine {} with {} bits, {}-endian, and not for {}",
            binary.machine,
            binary.bits,
            if binary.little_endian { "little" } else { "big" },
            target.triple()
        ),
    );
    if let Some(interpreter) = &binary.interpreter {
        wrong(true, format!("it is not static: it asks for {interpreter}"));
    }
    wrong(binary.needed > 0, format!("it asks for {} shared libraries", binary.needed));
    wrong(binary.text_relocations, "its code is relocated when it is loaded".to_owned());
    wrong(binary.writable_code, "it has memory that is writable and executable".to_owned());
    wrong(!binary.relro, "it has no RELRO".to_owned());
    wrong(binary.symbols, "it has its table of symbols still".to_owned());
    let page = if target == Target::Aarch64 { PAGE_AARCH64 } else { PAGE };
    wrong(
        binary.page < page,
        format!("kernels with pages of {page} bytes can't load it, only up to {}", binary.page),
    );
    if machine == elf::EM_ARM {
        found.extend(arm(target, binary));
    }
    found
}

fn arm(target: Target, binary: &Binary) -> Vec<String> {
    let mut found = Vec::new();
    let hard = elf::EF_ARM_EABI_VER5 | elf::EF_ARM_ABI_FLOAT_HARD;
    if binary.flags & (elf::EF_ARM_EABIMASK | elf::EF_ARM_ABI_FLOAT_HARD) != hard {
        found.push(format!("its ABI is not EABI 5 with hard floats: flags {:#x}", binary.flags));
    }
    let Some(attributes) = binary.arm else {
        found.push("it does not say for what ARM it is: it has no .ARM.attributes".to_owned());
        return found;
    };
    if attributes.float_arguments != 1 {
        found.push("it does not pass floats in registers".to_owned());
    }
    let architecture = attributes.architecture;
    match target {
        Target::Armv6 if !ARMV6.contains(&architecture) => {
            found.push(format!("it is for {} and not for ARMv6", architecture_name(architecture)));
        }
        Target::Armv7 if architecture != ARMV7 => {
            found.push(format!("it is for {} and not for ARMv7", architecture_name(architecture)));
        }
        _ => {}
    }
    let code = binary.code;
    if target == Target::Armv6 && code.of_armv7 * 1_000_000 > code.words * STRAY {
        found.push(format!(
            "{} of its {} instructions are none of ARMv6, whatever it says",
            code.of_armv7, code.words
        ));
    }
    found
}

/// Addenda to the ABI for the Arm Architecture, `Tag_CPU_arch`.
fn architecture_name(value: u64) -> String {
    let name = match value {
        6 => "v6",
        7 => "v6KZ",
        8 => "v6T2",
        9 => "v6K",
        ARMV7 => "v7",
        14 => "v8-A",
        _ => return format!("Tag_CPU_arch {value}"),
    };
    format!("ARM{name}")
}

/// What is not as it should be if the code that runs all the time, almost a third of a whole agent's, does not stand together.
/// It costs memory and is no reason to be without a release: a later compiler gives functions other names.
pub(super) fn is_spread(binary: &Binary) -> Option<String> {
    let code = binary.sections.iter().filter(|(name, _)| name.starts_with(".text"));
    let code: u64 = code.map(|(_, bytes)| bytes).sum();
    (code > 1 << 20 && binary.hot() < code / 8).then(|| {
        format!(
            "agent/release.ld finds only {} KiB of the functions that run all the time, since their names have changed: \
             more of the agent will be resident",
            binary.hot() >> 10
        )
    })
}

/// What it is, in a line.
pub(super) fn describe(binary: &Binary) -> String {
    let mut parts = vec![
        "static".to_owned(),
        if binary.position_independent { "PIE" } else { "no PIE" }.to_owned(),
        if binary.relro { "RELRO" } else { "no RELRO" }.to_owned(),
        format!("pages up to {} KiB", binary.page >> 10),
    ];
    if binary.hot() > 0 {
        parts.push(format!("{} KiB of code that runs all the time", binary.hot() >> 10));
    }
    if let Some(attributes) = binary.arm {
        parts.push(architecture_name(attributes.architecture));
        parts
            .push(if attributes.float_arguments == 1 { "hard float" } else { "soft float" }.into());
        let code = binary.code;
        parts.push(format!("{} of {} words as of ARMv7", code.of_armv7, code.words));
    }
    parts.join(", ")
}

#[cfg(test)]
mod tests {
    use super::super::elf::{Code, read, tests as made};
    use super::*;

    fn small() -> Binary {
        read(&made::small()).unwrap()
    }

    #[test]
    fn code_that_runs_all_the_time_is_missed_in_whole_programs_only() {
        let of = |sections: &[(&str, u64)]| {
            let sections = sections.iter().map(|(name, bytes)| ((*name).to_owned(), *bytes));
            is_spread(&Binary { sections: sections.collect(), ..small() })
        };
        assert_eq!(of(&[(".text", 8)]), None);
        assert_eq!(of(&[(".text_hot", 1 << 20), (".text", 3 << 20), (".rodata", 9 << 20)]), None);
        let found = of(&[(".text_hot", 9 << 10), (".text", 3 << 20)]).unwrap();
        assert!(found.contains("9 KiB"), "{found}");
    }

    #[test]
    fn a_good_binary_has_no_problems_and_is_described() {
        assert_eq!(problems(Target::Armv6, &small()), Vec::<String>::new());
        let words = "static, no PIE, RELRO, pages up to 32 KiB, ARMv6KZ, hard float, 0 of 2 words as of ARMv7";
        assert_eq!(describe(&small()), words);
    }

    #[test]
    fn each_thing_that_would_not_run_is_named() {
        let with = |target: Target, change: &dyn Fn(&mut Binary)| {
            let mut binary = small();
            change(&mut binary);
            problems(target, &binary).join("; ")
        };
        let arm = |change: &dyn Fn(&mut Binary)| with(Target::Armv6, change);
        assert!(
            arm(&|b| b.interpreter = Some("/lib/ld-musl-armhf.so.1".into())).contains("ld-musl")
        );
        assert!(arm(&|b| b.needed = 2).contains("2 shared libraries"));
        assert!(arm(&|b| b.text_relocations = true).contains("relocated"));
        assert!(arm(&|b| b.writable_code = true).contains("writable and executable"));
        assert!(arm(&|b| b.relro = false).contains("RELRO"));
        assert!(arm(&|b| b.symbols = true).contains("symbols"));
        assert!(arm(&|b| b.page = 1024).contains("pages of 4096"));
        assert!(arm(&|b| b.little_endian = false).contains("big-endian"));
        assert!(arm(&|b| b.flags = elf::EF_ARM_EABI_VER5).contains("hard floats"));
        assert!(arm(&|b| b.arm = None).contains(".ARM.attributes"));
        let v7 = |b: &mut Binary| b.arm.as_mut().unwrap().architecture = ARMV7;
        assert!(arm(&v7).contains("it is for ARMv7 and not for ARMv6"));
        assert_eq!(with(Target::Armv7, &v7), "");
        assert!(with(Target::Armv7, &|_| {}).contains("ARMv6KZ and not for ARMv7"));
        let soft = |b: &mut Binary| b.arm.as_mut().unwrap().float_arguments = 0;
        assert!(arm(&soft).contains("in registers"));
        for target in [Target::X86_64, Target::Aarch64] {
            assert!(with(target, &|_| {}).contains("machine 40 with 32 bits"));
        }
    }

    #[test]
    fn code_of_armv7_is_found_whatever_the_attributes_say() {
        let with = |of_armv7: u64| {
            let code = Code { words: 1_000_000, of_armv7 };
            problems(Target::Armv6, &Binary { code, ..small() })
        };
        assert_eq!(with(STRAY), Vec::<String>::new());
        assert!(with(STRAY + 1)[0].contains("whatever it says"));
    }
}
