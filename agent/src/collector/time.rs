//! node_exporter's `time`: the wall clock, the time zone's offset and the kernel's clock sources
//! (kernel/time/clocksource.c).
//!
//! The time zone is found as Go's runtime finds it: a file that `TZ` names, else /etc/localtime, else
//! UTC. The files are the host's, and are read again when they change.

use std::env;
use std::ffi::{OsStr, OsString};
use std::os::unix::ffi::OsStrExt;
use std::path::Path;

use tz::TimeZone;

use super::parse::{fields, text};
use super::{CollectError, Collector};
use crate::host::{Clock, Host, Names, Root, SystemClock};
use crate::model::{Desc, Samples};

const SECONDS: Desc =
    Desc::gauge("node_time_seconds", "System time in seconds since epoch (1970).");
const ZONE_OFFSET: Desc =
    Desc::gauge("node_time_zone_offset_seconds", "System time zone offset in seconds.");
const AVAILABLE: Desc = Desc::gauge(
    "node_time_clocksource_available_info",
    "Available clocksources read from '/sys/devices/system/clocksource'.",
);
const CURRENT: Desc = Desc::gauge(
    "node_time_clocksource_current_info",
    "Current clocksource read from '/sys/devices/system/clocksource'.",
);

const CLOCKSOURCES: &str = "devices/system/clocksource";
const ZONEINFO: &str = "usr/share/zoneinfo";
/// Links from /etc/localtime to the file itself; there is one on most systems.
const LINKS_MAX: usize = 8;

/// Tells a file's version: device, inode, length, seconds and nanoseconds of its last change.
type Version = (u64, u64, u64, i64, i64);

/// Wall clock, time zone and clock sources.
pub(super) struct Time {
    /// Below the root of the file system; None is UTC.
    zone_file: Option<String>,
    /// The absolute links from there on, each with what it said, and the file that they lead to.
    links: Vec<(String, Vec<u8>)>,
    file: String,
    version: Option<Version>,
    zone: TimeZone,
    /// The directories of the clock sources.
    devices: Names,
}

impl Time {
    pub(super) fn new() -> Time {
        Time::with_tz(env::var_os("TZ"))
    }

    fn with_tz(tz: Option<OsString>) -> Time {
        Time {
            zone_file: zone_file(tz),
            links: Vec::new(),
            file: String::new(),
            version: None,
            zone: TimeZone::utc(),
            devices: Names::new(),
        }
    }
}

impl Collector for Time {
    fn collect(&mut self, host: &mut Host, out: &mut Samples) -> Result<(), CollectError> {
        let now = SystemClock.now_ns();
        out.value(&SECONDS, now as f64 / 1e9);
        let zone = self.load_zone(host);
        let (name, offset) = self.local(now.div_euclid(1_000_000_000));
        out.family(&ZONE_OFFSET).add(&[("time_zone", name)], f64::from(offset));
        self.clock_sources(host, out)?;
        zone
    }
}

impl Time {
    /// The zone's name and offset at this time in seconds. UTC, which has no name of its own, is called
    /// so as Go does; so is a time beyond a file without a rule, for which no type is found.
    fn local(&self, seconds: i64) -> (&str, i32) {
        match self.zone.find_local_time_type(seconds) {
            Ok(local) if !local.time_zone_designation().is_empty() => {
                (local.time_zone_designation(), local.ut_offset())
            }
            Ok(_) | Err(_) => ("UTC", 0),
        }
    }

    /// Reads the time zone if its file has changed. A malformed file is an error once and UTC then.
    fn load_zone(&mut self, host: &mut Host) -> Result<(), CollectError> {
        let Some(start) = &self.zone_file else { return Ok(()) };
        let says = |host: &mut Host, link: &str, target: &[u8]| {
            host.link(Root::Root, link).is_ok_and(|now| now == target)
        };
        let same = self.links.iter().all(|(link, target)| says(host, link, target));
        if !same || self.file.is_empty() || points_on(host, &self.file) {
            (self.links, self.file) = follow(host, start);
        }
        let version = rustix::fs::stat(host.path(Root::Root, &self.file)).ok().map(version_of);
        if version == self.version {
            return Ok(());
        }
        self.version = version;
        self.zone = TimeZone::utc();
        // Absent or unreadable: UTC.
        let Some(bytes) = host.find(Root::Root, &self.file) else { return Ok(()) };
        match TimeZone::from_tz_data(bytes) {
            Ok(zone) => self.zone = zone,
            Err(_) => return Err(CollectError::parse(&self.file, "", "a time zone (TZif)")),
        }
        Ok(())
    }

