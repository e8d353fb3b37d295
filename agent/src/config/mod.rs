//! The configuration: TOML to a [`Config`] in which everything is valid, or one error with its file,
//! line, column and a hint. Nothing is started before a configuration is whole: patterns are compiled,
//! URLs parsed and secret files read here.

pub mod boards;
mod document;
mod endpoints;
mod error;
mod expand;
mod intervals;
mod logs;
mod metrics;
mod reader;
mod reference;
mod relabel;
mod scrape;
mod sections;
mod units;

use std::cell::RefCell;
use std::net::SocketAddr;
use std::path::{Path, PathBuf};
use std::time::Duration;

use crate::model::Labels;
use crate::relabel::Rules;
use crate::{collector, endpoint, host, probe};

use expand::ProcessEnvironment;
use reader::{DocRow, Reader};

pub use error::{ConfigError, Place};
pub use reference::reference;

/// Where `mote` looks for its configuration unless it is told.
pub const DEFAULT_PATH: &str = "/etc/mote/mote.toml";

/// A valid configuration.
#[derive(Debug)]
pub struct Config {
    /// The board whose values are the defaults.
    pub board: boards::Found,
    /// `[agent]`
    pub agent: Agent,
    /// `[host]`
    pub host: host::Roots,
    /// `[metrics]`
    pub metrics: Metrics,
    /// `[probes]`
    pub probes: probe::Options,
    /// `[[mimir]]`
    pub mimir: Vec<Endpoint>,
    /// `[[loki]]`
    pub loki: Vec<Endpoint>,
    /// `[[scrape]]`, one for each target
    pub scrape: Vec<Scrape>,
    /// `[egress]`: the most bytes of a day.
    pub egress: Option<u64>,
    /// `[wal]`
    pub wal: Wal,
    /// `[logs]`
    pub logs: Logs,
    /// `[clock]`: how long after the boot the clock is believed at the latest.
    pub clock_wait: Duration,
    /// `[http]`
    pub http: Option<SocketAddr>,
}

/// `[agent]`
#[derive(Debug)]
pub struct Agent {
    /// The label `instance`.
    pub instance: String,
    /// On every series and every stream.
    pub labels: Labels,
    /// From one round to the next.
    pub interval: Duration,
    /// Where the WALs are.
    pub state_dir: PathBuf,
    /// What is logged.
    pub log_level: log::LevelFilter,
    /// How long a shutdown may spend on delivery.
    pub shutdown_timeout: Duration,
    /// The soft limit on live bytes.
    pub memory_limit: u64,
}

/// `[metrics]`
#[derive(Debug)]
pub struct Metrics {
    /// The label `job`.
    pub job: String,
    /// Names of the collectors that run.
    pub collectors: Vec<&'static str>,
    /// The most samples of one round.
    pub max_series: u32,
    /// What the collectors take.
    pub options: collector::Options,
    /// What is done with the samples' labels before they are written.
    pub relabel: Rules,
}

/// `[[mimir]]` or `[[loki]]`
#[derive(Debug)]
pub struct Endpoint {
    /// How to reach it.
    pub connection: endpoint::Options,
    /// The shortest and the longest pause after a failure.
    pub backoff: (Duration, Duration),
    /// The most of one request: samples for Mimir, bytes of lines for Loki.
    pub batch: u64,
    /// The longest that data waits for a request to fill up.
    pub wait: Duration,
    /// What the server is known to refuse, and how fast it is sent to.
    pub limits: Limits,
    /// How metrics are written; nothing to Loki.
    pub write: WriteOptions,
    /// Given to every series or stream that has no such label.
    pub labels: Labels,
    /// What is done with labels after that.
    pub relabel: Rules,
}

/// A target of `[[scrape]]`
#[derive(Debug)]
pub struct Scrape {
    /// How to reach it, with the timeout of a scrape.
    pub connection: endpoint::Options,
    /// What becomes of its page.
    pub target: crate::scrape::Target,
    /// From one scrape to the next.
    pub interval: Duration,
}

/// How metrics are written.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct WriteOptions {
    /// The version of remote write.
    pub protocol: Protocol,
    /// What becomes of the agent's own histograms.
    pub histograms: Histograms,
    /// How often help texts and units are sent; None for never.
    pub metadata_every: Option<Duration>,
}

/// A version of remote write.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum Protocol {
    /// 1.0
    #[default]
    V1,
    /// 2.0, or 1.0 where the server does not take it.
    V2,
}

/// How the agent's own histograms are sent by remote write 2.0; 1.0 knows classic ones only.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum Histograms {
    /// As one series each.
    Native,
    /// As series of buckets, sum and count.
    #[default]
    Classic,
    /// As both.
    Both,
}

/// What Loki refuses by its own configuration, so that it is not sent.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Limits {
    /// Bytes a second before compression; None for no bound.
    pub rate: Option<u64>,
    /// The age from which an entry is refused (`reject_old_samples_max_age`); None if it is not.
    pub max_age: Option<Duration>,
    /// The longest line in bytes (`max_line_size`); None for no bound.
    pub max_line: Option<u64>,
    /// Leaves structured metadata out (`allow_structured_metadata: false`).
    pub no_metadata: bool,
    /// How far behind the newest entry of its stream an entry is refused (half of `max_chunk_age`); None if it
    /// is not.
    pub max_behind: Option<Duration>,
    /// How far ahead of Loki's clock an entry is refused (`creation_grace_period`); None if it is not.
    pub max_ahead: Option<Duration>,
    /// Of labels and structured metadata.
    pub streams: crate::logs::stage::StreamLimits,
    /// Sends JSON instead of protobuf, which is no limit of Loki's but of what stands before it.
    pub json: bool,
}

