//! Who this machine is, by name and among others.

use super::{Host, Root};

/// The host's name, as `uname -n` prints it.
pub fn hostname() -> String {
    rustix::system::uname().nodename().to_string_lossy().into_owned()
}

/// What makes this host another one than its neighbours, beside its name. Images that are copied to many
/// cards may leave out any of them.
const MARKS: [(Root, &str); 3] = [
    (Root::Root, "etc/machine-id"),
    (Root::Proc, "device-tree/serial-number"),
    (Root::Sys, "class/net/eth0/address"),
];

/// Where this host stands among others: a fraction of an interval, in parts of 2^32, by which its rounds
/// begin later than the multiples of the interval. It is the same after each start, and spreads a fleet
/// over the whole of the interval.
pub fn phase(host: &mut Host, instance: &str) -> u32 {
    let check = crc32c::crc32c(instance.as_bytes());
    MARKS.iter().fold(check, |check, (root, mark)| match host.find(*root, mark) {
        Some(bytes) => crc32c::crc32c_append(check, bytes),
        None => check,
    })
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::host::Roots;

    #[test]
    fn a_fleet_of_one_image_is_spread_by_its_names() {
        let dir = tempfile::tempdir().unwrap();
        let roots =
            Roots { proc: dir.path().into(), sys: dir.path().into(), root: dir.path().into() };
        let mut host = Host::new(roots);
        let mut tenths = [0; 10];
        for number in 0..1_000 {
            let phase = phase(&mut host, &format!("pi-{number}"));
            tenths[((u64::from(phase) * 10) >> 32) as usize] += 1;
        }
        assert!(tenths.iter().all(|count| (60..140).contains(count)), "{tenths:?}");
        let before = phase(&mut host, "pi");
        assert_eq!(phase(&mut host, "pi"), before);
        std::fs::create_dir(dir.path().join("etc")).unwrap();
        std::fs::write(dir.path().join("etc/machine-id"), "0123\n").unwrap();
        assert_ne!(phase(&mut host, "pi"), before);
    }
}
