//! The whole way from what a disk answers to samples, with disks that a test plays.

use std::collections::VecDeque;
use std::fs;
use std::os::unix::fs::symlink;
use std::path::Path;
use std::sync::Mutex;
use std::sync::mpsc;
use std::time::Instant;

use super::device::{Transport, read};
use super::*;
use crate::host::Roots;
use crate::host::ioctl::ScsiAnswer;

/// Answers to commands, in order; a command that is not expected fails the test.
struct Played(VecDeque<(Vec<u8>, io::Result<ScsiAnswer>, Vec<u8>)>);

impl Played {
    fn new<const N: usize>(script: [(&[u8], io::Result<ScsiAnswer>, &[u8]); N]) -> Played {
        let own =
            |(command, answer, data): (&[u8], _, &[u8])| (command.to_vec(), answer, data.to_vec());
        Played(script.into_iter().map(own).collect())
    }
}

impl Transport for Played {
    fn scsi(&mut self, command: &[u8], data: &mut [u8]) -> io::Result<ScsiAnswer> {
        let (expected, answer, bytes) =
            self.0.pop_front().unwrap_or_else(|| panic!("one more command: {command:x?}"));
        assert_eq!(command, expected, "{command:x?}");
        data.iter_mut().zip(bytes).for_each(|(to, from)| *to = from);
        answer
    }

    fn log_page(&mut self, page: u8, data: &mut [u8]) -> io::Result<u16> {
        assert_eq!((page, data.len()), (0x02, 512));
        let (_, answer, bytes) = self.0.pop_front().unwrap();
        data.iter_mut().zip(bytes).for_each(|(to, from)| *to = from);
        answer.map(|answer| answer.read as u16)
    }
}

/// The answer with registers.
fn registers(status: u8, count: u8, lba: [u8; 2]) -> io::Result<ScsiAnswer> {
    let sense = [
        0x72, 1, 0, 0x1d, 0, 0, 0, 14, 0x09, 0x0c, 0, 0, 0, count, 0, 0, 0, lba[0], 0, lba[1], 0,
        status,
    ];
    Ok(ScsiAnswer::new(2, 0, &sense))
}

/// The answer with sense data.
fn refusal(key: u8, code: u8) -> io::Result<ScsiAnswer> {
    Ok(ScsiAnswer::new(2, 0, &[0x70, 0, key, 0, 0, 0, 0, 10, 0, 0, 0, 0, code, 0]))
}

fn good(read: usize) -> io::Result<ScsiAnswer> {
    Ok(ScsiAnswer::new(0, read, &[]))
}

fn sealed(mut page: [u8; 512]) -> [u8; 512] {
    page[511] = page.iter().fold(0u8, |sum, byte| sum.wrapping_sub(*byte));
    page
}

fn identify() -> [u8; 512] {
    let mut page = [0; 512];
    page[20..24].copy_from_slice(b"BA1C");
    page[54..58].copy_from_slice(b"om d");
    page
}

fn data() -> [u8; 512] {
    let mut page = [0; 512];
    page[2..14].copy_from_slice(&[5, 0x33, 0, 30, 30, 7, 0, 0, 0, 0, 0, 0]);
    page[14..26].copy_from_slice(&[194, 0x22, 0, 60, 50, 40, 0, 0, 0, 0, 0, 0]);
    sealed(page)
}

fn limits() -> [u8; 512] {
    let mut page = [0; 512];
    page[2..4].copy_from_slice(&[5, 36]);
    sealed(page)
}

#[test]
fn a_disk_that_stands_still_gets_no_other_command() {
    for access in [Access::Ata, Access::Bridge] {
        for answer in [registers(0x50, 0x00, [0, 0]), refusal(2, 0x04)] {
            let mut disk = Played::new([(&ata::ASK_POWER, answer, &[])]);
            assert_eq!(read(&mut disk, access, false).unwrap(), Report::Standby);
        }
    }
}

