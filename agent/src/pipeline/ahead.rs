//! A machine whose clock is ahead of the server's: what it collects is refused as too far in the future, all
//! of it, until the clock is right. Nothing is dropped for that; the endpoint waits. It must not know what is
//! sent.
//!
//! Only a server's own refusal makes it wait: the Date of an answer may be that of a proxy whose clock is
//! wrong.

use std::time::Duration;

use crate::endpoint::own_words;

/// Loki's default `creation_grace_period`, Mimir's, and Prometheus' bound.
const GRACE: Duration = Duration::from_secs(600);

/// What Loki, Mimir and Prometheus say of what is too new.
const WORDS: [&str; 4] = [
    "has timestamp too new",
    "too far in the future",
    "too-far-in-future",
    "too far into the future",
];

/// What to complain of, if a refusal with these words is this machine's clock's fault.
pub(super) fn complaint(said: &str, server_ms: Option<i64>, own_ms: i64) -> Option<String> {
    let said = own_words(said);
    if !WORDS.iter().any(|words| said.contains(words)) {
        return None;
    }
    let ahead = u64::try_from(own_ms.saturating_sub(server_ms?)).ok()?;
    // The server's clock is known to the second, and its answer has taken a while.
    let ahead = Duration::from_millis(ahead).saturating_add(Duration::from_secs(5));
    (ahead > GRACE).then(|| {
        let minutes = ahead.as_secs() / 60;
        format!("this machine's clock is {minutes} minutes ahead of the server's, and nothing is sent until it is right")
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_a_clock_that_is_ahead_is_to_blame_and_only_for_what_is_too_new() {
        let new = "entry for stream '{a=\"b\"}' has timestamp too new: 2026-11-22T00:00:00Z";
        let mimir = "received a sample whose timestamp is too far in the future (err-mimir-too-far-in-future)";
        for said in [new, mimir] {
            let complaint = complaint(said, Some(1_000_000), 1_000_000 + 20 * 60_000).unwrap();
            assert!(complaint.contains("20 minutes ahead"), "{complaint}");
        }
        assert_eq!(complaint("entry too far behind", Some(0), 10_000_000), None);
        let label = "stream '{msg=\"too far in the future\"}' has 16 label names; limit 15";
        assert_eq!(complaint(label, Some(0), 10_000_000), None);
        // A time from a line's text, of a machine whose clock is right or behind.
        assert_eq!(complaint(new, Some(10_000_000), 10_001_000), None);
        assert_eq!(complaint(new, Some(10_000_000), 0), None);
        assert_eq!(complaint(new, None, i64::MAX), None);
        for (server, own) in [(i64::MIN, i64::MAX), (i64::MAX, i64::MIN)] {
            assert_eq!(complaint(new, Some(server), own).is_some(), own > 0);
        }
    }
}
