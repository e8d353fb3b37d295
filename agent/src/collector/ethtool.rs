//! node_exporter's `ethtool`: drivers and their versions, their statistics under the names that each driver
//! gives them, and the link modes that a device has and offers, as far as the first 32 bits of
//! include/uapi/linux/ethtool.h know them. Off unless asked for: a device may have a thousand statistics.
//!
//! What a driver does not answer is left out. Statistics of one device whose names fall together, once they
//! are names of metrics, are all left out, as later versions of node_exporter do.

use std::fmt::Write as _;
use std::mem;

use super::parse::{FirstError, Span, Texts, text};
use super::{CollectError, Collector};
use crate::host::ethtool::{Driver, Ethtool, Link};
use crate::host::{Host, Names, Root};
use crate::model::{Desc, Kind, Samples};
use crate::sort;

const INFO: Desc = Desc::gauge(
    "node_ethtool_info",
    "A metric with a constant '1' value labeled by bus_info, device, driver, expansion_rom_version, firmware_version, version.",
);
const PORT: Desc = Desc::gauge(
    "node_network_supported_port_info",
    "Type of ports or PHYs supported by network device",
);
const SPEEDS: [Desc; 2] = [
    Desc::gauge(
        "node_network_supported_speed_bytes",
        "Combination of speeds and features supported by network device",
    ),
    Desc::gauge(
        "node_network_advertised_speed_bytes",
        "Combination of speeds and features offered by network device",
    ),
];
const AUTONEGOTIATE: Desc =
    Desc::gauge("node_network_autonegotiate", "If this port is using autonegotiate");

/// By bit: what a device supports, and what it advertises.
const CAPABILITIES: [(u32, [Desc; 2]); 3] = [
    (
        6,
        [
            Desc::gauge(
                "node_network_autonegotiate_supported",
                "If this port device supports autonegotiate",
            ),
            Desc::gauge(
                "node_network_autonegotiate_advertised",
                "If this port device offers autonegotiate",
            ),
        ],
    ),
    (
        13,
        [
            Desc::gauge(
                "node_network_pause_supported",
                "If this port device supports pause frames",
            ),
            Desc::gauge(
                "node_network_pause_advertised",
                "If this port device offers pause capability",
            ),
        ],
    ),
    (
        14,
        [
            Desc::gauge(
                "node_network_asymmetricpause_supported",
                "If this port device supports asymmetric pause frames",
            ),
            Desc::gauge(
                "node_network_asymmetricpause_advertised",
                "If this port device offers asymmetric pause capability",
            ),
        ],
    ),
];

const PORTS: [(u32, &str); 6] =
    [(7, "TP"), (8, "AUI"), (9, "MII"), (10, "FIBRE"), (11, "BNC"), (16, "Backplane")];

/// Bit, megabits, duplex, mode.
const MODES: [(u32, u32, &str, &str); 22] = [
    (0, 10, "half", "10baseT"),
    (1, 10, "full", "10baseT"),
    (2, 100, "half", "100baseT"),
    (3, 100, "full", "100baseT"),
    (4, 1_000, "half", "1000baseT"),
    (5, 1_000, "full", "1000baseT"),
    (12, 10_000, "full", "10000baseT"),
    (17, 1_000, "full", "1000baseKX"),
    (18, 10_000, "full", "10000baseKX4"),
    (19, 10_000, "full", "10000baseKR"),
    (20, 10_000, "full", "10000baseR_FEC"),
    (21, 20_000, "full", "20000baseMLD2"),
    (22, 20_000, "full", "20000baseKR2"),
    (23, 40_000, "full", "40000baseKR4"),
    (24, 40_000, "full", "40000baseCR4"),
    (25, 40_000, "full", "40000baseSR4"),
    (26, 40_000, "full", "40000baseLR4"),
    (27, 56_000, "full", "56000baseKR4"),
    (28, 56_000, "full", "56000baseCR4"),
    (29, 56_000, "full", "56000baseSR4"),
    (30, 56_000, "full", "56000baseLR4"),
    (31, 25_000, "full", "25000baseCR"),
];

