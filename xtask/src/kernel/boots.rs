//! The table of boots: which kernel on which machine, and what is special about it. Versions are not
//! in it: they are those that Debian has on the day.

use crate::static_build::Target;

/// One boot.
#[derive(Debug)]
pub(super) struct Boot {
    /// What `--only` takes.
    pub(super) name: &'static str,
    /// The machine.
    pub(super) board: &'static Board,
    /// Which of Debian's kernels.
    pub(super) pick: Pick,
    /// What is special.
    pub(super) special: Special,
    /// Whether it is one of `--quick`.
    pub(super) quick: bool,
}

/// Which of the kernels that Debian has.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Pick {
    /// The oldest.
    Oldest,
    /// The newest of this line, such as `6.1`.
    Line(&'static str),
    /// The newest.
    Newest,
}

impl Pick {
    /// For the list.
    pub(super) fn describe(self) -> &'static str {
        match self {
            Pick::Oldest => "oldest",
            Pick::Line(line) => line,
            Pick::Newest => "newest",
        }
    }
}

/// What is not as in an ordinary boot.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Special {
    /// Nothing.
    Nothing,
    /// Nobody has mounted tracefs.
    NoTracefs,
    /// `lockdown=confidentiality`: no program may read the kernel's memory.
    Lockdown,
    /// The agent lacks the capabilities that BPF needs.
    NoBpf,
    /// The agent has no capability at all.
    NoCapabilities,
    /// 32-bit ARM with its JIT compiler on, which Debian leaves off.
    Jit,
}

impl Special {
    /// For the table; empty if there is nothing to say.
    pub(super) fn describe(self) -> &'static str {
        match self {
            Special::Nothing => "",
            Special::NoTracefs => "tracefs not mounted",
            Special::Lockdown => "lockdown=confidentiality",
            Special::NoBpf => "no CAP_BPF, CAP_PERFMON, CAP_SYS_ADMIN",
            Special::NoCapabilities => "no capabilities",
            Special::Jit => "bpf_jit_enable=1",
        }
    }

    /// Whether the agent can load its programs.
    pub(super) fn bpf_works(self) -> bool {
        !matches!(self, Special::Lockdown | Special::NoBpf | Special::NoCapabilities)
    }
}

/// A machine that QEMU emulates.
#[derive(Debug)]
pub(super) struct Board {
    /// For the table.
    pub(super) arch: &'static str,
    /// What the binaries are built for.
    pub(super) target: Target,
    /// Debian's name of the architecture.
    pub(super) debian: &'static str,
    /// Debian's package that depends on the newest kernel of a suite.
    pub(super) package: &'static str,
    /// Debian's suites that have it; the last one has the newest kernels.
    pub(super) suites: &'static [&'static str],
    /// QEMU's program.
    pub(super) qemu: &'static str,
    /// Its package in Debian.
    pub(super) qemu_package: &'static str,
    /// Its machine and CPU.
    pub(super) machine: &'static [&'static str],
    /// The kernel's name of the first serial port.
    pub(super) console: &'static str,
    /// More of the kernel's command line.
    pub(super) cmdline: &'static str,
    /// The device tree, from the kernel's package, where the machine doesn't make its own.
    pub(super) device_tree: Option<&'static str>,
    /// What is attached.
    pub(super) attached: Attached,
}

/// How disks are attached.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Attached {
    /// All kinds of disks, as PCI devices.
    Pci,
    /// A card in the board's own slot.
    Slot,
}

const ALL: &[&str] = &["bullseye", "bookworm", "trixie", "unstable"];

const X86_64: Board = Board {
    arch: "x86_64",
    target: Target::X86_64,
    debian: "amd64",
    package: "linux-image-cloud-amd64",
    suites: ALL,
    qemu: "qemu-system-x86_64",
    qemu_package: "qemu-system-x86",
    machine: &["-machine", "q35"],
    console: "ttyS0",
    cmdline: "",
    device_tree: None,
    attached: Attached::Pci,
};

