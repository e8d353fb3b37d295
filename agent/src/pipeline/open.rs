//! From the configuration to open WALs and to senders that read them.

use std::cell::RefCell;
use std::fmt;
use std::rc::Rc;
use std::time::Duration;

use tokio::sync::watch;

use super::clock::Time;
use super::endpoint_state::EndpointState;
use super::held::Times;
use super::log::{Log, LogOptions};
use super::pace::Pace;
use super::send::{Sender, Signal};
use super::size::Size;
use super::state::State;
use super::{Phase, RunError};
use crate::config::{Config, Endpoint};
use crate::encode::MAX_BYTES;
use crate::endpoint::{Backoff, Client};
use crate::wal::{OnFull, Options, WalError};

/// What the content number of a WAL means.
const METRICS: u32 = 1;
const LOGS: u32 = 2;

/// How often a cursor of the logs' WAL is synced, at most: as much as a record's, each sync wears the disk. It is written
/// at once, so that a process that dies sends nothing again. After a power cut, what was acknowledged since the last sync
/// (or for half a minute, where the kernel was faster) is sent again, with the timestamps that it had: Loki knows it, and
/// keeps it once. A Prometheus refuses what it has, so the metrics' cursors are synced each time.
const LOGS_CURSOR: Duration = Duration::from_secs(60);

/// The cursor's name of an endpoint: the same for as long as its URL and tenant are.
pub(super) fn reader_name(endpoint: &Endpoint) -> String {
    let url = &endpoint.connection.url;
    let tenant = endpoint.connection.tenant.as_deref().unwrap_or_default();
    let mut identity = format!("{url}\n{tenant}");
    // A URL shows itself without its query, which may be all that two endpoints differ in.
    if let Some(query) = url.query() {
        identity.push('\n');
        identity.push_str(query);
    }
    format!("{:08x}", crc32c::crc32c(identity.as_bytes()))
}

pub(super) fn open_metrics(config: &Config) -> Result<Log, WalError> {
    let options = Options::new(config.wal.metrics_max_bytes, OnFull::DropOldest, METRICS);
    open_log("metrics", config, options, &config.mimir)
}

/// The logs WAL, where something is to be written to it, if only events, or may be left in it.
pub(super) fn open_logs(config: &Config) -> Result<Option<Log>, WalError> {
    let to_read = config.logs.any();
    if !to_read && config.loki.is_empty() && !config.probes.any() {
        return Ok(None);
    }
    // Without an endpoint and without sources that could wait, the newest events are worth the most.
    let keeps_newest = config.wal.logs_drop_oldest || (!to_read && config.loki.is_empty());
    let on_full = if keeps_newest { OnFull::DropOldest } else { OnFull::Refuse };
    let options = Options::new(config.wal.logs_max_bytes, on_full, LOGS);
    open_log("logs", config, options, &config.loki).map(Some)
}

fn open_log(
    name: &'static str,
    config: &Config,
    options: Options,
    endpoints: &[Endpoint],
) -> Result<Log, WalError> {
    let max_age_ms =
        config.wal.max_age.map(|age| i64::try_from(age.as_millis()).unwrap_or(i64::MAX));
    let options = LogOptions {
        name,
        path: config.agent.state_dir.join("wal").join(name),
        wal: Options { min_free: config.wal.min_free, max_age_ms, ..options },
        readers: endpoints.iter().map(reader_name).collect(),
        sync_every: config.wal.sync,
        cursor_every: if name == "logs" { LOGS_CURSOR } else { Duration::ZERO },
        memory_bytes: config.wal.memory,
    };
    Log::open(options)
}

/// The time of the newest round in the WAL before a position, in milliseconds since the Unix epoch, of those whose
/// time is known and not after `latest_ms`.
pub(super) fn newest_timestamp(log: &Log, until: u64, latest_ms: i64) -> Option<i64> {
    let segments: Vec<u64> = log.with(|wal| wal.segments().collect()).unwrap_or_default();
    let mut payload = Vec::new();
    for base in segments.into_iter().filter(|base| *base < until) {
        let (mut at, mut newest, mut is_known) = (base, None, false);
        while let Some(Ok(Some(record))) = log.with(|wal| wal.scan(at, &mut payload)) {
            // A segment whose end is damaged leads into the next one, which was looked at before.
            if record.next > until || record.segment != base {
                break;
            }
            is_known |= record.time().is_some();
            newest = newest.max(record.time().filter(|time| *time <= latest_ms));
            at = record.next;
        }
        if is_known {
            return newest;
        }
    }
    None
}

/// The times of a reader of metrics: what it has sent before is not sent again under other times.
pub(super) fn times(time: &Rc<Time>, log: &Log, endpoint: &Endpoint) -> Times {
    let cursor = log.reader(&reader_name(endpoint)).map_or(0, |reader| log.cursor(reader));
    Times::new(time, log.name(), newest_timestamp(log, cursor, time.latest_ms()))
}