#[test]
fn an_ata_disk_is_asked_in_order_and_what_it_lacks_costs_itself() {
    let whole = |status| {
        Played::new([
            (&ata::ASK_POWER, refusal(6, 0x29), &[]),
            (&ata::ASK_POWER, registers(0x50, 0xff, [0, 0]), &[]),
            (&ata::ASK_IDENTITY, good(512), &identify()),
            (&ata::ASK_DATA, good(512), &data()),
            (&ata::ASK_THRESHOLDS, good(512), &limits()),
            (&ata::ASK_STATUS, status, &[]),
        ])
    };
    let ask = |status| match read(&mut whole(status), Access::Ata, false).unwrap() {
        Report::Ata(health) => health,
        other => panic!("{other:?}"),
    };
    let health = ask(registers(0x50, 0, [0x4f, 0xc2]));
    assert_eq!(health.healthy, Some(true));
    assert_eq!(health.attributes.first().unwrap().threshold, Some(36));
    assert_eq!((health.identity.serial.as_str(), health.fault), ("ABC1", None));
    assert_eq!(ask(registers(0x50, 0, [0xf4, 0x2c])).healthy, Some(false));
    // Without registers the thresholds decide: 30 is below 36.
    assert_eq!(ask(good(0)).healthy, Some(false));

    let mut disk = Played::new([
        (&ata::ASK_POWER, good(0), &[]),
        (&ata::ASK_IDENTITY, good(512), &identify()),
        (&ata::ASK_DATA, good(511), &data()),
        (&ata::ASK_THRESHOLDS, refusal(0x0b, 0), &[]),
        (&ata::ASK_STATUS, registers(0x51, 0, [0, 0]), &[]),
    ]);
    let Report::Ata(health) = read(&mut disk, Access::Ata, false).unwrap() else {
        panic!("not ATA")
    };
    assert_eq!(health.fault, Some(("SMART READ DATA", ata::Malformed::Short)));
    assert_eq!((health.healthy, health.attributes.len()), (None, 0));
}

#[test]
fn a_disk_whose_smart_is_off_is_not_asked_for_it() {
    let mut page = identify();
    page[2 * 83 + 1] = 0x40;
    let mut disk = Played::new([
        (&ata::ASK_POWER, registers(0x50, 0xff, [0, 0]), &[]),
        (&ata::ASK_IDENTITY, good(512), &page),
    ]);
    let Report::Ata(health) = read(&mut disk, Access::Ata, false).unwrap() else {
        panic!("not ATA")
    };
    assert!(!health.identity.smart && health.attributes.is_empty() && health.healthy.is_none());
}

#[test]
fn a_bridge_that_does_not_translate_is_asked_as_scsi() {
    let exceptions = [0x2f, 0, 0, 8, 0, 0, 3, 4, 0x5d, 0x10, 38, 0];
    let script = |power| {
        Played::new([
            (&ata::ASK_POWER, power, &[]),
            (&scsi::log_sense(0x2f), good(12), &exceptions),
            (&scsi::log_sense(0x0d), refusal(5, 0x24), &[]),
        ])
    };
    let health = scsi::Health { healthy: Some(false), temperature: Some(38.0) };
    let report = read(&mut script(refusal(5, 0x20)), Access::Bridge, false).unwrap();
    assert_eq!(report, Report::Scsi(health));
    let mut silent = Played::new([(&ata::ASK_POWER, refusal(5, 0x20), &[])]);
    assert_eq!(read(&mut silent, Access::Ata, false).unwrap(), Report::Silent);
    let mut silent = Played::new([
        (&scsi::log_sense(0x2f), refusal(5, 0x20), &[]),
        (&scsi::log_sense(0x0d), refusal(5, 0x20), &[]),
    ]);
    assert_eq!(read(&mut silent, Access::Scsi, false).unwrap(), Report::Silent);
}

#[test]
fn a_command_that_fails_ends_the_questions() {
    let cases = [
        refusal(4, 0x44),
        Ok(ScsiAnswer::new(8, 0, &[])),
        Err(io::Error::from_raw_os_error(libc::EPERM)),
    ];
    for answer in cases {
        let mut disk = Played::new([(&ata::ASK_POWER, answer, &[])]);
        let error = read(&mut disk, Access::Bridge, false).unwrap_err();
        assert!(!error.to_string().is_empty());
    }
}

#[test]
fn an_nvme_controller_without_the_page_is_silent_and_a_failure_is_an_error() {
    let ask = |status| {
        let page = [3; 512];
        read(&mut Played::new([(&[], good(status), &page)]), Access::Nvme, false)
    };
    assert!(matches!(ask(0), Ok(Report::Nvme(log)) if log.critical_warning == 3));
    for unsupported in [0x4002, 0x0001, 0x4109] {
        assert_eq!(ask(unsupported).unwrap(), Report::Silent);
    }
    assert!(ask(0x0006).unwrap_err().to_string().contains("0x006"));
}

