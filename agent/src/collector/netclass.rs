//! node_exporter's `netclass`, from /sys/class/net/DEVICE (net/core/net-sysfs.c): what kind of device it is,
//! whether it is up, and its properties.
//!
//! A kernel gives an attribute only where it means something: EINVAL for the carrier of a device that is
//! down, EOPNOTSUPP for the link state of one that has none. Such an attribute is left out, quietly. Some
//! drivers give a speed of -1 where it isn't known, which makes -125000 bytes in node_exporter too.

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
}

impl Netclass {
    pub(super) fn new(options: &NetclassOptions) -> Netclass {
        Netclass {
            options: options.clone(),
            names: Names::new(),
            devices: Vec::new(),
            texts: Texts::default(),
        }
    }

    /// The device, or none if nothing of it can be read: it has gone, or is `bonding_masters`, a file.
    fn read(&mut self, index: usize, host: &mut Host, errors: &mut FirstError) -> Option<Device> {
        let name = self.names.get(index)?;
        if excludes(self.options.device_exclude.as_ref(), name.as_bytes()) {
            return None;
        }
        let mut found = false;
        let mut texts = [Span::default(); TEXTS.len()];
        for (file, slot) in TEXTS.iter().zip(&mut texts) {
            if let Some(bytes) = host.find(Root::Sys, format_args!("class/net/{name}/{file}")) {
                found = true;
                *slot = self.texts.keep(&text(bytes.trim_ascii()));
            }
        }
        let mut properties = [None; PROPERTIES.len()];
        for ((file, _), slot) in PROPERTIES.iter().zip(&mut properties) {
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
        self.devices.clear();
        self.texts.clear();
        host.list(Root::Sys, "class/net", &mut self.names)?;
        for index in 0..self.names.len() {
            if let Some(device) = self.read(index, host, &mut errors) {
                self.devices.push(device);
            }
        }
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