pub(super) fn sender<S: Signal>(
    state: &State,
    log: &Rc<Log>,
    endpoint: &Endpoint,
    signal: S,
    kind: &'static str,
    interval: Option<Duration>,
    phase: &watch::Receiver<Phase>,
) -> Result<Sender<S>, RunError> {
    let changed = |error: &dyn fmt::Display| {
        RunError::Changed(format!("{}: {error}", endpoint.connection.url))
    };
    let (min, max) = endpoint.backoff;
    let url = endpoint.connection.url.to_string();
    let plain = match &endpoint.connection.tenant {
        Some(tenant) => format!("{url}#{tenant}"),
        None => url.clone(),
    };
    let taken = |name: &str| state.endpoints.iter().any(|other| other.borrow().name == *name);
    let mut name = plain.clone();
    let mut number = 1;
    while taken(&name) {
        number += 1;
        name = format!("{plain}#{number}");
    }
    Ok(Sender {
        log: Rc::clone(log),
        reader: log
            .reader(&reader_name(endpoint))
            .ok_or_else(|| changed(&"the WAL has no cursor for it"))?,
        signal,
        memory: Rc::clone(&state.memory),
        client: Client::new(endpoint.connection.clone()).map_err(|error| changed(&error))?,
        backoff: Backoff::new(min, max).map_err(|error| changed(&error))?,
        slowest: max,
        pace: Pace::new(endpoint.limits.rate).beside(min, max),
        size: Size::new(MAX_BYTES as u64).within(endpoint.connection.timeout),
        egress: Rc::clone(&state.egress),
        wait: endpoint.wait,
        interval,
        part: state.phase,
        state: Rc::new(RefCell::new(EndpointState {
            name,
            url,
            signal: kind,
            ..Default::default()
        })),
        dropped: Rc::clone(&state.dropped),
        clock: Rc::clone(&state.clock),
        time: Rc::clone(&state.time),
        phase: phase.clone(),
    })
}

/// Says in the log what was opened.
pub(super) fn describe(config: &Config, state: &State) {
    for log in state.metrics.iter().chain(&state.logs) {
        log::info!(
            "{} WAL in {}, at most {} bytes",
            log.name(),
            log.path().display(),
            log.max_bytes()
        );
    }
    log::info!("board {}", config.board.describe());
    for endpoint in config.mimir.iter().chain(&config.loki) {
        log::info!("sending to {}", endpoint.connection.url);
    }
    if config.mimir.is_empty() && config.loki.is_empty() {
        log::info!("no endpoint is configured: data stays in the WAL, up to its bound");
    }
    if config.logs.any() && config.loki.is_empty() {
        log::warn!(
            "log files are followed and no [[loki]] is configured: the logs WAL will fill up"
        );
    }
}

#[cfg(test)]
mod tests {
    use tokio::task::LocalSet;

    use super::*;
    use crate::encode::RoundEncoder;
    use crate::model::Labels;
    use crate::pipeline::sync_when_due;

    #[test]
    fn endpoints_that_differ_in_their_query_alone_have_cursors_of_their_own() {
        let text = "[[mimir]]\nurl = \"http://h/push?token=one\"\n[[mimir]]\nurl = \"http://h/push?token=two\"\n\
                    [[mimir]]\nurl = \"http://h/push\"\n";
        let config = crate::config::parse(text, std::path::Path::new("t"), &[]).unwrap();
        let mut names: Vec<_> = config.mimir.iter().map(reader_name).collect();
        names.sort();
        names.dedup();
        assert_eq!(names.len(), 3);
    }

    fn log(dir: &tempfile::TempDir, sync_every: Option<Duration>) -> Log {
        Log::for_test(dir.path(), Options::new(1 << 20, OnFull::DropOldest, METRICS), sync_every)
    }

    struct Round(i64);

    impl crate::wal::Payload for Round {
        fn encode(&mut self, fresh: bool, out: &mut Vec<u8>) -> crate::wal::Encoded {
            let items = RoundEncoder::new(Labels::new()).encode(&[], fresh, out);
            crate::wal::Encoded { items, time_ms: self.0 }
        }
    }

    #[test]
    fn newest_round_of_an_earlier_run_is_known() {
        let dir = tempfile::tempdir().unwrap();
        assert_eq!(newest_timestamp(&log(&dir, None), u64::MAX, i64::MAX), None);
        for run in 0..3 {
            let log = log(&dir, None);
            for round in 0..4 {
                log.append(1, &mut Round(run * 10 + round)).unwrap();
            }
            drop(log);
            assert_eq!(
                newest_timestamp(&self::log(&dir, None), u64::MAX, i64::MAX),
                Some(run * 10 + 3)
            );
        }
    }

    #[tokio::test]
    async fn last_record_before_a_silence_is_synced_in_time() {
        let dir = tempfile::tempdir().unwrap();
        let log = Rc::new(log(&dir, Some(Duration::from_millis(300))));
        let (phase, watch_phase) = watch::channel(Phase::Running);
        let tasks = LocalSet::new();
        let task = tasks.spawn_local(sync_when_due(Rc::clone(&log), watch_phase));
        let test = async {
            log.append(1, &mut Round(1)).unwrap();
            log.settle().await;
            assert!(log.sync_due().is_some(), "not at once");
            while log.sync_due().is_some() {
                tokio::time::sleep(Duration::from_millis(5)).await;
            }
            phase.send(Phase::Draining).unwrap();
            task.await.unwrap();
        };
        let limit = tokio::time::timeout(Duration::from_secs(20), tasks.run_until(test));
        limit.await.unwrap();
    }
}
