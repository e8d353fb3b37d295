//! One boot: the file system and the plan that the kernel starts with, QEMU's command line, and waiting
//! for the last word on the console. `/plan` is described in kernel-test/src/plan.rs.

use std::fmt::Write as _;
use std::fs;
use std::io::Write as _;
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};
use std::time::{Duration, Instant};

use super::boots::{Attached, Board, Boot, Special};
use super::debian::Kernel;
use super::initramfs::Initramfs;
use crate::context::Context;
use crate::process::{Interrupt, POLL, Running};
use crate::{Result, process};

/// How long a boot with all its checks may take.
const LIMIT: Duration = Duration::from_secs(360);
/// How long it may take until the test program speaks.
const START: Duration = Duration::from_secs(120);
/// How often a boot is tried whose kernel does not come so far: emulated processors have faults of
/// their own, from which kernels die early.
const TRIES: u32 = 3;
const MIB: u64 = 1 << 20;

/// The disks, by their sizes, by which the test program recognises them. `bad` and `scsi` can't be
/// read at their second MiB.
const DISKS: [(&str, u64); 8] = [
    ("good", 64 * MIB),
    ("bad", 48 * MIB),
    ("nvme", 56 * MIB),
    ("scsi", 40 * MIB),
    ("card", 32 * MIB),
    ("ata", 24 * MIB),
    ("ext4", 16 * MIB),
    ("large", 640 * MIB),
];

/// Families of metrics that checks ask for. One that is not in the agent's binary is said to be absent.
const FAMILIES: [&str; 9] = [
    "mote_block_io_duration_seconds",
    "mote_block_io_errors_total",
    "mote_tcp_connects_total",
    "mote_tcp_resets_total",
    "mote_tcp_retransmits_total",
    "mote_oom_kills_total",
    "mote_mmc_errors_total",
    "mote_scsi_errors_total",
    "mote_filesystem_errors_total",
];
const RECLAIM: &str = "mote_memory_reclaim_stall_seconds";

/// The programs that a machine is given.
pub(super) struct Programs {
    agent: Vec<u8>,
    init: Vec<u8>,
}

impl Programs {
    /// Reads them.
    ///
    /// # Errors
    /// One is not there.
    pub(super) fn read(folder: &Path) -> Result<Programs> {
        let read = |name: &str| {
            let path = folder.join(name);
            fs::read(&path).map_err(|error| format!("{}: {error}", path.display()))
        };
        Ok(Programs { agent: read("mote")?, init: read("kernel-test")? })
    }

    fn known(&self) -> impl Iterator<Item = &'static str> {
        FAMILIES.into_iter().chain([RECLAIM]).filter(|family| contains(&self.agent, family))
    }
}

fn contains(haystack: &[u8], needle: &str) -> bool {
    // The first byte is looked for first: a plain search through windows takes seconds.
    let needle = needle.as_bytes();
    let Some((first, rest)) = needle.split_first() else { return true };
    let mut haystack = haystack;
    while let Some(at) = haystack.iter().position(|byte| byte == first) {
        haystack = haystack.get(at + 1..).unwrap_or_default();
        if haystack.starts_with(rest) {
            return true;
        }
    }
    false
}