/// A tree of sysfs with these disks: name, where its device is, type, vendor, removable.
fn tree(disks: &[(&str, &str, &str, &str, &str)]) -> tempfile::TempDir {
    let dir = tempfile::tempdir().unwrap();
    fs::create_dir_all(dir.path().join("block")).unwrap();
    for (name, place, kind, vendor, removable) in disks {
        let device = dir.path().join("devices").join(place).join(name);
        fs::create_dir_all(device.join("device/power")).unwrap();
        let files = [
            ("device/type", *kind),
            ("device/vendor", *vendor),
            ("removable", *removable),
            ("device/model", "A model        "),
            ("device/power/runtime_status", "active"),
        ];
        for (file, text) in files {
            fs::write(device.join(file), format!("{text}\n")).unwrap();
        }
        symlink(
            Path::new("../devices").join(place).join(name),
            dir.path().join("block").join(name),
        )
        .unwrap();
    }
    dir
}

fn host(dir: &Path) -> Host {
    Host::new(Roots { sys: dir.into(), root: dir.into(), ..Roots::default() })
}

fn collect(smart: &mut Smart, host: &mut Host) -> (Result<(), CollectError>, Vec<String>) {
    let mut out = Samples::with_limit(1_000);
    let result = smart.collect(host, &mut out);
    let show = |sample: crate::model::Sample<'_>| {
        let labels: Vec<_> =
            sample.labels().map(|(name, value)| format!("{name}={value}")).collect();
        let name = sample.name().trim_start_matches("node_smart_").to_owned();
        format!("{name}{{{}}} {}", labels.join(","), sample.value)
    };
    (result, out.iter().map(show).collect())
}

const LONG: Duration = Duration::from_secs(60);

#[test]
fn disks_are_told_apart_and_others_are_not_asked() {
    let dir = tree(&[
        ("sda", "pci0/ata1/host0", "0", "ATA     ", "0"),
        ("sdb", "pci0/usb2/2-1/host1", "0", "JMicron ", "0"),
        ("sdc", "pci0/usb2/2-2/host2", "0", "SanDisk ", "1"),
        ("sdd", "pci0/host3", "0", "SEAGATE ", "0"),
        ("sde", "pci0/host3", "5", "ATA     ", "0"),
        ("sdf", "pci0/host3", "0", "ATA     ", "0"),
        ("sr0", "pci0/host3", "5", "ATA     ", "1"),
        ("nvme0n1", "pci1/nvme/nvme0", "", "", "0"),
        ("nvme0n2", "pci1/nvme/nvme0", "", "", "0"),
        ("nvme0c0n1", "pci1/nvme/nvme0", "", "", "0"),
        ("nvme10n1", "pci1/nvme/nvme10", "", "", "0"),
        ("mmcblk0", "mmc0", "", "", "0"),
        ("loop0", "virtual", "", "", "0"),
    ]);
    let status = dir.path().join("devices/pci0/host3/sdf/device/power/runtime_status");
    fs::write(status, "suspended\n").unwrap();
    let asked = Arc::new(Mutex::new(Vec::new()));
    let log = Arc::clone(&asked);
    let options = SmartOptions {
        device_exclude: crate::collector::pattern("^nvme10").ok(),
        ..SmartOptions::default()
    };
    let mut smart = Smart::with(&options, LONG, move |task| {
        assert!(task.path.ends_with(format!("dev/{}", task.name)));
        log.lock().unwrap().push((task.name.clone(), task.access));
        task.answer = Ok(Report::Scsi(scsi::Health { healthy: None, temperature: Some(30.0) }));
    });
    let (result, samples) = collect(&mut smart, &mut host(dir.path()));
    result.unwrap();
    let expected = [
        ("nvme0n1", Access::Nvme),
        ("sda", Access::Ata),
        ("sdb", Access::Bridge),
        ("sdd", Access::Scsi),
    ];
    assert_eq!(*asked.lock().unwrap(), expected.map(|(name, access)| (name.to_owned(), access)));
    assert!(samples.contains(&"device_standby{device=sdf} 1".to_owned()), "{samples:?}");
    assert!(samples.contains(&"device_standby{device=sda} 0".to_owned()), "{samples:?}");
    let info = "info{device=sdd,firmware=,model=A model,protocol=scsi,serial=} 1";
    assert!(samples.contains(&info.to_owned()), "{samples:?}");
}

