//! The collector `services`: what each systemd service uses, from its control group, for all slices but
//! that of machines. A user's services are one, that of the user's manager (`user@1000.service`).
//!
//! The names are systemd_exporter's (prometheus-community) where it has them, because its dashboards know
//! them, and by its habits (`systemd_unit_…` with the labels `name` and `type`) where it has not; not
//! `node_systemd_…`, which node_exporter's `systemd` may fill any day with the units' states.

use super::devices::Devices;
use super::layout::Layout;
use super::members::Members;
use super::options::ServicesOptions;
use super::tables::{SERVICES, SERVICES_EVENTS, SERVICES_IO};
use super::usage::{Io, Reader, Usage};
use super::walk::{Step, Walk};
use crate::collector::options::{Options, excludes};
use crate::collector::parse::FirstError;
use crate::collector::{CollectError, Collector};
use crate::host::Host;
use crate::model::{Desc, Samples};

const CPU: Desc = Desc::counter("systemd_unit_cpu_seconds_total", "Unit CPU time in seconds");
const EVENT: Desc = Desc::counter(
    "systemd_unit_memory_events_total",
    "How often the unit met a memory bound or lost a process to the OOM killer, by event.",
);
const IGNORED: Desc = Desc::gauge(
    "mote_services_ignored",
    "Services that are not reported because there are more than metrics.services.max.",
);

#[derive(Debug, Default)]
struct Service {
    usage: Usage,
    /// Where its devices are among those of the round.
    io: (usize, usize),
}

/// CPU, memory, I/O and tasks of each systemd service.
pub(in crate::collector) struct Services {
    options: ServicesOptions,
    layout: Option<Layout>,
    walk: Walk,
    members: Members<Service>,
    devices: Devices,
    io: Vec<Io>,
}

impl Services {
    pub(in crate::collector) fn new(options: &Options) -> Services {
        Services {
            options: options.services.clone(),
            layout: None,
            walk: Walk::default(),
            members: Members::new(options.services.max),
            devices: Devices::new(options.diskstats.device_exclude.clone()),
            io: Vec::new(),
        }
    }
}

impl Collector for Services {
    fn collect(&mut self, host: &mut Host, out: &mut Samples) -> Result<(), CollectError> {
        let layout = match self.layout.take() {
            Some(layout) => layout,
            None => Layout::find(host)?,
        };
        let (members, options) = (&mut self.members, &self.options);
        members.begin();
        let include = options.name_include.as_ref();
        self.walk.walk(host, &layout.tree, &mut |above, name| {
            if name.ends_with(".slice") && name != "machine.slice" {
                return Step::Enter;
            }
            if name.ends_with(".service")
                && !excludes(options.name_exclude.as_ref(), name.as_bytes())
                && include.is_none_or(|include| include.is_match(name.as_bytes()))
            {
                members.see(name, above, name);
            }
            Step::Pass
        })?;
        let ignored = members.end(|_, _| Service::default());
        self.devices.clear();
        self.io.clear();
        let mut errors = FirstError::default();
        for (_, member) in self.members.iter_mut() {
            let mut reader =
                Reader { host, layout: &layout, devices: &mut self.devices, errors: &mut errors };
            let start = self.io.len();
            member.data.usage = reader.read(&member.path, &mut self.io);
            member.data.io = (start, self.io.len());
        }
        // Kept unless the tree's root could not be listed.
        self.layout = Some(layout);
        self.write(out);
        out.value(&IGNORED, ignored as f64);
        errors.result()
    }
}

impl Services {
    fn write(&self, out: &mut Samples) {
        let mut family = out.family(&CPU);
        for (name, service) in self.members.shown() {
            let usage = &service.data.usage;
            for (mode, value) in [("system", usage.system), ("user", usage.user)] {
                if let Some(value) = value {
                    family.add(&[("name", name), ("type", "service"), ("mode", mode)], value);
                }
            }
        }
        for (desc, value) in SERVICES {
            let mut family = out.family(desc);
            for (name, service) in self.members.shown() {
                if let Some(value) = value(&service.data.usage) {
                    family.add(&[("name", name), ("type", "service")], value);
                }
            }
        }
        let mut family = out.family(&EVENT);
        for (name, service) in self.members.shown() {
            for (event, value) in SERVICES_EVENTS {
                if let Some(value) = value(&service.data.usage) {
                    let labels = [("name", name), ("type", "service"), ("event", event)];
                    family.add(&labels, value as f64);
                }
            }
        }
        for (place, desc) in SERVICES_IO.iter().enumerate() {
            let mut family = out.family(desc);
            for (name, service) in self.members.shown() {
                let (start, end) = service.data.io;
                for io in self.io.get(start..end).unwrap_or_default() {
                    let device = self.devices.name(io.device);
                    let labels = [("name", name), ("type", "service"), ("device", device)];
                    let value = io.counts.get(place).copied().unwrap_or_default();
                    family.add(&labels, value as f64);
                }
            }
        }
    }
}
