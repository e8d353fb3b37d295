//! What the system allows: the limits of the cgroups that the process is in, what they hold, and how long their
//! tasks wait for memory. It is always the agent's own /proc and /sys that are looked at.
//!
//! Documentation/admin-guide/cgroup-v2.rst (memory.max, memory.high, memory.stat, memory.pressure) and
//! cgroup-v1/memory.rst. A limit of a cgroup above counts as much as its own: systemd puts MemoryMax on the
//! service, a container's engine on a cgroup that is not to be seen from inside.

use std::fs::File;
use std::io::Read;
use std::path::{Path, PathBuf};

use super::Pressure;

/// Live bytes that are left to the program whatever a cgroup says: the least that `agent.memory_limit` can be, since with
/// less it could only stand still, and it may be others who have filled the cgroup.
const LEAST: u64 = 4 << 20;

/// The most cgroups above each other that are looked at.
const LEVELS: usize = 16;

/// A file that tells a number or some lines.
const MOST: u64 = 16 << 10;

/// Of the last 10 s, in percent: from which share of time that some task waits on steps begin.
const WAITS: [(f64, Pressure); 3] =
    [(10.0, Pressure::Batches), (25.0, Pressure::Logs), (50.0, Pressure::Scrapes)];

/// The names of a version of cgroups.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Version {
    One,
    Two,
}

/// The cgroups of this process that may bound its memory.
#[derive(Debug)]
pub struct Outside {
    version: Version,
    /// From its own to the topmost.
    levels: Vec<PathBuf>,
    text: String,
}

/// What was seen of them.
#[derive(Clone, Copy, Debug, Default, PartialEq)]
pub struct Seen {
    /// The tightest limit in bytes.
    pub limit: Option<u64>,
    /// What its cgroup holds that the kernel can't drop, in bytes.
    pub held: u64,
    /// How many live bytes the limits leave.
    pub room: Option<u64>,
    /// Of the last 10 s, the share in which some task of the own cgroup waited for memory, in percent.
    pub waits: Option<f64>,
    /// The steps that this puts in force.
    pub pressure: Pressure,
}

impl Outside {
    /// The cgroups of this process; none where there is no memory controller to be seen.
    pub fn find() -> Option<Outside> {
        Outside::find_in(Path::new("/proc/self/cgroup"), Path::new("/sys/fs/cgroup"))
    }

    fn find_in(list: &Path, mount: &Path) -> Option<Outside> {
        let mut text = String::new();
        let list = read(list, &mut text)?.to_owned();
        let of = |version, mount: &Path, path: &str| {
            let own = mount.join(path.trim_start_matches('/'));
            // Inside a container the path may be one outside; its own cgroup is the mount itself then.
            let own = if own.is_dir() { own } else { mount.to_owned() };
            let levels = own.ancestors().take_while(|level| level.starts_with(mount));
            let levels = levels.take(LEVELS).map(Path::to_owned).collect();
            Outside { version, levels, text: String::new() }
        };
        for line in list.lines() {
            let mut fields = line.splitn(3, ':');
            let (Some(_), Some(controllers), Some(path)) =
                (fields.next(), fields.next(), fields.next())
            else {
                continue;
            };
            if controllers.split(',').any(|controller| controller == "memory") {
                return Some(of(Version::One, &mount.join("memory"), path));
            }
            if controllers.is_empty() && mount.join("cgroup.controllers").is_file() {
                return Some(of(Version::Two, mount, path));
            }
        }
        None
    }

