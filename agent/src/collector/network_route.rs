//! node_exporter's `network_route`, from rtnetlink (net/ipv4/fib_frontend.c, net/ipv6/route.c): the unicast
//! routes of all tables, and how many each device has. A route over several hops is one for each. Off unless
//! asked for: a router may have any number of them.
//!
//! Routes of several tables may have the same labels; they are one series, and counted each.

use std::fmt::Write as _;
use std::net::{Ipv4Addr, Ipv6Addr};

use rustix::net::netdevice::index_to_name_inlined;

use super::parse::{Span, Texts, decimal};
use super::{CollectError, Collector};
use crate::host::Host;
use crate::host::netlink::{Netlink, attributes, u16_at, u32_at};
use crate::model::{Desc, Samples};
use crate::sort;

const INFO: Desc = Desc::gauge("node_network_route_info", "network routing table information");
const ROUTES: Desc = Desc::gauge("node_network_routes", "network routes by interface");

/// Twice what `metrics.max_series` is by default.
const MAX_ROUTES: usize = 10_000;

const RTM_GETROUTE: u16 = 26;
/// `struct rtmsg`: family, lengths of destination and source, TOS, table, protocol, scope, type, flags.
const RTMSG: usize = 12;
const RTN_UNICAST: u8 = 1;
const RTA_DST: u16 = 1;
const RTA_OIF: u16 = 4;
const RTA_GATEWAY: u16 = 5;
const RTA_PRIORITY: u16 = 6;
const RTA_PREFSRC: u16 = 7;
const RTA_MULTIPATH: u16 = 9;
/// `struct rtnexthop`: length, flags, hops, device.
const HOP: usize = 8;

#[derive(Clone, Copy, Debug, Default)]
struct Route {
    index: u32,
    device: Span,
    source: Span,
    destination: Span,
    gateway: Span,
    priority: u32,
    protocol: &'static str,
    weight: Option<u16>,
}

/// What the kernel has told.
#[derive(Default)]
struct Table {
    routes: Vec<Route>,
    texts: Texts,
    refused: usize,
}

/// Routes, and their number by device.
pub(super) struct NetworkRoute {
    netlink: Netlink,
    table: Table,
    devices: Vec<(u32, Span)>,
}

impl NetworkRoute {
    pub(super) fn new() -> NetworkRoute {
        NetworkRoute { netlink: Netlink::route(), table: Table::default(), devices: Vec::new() }
    }

    /// Gives each route the name of its device; empty if it is gone by now, as in node_exporter.
    fn name(&mut self) {
        let Some(socket) = self.netlink.socket() else { return };
        self.devices.clear();
        for route in &mut self.table.routes {
            let known = self.devices.iter().find(|(index, _)| *index == route.index);
            route.device = match known {
                Some((_, name)) => *name,
                None => {
                    let name = index_to_name_inlined(socket, route.index);
                    let name =
                        self.table.texts.keep(name.as_ref().map_or("", |name| name.as_str()));
                    self.devices.push((route.index, name));
                    name
                }
            };
        }
    }
}

impl Collector for NetworkRoute {
    fn collect(&mut self, host: &mut Host, out: &mut Samples) -> Result<(), CollectError> {
        host.is_live("net/route")?;
        self.table.clear();
        let table = &mut self.table;
        self.netlink.dump(RTM_GETROUTE, &[0; RTMSG], |_, body| table.add(body)).map_err(
            |source| {
                let attempt = "asking netlink for routes".to_owned();
                CollectError::System { attempt, source }
            },
        )?;
        self.name();
        self.table.write(out);
        match self.table.refused {
            0 => Ok(()),
            more => Err(CollectError::System {
                attempt: format!("keeping {MAX_ROUTES} routes"),
                source: std::io::Error::other(format!("there are {more} more")),
            }),
        }
    }
}

impl Table {
    fn clear(&mut self) {
        self.routes.clear();
        self.texts.clear();
        self.refused = 0;
    }

    fn push(&mut self, route: Route) {
        match self.routes.len() < MAX_ROUTES {
            true => self.routes.push(route),
            false => self.refused += 1,
        }
    }

