//! `[[logs.syslog]]`: where syslog is received.

use std::time::Duration;

use super::Common;
use crate::config::error::ConfigError;
use crate::config::reader::Reader;
use crate::logs::syslog::{Listen, Options};

pub(super) fn syslog(t: &Reader<'_>, common: &Common) -> Result<Vec<Options>, ConfigError> {
    let mut all: Vec<Options> = Vec::new();
    for t in t.list("syslog")? {
        let listen = t.string(
            "listen",
            "",
            "where messages are received (RFC 5424 and RFC 3164): \"udp://127.0.0.1:514\", \"tcp://127.0.0.1:601\" (a line each, or counted octets) or \"unix:///dev/log\", a socket that no other program serves; ports below 1024 take root or CAP_NET_BIND_SERVICE",
        )?;
        let mut allow = Vec::new();
        let ranges = t.strings(
            "allow",
            "other machines that may send, as addresses or ranges such as \"192.168.0.0/16\"; needed where `listen` is not on loopback",
        )?;
        for range in ranges.unwrap_or_default() {
            let wrong = |problem| format!("syslog.allow: {:?}: {problem}", range.value);
            let hint = "an address or a range, such as \"192.168.0.0/16\"";
            allow.push(range.value.parse().map_err(|problem| range.error(wrong(problem), hint))?);
        }
        let own = t.labels(
            "labels",
            "labels of these streams, beside `transport`, `level`, `facility`, `syslog_identifier`, of other machines `host`, `instance` and those of `[agent]`",
        )?;
        let use_timestamp = t.boolean(
            "use_timestamp",
            false,
            "whether an entry's time is the message's own, if it has one, and not that of its reception",
        )?;
        let idle_timeout = t.duration(
            "idle_timeout",
            Duration::from_secs(3_600),
            Duration::from_secs(1)..=Duration::from_secs(7 * 86_400),
            "a TCP connection that says nothing for so long is closed; its sender notices only with its next message, which many lose then",
        )?;
        let max_connections = t.integer(
            "max_connections",
            64,
            1..=1_000,
            "the most TCP connections at once; more are closed, and counted",
        )?;
        let (present, place) = (t.is_present(), t.place().clone());
        t.finish()?;
        if !present {
            continue;
        }
        let hint = "listen = \"udp://127.0.0.1:514\"";
        let given = listen
            .ok_or_else(|| ConfigError::new(&place, "[[logs.syslog]] has no listen", hint))?;
        let wrong = |problem| format!("syslog.listen: {:?}: {problem}", given.value);
        let listen: Listen =
            given.value.parse().map_err(|problem| given.error(wrong(problem), hint))?;
        if listen.is_remote() && allow.is_empty() {
            return Err(given.error(
                wrong("other machines can reach it, and none is allowed to send"),
                "listen on 127.0.0.1, or say who may: allow = [\"192.168.0.0/16\"]",
            ));
        }
        if all.iter().any(|have| have.listen == listen) {
            return Err(given.error(wrong("it is given twice"), "one section for each socket"));
        }
        all.push(Options {
            listen,
            allow,
            labels: common.labels(own),
            max_line: common.max_line,
            use_timestamp,
            idle_timeout,
            max_connections: max_connections as usize,
        });
    }
    Ok(all)
}
