//! /proc/PID/mountinfo: where a file system is mounted, and from what (show_mountinfo in
//! fs/proc_namespace.c). Knows bytes, not files.

use super::device::MINOR_BITS;

/// The most places that are named; containers mount one file system a hundred times.
const MAX_PLACES: usize = 4;

/// What mountinfo says of a file system.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Mounted {
    /// What it is mounted from, such as `/dev/sda1` or `nas:/export`; empty if it is not mounted.
    pub source: String,
    /// Where: up to four places, first those that show all of it.
    pub places: Vec<String>,
}

/// Looks for the file system with this dev_t, in the kernel's form major << 20 | minor. Lines that are
/// not as the kernel writes them are passed over.
pub fn find(mountinfo: &[u8], device: u32) -> Mounted {
    let mut found = Mounted::default();
    let mut parts = Vec::new();
    for line in mountinfo.split(|&byte| byte == b'\n') {
        let Some(mount) = Mount::parse(line).filter(|mount| mount.device == device) else {
            continue;
        };
        if found.source.is_empty() {
            found.source = unescape(mount.source);
        }
        let places = if mount.root == b"/" { &mut found.places } else { &mut parts };
        if places.len() < MAX_PLACES {
            places.push(unescape(mount.place));
        }
    }
    found.places.extend(parts);
    found.places.truncate(MAX_PLACES);
    found
}

struct Mount<'a> {
    device: u32,
    root: &'a [u8],
    place: &'a [u8],
    source: &'a [u8],
}

impl<'a> Mount<'a> {
    /// `36 35 98:0 /mnt1 /mnt2 rw,noatime master:1 - ext3 /dev/root rw,errors=continue`: ID and that of
    /// the mount above, device, what of the file system is mounted, where, options, any number of
    /// optional fields, a dash, type, source, options.
    fn parse(line: &'a [u8]) -> Option<Mount<'a>> {
        let mut words = line.split(|&byte| byte == b' ');
        let device = number(words.nth(2)?)?;
        let (root, place, _options) = (words.next()?, words.next()?, words.next()?);
        words.find(|word| *word == b"-")?;
        let source = words.nth(1)?;
        Some(Mount { device, root, place, source })
    }
}

fn number(word: &[u8]) -> Option<u32> {
    let (major, minor) = std::str::from_utf8(word).ok()?.split_once(':')?;
    let (major, minor): (u32, u32) = (major.parse().ok()?, minor.parse().ok()?);
    let fits = major < 1 << (32 - MINOR_BITS) && minor < 1 << MINOR_BITS;
    fits.then_some((major << MINOR_BITS) | minor)
}

/// Space, tab, line break and backslash stand there as a backslash and three octal digits (mangle in
/// fs/seq_file.c).
fn unescape(word: &[u8]) -> String {
    let mut bytes = Vec::with_capacity(word.len());
    let mut rest = word;
    while let Some((&first, tail)) = rest.split_first() {
        match rest {
            [b'\\', a @ b'0'..=b'3', b @ b'0'..=b'7', c @ b'0'..=b'7', tail @ ..] => {
                bytes.push(((a - b'0') << 6) | ((b - b'0') << 3) | (c - b'0'));
                rest = tail;
            }
            _ => {
                bytes.push(first);
                rest = tail;
            }
        }
    }
    String::from_utf8_lossy(&bytes).into_owned()
}

#[cfg(test)]
mod tests {
    use super::*;

    const TEXT: &str = "\
22 1 8:1 / / rw,relatime shared:1 - ext4 /dev/root rw
30 22 8:17 /sub /srv/part rw shared:2 master:3 - ext4 /dev/sdb1 rw
31 22 8:17 / /srv/my\\040data rw - ext4 /dev/sdb1 rw
32 22 0:45 / /srv/pool rw - btrfs /dev/sdc rw,subvol=/
";

    fn device(major: u32, minor: u32) -> u32 {
        (major << MINOR_BITS) | minor
    }

    #[test]
    fn all_of_a_file_system_comes_before_parts_of_it() {
        let found = find(TEXT.as_bytes(), device(8, 17));
        assert_eq!(found.source, "/dev/sdb1");
        assert_eq!(found.places, ["/srv/my data", "/srv/part"]);
        assert_eq!(find(TEXT.as_bytes(), device(0, 45)).source, "/dev/sdc");
        assert_eq!(find(TEXT.as_bytes(), device(8, 2)), Mounted::default());
    }

    #[test]
    fn the_places_are_bounded() {
        let many: String = (0..50).map(|at| format!("{at} 1 8:1 /p /m{at} rw - x y z\n")).collect();
        let many = many + "99 1 8:1 / /whole rw - x y z\n";
        assert_eq!(find(many.as_bytes(), device(8, 1)).places, ["/whole", "/m0", "/m1", "/m2"]);
    }

    #[test]
    fn lines_that_are_no_mounts_are_passed_over() {
        for line in [
            "",
            "22 1",
            "22 1 8 / / rw - ext4 a b",
            "22 1 8:x / / rw - ext4 a b",
            "22 1 5000:1 / / rw - ext4 a b",
            "22 1 8:1048576 / / rw - ext4 a b",
            "22 1 8:1 / / rw",
            "22 1 8:1 / / rw ext4 a b",
            "22 1 8:1 / / rw -",
            "22 1 8:1 / / rw - ext4",
        ] {
            assert_eq!(find(line.as_bytes(), device(8, 1)), Mounted::default(), "{line:?}");
        }
        for (word, expected) in [
            ("a\\040b", "a b"),
            ("\\134", "\\"),
            ("a\\", "a\\"),
            ("a\\04", "a\\04"),
            ("a\\899", "a\\899"),
            ("\\400", "\\400"),
        ] {
            assert_eq!(unescape(word.as_bytes()), expected);
        }
        assert_eq!(unescape(b"\\377x"), "\u{fffd}x");
    }
}