    /// Adds the routes of one message. One that is cut has none.
    fn add(&mut self, body: &[u8]) {
        let Some((header, rest)) = body.split_first_chunk::<RTMSG>() else { return };
        let [_, length, _, _, _, protocol, _, RTN_UNICAST, ..] = *header else { return };
        let mut route = Route { protocol: name_of_protocol(protocol), ..Route::default() };
        let mut destination = None;
        let mut hops = None;
        for (attribute, value) in attributes(rest) {
            let number = || u32_at(value, 0).unwrap_or_default();
            match attribute {
                RTA_DST => destination = Some(value),
                RTA_OIF => route.index = number(),
                RTA_GATEWAY => route.gateway = self.address(value, None),
                RTA_PRIORITY => route.priority = number(),
                RTA_PREFSRC => route.source = self.address(value, None),
                RTA_MULTIPATH => hops = Some(value),
                _ => {}
            }
        }
        route.destination = match (length, destination) {
            (1.., Some(address)) => self.address(address, Some(length)),
            _ => self.texts.keep("default"),
        };
        match hops.filter(|hops| !hops.is_empty()) {
            None => self.push(route),
            Some(mut hops) => {
                while let (Some(length), Some(index)) = (u16_at(hops, 0), u32_at(hops, 4)) {
                    let length = usize::from(length);
                    let Some(hop) = hops.get(HOP..length) else { break };
                    let weight = hops.get(3).map(|more| u16::from(*more) + 1);
                    let gateway = attributes(hop).find(|(attribute, _)| *attribute == RTA_GATEWAY);
                    let gateway = gateway.map(|(_, value)| self.address(value, None));
                    let gateway = gateway.unwrap_or_default();
                    self.push(Route { index, gateway, weight, ..route });
                    hops = hops.get(length.next_multiple_of(4)..).unwrap_or_default();
                }
            }
        }
    }

    /// An address as Go writes it; empty if it is none.
    fn address(&mut self, bytes: &[u8], prefix: Option<u8>) -> Span {
        // An IPv6 address has 39 characters at most, of a mapped one 15.
        let mut text = heapless::String::<48>::new();
        let _ = match (<[u8; 4]>::try_from(bytes), <[u8; 16]>::try_from(bytes)) {
            (Ok(four), _) => write!(text, "{}", Ipv4Addr::from(four)),
            (_, Ok(six)) => match Ipv6Addr::from(six) {
                six if six.to_ipv4_mapped().is_some() => {
                    write!(text, "{}", six.to_ipv4_mapped().unwrap_or(Ipv4Addr::UNSPECIFIED))
                }
                six => write!(text, "{six}"),
            },
            _ => Ok(()),
        };
        if let Some(prefix) = prefix {
            let _ = write!(text, "/{prefix}");
        }
        self.texts.keep(&text)
    }

    fn write(&mut self, out: &mut Samples) {
        let Table { routes, texts, .. } = self;
        let text = |span: Span| texts.get(span);
        let key = |route: &Route| {
            let Route { device, source, destination, gateway, .. } = *route;
            let texts = (text(device), text(destination), text(gateway), text(source));
            (texts, route.priority, route.protocol, route.weight)
        };
        sort::unstable_by(routes, |a, b| key(a).cmp(&key(b)));
        let mut family = out.family(&INFO);
        let mut last = None;
        for route in &*routes {
            if last.replace(key(route)) == Some(key(route)) {
                continue;
            }
            let priority = decimal(route.priority.into());
            let weight = route.weight.map(|weight| decimal(weight.into()));
            let labels = [
                ("device", text(route.device)),
                ("src", text(route.source)),
                ("dest", text(route.destination)),
                ("gw", text(route.gateway)),
                ("priority", priority.as_str()),
                ("proto", route.protocol),
                ("weight", weight.as_ref().map_or("", |weight| weight.as_str())),
            ];
            family.add(&labels, 1.0);
        }
        let mut family = out.family(&ROUTES);
        for of_device in routes.chunk_by(|a, b| text(a.device) == text(b.device)) {
            let device = of_device.first().map_or("", |route| text(route.device));
            family.add(&[("device", device)], of_device.len() as f64);
        }
    }
}

/// include/uapi/linux/rtnetlink.h, as far as node_exporter knows it.
fn name_of_protocol(protocol: u8) -> &'static str {
    match protocol {
        0 => "unspec",
        1 => "redirect",
        2 => "kernel",
        3 => "boot",
        4 => "static",
        8 => "gated",
        9 => "ra",
        10 => "mrt",
        11 => "zebra",
        12 => "bird",
        13 => "dnrouted",
        14 => "xorp",
        15 => "ntk",
        16 => "dhcp",
        17 => "mrouted",
        42 => "babel",
        186 => "bgp",
        187 => "isis",
        188 => "ospf",
        189 => "rip",
        192 => "eigrp",
        _ => "unknown",
    }
}

