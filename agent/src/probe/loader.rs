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

use aya::maps::{Map, MapData, MapType};
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
const EVENT_MAPS: [&str; 2] = ["EVENTS", "EVENT_RATIONS"];

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
    /// The optional tracepoints that are not there.
    missing: Vec<&'static str>,
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
        match resolve(&tracefs, index, spec) {
            Ok(probe) => resolved.push(probe),
            Err(reason) => refuse(index, reason)?,
        }
    }
    if resolved.is_empty() {
        return Ok(());
    }
    let mut object = match load_object(&resolved, sys, transport) {
        Ok(object) => object,
        Err(reason) => {
            return resolved.iter().try_for_each(|probe| refuse(probe.index, reason.clone()));
        }
    };
    if resolved.iter().any(|probe| !probe.spec.events.is_empty()) {
        let report = Report { transport: Some(transport), ..Report::default() };
        let maps = EVENT_MAPS.map(|name| Some(map_data(object.map(name)?)?.fd().as_fd()));
        if let [Some(events), Some(rations)] = maps {
            channel::send(socket, &report, &[events, rations], &[], &[])?;
        }
    }
    for probe in &resolved {
        match attach(&mut object, probe) {
            Ok(events) => hand_over(&object, probe, &events, socket)?,
            Err(reason) => refuse(probe.index, reason)?,
        }
    }
    Ok(())
}

fn resolve(tracefs: &Path, index: u8, spec: &'static Spec) -> Result<Resolved, String> {
    let mut probe =
        Resolved { index, spec, tracepoints: Vec::new(), fields: Vec::new(), missing: Vec::new() };
    let path = |tracepoint: &Tracepoint| -> PathBuf {
        tracefs.join("events").join(tracepoint.family).join(tracepoint.event).join("format")
    };
    let exists = |event: &str| {
        spec.tracepoints.iter().any(|other| other.event == event && path(other).is_file())
    };
    for tracepoint in spec.tracepoints {
        match resolve_tracepoint(&path(tracepoint), tracepoint, exists) {
            Ok((id, fields)) => {
                probe.tracepoints.push((tracepoint, id));
                probe.fields.extend(fields);
            }
            Err(reason) if !tracepoint.optional => return Err(reason),
            Err(_) => probe.missing.push(tracepoint.event),
        }
    }
    if probe.tracepoints.is_empty() {
        return Err(format!(
            "this kernel has none of its tracepoints: {}",
            probe.missing.join(", ")
        ));
    }
    Ok(probe)
}

type Fields = Vec<(Target, Option<Field>)>;

/// A tracepoint's ID and where its fields are.
fn resolve_tracepoint(
    path: &Path,
    tracepoint: &'static Tracepoint,
    exists: impl Fn(&str) -> bool,
) -> Result<(u32, Fields), String> {
    let bytes = fs::read(path).map_err(|error| match error.kind() {
        io::ErrorKind::NotFound => {
            format!("this kernel has no tracepoint {}:{}", tracepoint.family, tracepoint.event)
        }
        _ => format!("reading {}: {error}", path.display()),
    })?;
    let unusable = |error| format!("{}: {error}", path.display());
    let format = format::parse(&bytes).map_err(unusable)?;
    let mut fields = Vec::new();
    for needed in tracepoint.fields {
        let field = needed.resolve(&format, &exists).map_err(unusable)?;
        fields.push((needed.target, field.cloned()));
    }
    Ok((format.id, fields))
}

fn load_object(probes: &[Resolved], sys: &Path, transport: Transport) -> Result<Ebpf, String> {
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
    direct::patch(copy, &direct)?;
    let devices = devices(sys);
    let places: Vec<(&str, u32)> = fields(probes)
        .filter_map(|(target, field)| match target {
            Target::Global(global) => Some((*global, spec::place(field.as_ref()))),
            Target::Direct(_) => None,
        })
        .collect();
    let sized = || super::SPECS.iter().flat_map(|spec| spec.sized.iter().map(move |s| (spec, s)));
    // The maps of probes that don't run are made as well, as small as a map can be.
    let runs = |spec: &Spec| probes.iter().any(|probe| probe.spec.name == spec.name);
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
    if transport == Transport::Ring {
        let page = u32::try_from(rustix::param::page_size()).unwrap_or(u32::MAX);
        loader.map_max_entries("EVENTS", RING_BYTES.max(page));
    }
    loader.load(copy).map_err(|error| explain_load(&error))
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

/// Loads and attaches a probe's programs, and gives what keeps them attached.
fn attach(object: &mut Ebpf, probe: &Resolved) -> Result<Vec<OwnedFd>, String> {
    let mut events = Vec::new();
    for (tracepoint, id) in &probe.tracepoints {
        let program = object
            .program_mut(tracepoint.event)
            .ok_or_else(|| format!("the object has no program {}", tracepoint.event))?;
        let refused = |error: ProgramError| explain_program(tracepoint.event, &error);
        let program: &mut TracePoint = program.try_into().map_err(refused)?;
        jit::load(|| program.load()).map_err(refused)?;
        let fd = program.fd().map_err(refused)?;
        let event = perf::attach(*id, fd.as_fd()).map_err(|error| {
            let (family, event) = (tracepoint.family, tracepoint.event);
            format!("attaching to {family}:{event}: {error}{}", hint(error.raw_os_error()))
        })?;
        events.push(event);
    }
    Ok(events)
}

fn hand_over(
    object: &Ebpf,
    probe: &Resolved,
    events: &[OwnedFd],
    socket: BorrowedFd<'_>,
) -> io::Result<()> {
    let mut report = Report { probe: probe.index, attached: true, ..Report::default() };
    if !probe.missing.is_empty() {
        report.reason = format!("this kernel lacks {}", probe.missing.join(", "));
    }
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