#[test]
fn the_samples_of_each_kind_of_disk() {
    let dir =
        tree(&[("sda", "pci0/ata1", "0", "ATA", "0"), ("nvme0n1", "pci1/nvme/nvme0", "", "", "0")]);
    let mut smart = Smart::with(&SmartOptions::default(), LONG, |task| {
        let mut disk = if task.access == Access::Nvme {
            let mut page = [0; 512];
            page[..6].copy_from_slice(&[1, 0x2c, 1, 90, 10, 102]);
            page[112] = 5;
            Played::new([(&[], good(0), &page)])
        } else {
            Played::new([
                (&ata::ASK_POWER, registers(0x50, 0xff, [0, 0]), &[]),
                (&ata::ASK_IDENTITY, good(512), &identify()),
                (&ata::ASK_DATA, good(512), &data()),
                (&ata::ASK_THRESHOLDS, good(512), &limits()),
                (&ata::ASK_STATUS, registers(0x50, 0, [0x4f, 0xc2]), &[]),
            ])
        };
        task.answer = read(&mut disk, task.access, task.brief);
    });
    let mut host = host(dir.path());
    let (result, samples) = collect(&mut smart, &mut host);
    result.unwrap();
    let zeros = [
        "read_bytes_total",
        "written_bytes_total",
        "read_commands_total",
        "write_commands_total",
        "controller_busy_seconds_total",
        "unsafe_shutdowns_total",
        "media_errors_total",
        "error_log_entries_total",
        "warning_temperature_seconds_total",
        "critical_temperature_seconds_total",
    ];
    let mut expected: Vec<String> = [
        "info{device=nvme0n1,firmware=,model=A model,protocol=nvme,serial=} 1",
        "info{device=sda,firmware=,model=mod,protocol=ata,serial=ABC1} 1",
        "device_standby{device=nvme0n1} 0",
        "device_standby{device=sda} 0",
        "healthy{device=nvme0n1} 0",
        "healthy{device=sda} 1",
        "temperature_celsius{device=nvme0n1} 27",
        "temperature_celsius{device=sda} 40",
        "power_on_seconds_total{device=nvme0n1} 0",
        "power_cycles_total{device=nvme0n1} 5",
        "critical_warning{device=nvme0n1,warning=available_spare} 1",
        "critical_warning{device=nvme0n1,warning=temperature} 0",
        "critical_warning{device=nvme0n1,warning=reliability} 0",
        "critical_warning{device=nvme0n1,warning=read_only} 0",
        "critical_warning{device=nvme0n1,warning=volatile_memory_backup} 0",
        "critical_warning{device=nvme0n1,warning=persistent_memory} 0",
        "available_spare_ratio{device=nvme0n1} 0.9",
        "available_spare_threshold_ratio{device=nvme0n1} 0.1",
        "percentage_used_ratio{device=nvme0n1} 1.02",
    ]
    .map(str::to_owned)
    .to_vec();
    expected.extend(zeros.map(|name| format!("{name}{{device=nvme0n1}} 0")));
    let five = "attribute_id=5,attribute_name=Reallocated_Sector_Ct,device=sda";
    let heat = "attribute_id=194,attribute_name=Temperature_Celsius,device=sda";
    expected.extend([
        format!("attribute_raw{{{five}}} 7"),
        format!("attribute_raw{{{heat}}} 40"),
        format!("attribute_normalized{{{five}}} 30"),
        format!("attribute_normalized{{{heat}}} 60"),
        format!("attribute_worst{{{five}}} 30"),
        format!("attribute_worst{{{heat}}} 50"),
        format!("attribute_threshold{{{five}}} 36"),
    ]);
    assert_eq!(samples, expected);
    assert_eq!(collect(&mut smart, &mut host).1, samples, "what travels is used again");
}

#[test]
fn a_disk_that_hangs_costs_itself_and_its_late_answer_comes_with_a_later_round() {
    let dir = tree(&[("sda", "a", "0", "ATA", "0"), ("sdb", "b", "0", "ATA", "0")]);
    let (open, gate) = mpsc::channel::<()>();
    let gate = Mutex::new(gate);
    let mut smart = Smart::with(&SmartOptions::default(), Duration::ZERO, move |task| {
        if task.name == "sda" {
            let _ = gate.lock().unwrap().recv();
        }
        task.answer = Ok(Report::Standby);
    });
    let mut host = host(dir.path());
    let standby = |samples: &[String], name: &str| {
        samples.contains(&format!("device_standby{{device={name}}} 1"))
    };
    for _ in 0..3 {
        let (result, samples) = collect(&mut smart, &mut host);
        let error = result.unwrap_err().to_string();
        assert!(error.contains("sda") && error.contains("not answered"), "{error}");
        assert!(standby(&samples, "sdb") && !standby(&samples, "sda"));
    }
    assert_eq!(smart.asker.stuck(), 1);
    open.send(()).unwrap();
    let deadline = Instant::now() + LONG;
    loop {
        assert!(Instant::now() < deadline, "the late answer never came");
        let (result, samples) = collect(&mut smart, &mut host);
        if standby(&samples, "sda") {
            result.unwrap();
            return;
        }
    }
}

