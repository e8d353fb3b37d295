//! Maps of what has begun and not ended yet. An end that is missed leaves its entry behind, which does no
//! harm until the map is full of them: only then it is looked at.

use agent_common::plain::Plain;
use aya::maps::MapError;

use super::maps::{Table, Value};

/// The most steps through a map: what changes meanwhile may lead back to the beginning.
const MAX_STEPS: usize = 8192;

/// Keeps a map of beginnings from being full for ever.
#[derive(Debug, Default)]
pub(super) struct Sweeper {
    /// How often the programs had found the map full at the last look.
    full: u64,
    /// Entries that were taken out since the start.
    pub(super) forgotten: u64,
}

impl Sweeper {
    /// Takes out what `is_old`, if the programs have found the map full since the last call; `full` is how
    /// often they have since the start.
    pub(super) fn sweep<K: Plain, V: Plain>(
        &mut self,
        map: &mut Table<K, V>,
        full: u64,
        is_old: impl Fn(V) -> bool,
    ) -> Result<(), MapError> {
        if full <= self.full {
            return Ok(());
        }
        self.full = full;
        // What is gone meanwhile is none.
        let entries = map.iter().take(MAX_STEPS).flatten();
        let old: Vec<_> =
            entries.filter(|(_, value)| is_old(value.0)).map(|(key, _)| key).collect();
        for Value(key) in old {
            match map.remove(&Value(key)) {
                Ok(()) => self.forgotten += 1,
                Err(MapError::KeyNotFound) => {}
                Err(error) => return Err(error),
            }
        }
        Ok(())
    }
}

/// CLOCK_MONOTONIC in nanoseconds, as the programs' bpf_ktime_get_ns has it.
pub(super) fn now_ns() -> u64 {
    let now = rustix::time::clock_gettime(rustix::time::ClockId::Monotonic);
    now.tv_sec as u64 * 1_000_000_000 + now.tv_nsec as u64
}
