//! node_exporter's `logind`: how many sessions systemd-logind has, by seat and kind, over the system's bus
//! (org.freedesktop.login1(5)).

use super::bus::{SYSTEM_BUS, Service};
use super::parse::{Span, Texts};
use super::{CollectError, Collector};
use crate::host::Host;
use crate::host::dbus::{Error, Malformed, Value};
use crate::model::{Desc, Samples};

const PATH: &str = "/org/freedesktop/login1";
const MANAGER: &str = "org.freedesktop.login1.Manager";
const SESSION: &str = "org.freedesktop.login1.Session";

const SESSIONS: Desc =
    Desc::gauge("node_logind_sessions", "Number of sessions registered in logind.");

const REMOTES: [&str; 2] = ["true", "false"];
/// The first stands for any other.
const TYPES: [&str; 7] = ["other", "unspecified", "tty", "x11", "wayland", "mir", "web"];
/// The first stands for any other.
const CLASSES: [&str; 5] = ["other", "user", "greeter", "lock-screen", "background"];

/// A round with more asks no further.
const MAX: usize = 1_000;

/// Which sessions are counted together: seat, remote, type and class.
type Group = (usize, usize, usize, usize);

/// Sessions.
pub(super) struct Logind {
    service: Service,
    texts: Texts,
    seats: Vec<Span>,
    /// Seat and path.
    sessions: Vec<(Span, Span)>,
    groups: Vec<Group>,
}

impl Logind {
    pub(super) fn new() -> Logind {
        Logind {
            service: Service::new("org.freedesktop.login1", &[SYSTEM_BUS]),
            texts: Texts::default(),
            seats: Vec::new(),
            sessions: Vec::new(),
            groups: Vec::new(),
        }
    }
}

impl Collector for Logind {
    fn collect(&mut self, host: &mut Host, out: &mut Samples) -> Result<(), CollectError> {
        self.texts.clear();
        self.seats.clear();
        self.sessions.clear();
        self.groups.clear();
        self.service.begin(host)?;
        self.list_seats()?;
        self.list_sessions()?;
        for index in 0..self.sessions.len() {
            let Some(&(seat, path)) = self.sessions.get(index) else { break };
            let seat = self.texts.get(seat);
            let known = self.seats.iter().position(|&known| self.texts.get(known) == seat);
            let path = self.texts.get(path);
            let remote = match self.service.property(path, SESSION, "Remote")? {
                Some(Value::Bool(remote)) => usize::from(!remote),
                _ => continue,
            };
            let Some(kind) = word(self.service.property(path, SESSION, "Type")?, &TYPES) else {
                continue;
            };
            let Some(class) = word(self.service.property(path, SESSION, "Class")?, &CLASSES) else {
                continue;
            };
            if let Some(seat) = known {
                self.groups.push((seat, remote, kind, class));
            }
        }
        self.write(out);
        Ok(())
    }
}

/// Which of the words it is.
fn word(value: Option<Value<'_>>, words: &[&str]) -> Option<usize> {
    match value {
        Some(Value::Text(text)) => Some(words.iter().position(|word| *word == text).unwrap_or(0)),
        _ => None,
    }
}

impl Logind {
    fn list_seats(&mut self) -> Result<(), CollectError> {
        let (texts, seats) = (&mut self.texts, &mut self.seats);
        let mut body = self.service.call(PATH, MANAGER, "ListSeats", "a(so)")?;
        let mut read = || -> Result<(), Malformed> {
            let end = body.array(8)?;
            while body.position() < end && seats.len() < MAX {
                body.align(8)?;
                seats.push(texts.keep(body.string()?));
                body.path()?;
            }
            Ok(())
        };
        let result = read();
        // Sessions without a seat, such as remote ones.
        seats.push(texts.keep(""));
        result.map_err(|malformed| self.service.fault(Error::Malformed(malformed)))
    }

    fn list_sessions(&mut self) -> Result<(), CollectError> {
        let (texts, sessions) = (&mut self.texts, &mut self.sessions);
        let mut body = self.service.call(PATH, MANAGER, "ListSessions", "a(susso)")?;
        let mut read = || -> Result<(), Malformed> {
            let end = body.array(8)?;
            while body.position() < end && sessions.len() < MAX {
                body.align(8)?;
                body.string()?;
                body.u32()?;
                body.string()?;
                let seat = texts.keep(body.string()?);
                let path = texts.keep(body.path()?);
                sessions.push((seat, path));
            }
            Ok(())
        };
        read().map_err(|malformed| self.service.fault(Error::Malformed(malformed)))
    }

    fn write(&self, out: &mut Samples) {
        let mut family = out.family(&SESSIONS);
        for (seat, name) in self.seats.iter().enumerate() {
            for (remote, remote_name) in REMOTES.iter().enumerate() {
                for (kind, kind_name) in TYPES.iter().enumerate() {
                    for (class, class_name) in CLASSES.iter().enumerate() {
                        let group = (seat, remote, kind, class);
                        let count = self.groups.iter().filter(|&&other| other == group).count();
                        let labels = [
                            ("seat", self.texts.get(*name)),
                            ("remote", *remote_name),
                            ("type", *kind_name),
                            ("class", *class_name),
                        ];
                        family.add(&labels, count as f64);
                    }
                }
            }
        }
    }
}
