//! What an endpoint's sender writes to the agent's log, and how often. It must not know what there is to say.

use std::time::Duration;

use tokio::time::Instant;

/// Complaints are logged no more often than this, whatever they say.
const ANY_LOG: Duration = Duration::from_secs(60);

/// The longest that the same complaint of a server is logged once.
const REPEAT_LOG: Duration = Duration::from_secs(600);

/// Logs the same complaint once in a while only, and no complaints too often; those of losses apart, which must not
/// go unsaid because a pause was told of.
#[derive(Debug, Default)]
pub(super) struct Complaints {
    troubles: Said,
    losses: Said,
    /// Whether the trouble that is there now has been logged.
    told: bool,
}

/// What was logged last of its sort.
#[derive(Debug, Default)]
struct Said(Option<(String, Instant)>);

impl Said {
    fn is_due(&mut self, text: &str) -> bool {
        let now = Instant::now();
        let due = self.0.as_ref().is_none_or(|(last, at)| {
            let since = now.duration_since(*at);
            since >= if last == text { REPEAT_LOG } else { ANY_LOG }
        });
        if due {
            self.0 = Some((text.to_owned(), now));
        }
        due
    }
}

impl Complaints {
    pub(super) fn log(&mut self, text: &str, write: impl FnOnce()) {
        if self.troubles.is_due(text) {
            self.told = true;
            write();
        }
    }

    pub(super) fn loss(&mut self, text: &str, write: impl FnOnce()) {
        if self.losses.is_due(text) {
            self.told = true;
            write();
        }
    }

    /// All is well again, which is told if the trouble was.
    pub(super) fn over(&mut self, write: impl FnOnce()) {
        if std::mem::take(&mut self.told) {
            write();
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test(start_paused = true)]
    async fn complaints_are_logged_once_a_minute_at_most_and_the_same_one_rarely() {
        let (mut complaints, mut logged) = (Complaints::default(), 0);
        for second in 0..3_600 {
            complaints.log(&format!("word {}", second % 7), || logged += 1);
            tokio::time::advance(Duration::from_secs(1)).await;
        }
        assert_eq!(logged, 60);
        let mut same = 0;
        for _ in 0..3_600 {
            complaints.log("the same", || same += 1);
            tokio::time::advance(Duration::from_secs(1)).await;
        }
        assert_eq!(same, 6);
        let mut lost = 0;
        (0..3).for_each(|_| complaints.loss("a loss", || lost += 1));
        assert_eq!(lost, 1, "though something else was told just now");
        let mut told = 0;
        (0..3).for_each(|_| complaints.over(|| told += 1));
        assert_eq!(told, 1);
    }
}
