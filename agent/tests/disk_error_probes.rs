//! The probes `filesystem`, `mmc`, `scsi` and `thermal`. File systems fail for real here. Cards, SCSI disks
//! and hot zones are what a machine may not have, so their programs are given records of the tests' own: a
//! made-up tracefs names, as the tracepoint of a card, that of a system call, whose record is its arguments.
//! The kernel that verifies and runs the programs is the real one. Needs root, a BPF object in the
//! checkout, util-linux and e2fsprogs, and a kernel with CONFIG_FTRACE_SYSCALLS.

#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic)]

mod support;

use std::ffi::c_long;
use std::fs;
use std::os::unix::fs::MetadataExt as _;
use std::path::Path;
use std::sync::{Mutex, MutexGuard};

use mote::host::Roots;
use mote::probe::{Loader, Mode, Options, Probes, Source, Transport, format};
use support::Volume;
use support::probed::{Probed, Tracefs, detail};
use support::small_disk::{Aligned, BLOCK, SmallDisk};

const FILESYSTEM: &str = "mote_filesystem_errors_total";

/// The block device of the file system that this is on, as `loop3`.
fn device_of(path: &Path) -> String {
    let number = fs::metadata(path).unwrap().dev();
    let (major, minor) = (rustix::fs::major(number), rustix::fs::minor(number));
    let link = fs::read_link(format!("/sys/dev/block/{major}:{minor}")).unwrap();
    link.file_name().unwrap().to_str().unwrap().to_owned()
}

#[test]
fn an_error_that_ext4_meets_is_counted_and_told_with_its_mount_point() {
    let volume = Volume::new(8);
    let device = device_of(&volume.path());
    let mut probed = Probed::start("filesystem", Roots::default());
    let labels = [("device", device.as_str()), ("error", "ext4")];
    assert_eq!(probed.sum(FILESYSTEM, &labels), 0.0);
    volume.turn_read_only();
    // What ext4 has counted itself.
    let count = fs::read_to_string(format!("/sys/fs/ext4/{device}/errors_count")).unwrap();
    let count: f64 = count.trim().parse().unwrap();
    assert!(count >= 1.0);
    assert_eq!(probed.sum(FILESYSTEM, &labels), count);
    let events = probed.with("device", &device);
    let event = events.iter().find(|event| detail(event, "error") == Some("ext4")).unwrap();
    println!("{}", event.line());
    assert_eq!(event.kind, "filesystem_error");
    assert_eq!(detail(event, "mountpoint"), volume.path().to_str());
    assert!(detail(event, "line").unwrap().parse::<u32>().unwrap() > 0);
    assert_eq!(events.len() as f64, count);
}

#[test]
fn data_that_is_lost_after_write_said_it_was_written_is_told_with_inode_and_mount_point() {
    let mut disk = SmallDisk::new(2048, 16 << 10);
    disk.mount();
    let file = disk.mountpoint().join("lost");
    fs::write(&file, [0x22; BLOCK]).unwrap();
    rustix::fs::sync();
    let inode = fs::metadata(&file).unwrap().ino().to_string();
    disk.fill();
    let mut probed = Probed::start("filesystem", Roots::default());
    // Nobody is told of a failure here: neither by write() nor by close().
    fs::write(&file, vec![0x33; 1 << 20]).unwrap();
    rustix::fs::sync();
    let labels = [("device", disk.name())];
    let count = probed.sum(FILESYSTEM, &labels);
    for event in &probed.events {
        println!("{}", event.line());
    }
    println!("{count} counted");
    assert!(count >= 1.0);
    let events = probed.with("inode", &inode);
    let event = events.iter().find(|e| detail(e, "device") == Some(disk.name())).unwrap();
    assert_eq!(detail(event, "mountpoint"), disk.mountpoint().to_str());
    assert!(event.message.contains("has been lost"), "{}", event.message);
    // The loop device passes on what tmpfs said; what fsync would have said is the same.
    let error = detail(event, "error").unwrap().to_owned();
    assert!(["ENOSPC", "EIO"].contains(&error.as_str()), "{error}");
    let labels = [("device", disk.name()), ("error", error.as_str())];
    assert!(probed.sum(FILESYSTEM, &labels) >= 1.0);
    let fsync = fs::File::open(&file).unwrap().sync_all();
    let errno = fsync.unwrap_err().raw_os_error().unwrap();
    let expected = if error == "ENOSPC" { libc::ENOSPC } else { libc::EIO };
    assert_eq!(errno, expected, "the independent witness: fsync");
}