    /// Looks at them; the program has so many live bytes.
    pub fn look(&mut self, live: u64) -> Seen {
        let mut seen = Seen::default();
        let Outside { version, levels, text } = self;
        for level in levels.iter_mut() {
            let mut number = |name| number(level, name, text);
            // A little is left below the limit at which the kernel kills; MemoryHigh only slows down.
            let limit = match version {
                Version::Two => {
                    let max = number("memory.max").map(|max| max / 10 * 9);
                    max.into_iter().chain(number("memory.high")).min()
                }
                // Where there is no limit it is the largest multiple of a page.
                Version::One => number("memory.limit_in_bytes")
                    .filter(|max| *max < 1 << 60)
                    .map(|max| max / 10 * 9),
            };
            let Some(limit) = limit else { continue };
            let current = match version {
                Version::Two => "memory.current",
                Version::One => "memory.usage_in_bytes",
            };
            let Some(current) = number(current) else { continue };
            let droppable =
                read_in(level, "memory.stat", text).map_or(0, |stat| droppable(*version, stat));
            let held = current.saturating_sub(droppable);
            let room = limit.saturating_sub(held.saturating_sub(live)).max(LEAST);
            if seen.room.is_none_or(|least| room < least) {
                seen = Seen { limit: Some(limit), held, room: Some(room), ..seen };
            }
        }
        if let (Version::Two, Some(own)) = (version, levels.first_mut()) {
            seen.waits = read_in(own, "memory.pressure", text).and_then(waits);
        }
        let begun =
            |waits: f64| WAITS.iter().rfind(|(from, _)| waits >= *from).map(|(_, step)| *step);
        seen.pressure = seen.waits.and_then(begun).unwrap_or_default();
        seen
    }
}

/// Bytes that the kernel drops before it fails: the page cache, and caches of its own.
fn droppable(version: Version, stat: &str) -> u64 {
    let names: &[&str] = match version {
        Version::Two => &["inactive_file", "active_file", "slab_reclaimable"],
        Version::One => &["total_inactive_file", "total_active_file"],
    };
    let value = |line: &str| {
        let (name, value) = line.split_once(' ')?;
        names.contains(&name).then(|| value.trim().parse::<u64>().ok()).flatten()
    };
    stat.lines().filter_map(value).fold(0, u64::saturating_add)
}

/// `some avg10=1.23 avg60=… total=…`, Documentation/accounting/psi.rst.
fn waits(pressure: &str) -> Option<f64> {
    let some = pressure.lines().find_map(|line| line.strip_prefix("some "))?;
    let value = some.split(' ').find_map(|field| field.strip_prefix("avg10="))?;
    value.parse().ok().filter(|share: &f64| share.is_finite())
}

/// A file's number; none where there is none, such as `max`.
fn number(directory: &mut PathBuf, name: &str, text: &mut String) -> Option<u64> {
    read_in(directory, name, text)?.trim().parse().ok()
}

/// A directory's file. The path is lengthened for a moment, so that it takes no memory of its own each time.
fn read_in<'a>(directory: &mut PathBuf, name: &str, text: &'a mut String) -> Option<&'a str> {
    directory.push(name);
    let found = read(directory, text);
    directory.pop();
    found
}

fn read<'a>(path: &Path, text: &'a mut String) -> Option<&'a str> {
    text.clear();
    File::open(path).ok()?.take(MOST).read_to_string(text).ok()?;
    Some(text)
}

#[cfg(test)]
mod tests {
    use super::*;

    const MIB: u64 = 1 << 20;

    fn tree(files: &[(&str, &str)]) -> tempfile::TempDir {
        let folder = tempfile::tempdir().unwrap();
        for (path, text) in files {
            let path = folder.path().join(path);
            std::fs::create_dir_all(path.parent().unwrap()).unwrap();
            std::fs::write(path, text).unwrap();
        }
        folder
    }

    fn look(folder: &tempfile::TempDir, live: u64) -> Option<Seen> {
        let path = folder.path();
        Outside::find_in(&path.join("list"), &path.join("mount"))
            .map(|mut outside| outside.look(live))
    }

    #[test]
    fn limit_of_a_service_leaves_room_for_live_bytes() {
        let folder = tree(&[
            ("list", "0::/system.slice/mote.service\n"),
            ("mount/cgroup.controllers", "cpu memory\n"),
            ("mount/system.slice/memory.max", "max\n"),
            ("mount/system.slice/memory.high", "max\n"),
            ("mount/system.slice/mote.service/memory.max", "20971520\n"),
            ("mount/system.slice/mote.service/memory.high", "max\n"),
            ("mount/system.slice/mote.service/memory.current", "14680064\n"),
            (
                "mount/system.slice/mote.service/memory.stat",
                "anon 4194304\nfile 6291456\nactive_file 2097152\ninactive_file 3145728\nslab_reclaimable 1048576\nslab x\n",
            ),
            (
                "mount/system.slice/mote.service/memory.pressure",
                "some avg10=0.00 avg60=0.10 avg300=0.00 total=7\nfull avg10=99.00 avg60=0 avg300=0 total=5\n",
            ),
        ]);
        let seen = look(&folder, 3 * MIB).unwrap();
        // 14 MiB less 6 that can be dropped: 5 beside the live ones.
        assert_eq!((seen.limit, seen.held), (Some(20 * MIB / 10 * 9), 8 * MIB));
        assert_eq!(seen.room, Some(20 * MIB / 10 * 9 - 5 * MIB));
        assert_eq!((seen.waits, seen.pressure), (Some(0.0), Pressure::None));
    }

