//! What the collectors that ask services over D-Bus share: a connection that is kept, how long a round
//! waits, and what an answer that does not come means.
//!
//! A service that is not running is "no data", and is not started by being asked.

use std::io;
use std::time::{Duration, Instant};

use super::CollectError;
use crate::host::dbus::{Bus, Call, Error, Reader, Value};
use crate::host::{Host, Root};

/// How long a round waits for one answer. A bus that hangs holds it no longer.
const PATIENCE: Duration = Duration::from_secs(1);

/// How long a round asks a service that answers slowly.
const ALL_PATIENCE: Duration = Duration::from_secs(3);

/// The system's bus, below the root.
pub(super) const SYSTEM_BUS: Socket = Socket { path: "run/dbus/system_bus_socket", bus: true };

/// Where a service can be asked.
#[derive(Clone, Copy, Debug)]
pub(super) struct Socket {
    pub(super) path: &'static str,
    /// Whether a bus listens there, and not the service itself.
    pub(super) bus: bool,
}

/// A service and the way to it.
#[derive(Debug)]
pub(super) struct Service {
    name: &'static str,
    sockets: &'static [Socket],
    bus: Bus,
    /// When this round ends.
    end: Instant,
}

impl Service {
    pub(super) fn new(name: &'static str, sockets: &'static [Socket]) -> Service {
        Service { name, sockets, bus: Bus::new(), end: Instant::now() }
    }

    /// Begins a round: makes sure that somebody is there, by a question that every service answers.
    pub(super) fn begin(&mut self, host: &mut Host) -> Result<(), CollectError> {
        let deadline = Instant::now() + PATIENCE;
        self.end = Instant::now() + ALL_PATIENCE;
        let ping = Call {
            destination: self.name,
            path: "/",
            interface: "org.freedesktop.DBus.Peer",
            member: "Ping",
            arguments: &[],
        };
        // The other side may have been restarted since the last round.
        if self.bus.is_connected() && self.bus.call(&ping, "", deadline).is_ok() {
            return Ok(());
        }
        self.connect(host, deadline)?;
        match self.bus.call(&ping, "", deadline) {
            Ok(_) => Ok(()),
            Err(Error::Answer(name)) if is_absent(&name) => {
                let path = self.sockets.first().map_or("", |socket| socket.path);
                host.path(Root::Root, path);
                Err(CollectError::NoData(host.error(io::Error::other(name))))
            }
            // It answers, if not this.
            Err(Error::Answer(_)) => Ok(()),
            Err(error) => Err(self.fault(error)),
        }
    }

    fn connect(&mut self, host: &mut Host, deadline: Instant) -> Result<(), CollectError> {
        let mut first = None;
        for socket in self.sockets {
            let path = host.path(Root::Root, socket.path);
            match self.bus.connect(path, socket.bus, deadline) {
                Ok(()) if socket.bus => return Ok(()),
                Ok(()) => {
                    let woken = self.bus.wake(self.name, deadline);
                    return woken.map_err(|error| self.fault(error));
                }
                Err(Error::Connect(error)) => {
                    let error = host.error(error);
                    first.get_or_insert(CollectError::from(error));
                }
                Err(error) => return Err(self.fault(error)),
            }
        }
        let none = || self.fault(Error::Connect(io::ErrorKind::NotFound.into()));
        Err(first.unwrap_or_else(none))
    }

    /// Asks for a property. None if the service has no such property, or object any more; such an answer,
    /// and no other, allocates a little in each round.
    pub(super) fn property(
        &mut self,
        path: &str,
        interface: &str,
        name: &str,
    ) -> Result<Option<Value<'_>>, CollectError> {
        let service = self.name;
        let deadline = self.deadline();
        match self.bus.property(service, path, interface, name, deadline) {
            Ok(value) => Ok(Some(value)),
            Err(Error::Answer(_)) => Ok(None),
            Err(error) => Err(fault(service, error)),
        }
    }

    /// Asks for a text without which there is nothing to tell.
    pub(super) fn needed(
        &mut self,
        path: &str,
        interface: &str,
        name: &'static str,
    ) -> Result<&str, CollectError> {
        let service = self.name;
        let deadline = self.deadline();
        match self.bus.property(service, path, interface, name, deadline) {
            Ok(Value::Text(text)) => Ok(text),
            Ok(other) => {
                let file = format!("{name} of {service}");
                Err(CollectError::parse(&file, &format!("{other:?}"), "a text"))
            }
            Err(error) => Err(fault(service, error)),
        }
    }

    /// Calls a method without arguments.
    pub(super) fn call(
        &mut self,
        path: &str,
        interface: &str,
        member: &str,
        signature: &'static str,
    ) -> Result<Reader<'_>, CollectError> {
        let service = self.name;
        let call = Call { destination: service, path, interface, member, arguments: &[] };
        let deadline = self.deadline();
        self.bus.call(&call, signature, deadline).map_err(|error| fault(service, error))
    }

    /// Of the next answer.
    fn deadline(&self) -> Instant {
        self.end.min(Instant::now() + PATIENCE)
    }

    /// What an error means for the collector.
    pub(super) fn fault(&self, error: Error) -> CollectError {
        fault(self.name, error)
    }
}

fn is_absent(error: &str) -> bool {
    matches!(
        error.strip_prefix("org.freedesktop.DBus.Error."),
        Some("ServiceUnknown" | "NameHasNoOwner")
    )
}

fn fault(service: &str, error: Error) -> CollectError {
    let source = match error {
        Error::Malformed(malformed) => {
            let file = format!("an answer of {service}");
            return CollectError::parse(&file, &malformed.token, malformed.expected);
        }
        Error::Io(source) | Error::Connect(source) => source,
        Error::Refused(_) | Error::Answer(_) => io::Error::other(error.to_string()),
    };
    CollectError::System { attempt: format!("asking {service}"), source }
}