#[test]
fn data_of_a_device_without_file_system_is_told_with_the_device() {
    use std::io::Write as _;
    let disk = SmallDisk::new(64, 1024);
    disk.fill();
    let mut probed = Probed::start("filesystem", Roots::default());
    let mut file = fs::OpenOptions::new().write(true).open(disk.device()).unwrap();
    file.write_all(&Aligned([1; 16 * BLOCK]).0).unwrap();
    assert!(file.sync_all().is_err());
    probed.round();
    let events = probed.with("device", disk.name());
    println!("{}", events[0].line());
    let expected = format!("data written to the device {} itself has been lost: ", disk.name());
    assert!(events[0].message.starts_with(&expected), "{}", events[0].message);
    assert!(probed.sum(FILESYSTEM, &[("device", "bdev")]) >= 1.0);
}

#[test]
fn what_has_no_tracepoint_here_is_told_by_the_log_with_a_reason_and_the_rest_is_attached() {
    let loader = Loader { executable: env!("CARGO_BIN_EXE_mote").into(), ..Loader::default() };
    let options = Options { loader, ..Options::default() };
    let mut host = mote::host::Host::new(Roots::default());
    let mut probes = Probes::start(&options, &host);
    let tracefs = Tracefs::new();
    for (name, event) in [
        ("mmc", "mmc/mmc_request_done"),
        ("scsi", "scsi/scsi_dispatch_cmd_done"),
        ("filesystem", "filemap/filemap_set_wb_err"),
        ("thermal", "thermal/thermal_zone_trip"),
    ] {
        let status = probes.status().find(|status| status.name == name).unwrap();
        println!("{name}: {:?} [{}]", status.source, status.reason);
        if tracefs.path().join("events").join(event).exists() {
            assert_eq!((status.source, status.reason.as_str()), (Source::Tracepoint, ""));
        } else {
            assert_eq!(status.source, Source::Kmsg);
            let expected = format!("this kernel has no tracepoint {}", event.replace('/', ":"));
            assert_eq!(status.reason, expected);
        }
    }
    // Nothing has failed, so there is nothing to say of it.
    let mut out = mote::model::Samples::with_limit(10_000);
    probes.collect(&mut host, 0, &mut out);
    assert!(!out.iter().any(|sample| sample.name() == "mote_mmc_errors_total"));
    assert!(!out.iter().any(|sample| sample.name() == "mote_scsi_errors_total"));
}

#[test]
fn every_program_passes_the_verifier_in_both_objects() {
    let made = MadeUp::new();
    let scsi = &SCSI_FIELDS[..];
    for (event, fields) in [
        ("mmc/mmc_request_done", &MMC_FIELDS[..]),
        ("scsi/scsi_dispatch_cmd_done", scsi),
        ("scsi/scsi_dispatch_cmd_timeout", scsi),
        ("scsi/scsi_dispatch_cmd_error", scsi),
        ("thermal/thermal_zone_trip", &THERMAL_FIELDS),
        ("ext4/ext4_error", &[("dev_t dev", 0, 4), ("unsigned line", 4, 4)]),
        (
            "filemap/filemap_set_wb_err",
            // As on a 32-bit kernel.
            &[("unsigned long i_ino", 0, 4), ("dev_t s_dev", 4, 4), ("errseq_t errseq", 8, 4)],
        ),
    ] {
        made.name("process_vm_writev", event, fields);
    }
    for transport in [Transport::Ring, Transport::Perf] {
        let loader = Loader {
            executable: env!("CARGO_BIN_EXE_mote").into(),
            transport: Some(transport),
            ..Loader::default()
        };
        let names = ["mmc", "scsi", "filesystem", "thermal"];
        let named = names.map(|name| (name, Mode::On)).to_vec();
        let options = Options { default: Mode::Off, named, loader, ..Options::default() };
        let probes = Probes::start(&options, &mote::host::Host::new(made.roots()));
        assert_eq!(probes.required(), Ok(()), "{transport:?}");
    }
}

