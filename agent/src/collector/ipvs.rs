//! node_exporter's `ipvs`, from /proc/net/ip_vs_stats and /proc/net/ip_vs
//! (net/netfilter/ipvs/ip_vs_ctl.c): the balancer's traffic, and connections and weight of each backend.
//!
//! A service of SCTP is one of its own here; node_exporter 1.5.0 adds its backends to the service before.

use std::fmt::Write as _;
use std::net::{Ipv4Addr, Ipv6Addr};

use super::parse::{
    FirstError, Span, Texts, decimal, fields, hex, lines, malformed, unsigned, whole,
};
use super::{CollectError, Collector};
use crate::host::Host;
use crate::model::{Desc, Samples};
use crate::sort;

const STATS: &str = "proc/net/ip_vs_stats";
const SERVICES: &str = "proc/net/ip_vs";

/// In the order of the file's columns.
const TRAFFIC: [Desc; 5] = [
    Desc::counter("node_ipvs_connections_total", "The total number of connections made."),
    Desc::counter("node_ipvs_incoming_packets_total", "The total number of incoming packets."),
    Desc::counter("node_ipvs_outgoing_packets_total", "The total number of outgoing packets."),
    Desc::counter("node_ipvs_incoming_bytes_total", "The total amount of incoming data."),
    Desc::counter("node_ipvs_outgoing_bytes_total", "The total amount of outgoing data."),
];

/// In the order of the file's columns.
const BACKEND: [Desc; 3] = [
    Desc::gauge(
        "node_ipvs_backend_weight",
        "The current backend weight by local and remote address.",
    ),
    Desc::gauge(
        "node_ipvs_backend_connections_active",
        "The current active connections by local and remote address.",
    ),
    Desc::gauge(
        "node_ipvs_backend_connections_inactive",
        "The current inactive connections by local and remote address.",
    ),
];

/// What a service is known by.
#[derive(Clone, Copy, Debug, Default)]
struct Service {
    proto: Span,
    mark: Span,
    address: Span,
    port: u16,
}

#[derive(Debug)]
struct Backend {
    /// Its place in the file.
    order: u32,
    service: Service,
    address: Span,
    port: u16,
    values: [u64; BACKEND.len()],
}

/// Traffic through the balancer, and its backends.
#[derive(Default)]
pub(super) struct Ipvs {
    backends: Vec<Backend>,
    texts: Texts,
    scratch: String,
}

impl Collector for Ipvs {
    fn collect(&mut self, host: &mut Host, out: &mut Samples) -> Result<(), CollectError> {
        let mut errors = FirstError::default();
        match traffic(host.proc("net/ip_vs_stats")?, &mut errors) {
            Ok(values) => {
                for (desc, value) in TRAFFIC.iter().zip(values) {
                    out.value(desc, value as f64);
                }
            }
            Err(error) => errors.note(error),
        }
        match host.proc("net/ip_vs") {
            Ok(bytes) => {
                self.read(bytes, &mut errors);
                self.write(out);
            }
            Err(error) => errors.note(error.into()),
        }
        errors.result()
    }
}

/// Two lines of headings, and a line of numbers; what follows are rates.
fn traffic(bytes: &[u8], errors: &mut FirstError) -> Result<[u64; TRAFFIC.len()], CollectError> {
    let line = lines(whole(STATS, bytes, errors)).nth(2).unwrap_or_default();
    let mut values = [0; TRAFFIC.len()];
    let mut tokens = fields(line);
    for value in &mut values {
        let token = tokens.next().ok_or_else(|| malformed(STATS, line, "five numbers"))?;
        *value = hex(token).ok_or_else(|| malformed(STATS, token, "a hexadecimal number"))?;
    }
    Ok(values)
}

impl Ipvs {
    fn read(&mut self, bytes: &[u8], errors: &mut FirstError) {
        self.backends.clear();
        self.texts.clear();
        // The three lines of headings begin with IP, Prot and `->`.
        let mut service = None;
        for line in lines(whole(SERVICES, bytes, errors)).skip(3) {
            let read = if fields(line).next() == Some(b"->") {
                service.map_or(Ok(()), |service| self.backend(service, line))
            } else {
                // Backends of a service that can't be read are left out.
                service = None;
                self.service(line).map(|read| service = Some(read))
            };
            read.unwrap_or_else(|error| errors.note(error));
        }
        self.unite();
    }

