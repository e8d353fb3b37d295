//! The collector `containers`: what each container uses, with the names, labels and help texts of cAdvisor
//! where it has them, so that its dashboards work: `name`, `image`, `id` (short: what `docker ps` shows;
//! cAdvisor has the group's path), `container_label_com_docker_compose_project` and `…_service`, and with
//! Kubernetes `namespace`, `pod` and `container`. What is not known is no label. As in cAdvisor, a limit
//! of 0 is none, and devices are named by their nodes in /dev.
//!
//! Not cAdvisor's: `container_memory_events_total`; `container_processes` counts the group and those
//! below it.

use std::fmt::Write;

use super::age::Age;
use super::devices::Devices;
use super::layout::Layout;
use super::lookup::{Found, Lookup, Question};
use super::members::Members;
use super::options::ContainersOptions;
use super::processes::Processes;
use super::recognise::{Group, Runtime, group, unescaped, user};
use super::runtime::Facts;
use super::tables::{CONTAINERS, CONTAINERS_EVENTS, CONTAINERS_IO};
use super::usage::{Io, Reader, Usage};
use super::walk::{Step, Walk};
use crate::collector::options::{Options, excludes};
use crate::collector::parse::FirstError;
use crate::collector::{CollectError, Collector};
use crate::host::{Clock, Host, SystemClock};
use crate::model::{Desc, Samples};

const CPU: Desc =
    Desc::counter("container_cpu_usage_seconds_total", "Cumulative cpu time consumed in seconds.");
const LAST_SEEN: Desc =
    Desc::gauge("container_last_seen", "Last time a container was seen by the exporter");
const START: Desc = Desc::gauge(
    "container_start_time_seconds",
    "Start time of the container since unix epoch in seconds.",
);
const PROCESSES: Desc =
    Desc::gauge("container_processes", "Number of processes running inside the container.");
const EVENT: Desc = Desc::counter(
    "container_memory_events_total",
    "How often the container met a memory bound or lost a process to the OOM killer, by event.",
);
const IGNORED: Desc = Desc::gauge(
    "mote_containers_ignored",
    "Containers that are not reported because there are more than metrics.containers.max.",
);

/// The rounds between two questions for one container, at most, where nobody answers.
const MAX_PAUSE: u32 = 64;

/// `id`, `image`, `name`, Compose's and Kubernetes', `cpu`, `device` or `event`.
const MAX_LABELS: usize = 10;

type Labels<'a> = heapless::Vec<(&'a str, &'a str), MAX_LABELS>;

/// What is known of who a container is.
#[derive(Debug)]
enum Known {
    /// To be asked for after so many rounds; then the pause before the next time.
    Ask(u32, u32),
    Done,
}

#[derive(Debug)]
struct Container {
    runtime: Runtime,
    /// As labels show it.
    id: String,
    facts: Facts,
    known: Known,
    usage: Usage,
    age: Age,
    since: Option<f64>,
    processes: Option<u64>,
    io: (usize, usize),
}

/// CPU, memory, I/O and processes of each container.
pub(in crate::collector) struct Containers {
    options: ContainersOptions,
    layout: Option<Layout>,
    walk: Walk,
    members: Members<Container>,
    devices: Devices,
    lookup: Lookup,
    processes: Processes,
    io: Vec<Io>,
    /// A device's node, while it is written.
    node: String,
}

impl Containers {
    pub(in crate::collector) fn new(options: &Options) -> Containers {
        let own = &options.containers;
        Containers {
            options: own.clone(),
            layout: None,
            walk: Walk::default(),
            members: Members::new(own.max),
            devices: Devices::new(options.diskstats.device_exclude.clone()),
            lookup: Lookup::new(own.docker_host.clone(), own.patience),
            processes: Processes::default(),
            io: Vec::new(),
            node: String::new(),
        }
    }
}

impl Collector for Containers {
    fn collect(&mut self, host: &mut Host, out: &mut Samples) -> Result<(), CollectError> {
        let layout = match self.layout.take() {
            Some(layout) => layout,
            None => Layout::find(host)?,
        };
        let members = &mut self.members;
        members.begin();
        self.walk.walk(host, &layout.tree, &mut |above, name| match group(above, name) {
            Group::Container(_, id) => {
                members.see(id, above, name);
                Step::Pass
            }
            Group::Above => Step::Enter,
            Group::Service => Step::EnterIfParted,
            Group::Other => Step::Pass,
        })?;
        let ignored = members.end(Container::new);
        self.name(host);
        self.devices.clear();
        self.io.clear();
        let mut errors = FirstError::default();
        for (_, member) in self.members.iter_mut().filter(|(_, member)| !member.hidden) {
            let mut reader =
                Reader { host, layout: &layout, devices: &mut self.devices, errors: &mut errors };
            let start = self.io.len();
            member.data.usage = reader.read(&member.path, &mut self.io);
            member.data.io = (start, self.io.len());
            member.data.since = member.data.age.since(host, &layout.tree, &member.path);
            member.data.processes = self.processes.count(host, &layout.tree, &member.path);
        }
        // Kept unless the tree's root could not be listed.
        self.layout = Some(layout);
        self.write(out);
        out.value(&IGNORED, ignored as f64);
        errors.result()
    }
}

