//! The signals that the agent listens to.

use tokio::signal::unix::{Signal, SignalKind, signal};

/// The signals that end a run. One set for the whole process: a signal that comes between two
/// configurations waits in it.
pub(super) struct Signals {
    pub(super) terminate: Signal,
    pub(super) interrupt: Signal,
    pub(super) hangup: Signal,
}

impl Signals {
    pub(super) fn new() -> std::io::Result<Signals> {
        Ok(Signals {
            terminate: signal(SignalKind::terminate())?,
            interrupt: signal(SignalKind::interrupt())?,
            hangup: signal(SignalKind::hangup())?,
        })
    }
}

/// Waits for another signal to stop, where there are signals.
pub(super) async fn another(signals: Option<&mut Signals>) {
    let Some(Signals { terminate, interrupt, .. }) = signals else {
        return std::future::pending().await;
    };
    tokio::select! {
        _ = terminate.recv() => {}
        _ = interrupt.recv() => {}
    }
}