const AARCH64: Board = Board {
    arch: "aarch64",
    target: Target::Aarch64,
    debian: "arm64",
    package: "linux-image-arm64",
    suites: ALL,
    qemu: "qemu-system-aarch64",
    qemu_package: "qemu-system-arm",
    machine: &["-machine", "virt,gic-version=max", "-cpu", "cortex-a72"],
    console: "ttyAMA0",
    cmdline: "",
    device_tree: None,
    attached: Attached::Pci,
};

/// Pages of 16 KiB, as on the Raspberry Pi 5.
const AARCH64_16K: Board = Board {
    arch: "aarch64, 16k pages",
    package: "linux-image-arm64-16k",
    machine: &["-machine", "virt,gic-version=max", "-cpu", "max,pauth-impdef=on"],
    ..AARCH64
};

const ARMV7: Board = Board {
    arch: "armv7",
    target: Target::Armv7,
    debian: "armhf",
    package: "linux-image-armmp",
    qemu: "qemu-system-arm",
    machine: &["-machine", "virt,highmem=off", "-cpu", "cortex-a15"],
    ..AARCH64
};

const PI_ZERO: Board = Board {
    arch: "armv6 (Raspberry Pi Zero)",
    target: Target::Armv6,
    debian: "armel",
    package: "linux-image-rpi",
    suites: &["bullseye", "bookworm"],
    qemu: "qemu-system-arm",
    machine: &["-machine", "raspi0"],
    // QEMU has no power manager of this board, and the kernel would hang in asking it.
    cmdline: "initcall_blacklist=bcm2835_power_driver_init,bcm2835_pm_driver_init",
    device_tree: Some("bcm2835-rpi-zero.dtb"),
    attached: Attached::Slot,
    ..AARCH64
};

const fn boot(name: &'static str, board: &'static Board, pick: Pick) -> Boot {
    Boot { name, board, pick, special: Special::Nothing, quick: false }
}

/// Every boot.
pub(super) static BOOTS: &[Boot] = &[
    Boot { quick: true, ..boot("x86_64-oldest", &X86_64, Pick::Oldest) },
    boot("x86_64-6.1", &X86_64, Pick::Line("6.1")),
    Boot {
        special: Special::NoTracefs,
        ..boot("x86_64-6.12-no-tracefs", &X86_64, Pick::Line("6.12"))
    },
    Boot { quick: true, ..boot("x86_64-newest", &X86_64, Pick::Newest) },
    Boot { special: Special::Lockdown, ..boot("x86_64-newest-lockdown", &X86_64, Pick::Newest) },
    Boot { special: Special::NoBpf, ..boot("x86_64-newest-no-bpf", &X86_64, Pick::Newest) },
    Boot {
        special: Special::NoCapabilities,
        ..boot("x86_64-oldest-no-capabilities", &X86_64, Pick::Oldest)
    },
    boot("aarch64-oldest", &AARCH64, Pick::Oldest),
    boot("aarch64-6.1", &AARCH64, Pick::Line("6.1")),
    boot("aarch64-6.12", &AARCH64, Pick::Line("6.12")),
    boot("aarch64-newest", &AARCH64, Pick::Newest),
    boot("aarch64-newest-16k", &AARCH64_16K, Pick::Newest),
    boot("armv7-oldest", &ARMV7, Pick::Oldest),
    boot("armv7-6.1", &ARMV7, Pick::Line("6.1")),
    Boot { special: Special::Jit, ..boot("armv7-6.1-jit", &ARMV7, Pick::Line("6.1")) },
    boot("armv7-6.12", &ARMV7, Pick::Line("6.12")),
    boot("armv7-newest", &ARMV7, Pick::Newest),
    boot("armv6-pi-zero", &PI_ZERO, Pick::Newest),
];

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_boot_has_a_name_of_its_own_and_the_quick_ones_are_the_ends() {
        for (at, boot) in BOOTS.iter().enumerate() {
            assert!(
                BOOTS.iter().skip(at + 1).all(|other| other.name != boot.name),
                "{}",
                boot.name
            );
        }
        let quick: Vec<_> = BOOTS.iter().filter(|boot| boot.quick).collect();
        assert!(quick.iter().all(|boot| boot.board.arch == "x86_64"));
        assert_eq!(
            quick.iter().map(|boot| boot.pick).collect::<Vec<_>>(),
            [Pick::Oldest, Pick::Newest]
        );
    }
}