/// Where the arguments of a system call begin in its record; 8 bytes each.
const ARGUMENTS: usize = 16;

/// Tests that make the same calls would count each other's.
static CALLS: Mutex<()> = Mutex::new(());

/// A sysfs with a tracefs in it whose tracepoints are those of system calls.
struct MadeUp {
    _calls: MutexGuard<'static, ()>,
    sys: tempfile::TempDir,
    tracefs: Tracefs,
}

impl MadeUp {
    fn new() -> MadeUp {
        let _calls = CALLS.lock().unwrap_or_else(|poisoned| poisoned.into_inner());
        MadeUp { _calls, sys: tempfile::tempdir().unwrap(), tracefs: Tracefs::new() }
    }

    fn roots(&self) -> Roots {
        Roots { sys: self.sys.path().into(), ..Roots::default() }
    }

    /// Names a system call's tracepoint as another one, with fields at these places among its arguments.
    fn name(&self, call: &str, event: &str, fields: &[(&str, usize, usize)]) {
        let real = self.tracefs.path().join(format!("events/syscalls/sys_enter_{call}/format"));
        let bytes = fs::read(&real).unwrap_or_else(|error| {
            panic!("{}: {error}; the kernel needs CONFIG_FTRACE_SYSCALLS", real.display())
        });
        let real = format::parse(&bytes).unwrap();
        let first = real.fields.iter().position(|field| field.name == "__syscall_nr").unwrap() + 1;
        assert_eq!(real.fields[first].offset as usize, ARGUMENTS, "{:?}", real.fields);
        let name = event.rsplit('/').next().unwrap();
        let mut text = format!("name: {name}\nID: {}\nformat:\n", real.id);
        for (declaration, offset, size) in fields {
            let offset = ARGUMENTS + offset;
            text += &format!("\tfield:{declaration};\toffset:{offset};\tsize:{size};\tsigned:0;\n");
        }
        text += "\nprint fmt: \"\"\n";
        let folder = self.sys.path().join("kernel/tracing/events").join(event);
        fs::create_dir_all(&folder).unwrap();
        fs::write(folder.join("format"), text).unwrap();
    }

    fn file(&self, path: &str, text: &str) {
        let path = self.sys.path().join(path);
        fs::create_dir_all(path.parent().unwrap()).unwrap();
        fs::write(path, text).unwrap();
    }
}

/// One of the calls process_vm_readv, process_vm_writev, move_pages and mbind, which no one else on this
/// machine makes, with arguments that it refuses.
fn call(number: c_long, words: &[u32]) {
    let mut arguments = [0u64; 6];
    for (argument, pair) in arguments.iter_mut().zip(words.chunks(2)) {
        *argument = u64::from(pair[0]) | u64::from(*pair.get(1).unwrap_or(&0)) << 32;
    }
    // The flags of each of these calls, of which there are not so many.
    arguments[5] |= 0xffff_0000;
    let [a, b, c, d, e, f] = arguments;
    // SAFETY: the kernel refuses the flags before it looks at any of the memory that the others name.
    #[allow(unsafe_code, reason = "the point is a call with arguments that no wrapper would make")]
    let result = unsafe { libc::syscall(number, a, b, c, d, e, f) };
    assert_eq!(result, -1);
}

fn word(text: &[u8; 4]) -> u32 {
    u32::from_ne_bytes(*text)
}

/// A `__data_loc`: where the text is in the record, and how long.
fn location(offset: usize, len: usize) -> u32 {
    ((len as u32) << 16) | (ARGUMENTS + offset) as u32
}

