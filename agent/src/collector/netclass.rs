//! node_exporter's `netclass`, from /sys/class/net/DEVICE (net/core/net-sysfs.c): what kind of device it is,
//! whether it is up, and its properties.
//!
//! A kernel gives an attribute only where it means something: EINVAL for the carrier of a device that is
//! down, EOPNOTSUPP for the link state of one that has none. Such an attribute is left out, quietly. Some
//! drivers give a speed of -1 where it isn't known, which makes -125000 bytes in node_exporter too.
//!
//! Half of the attributes say what the device is. They are read when a device is new, by its name or its
//! number, and in every tenth round: a hardware address that is set later is seen by then.

use super::options::{NetclassOptions, excludes};
use super::parse::{FirstError, Span, Texts, hex, malformed, named, signed, text};
use super::{CollectError, Collector};
use crate::host::{Host, Names, Root};
use crate::model::{Desc, Samples};

const UP: Desc = Desc::gauge("node_network_up", "Value is 1 if operstate is 'up', 0 otherwise.");
const INFO: Desc = Desc::gauge(
    "node_network_info",
    "Non-numeric data from /sys/class/net/<iface>, value is always 1.",
);

/// What says what a device is, and seldom changes.
const SELDOM: [&str; 10] = [
    "addr_assign_type",
    "address",
    "broadcast",
    "dev_id",
    "ifalias",
    "iflink",
    "link_mode",
    "name_assign_type",
    "netdev_group",
    "type",
];
/// In so many rounds it is read once.
const SELDOM_EVERY: u32 = 10;
/// Where the number of a device stands in [`PROPERTIES`].
const IFINDEX: usize = 8;

/// Attributes and labels of the same name; `operstate` is the last.
const TEXTS: [&str; 5] = ["address", "broadcast", "duplex", "ifalias", "operstate"];

macro_rules! property {
    ($file:literal, $kind:ident, $name:literal) => {
        (
            $file,
            Desc::$kind(
                concat!("node_network_", $name),
                concat!("Network device property: ", $name),
            ),
        )
    };
}

/// Attributes with their families.
const PROPERTIES: [(&str, Desc); 17] = [
    property!("addr_assign_type", gauge, "address_assign_type"),
    property!("carrier", gauge, "carrier"),
    property!("carrier_changes", counter, "carrier_changes_total"),
    // Since Linux 4.16, as its counterpart.
    property!("carrier_up_count", counter, "carrier_up_changes_total"),
    property!("carrier_down_count", counter, "carrier_down_changes_total"),
    property!("dev_id", gauge, "device_id"),
    property!("dormant", gauge, "dormant"),
    property!("flags", gauge, "flags"),
    property!("ifindex", gauge, "iface_id"),
    property!("iflink", gauge, "iface_link"),
    property!("link_mode", gauge, "iface_link_mode"),
    property!("mtu", gauge, "mtu_bytes"),
    property!("name_assign_type", gauge, "name_assign_type"),
    property!("netdev_group", gauge, "net_dev_group"),
    property!("speed", gauge, "speed_bytes"),
    property!("tx_queue_len", gauge, "transmit_queue_length"),
    property!("type", gauge, "protocol_type"),
];

struct Device {
    name: Span,
    texts: [Span; TEXTS.len()],
    properties: [Option<i64>; PROPERTIES.len()],
}

/// State and properties of each network device.
pub(super) struct Netclass {
    options: NetclassOptions,
    names: Names,
    devices: Vec<Device>,
    texts: Texts,
    /// Those of the round before, and their texts.
    before: (Vec<Device>, Texts),
    /// Rounds until all is read.
    until_all: u32,
}

impl Netclass {
    pub(super) fn new(options: &NetclassOptions) -> Netclass {
        Netclass {
            options: options.clone(),
            names: Names::new(),
            devices: Vec::new(),
            texts: Texts::default(),
            before: Default::default(),
            until_all: 0,
        }
    }

