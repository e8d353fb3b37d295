//! node_exporter's `netdev`, from /proc/net/dev (net/core/net-procfs.c), whose sums of columns are the
//! ones that node_exporter makes of netlink's counters, and from /sys/class/net/*/statistics for the
//! one counter that the file lacks.
//!
//! The parser is our own because the procfs crate's makes a map of strings, loses the order of the
//! devices and does not say which token is malformed.

use super::options::{NetdevOptions, excludes};
use super::parse::{
    FirstError, Span, Texts, fields, lines, malformed, number, text, unsigned, whole,
};
use super::{CollectError, Collector};
use crate::host::{Host, Root};
use crate::model::{Desc, Samples};

const FILE: &str = "proc/net/dev";

/// A device's name may have 15 bytes (IFNAMSIZ).
const NAME_MAX: usize = 15;

macro_rules! statistics {
    ($($key:literal),* $(,)?) => {
        [$(Desc::counter(
            concat!("node_network_", $key, "_total"),
            concat!("Network device statistic ", $key, "."),
        )),*]
    };
}

/// In the order of the file's columns.
const COLUMNS: [Desc; 16] = statistics![
    "receive_bytes",
    "receive_packets",
    "receive_errs",
    "receive_drop",
    "receive_fifo",
    "receive_frame",
    "receive_compressed",
    "receive_multicast",
    "transmit_bytes",
    "transmit_packets",
    "transmit_errs",
    "transmit_drop",
    "transmit_fifo",
    "transmit_colls",
    "transmit_carrier",
    "transmit_compressed",
];

/// Since Linux 4.6.
const NOHANDLER: Desc = Desc::counter(
    "node_network_receive_nohandler_total",
    "Network device statistic receive_nohandler.",
);

struct Device {
    name: Span,
    columns: [u64; COLUMNS.len()],
    nohandler: Option<u64>,
}

/// Bytes, packets and errors of each network device.
pub(super) struct Netdev {
    options: NetdevOptions,
    devices: Vec<Device>,
    texts: Texts,
}

impl Netdev {
    pub(super) fn new(options: &NetdevOptions) -> Netdev {
        Netdev { options: options.clone(), devices: Vec::new(), texts: Texts::default() }
    }
}

impl Collector for Netdev {
    fn collect(&mut self, host: &mut Host, out: &mut Samples) -> Result<(), CollectError> {
        let mut errors = FirstError::default();
        self.devices.clear();
        self.texts.clear();
        let mut lines = lines(whole(FILE, host.proc("net/dev")?, &mut errors));
        lines.next();
        let header = lines.next().unwrap_or_default();
        if header.iter().filter(|&&byte| byte == b'|').count() != 2 {
            return Err(malformed(FILE, header, "two lines of headings"));
        }
        for line in lines {
            self.parse(line).unwrap_or_else(|error| errors.note(error));
        }
        for device in &mut self.devices {
            let name = self.texts.get(device.name);
            let path = format_args!("class/net/{name}/statistics/rx_nohandler");
            // Older kernels have no such file, and neither has a sysfs of another network namespace.
            device.nohandler = number(host, Root::Sys, path, &mut errors);
        }
        self.write(out);
        errors.result()
    }
}

impl Netdev {
    /// Adds the device of one line, such as `  eth0: 1 2 …`.
    fn parse(&mut self, line: &[u8]) -> Result<(), CollectError> {
        // The name may be that of an alias, `eth0:1`; before Linux 2.6.38 no space follows the colon.
        let colon = line.iter().rposition(|&byte| byte == b':');
        let (name, rest) = match colon.and_then(|at| line.split_at_checked(at)) {
            Some((name, rest)) => (name.trim_ascii(), rest.get(1..).unwrap_or_default()),
            None => return Err(malformed(FILE, line, "a device and a colon")),
        };
        if name.is_empty() || name.len() > NAME_MAX || name.contains(&b'/') || name == b".." {
            return Err(malformed(FILE, name, "the name of a device"));
        }
        let include = self.options.device_include.as_ref();
        if excludes(self.options.device_exclude.as_ref(), name)
            || include.is_some_and(|pattern| !pattern.is_match(name))
        {
            return Ok(());
        }
        let mut columns = [0; COLUMNS.len()];
        let mut tokens = fields(rest);
        for column in &mut columns {
            let token = tokens.next().ok_or_else(|| malformed(FILE, line, "16 numbers"))?;
            *column = unsigned(token).ok_or_else(|| malformed(FILE, token, "a number"))?;
        }
        let name = self.texts.keep(&text(name));
        self.devices.push(Device { name, columns, nohandler: None });
        Ok(())
    }

    fn write(&self, out: &mut Samples) {
        for (index, desc) in COLUMNS.iter().enumerate() {
            let mut family = out.family(desc);
            for device in &self.devices {
                let value = device.columns.get(index).copied().unwrap_or_default();
                family.add(&[("device", self.texts.get(device.name))], value as f64);
            }
        }
        let mut family = out.family(&NOHANDLER);
        for device in &self.devices {
            if let Some(value) = device.nohandler {
                family.add(&[("device", self.texts.get(device.name))], value as f64);
            }
        }
    }
}