/// Statistics that have names of their own: what the driver calls them, the metric, its help.
const KNOWN: [(&str, &str, &str); 7] = [
    ("rx_bytes", "node_ethtool_received_bytes_total", "Network interface bytes received"),
    ("rx_dropped", "node_ethtool_received_dropped_total", "Number of received frames dropped"),
    ("rx_errors", "node_ethtool_received_errors_total", "Number of received frames with errors"),
    ("rx_packets", "node_ethtool_received_packets_total", "Network interface packets received"),
    ("tx_bytes", "node_ethtool_transmitted_bytes_total", "Network interface bytes sent"),
    ("tx_errors", "node_ethtool_transmitted_errors_total", "Number of sent frames with errors"),
    ("tx_packets", "node_ethtool_transmitted_packets_total", "Network interface packets sent"),
];

#[derive(Default)]
struct Device {
    name: Span,
    link: Option<Link>,
    /// Bus, driver, and versions of ROM, firmware and driver.
    info: Option<[Span; 5]>,
}

struct Statistic {
    metric: Span,
    /// As the driver has it, of letters, digits and underscores.
    name: Span,
    device: Span,
    value: u64,
}

/// Drivers, link modes and statistics.
#[derive(Default)]
pub(super) struct Ethtools {
    ethtool: Option<Ethtool>,
    names: Names,
    devices: Vec<Device>,
    statistics: Vec<Statistic>,
    texts: Texts,
    scratch: [String; 3],
}

impl Collector for Ethtools {
    fn collect(&mut self, host: &mut Host, out: &mut Samples) -> Result<(), CollectError> {
        host.is_live("net/dev")?;
        host.list(Root::Sys, "class/net", &mut self.names)?;
        let mut errors = FirstError::default();
        self.devices.clear();
        self.statistics.clear();
        self.texts.clear();
        let ethtool = match self.ethtool.take() {
            Some(ethtool) => ethtool,
            None => Ethtool::new().map_err(|source| CollectError::System {
                attempt: "asking drivers of network devices".to_owned(),
                source,
            })?,
        };
        let ethtool = self.ethtool.insert(ethtool);
        for name in self.names.iter() {
            let device = self.texts.keep(name);
            let link = ethtool.link(name).ok();
            let driver = ethtool.driver(name).ok();
            let count = driver.map_or(0, |driver| driver.statistics);
            let info = driver.map(|driver| {
                let Driver {
                    bus_info,
                    driver,
                    expansion_rom_version,
                    firmware_version,
                    version,
                    ..
                } = driver;
                [bus_info, driver, expansion_rom_version, firmware_version, version]
                    .map(|bytes| self.texts.keep(&text(bytes)))
            });
            self.devices.push(Device { name: device, link, info });
            if count == 0 {
                continue;
            }
            let start = self.statistics.len();
            if let Ok(names) = ethtool.names(name, count) {
                for name in names {
                    let (metric, name) = self.texts.metric(&mut self.scratch, name);
                    self.statistics.push(Statistic { metric, name, device, value: 0 });
                }
            }
            let named = self.statistics.get_mut(start..).unwrap_or_default();
            let found = ethtool.values(name, count).map_or(0, |values| {
                let pairs = named.iter_mut().zip(values);
                pairs.map(|(statistic, value)| statistic.value = value).count()
            });
            // Names without values, or the other way round: the number has changed in between.
            if found != named.len() {
                self.statistics.truncate(start);
            }
        }
        if self.devices.is_empty() {
            errors.note(CollectError::parse("sys/class/net", "", "a network device"));
        }
        self.write(out);
        errors.result()
    }
}

impl Texts {
    /// The name of a statistic's metric, and that of the statistic without odd characters.
    fn metric(&mut self, scratch: &mut [String; 3], name: &[u8]) -> (Span, Span) {
        let [clean, metric, other] = scratch;
        sanitize(name, clean);
        match KNOWN.iter().find(|(known, ..)| known == clean) {
            Some((_, known, _)) => (self.keep(known), self.keep(clean)),
            None => {
                metric.clear();
                metric.push_str(clean.trim_start_matches('_'));
                metric.make_ascii_lowercase();
                replace(metric, "rx", "received", other);
                replace(other, "tx", "transmitted", metric);
                other.clear();
                // Writing to a String can't fail.
                let _ = write!(other, "node_ethtool_{metric}");
                (self.keep(other), self.keep(clean))
            }
        }
    }
}

