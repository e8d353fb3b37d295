//! The wiring: which part gives what to which, and when they start and stop. The one module that knows
//! everything.
//!
//! Everything runs on one thread; fsync and name lookups, which can hang, run on threads that tokio
//! makes for them and ends when they idle. Data flows one way: collectors and probes fill a round, log
//! readers a block, both are appended to a WAL, and a sender for each endpoint reads the WAL and moves its
//! cursor when the server has answered.

mod ahead;
mod answers;
mod clock;
mod complaints;
mod egress;
mod endpoint_state;
mod entries;
mod events;
mod fit;
mod held;
mod log;
mod losses;
mod memory;
mod metrics;
mod newest;
mod open;
mod pace;
mod process;
mod refusal;
mod report;
mod rounds;
mod scrapes;
mod send;
mod series;
mod service;
mod shape;
mod signals;
mod silence;
mod size;
mod sources;
mod state;
mod write;

use std::cell::{Cell, RefCell};
use std::fmt;
use std::rc::Rc;
use std::time::Duration;

use tokio::net::TcpListener;
use tokio::sync::{mpsc, watch};
use tokio::task::{JoinSet, LocalSet};
use tokio::time::Instant;

use crate::collector::Set;
use crate::config::{Config, Source};
use crate::encode::{Positions, RoundEncoder, apply};
use crate::host::alarm::Alarm;
use crate::host::kmsg::Position;
use crate::host::{Host, Notify, system_clock};
use crate::memory::{Measured, Part};
use crate::model::Samples;
use crate::probe::{self, ProbeError, Probes};
use crate::status;
use crate::wal::WalError;

use clock::Time;
use egress::Egress;
use entries::EntriesSignal;
use held::Times;
use losses::Dropped;
use memory::Memory;
use metrics::MetricsSignal;
use open::{describe, newest_timestamp, open_logs, open_metrics, sender, times};
use rounds::Rounds;
use series::{agent_labels, encoder_of, shape_of, shaper};
use service::Service;
use shape::{SeriesShape, StreamShape};
use signals::{Signals, another};
use silence::sync_when_due;
use sources::{Kept, Sources};
use state::State;
use write::Writer;

// For the fuzz targets.
#[doc(hidden)]
pub use egress::egress_of;
// For the simulation of a fleet in benches.
#[doc(hidden)]
pub use pace::Pace;

/// Reasons of `mote_dropped_total` that several parts use.
const DAMAGED: &str = "wal_damaged";
const TOO_LARGE: &str = "too_large";

/// The most threads for calls that can hang, made when they are needed: one lookup for each endpoint may
/// hang, and a sync must not wait behind it.
const BLOCKING_THREADS: usize = 16;

/// Stacks of the threads for calls that can hang; glibc's resolver needs about 100 KiB.
const STACK: usize = 256 << 10;

/// How long such a thread waits for the next call: longer than from one round to the next, since to end one
/// takes a wake-up, and to make another one more than to keep it.
const KEEP_ALIVE: Duration = Duration::from_secs(600);

/// Whether the agent runs or is about to stop.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Phase {
    Running,
    /// Nothing new is collected; what is in the WALs is delivered as far as the time allows.
    Draining,
    /// The same, and nothing more comes into the WALs.
    Drained,
}

/// Why the agent could not start. Nothing runs then.
#[derive(Debug)]
pub enum RunError {
    /// A WAL can't be opened.
    Wal(WalError),
    /// A probe that the configuration wants can't work.
    Probe(ProbeError),
    /// The runtime or a signal handler could not be made.
    System(&'static str, std::io::Error),
    /// Something that the configuration has checked before went wrong now.
    Changed(String),
}

impl fmt::Display for RunError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            RunError::Wal(error) => {
                write!(f, "{error}; agent.state_dir says where the WALs are")
            }
            RunError::Probe(error) => write!(f, "{error}"),
            RunError::System(attempt, error) => write!(f, "{attempt}: {error}"),
            RunError::Changed(why) => f.write_str(why),
        }
    }
}

impl std::error::Error for RunError {}

impl From<WalError> for RunError {
    fn from(error: WalError) -> RunError {
        RunError::Wal(error)
    }
}

/// How a run of the pipeline ended.
enum End {
    Stop,
    Reload(Box<Config>),
}

