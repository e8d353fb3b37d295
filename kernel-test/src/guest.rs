//! The virtual machine around the agent: mounts, modules, loopback, disks by their size, and a process
//! with fewer capabilities.

use std::ffi::OsString;
use std::fs;
use std::os::unix::process::CommandExt as _;
use std::path::{Path, PathBuf};
use std::process::Command;
use std::time::{Duration, Instant};

use rustix::mount::{MountFlags, mount};
use rustix::net::netlink::SocketAddrNetlink;
use rustix::net::{AddressFamily, RecvFlags, SendFlags, SocketType};
use rustix::thread::{CapabilitySet, CapabilitySets};

use crate::plan::{Confine, Plan};
use crate::{Result, say};

/// The argument with which this program starts another one that lacks capabilities.
pub(crate) const CONFINE: &str = "confine";

/// How long disks may take to appear after their driver was inserted.
const DISKS: Duration = Duration::from_secs(10);

/// Mounts what every process expects.
///
/// # Errors
/// One can't be mounted.
pub(crate) fn mount_basics() -> Result<()> {
    for (kind, place) in [
        ("devtmpfs", "/dev"),
        ("proc", "/proc"),
        ("sysfs", "/sys"),
        ("tmpfs", "/run"),
        ("tmpfs", "/tmp"),
    ] {
        mount_at(kind, place)?;
    }
    Ok(())
}

/// Does what the plan says before the agent starts.
///
/// # Errors
/// Something that every check needs could not be had. What only some need is said and passed over.
pub(crate) fn prepare(plan: &Plan) -> Result<()> {
    mount_at("cgroup2", "/sys/fs/cgroup")?;
    fs::write("/sys/fs/cgroup/cgroup.subtree_control", "+memory")
        .map_err(|error| format!("the memory controller: {error}"))?;
    for module in &plan.modules {
        if let Err(error) = insert(module) {
            say("NOTE", &format!("{module}: {error}"));
        }
    }
    for (name, value) in &plan.sysctls {
        let path = format!("/proc/sys/{}", name.replace('.', "/"));
        fs::write(&path, value).map_err(|error| format!("{path}: {error}"))?;
    }
    if plan.tracefs {
        mount_at("tracefs", "/sys/kernel/tracing")?;
    }
    loopback_up()?;
    for path in ["/etc", "/root", "/var"] {
        fs::create_dir_all(path).map_err(|error| format!("{path}: {error}"))?;
    }
    wait_for_disks(plan);
    Ok(())
}

fn mount_at(kind: &str, place: &str) -> Result<()> {
    let fail = |error: std::io::Error| format!("mounting {kind} at {place}: {error}");
    fs::create_dir_all(place).map_err(fail)?;
    match mount(kind, place, kind, MountFlags::empty(), None) {
        // Some kernels mount devtmpfs by themselves.
        Ok(()) | Err(rustix::io::Errno::BUSY) => Ok(()),
        Err(error) => Err(fail(error.into())),
    }
}

fn insert(path: &str) -> Result<()> {
    let file = fs::File::open(path).map_err(|error| error.to_string())?;
    match rustix::system::finit_module(file, c"", 0) {
        Ok(()) | Err(rustix::io::Errno::EXIST) => Ok(()),
        Err(error) => Err(error.to_string()),
    }
}

/// Sets IFF_UP of the interface 1, which is `lo`, by an RTM_NEWLINK (linux/rtnetlink.h). The kernel
/// gives it its addresses then.
fn loopback_up() -> Result<()> {
    const RTM_NEWLINK: u16 = 16;
    const NLM_F_REQUEST_ACK: u16 = 1 | 4;
    const IFF_UP: u32 = 1;
    let fail = |error: rustix::io::Errno| format!("bringing lo up: {error}");
    let mut message = Vec::new();
    message.extend(32u32.to_ne_bytes());
    message.extend(RTM_NEWLINK.to_ne_bytes());
    message.extend(NLM_F_REQUEST_ACK.to_ne_bytes());
    message.extend([0; 8]); // sequence, port
    message.extend([0; 4]); // struct ifinfomsg: family, pad, type
    message.extend(1i32.to_ne_bytes());
    message.extend(IFF_UP.to_ne_bytes());
    message.extend(IFF_UP.to_ne_bytes());
    let socket =
        rustix::net::socket(AddressFamily::NETLINK, SocketType::RAW, None).map_err(fail)?;
    rustix::net::sendto(&socket, &message, SendFlags::empty(), &SocketAddrNetlink::new(0, 0))
        .map_err(fail)?;
    let mut answer = [0u8; 256];
    let (length, _) = rustix::net::recv(&socket, &mut answer, RecvFlags::empty()).map_err(fail)?;
    // struct nlmsgerr behind the header: a negated errno.
    match answer.get(16..20).filter(|_| length >= 20) {
        Some([0, 0, 0, 0]) => Ok(()),
        other => Err(format!("bringing lo up: the kernel answered {other:?}")),
    }
}