impl Ethtools {
    fn write(&mut self, out: &mut Samples) {
        let Ethtools { devices, statistics, texts, scratch, .. } = self;
        let text = |span: Span| texts.get(span);
        let links = || devices.iter().filter_map(|device| Some((text(device.name), device.link?)));
        for (which, desc) in SPEEDS.iter().enumerate() {
            let mut family = out.family(desc);
            for (device, link) in links() {
                let bits = modes(&link, which);
                for (_, megabits, duplex, mode) in
                    MODES.iter().filter(|mode| bits >> mode.0 & 1 == 1)
                {
                    let labels = [("device", device), ("duplex", *duplex), ("mode", *mode)];
                    family.add(&labels, f64::from(*megabits) * 125_000.0);
                }
            }
        }
        let mut family = out.family(&PORT);
        for (device, link) in links() {
            for (_, kind) in PORTS.iter().filter(|port| link.supported >> port.0 & 1 == 1) {
                family.add(&[("device", device), ("type", kind)], 1.0);
            }
        }
        for (bit, descs) in &CAPABILITIES {
            for (which, desc) in descs.iter().enumerate() {
                let mut family = out.family(desc);
                for (device, link) in links() {
                    let can = modes(&link, which) >> bit & 1;
                    family.add(&[("device", device)], f64::from(can));
                }
            }
        }
        let mut family = out.family(&AUTONEGOTIATE);
        for (device, link) in links() {
            family.add(&[("device", device)], f64::from(u8::from(link.autonegotiates)));
        }
        let mut family = out.family(&INFO);
        for device in &*devices {
            let Some([bus, driver, rom, firmware, version]) = device.info else { continue };
            let labels = [
                ("bus_info", text(bus)),
                ("device", text(device.name)),
                ("driver", text(driver)),
                ("expansion_rom_version", text(rom)),
                ("firmware_version", text(firmware)),
                ("version", text(version)),
            ];
            family.add(&labels, 1.0);
        }
        let key = |statistic: &Statistic| (text(statistic.metric), text(statistic.device));
        sort::unstable_by(statistics, |a, b| key(a).cmp(&key(b)));
        let [help, ..] = scratch;
        for of_metric in statistics.chunk_by(|a, b| text(a.metric) == text(b.metric)) {
            let Some(first) = of_metric.first() else { continue };
            let (metric, name) = (text(first.metric), text(first.name));
            help.clear();
            match KNOWN.iter().find(|(known, ..)| *known == name) {
                Some((.., known)) => help.push_str(known),
                None => {
                    // Writing to a String can't fail.
                    let _ = write!(help, "Network interface {name}");
                }
            }
            let mut family = out.family_named(metric, help, Kind::Untyped);
            for of_device in of_metric.chunk_by(|a, b| text(a.device) == text(b.device)) {
                if let [statistic] = of_device {
                    family.add(&[("device", text(statistic.device))], statistic.value as f64);
                }
            }
        }
    }
}

fn modes(link: &Link, which: usize) -> u32 {
    if which == 0 { link.supported } else { link.advertised }
}

/// Puts one underscore for each run of other bytes than letters, digits and underscores, with the underscores
/// around it.
fn sanitize(name: &[u8], out: &mut String) {
    out.clear();
    let is_odd = |byte: &u8| !(byte.is_ascii_alphanumeric() || *byte == b'_');
    let mut rest = name;
    while let Some((&first, behind)) = rest.split_first() {
        let run =
            |bytes: &[u8], of: &dyn Fn(&u8) -> bool| bytes.iter().take_while(|b| of(b)).count();
        let is_line = |byte: &u8| *byte == b'_';
        let before = run(rest, &is_line);
        let odd = run(rest.get(before..).unwrap_or_default(), &is_odd);
        if odd > 0 {
            let after = run(rest.get(before + odd..).unwrap_or_default(), &is_line);
            out.push('_');
            rest = rest.get(before + odd + after..).unwrap_or_default();
        } else {
            out.push(char::from(first));
            rest = behind;
        }
    }
}

/// Replaces a word between underscores. Of two that share an underscore the first is replaced, as by
/// node_exporter's regular expression: `tx_tx_x` becomes `transmitted_tx_x`.
fn replace(text: &str, word: &str, by: &str, out: &mut String) {
    out.clear();
    let mut last_replaced = false;
    for (index, part) in text.split('_').enumerate() {
        if index > 0 {
            out.push('_');
        }
        let replaced = part == word && !mem::take(&mut last_replaced);
        out.push_str(if replaced { by } else { part });
        last_replaced = replaced;
    }
}

