//! The commands as a user types them: what they print, how they exit, what they refuse.

#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic, reason = "test code")]

mod support;

use std::fs;
use std::process::{Command, Output};
use std::time::Duration;

use rustix::process::Signal;
use support::{Agent, StrictMimir};

const LONG: Duration = Duration::from_secs(60);

fn mote(arguments: &[&str]) -> Output {
    Command::new(env!("CARGO_BIN_EXE_mote"))
        .args(arguments)
        .env_remove("MOTE_CONFIG")
        .output()
        .unwrap()
}

fn text(bytes: &[u8]) -> String {
    String::from_utf8(bytes.to_vec()).unwrap()
}

#[test]
fn bad_usage_and_bad_configuration_exit_with_2_and_start_nothing() {
    for arguments in [&[][..], &["fly"], &["run", "--fast"], &["run", "--stdout"], &["check", "x"]]
    {
        let output = mote(arguments);
        assert_eq!(output.status.code(), Some(2), "{arguments:?}");
        assert!(!output.stderr.is_empty() && output.stdout.is_empty(), "{arguments:?}");
    }
    let agent = Agent::new("intervall = \"5s\"\n");
    for command in ["check", "run", "status"] {
        let output = agent.command(command).output().unwrap();
        assert_eq!(output.status.code(), Some(2), "{command}");
        let error = text(&output.stderr);
        assert!(error.contains("mote.toml:4:1: unknown key \"agent.intervall\""), "{error}");
        assert!(error.contains("hint: did you mean \"interval\"?"), "{error}");
    }
    assert!(!agent.path("state").exists());
}

/// The logs' part of the configuration that users have been promised.
const LOGS: &str = r#"
[agent]
instance = "${HOSTNAME:-box}"
labels = { site = "home" }

[[loki]]
url = "http://127.0.0.1:3100/loki/api/v1/push"
batch_bytes = "256KiB"
batch_wait = "5s"

[wal]
sync = "round"
min_free = "64MiB"
[wal.logs]
max_bytes = "32MiB"
on_full = "pause"

[logs]
max_line = "64KiB"
[logs.journal]
max_age = "12h"
matches = ["_TRANSPORT=kernel"]
labels = { job = "integrations/node_exporter" }
[[logs.file]]
paths = ["/var/log/*.log", "/var/log/syslog"]
exclude = ["*.gz"]
labels = { job = "file-logs" }
[logs.docker]
host = "unix:///var/run/docker.sock"
[[logs.stage]]                        # in order, for the streams that match
match = '{unit="cron.service"}'
drop = { regex = "pam_unix.*session (opened|closed)" }
[[logs.stage]]
drop = { older_than = "167h" }
"#;

#[test]
fn what_users_were_promised_to_write_is_taken() {
    let dir = tempfile::tempdir().unwrap();
    let file = dir.path().join("mote.toml");
    let file = file.to_str().unwrap();
    let check = |text: &str| {
        fs::write(file, text).unwrap();
        mote(&["check", "--config", file])
    };
    let output = check(LOGS);
    assert!(output.status.success(), "{}", text(&output.stderr));
    assert!(output.stderr.is_empty(), "{}", text(&output.stderr));
    // Each key is looked at, in tables of tables, too.
    for (good, bad, near) in [
        ("batch_wait", "batch_wiat", "batch_wait"),
        ("on_full", "on_ful", "on_full"),
        ("max_line", "maxline", "max_line"),
        ("matches", "match", "matches"),
        ("exclude", "excludes", "exclude"),
        ("host =", "hosts =", "host"),
        ("{ regex", "{ regexp", "regex"),
        ("older_than", "olderthan", "older_than"),
        ("[[logs.stage]] ", "[[logs.stages]] ", "stage"),
        ("[[logs.file]]", "[[logs.files]]", "file"),
    ] {
        let output = check(&LOGS.replacen(good, bad, 1));
        let error = text(&output.stderr);
        assert_eq!(output.status.code(), Some(2), "{bad}: {error}");
        assert!(error.contains(&format!("did you mean \"{near}\"?")), "{bad}: {error}");
    }
}

#[test]
fn every_command_has_help() {
    for command in ["run", "check", "status", "wal", "boards", "version"] {
        let output = mote(&[command, "--help"]);
        assert!(output.status.success());
        assert!(text(&output.stdout).contains(&format!("Usage: mote {command}")), "{command}");
    }
    let all = text(&mote(&["--help"]).stdout);
    assert!(all.contains("Commands:"));
    for command in ["run", "check", "status", "wal", "boards", "version"] {
        assert!(all.contains(&format!("\n  {command} ")), "{command} in {all}");
    }
}

