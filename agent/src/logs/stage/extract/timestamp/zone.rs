//! Time zones: from a local time to Unix time. The files are the host's, below its root.

use std::fs;
use std::path::{Component, Path, PathBuf};

use tz::TimeZone;

const ZONEINFO: &str = "usr/share/zoneinfo";
/// The longest file; zones take some 3 KB.
const MAX_FILE: u64 = 256 << 10;
/// Links from /etc/localtime to the file itself.
const MAX_LINKS: usize = 8;
const DAY: i64 = 86_400;

/// Where a local time is.
#[derive(Clone, Debug, PartialEq)]
pub struct Zone(TimeZone);

impl Default for Zone {
    fn default() -> Zone {
        Zone::utc()
    }
}

impl Zone {
    /// UTC.
    pub fn utc() -> Zone {
        Zone(TimeZone::utc())
    }

    /// The zone of a name: "UTC", "Local" for the host's own, else a file such as "Europe/Berlin".
    ///
    /// # Errors
    /// What is wrong, and with which file. A host that says nothing of its own zone has UTC.
    pub fn load(name: &str, root: &Path) -> Result<Zone, String> {
        match name {
            "UTC" => Ok(Zone::utc()),
            "Local" => {
                let path = inside(root, Path::new("etc/localtime"));
                if path.exists() { read(&path) } else { Ok(Zone::utc()) }
            }
            name => {
                let plain = Path::new(name).components().all(|c| matches!(c, Component::Normal(_)));
                if !plain || name.is_empty() || name.contains('\0') {
                    return Err(format!("{name:?} is no name of a time zone"));
                }
                read(&inside(root, &Path::new(ZONEINFO).join(name)))
            }
        }
    }

    /// Unix time in seconds of a local time, which is counted in seconds as if it were UTC.
    ///
    /// A time that comes twice, when clocks are put back, is the one that is nearer to `near`. One that
    /// does not come, when they are put forward, is read with the offset from before: as much later as
    /// the clocks jump.
    pub(super) fn unix(&self, local: i64, near: i64) -> i64 {
        // Zones change their offset at most once in two days, and by less than a day.
        let (before, after) = (self.offset(local - DAY), self.offset(local + DAY));
        let valid = |offset: i64| self.offset(local - offset) == offset;
        match (valid(before), valid(after)) {
            (true, true) => {
                let (first, second) = (local - before, local - after);
                if first.abs_diff(near) < second.abs_diff(near) { first } else { second }
            }
            (false, true) => local - after,
            _ => local - before,
        }
    }

    /// Seconds that the local time is ahead of UTC. A time beyond a file without a rule has none.
    fn offset(&self, unix: i64) -> i64 {
        self.0.find_local_time_type(unix).map_or(0, |local| i64::from(local.ut_offset()))
    }

    /// Seconds that the local time is ahead of UTC at this Unix time.
    pub(super) fn local(&self, unix: i64) -> i64 {
        unix + self.offset(unix)
    }
}

fn read(path: &Path) -> Result<Zone, String> {
    let told = |error: std::io::Error| format!("reading {}: {error}", path.display());
    let len = fs::metadata(path).map_err(told)?.len();
    if len > MAX_FILE {
        return Err(format!("{} is {len} bytes long, which no time zone is", path.display()));
    }
    let bytes = fs::read(path).map_err(told)?;
    let zone = TimeZone::from_tz_data(&bytes);
    zone.map(Zone).map_err(|_| format!("{} is no time zone (TZif)", path.display()))
}

/// A path below the root, with absolute links followed inside the root, as they are the host's.
fn inside(root: &Path, path: &Path) -> PathBuf {
    let mut whole = root.join(path);
    for _ in 0..MAX_LINKS {
        match fs::read_link(&whole) {
            Ok(target) => match target.strip_prefix("/") {
                Ok(below) => whole = root.join(below),
                // The kernel follows the others.
                Err(_) => break,
            },
            Err(_) => break,
        }
    }
    whole
}