/// Boots a machine and returns what its console has said.
///
/// # Errors
/// QEMU does not start or ends by itself, or the last word did not come in time; the console's log stays
/// in `target/kernel-test`.
pub(super) fn run(
    context: &Context,
    interrupt: &Interrupt,
    boot: &Boot,
    kernel: &Kernel,
    programs: &Programs,
    rehearse: bool,
) -> Result<String> {
    let folder = &context.target.join("kernel-test").join(boot.name);
    let fail = |path: &Path, error: std::io::Error| format!("{}: {error}", path.display());
    fs::create_dir_all(folder).map_err(|error| fail(folder, error))?;
    let modules = kernel.modules()?;
    let initrd = folder.join("initramfs");
    let mut archive = Initramfs::new();
    archive.file("init", &programs.init);
    archive.file("mote", &programs.agent);
    let mut plan = plan(boot, programs, modules.iter().map(|(name, _)| name));
    if rehearse {
        plan.push_str("rehearse yes\n");
    }
    archive.file("plan", plan.as_bytes());
    for (name, content) in &modules {
        archive.file(&format!("modules/{name}"), content);
    }
    fs::write(&initrd, archive.finish()).map_err(|error| fail(&initrd, error))?;

    let console = folder.join("console.log");
    let mut command = Command::new(boot.board.qemu);
    command.args(accelerator(boot.board)).args(boot.board.machine).args(["-m", "512"]);
    if boot.board.attached == Attached::Pci {
        command.args(["-smp", "2"]);
    }
    command.args(["-nodefaults", "-display", "none", "-no-reboot", "-nic", "none", "-serial"]);
    command.arg(format!("file:{}", console.display()));
    command.arg("-kernel").arg(&kernel.image).arg("-initrd").arg(&initrd);
    command.arg("-append").arg(command_line(boot));
    if let Some(name) = boot.board.device_tree {
        command.arg("-dtb").arg(kernel.device_tree(name)?);
    }
    disks(boot.board, folder, &mut command)?;

    let mut tries = 1;
    let result = loop {
        let began = Instant::now();
        fs::write(&console, "").map_err(|error| fail(&console, error))?;
        let qemu = Running::start("QEMU", &mut command, Some(&folder.join("qemu.log")))?;
        match watch(interrupt, qemu, &console) {
            Ok(text) => {
                context.say(&format!("{}: {:.1} s", boot.name, began.elapsed().as_secs_f64()));
                break Ok(text);
            }
            Err(End { early: true, why }) if tries < TRIES => {
                tries += 1;
                context.say(&format!("{}: once more, the kernel died early: {why}", boot.name));
            }
            Err(End { why, .. }) => break Err(why),
        }
    };
    let _ = fs::remove_file(&initrd);
    result
}

/// Why there was no last word.
struct End {
    /// The test program had not spoken.
    early: bool,
    why: String,
}

/// Waits for the last word on the console, and ends the machine.
fn watch(
    interrupt: &Interrupt,
    mut qemu: Running,
    console: &Path,
) -> std::result::Result<String, End> {
    let began = Instant::now();
    loop {
        let text = fs::read(console).unwrap_or_default();
        let text = String::from_utf8_lossy(&text);
        let line = |wanted: &str| text.lines().any(|line| line.trim_end().starts_with(wanted));
        // The first line that begins so is the test program's.
        let spoken = line("KERNEL ") || line("CHECK ");
        let end = |early: bool, why: String| {
            let lines: Vec<&str> = text.lines().collect();
            let tail = lines.get(lines.len().saturating_sub(12)..).unwrap_or_default();
            let (path, tail) = (console.display(), tail.join("\n"));
            Err(End { early, why: format!("{why}; the console's last lines ({path}):\n{tail}") })
        };
        if text.lines().any(|line| line.trim_end() == "DONE") {
            return match qemu.stop() {
                Ok(_) => Ok(text.into_owned()),
                Err(why) => end(false, why),
            };
        }
        if let Err(why) = qemu.check() {
            return end(!spoken, why);
        }
        if !spoken && began.elapsed() > START {
            return end(true, format!("no word within {} s", START.as_secs()));
        }
        if began.elapsed() > LIMIT {
            return end(false, format!("no last word within {} s", LIMIT.as_secs()));
        }
        if interrupt.requested() {
            return end(false, "interrupted".to_owned());
        }
        std::thread::sleep(2 * POLL);
    }
}

fn command_line(boot: &Boot) -> String {
    let mut line = format!("console={} panic=-1 loglevel=3", boot.board.console);
    if !boot.board.cmdline.is_empty() {
        let _ = write!(line, " {}", boot.board.cmdline);
    }
    if boot.special == Special::Lockdown {
        line.push_str(" lockdown=confidentiality");
    }
    line
}

