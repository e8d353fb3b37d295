//! The programs that are measured, each with what it needs to do the work: the agent in several shapes, and
//! its peers. Each has its own state, on a file system of its own if that can be, its own way to the servers,
//! on which the bytes are counted, and the label `agent`, by which its series are known.

use std::fmt::Write as _;
use std::fs;
use std::net::SocketAddr;
use std::path::{Path, PathBuf};
use std::process::Command;
use std::time::Duration;

use super::every::{Journal, Tls};
use super::receiver::{Protocol, Receiver};
use super::volume::Volume;
use super::wire::Wire;
use super::{INTERVAL, probe_modes};
use crate::process::{Answer, Interrupt, Running};
use crate::procfs::Meter;
use crate::{Result, http};

const START: Duration = Duration::from_secs(60);

/// A program that is measured. What it uses ends after it.
pub(super) struct Subject {
    pub(super) name: String,
    /// The label of its series; None of one that sends none.
    pub(super) label: Option<&'static str>,
    pub(super) binary: PathBuf,
    pub(super) running: Running,
    pub(super) meter: Meter,
    pub(super) volume: Option<Volume>,
    pub(super) metrics: Option<Wire>,
    pub(super) logs: Option<Logs>,
    /// Whether a round is due every 15 s.
    pub(super) paced: bool,
    /// Where its own page is.
    page: SocketAddr,
}

/// Where its lines go.
pub(super) struct Logs {
    pub(super) wire: Wire,
    pub(super) receiver: Receiver,
    /// Whether there are other lines than the log file's.
    pub(super) others: bool,
}

impl Logs {
    fn to(receiver: Receiver) -> Result<Logs> {
        Ok(Logs { wire: Wire::before(receiver.address)?, receiver, others: false })
    }
}

/// Where all of them work.
pub(super) struct Ground<'a> {
    pub(super) interrupt: &'a Interrupt,
    pub(super) folder: &'a Path,
    /// Whether each gets a file system.
    pub(super) volumes: bool,
    pub(super) prometheus: SocketAddr,
    pub(super) log: &'a Path,
}

/// What an agent does.
#[derive(Clone, Copy)]
pub(super) enum Shape<'a> {
    Both,
    Metrics,
    Logs,
    /// Every part on, both servers by TLS.
    Every(&'a Tls, &'a Journal),
    /// The defaults, with a log file that nobody writes to.
    Idle,
}