/// What the fuzz target calls.
pub(super) fn fuzz(body: &[u8], out: &mut Samples) {
    let mut table = Table::default();
    table.add(body);
    table.add(body);
    table.write(out);
}

#[cfg(test)]
mod tests {
    use super::*;

    fn attribute(kind: u16, value: &[u8]) -> Vec<u8> {
        let mut bytes = ((4 + value.len()) as u16).to_ne_bytes().to_vec();
        bytes.extend(kind.to_ne_bytes());
        bytes.extend(value);
        bytes.resize(bytes.len().next_multiple_of(4), 0);
        bytes
    }

    fn route(length: u8, kind: u8, attributes: &[Vec<u8>]) -> Vec<u8> {
        let header = [2, length, 0, 0, 254, 3, 0, kind, 0, 0, 0, 0];
        [header.to_vec(), attributes.concat()].concat()
    }

    fn hop(index: u32, more: u8, gateway: [u8; 4]) -> Vec<u8> {
        let gateway = attribute(RTA_GATEWAY, &gateway);
        let length = (HOP + gateway.len()) as u16;
        [&length.to_ne_bytes()[..], &[0, more], &index.to_ne_bytes(), &gateway].concat()
    }

    fn shown(table: &Table) -> Vec<String> {
        let show = |route: &Route| {
            let text = |span| table.texts.get(span);
            let Route { index, destination, gateway, source, priority, protocol, weight, .. } =
                route;
            let (to, over, from) = (text(*destination), text(*gateway), text(*source));
            format!("{index} {to} {over} {from} {priority} {protocol} {weight:?}")
        };
        table.routes.iter().map(show).collect()
    }

    #[test]
    fn routes_of_every_kind() {
        let mut table = Table::default();
        table.add(&route(
            24,
            1,
            &[
                attribute(RTA_DST, &[192, 0, 2, 0]),
                attribute(RTA_OIF, &4u32.to_ne_bytes()),
                attribute(RTA_PREFSRC, &[192, 0, 2, 2]),
                attribute(RTA_PRIORITY, &100u32.to_ne_bytes()),
            ],
        ));
        // A local one.
        table.add(&route(32, 2, &[attribute(RTA_DST, &[192, 0, 2, 2])]));
        let hops = [hop(4, 0, [10, 0, 0, 1]), hop(5, 255, [10, 0, 0, 2])].concat();
        table.add(&route(0, 1, &[attribute(RTA_MULTIPATH, &hops)]));
        let six = "fd00::".parse::<Ipv6Addr>().unwrap().octets();
        table.add(&route(64, 1, &[attribute(RTA_DST, &six)]));
        let expected = [
            "4 192.0.2.0/24  192.0.2.2 100 boot None",
            "4 default 10.0.0.1  0 boot Some(1)",
            "5 default 10.0.0.2  0 boot Some(256)",
            "0 fd00::/64   0 boot None",
        ];
        assert_eq!(shown(&table), expected);
    }

    #[test]
    fn a_message_cut_anywhere_is_no_panic() {
        let hops = [hop(4, 0, [10, 0, 0, 1]), hop(5, 1, [10, 0, 0, 2])].concat();
        let whole =
            route(24, 1, &[attribute(RTA_DST, &[1, 2, 3]), attribute(RTA_MULTIPATH, &hops)]);
        for length in 0..whole.len() {
            let mut table = Table::default();
            table.add(&whole[..length]);
            assert!(table.routes.len() <= 2);
        }
        for length in [0u16, 7, 8, 9, u16::MAX] {
            let mut hops = hop(4, 0, [10, 0, 0, 1]);
            hops[..2].copy_from_slice(&length.to_ne_bytes());
            let mut table = Table::default();
            table.add(&route(0, 1, &[attribute(RTA_MULTIPATH, &hops)]));
            assert!(table.routes.len() <= 3, "{length}");
        }
    }

    #[test]
    fn the_same_labels_are_one_series_and_routes_have_a_bound() {
        let mut table = Table::default();
        for _ in 0..MAX_ROUTES + 5 {
            table.add(&route(0, 1, &[]));
        }
        assert_eq!((table.routes.len(), table.refused), (MAX_ROUTES, 5));
        let mut out = Samples::with_limit(100);
        table.write(&mut out);
        let values: Vec<_> =
            out.iter().map(|sample| (sample.name().to_owned(), sample.value)).collect();
        let expected =
            [("node_network_route_info", 1.0), ("node_network_routes", MAX_ROUTES as f64)];
        assert_eq!(values, expected.map(|(name, value)| (name.to_owned(), value)));
    }
}