    /// The device, or none if nothing of it can be read: it has gone, or is `bonding_masters`, a file.
    fn read(&mut self, index: usize, host: &mut Host, errors: &mut FirstError) -> Option<Device> {
        let name = self.names.get(index)?;
        if excludes(self.options.device_exclude.as_ref(), name.as_bytes()) {
            return None;
        }
        let mut found = false;
        let mut ifindex = None;
        if self.until_all > 0 {
            let path = format_args!("class/net/{name}/ifindex");
            ifindex = host.find(Root::Sys, path).and_then(|bytes| number(bytes.trim_ascii()));
        }
        let (before, before_texts) = &self.before;
        // In the order of their names, as those of this round.
        let known = before.binary_search_by(|device| before_texts.get(device.name).cmp(name));
        let before = known.ok().and_then(|at| before.get(at)).filter(|device| {
            ifindex.is_some() && device.properties.get(IFINDEX).copied().flatten() == ifindex
        });
        let mut texts = [Span::default(); TEXTS.len()];
        for (index, (file, slot)) in TEXTS.iter().zip(&mut texts).enumerate() {
            if let Some(before) = before.filter(|_| SELDOM.contains(file)) {
                let span = before.texts.get(index).copied().unwrap_or_default();
                *slot = self.texts.keep(before_texts.get(span));
                continue;
            }
            if let Some(bytes) = host.find(Root::Sys, format_args!("class/net/{name}/{file}")) {
                found = true;
                *slot = self.texts.keep(&text(bytes.trim_ascii()));
            }
        }
        let mut properties = [None; PROPERTIES.len()];
        for (index, ((file, _), slot)) in PROPERTIES.iter().zip(&mut properties).enumerate() {
            if index == IFINDEX && ifindex.is_some() {
                (found, *slot) = (true, ifindex);
                continue;
            }
            if let Some(before) = before.filter(|_| SELDOM.contains(file)) {
                *slot = before.properties.get(index).copied().flatten();
                continue;
            }
            let path = format_args!("class/net/{name}/{file}");
            let Some(bytes) = host.find(Root::Sys, path) else { continue };
            found = true;
            *slot = number(bytes.trim_ascii());
            if slot.is_none() {
                errors.note(malformed(&named(Root::Sys, path), bytes, "a number"));
            }
        }
        found.then(|| Device { name: self.texts.keep(name), texts, properties })
    }

    fn write(&self, out: &mut Samples) {
        let text = |span| self.texts.get(span);
        let mut family = out.family(&UP);
        for Device { name, texts: [.., operstate], .. } in &self.devices {
            let up = u8::from(text(*operstate) == "up");
            family.add(&[("device", text(*name))], f64::from(up));
        }
        let mut family = out.family(&INFO);
        for device in &self.devices {
            let mut labels = [("device", text(device.name)); TEXTS.len() + 1];
            for ((slot, key), value) in labels.iter_mut().skip(1).zip(TEXTS).zip(device.texts) {
                *slot = (key, text(value));
            }
            family.add(&labels, 1.0);
        }
        for (index, (file, desc)) in PROPERTIES.iter().enumerate() {
            let mut family = out.family(desc);
            for device in &self.devices {
                let Some(value) = device.properties.get(index).copied().flatten() else { continue };
                // Megabits; integers, as in node_exporter.
                let value =
                    if *file == "speed" { value.wrapping_mul(1_000_000) / 8 } else { value };
                family.add(&[("device", text(device.name))], value as f64);
            }
        }
    }
}

impl Collector for Netclass {
    fn collect(&mut self, host: &mut Host, out: &mut Samples) -> Result<(), CollectError> {
        let mut errors = FirstError::default();
        std::mem::swap(&mut self.devices, &mut self.before.0);
        std::mem::swap(&mut self.texts, &mut self.before.1);
        self.devices.clear();
        self.texts.clear();
        host.list(Root::Sys, "class/net", &mut self.names)?;
        for index in 0..self.names.len() {
            if let Some(device) = self.read(index, host, &mut errors) {
                self.devices.push(device);
            }
        }
        // A malformed attribute is read, and refused, in every round.
        self.until_all = match self.until_all {
            _ if !errors.is_empty() => 0,
            0 => SELDOM_EVERY - 1,
            rounds => rounds - 1,
        };
        self.write(out);
        errors.result()
    }
}

