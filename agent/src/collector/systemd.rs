//! node_exporter's `systemd`: the states of units and what services, sockets and timers tell, from the
//! system's bus or, where there is none, from systemd's own socket, which is root's
//! (org.freedesktop.systemd1(5)). `node_systemd_virtualization_info` is that of newer versions.
//!
//! The type of a service is asked anew after [`TYPES_FOR`], not in each round as node_exporter does: it
//! changes with the unit's file alone, and is the one question that each service costs.

use std::collections::HashMap;
use std::time::{Duration, Instant};

use super::bus::{SYSTEM_BUS, Service, Socket};
use super::options::SystemdOptions;
use super::parse::{Span, Texts};
use super::{CollectError, Collector};
use crate::host::Host;
use crate::host::dbus::{Error, Malformed, Value};
use crate::model::{Desc, Samples};

const PATH: &str = "/org/freedesktop/systemd1";
const MANAGER: &str = "org.freedesktop.systemd1.Manager";
const SERVICE: &str = "org.freedesktop.systemd1.Service";
const SOCKET: &str = "org.freedesktop.systemd1.Socket";

const SOCKETS: &[Socket] = &[SYSTEM_BUS, Socket { path: "run/systemd/private", bus: false }];

/// Versions before it have no SystemState and no LastTriggerUSec.
const STATE_SINCE: f64 = 212.0;

/// How long types of services are remembered.
const TYPES_FOR: Duration = Duration::from_secs(600);

const STATES: [&str; 5] = ["active", "activating", "deactivating", "inactive", "failed"];

/// systemd has two more. Units in others beyond these are passed over.
const MAX_STATES: usize = 16;

const UNIT_STATE: Desc = Desc::gauge("node_systemd_unit_state", "Systemd unit");
const START_TIME: Desc = Desc::gauge(
    "node_systemd_unit_start_time_seconds",
    "Start time of the unit since unix epoch in seconds.",
);
const TASKS_CURRENT: Desc =
    Desc::gauge("node_systemd_unit_tasks_current", "Current number of tasks per Systemd unit");
const TASKS_MAX: Desc =
    Desc::gauge("node_systemd_unit_tasks_max", "Maximum number of tasks per Systemd unit");
const RUNNING: Desc = Desc::gauge(
    "node_systemd_system_running",
    "Whether the system is operational (see 'systemctl is-system-running')",
);
const UNITS: Desc = Desc::gauge("node_systemd_units", "Summary of systemd unit states");
const RESTARTS: Desc =
    Desc::counter("node_systemd_service_restart_total", "Service unit count of Restart triggers");
const LAST_TRIGGER: Desc =
    Desc::gauge("node_systemd_timer_last_trigger_seconds", "Seconds since epoch of last trigger.");
const ACCEPTED: Desc = Desc::counter(
    "node_systemd_socket_accepted_connections_total",
    "Total number of accepted socket connections",
);
const CONNECTIONS: Desc =
    Desc::gauge("node_systemd_socket_current_connections", "Current number of socket connections");
/// A gauge in node_exporter, for all its name.
const REFUSED: Desc = Desc::gauge(
    "node_systemd_socket_refused_connections_total",
    "Total number of refused socket connections",
);
const VERSION: Desc = Desc::gauge("node_systemd_version", "Detected systemd version");
const VIRTUALIZATION: Desc =
    Desc::gauge("node_systemd_virtualization_info", "Detected virtualization technology");

struct Unit {
    name: Span,
    path: Span,
    state: Span,
}

/// Units.
pub(super) struct Systemd {
    options: SystemdOptions,
    service: Service,
    texts: Texts,
    units: Vec<Unit>,
    /// How many units are in each state.
    summary: Vec<(Span, u32)>,
    types: HashMap<String, String>,
    types_since: Instant,
}

impl Systemd {
    pub(super) fn new(options: &SystemdOptions) -> Systemd {
        Systemd {
            options: options.clone(),
            service: Service::new("org.freedesktop.systemd1", SOCKETS),
            texts: Texts::default(),
            units: Vec::new(),
            summary: Vec::new(),
            types: HashMap::new(),
            types_since: Instant::now(),
        }
    }
}

