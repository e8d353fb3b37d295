//! node_exporter's `arp`, from /proc/net/arp (net/ipv4/arp.c): how many neighbours of IPv4 each device
//! has. Newer versions of node_exporter ask netlink and leave out entries that need no resolution;
//! the file leaves those out as well.

use super::parse::{FirstError, Span, Texts, fields, lines, malformed, text, whole};
use super::{CollectError, Collector};
use crate::host::Host;
use crate::model::{Desc, Samples};
use crate::sort;

const FILE: &str = "proc/net/arp";

const ENTRIES: Desc = Desc::gauge("node_arp_entries", "ARP entries by device");

/// Address, hardware type, flags, hardware address, mask, device.
const COLUMNS: usize = 6;

/// The entries of each device.
#[derive(Default)]
pub(super) struct Arp {
    /// Names, their places in the file, and numbers of entries.
    devices: Vec<(Span, u32, u32)>,
    texts: Texts,
}

impl Collector for Arp {
    fn collect(&mut self, host: &mut Host, out: &mut Samples) -> Result<(), CollectError> {
        let mut errors = FirstError::default();
        self.devices.clear();
        self.texts.clear();
        self.read(host.proc("net/arp")?, &mut errors);
        let mut family = out.family(&ENTRIES);
        for (device, _, entries) in &self.devices {
            family.add(&[("device", self.texts.get(*device))], f64::from(*entries));
        }
        errors.result()
    }
}

impl Arp {
    fn read(&mut self, bytes: &[u8], errors: &mut FirstError) {
        let mut lines = lines(whole(FILE, bytes, errors));
        let heading = lines.next().unwrap_or_default();
        if !heading.starts_with(b"IP address") {
            return errors.note(malformed(FILE, heading, "a line of headings"));
        }
        for line in lines {
            match fields(line).nth(COLUMNS - 1) {
                Some(device) => self.count(&text(device)),
                None => errors.note(malformed(FILE, line, "six columns")),
            }
        }
        self.unite();
    }

    fn count(&mut self, device: &str) {
        let texts = &self.texts;
        match self.devices.last_mut().filter(|(name, ..)| texts.get(*name) == device) {
            Some((.., entries)) => *entries += 1,
            None => {
                let name = self.texts.keep(device);
                self.devices.push((name, self.devices.len() as u32, 1));
            }
        }
    }

    /// Adds up the entries of each device, of which there may be thousands.
    fn unite(&mut self) {
        let texts = &self.texts;
        sort::unstable_by_key(&mut self.devices, |(name, place, _)| (texts.get(*name), *place));
        self.devices.dedup_by(|(again, _, more), (name, _, entries)| {
            let same = texts.get(*again) == texts.get(*name);
            *entries += if same { *more } else { 0 };
            same
        });
        sort::unstable_by_key(&mut self.devices, |(_, place, _)| *place);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const HEADING: &str =
        "IP address       HW type     Flags       HW address            Mask     Device\n";

    fn read(text: &str) -> (Vec<(String, u32)>, Option<String>) {
        let mut arp = Arp::default();
        let mut errors = FirstError::default();
        arp.read(text.as_bytes(), &mut errors);
        let devices = arp.devices.iter().map(|(name, _, n)| (arp.texts.get(*name).to_owned(), *n));
        (devices.collect(), errors.result().err().map(|error| error.to_string()))
    }

    #[test]
    fn a_short_line_costs_itself() {
        let good = "192.0.2.1 0x1 0x2 02:fc:00:00:00:05 * eth0\n";
        let (devices, error) = read(&format!("{HEADING}{good}192.0.2.9 0x1 0x0 *\n{good}"));
        assert_eq!(devices, [("eth0".to_owned(), 2)]);
        assert!(error.unwrap().contains("\"192.0.2.9 0x1"));
        let (devices, error) = read(&format!("{HEADING}{good}192.0.2.9 0x1 0x0 * * eth0"));
        assert_eq!(devices.len(), 1);
        assert!(error.unwrap().contains("a line break"));
    }

    #[test]
    fn no_headings_is_another_file() {
        for text in ["", "\n", "192.0.2.1 0x1 0x2 02:fc:00:00:00:05 * eth0\n"] {
            let (devices, error) = read(text);
            assert!(devices.is_empty() && error.unwrap().contains("proc/net/arp"), "{text:?}");
        }
        assert_eq!(read(HEADING), (Vec::new(), None));
    }

    #[test]
    fn tens_of_thousands_of_devices_do_not_hold_the_round_up() {
        let line = |n| format!("192.0.2.1 0x1 0x2 02:fc:00:00:00:05 * veth{n}\n");
        let text: String = (0..30_000).map(line).collect();
        let start = std::time::Instant::now();
        let (devices, error) = read(&format!("{HEADING}{text}{text}"));
        assert_eq!((devices.len(), error), (30_000, None));
        assert!(devices.iter().enumerate().all(|(n, device)| *device == (format!("veth{n}"), 2)));
        assert!(start.elapsed().as_secs() < 10, "{:?}", start.elapsed());
    }
}