impl Ground<'_> {
    fn state(&self, label: &str) -> Result<(PathBuf, Option<Volume>)> {
        let path = self.folder.join(label);
        let volume = if self.volumes { Some(Volume::mount(&path)?) } else { None };
        let state = path.join("state");
        fs::create_dir_all(&state).map_err(|error| format!("{}: {error}", state.display()))?;
        Ok((state, volume))
    }

    fn write(&self, name: &str, text: &str) -> Result<PathBuf> {
        let path = self.folder.join(name);
        fs::write(&path, text).map_err(|error| format!("{}: {error}", path.display()))?;
        Ok(path)
    }

    /// A copy of a program, so that it shares its pages with no other that is measured: the proportional memory
    /// is then what it is where it runs alone.
    fn own(&self, label: &str, program: &Path) -> Result<PathBuf> {
        let path = self.folder.join(format!("{label}.program"));
        let fail = |error| format!("{} to {}: {error}", program.display(), path.display());
        fs::copy(program, &path).map_err(fail)?;
        Ok(path)
    }

    fn run(&self, label: &str, command: &mut Command) -> Result<Running> {
        Running::start(label, command, Some(&self.folder.join(format!("{label}.log"))))
    }

    /// The agent.
    pub(super) fn mote(
        &self,
        name: &str,
        label: &'static str,
        binary: &Path,
        shape: Shape<'_>,
    ) -> Result<Subject> {
        let (state, volume) = self.state(label)?;
        let page = http::free_address()?;
        let mut text = format!(
            "http.listen = \"{page}\"\nclock.wait = \"0s\"\n[agent]\nstate_dir = {state:?}\n\
             instance = {label:?}\nlabels = {{ agent = {label:?} }}\n"
        );
        let idle = matches!(shape, Shape::Idle);
        if !idle {
            let _ = writeln!(text, "interval = \"{INTERVAL}s\"");
        }
        if !idle && !matches!(shape, Shape::Every(..)) {
            text.push_str("[probes]\ndefault = \"off\"\n");
        }
        if matches!(shape, Shape::Logs) {
            text.push_str("[metrics]\ncollectors = { only = [] }\n");
        }
        let (mut metrics, mut logs) = (None, None);
        if !matches!(shape, Shape::Logs) {
            let (scheme, server, tls) = match shape {
                Shape::Every(tls, _) => ("https", tls.address, trust(tls)),
                _ => ("http", self.prometheus, String::new()),
            };
            let wire = Wire::before(server)?;
            let pace =
                if idle { String::new() } else { format!("send_interval = \"{INTERVAL}s\"\n") };
            let _ = write!(
                text,
                "[[mimir]]\nurl = \"{scheme}://{}/api/v1/write\"\n{pace}{tls}",
                wire.address
            );
            metrics = Some(wire);
        }
        if !matches!(shape, Shape::Metrics) {
            let (scheme, tls, to) = match shape {
                Shape::Every(tls, journal) => {
                    let directory = &journal.directory;
                    let _ = writeln!(text, "[logs.journal]\ndirectories = [{directory:?}]");
                    let (wire, receiver) = (Wire::before(tls.address)?, tls.lines.clone());
                    ("https", trust(tls), Logs { wire, receiver, others: true })
                }
                _ => ("http", String::new(), Logs::to(Receiver::start(Protocol::Loki)?)?),
            };
            let quiet = self.folder.join("quiet.log");
            let file = if idle { quiet.as_path() } else { self.log };
            let _ = write!(
                text,
                "[[loki]]\nurl = \"{scheme}://{}/loki/api/v1/push\"\n{tls}\
                 [[logs.file]]\npaths = [{file:?}]\nlabels = {{ job = \"footprint\" }}\n",
                to.wire.address
            );
            if idle {
                self.write("quiet.log", "")?;
            } else {
                logs = Some(to);
            }
        }
        let config = self.write(&format!("{label}.toml"), &text)?;
        let mut command = Command::new(self.own(label, binary)?);
        command.arg("run").arg("--config").arg(config);
        let running = self.run(label, &mut command)?;
        Ok(Subject {
            name: name.to_owned(),
            label: metrics.is_some().then_some(label),
            binary: binary.to_path_buf(),
            meter: Meter::of(running.id()),
            running,
            volume,
            metrics,
            logs,
            paced: !idle,
            page,
        })
    }

    /// node_exporter with these collectors.
    pub(super) fn exporter(
        &self,
        label: &'static str,
        binary: &Path,
        collectors: &[String],
    ) -> Result<Subject> {
        let page = http::free_address()?;
        let mut command = Command::new(self.own(label, binary)?);
        command
            .arg(format!("--web.listen-address={page}"))
            .args(["--web.disable-exporter-metrics", "--collector.disable-defaults"])
            .args(collectors.iter().map(|name| format!("--collector.{name}")));
        let running = self.run(label, &mut command)?;
        let mut subject = Subject {
            name: format!("node_exporter{}", version(binary, "--version", "version ")?),
            label: None,
            binary: binary.to_path_buf(),
            meter: Meter::of(running.id()),
            running,
            volume: None,
            metrics: None,
            logs: None,
            paced: false,
            page,
        };
        self.interrupt.wait_for("node_exporter to answer", START, || {
            subject.running.check()?;
            Ok(match http::get(page, "/metrics") {
                Ok(response) if response.status == 200 => Answer::Yes(()),
                Ok(response) => Answer::NotYet(format!("status {}", response.status)),
                Err(error) => Answer::NotYet(error),
            })
        })?;
        Ok(subject)
    }

    /// What scrapes it and sends on: Prometheus in agent mode, or vmagent.
    pub(super) fn scraper(
        &self,
        label: &'static str,
        binary: &Path,
        exporter: &Subject,
    ) -> Result<Subject> {
        let (state, volume) = self.state(label)?;
        let (page, wire) = (http::free_address()?, Wire::before(self.prometheus)?);
        let url = format!("http://{}/api/v1/write", wire.address);
        let mut text = format!(
            "global: {{ scrape_interval: {INTERVAL}s, external_labels: {{ agent: {label} }} }}\n\
             scrape_configs:\n- job_name: integrations/node_exporter\n  static_configs:\n  - targets: ['{}']\n",
            exporter.page
        );
        let mut command = Command::new(self.own(label, binary)?);
        let name = if label == "vmagent" {
            let config = self.write("vmagent.yml", &text)?;
            command
                .arg(format!("-promscrape.config={}", config.display()))
                .arg(format!("-remoteWrite.url={url}"))
                .arg(format!("-remoteWrite.tmpDataPath={}", state.display()))
                .arg(format!("-httpListenAddr={page}"));
            "vmagent".to_owned()
        } else {
            let _ = write!(text, "remote_write:\n- url: {url}\n");
            let config = self.write("prometheus-agent.yml", &text)?;
            command
                .args(["--enable-feature=agent", "--log.level=warn"])
                .arg(format!("--web.listen-address={page}"))
                .arg(format!("--storage.agent.path={}", state.display()))
                .arg(format!("--config.file={}", config.display()));
            format!("Prometheus{}, agent mode", version(binary, "--version", "version ")?)
        };
        let running = self.run(label, &mut command)?;
        Ok(Subject {
            name,
            label: Some(label),
            binary: binary.to_path_buf(),
            meter: Meter::of(running.id()),
            running,
            volume,
            metrics: Some(wire),
            logs: None,
            paced: true,
            page,
        })
    }

    /// rsyslog, which has the easier task: plain lines over TCP, no labels, no answer to wait for. Its queue
    /// is on disk, as the agent's WAL is.
    pub(super) fn rsyslog(&self, binary: &Path) -> Result<Subject> {
        let label = "rsyslog";
        let (state, volume) = self.state(label)?;
        let logs = Logs::to(Receiver::start(Protocol::Lines)?)?;
        let text = format!(
            "global(workDirectory=\"{state}\")\nmodule(load=\"imfile\" mode=\"inotify\")\n\
             input(type=\"imfile\" File=\"{log}\" Tag=\"footprint\" freshStartTail=\"off\" ruleset=\"r\")\n\
             template(name=\"t\" type=\"string\" string=\"%msg%\\n\")\n\
             ruleset(name=\"r\") {{ action(type=\"omfwd\" target=\"{host}\" port=\"{port}\" protocol=\"tcp\" \
             template=\"t\" queue.type=\"Disk\" queue.filename=\"q\" queue.maxDiskSpace=\"100m\") }}\n",
            state = state.display(),
            log = self.log.display(),
            host = logs.wire.address.ip(),
            port = logs.wire.address.port(),
        );
        let config = self.write("rsyslog.conf", &text)?;
        let mut command = Command::new(self.own(label, binary)?);
        command.arg("-n").arg("-i").arg(state.join("pid")).arg("-f").arg(config);
        let running = self.run(label, &mut command)?;
        Ok(Subject {
            name: format!("rsyslog{}", version(binary, "-v", "rsyslogd ")?),
            label: None,
            binary: binary.to_path_buf(),
            meter: Meter::of(running.id()),
            running,
            volume,
            page: logs.wire.address,
            metrics: None,
            logs: Some(logs),
            paced: false,
        })
    }
}