fn wait_for_disks(plan: &Plan) {
    let deadline = Instant::now() + DISKS;
    let missing = || plan.disks.iter().filter(|(name, _)| disk(plan, name).is_none());
    while missing().next().is_some() && Instant::now() < deadline {
        std::thread::sleep(Duration::from_millis(100));
    }
    for (name, bytes) in missing() {
        say("NOTE", &format!("the disk {name} of {bytes} bytes did not appear"));
    }
}

/// The name of the machine's disk that has the size of this one of the plan's.
pub(crate) fn disk(plan: &Plan, name: &str) -> Option<String> {
    const SECTOR: u64 = 512;
    let (_, bytes) = plan.disks.iter().find(|(candidate, _)| candidate == name)?;
    let entries = fs::read_dir("/sys/block").ok()?;
    let names = entries.flatten().filter_map(|entry| entry.file_name().into_string().ok());
    let mut matching = names.filter(|device| {
        let size = fs::read_to_string(format!("/sys/block/{device}/size"));
        size.is_ok_and(|size| size.trim().parse() == Ok(bytes / SECTOR))
    });
    matching.next().filter(|device| Path::new("/dev").join(device).exists())
}

/// The node of a disk.
pub(crate) fn node(disk: &str) -> PathBuf {
    Path::new("/dev").join(disk)
}

/// A command that starts `program` with the capabilities that the plan leaves it.
pub(crate) fn command(program: &str, confine: Confine) -> Command {
    let level = match confine {
        Confine::Nothing => return Command::new(program),
        Confine::Bpf => "bpf",
        Confine::All => "all",
    };
    let mut command = Command::new("/init");
    command.args([CONFINE, level, program]);
    command
}

/// Gives capabilities up and becomes the program of the arguments: `bpf` or `all`, a program, its
/// arguments. Returns only if that fails.
///
/// # Errors
/// The kernel refuses.
pub(crate) fn confine(arguments: &[OsString]) -> Result<()> {
    let [level, program, rest @ ..] = arguments else {
        return Err("confine takes a level and a program".to_owned());
    };
    let lost: Vec<CapabilitySet> = if level == "all" {
        (0..64).map(|bit| CapabilitySet::from_bits_retain(1 << bit)).collect()
    } else {
        // What loads programs, on kernels with CAP_BPF (5.8) and without.
        vec![CapabilitySet::BPF, CapabilitySet::PERFMON, CapabilitySet::SYS_ADMIN]
    };
    // The bounding set first, because that needs a capability; beyond the kernel's last one, EINVAL.
    for capability in &lost {
        match rustix::thread::remove_capability_from_bounding_set(*capability) {
            Ok(()) | Err(rustix::io::Errno::INVAL) => {}
            Err(error) => return Err(format!("the bounding set: {error}")),
        }
    }
    let fail = |error: rustix::io::Errno| format!("capabilities: {error}");
    let all = lost.into_iter().fold(CapabilitySet::empty(), CapabilitySet::union);
    let had = rustix::thread::capabilities(None).map_err(fail)?;
    let left = CapabilitySets {
        effective: had.effective.difference(all),
        permitted: had.permitted.difference(all),
        inheritable: had.inheritable.difference(all),
    };
    rustix::thread::set_capabilities(None, left).map_err(fail)?;
    Err(format!("{}: {}", program.display(), Command::new(program).args(rest).exec()))
}