fn plan<'a>(boot: &Boot, programs: &Programs, modules: impl Iterator<Item = &'a String>) -> String {
    let mut text = String::new();
    for module in modules {
        let _ = writeln!(text, "module /modules/{module}");
    }
    for family in programs.known() {
        let _ = writeln!(text, "knows {family}");
    }
    for (name, bytes) in DISKS {
        let pci = boot.board.attached == Attached::Pci;
        // The cloud kernels know no cards, and the older ones no AHCI.
        let there = match name {
            "card" if pci => text.contains("/sdhci-pci.ko\n"),
            "ata" if pci => text.contains("/ahci.ko\n"),
            "good" | "card" => true,
            _ => pci,
        };
        if !there {
            continue;
        }
        let bytes = if pci { bytes } else { SLOT };
        let _ = writeln!(text, "disk {name} {bytes}");
    }
    let confine = match boot.special {
        Special::NoBpf => "bpf",
        Special::NoCapabilities => "all",
        _ => "none",
    };
    let tracefs = if boot.special == Special::NoTracefs { "leave" } else { "mount" };
    let bpf = if boot.special.bpf_works() { "works" } else { "fails" };
    let _ = writeln!(text, "confine {confine}\ntracefs {tracefs}\nbpf {bpf}");
    if boot.special == Special::Jit {
        text.push_str("sysctl net.core.bpf_jit_enable 1\n");
    }
    text
}

/// The card of a board with a slot, which is both the good disk and the card.
const SLOT: u64 = 64 * MIB;

/// Disks without a file behind them, whose reads give zeros, and one with ext4.
fn disks(board: &Board, folder: &Path, command: &mut Command) -> Result<()> {
    let nothing =
        |bytes: u64| format!("\"driver\":\"null-co\",\"size\":{bytes},\"read-zeroes\":true");
    if board.attached == Attached::Slot {
        let options = format!("if=sd,format=raw,file.driver=null-co,file.size={SLOT}");
        command.arg("-drive").arg(format!("{options},file.read-zeroes=on"));
        return Ok(());
    }
    for (name, bytes) in DISKS {
        let node = match name {
            "bad" | "scsi" => format!(
                "{{\"driver\":\"raw\",\"node-name\":\"{name}\",\"file\":{{\"driver\":\"blkdebug\",\
                 \"image\":{{{}}},\"inject-error\":[{{\"event\":\"none\",\"iotype\":\"read\",\
                 \"errno\":5,\"sector\":2048,\"once\":false}}]}}}}",
                nothing(bytes)
            ),
            "ext4" => {
                let image = make_ext4(folder, bytes)?;
                format!(
                    "{{\"driver\":\"raw\",\"node-name\":\"{name}\",\"file\":{{\"driver\":\"file\",\
                     \"filename\":{}}}}}",
                    serde_json::Value::from(image.display().to_string())
                )
            }
            _ => format!("{{\"node-name\":\"{name}\",{}}}", nothing(bytes)),
        };
        command.arg("-blockdev").arg(node);
        let devices: &[String] = &match name {
            "nvme" => vec![format!("nvme,drive={name},serial={name}")],
            "scsi" => vec!["virtio-scsi-pci".to_owned(), format!("scsi-hd,drive={name}")],
            "ata" => vec![
                "ich9-ahci,id=ahci".to_owned(),
                format!("ide-hd,drive={name},bus=ahci.0,serial={name}"),
            ],
            "card" => vec!["sdhci-pci".to_owned(), format!("sd-card,drive={name}")],
            _ => vec![format!("virtio-blk-pci,drive={name}")],
        };
        for device in devices {
            command.arg("-device").arg(device);
        }
    }
    Ok(())
}

fn make_ext4(folder: &Path, bytes: u64) -> Result<PathBuf> {
    let image = folder.join("ext4.img");
    let fail = |error| format!("{}: {error}", image.display());
    fs::File::create(&image).and_then(|file| file.set_len(bytes)).map_err(fail)?;
    let program = process::find("mkfs.ext4").ok_or("there is no mkfs.ext4 (Debian: e2fsprogs)")?;
    process::run(Command::new(program).arg("-q").arg(&image))?;
    Ok(image)
}