/// What one pipeline leaves to the next, which has another configuration.
struct Left {
    kept: Kept,
    /// They go on counting through a reload, and what starts them may be given up by then.
    probes: Option<Rc<RefCell<Probes>>>,
    /// What a reload switches off is said to be gone.
    encoder: Option<Rc<RefCell<RoundEncoder>>>,
    /// Scraped targets keep theirs.
    sections: scrapes::Sections,
    /// What is believed stays so.
    time: Option<Rc<Time>>,
    dropped: Rc<Dropped>,
    memory: Rc<Memory>,
    service: Rc<Service>,
}

/// What the outside asks of a running pipeline.
enum Request {
    Reload(Box<Config>),
}

/// Collects and ships until SIGTERM or SIGINT; SIGHUP reads the configuration again. With `once`, one
/// round, and then it delivers what the shutdown's time allows.
///
/// # Errors
/// The agent could not start. Once it runs, nothing ends it but a signal.
pub fn run(config: Config, source: &Source, once: bool) -> Result<(), RunError> {
    let runtime = tokio::runtime::Builder::new_current_thread()
        .enable_io()
        .enable_time()
        .max_blocking_threads(BLOCKING_THREADS)
        .thread_stack_size(STACK)
        .thread_keep_alive(KEEP_ALIVE)
        .build()
        .map_err(|error| RunError::System("starting the runtime", error))?;
    let alarm = {
        let _entered = runtime.enter();
        Alarm::install().map_err(|error| RunError::System("making a timer", error))?
    };
    let mut signals = match once {
        true => None,
        false => {
            let _entered = runtime.enter();
            Some(Signals::new().map_err(|e| RunError::System("handling signals", e))?)
        }
    };
    let mut config = Rc::new(config);
    let mut before: Option<Rc<Config>> = None;
    let mut left = Left {
        kept: Kept::default(),
        probes: None,
        encoder: None,
        sections: scrapes::Sections::new(),
        time: None,
        dropped: Rc::new(Dropped::new(system_clock())),
        memory: Memory::new(config.agent.memory_limit),
        service: match once {
            true => Service::none(),
            false => Service::new(Notify::of_environment()),
        },
    };
    loop {
        ::log::set_max_level(config.agent.log_level);
        config.warnings().iter().for_each(|warning| ::log::warn!("{warning}"));
        let tasks = LocalSet::new();
        let run = pipeline(Rc::clone(&config), source.clone(), signals.as_mut(), &mut left);
        match runtime.block_on(tasks.run_until(alarm.run(run))) {
            Ok(End::Stop) => break,
            Ok(End::Reload(next)) => before = Some(std::mem::replace(&mut config, Rc::new(*next))),
            Err(error) => {
                // What runs is not ended by a configuration that can't run.
                let Some(before) = before.take() else { return Err(error) };
                ::log::error!("not reloaded, the agent goes on as it was: {error}");
                left.service.not_reloaded(&error.to_string(), false);
                config = before;
            }
        }
    }
    drop(alarm);
    // Threads that hang in fsync or a lookup must not hold up the end.
    runtime.shutdown_timeout(Duration::from_millis(100));
    Ok(())
}

/// One round of collectors and probes in the Prometheus text format, written to standard output.
///
/// # Errors
/// A probe that the configuration wants can't work, or standard output is closed.
pub fn once_to_stdout(config: &Config) -> Result<(), RunError> {
    let probes = start_probes(config, None)?;
    let state = state(config, String::new(), probes, &Memory::new(config.agent.memory_limit));
    state.collect();
    let out = state.text(true);
    std::io::Write::write_all(&mut std::io::stdout().lock(), &out)
        .map_err(|error| RunError::System("writing to standard output", error))
}

/// The probes, with the rights given up that only their start needs.
fn start_probes(
    config: &Config,
    position: Option<Position>,
) -> Result<Rc<RefCell<Probes>>, RunError> {
    let options = probe::Options { position, ..config.probes.clone() };
    let mut probes = Probes::start(&options, &Host::new(config.host.clone()));
    probes.required().map_err(RunError::Probe)?;
    probes.give_up_rights(config.metrics.options.smart.keep_sys_admin);
    Ok(Rc::new(RefCell::new(probes)))
}

