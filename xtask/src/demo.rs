//! `cargo xtask demo`: a real Prometheus with its remote-write receiver on, and the agent writing to
//! it, until Ctrl-C. Everything is on loopback, on ports that were free, and in a temporary folder.

use std::fs;
use std::net::SocketAddr;
use std::path::Path;
use std::process::{Command, ExitCode};
use std::time::Duration;

use serde_json::Value;

use crate::context::Context;
use crate::process::{Answer, Interrupt, POLL, Running};
use crate::setup::Purpose;
use crate::temp::TempDir;
use crate::{Result, build, http, setup};

const CPU_QUERY: &str = "100 - avg(rate(node_cpu_seconds_total{mode=\"idle\"}[1m])) * 100";
/// The agent may replay a WAL first; Prometheus starts in a second.
const START: Duration = Duration::from_secs(60);
/// A rate needs two rounds, which are five seconds apart, and their delivery.
const FIRST_VALUE: Duration = Duration::from_secs(90);

/// Starts both, shows a query and its answer, and with `once` ends there.
///
/// # Errors
/// Something is missing or failed. What was started is ended and the folder removed in every case.
pub(crate) fn demo(context: &Context, once: bool) -> Result<ExitCode> {
    let prepared = setup::prepare(context, Purpose::Test)?;
    let Some(prometheus) = prepared.prometheus else {
        return Err(format!("the demo needs Prometheus.\n{}", prepared.missing.join("\n")));
    };
    let mote = build::agent(context)?;

    let interrupt = Interrupt::install()?;
    let folder = TempDir::new("demo")?;
    // However it ends, it has ended both before the folder goes.
    let result = show(context, &interrupt, &folder, &prometheus, &mote, once);
    if interrupt.requested() {
        context.say("interrupted: Prometheus and the agent are ended");
        return Ok(ExitCode::SUCCESS);
    }
    result.map(|()| ExitCode::SUCCESS)
}

fn show(
    context: &Context,
    interrupt: &Interrupt,
    folder: &TempDir,
    prometheus: &Path,
    mote: &Path,
    once: bool,
) -> Result<()> {
    let server = http::free_address()?;
    let mut database = start_prometheus(folder.path(), prometheus, server)?;
    context.step("waiting for Prometheus", || {
        interrupt.wait_for("Prometheus to be ready", START, || {
            database.check()?;
            Ok(is_ready(server))
        })
    })?;

    let status = http::free_address()?;
    let mut agent = start_agent(folder.path(), mote, server, status)?;
    context.step("waiting for the first samples", || {
        interrupt.wait_for("node_cpu_seconds_total in Prometheus", START, || {
            database.check()?;
            agent.check()?;
            Ok(value_of(server, "count(node_cpu_seconds_total)"))
        })
    })?;
    let busy = context.step("waiting for a rate of them", || {
        interrupt.wait_for("a value of the CPU query", FIRST_VALUE, || {
            database.check()?;
            agent.check()?;
            Ok(value_of(server, CPU_QUERY))
        })
    })?;
    // A rate that is extrapolated from a few samples may come out a little below 0 or above 100.
    if !(-5.0..=105.0).contains(&busy) {
        return Err(format!("the host's CPU is {busy} % busy, which can't be"));
    }

    let graph = format!("http://{server}/graph?g0.tab=0&g0.expr={}", http::encode(CPU_QUERY));
    println!();
    println!("Mote's status page   http://{status}/");
    println!("Prometheus           http://{server}/");
    println!("The host's CPU in %  {CPU_QUERY}");
    println!("  now                {busy:.1}");
    println!("  as a graph         {graph}");
    println!();
    if !once {
        context.say("both run on until Ctrl-C");
        while !interrupt.requested() {
            database.check()?;
            agent.check()?;
            std::thread::sleep(POLL);
        }
    }
    let ended = agent.stop()?;
    if !ended.success() {
        return Err(format!("the agent was asked to end and ended badly ({ended})"));
    }
    database.stop().map(|_| ())
}

/// A Prometheus that takes remote write and scrapes nothing.
///
/// # Errors
/// It can't be started.
pub(crate) fn start_prometheus(
    folder: &Path,
    program: &Path,
    address: SocketAddr,
) -> Result<Running> {
    let config = folder.join("prometheus.yml");
    write(&config, "global:\n  scrape_interval: 1h\n")?;
    let mut command = Command::new(program);
    command
        .arg(format!("--config.file={}", config.display()))
        .arg(format!("--storage.tsdb.path={}", folder.join("prometheus").display()))
        .arg(format!("--web.listen-address={address}"))
        .arg("--web.enable-remote-write-receiver")
        .arg("--log.level=warn")
        .current_dir(folder);
    Running::start("Prometheus", &mut command, Some(&folder.join("prometheus.log")))
}