    /// Adds up the backends that have the same labels: two services may differ in what is none, such as the
    /// scheduler. There may be tens of thousands.
    fn unite(&mut self) {
        let Ipvs { backends, texts, .. } = self;
        let text = |span| texts.get(span);
        let key = |backend: &Backend| {
            let Backend { service, address, port, .. } = *backend;
            let texts = [address, service.address, service.mark, service.proto].map(text);
            (port, service.port, texts)
        };
        sort::unstable_by(backends, |a, b| (key(a), a.order).cmp(&(key(b), b.order)));
        backends.dedup_by(|again, known| {
            let same = key(again) == key(known);
            if same {
                for (sum, value) in known.values.iter_mut().zip(again.values) {
                    *sum = sum.saturating_add(value);
                }
            }
            same
        });
        sort::unstable_by_key(backends, |backend| backend.order);
    }

    fn service(&mut self, line: &[u8]) -> Result<Service, CollectError> {
        let mut fields = fields(line);
        let proto = fields.next().unwrap_or_default();
        let token = fields.next().unwrap_or_default();
        let mut service = Service::default();
        match proto {
            b"TCP" | b"UDP" | b"SCTP" => {
                (service.address, service.port) = self.address(token)?;
            }
            b"FWM" if hex(token).is_some() => {
                service.mark = self.texts.keep(&String::from_utf8_lossy(token));
            }
            _ => return Err(malformed(SERVICES, line, "a service")),
        }
        service.proto = self.texts.keep(&String::from_utf8_lossy(proto));
        Ok(service)
    }

    /// `-> 0A000001:0050 Masq 1 0 0`
    fn backend(&mut self, service: Service, line: &[u8]) -> Result<(), CollectError> {
        let mut fields = fields(line).skip(1);
        let (address, port) = self.address(fields.next().unwrap_or_default())?;
        let mut values = [0; BACKEND.len()];
        let mut numbers = fields.skip(1);
        for value in &mut values {
            let token = numbers.next().ok_or_else(|| malformed(SERVICES, line, "six columns"))?;
            *value = unsigned(token).ok_or_else(|| malformed(SERVICES, token, "a number"))?;
        }
        let order = self.backends.len() as u32;
        self.backends.push(Backend { order, service, address, port, values });
        Ok(())
    }

    /// `0A000001:0050` or `[fd00:0000:…:0001]:0050`.
    fn address(&mut self, token: &[u8]) -> Result<(Span, u16), CollectError> {
        let wrong = || malformed(SERVICES, token, "an address and a port");
        let colon = token.iter().rposition(|&byte| byte == b':').ok_or_else(wrong)?;
        let (address, port) = token.split_at_checked(colon).ok_or_else(wrong)?;
        let port = port.get(1..).and_then(hex).and_then(|port| u16::try_from(port).ok());
        let port = port.ok_or_else(wrong)?;
        self.scratch.clear();
        // Writing to a String can't fail.
        let _ = match address.strip_prefix(b"[").and_then(|rest| rest.strip_suffix(b"]")) {
            Some(six) => {
                let six =
                    std::str::from_utf8(six).ok().and_then(|six| six.parse::<Ipv6Addr>().ok());
                write!(self.scratch, "{}", six.ok_or_else(wrong)?)
            }
            None if address.len() == 8 => {
                let four = hex(address).and_then(|four| u32::try_from(four).ok());
                write!(self.scratch, "{}", Ipv4Addr::from(four.ok_or_else(wrong)?))
            }
            None => return Err(wrong()),
        };
        Ok((self.texts.keep(&self.scratch), port))
    }