    #[test]
    fn tightest_of_all_levels_counts() {
        let folder = tree(&[
            ("list", "0::/a/b\n"),
            ("mount/cgroup.controllers", ""),
            ("mount/a/b/memory.max", "67108864\n"),
            ("mount/a/b/memory.high", "max\n"),
            ("mount/a/b/memory.current", "8388608\n"),
            ("mount/a/memory.max", "max\n"),
            ("mount/a/memory.high", "16777216\n"),
            ("mount/a/memory.current", "15728640\n"),
            ("mount/a/b/memory.pressure", "some avg10=31.50 avg60=0 avg300=0 total=7\n"),
        ]);
        let seen = look(&folder, 2 * MIB).unwrap();
        assert_eq!((seen.limit, seen.room), (Some(16 * MIB), Some(LEAST)));
        assert_eq!((seen.waits, seen.pressure), (Some(31.5), Pressure::Logs));
        std::fs::write(folder.path().join("mount/a/memory.current"), "12582912\n").unwrap();
        assert_eq!(look(&folder, 2 * MIB).unwrap().room, Some(6 * MIB));
        // Others have taken all of it: the program does not stand still for that.
        std::fs::write(folder.path().join("mount/a/memory.current"), "99999999").unwrap();
        assert_eq!(look(&folder, 2 * MIB).unwrap().room, Some(LEAST));
    }

    #[test]
    fn version_1_of_cgroups() {
        let folder = tree(&[
            ("list", "11:cpu,cpuacct:/x\n9:hugetlb,memory:/box\n1:name=systemd:/\n0::/\n"),
            ("mount/memory/memory.limit_in_bytes", "9223372036854771712\n"),
            ("mount/memory/box/memory.limit_in_bytes", "67108864\n"),
            ("mount/memory/box/memory.usage_in_bytes", "9437184\n"),
            (
                "mount/memory/box/memory.stat",
                "cache 1\ninactive_file 5\ntotal_inactive_file 3145728\ntotal_active_file 1048576\n",
            ),
        ]);
        let seen = look(&folder, MIB).unwrap();
        assert_eq!((seen.held, seen.waits), (5 * MIB, None));
        assert_eq!(seen.room, Some(64 * MIB / 10 * 9 - 4 * MIB));
        // The path of another namespace: the mount is its own cgroup.
        std::fs::write(folder.path().join("list"), "9:memory:/docker/0123\n").unwrap();
        assert_eq!(look(&folder, MIB).unwrap(), Seen::default(), "it has no limit");
    }

    #[test]
    fn what_makes_no_sense_bounds_nothing() {
        for list in ["", "0::\n", "::::\n", "0::/\n", "\u{0}", "x:y\n3:memory:/../../..\n"] {
            let folder = tree(&[("list", list), ("mount/memory/memory.limit_in_bytes", "-5\n")]);
            assert!(look(&folder, 1).is_none_or(|seen| seen == Seen::default()), "{list:?}");
        }
        for pressure in
            ["", "some", "some avg10=", "some avg10=NaN x", "full avg10=3", "some avg10=inf"]
        {
            assert_eq!(waits(pressure), None, "{pressure:?}");
        }
        assert_eq!(
            droppable(
                Version::Two,
                "inactive_file\nactive_file -1\nactive_file 99999999999999999999\n"
            ),
            0
        );
    }

    /// Whatever this machine's cgroups are.
    #[test]
    fn own_cgroup_is_found_where_there_is_one() {
        let Some(mut outside) = Outside::find() else { return };
        let seen = outside.look(MIB);
        assert!(seen.room.is_none_or(|room| room >= LEAST));
    }
}