impl Collector for Systemd {
    fn collect(&mut self, host: &mut Host, out: &mut Samples) -> Result<(), CollectError> {
        self.service.begin(host)?;
        let version = self.version(out)?;
        self.virtualization(out)?;
        self.list_units()?;
        let mut family = out.family(&UNITS);
        for &(state, count) in &self.summary {
            family.add(&[("state", self.texts.get(state))], f64::from(count));
        }
        self.ask_types()?;
        self.write_states(out);
        if self.options.enable_restarts_metrics {
            self.each(out, ".service", &RESTARTS, SERVICE, "NRestarts", f64::from)?;
        }
        if self.options.enable_start_time_metrics {
            self.start_times(out)?;
        }
        if self.options.enable_task_metrics {
            self.each_long(out, ".service", &TASKS_CURRENT, SERVICE, "TasksCurrent", tasks)?;
            self.each_long(out, ".service", &TASKS_MAX, SERVICE, "TasksMax", tasks)?;
        }
        if version >= STATE_SINCE {
            let timer = "org.freedesktop.systemd1.Timer";
            self.each_long(out, ".timer", &LAST_TRIGGER, timer, "LastTriggerUSec", seconds)?;
        }
        self.each(out, ".socket", &ACCEPTED, SOCKET, "NAccepted", f64::from)?;
        self.each(out, ".socket", &CONNECTIONS, SOCKET, "NConnections", f64::from)?;
        self.each(out, ".socket", &REFUSED, SOCKET, "NRefused", f64::from)?;
        if version >= STATE_SINCE {
            let state = self.service.needed(PATH, MANAGER, "SystemState")?;
            out.value(&RUNNING, f64::from(u8::from(state == "running")));
        }
        Ok(())
    }
}

impl Systemd {
    fn version(&mut self, out: &mut Samples) -> Result<f64, CollectError> {
        let value = self.service.property(PATH, MANAGER, "Version")?;
        let text = if let Some(Value::Text(text)) = value { text } else { "" };
        let (number, label) = parse_version(text).map_or((0.0, ""), |number| (number, text));
        out.family(&VERSION).add(&[("version", label)], number);
        Ok(number)
    }

    fn virtualization(&mut self, out: &mut Samples) -> Result<(), CollectError> {
        let kind = match self.service.property(PATH, MANAGER, "Virtualization")? {
            Some(Value::Text("")) => "none",
            Some(Value::Text(text)) => text,
            _ => "unknown",
        };
        out.family(&VIRTUALIZATION).add(&[("virtualization_type", kind)], 1.0);
        Ok(())
    }

    /// Counts all units, and keeps those that are wanted.
    fn list_units(&mut self) -> Result<(), CollectError> {
        self.texts.clear();
        self.units.clear();
        self.summary.clear();
        for state in STATES {
            self.summary.push((self.texts.keep(state), 0));
        }
        let Systemd { options, service, texts, units, summary, .. } = self;
        let mut body = service.call(PATH, MANAGER, "ListUnits", "a(ssssssouso)")?;
        let mut read = || -> Result<(), Malformed> {
            let end = body.array(8)?;
            while body.position() < end {
                body.align(8)?;
                let name = body.string()?;
                body.string()?;
                let load = body.string()?;
                let active = body.string()?;
                body.string()?;
                body.string()?;
                let path = body.path()?;
                body.u32()?;
                body.string()?;
                body.path()?;
                let full = summary.len() >= MAX_STATES;
                let known = summary.iter_mut().find(|known| texts.get(known.0) == active);
                let state = match known {
                    Some((state, count)) => {
                        *count += 1;
                        *state
                    }
                    None if full => continue,
                    None => {
                        let state = texts.keep(active);
                        summary.push((state, 1));
                        state
                    }
                };
                if load == "loaded" && options.wants(name.as_bytes()) {
                    units.push(Unit { name: texts.keep(name), path: texts.keep(path), state });
                }
            }
            body.end_of_array(end)?;
            body.end()
        };
        let result = read();
        result.map_err(|malformed| self.service.fault(Error::Malformed(malformed)))
    }