/// KVM where it works, emulation otherwise.
fn accelerator(board: &Board) -> Vec<String> {
    let of_host = match std::env::consts::ARCH {
        "x86_64" => board.qemu == "qemu-system-x86_64",
        "aarch64" => board.qemu == "qemu-system-aarch64" && board.attached == Attached::Pci,
        _ => false,
    };
    if of_host && kvm(board) {
        let own = ["-accel", "kvm", "-cpu", "host"];
        return own.map(str::to_owned).to_vec();
    }
    // QEMU 7.2 has races in x86's 16-byte exchanges when processors have threads of their own.
    let threads = if board.qemu == "qemu-system-x86_64" { "single" } else { "multi" };
    vec!["-accel".to_owned(), format!("tcg,thread={threads}")]
}

/// Whether a machine on KVM comes into being with all that its CPU model promises. Inside some virtual
/// machines /dev/kvm is there and can be opened, but lacks most of it.
fn kvm(board: &Board) -> bool {
    if fs::OpenOptions::new().read(true).write(true).open("/dev/kvm").is_err() {
        return false;
    }
    let (machine, cpu) = match board.qemu {
        "qemu-system-x86_64" => ("q35", "qemu64,enforce"),
        _ => ("virt,gic-version=max", "host"),
    };
    let mut command = Command::new(board.qemu);
    command.args(["-accel", "kvm", "-machine", machine, "-cpu", cpu, "-nodefaults"]);
    command.args(["-display", "none", "-S", "-monitor", "stdio"]);
    let child = command.stdin(Stdio::piped()).stdout(Stdio::null()).stderr(Stdio::null()).spawn();
    let Ok(mut child) = child else { return false };
    if let Some(mut monitor) = child.stdin.take() {
        // A QEMU that has ended already does not read it, and its status says why.
        let _ = monitor.write_all(b"quit\n");
    }
    child.wait().is_ok_and(|status| status.success())
}

#[cfg(test)]
mod tests {
    use super::super::boots::BOOTS;
    use super::*;

    #[test]
    fn a_family_is_known_if_the_binary_has_its_name() {
        assert!(contains(b"..mmote_x..", "mote_x"));
        assert!(contains(b"mote_x", "mote_x"));
        assert!(!contains(b"mote_", "mote_x"));
        assert!(!contains(b"", "mote_x"));
    }

    #[test]
    fn disks_are_told_apart_by_their_sizes() {
        for (at, (_, bytes)) in DISKS.iter().enumerate() {
            assert!(DISKS.iter().skip(at + 1).all(|(_, other)| other != bytes));
            assert_ne!(*bytes / 512, 0);
        }
    }

    #[test]
    fn a_plan_has_what_is_special_about_the_boot() {
        let programs = Programs { agent: b"mote_block_io_errors_total".to_vec(), init: Vec::new() };
        let modules = ["a.ko".to_owned()];
        let plan_of = |special: Special| {
            let boot = BOOTS.iter().find(|boot| boot.special == special).expect("one");
            plan(boot, &programs, modules.iter())
        };
        let jit = plan_of(Special::Jit);
        assert!(!jit.contains("disk card"), "without a driver");
        assert!(jit.contains("module /modules/a.ko\nknows mote_block_io_errors_total\ndisk good "));
        assert!(jit.contains("\nsysctl net.core.bpf_jit_enable 1\n") && jit.contains("bpf works"));
        assert!(plan_of(Special::NoTracefs).contains("tracefs leave"));
        let lockdown = plan_of(Special::Lockdown);
        assert!(lockdown.contains("confine none") && lockdown.contains("bpf fails"));
        assert!(plan_of(Special::NoBpf).contains("confine bpf"));
        assert!(plan_of(Special::NoCapabilities).contains("confine all"));
    }
}