impl Subject {
    /// What the agent's probes get their facts from.
    ///
    /// # Errors
    /// Its page does not answer.
    pub(super) fn probes(&self) -> Result<String> {
        Ok(probe_modes(&http::get(self.page, "/metrics")?.body))
    }
}

fn trust(tls: &Tls) -> String {
    format!("tls = {{ ca_file = {:?} }}\n", tls.ca)
}

/// ` 1.5.0`, from what a program says of itself behind `mark`; empty if it does not.
fn version(program: &Path, argument: &str, mark: &str) -> Result<String> {
    let output = Command::new(program).arg(argument).output();
    let output = output.map_err(|error| format!("{}: {error}", program.display()))?;
    let text = [output.stdout, output.stderr].concat();
    let text = String::from_utf8_lossy(&text);
    let number = text.split_once(mark).and_then(|(_, rest)| rest.split_ascii_whitespace().next());
    // Debian's are called 2.42.0+ds.
    let number = number.and_then(|number| number.split('+').next());
    Ok(number.map(|number| format!(" {number}")).unwrap_or_default())
}

/// The agent's default collectors that node_exporter has, too, and runs here without others.
///
/// # Errors
/// One of the two can't be started, or they have next to nothing in common.
pub(super) fn common(mote: &Path, exporter: &Path) -> Result<Vec<String>> {
    let said = |program: &Path, arguments: &[&str]| {
        let output = Command::new(program).args(arguments).output();
        let output = output.map_err(|error| format!("{}: {error}", program.display()))?;
        let text = [output.stdout, output.stderr].concat();
        Ok::<_, String>(String::from_utf8_lossy(&text).into_owned())
    };
    let help = said(exporter, &["--help"])?;
    let round = said(mote, &["run", "--once", "--stdout", "--set", "probes.default=off"])?;
    let mark = "node_scrape_collector_success{collector=\"";
    let ours = round.lines().filter_map(|line| line.strip_prefix(mark)?.split('"').next());
    let has =
        |name: &&str| help.split_whitespace().any(|word| word == format!("--collector.{name}"));
    let names: Vec<String> = ours.filter(has).map(str::to_owned).collect();
    if names.len() < 10 {
        return Err(format!("only {} collectors in common with node_exporter", names.len()));
    }
    Ok(names)
}