#[test]
fn without_rights_or_disks_there_is_no_data_and_one_failure_hides_no_other() {
    let answers = |answer: fn(&str) -> io::Result<Report>| {
        let dir = tree(&[("sda", "a", "0", "ATA", "0"), ("sdb", "b", "0", "ATA", "0")]);
        let ask = move |task: &mut Task| task.answer = answer(&task.name);
        let mut smart = Smart::with(&SmartOptions::default(), LONG, ask);
        collect(&mut smart, &mut host(dir.path()))
    };
    let os = io::Error::from_raw_os_error;
    let (result, samples) = answers(|_| Err(io::Error::from_raw_os_error(libc::EPERM)));
    let Err(CollectError::NoData(error)) = result else { panic!("{result:?}") };
    assert!(error.to_string().contains("dev/sda: ") && error.to_string().contains("CAP_SYS_RAWIO"));
    assert!(samples.is_empty());
    for number in [libc::ENOENT, libc::ENXIO, libc::ENOMEDIUM, libc::ENOTBLK, libc::ENOTTY] {
        assert!(is_absent(&os(number)), "{number}");
    }
    let (result, _) = answers(|_| Err(io::ErrorKind::NotFound.into()));
    assert!(matches!(result, Err(CollectError::NoData(_))), "{result:?}");
    let (result, samples) = answers(|name| {
        if name == "sda" {
            Err(io::Error::from_raw_os_error(libc::EIO))
        } else {
            Ok(Report::Standby)
        }
    });
    let error = result.unwrap_err().to_string();
    assert!(error.starts_with("asking sda for its health: "), "{error}");
    assert_eq!(samples, ["device_standby{device=sdb} 1"]);
    let dir = tempfile::tempdir().unwrap();
    let mut smart = Smart::new(&SmartOptions::default());
    assert!(matches!(collect(&mut smart, &mut host(dir.path())).0, Err(CollectError::NoData(_))));
}

#[test]
fn a_disk_that_has_nothing_to_do_is_asked_only_whether_it_runs_so_that_it_may_fall_asleep() {
    let dir = tree(&[("sda", "a", "0", "ATA", "0")]);
    let stat = |text: &str| fs::write(dir.path().join("block/sda/stat"), text).unwrap();
    let asked = std::sync::Arc::new(Mutex::new(Vec::new()));
    let questions = std::sync::Arc::clone(&asked);
    let mut smart = Smart::with(&SmartOptions::default(), LONG, move |task| {
        questions.lock().unwrap().push(task.brief);
        let health = device::AtaHealth { healthy: Some(true), ..Default::default() };
        task.answer = Ok(if task.brief { Report::Running } else { Report::Ata(health) });
    });
    let mut host = host(dir.path());
    let mut round = || {
        let (result, samples) = collect(&mut smart, &mut host);
        result.unwrap();
        assert!(samples.contains(&"healthy{device=sda} 1".to_owned()), "{samples:?}");
        let mut asked = asked.lock().unwrap();
        assert_eq!(asked.len(), 1);
        asked.remove(0)
    };
    stat("1 0 8 0");
    let brief: Vec<bool> = (0..=BRIEF + 2).map(|_| round()).collect();
    let hour: Vec<bool> = [false].into_iter().chain((0..BRIEF).map(|_| true)).collect();
    assert_eq!(brief, [&hour[..], &[false, true]].concat());
    stat("2 0 16 0");
    assert!(!round() && round());
}

#[test]
fn what_is_no_block_device_is_never_asked() {
    let dir = tree(&[("sda", "a", "0", "ATA", "0")]);
    fs::create_dir(dir.path().join("dev")).unwrap();
    fs::write(dir.path().join("dev/sda"), "a file").unwrap();
    let mut smart = Smart::new(&SmartOptions::default());
    let (result, samples) = collect(&mut smart, &mut host(dir.path()));
    assert!(matches!(result, Err(CollectError::NoData(_))) && samples.is_empty(), "{result:?}");
}

#[test]
fn only_whole_namespaces_name_a_controller() {
    assert_eq!(nvme_controller("nvme0n1"), Some("nvme0"));
    assert_eq!(nvme_controller("nvme12n34"), Some("nvme12"));
    for other in ["nvme", "nvme0", "nvmen1", "nvme0n", "nvme0n1p1", "nvme0c0n1", "nvmexn1", "sda"] {
        assert_eq!(nvme_controller(other), None, "{other}");
    }
}