/// The collecting half, without WALs and endpoints.
fn state(config: &Config, path: String, probes: Rc<RefCell<Probes>>, memory: &Rc<Memory>) -> State {
    let mut host = Host::new(config.host.clone());
    let phase = crate::host::phase(&mut host, &config.agent.instance);
    let enabled = |entry: &crate::collector::Entry| config.metrics.collectors.contains(&entry.name);
    let collectors = Set::new(enabled, &config.metrics.options);
    let shaper = shaper(config);
    State {
        clock: system_clock(),
        time: Rc::new(Time::believed()),
        started: Instant::now(),
        instance: config.agent.instance.clone(),
        config: path,
        interval: config.agent.interval,
        phase,
        host: RefCell::new(host),
        collectors: RefCell::new(collectors),
        probes,
        samples: Rc::new(RefCell::new(
            Samples::with_limit(config.metrics.max_series as usize).shaped(shape_of(&shaper)),
        )),
        own: State::own_samples(shape_of(&shaper)),
        shaper,
        report: RefCell::default(),
        last_round_ms: Cell::new(None),
        newest: Cell::new(None),
        targets: RefCell::default(),
        texts: Rc::default(),
        metrics: None,
        logs: None,
        endpoints: Vec::new(),
        sources: RefCell::default(),
        stages: RefCell::default(),
        paused: Cell::default(),
        short: Cell::default(),
        positions: RefCell::default(),
        agent_labels: agent_labels(config),
        limiter: Default::default(),
        positioned: Cell::new(Instant::now()),
        egress: Rc::new(Egress::open(
            &config.agent.state_dir,
            config.egress,
            system_clock().now_ms(),
        )),
        dropped: Rc::new(Dropped::new(system_clock())),
        memory: Rc::clone(memory),
        board: (config.board.name, config.board.by.clone()),
        service: Service::none(),
    }
}