const MMC_FIELDS: [(&str, usize, usize); 7] = [
    ("u32 cmd_opcode", 0, 4),
    ("int sbc_err", 4, 4),
    ("int cmd_err", 8, 4),
    ("int data_err", 12, 4),
    ("int stop_err", 16, 4),
    ("unsigned int bytes_xfered", 20, 4),
    ("__data_loc char[] name", 24, 4),
];

/// `result` and `rtn` are fields of different tracepoints.
const SCSI_FIELDS: [(&str, usize, usize); 8] = [
    ("unsigned int host_no", 0, 4),
    ("unsigned int channel", 4, 4),
    ("unsigned int id", 8, 4),
    ("unsigned int lun", 12, 4),
    ("int result", 16, 4),
    ("int rtn", 16, 4),
    ("unsigned int opcode", 20, 4),
    ("u8 sense_key", 24, 1),
];

const THERMAL_FIELDS: [(&str, usize, usize); 4] = [
    ("int id", 0, 4),
    ("int trip", 4, 4),
    ("enum thermal_trip_type trip_type", 8, 4),
    ("__data_loc char[] thermal_zone", 16, 4),
];

#[test]
fn card_that_fails_is_counted_and_told_and_an_empty_slot_is_not() {
    let made = MadeUp::new();
    made.name("process_vm_writev", "mmc/mmc_request_done", &MMC_FIELDS);
    let mut probed = Probed::start("mmc", made.roots());
    let request = |opcode: u32, errors: [i32; 4], bytes: u32| {
        let [sbc, cmd, data, stop] = errors.map(|error| -error as u32);
        let name = (location(32, 5), word(b"mmc1"));
        call(
            libc::SYS_process_vm_writev,
            &[opcode, sbc, cmd, data, stop, bytes, name.0, 0, name.1, 0],
        );
    };
    for _ in 0..1_000 {
        request(18, [0; 4], 4096);
    }
    for opcode in [0, 1, 5, 8, 41, 52, 55] {
        request(opcode, [0, libc::ETIMEDOUT, 0, 0], 0);
    }
    request(21, [0, libc::EILSEQ, libc::EILSEQ, 0], 0);
    let any = probed.round();
    assert!(!any.iter().any(|(name, _, _)| name.contains("mmc_errors")), "{any:?}");
    assert!(probed.events.is_empty());

    request(18, [0, 0, libc::EILSEQ, libc::ETIMEDOUT], 512);
    request(13, [0, libc::ETIMEDOUT, 0, 0], 0);
    request(0, [0, 0, libc::ETIMEDOUT, 0], 0);
    let errors = "mote_mmc_errors_total";
    assert_eq!(probed.sum(errors, &[("host", "mmc1"), ("error", "EILSEQ")]), 1.0);
    assert_eq!(probed.sum(errors, &[("host", "mmc1"), ("error", "ETIMEDOUT")]), 2.0);
    assert_eq!(probed.sum(errors, &[]), 3.0);
    let lines: Vec<_> = probed.events.iter().map(|event| event.line()).collect();
    assert_eq!(lines.len(), 3, "{lines:?}");
    assert_eq!(
        lines[0],
        "msg=\"CMD18 to the card in mmc1: data failed with EILSEQ\" host=mmc1 opcode=18 part=data \
         error=EILSEQ bytes=512"
    );
    assert!(lines[2].contains("a queued transfer"), "{lines:?}");
}

#[test]
fn more_kinds_of_error_than_there_is_room_for_are_counted_as_lost() {
    let made = MadeUp::new();
    made.name("process_vm_writev", "mmc/mmc_request_done", &MMC_FIELDS);
    let mut probed = Probed::start("mmc", made.roots());
    for error in 1..=100 {
        call(
            libc::SYS_process_vm_writev,
            &[18, 0, 0, -error as u32, 0, 0, location(32, 5), 0, word(b"mmc0")],
        );
    }
    let counted = probed.sum("mote_mmc_errors_total", &[]);
    let labels = [("probe", "mmc"), ("reason", "errors_full")];
    let lost = probed.sum("mote_probe_lost_total", &labels);
    assert_eq!((counted, lost), (32.0, 68.0));
}