    fn write(&self, out: &mut Samples) {
        for (index, desc) in BACKEND.iter().enumerate() {
            let mut family = out.family(desc);
            for backend in &self.backends {
                let value = backend.values.get(index).copied().unwrap_or_default();
                let (local, remote) =
                    (decimal(backend.service.port.into()), decimal(backend.port.into()));
                let labels = [
                    ("local_address", self.texts.get(backend.service.address)),
                    ("local_port", local.as_str()),
                    ("remote_address", self.texts.get(backend.address)),
                    ("remote_port", remote.as_str()),
                    ("proto", self.texts.get(backend.service.proto)),
                    ("local_mark", self.texts.get(backend.service.mark)),
                ];
                family.add(&labels, value as f64);
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const HEADING: &str = "IP Virtual Server version 1.2.1 (size=4096)\n\
        Prot LocalAddress:Port Scheduler Flags\n  \
        -> RemoteAddress:Port Forward Weight ActiveConn InActConn\n";

    fn read(text: &str) -> (Vec<String>, Option<String>) {
        let mut ipvs = Ipvs::default();
        let mut errors = FirstError::default();
        ipvs.read(format!("{HEADING}{text}").as_bytes(), &mut errors);
        let texts = &ipvs.texts;
        let shown = ipvs.backends.iter().map(|backend| {
            let Backend { service, address, port, values, .. } = backend;
            let part = |span| texts.get(span).to_owned();
            format!(
                "{} {}{}:{} {}:{port} {values:?}",
                part(service.proto),
                part(service.address),
                part(service.mark),
                service.port,
                part(*address),
            )
        });
        (shown.collect(), errors.result().err().map(|error| error.to_string()))
    }

    #[test]
    fn services_of_every_kind() {
        let text = "TCP  C0A80016:0CEA wlc  \n  -> C0A85216:0CEA      Tunnel  100    248        2\n\
                    FWM  10001000 wlc  \n  -> C0A83215:0CEA      Route   0      0          1\n\
                    UDP  [fd00:0000:0000:0000:0000:0000:0000:0001]:0035 rr\n  \
                    -> [fd00:0000:0000:0000:0000:0000:0000:0002]:0035 Masq 1 2 3\n  \
                    -> [fd00:0000:0000:0000:0000:0000:0000:0002]:0035 Masq 1 2 3\n\
                    SCTP 7F000001:0001 rr\n  -> 7F000002:FFFF Masq 1 0 0\n";
        let expected = [
            "TCP 192.168.0.22:3306 192.168.82.22:3306 [100, 248, 2]",
            "FWM 10001000:0 192.168.50.21:3306 [0, 0, 1]",
            "UDP fd00::1:53 fd00::2:53 [2, 4, 6]",
            "SCTP 127.0.0.1:1 127.0.0.2:65535 [1, 0, 0]",
        ];
        assert_eq!(read(text), (expected.map(str::to_owned).to_vec(), None));
    }

    #[test]
    fn a_malformed_backend_costs_itself_and_a_malformed_service_its_backends() {
        let good = "TCP 7F000001:0001 rr\n-> 7F000002:0002 Masq 1 0 0\n";
        for bad in [
            "-> 7F000003:0002 Masq 1 0\n",
            "-> 7F000003 Masq 1 0 0\n",
            "-> 7F000003:10000 Masq 1 0 0\n",
            "-> [::1:0001 Masq 1 0 0\n",
            "-> [fg::]:0001 Masq 1 0 0\n",
            "-> 7F00000:0001 Masq 1 0 0\n",
            "-> 7F000003:0001 Masq 1 x 0\n",
            "TCP\n-> 7F000003:0001 Masq 1 0 0\n",
            "ICMP 7F000001:0001 rr\n-> 7F000003:0001 Masq 1 0 0\n",
            "FWM x rr\n-> 7F000003:0001 Masq 1 0 0\n",
        ] {
            let (kept, error) = read(&format!("{good}{bad}"));
            assert_eq!(kept.len(), 1, "{bad}");
            assert!(error.unwrap().contains(SERVICES), "{bad}");
        }
        assert_eq!(read("-> 7F000003:0001 Masq 1 0 0\n"), (Vec::new(), None));
    }

    #[test]
    fn traffic_is_in_the_third_line() {
        let read = |text: &str| traffic(text.as_bytes(), &mut FirstError::default());
        let text = "   Total\n   Conns\n   16AA370 E33656E5        0     51D8C8883AB3        0\n\n";
        let values = read(text).unwrap();
        assert_eq!(values, [0x16a_a370, 0xe336_56e5, 0, 0x51d8_c888_3ab3, 0]);
        assert!(read("a\nb\n1 2 3 4\n").unwrap_err().to_string().contains("1 2 3 4"));
        assert!(read("a\nb\n1 2 3 4 g\n").unwrap_err().to_string().contains("\"g\""));
        assert!(read("").is_err());
    }

    #[test]
    fn tens_of_thousands_of_backends_do_not_hold_the_round_up() {
        let mut text = "IP\nProt\n ->\nTCP 0A000001:0050 rr\n".to_owned();
        for n in 0..60_000u32 {
            let _ = writeln!(text, "  -> {n:08X}:0050 Masq 1 0 0");
            if n % 2 == 0 {
                let _ = writeln!(text, "  -> {n:08X}:0050 Masq 1 0 0");
            }
        }
        let mut ipvs = Ipvs::default();
        let start = std::time::Instant::now();
        ipvs.read(text.as_bytes(), &mut FirstError::default());
        assert_eq!(ipvs.backends.len(), 60_000);
        assert!(ipvs.backends.iter().enumerate().all(|(n, b)| b.values[0] == 2 - (n as u64 % 2)));
        assert!(start.elapsed().as_secs() < 10, "{:?}", start.elapsed());
    }
}
