//! Watches a running agent from outside: each round that it says it has collected, whatever becomes of
//! it. So a test knows what has to arrive without asking the WAL.

use std::collections::BTreeSet;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex, PoisonError};
use std::thread::JoinHandle;
use std::time::Duration;

use super::agent::request;

/// Between two looks: many in each round.
const LOOK: Duration = Duration::from_millis(40);

pub struct Watch {
    seen: Arc<Mutex<BTreeSet<i64>>>,
    stop: Arc<AtomicBool>,
    thread: Option<JoinHandle<()>>,
}

impl Watch {
    /// Watches the agent whose status page is at this port of the loopback, over its restarts too.
    pub fn new(port: u16) -> Watch {
        let seen: Arc<Mutex<BTreeSet<i64>>> = Arc::default();
        let stop = Arc::new(AtomicBool::new(false));
        let (into, told) = (Arc::clone(&seen), Arc::clone(&stop));
        let look = move || {
            let (_, body) = request(port, "GET", "/api/v1/status")?;
            let status: serde_json::Value = serde_json::from_str(&body).ok()?;
            status["last_round_ms"].as_i64()
        };
        let thread = std::thread::spawn(move || {
            while !told.load(Ordering::SeqCst) {
                if let Some(round) = look() {
                    into.lock().unwrap_or_else(PoisonError::into_inner).insert(round);
                }
                std::thread::sleep(LOOK);
            }
        });
        Watch { seen, stop, thread: Some(thread) }
    }

    /// When the rounds so far were collected, in milliseconds since the Unix epoch. Collecting ends a few
    /// milliseconds after a round's own timestamp.
    pub fn rounds(&self) -> BTreeSet<i64> {
        self.seen.lock().unwrap_or_else(PoisonError::into_inner).clone()
    }

    /// Those of the rounds from `from` on that are not among these timestamps.
    pub fn missing(&self, from: i64, timestamps: &[i64]) -> Vec<i64> {
        let rounds = self.rounds();
        // Two rounds never share a timestamp.
        let arrived = |round: &i64| {
            let before = rounds.range(..round).next_back().copied().unwrap_or(i64::MIN);
            timestamps.iter().any(|time| (before.max(round - 900)..=*round).contains(time))
        };
        rounds.range(from..).filter(|round| !arrived(round)).copied().collect()
    }
}

impl Drop for Watch {
    fn drop(&mut self) {
        self.stop.store(true, Ordering::SeqCst);
        if let Some(thread) = self.thread.take() {
            let _ = thread.join();
        }
    }
}