#[test]
fn disk_whose_commands_fail_is_named_and_what_only_asks_a_question_is_not_counted() {
    let made = MadeUp::new();
    made.name("process_vm_readv", "scsi/scsi_dispatch_cmd_done", &SCSI_FIELDS);
    made.name("move_pages", "scsi/scsi_dispatch_cmd_timeout", &SCSI_FIELDS);
    made.name("mbind", "scsi/scsi_dispatch_cmd_error", &SCSI_FIELDS);
    made.file("bus/scsi/devices/2:0:1:0/block/sdc/size", "8\n");
    let mut probed = Probed::start("scsi", made.roots());
    let send = |number: c_long, id: u32, result: u32, opcode: u32, sense_key: u32| {
        call(number, &[2, 0, id, 0, result, opcode, sense_key]);
    };
    let done = libc::SYS_process_vm_readv;
    for _ in 0..1_000 {
        send(done, 1, 0, 0x28, 0);
    }
    // Unit attention, not ready, illegal request, nobody there, busy; a driver without room.
    send(done, 1, 0x0800_0002, 0x28, 6);
    send(done, 1, 0x0800_0002, 0x00, 2);
    send(done, 1, 0x0000_0002, 0x42, 5);
    send(done, 9, 0x0001_0000, 0x12, 0);
    send(done, 1, 0x0000_0028, 0x2a, 0);
    send(libc::SYS_mbind, 1, 0x1056, 0x28, 0);
    let any = probed.round();
    assert!(!any.iter().any(|(name, _, _)| name.contains("scsi_errors")), "{any:?}");
    assert!(probed.events.is_empty(), "{:?}", probed.events);

    send(done, 1, 0x0800_0002, 0x28, 3);
    send(done, 1, 0x0000_0002, 0x2a, 4);
    send(done, 9, 0x0001_0000, 0x28, 0);
    send(libc::SYS_move_pages, 1, 0, 0x35, 0);
    send(libc::SYS_mbind, 1, 0x2003, 0x28, 0);
    let errors = "mote_scsi_errors_total";
    for (device, error) in [
        ("sdc", "medium_error"),
        ("sdc", "hardware_error"),
        ("2:0:9:0", "did_no_connect"),
        ("sdc", "timeout"),
        ("sdc", "dispatch"),
    ] {
        assert_eq!(probed.sum(errors, &[("device", device), ("error", error)]), 1.0, "{error}");
        let events = probed.with("error", error);
        assert_eq!(events.len(), 1, "{error}");
        assert_eq!(detail(events[0], "device"), Some(device));
    }
    assert_eq!(probed.sum(errors, &[]), 5.0);
    assert!(probed.events.iter().any(|event| event.message == "read on sdc: medium_error"));
}