/// Decimal, or hexadecimal with `0x`, as `flags` and `dev_id` are.
fn number(token: &[u8]) -> Option<i64> {
    match token.strip_prefix(b"0x") {
        Some(digits) => i64::try_from(hex(digits)?).ok(),
        None => signed(token),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::host::Roots;

    #[test]
    fn numbers_in_both_bases() {
        assert_eq!(number(b"0x1003"), Some(4099));
        assert_eq!(number(b"-1"), Some(-1));
        for bad in ["", "0x", "1003h", "0xffffffffffffffff", "1 2"] {
            assert_eq!(number(bad.as_bytes()), None, "{bad:?}");
        }
    }

    #[test]
    fn what_seldom_changes_is_seen_by_the_tenth_round_and_of_another_device_at_once() {
        let dir = tempfile::tempdir().unwrap();
        let device = dir.path().join("class/net/eth0");
        std::fs::create_dir_all(&device).unwrap();
        let write = |file: &str, text: &str| std::fs::write(device.join(file), text).unwrap();
        let mut host = Host::new(Roots { sys: dir.path().into(), ..Roots::default() });
        let mut netclass = Netclass::new(&NetclassOptions::default());
        let mut collect = || {
            let mut out = Samples::with_limit(100);
            netclass.collect(&mut host, &mut out).unwrap();
            let label = |sample: crate::model::Sample<'_>| {
                sample.labels().find(|label| label.0 == "address").unwrap().1.to_owned()
            };
            let address = out.iter().find(|s| s.family == "node_network_info").map(label);
            let mtu = out.iter().find(|s| s.family == "node_network_mtu_bytes").map(|s| s.value);
            (address.unwrap(), mtu.unwrap())
        };
        for (file, text) in [("ifindex", "2"), ("address", "a"), ("mtu", "1"), ("type", "1")] {
            write(file, text);
        }
        assert_eq!(collect(), ("a".into(), 1.0));
        write("address", "b");
        write("mtu", "2");
        for _ in 1..SELDOM_EVERY {
            assert_eq!(collect(), ("a".into(), 2.0));
        }
        assert_eq!(collect(), ("b".into(), 2.0));
        write("address", "c");
        assert_eq!(collect(), ("b".into(), 2.0));
        // Removed, and another one of the name.
        write("ifindex", "3");
        assert_eq!(collect(), ("c".into(), 2.0));
    }

    #[test]
    fn an_attribute_that_is_missing_or_no_number_costs_itself() {
        let dir = tempfile::tempdir().unwrap();
        let device = dir.path().join("class/net/eth0");
        std::fs::create_dir_all(&device).unwrap();
        std::fs::create_dir_all(dir.path().join("class/net/gone")).unwrap();
        std::fs::write(dir.path().join("class/net/bonding_masters"), "bond0\n").unwrap();
        for (file, text) in
            [("operstate", "up\n"), ("speed", "-1\n"), ("mtu", "x\n"), ("flags", "0x1003\n")]
        {
            std::fs::write(device.join(file), text).unwrap();
        }
        // As the carrier of a device that is down, it can't be read.
        std::fs::create_dir(device.join("carrier")).unwrap();
        let mut host = Host::new(Roots { sys: dir.path().into(), ..Roots::default() });
        let mut out = Samples::with_limit(100);
        let result = Netclass::new(&NetclassOptions::default()).collect(&mut host, &mut out);
        let error = result.unwrap_err().to_string();
        assert!(error.contains("sys/class/net/eth0/mtu") && error.contains("\"x"), "{error}");
        let samples: Vec<_> = out.iter().map(|s| (s.name().to_owned(), s.value)).collect();
        let expected = [
            ("node_network_up", 1.0),
            ("node_network_info", 1.0),
            ("node_network_flags", 4099.0),
            ("node_network_speed_bytes", -125_000.0),
        ];
        assert_eq!(samples, expected.map(|(name, value)| (name.to_owned(), value)));
    }
}