#[test]
fn version_is_the_packages() {
    let plain = text(&mote(&["version"]).stdout);
    assert!(plain.starts_with(concat!("mote ", env!("CARGO_PKG_VERSION"), " (")), "{plain}");
    let json: serde_json::Value =
        serde_json::from_slice(&mote(&["version", "--json"]).stdout).unwrap();
    assert_eq!(json["version"], env!("CARGO_PKG_VERSION"));
}

#[test]
fn once_prints_a_round_and_writes_nothing() {
    let agent = Agent::new("");
    let output = agent.command("run").args(["--once", "--stdout"]).output().unwrap();
    assert!(output.status.success());
    let out = text(&output.stdout);
    for name in ["node_cpu_seconds_total{", "node_memory_MemTotal_bytes ", "mote_build_info{"] {
        assert!(out.lines().any(|line| line.starts_with(name)), "{name} in {out}");
    }
    assert!(!agent.path("state").exists());
}

#[test]
fn once_without_stdout_delivers_a_round() {
    let mimir = StrictMimir::new();
    let agent = Agent::new(&format!("[[mimir]]\nurl = {:?}\n", mimir.url()));
    let output = agent.command("run").arg("--once").output().unwrap();
    assert!(output.status.success(), "{}", text(&output.stderr));
    assert_eq!(mimir.samples("node_load1", &[]).len(), 1);
    mimir.assert_clean();
}

#[test]
fn status_tells_what_the_agent_does_and_that_there_is_none() {
    let mut agent = Agent::new("");
    let output = agent.command("status").output().unwrap();
    assert_eq!(output.status.code(), Some(1));
    assert!(text(&output.stderr).contains("is it running"), "{}", text(&output.stderr));
    agent.start();
    let shown = text(&agent.command("status").output().unwrap().stdout);
    for part in ["mote ", "collectors", "meminfo          good", "WALs", "none configured"] {
        assert!(shown.contains(part), "{part} in {shown}");
    }
    let output = agent.command("status").arg("--json").output().unwrap();
    let json: serde_json::Value = serde_json::from_slice(&output.stdout).unwrap();
    let default = mote::collector::TABLE.iter().filter(|entry| entry.default).count();
    assert_eq!(json["collectors"].as_array().unwrap().len(), default);
    assert_eq!(json["wals"][0]["name"], "metrics");
}

#[test]
fn pages_answer_and_refuse() {
    let mut agent = Agent::new("");
    agent.start();
    for (method, page, code, part) in [
        ("GET", "/", 200, "<pre>mote "),
        ("GET", "/metrics", 200, "mote_wal_bytes{wal=\"metrics\"}"),
        ("GET", "/metrics?collect=node", 200, "node_load1 "),
        ("GET", "/-/ready", 200, "ready"),
        ("GET", "/ready", 200, "ready"),
        ("GET", "/-/healthy", 200, "healthy"),
        ("GET", "/healthy", 200, "healthy"),
        ("GET", "/api/v1/status", 200, "\"collectors\""),
        ("GET", "/nothing", 404, "no such page"),
        ("GET", "/-/reload", 405, "POST"),
        ("POST", "/metrics", 405, "GET"),
    ] {
        let (got, body) = agent.request(method, page).unwrap();
        assert!(got == code && body.contains(part), "{method} {page}: {got} {body}");
    }
    let (_, own) = agent.get("/metrics").unwrap();
    assert!(!own.contains("node_load1"));
    let (_, all) = agent.get("/metrics?collect=node").unwrap();
    let help = all.lines().filter(|line| line.starts_with("# TYPE ")).collect::<Vec<_>>();
    let mut unique = help.clone();
    unique.sort_unstable();
    unique.dedup();
    assert_eq!(help.len(), unique.len(), "a family stands twice");
}

#[test]
fn reload_takes_a_good_configuration_and_refuses_a_bad_one() {
    let mut agent = Agent::new("instance = \"one\"\n");
    agent.start();
    agent.configure("instance = \"two\"\n");
    agent.signal(Signal::HUP);
    agent.wait("the new name", LONG, |agent| {
        agent.get("/api/v1/status").is_some_and(|(_, body)| body.contains("\"instance\":\"two\""))
    });
    agent.configure("instance = 3\n");
    agent.signal(Signal::HUP);
    agent.wait("the refusal", LONG, |agent| agent.log().contains("not reloaded"));
    assert_eq!(agent.status()["instance"], "two");
    let (code, body) = agent.request("POST", "/-/reload").unwrap();
    assert!(code == 500 && body.contains("agent.instance is an integer"), "{body}");
    agent.configure("instance = \"three\"\n");
    assert_eq!(agent.request("POST", "/-/reload").unwrap().0, 200);
    agent.wait("the third name", LONG, |agent| {
        agent.get("/api/v1/status").is_some_and(|(_, body)| body.contains("\"instance\":\"three\""))
    });
    assert!(agent.terminate().0.success());
    // One WAL over all of them, and no round twice.
    let rounds = agent.rounds();
    assert!(rounds.len() >= 3 && rounds.windows(2).all(|pair| pair[0].0 < pair[1].0), "{rounds:?}");
}

