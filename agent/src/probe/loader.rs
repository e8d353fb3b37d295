//! The loader's child: `mote __load-probes SYS PROBE,PROBE… WAY` with a Unix socket as standard input. It
//! resolves the fields' offsets, loads the object, attaches the programs, hands the descriptors over and
//! exits, so that what loading costs in memory is given back, and so that it can have mounts of its own.

use std::error::Error;
use std::ffi::OsString;
use std::fs;
use std::io;
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};
use std::path::{Path, PathBuf};
use std::process::ExitCode;

use aya::maps::{Map, MapData, MapError, MapType};
use aya::programs::{ProgramError, TracePoint};
use aya::{Ebpf, EbpfError, EbpfLoader};

use super::channel::{self, Report};
use super::format::{self, Field};
use super::object;
use super::perf;
use super::spec::{self, Sized, Spec, Target, Tracepoint};
use super::{Transport, direct, jit, tracefs};

/// The hidden first argument of the child.
pub const LOADER_ARGUMENT: &str = "__load-probes";

/// Lines of the verifier's that go into a reason; the last ones name the fault.
const VERIFIER_LINES: usize = 4;

/// The map of the events and that of their rations, which no probe has for itself.
const RING: &str = "EVENTS";
const EVENT_MAPS: [&str; 2] = [RING, "EVENT_RATIONS"];

/// Bytes of the ring buffer, a power of two: some 300 OOM kills. At least a page, of up to 64 KiB.
const RING_BYTES: u32 = 32 << 10;

const ALIGNMENT: usize = 8;

/// Where the devices can't be counted.
const MANY_DEVICES: u32 = 32;