/// `[logs]`, each source with its `max_line`
#[derive(Debug)]
pub struct Logs {
    /// `[[logs.file]]`
    pub files: Vec<crate::logs::file::Options>,
    /// `[logs.docker]`
    pub docker: Option<crate::logs::docker::Options>,
    /// `[[logs.stage]]` and what else is done with entries
    pub stages: crate::logs::stage::Setup,
    /// `[logs.journal]`
    pub journal: Option<crate::logs::journal::Options>,
    /// `[logs.kernel]`
    pub kernel: Option<crate::logs::kernel::Options>,
    /// `[[logs.syslog]]`
    pub syslog: Vec<crate::logs::syslog::Options>,
}

impl Logs {
    /// Whether any source is to be read.
    pub fn any(&self) -> bool {
        !self.files.is_empty()
            || self.journal.is_some()
            || self.kernel.is_some()
            || !self.syslog.is_empty()
            || self.docker.is_some()
    }
}

/// `[wal]`
#[derive(Debug)]
pub struct Wal {
    /// None: sync after each record. Otherwise the most that a power cut may cost.
    pub sync: Option<Duration>,
    /// Bytes of the file system that stay free.
    pub min_free: u64,
    /// The most bytes that each WAL keeps in memory while its disk takes nothing.
    pub memory: u64,
    /// The bound on the age of data, if there is one.
    pub max_age: Option<Duration>,
    /// The bound of the metrics WAL in bytes.
    pub metrics_max_bytes: u64,
    /// The bound of the logs WAL in bytes.
    pub logs_max_bytes: u64,
    /// Whether a full logs WAL drops its oldest entries instead of pausing the sources.
    pub logs_drop_oldest: bool,
}

/// Where the configuration comes from.
#[derive(Clone, Debug, Default)]
pub struct Source {
    /// `--config`; None for the default places.
    pub path: Option<PathBuf>,
    /// `--set KEY=VALUE`, in order.
    pub sets: Vec<String>,
}

impl Source {
    /// The file that is read: `--config`, else `$MOTE_CONFIG`, else `/etc/mote/mote.toml` if it is there.
    pub fn file(&self) -> Option<PathBuf> {
        let named = self.path.clone().or_else(|| {
            std::env::var_os("MOTE_CONFIG").filter(|path| !path.is_empty()).map(PathBuf::from)
        });
        named.or_else(|| Some(PathBuf::from(DEFAULT_PATH)).filter(|path| path.exists()))
    }

    /// Reads and checks the configuration; without a file, the built-in default.
    ///
    /// # Errors
    /// The first thing that is wrong.
    pub fn load(&self) -> Result<Config, ConfigError> {
        match self.file() {
            Some(path) => {
                let text = std::fs::read_to_string(&path).map_err(|error| ConfigError {
                    place: Place::Whole(path.clone()),
                    problem: format!("reading the configuration: {error}"),
                    hint:
                        "give its path with --config, or leave it out to run the built-in default"
                            .into(),
                })?;
                parse(&text, &path, &self.sets)
            }
            None => parse("", Path::new("(built-in default)"), &self.sets),
        }
    }
}

/// Reads and checks a configuration's text. `path` is for messages.
///
/// # Errors
/// The first thing that is wrong.
pub fn parse(text: &str, path: &Path, sets: &[String]) -> Result<Config, ConfigError> {
    parse_for(text, path, sets, &boards::Facts::of)
}

/// As [`parse`], for a host of which `look` tells what boards are told apart by.
fn parse_for(
    text: &str,
    path: &Path,
    sets: &[String],
    look: &dyn Fn(&host::Roots) -> boards::Facts,
) -> Result<Config, ConfigError> {
    let docs = RefCell::default();
    let mut table = document::parse(text, path, sets, &ProcessEnvironment)?;
    let mut board = boards::choose(&table, path, look)?;
    board.underlay(&mut table);
    read(&Reader::new(&table, Place::Whole(path.to_owned()), &docs), board)
}

fn read(top: &Reader<'_>, board: boards::Found) -> Result<Config, ConfigError> {
    let agent = sections::agent(top)?;
    let host = sections::host(top)?;
    let metrics = metrics::metrics(top)?;
    let probes = sections::probes(top)?;
    let mimir = endpoints::mimir(top)?;
    let loki = endpoints::loki(top)?;
    let scrape = scrape::scrape(top, &agent, &metrics)?;
    let egress = sections::egress(top)?;
    let wal = sections::wal(top)?;
    let mut logs = logs::logs(top, &agent, &host, &wal)?;
    let limits = loki.iter().map(|endpoint| endpoint.limits.streams);
    logs.stages.limits = limits.reduce(|a, b| a.widest(b)).unwrap_or_default();
    let clock_wait = sections::clock(top)?;
    let http = sections::http(top)?;
    top.check_known()?;
    Ok(Config {
        board,
        agent,
        host,
        metrics,
        probes,
        mimir,
        loki,
        scrape,
        egress,
        wal,
        logs,
        clock_wait,
        http,
    })
}

fn documentation() -> Vec<DocRow> {
    let docs = RefCell::default();
    let empty = document::Table::default();
    // Every default is valid, an absent list of tables still names its keys, and what is nowhere is generic.
    if let Ok(generic) = boards::find(&boards::Facts::default()) {
        let _ = read(&Reader::new(&empty, Place::Whole(PathBuf::new()), &docs), generic);
    }
    docs.into_inner()
}

#[cfg(test)]
mod tests;