#[test]
fn second_agent_on_one_state_directory_is_refused() {
    let mut agent = Agent::new("");
    agent.start();
    let second = agent.command("run").output().unwrap();
    assert_eq!(second.status.code(), Some(1));
    let error = text(&second.stderr);
    assert!(error.contains("another agent uses this directory"), "{error}");
    assert_eq!(agent.status()["wals"][0]["failure"], serde_json::Value::Null);
}

#[test]
fn taken_port_costs_the_page_and_not_the_agent() {
    let taken = std::net::TcpListener::bind("127.0.0.1:0").unwrap();
    let mimir = StrictMimir::new();
    let agent = Agent::new(&format!("[[mimir]]\nurl = {:?}\n", mimir.url()));
    let listen = format!("http.listen={}", taken.local_addr().unwrap());
    let output = agent.command("run").args(["--once", "--set", &listen]).output().unwrap();
    assert!(output.status.success());
    assert!(text(&output.stderr).contains("without its status page"), "{}", text(&output.stderr));
    assert_eq!(mimir.samples("node_load1", &[]).len(), 1);
}

#[test]
fn collector_with_a_broken_file_is_told_once_and_the_others_go_on() {
    let mut agent = Agent::new("");
    let proc = agent.path("proc");
    fs::create_dir(&proc).unwrap();
    for file in ["stat", "loadavg", "vmstat"] {
        fs::copy(format!("/proc/{file}"), proc.join(file)).unwrap();
    }
    fs::write(proc.join("meminfo"), "MemTotal: lots kB\n").unwrap();
    agent.configure(&format!(
        "interval = \"1s\"\n[host]\nproc = {:?}\n",
        proc.display().to_string()
    ));
    agent.start();
    agent.wait("three rounds", LONG, |agent| {
        agent.status()["wals"][0]["records"].as_u64() >= Some(3)
    });
    let (_, metrics) = agent.get("/metrics?collect=node").unwrap();
    for line in [
        "mote_collector_success{collector=\"meminfo\"} 0",
        "mote_collector_success{collector=\"pressure\"} 0",
        "mote_collector_success{collector=\"loadavg\"} 1",
        "node_scrape_collector_success{collector=\"meminfo\"} 0",
    ] {
        assert!(metrics.lines().any(|have| have == line), "{line} in {metrics}");
    }
    assert!(metrics.contains("node_load1 "));
    let log = agent.log();
    assert_eq!(log.matches("lots").count(), 1, "{log}");
    assert!(log.contains("meminfo"), "{log}");
    assert!(agent.terminate().0.success());
}

/// The configuration with another state directory.
fn move_state(agent: &Agent, to: &str) {
    let path = agent.path("mote.toml");
    let (old, new) = (agent.path("state"), agent.path(to));
    let text = fs::read_to_string(&path).unwrap();
    let text = text.replace(&old.display().to_string(), &new.display().to_string());
    fs::write(path, text).unwrap();
}

#[test]
fn reload_to_what_can_not_run_leaves_the_agent_as_it_was() {
    let mut agent = Agent::new("instance = \"one\"\n");
    agent.start();
    // Valid, and no directory can be made below a file.
    fs::write(agent.path("file"), "").unwrap();
    agent.configure("instance = \"two\"\n");
    move_state(&agent, "file/state");
    agent.signal(Signal::HUP);
    agent.wait("the refusal", LONG, |agent| agent.log().contains("not reloaded"));
    agent.wait("the old name", LONG, |agent| {
        agent.get("/api/v1/status").is_some_and(|(_, body)| body.contains("\"instance\":\"one\""))
    });
    assert!(agent.log().contains("file/state"), "{}", agent.log());
    assert!(agent.terminate().0.success());
    assert!(agent.rounds().len() >= 2);
}

#[test]
fn end_that_is_asked_for_during_a_reload_comes() {
    // It takes a request and never answers: the reload waits for it for a second.
    let server = std::net::TcpListener::bind("127.0.0.1:0").unwrap();
    let url = format!("http://{}/push", server.local_addr().unwrap());
    let mut agent = Agent::new(&format!("[[mimir]]\nurl = {url:?}\n"));
    agent.start();
    let _request = server.accept().unwrap();
    agent.signal(Signal::HUP);
    agent.wait("the reload", LONG, |agent| agent.log().contains("reloading the configuration"));
    let (exit, took) = agent.terminate();
    assert!(exit.success() && took < Duration::from_secs(20), "{exit} after {took:?}");
}