/// Collects and ships until a signal or a request ends it; without `signals`, one round. `kept` is
/// what the last pipeline left of the sources, and this one.
async fn pipeline(
    config: Rc<Config>,
    source: Source,
    mut signals: Option<&mut Signals>,
    left: &mut Left,
) -> Result<End, RunError> {
    let Left { kept, probes, encoder, sections, time, dropped, memory, service } = left;
    service.opening();
    tokio::task::spawn_local(Rc::clone(service).keep());
    memory.budget.set_limit(config.agent.memory_limit);
    memory.budget.count_anew();
    let path = source.file().map(|path| path.display().to_string()).unwrap_or_default();
    // The WALs first: they are what may refuse to start, and their lock keeps a second agent away.
    let metrics = Rc::new(open_metrics(&config)?);
    let logs = open_logs(&config)?.map(Rc::new);
    let mut positions = Positions::new();
    if let Some(logs) = &logs {
        positions = sources::recover_positions(logs)?;
        for (key, position) in &kept.positions {
            apply(&mut positions, key, position);
        }
    }
    let probes = match probes {
        Some(probes) => {
            probes.borrow().would_do(&config.probes).map_err(RunError::Probe)?;
            Rc::clone(probes)
        }
        None => {
            let kmsg = positions.get(events::KMSG).and_then(|bytes| Position::from_bytes(bytes));
            Rc::clone(probes.insert(start_probes(&config, kmsg)?))
        }
    };
    let time = match time.take().filter(|time| time.fits(&config)) {
        Some(kept) => Rc::clone(time.insert(kept)),
        None => {
            let newest = newest_timestamp(&metrics, u64::MAX, i64::MAX);
            Rc::clone(time.insert(Rc::new(Time::new(&config, newest, Rc::clone(dropped)))))
        }
    };
    let logs_of: Vec<_> = [Some(&metrics), logs.as_ref()].into_iter().flatten().collect();
    time.begin(&config, &logs_of);
    let mut state = State {
        dropped: Rc::clone(dropped),
        time: Rc::clone(&time),
        service: Rc::clone(service),
        ..state(&config, path, probes, memory)
    };
    let budget = &memory.budget;
    // What a WAL may keep in memory is promised to it, whether it does or not.
    let _metrics_wal = budget.reserve(Part::Rounds, config.wal.memory);
    let _logs_wal = logs.as_ref().map(|_| budget.reserve(Part::Logs, config.wal.memory));
    let (phase, watch_phase) = watch::channel(Phase::Running);
    let (mut tasks, mut senders) = (JoinSet::new(), JoinSet::new());
    tasks.spawn_local(Rc::clone(&time).keep(watch_phase.clone()));

    for endpoint in &config.mimir {
        let shape = SeriesShape::new(endpoint);
        let newest = state.told_of_families();
        let (url, dropped) = (endpoint.connection.url.to_string(), Rc::clone(&state.dropped));
        let writer = Writer::new(endpoint.write, url, newest);
        let mut signal = MetricsSignal::new(endpoint.batch, writer, shape, dropped);
        signal.times = times(&time, &metrics, endpoint);
        let interval = Some(config.agent.interval);
        let sender = sender(&state, &metrics, endpoint, signal, "metrics", interval, &watch_phase)?;
        state.endpoints.push(Rc::clone(&sender.state));
        senders.spawn_local(Measured::new(budget, Part::Metrics, sender.run()));
    }
    for endpoint in &config.loki {
        let Some(logs) = &logs else { continue };
        let (shape, dropped) = (StreamShape::new(endpoint), Rc::clone(&state.dropped));
        let (limits, clock) = (endpoint.limits, Rc::clone(&state.clock));
        let mut signal = EntriesSignal::new(endpoint.batch, limits, shape, dropped, clock);
        signal.times = Times::new(&time, "logs", None);
        let sender = sender(&state, logs, endpoint, signal, "logs", None, &watch_phase)?;
        state.endpoints.push(Rc::clone(&sender.state));
        senders.spawn_local(Measured::new(budget, Part::Entries, sender.run()));
    }
    let plan = scrapes::plan(&config, sections)?;
    let newest = newest_timestamp(&metrics, u64::MAX, time.latest_ms());
    state.newest.set(newest.map(|newest| (newest, false)));
    state.metrics = Some(Rc::clone(&metrics));
    state.logs.clone_from(&logs);
    let state = Rc::new(state);

    let encoder = encoder_of(&config, encoder);
    let mut rounds = Rounds {
        state: Rc::clone(&state),
        log: Rc::clone(&metrics),
        encoder: Rc::clone(&encoder),
        interval: config.agent.interval,
        phase: watch_phase.clone(),
    };
    *state.positions.borrow_mut() = positions;
    kept.sockets.retain(config.logs.syslog.iter().map(|syslog| &syslog.listen));
    if let Some(logs) = &logs {
        let built = sources::build(&config, &state, kept)?;
        let (state, phase) = (Rc::clone(&state), watch_phase.clone());
        let sources = Sources::new(&config, state, Rc::clone(logs), built, kept, phase);
        if sources.are_needed() {
            sources.count();
            tasks.spawn_local(Measured::new(budget, Part::Logs, sources.run()));
        }
    }
    match state.probes.borrow().descriptors() {
        Ok(descriptors) => {
            for (descriptor, pause) in descriptors.into_iter().zip(events::PAUSES) {
                let Some(descriptor) = descriptor else { continue };
                let (state, phase) = (Rc::clone(&state), watch_phase.clone());
                let events = events::Events { state, descriptor, pause, phase }.run();
                tasks.spawn_local(Measured::new(budget, Part::Probes, events));
            }
        }
        Err(error) => ::log::warn!("waiting for the probes' events: {error}"),
    }
    // Nothing can fail any more: what runs may be switched off.
    state.probes.borrow_mut().adjust(&config.probes);
    let scraped = {
        let (state, log) = (Rc::clone(&state), Rc::clone(&metrics));
        let shared = scrapes::Shared::new(state, log, encoder, config.metrics.max_series);
        plan.begin(Rc::new(shared), &watch_phase, sections)
    };
    for log in [Some(&metrics), logs.as_ref()].into_iter().flatten() {
        tasks.spawn_local(sync_when_due(Rc::clone(log), watch_phase.clone()));
    }

    let (requests, mut asked) = mpsc::unbounded_channel();
    let page =
        Page { state: Rc::clone(&state), source: source.clone(), requests: requests.clone() };
    let page = serve(config.http, Rc::new(page));
    let server = tokio::task::spawn_local(Measured::new(budget, Part::Status, page));
    describe(&config, &state);

    let end = match &mut signals {
        None => {
            rounds.round().await;
            let mut once = JoinSet::new();
            for mut target in scraped {
                once.spawn_local(async move { target.scrape().await });
            }
            while once.join_next().await.is_some() {}
            metrics.settle().await;
            End::Stop
        }
        Some(signals) => {
            for target in scraped {
                tasks.spawn_local(Measured::new(budget, Part::Scrapes, target.run()));
            }
            service.ready();
            tasks.spawn_local(Measured::new(budget, Part::Rounds, rounds.run()));
            wait_for_end(&source, &state, signals, &mut asked).await
        }
    };
    ::log::info!(
        "{}",
        match end {
            End::Stop => "stopping: delivering what the time allows",
            End::Reload(_) => "reloading the configuration",
        }
    );
    let _ = phase.send(Phase::Draining);
    // A reload stops nothing that can't be continued: what is in flight is sent again.
    let limit = match end {
        End::Stop => {
            service.stopping(config.agent.shutdown_timeout);
            config.agent.shutdown_timeout
        }
        End::Reload(_) => config.agent.shutdown_timeout.min(Duration::from_secs(1)),
    };
    let all = async {
        while tasks.join_next().await.is_some() {}
        let _ = phase.send(Phase::Drained);
        while senders.join_next().await.is_some() {}
    };
    // One that comes in a reload waits for the next pipeline.
    let again = signals.filter(|_| matches!(end, End::Stop));
    tokio::select! {
        () = all => {}
        () = tokio::time::sleep(limit) => ::log::info!("the rest stays in the WAL"),
        () = another(again) => ::log::info!("asked again to stop: the rest stays in the WAL"),
    }
    tasks.shutdown().await;
    senders.shutdown().await;
    state.egress.close().await;
    server.abort();
    let _ = server.await;
    for log in [Some(&metrics), logs.as_ref()].into_iter().flatten() {
        log.give_up_held();
    }
    // What came since the last round.
    state.receive_all_events();
    let written = tokio::time::timeout(Duration::from_secs(2), state.write_events(true));
    let _ = written.await;
    if matches!(end, End::Stop) {
        kept.stop(&state.dropped);
    }
    let reported = tokio::time::timeout(Duration::from_secs(2), state.report_losses(true));
    // The same is said in the agent's log.
    let _ = reported.await;
    state.close_logs().await;
    if logs.is_some() {
        kept.positions = state.positions.take();
    }
    Ok(end)
}

