//! What a WAL needs while nothing is appended to it. It must not know what the WAL holds.

use std::rc::Rc;

use tokio::sync::watch;

use super::Phase;
use super::log::Log;
use crate::host::alarm;

/// Keeps the promise of `wal.sync = DURATION` for the last record before a silence, and goes back to a
/// failed disk when nothing is appended.
pub(super) async fn sync_when_due(log: Rc<Log>, mut phase: watch::Receiver<Phase>) {
    while *phase.borrow() == Phase::Running {
        let appended = log.appended();
        let (sync, mend) = (log.sync_due(), log.mend_due());
        let Some(left) = sync.into_iter().chain(mend).min() else {
            tokio::select! {
                () = appended => {}
                _ = phase.changed() => {}
            }
            continue;
        };
        tokio::select! {
            () = alarm::sleep(left) => {}
            // Something may be due earlier now.
            () = appended => {}
            _ = phase.changed() => {}
        }
        log.mend();
        if log.sync_due().is_some_and(|left| left.is_zero()) {
            // A failure is logged and counted there.
            let _ = log.sync().await;
        }
    }
}
