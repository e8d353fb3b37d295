//! Which notices belong together, so that a dying disk makes some events and not thousands. It must not
//! know what the notices say.

use std::hash::{DefaultHasher, Hash, Hasher};

use super::ata::LINK_DOWN;
use super::block::UNKNOWN;
use super::notice::{AtaError, Notice};

/// An incident makes an event once in this time.
const WINDOW_US: u64 = 60_000_000;

/// Incidents that are remembered. With more of them at once, the one whose last event is the oldest is
/// forgotten, and its next notice makes an event.
const MAX: usize = 64;

#[derive(Clone, Copy, Debug)]
struct Incident {
    key: u64,
    /// When it last made an event.
    told: u64,
    /// When its last notice came.
    last: u64,
    /// Notices since the event.
    folded: u64,
}

/// What is going on.
#[derive(Debug, Default)]
pub(super) struct Incidents(heapless::Vec<Incident, MAX>);

impl Incidents {
    /// None if the notice makes no event, as when its incident has made one already; otherwise how many
    /// did so since the event before this one.
    pub(super) fn fold(&mut self, notice: &Notice, usec: u64) -> Option<u64> {
        // Each victim is an event: which process is gone is the fact.
        if matches!(notice, Notice::OomKill(_)) {
            return Some(0);
        }
        // That lines were left out is none: those before it are.
        if matches!(notice, Notice::IoError(io) if io.device == UNKNOWN) {
            return None;
        }
        let key = key(notice);
        if let Some(incident) = self.0.iter_mut().find(|incident| incident.key == key) {
            incident.last = usec;
            if usec.saturating_sub(incident.told) < WINDOW_US {
                incident.folded += 1;
                return None;
            }
            incident.told = usec;
            return Some(std::mem::take(&mut incident.folded));
        }
        let incident = Incident { key, told: usec, last: usec, folded: 0 };
        if let Err(incident) = self.0.push(incident)
            && let Some(oldest) = self.0.iter_mut().min_by_key(|incident| incident.told)
        {
            *oldest = incident;
        }
        Some(0)
    }

    /// Whether an ATA port had an error within the last minute.
    pub(super) fn is_open(&self, port: &str, usec: u64) -> bool {
        let key = port_key(port);
        self.0.iter().any(|i| i.key == key && usec.saturating_sub(i.last) < WINDOW_US)
    }
}

/// What has one counter is one incident. The steps by which libata tries to mend a port are one too,
/// but not that it has given up.
fn key(notice: &Notice) -> u64 {
    if let Notice::AtaError(AtaError { port, error, .. }) = notice
        && !matches!(*error, "disabled" | LINK_DOWN)
    {
        return port_key(port);
    }
    let mut hasher = DefaultHasher::new();
    notice.kind().hash(&mut hasher);
    notice.labels().hash(&mut hasher);
    hasher.finish()
}

fn port_key(port: &str) -> u64 {
    let mut hasher = DefaultHasher::new();
    ("ata", port).hash(&mut hasher);
    hasher.finish()
}