fn start_agent(
    folder: &Path,
    program: &Path,
    server: SocketAddr,
    status: SocketAddr,
) -> Result<Running> {
    let config = folder.join("mote.toml");
    write(&config, &configuration(&folder.join("state"), server, status))?;
    let mut command = Command::new(program);
    command.arg("run").arg("--config").arg(&config);
    Running::start("the agent", &mut command, None)
}

fn configuration(state: &Path, server: SocketAddr, status: SocketAddr) -> String {
    format!(
        "[agent]\ninterval = \"5s\"\nstate_dir = {state:?}\n\n[clock]\nwait = \"0s\"\n\n[http]\nlisten = \"{status}\"\n\n\
         [[mimir]]\nurl = \"http://{server}/api/v1/write\"\nsend_interval = \"5s\"\n"
    )
}

fn write(path: &Path, text: &str) -> Result<()> {
    fs::write(path, text).map_err(|error| format!("{} can't be written: {error}", path.display()))
}

/// Whether it answers.
pub(crate) fn is_ready(server: SocketAddr) -> Answer<()> {
    match http::get(server, "/-/ready") {
        Ok(response) if response.status == 200 => Answer::Yes(()),
        Ok(response) => Answer::NotYet(format!("status {}", response.status)),
        Err(error) => Answer::NotYet(error),
    }
}

/// The one value that a query has now.
pub(crate) fn value_of(server: SocketAddr, query: &str) -> Answer<f64> {
    let target = format!("/api/v1/query?query={}", http::encode(query));
    let response = match http::get(server, &target) {
        Ok(response) => response,
        Err(error) => return Answer::NotYet(error),
    };
    match only_value(&response.body) {
        Some(value) => Answer::Yes(value),
        None => Answer::NotYet(format!("Prometheus said {}: {}", response.status, response.body)),
    }
}

/// The value in an answer of Prometheus' query API that has exactly one, and a finite one.
fn only_value(body: &str) -> Option<f64> {
    let answer: Value = serde_json::from_str(body).ok()?;
    let result = answer.pointer("/data/result")?.as_array()?;
    let [one] = result.as_slice() else { return None };
    let value: f64 = one.pointer("/value/1")?.as_str()?.parse().ok()?;
    value.is_finite().then_some(value)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_a_single_finite_value_is_an_answer() {
        let answer = |result: &str| {
            only_value(&format!(
                r#"{{"status":"success","data":{{"resultType":"vector","result":[{result}]}}}}"#
            ))
        };
        let one = r#"{"metric":{},"value":[1700000000.1,"4.5"]}"#;
        assert_eq!(answer(one), Some(4.5));
        assert_eq!(answer(""), None);
        assert_eq!(answer(&format!("{one},{one}")), None);
        assert_eq!(answer(r#"{"metric":{},"value":[1700000000.1,"NaN"]}"#), None);
        assert_eq!(only_value(r#"{"status":"error","error":"bad"}"#), None);
        assert_eq!(only_value("<html>"), None);
    }

    /// The receiver, the queries and the end of it all, without the agent.
    #[test]
    fn prometheus_starts_answers_and_ends() {
        let context = Context::new().expect("a checkout");
        let program = setup::locate(&context, &setup::PROMETHEUS)
            .expect("a usable MOTE_PROMETHEUS")
            .expect("Prometheus is missing: `cargo xtask setup` gets it");
        let interrupt = Interrupt::default();
        let folder = TempDir::new("demo-test").expect("a folder");
        let server = http::free_address().expect("a port");
        let mut database = start_prometheus(folder.path(), &program, server).expect("it starts");
        interrupt
            .wait_for("Prometheus", START, || database.check().map(|()| is_ready(server)))
            .expect("it gets ready");
        match value_of(server, "40 + vector(2)") {
            Answer::Yes(value) => assert!((value - 42.0).abs() < 1e-9, "{value}"),
            Answer::NotYet(reason) => panic!("{reason}"),
        }
        match value_of(server, CPU_QUERY) {
            Answer::NotYet(reason) => assert!(reason.contains("\"result\":[]"), "{reason}"),
            Answer::Yes(value) => panic!("nothing was written, yet the CPU is at {value}"),
        }
        database.stop().expect("it ends on SIGTERM");
    }
}