#[test]
fn disk_that_is_plugged_in_again_and_again_is_counted_on_and_leaves_nothing_behind() {
    let made = MadeUp::new();
    made.name("process_vm_readv", "scsi/scsi_dispatch_cmd_done", &SCSI_FIELDS);
    made.name("move_pages", "scsi/scsi_dispatch_cmd_timeout", &SCSI_FIELDS);
    made.name("mbind", "scsi/scsi_dispatch_cmd_error", &SCSI_FIELDS);
    made.file("bus/scsi/devices/0:0:0:0/block/sda/size", "8\n");
    let mut probed = Probed::start("scsi", made.roots());
    let failed = |host: u32, sense: u32| {
        let words = [host, 0, 0, 0, 0x0800_0002, 0x28, sense];
        call(libc::SYS_process_vm_readv, &words);
    };
    let errors = "mote_scsi_errors_total";
    failed(0, 4);
    // More than the table has room for by far. Every third is gone before anyone asks for its name.
    const REPLUGS: u32 = 1_000;
    let mut last = 0.0;
    for host in 1..=REPLUGS {
        let named = host % 3 != 0;
        let folder = format!("bus/scsi/devices/{host}:0:0:0");
        if named {
            made.file(&format!("{folder}/block/sdb/size"), "8\n");
        }
        failed(host, 3);
        let now = probed.sum(errors, &[("device", "sdb"), ("error", "medium_error")]);
        assert_eq!(now, last + f64::from(u8::from(named)), "host {host}");
        if named {
            fs::remove_dir_all(made.sys.path().join(folder)).unwrap();
        }
        let rows = probed.round();
        assert!(rows.len() < 100, "{} series", rows.len());
        last = now;
    }
    assert_eq!(last, f64::from(REPLUGS - REPLUGS / 3));
    let lost = [("probe", "scsi"), ("reason", "errors_full")];
    assert_eq!(probed.sum("mote_probe_lost_total", &lost), 0.0);
    // sda is still there, and has no errors either.
    let mut rounds = 0;
    while probed.sum(errors, &[("device", "sdb")]) > 0.0 {
        rounds += 1;
        assert!(rounds < 1_000);
    }
    assert!(rounds > 100, "{rounds}");
    for _ in 0..2 {
        assert_eq!(probed.sum(errors, &[]), 1.0);
    }
    failed(0, 4);
    assert_eq!(probed.sum(errors, &[("device", "sda")]), 2.0);
    made.file("bus/scsi/devices/5000:0:0:0/block/sdb/size", "8\n");
    failed(5000, 3);
    assert_eq!(probed.sum(errors, &[("device", "sdb")]), 1.0, "begins anew");
}

#[test]
fn kernel_without_sense_keys_counts_check_conditions_of_reads_and_writes_alone() {
    let made = MadeUp::new();
    let (_, fields) = SCSI_FIELDS.split_last().unwrap();
    for (call, event) in
        [("process_vm_readv", "done"), ("move_pages", "timeout"), ("mbind", "error")]
    {
        made.name(call, &format!("scsi/scsi_dispatch_cmd_{event}"), fields);
    }
    let mut probed = Probed::start("scsi", made.roots());
    for opcode in [0x00, 0x12, 0x1a, 0x4d, 0x85, 0xa1, 0x42, 0x28, 0x8a] {
        call(libc::SYS_process_vm_readv, &[0, 0, 0, 0, 0x0800_0002, opcode]);
    }
    let labels = [("device", "0:0:0:0"), ("error", "check_condition")];
    assert_eq!(probed.sum("mote_scsi_errors_total", &labels), 2.0);
    assert_eq!(probed.sum("mote_scsi_errors_total", &[]), 2.0);
}

#[test]
fn zone_that_stays_hot_is_counted_each_time_and_told_once() {
    let made = MadeUp::new();
    made.name("process_vm_writev", "thermal/thermal_zone_trip", &THERMAL_FIELDS);
    made.file("class/thermal/thermal_zone3/temp", "85250\n");
    let mut probed = Probed::start("thermal", made.roots());
    let trip = |zone: u32, trip: u32, kind: u32| {
        let (first, second) = (word(b"cpu-"), word(b"heat"));
        call(
            libc::SYS_process_vm_writev,
            &[zone, trip, kind, 0, location(24, 9), 0, first, second],
        );
    };
    for _ in 0..100 {
        trip(3, 1, 1);
    }
    trip(3, 2, 3);
    let trips = "mote_thermal_trips_total";
    assert_eq!(probed.sum(trips, &[("zone", "3"), ("type", "passive")]), 100.0);
    assert_eq!(probed.sum(trips, &[("zone", "3"), ("type", "critical")]), 1.0);
    let lines: Vec<_> = probed.events.iter().map(|event| event.line()).collect();
    assert_eq!(lines.len(), 2, "{lines:?}");
    assert_eq!(
        lines[0],
        "msg=\"thermal zone 3 (cpu-heat) has reached its passive trip point at 85.25 °C\" zone=3 \
         name=cpu-heat trip=1 type=passive celsius=85.25"
    );
    assert!(lines[1].contains("type=critical"), "{lines:?}");
}