/// What the fuzz target calls.
pub(super) fn fuzz(bytes: &[u8], out: &mut Samples) {
    let count = bytes.first().map_or(0, |&count| u32::from(count));
    let mut ethtools = Ethtools::default();
    let device = ethtools.texts.keep("eth0");
    let values = crate::host::ethtool::values(bytes, count);
    for (name, value) in crate::host::ethtool::names(bytes, count).zip(values) {
        let (metric, name) = ethtools.texts.metric(&mut ethtools.scratch, name);
        ethtools.statistics.push(Statistic { metric, name, device, value });
    }
    let link = Link { supported: count << 24 | count, advertised: u32::MAX, autonegotiates: true };
    let driver = crate::host::ethtool::driver(bytes);
    let info = [driver.driver, driver.bus_info, driver.version, driver.firmware_version, b""]
        .map(|bytes| ethtools.texts.keep(&text(bytes)));
    ethtools.devices.push(Device { name: device, link: Some(link), info: Some(info) });
    ethtools.write(out);
}

#[cfg(test)]
mod tests {
    use super::*;

    fn metric(name: &str) -> String {
        let mut texts = Texts::default();
        let (metric, _) = texts.metric(&mut Default::default(), name.as_bytes());
        texts.get(metric).trim_start_matches("node_ethtool_").to_owned()
    }

    #[test]
    fn names_of_drivers_become_names_of_metrics() {
        for (name, expected) in [
            ("rx_bytes", "received_bytes_total"),
            ("rx_queue_0_bytes", "received_queue_0_bytes"),
            ("tx_tx_timeouts", "transmitted_tx_timeouts"),
            ("tx0_tx_timeouts", "tx0_transmitted_timeouts"),
            ("rx_xdp_tx", "received_xdp_transmitted"),
            ("rx_rx_rx", "received_rx_received"),
            ("rx_tx_rx", "received_transmitted_received"),
            ("port.rx_dropped", "port_received_dropped"),
            ("Rx Good-Frames:", "received_good_frames_"),
            ("__rx", "received"),
            ("a__.__b", "a_b"),
            ("a_._.b", "a__b"),
            ("\u{e9}t\u{e9}", "t_"),
            ("", ""),
        ] {
            assert_eq!(metric(name), expected, "{name}");
        }
    }

    #[test]
    fn names_that_fall_together_are_left_out() {
        let mut ethtools = Ethtools::default();
        let device = ethtools.texts.keep("eth0");
        for (name, value) in [("a.b", 1), ("a-b", 2), ("c", 3), ("rx_bytes", 4)] {
            let texts = &mut ethtools.texts;
            let (metric, name) = texts.metric(&mut ethtools.scratch, name.as_bytes());
            ethtools.statistics.push(Statistic { metric, name, device, value });
        }
        let mut out = Samples::with_limit(100);
        ethtools.write(&mut out);
        let samples: Vec<_> = out
            .iter()
            .map(|sample| (sample.name().to_owned(), sample.help, sample.value))
            .collect();
        assert_eq!(
            samples,
            [
                ("node_ethtool_c".to_owned(), "Network interface c", 3.0),
                (
                    "node_ethtool_received_bytes_total".to_owned(),
                    "Network interface bytes received",
                    4.0
                ),
            ]
        );
    }

    #[test]
    fn link_modes_of_a_device_of_a_gigabit() {
        let mut ethtools = Ethtools::default();
        let name = ethtools.texts.keep("eth0");
        let link = Link { supported: 0x62ef, advertised: 0x20, autonegotiates: true };
        ethtools.devices.push(Device { name, link: Some(link), info: None });
        let mut out = Samples::with_limit(100);
        ethtools.write(&mut out);
        let of = |name: &str| {
            out.iter().filter(|s| s.name() == name).map(|s| s.value).collect::<Vec<_>>()
        };
        let speeds = [1.25e6, 1.25e6, 1.25e7, 1.25e7, 1.25e8];
        assert_eq!(of("node_network_supported_speed_bytes"), speeds);
        assert_eq!(of("node_network_advertised_speed_bytes"), [1.25e8]);
        assert_eq!(of("node_network_supported_port_info"), [1.0, 1.0]);
        assert_eq!(of("node_network_autonegotiate_supported"), [1.0]);
        assert_eq!(of("node_network_autonegotiate_advertised"), [0.0]);
        assert_eq!(of("node_network_pause_supported"), [1.0]);
    }
}