    /// Asks for the types that are not known yet.
    fn ask_types(&mut self) -> Result<(), CollectError> {
        if self.types_since.elapsed() > TYPES_FOR {
            self.types.clear();
            self.types_since = Instant::now();
        }
        for unit in &self.units {
            let name = self.texts.get(unit.name);
            let interface = match name.rsplit_once('.') {
                Some((_, "service")) => SERVICE,
                Some((_, "mount")) => "org.freedesktop.systemd1.Mount",
                _ => continue,
            };
            if self.types.contains_key(name) {
                continue;
            }
            let path = self.texts.get(unit.path);
            if let Some(Value::Text(kind)) = self.service.property(path, interface, "Type")? {
                self.types.insert(name.to_owned(), kind.to_owned());
            }
        }
        Ok(())
    }

    fn write_states(&self, out: &mut Samples) {
        let mut family = out.family(&UNIT_STATE);
        for unit in &self.units {
            let name = self.texts.get(unit.name);
            let kind = self.types.get(name).map_or("", String::as_str);
            for state in STATES {
                let is = state == self.texts.get(unit.state);
                let labels = [("name", name), ("state", state), ("type", kind)];
                family.add(&labels, f64::from(u8::from(is)));
            }
        }
    }

    fn start_times(&mut self, out: &mut Samples) -> Result<(), CollectError> {
        let mut family = out.family(&START_TIME);
        for unit in &self.units {
            let mut time = 0;
            if self.texts.get(unit.state) == "active" {
                let (path, unit) = (self.texts.get(unit.path), "org.freedesktop.systemd1.Unit");
                match self.service.property(path, unit, "ActiveEnterTimestamp")? {
                    Some(Value::U64(value)) => time = value,
                    _ => continue,
                }
            }
            family.add(&[("name", self.texts.get(unit.name))], time as f64 / 1e6);
        }
        Ok(())
    }

    /// A number of 32 bits of each unit whose name ends so.
    fn each(
        &mut self,
        out: &mut Samples,
        suffix: &str,
        desc: &Desc,
        interface: &str,
        property: &str,
        convert: fn(u32) -> f64,
    ) -> Result<(), CollectError> {
        let mut family = out.family(desc);
        for unit in &self.units {
            let name = self.texts.get(unit.name);
            if !name.ends_with(suffix) {
                continue;
            }
            let path = self.texts.get(unit.path);
            if let Some(Value::U32(value)) = self.service.property(path, interface, property)? {
                family.add(&[("name", name)], convert(value));
            }
        }
        Ok(())
    }

    /// A number of 64 bits of each unit whose name ends so.
    fn each_long(
        &mut self,
        out: &mut Samples,
        suffix: &str,
        desc: &Desc,
        interface: &str,
        property: &str,
        convert: fn(u64) -> Option<f64>,
    ) -> Result<(), CollectError> {
        let mut family = out.family(desc);
        for unit in &self.units {
            let name = self.texts.get(unit.name);
            if !name.ends_with(suffix) {
                continue;
            }
            let path = self.texts.get(unit.path);
            if let Some(Value::U64(value)) = self.service.property(path, interface, property)?
                && let Some(value) = convert(value)
            {
                family.add(&[("name", name)], value);
            }
        }
        Ok(())
    }
}

fn seconds(microseconds: u64) -> Option<f64> {
    Some(microseconds as f64 / 1e6)
}

/// The greatest number stands for none.
fn tasks(count: u64) -> Option<f64> {
    (count != u64::MAX).then_some(count as f64)
}

/// The first run of three digits and more, with a fraction if it has one: `252.39` of `252.39-1~deb12u1`.
fn parse_version(text: &str) -> Option<f64> {
    let mut rest = text;
    loop {
        let start = rest.find(|c: char| c.is_ascii_digit())?;
        rest = rest.get(start..)?;
        let digits = |text: &str| text.bytes().take_while(u8::is_ascii_digit).count();
        let whole = digits(rest);
        if whole < 3 {
            rest = rest.get(whole..)?;
            continue;
        }
        let fraction = rest.get(whole..)?.strip_prefix('.').map_or(0, digits);
        let end = if fraction > 0 { whole + 1 + fraction } else { whole };
        return rest.get(..end)?.parse().ok();
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn versions_have_three_digits() {
        for (text, number) in [
            ("252.39-1~deb12u1", Some(252.39)),
            ("systemd 255 (255.4-1ubuntu8)", Some(255.0)),
            ("v12 209", Some(209.0)),
            ("256.", Some(256.0)),
            ("12", None),
            ("", None),
        ] {
            assert_eq!(parse_version(text), number, "{text}");
        }
    }
}