/// A probe whose fields are known.
struct Resolved {
    index: u8,
    spec: &'static Spec,
    /// The tracepoints that this kernel has, with their IDs.
    tracepoints: Vec<(&'static Tracepoint, u32)>,
    /// The fields that its programs read.
    fields: Fields,
    /// The optional tracepoints that are not used.
    missing: Vec<(&'static str, Unusable)>,
    /// Those of them whose programs the kernel did not take.
    refused: Vec<Refused>,
}

/// Why a tracepoint is not used.
#[derive(Clone, Debug, PartialEq, Eq)]
enum Unusable {
    /// The kernel does not have it.
    Absent,
    /// A sentence.
    Because(String),
}

/// An optional tracepoint whose program the kernel did not take, and what it said.
type Refused = (&'static str, String);

/// Why the object can't be loaded.
#[derive(Debug, PartialEq, Eq)]
struct Fault {
    /// The probes, by their place in `SPECS`, without which it may be; None if that would not help.
    probes: Option<Vec<u8>>,
    reason: String,
}

impl From<&str> for Fault {
    fn from(reason: &str) -> Fault {
        Fault { probes: None, reason: reason.to_owned() }
    }
}

/// Loads the probes that the arguments name and exits. For `main`, when its first argument is
/// [`LOADER_ARGUMENT`]; `arguments` is what follows it.
pub fn loader_main(arguments: impl Iterator<Item = OsString>) -> ExitCode {
    let arguments: Vec<OsString> = arguments.collect();
    let [sys, probes, way] = arguments.as_slice() else {
        eprintln!("{LOADER_ARGUMENT} is the agent's own: it loads the probes for a running agent");
        return ExitCode::from(2);
    };
    let stdin = io::stdin();
    let socket = stdin.as_fd();
    let wanted: Vec<(u8, &'static Spec)> = super::SPECS
        .iter()
        .zip(0..)
        .filter(|(spec, _)| probes.to_string_lossy().split(',').any(|name| name == spec.name))
        .map(|(spec, index)| (index, *spec))
        .collect();
    let transport = match way.to_str().and_then(Transport::from_name) {
        Some(forced) => forced,
        None if has_ring_buffers() => Transport::Ring,
        None => Transport::Perf,
    };
    match load_all(Path::new(sys), &wanted, transport, socket) {
        Ok(()) => ExitCode::SUCCESS,
        // The agent is gone: there is no one to tell.
        Err(_) => ExitCode::FAILURE,
    }
}

/// Whether the kernel has ring buffers (5.8 and later). Where that can't be told it is too old for them.
fn has_ring_buffers() -> bool {
    aya::sys::is_map_supported(MapType::RingBuf).unwrap_or(false)
}

/// Sends a report for each probe, and before them one for the events; fails only if that can't be done.
fn load_all(
    sys: &Path,
    wanted: &[(u8, &'static Spec)],
    transport: Transport,
    socket: BorrowedFd<'_>,
) -> io::Result<()> {
    let refuse = |probe: u8, reason: String| {
        let report = Report { probe, reason, ..Report::default() };
        channel::send(socket, &report, &[], &[], &[])
    };
    let private = tracefs::unshare_mounts().is_ok();
    if private {
        tracefs::hide_btf();
    }
    let tracefs = match tracefs::find(sys, private) {
        Ok(tracefs) => tracefs,
        Err(reason) => {
            return wanted.iter().try_for_each(|(probe, _)| refuse(*probe, reason.clone()));
        }
    };
    let mut resolved = Vec::new();
    for &(index, spec) in wanted {
        match resolve(&tracefs, index, spec, Vec::new()) {
            Ok(probe) => resolved.push(probe),
            Err(reason) => refuse(index, reason)?,
        }
    }
    // What is refused goes, and the rest is loaded anew, because programs are told by their globals what
    // else runs. Each turn but the last one takes a probe or a tracepoint away.
    loop {
        if resolved.is_empty() {
            return Ok(());
        }
        let mut object = match load_object(&resolved, sys, transport) {
            Ok(object) => object,
            Err(fault) => {
                let concerned = |probe: &Resolved| {
                    fault.probes.as_ref().is_none_or(|probes| probes.contains(&probe.index))
                };
                let gone: Vec<_> = resolved.extract_if(.., |probe| concerned(probe)).collect();
                if gone.is_empty() {
                    // Not the fault of a probe that is to run.
                    return resolved.iter().try_for_each(|p| refuse(p.index, fault.reason.clone()));
                }
                gone.iter().try_for_each(|probe| refuse(probe.index, fault.reason.clone()))?;
                continue;
            }
        };
        let (mut attached, mut again, mut left) = (Vec::new(), false, Vec::new());
        for mut probe in resolved {
            match attach(&mut object, &probe) {
                Ok((events, refused)) if refused.is_empty() => attached.push(events),
                Ok((_, refused)) => {
                    again = true;
                    probe.refused.extend(refused);
                    match resolve(&tracefs, probe.index, probe.spec, probe.refused) {
                        Ok(fewer) => probe = fewer,
                        Err(reason) => {
                            refuse(probe.index, reason)?;
                            continue;
                        }
                    }
                }
                Err(reason) => {
                    refuse(probe.index, reason)?;
                    continue;
                }
            }
            left.push(probe);
        }
        resolved = left;
        if again {
            continue;
        }
        return hand_over_all(&object, &resolved, &attached, transport, socket);
    }
}

fn hand_over_all(
    object: &Ebpf,
    probes: &[Resolved],
    attached: &[Vec<OwnedFd>],
    transport: Transport,
    socket: BorrowedFd<'_>,
) -> io::Result<()> {
    if probes.iter().any(|probe| !probe.spec.events.is_empty()) {
        let report = Report { transport: Some(transport), ..Report::default() };
        let maps = EVENT_MAPS.map(|name| Some(map_data(object.map(name)?)?.fd().as_fd()));
        if let [Some(events), Some(rations)] = maps {
            channel::send(socket, &report, &[events, rations], &[], &[])?;
        }
    }
    let mut each = probes.iter().zip(attached);
    each.try_for_each(|(probe, events)| hand_over(object, probe, events, socket))
}

/// Finds a probe's tracepoints and their fields, without those that the kernel has `refused` before.
fn resolve(
    tracefs: &Path,
    index: u8,
    spec: &'static Spec,
    refused: Vec<Refused>,
) -> Result<Resolved, String> {
    let find = |tracepoint: &'static Tracepoint, usable: &dyn Fn(&str) -> bool| {
        let before = refused.iter().find(|(event, _)| *event == tracepoint.event);
        if let Some((_, reason)) = before {
            return Err(Unusable::Because(reason.clone()));
        }
        let path: PathBuf = tracefs.join("events").join(tracepoint.family).join(tracepoint.event);
        resolve_tracepoint(&path.join("format"), tracepoint, usable)
    };
    // What can't be used stands in for nothing, whether it is there or not.
    let can_be_used = spec.tracepoints.iter().filter(|t| find(t, &|_| true).is_ok());
    let usable: Vec<&str> = can_be_used.map(|tracepoint| tracepoint.event).collect();
    let (mut tracepoints, mut fields, mut missing) = (Vec::new(), Vec::new(), Vec::new());
    for tracepoint in spec.tracepoints {
        match find(tracepoint, &|event| usable.contains(&event)) {
            Ok((id, of_tracepoint)) => {
                tracepoints.push((tracepoint, id));
                fields.extend(of_tracepoint);
            }
            Err(why) if tracepoint.optional => missing.push((tracepoint.event, why)),
            Err(Unusable::Absent) => {
                let Tracepoint { family, event, .. } = tracepoint;
                return Err(format!("this kernel has no tracepoint {family}:{event}"));
            }
            Err(Unusable::Because(reason)) => return Err(reason),
        }
    }
    if tracepoints.is_empty() {
        return Err(format!("none of its tracepoints can be used: {}", explain_missing(&missing)));
    }
    Ok(Resolved { index, spec, tracepoints, fields, missing, refused })
}

/// Which tracepoints are not used, and why.
fn explain_missing(missing: &[(&'static str, Unusable)]) -> String {
    let absent = missing.iter().filter(|(_, why)| *why == Unusable::Absent);
    let absent: Vec<&str> = absent.map(|(event, _)| *event).collect();
    let mut parts = Vec::new();
    if !absent.is_empty() {
        parts.push(format!("this kernel lacks {}", absent.join(", ")));
    }
    for (event, why) in missing {
        if let Unusable::Because(reason) = why {
            parts.push(format!("{event} is not used: {reason}"));
        }
    }
    parts.join("; ")
}

type Fields = Vec<(Target, Option<Field>)>;

/// A tracepoint's ID and where its fields are.
fn resolve_tracepoint(
    path: &Path,
    tracepoint: &'static Tracepoint,
    usable: impl Fn(&str) -> bool,
) -> Result<(u32, Fields), Unusable> {
    let bytes = fs::read(path).map_err(|error| match error.kind() {
        io::ErrorKind::NotFound => Unusable::Absent,
        _ => Unusable::Because(format!("reading {}: {error}", path.display())),
    })?;
    let unusable = |error| Unusable::Because(format!("{}: {error}", path.display()));
    let format = format::parse(&bytes).map_err(unusable)?;
    let mut fields = Vec::new();
    for needed in tracepoint.fields {
        let field = needed.resolve(&format, &usable).map_err(unusable)?;
        fields.push((needed.target, field.cloned()));
    }
    Ok((format.id, fields))
}

fn load_object(probes: &[Resolved], sys: &Path, transport: Transport) -> Result<Ebpf, Fault> {
    let bytes = object::object(transport).ok_or(object::MISSING)?;
    // Aligned as the reader of ELF files wants it.
    let mut buffer = vec![0; bytes.len() + ALIGNMENT];
    let start = buffer.as_ptr().align_offset(ALIGNMENT).min(ALIGNMENT);
    let copy = buffer.get_mut(start..).and_then(|rest| rest.get_mut(..bytes.len()));
    let copy = copy.ok_or("no room for the object")?;
    copy.copy_from_slice(bytes);
    let direct: Vec<(i16, &Field)> = fields(probes)
        .filter_map(|(target, field)| match target {
            Target::Direct(number) => Some((*number, field.as_ref()?)),
            Target::Global(_) => None,
        })
        .collect();
    direct::patch(copy, &direct).map_err(|error| {
        let probes = error.number.map(|number| readers(probes, number));
        Fault { probes, reason: error.reason }
    })?;
    let runs = |spec: &Spec| probes.iter().any(|probe| probe.spec.name == spec.name);
    // The maps of probes that don't run must not cost memory, nor be kinds that the kernel lacks.
    direct::drop_maps(copy, |map| super::SPECS.iter().any(|spec| runs(spec) && has_map(spec, map)))
        .map_err(|reason| Fault { probes: None, reason })?;
    let devices = devices(sys);
    let places: Vec<(&str, u32)> = fields(probes)
        .filter_map(|(target, field)| match target {
            Target::Global(global) => Some((*global, spec::place(field.as_ref()))),
            Target::Direct(_) => None,
        })
        .collect();
    let sized = || super::SPECS.iter().flat_map(|spec| spec.sized.iter().map(move |s| (spec, s)));
    let entries = |spec: &Spec, sized: &Sized| if runs(spec) { sized.entries(devices) } else { 1 };
    let masks: Vec<(&str, u32)> =
        sized().filter_map(|(spec, sized)| Some((sized.mask?, entries(spec, sized) - 1))).collect();
    let mut loader = EbpfLoader::new();
    for (spec, sized) in sized() {
        loader.map_max_entries(sized.map, entries(spec, sized));
    }
    for (global, value) in places.iter().chain(&masks) {
        loader.override_global(global, value, true);
    }
    if transport == Transport::Ring && probes.iter().any(|probe| has_map(probe.spec, RING)) {
        let page = u32::try_from(rustix::param::page_size()).unwrap_or(u32::MAX);
        loader.map_max_entries(RING, RING_BYTES.max(page));
    }
    loader.load(copy).map_err(|error| load_fault(&error))
}

/// The probes that read a field of this number.
fn readers(probes: &[Resolved], number: i16) -> Vec<u8> {
    let reads = |probe: &&Resolved| {
        probe.fields.iter().any(|(target, _)| matches!(target, Target::Direct(n) if *n == number))
    };
    probes.iter().filter(reads).map(|probe| probe.index).collect()
}

/// Whether a probe's programs use a map.
fn has_map(spec: &Spec, map: &str) -> bool {
    spec.maps.contains(&map)
        || spec.sized.iter().any(|sized| sized.map == map)
        || (!spec.events.is_empty() && EVENT_MAPS.contains(&map))
}

/// What was wrong with the object. A map that the kernel did not make is its probes' own fault.
fn load_fault(error: &EbpfError) -> Fault {
    let probes = match error {
        EbpfError::MapError(MapError::CreateError { name, .. }) => {
            let specs = super::SPECS.iter().zip(0..).filter(|(spec, _)| has_map(spec, name));
            Some(specs.map(|(_, index)| index).collect())
        }
        _ => None,
    };
    Fault { probes, reason: explain_load(error) }
}

fn fields(probes: &[Resolved]) -> impl Iterator<Item = &(Target, Option<Field>)> {
    probes.iter().flat_map(|probe| &probe.fields)
}

/// The block devices that requests go to: neither RAM disks nor loop devices that nobody has set up.
fn devices(sys: &Path) -> u32 {
    let Ok(entries) = fs::read_dir(sys.join("block")) else { return MANY_DEVICES };
    let used = entries.flatten().filter(|entry| {
        let size = fs::read_to_string(entry.path().join("size"));
        !entry.file_name().to_string_lossy().starts_with("ram")
            && size.is_ok_and(|size| size.trim() != "0")
    });
    u32::try_from(used.count()).unwrap_or(MANY_DEVICES)
}

/// Loads and attaches a probe's programs, and gives what keeps them attached, and the optional ones that
/// the kernel did not take.
fn attach(object: &mut Ebpf, probe: &Resolved) -> Result<(Vec<OwnedFd>, Vec<Refused>), String> {
    let (mut events, mut refused) = (Vec::new(), Vec::new());
    for (tracepoint, id) in &probe.tracepoints {
        match attach_program(object, tracepoint, *id) {
            Ok(event) => events.push(event),
            Err(reason) if tracepoint.optional => refused.push((tracepoint.event, reason)),
            Err(reason) => return Err(reason),
        }
    }
    Ok((events, refused))
}

fn attach_program(object: &mut Ebpf, tracepoint: &Tracepoint, id: u32) -> Result<OwnedFd, String> {
    let Tracepoint { family, event, .. } = *tracepoint;
    let program =
        object.program_mut(event).ok_or_else(|| format!("the object has no program {event}"))?;
    let refused = |error: ProgramError| explain_program(event, &error);
    let program: &mut TracePoint = program.try_into().map_err(refused)?;
    jit::load(|| program.load()).map_err(refused)?;
    let fd = program.fd().map_err(refused)?;
    perf::attach(id, fd.as_fd()).map_err(|error| {
        format!("attaching to {family}:{event}: {error}{}", hint(error.raw_os_error()))
    })
}

fn hand_over(
    object: &Ebpf,
    probe: &Resolved,
    events: &[OwnedFd],
    socket: BorrowedFd<'_>,
) -> io::Result<()> {
    let reason = explain_missing(&probe.missing);
    let mut report = Report { probe: probe.index, attached: true, reason, ..Report::default() };
    let maps: Option<Vec<_>> = probe
        .spec
        .maps
        .iter()
        .map(|name| Some(map_data(object.map(name)?)?.fd().as_fd()))
        .collect();
    let programs: Option<Vec<_>> = probe
        .tracepoints
        .iter()
        .map(|(tracepoint, _)| Some(object.program(tracepoint.event)?.fd().ok()?.as_fd()))
        .collect();
    let (Some(maps), Some(programs)) = (maps, programs) else {
        report.attached = false;
        report.reason = "the object lacks a map that the probe reads".to_owned();
        return channel::send(socket, &report, &[], &[], &[]);
    };
    let events: Vec<_> = events.iter().map(AsFd::as_fd).collect();
    channel::send(socket, &report, &maps, &programs, &events)
}

/// The kinds of map that the probes read.
fn map_data(map: &Map) -> Option<&MapData> {
    match map {
        Map::PerCpuHashMap(data)
        | Map::PerCpuArray(data)
        | Map::HashMap(data)
        | Map::LruHashMap(data)
        | Map::RingBuf(data)
        | Map::PerfEventArray(data) => Some(data),
        _ => None,
    }
}

fn explain_load(error: &EbpfError) -> String {
    format!("loading the BPF object: {}{}", chain(error), hint(errno(error)))
}

fn explain_program(name: &str, error: &ProgramError) -> String {
    let ProgramError::LoadError { io_error, verifier_log } = error else {
        return format!("loading {name}: {}{}", chain(error), hint(errno(error)));
    };
    let log = verifier_log.to_string();
    // The verifier ends with figures about itself.
    let figures = ["verification time", "stack depth", "processed "];
    let said = |line: &&str| !line.is_empty() && !figures.iter().any(|f| line.starts_with(f));
    let lines: Vec<&str> = log.lines().map(str::trim).filter(said).collect();
    let last = lines.get(lines.len().saturating_sub(VERIFIER_LINES)..).unwrap_or_default();
    // Where the verifier has spoken, the error's number (EACCES, as a rule) is not about rights.
    let why = match last {
        [] => hint(io_error.raw_os_error()).to_owned(),
        last => format!(": {}", last.join(" | ")),
    };
    format!("the kernel refused {name}: {io_error}{why}")
}

/// What the user can do about an error of bpf() or perf_event_open().
fn hint(errno: Option<i32>) -> &'static str {
    match errno {
        Some(libc::EPERM | libc::EACCES) => {
            " (run the agent as root, or give it CAP_BPF and CAP_PERFMON; in a container also \
             lift its seccomp filter's ban on bpf and perf_event_open)"
        }
        Some(libc::ENOSYS) => {
            " (this kernel was built without CONFIG_BPF_SYSCALL or CONFIG_PERF_EVENTS)"
        }
        Some(jit::ENOTSUPP) => {
            " (the BPF JIT can't compile it: sysctl net.core.bpf_jit_enable=0 interprets instead)"
        }
        _ => "",
    }
}

/// An error and what it came from, as one line. aya's transparent errors repeat their source.
fn chain(error: &dyn Error) -> String {
    let mut text = error.to_string();
    let mut source = error.source();
    while let Some(error) = source {
        let part = error.to_string();
        if !text.ends_with(&part) {
            text.push_str(": ");
            text.push_str(&part);
        }
        source = error.source();
    }
    text
}

pub(super) fn errno(error: &(dyn Error + 'static)) -> Option<i32> {
    let mut next = Some(error);
    while let Some(error) = next {
        if let Some(error) = error.downcast_ref::<io::Error>() {
            return error.raw_os_error();
        }
        next = error.source();
    }
    None
}

#[cfg(test)]
mod tests {
    use super::*;

    fn named(name: &str) -> u8 {
        (0..).zip(super::super::SPECS).find(|(_, spec)| spec.name == name).unwrap().0
    }

    fn create_error(name: &str) -> EbpfError {
        let io_error = io::Error::from_raw_os_error(libc::ENOMEM);
        EbpfError::MapError(MapError::CreateError { name: name.to_owned(), io_error })
    }

    #[test]
    fn a_map_that_can_not_be_made_concerns_its_probes_alone() {
        let fault = load_fault(&create_error("TCP_PEERS"));
        assert_eq!(fault.probes, Some(vec![named("tcp")]));
        assert!(fault.reason.contains("TCP_PEERS"), "{}", fault.reason);
        // Not in what the agent reads, only in what the programs do.
        assert_eq!(load_fault(&create_error("BLOCK_STARTS")).probes, Some(vec![named("block")]));
        let probes = load_fault(&create_error("EVENTS")).probes.unwrap();
        assert!(probes.contains(&named("oom")) && !probes.contains(&named("tcp")), "{probes:?}");
    }

    #[test]
    fn what_is_not_used_has_its_own_reason() {
        let because = Unusable::Because("the kernel refused c: Invalid argument".to_owned());
        let missing = [("a", Unusable::Absent), ("c", because), ("b", Unusable::Absent)];
        assert_eq!(
            explain_missing(&missing),
            "this kernel lacks a, b; c is not used: the kernel refused c: Invalid argument"
        );
        assert_eq!(explain_missing(&[]), "");
    }

    #[test]
    fn every_map_of_the_object_has_a_probe() {
        for transport in [Transport::Ring, Transport::Perf] {
            let Some(object) = object::object(transport) else { return };
            let mut names = Vec::new();
            let record = |name: &str| {
                names.push(name.to_owned());
                true
            };
            direct::drop_maps(&mut object.to_vec(), record).unwrap();
            assert!(names.len() > 10, "{names:?}");
            for name in names {
                assert!(super::super::SPECS.iter().any(|spec| has_map(spec, &name)), "{name}");
            }
        }
    }
}
