//! What the source does when the kernel tells something or time has passed, and what it says of paths
//! that can't be read. It must not read lines.

use tokio::time::Instant;

use super::chain::Chain;
use super::kin;
use super::position::Identity;
use super::source::FileSource;
use crate::host::alarm::{early, late};
use crate::logs::watch::Wake;

/// Why a path is not read.
pub(super) struct Trouble {
    pub(super) text: String,
    /// The file that is ignored for what it is; another one at the path gets its chance.
    pub(super) ignored: Option<Identity>,
}

impl FileSource {
    /// Acts on what the kernel told.
    pub(super) fn look(&mut self) {
        let mut wakes = std::mem::take(&mut self.wakes);
        self.watcher.look(&mut wakes);
        for wake in wakes.drain(..) {
            match wake {
                Wake::Written(path) => self.enqueue(&path),
                Wake::Moved(path) => {
                    self.enqueue(&path);
                    self.scan_due = true;
                }
                Wake::Name(path, is_directory) => {
                    self.scan_due |= self.targets.contains(&path)
                        || self.sections.iter().any(|section| {
                            section.patterns.matches(&path)
                                || (is_directory && section.patterns.leads(&path))
                        });
                    if !is_directory && kin::is_stamped(&path) && self.newcomers.len() < 256 {
                        self.scan_due |= self.newcomers.insert(path);
                    }
                }
                Wake::Directory | Wake::Inside(_) => self.scan_due = true,
                Wake::Overflow => {
                    self.scan_due = true;
                    self.enqueue_where(|_| true);
                }
            }
        }
        self.wakes = wakes;
    }

    pub(super) fn act_on_time(&mut self, now: Instant) {
        if now >= self.next_rescan {
            self.next_rescan = now + early(self.limits.rescan);
            self.is_routine = !self.scan_due && self.queue.is_empty();
            self.scan_due = true;
            self.enqueue_where(|_| true);
        }
        if self.watcher.is_degraded() && now >= self.next_poll {
            self.poll(now);
        }
        let limits = self.limits;
        let is_due = |chain: &Chain| chain.deadline(&limits).is_some_and(|due| due <= now);
        if self.chains.values().any(|chain| is_due(chain)) {
            // Where the files are now decides what becomes of them.
            self.scan_due = true;
            self.enqueue_where(is_due);
        }
    }

    pub(super) fn poll(&mut self, now: Instant) {
        self.next_poll = now + self.limits.poll;
        self.scan_due = true;
        self.enqueue_where(|chain| chain.files.iter().any(|file| file.watch.is_none()));
    }

    /// When something is to be done that no event tells: with the first wake-up from the one on, by the
    /// other at the latest.
    pub(super) fn deadline(&self) -> (Instant, Instant) {
        let poll = self.watcher.is_degraded().then_some(self.next_poll);
        let due = self.chains.values().filter_map(|chain| chain.deadline(&self.limits)).min();
        let exact = poll.into_iter().chain(due).min();
        let rescan = self.limits.rescan;
        let at = |rescan: Instant| exact.map_or(rescan, |exact| exact.min(rescan));
        (at(self.next_rescan), at(self.next_rescan + (late(rescan) - early(rescan))))
    }

    /// Something is wrong with a path; said when it changes.
    pub(super) fn trouble(&mut self, path: &str, text: &str, ignored: Option<Identity>) {
        if let Some(have) = self.troubles.get_mut(path).filter(|have| have.text == text) {
            have.ignored = ignored;
            return;
        }
        // A path that is left out is news once only; there may be as many as files.
        if self.troubles.len() < 4 * self.limits.max_files {
            log::warn!("log file {path}: {text}");
            self.troubles.insert(path.to_owned(), Trouble { text: text.to_owned(), ignored });
        }
    }

    pub(super) fn recovered(&mut self, path: &str) {
        if !self.troubles.is_empty() && self.troubles.remove(path).is_some() {
            log::info!("log file {path}: readable again");
        }
    }
}