#[cfg(test)]
mod tests {
    use super::*;

    fn berlin() -> Zone {
        Zone::load("Europe/Berlin", Path::new("/"))
            .expect("time zones, of tzdata, which `cargo xtask setup` installs")
    }

    #[test]
    fn local_times_have_the_offset_of_their_season() {
        // 2023-11-14T23:13:20 and 2023-07-22T06:26:40 in Berlin.
        assert_eq!(berlin().unix(1_700_003_600, 0), 1_700_000_000);
        assert_eq!(berlin().unix(1_690_007_200, 0), 1_690_000_000);
        assert_eq!(Zone::utc().unix(1_690_007_200, 0), 1_690_007_200);
        assert_eq!(berlin().local(1_690_000_000), 1_690_007_200);
    }

    #[test]
    fn a_time_that_comes_twice_is_the_one_nearer_to_now() {
        // 2026-10-25T02:30 in Berlin: 00:30 and 01:30 UTC.
        let (local, first, second) = (1_792_895_400, 1_792_888_200, 1_792_891_800);
        assert_eq!(berlin().unix(local, first + 60), first);
        assert_eq!(berlin().unix(local, second + 60), second);
        assert_eq!(berlin().unix(local, second + 30 * DAY), second);
        // At the edges there is one only.
        assert_eq!(berlin().unix(local - 1_801, second), first - 1_801);
        assert_eq!(berlin().unix(local + 1_800, first), second + 1_800);
    }

    #[test]
    fn a_time_that_does_not_come_is_read_with_the_offset_before() {
        // 2026-03-29T02:30 in Berlin is 03:30 in summer, 01:30 UTC.
        let (local, unix) = (1_774_751_400, 1_774_747_800);
        assert_eq!(berlin().unix(local, 0), unix);
        assert_eq!(berlin().unix(local - 1_801, 0), unix - 1_801);
        assert_eq!(berlin().unix(local + 1_800, 0), unix - 1_800);
    }

    #[test]
    fn each_local_time_leads_back_to_itself() {
        for name in
            ["Europe/Berlin", "America/St_Johns", "Australia/Lord_Howe", "Asia/Kolkata", "UTC"]
        {
            let zone = Zone::load(name, Path::new("/")).unwrap();
            for step in 0..20_000 {
                let unix = 1_600_000_000 + step * 5_003;
                assert_eq!(zone.unix(zone.local(unix), unix), unix, "{name} {unix}");
            }
        }
    }

    #[test]
    fn what_is_no_zone_is_told_with_its_path() {
        let root = tempfile::tempdir().unwrap();
        let folder = root.path().join(ZONEINFO);
        fs::create_dir_all(&folder).unwrap();
        fs::create_dir_all(root.path().join("etc")).unwrap();
        let load = |name: &str| Zone::load(name, root.path());
        assert_eq!(load("Local"), Ok(Zone::utc()));
        for name in ["", "/etc/passwd", "../../../etc/passwd", "a/../b", "a\0"] {
            assert!(load(name).unwrap_err().contains("no name"), "{name:?}");
        }
        assert!(load("Europe/Berlin").unwrap_err().contains("usr/share/zoneinfo/Europe/Berlin"));
        fs::write(folder.join("Bad"), "TZif").unwrap();
        assert!(load("Bad").unwrap_err().ends_with("Bad is no time zone (TZif)"));
        fs::write(folder.join("Long"), vec![0; MAX_FILE as usize + 1]).unwrap();
        assert!(load("Long").unwrap_err().contains("262145 bytes"));
        // An absolute link is the host's.
        fs::copy("/usr/share/zoneinfo/Europe/Berlin", folder.join("Here")).unwrap();
        std::os::unix::fs::symlink("/usr/share/zoneinfo/Here", root.path().join("etc/localtime"))
            .unwrap();
        assert_eq!(load("Local"), Ok(berlin()));
    }
}
