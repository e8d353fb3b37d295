//! What the status page and the metrics show of an endpoint. It must not know how it is sent to.

use super::answers::Answers;

/// What an endpoint has been through, for the status page and the metrics.
#[derive(Debug, Default)]
pub(super) struct EndpointState {
    /// The label `endpoint`: the URL, with the tenant behind it.
    pub(super) name: String,
    /// The URL, which holds no secret.
    pub(super) url: String,
    /// `metrics` or `logs`.
    pub(super) signal: &'static str,
    /// What is spoken, where there is a choice.
    pub(super) protocol: &'static str,
    /// Samples or entries that the server has acknowledged.
    pub(super) sent: u64,
    /// Requests by the code of their answer.
    pub(super) answers: Answers,
    /// When the oldest thing that waits was collected; None if nothing waits.
    pub(super) oldest_ms: Option<i64>,
    /// The last answer that was not good; None since the last good one.
    pub(super) trouble: Option<String>,
    /// The server's clock is another one than this.
    pub(super) clock_differs: bool,
    /// Bytes that were written to its sockets.
    pub(super) bytes: u64,
    /// Why it is sent nothing at the moment, if that is on purpose.
    pub(super) waits: Option<&'static str>,
}

impl EndpointState {
    /// What its items are called.
    pub(super) fn items(&self) -> &'static str {
        if self.signal == "metrics" { "samples" } else { "entries" }
    }
}