/// The status page is a service to the user, not a condition: without its port the agent still ships.
async fn serve(address: Option<std::net::SocketAddr>, page: Rc<Page>) {
    let Some(address) = address else { return };
    match TcpListener::bind(address).await {
        Ok(listener) => {
            ::log::info!("the status page is at http://{address}/");
            status::serve(listener, page).await;
        }
        Err(error) => ::log::error!(
            "listening on {address}: {error}; the agent runs without its status page (http.listen sets another address)"
        ),
    }
}

/// The configuration for a reload.
fn load(source: &Source, state: &State) -> Result<Config, String> {
    match state.keeps_in_memory() {
        Some(why) => Err(why),
        None => source.load().map_err(|error| error.to_string()),
    }
}

async fn wait_for_end(
    source: &Source,
    state: &State,
    signals: &mut Signals,
    asked: &mut mpsc::UnboundedReceiver<Request>,
) -> End {
    loop {
        tokio::select! {
            _ = signals.terminate.recv() => return End::Stop,
            _ = signals.interrupt.recv() => return End::Stop,
            _ = signals.hangup.recv() => {
                state.service.reloading();
                match load(source, state) {
                    Ok(config) => return End::Reload(Box::new(config)),
                    Err(error) => {
                        ::log::error!("not reloaded, the agent goes on as it was: {error}");
                        state.service.not_reloaded(&error, true);
                    }
                }
            }
            Some(Request::Reload(config)) = asked.recv() => {
                state.service.reloading();
                return End::Reload(config);
            }
        }
    }
}

/// What the HTTP server shows.
struct Page {
    state: Rc<State>,
    source: Source,
    requests: mpsc::UnboundedSender<Request>,
}

impl status::Source for Page {
    fn report(&self) -> status::Report {
        self.state.report()
    }

    fn metrics(&self, newest_round: bool) -> Vec<u8> {
        self.state.text(newest_round)
    }

    fn is_ready(&self) -> bool {
        self.state.last_round_ms.get().is_some()
    }

    fn reload(&self) -> Result<(), String> {
        let config = load(&self.source, &self.state)?;
        let request = Request::Reload(Box::new(config));
        self.requests.send(request).map_err(|_| "the agent is stopping".to_owned())
    }
}