    fn clock_sources(&mut self, host: &mut Host, out: &mut Samples) -> Result<(), CollectError> {
        match host.list(Root::Sys, CLOCKSOURCES, &mut self.devices) {
            Err(error) if !error.is_absent() => return Err(error.into()),
            Ok(()) | Err(_) => {}
        }
        let devices = self.devices.iter().filter_map(|name| name.strip_prefix("clocksource"));
        let devices = devices.filter(|device| device.starts_with(|c: char| c.is_ascii_digit()));
        for (file, desc) in [("available", AVAILABLE), ("current", CURRENT)] {
            for device in devices.clone() {
                let path = format_args!("{CLOCKSOURCES}/clocksource{device}/{file}_clocksource");
                let bytes = host.sys(path)?;
                let mut family = out.family(&desc);
                for name in fields(bytes) {
                    family.add(&[("device", device), ("clocksource", &text(name))], 1.0);
                }
            }
        }
        Ok(())
    }
}

/// Which file `TZ` means, below the root of the file system.
fn zone_file(tz: Option<OsString>) -> Option<String> {
    let Some(tz) = tz else { return Some("etc/localtime".into()) };
    let name = tz.as_bytes();
    let name = name.strip_prefix(b":").unwrap_or(name);
    let path = Path::new(OsStr::from_bytes(name));
    if name.is_empty() || name == b"UTC" {
        None
    } else if path.is_absolute() {
        Some(below(path))
    } else {
        Some(format!("{ZONEINFO}/{}", path.display()))
    }
}

/// A path without its leading slashes.
fn below(path: &Path) -> String {
    path.strip_prefix("/").unwrap_or(path).display().to_string()
}

/// The fields' types differ between architectures.
#[allow(clippy::unnecessary_cast, reason = "not on all architectures")]
fn version_of(stat: rustix::fs::Stat) -> Version {
    let (seconds, nanoseconds) = (stat.st_mtime as i64, stat.st_mtime_nsec as i64);
    (stat.st_dev as u64, stat.st_ino as u64, stat.st_size as u64, seconds, nanoseconds)
}

/// Whether a file is an absolute link.
fn points_on(host: &mut Host, file: &str) -> bool {
    host.link(Root::Root, file).is_ok_and(|target| target.starts_with(b"/"))
}

/// Follows absolute links inside the root, as they are the host's; the kernel follows relative ones.
fn follow(host: &mut Host, start: &str) -> (Vec<(String, Vec<u8>)>, String) {
    let (mut links, mut file) = (Vec::new(), start.to_owned());
    while links.len() < LINKS_MAX {
        let Ok(target) = host.link(Root::Root, &file) else { break };
        if !target.starts_with(b"/") {
            break;
        }
        let target = target.to_vec();
        let next = below(Path::new(OsStr::from_bytes(&target)));
        links.push((std::mem::replace(&mut file, next), target));
    }
    (links, file)
}

#[cfg(test)]
mod tests {
    use std::fs;

    use super::*;
    use crate::host::Roots;

    #[test]
    fn tz_names_a_file_as_gos_runtime_takes_it() {
        let file = |tz: &str| zone_file(Some(tz.into()));
        assert_eq!(zone_file(None), Some("etc/localtime".into()));
        assert_eq!(file(""), None);
        assert_eq!(file(":"), None);
        assert_eq!(file("UTC"), None);
        assert_eq!(file("Europe/Berlin").as_deref(), Some("usr/share/zoneinfo/Europe/Berlin"));
        assert_eq!(file(":/etc/zone").as_deref(), Some("etc/zone"));
    }

    #[test]
    fn berlin_has_an_offset_and_a_name() {
        let mut host = Host::new(Roots::default());
        let mut time = Time::with_tz(Some("Europe/Berlin".into()));
        assert!(
            Path::new("/usr/share/zoneinfo/Europe/Berlin").exists(),
            "no time zones here; `cargo xtask setup` installs tzdata"
        );
        time.load_zone(&mut host).unwrap();
        let at = |seconds| {
            let local = time.zone.find_local_time_type(seconds).unwrap();
            (local.time_zone_designation().to_owned(), local.ut_offset())
        };
        assert_eq!(at(1_700_000_000), ("CET".into(), 3600));
        assert_eq!(at(1_690_000_000), ("CEST".into(), 7200));
        // 2050, which only the rule at the end of the file covers.
        assert_eq!(at(2_540_000_000), ("CEST".into(), 7200));
    }