impl Containers {
    /// Asks who the new containers are, and takes the answers.
    fn name(&mut self, host: &Host) {
        let (lookup, members) = (&mut self.lookup, &mut self.members);
        for (id, member) in members.iter_mut() {
            match &mut member.data.known {
                Known::Done => {}
                Known::Ask(0, _) => lookup.want(
                    &host.roots().root,
                    Question {
                        id: id.to_owned(),
                        runtime: member.data.runtime,
                        user: user(&member.path),
                    },
                ),
                Known::Ask(rounds, _) => *rounds -= 1,
            }
        }
        lookup.ask(|id, found| {
            // It may have gone meanwhile.
            let Some(member) = members.get_mut(id) else { return };
            member.data.known = match (found, &member.data.known) {
                (Found::Facts(facts), _) => {
                    member.data.facts = facts;
                    Known::Done
                }
                (Found::Nothing, _) => Known::Done,
                (Found::Later, Known::Ask(_, pause)) => {
                    Known::Ask(*pause, (pause * 2).clamp(1, MAX_PAUSE))
                }
                (Found::Later, Known::Done) => return,
            };
        });
        let (exclude, include) =
            (self.options.name_exclude.as_ref(), self.options.name_include.as_ref());
        for (_, member) in self.members.iter_mut() {
            let name = member.data.facts.name.as_bytes();
            member.hidden =
                excludes(exclude, name) || include.is_some_and(|include| !include.is_match(name));
        }
    }

    fn write(&mut self, out: &mut Samples) {
        let members = &self.members;
        let now = SystemClock.now_ns().div_euclid(1_000_000_000) as f64;
        let mut family = out.family(&LAST_SEEN);
        for (_, container) in members.shown() {
            family.add(&container.data.labels(None), now);
        }
        let mut family = out.family(&START);
        for (_, container) in members.shown() {
            if let Some(since) = container.data.since {
                family.add(&container.data.labels(None), since);
            }
        }
        let mut family = out.family(&CPU);
        for (_, container) in members.shown() {
            if let Some(seconds) = container.data.usage.cpu {
                // As cAdvisor without a series for each CPU, which Kubernetes and Docker's users run.
                family.add(&container.data.labels(Some(("cpu", "total"))), seconds);
            }
        }
        for (desc, value) in CONTAINERS {
            let mut family = out.family(desc);
            for (_, container) in members.shown() {
                if let Some(value) = value(&container.data.usage) {
                    family.add(&container.data.labels(None), value);
                }
            }
        }
        let mut family = out.family(&PROCESSES);
        for (_, container) in members.shown() {
            if let Some(count) = container.data.processes {
                family.add(&container.data.labels(None), count as f64);
            }
        }
        let mut family = out.family(&EVENT);
        for (_, container) in members.shown() {
            for (event, value) in CONTAINERS_EVENTS {
                if let Some(value) = value(&container.data.usage) {
                    family.add(&container.data.labels(Some(("event", event))), value as f64);
                }
            }
        }
        for (place, desc) in CONTAINERS_IO.iter().enumerate() {
            let mut family = out.family(desc);
            for (_, container) in members.shown() {
                let (start, end) = container.data.io;
                for io in self.io.get(start..end).unwrap_or_default() {
                    self.node.clear();
                    // Writing to a String can't fail.
                    let _ = write!(self.node, "/dev/{}", self.devices.name(io.device));
                    let labels = container.data.labels(Some(("device", &self.node)));
                    let value = io.counts.get(place).copied().unwrap_or_default();
                    family.add(&labels, value as f64);
                }
            }
        }
    }
}

impl Container {
    fn new(id: &str, path: &str) -> Container {
        let (above, name) = path.rsplit_once('/').unwrap_or(("", path));
        let runtime = match group(above, name) {
            Group::Container(runtime, _) => runtime,
            _ => Runtime::Other,
        };
        let mut facts = Facts::default();
        let (id, known) = if runtime == Runtime::Named {
            facts.name = unescaped(id);
            (facts.name.clone(), Known::Done)
        } else {
            let short = id.get(..12).unwrap_or(id).to_owned();
            // Until its name is known, and if it never is.
            facts.name.clone_from(&short);
            (short, Known::Ask(0, 0))
        };
        let (usage, age) = (Usage::default(), Age::default());
        Container {
            runtime,
            id,
            facts,
            known,
            usage,
            age,
            since: None,
            processes: None,
            io: (0, 0),
        }
    }

    fn labels<'a>(&'a self, more: Option<(&'a str, &'a str)>) -> Labels<'a> {
        let facts = &self.facts;
        let all = [
            ("id", self.id.as_str()),
            ("name", &facts.name),
            ("image", &facts.image),
            ("container_label_com_docker_compose_project", &facts.project),
            ("container_label_com_docker_compose_service", &facts.service),
            ("namespace", &facts.namespace),
            ("pod", &facts.pod),
            ("container", &facts.container),
        ];
        all.into_iter().filter(|(_, value)| !value.is_empty()).chain(more).collect()
    }
}