    #[test]
    fn a_zone_that_changes_is_read_again() {
        let root = tempfile::tempdir().unwrap();
        let path = |name: &str| root.path().join(name);
        for folder in ["etc", "usr/share/zoneinfo"] {
            fs::create_dir_all(path(folder)).unwrap();
        }
        for zone in ["Europe/Berlin", "Asia/Tokyo", "Asia/Kolkata"] {
            let copy = path(ZONEINFO).join(zone.rsplit('/').next().unwrap());
            fs::copy(Path::new("/").join(ZONEINFO).join(zone), copy)
                .expect("time zones, of tzdata, which `cargo xtask setup` installs");
        }
        let point_to = |zone: &str| {
            let target = Path::new("/").join(ZONEINFO).join(zone);
            std::os::unix::fs::symlink(target, path("etc/new")).unwrap();
            fs::rename(path("etc/new"), path("etc/localtime")).unwrap();
        };
        let mut host = Host::new(Roots { root: root.path().into(), ..Roots::default() });
        let mut time = Time::with_tz(None);
        let load = |time: &mut Time, host: &mut Host| {
            let result = time.load_zone(host);
            (time.local(1_700_000_000).0.to_owned(), result.is_ok())
        };
        assert_eq!(load(&mut time, &mut host), ("UTC".into(), true));
        // As timedatectl sets it.
        point_to("Berlin");
        assert_eq!(load(&mut time, &mut host), ("CET".into(), true));
        assert_eq!(load(&mut time, &mut host), ("CET".into(), true));
        point_to("Tokyo");
        assert_eq!(load(&mut time, &mut host), ("JST".into(), true));
        // The file itself is replaced, as by an update of tzdata.
        fs::rename(path(ZONEINFO).join("Kolkata"), path(ZONEINFO).join("Tokyo")).unwrap();
        assert_eq!(load(&mut time, &mut host), ("IST".into(), true));
        // And by one of the same length.
        let zone = fs::read(path(ZONEINFO).join("Tokyo")).unwrap();
        let other: Vec<u8> = zone.iter().map(|&b| if b == b'I' { b'J' } else { b }).collect();
        fs::write(path("new"), other).unwrap();
        fs::rename(path("new"), path(ZONEINFO).join("Tokyo")).unwrap();
        assert_eq!(load(&mut time, &mut host), ("JST".into(), true));
        // Written over, as by `cp`, with what is no zone: said once, until it is one again.
        let tokyo = path(ZONEINFO).join("Tokyo");
        fs::write(&tokyo, "no zone").unwrap();
        assert_eq!(load(&mut time, &mut host), ("UTC".into(), false));
        assert_eq!(load(&mut time, &mut host), ("UTC".into(), true));
        fs::copy(path(ZONEINFO).join("Berlin"), &tokyo).unwrap();
        assert_eq!(load(&mut time, &mut host), ("CET".into(), true));
        fs::remove_file(path("etc/localtime")).unwrap();
        assert_eq!(load(&mut time, &mut host), ("UTC".into(), true));
    }

    #[test]
    fn cut_and_altered_zones_are_errors_or_zones_but_no_panic() {
        let whole = fs::read("/usr/share/zoneinfo/Europe/Berlin").unwrap();
        for length in 0..whole.len() {
            // Of the rule in the last line less can be a rule, too.
            let rule = whole.len() - length < 40;
            assert!(TimeZone::from_tz_data(&whole[..length]).is_err() || rule, "{length} bytes");
        }
        for at in 0..whole.len() {
            for byte in [0, 1, 0x7f, 0x80, 0xff] {
                let mut altered = whole.clone();
                altered[at] = byte;
                if let Ok(zone) = TimeZone::from_tz_data(&altered) {
                    for seconds in [0, 1_700_000_000, 4_000_000_000, i64::MAX / 1_000_000_000] {
                        let _ = zone.find_local_time_type(seconds);
                    }
                }
            }
        }
    }
}
