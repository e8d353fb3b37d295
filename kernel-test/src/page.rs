//! The agent's page `/metrics?collect=node`, read over plain HTTP, and the kernel's own accounts that
//! its samples are compared with.

use std::fs;
use std::io::{Read as _, Write as _};
use std::net::{Ipv4Addr, SocketAddr, TcpStream};
use std::time::Duration;

use crate::Result;

/// Where the agent listens.
pub(crate) const PORT: u16 = 9911;

const TIMEOUT: Duration = Duration::from_secs(30);

/// A sample of the page.
#[derive(Clone, Debug, PartialEq)]
struct Sample {
    name: String,
    labels: Vec<(String, String)>,
    value: f64,
}

/// The page.
#[derive(Clone, Debug, Default, PartialEq)]
pub(crate) struct Page(Vec<Sample>);

impl Page {
    /// Asks the agent for it: one TCP connection.
    ///
    /// # Errors
    /// No connection, or an answer that is no page.
    pub(crate) fn get() -> Result<Page> {
        let fail = |error: std::io::Error| format!("the agent's page: {error}");
        let address = SocketAddr::from((Ipv4Addr::LOCALHOST, PORT));
        let mut stream = TcpStream::connect_timeout(&address, TIMEOUT).map_err(fail)?;
        stream.set_read_timeout(Some(TIMEOUT)).map_err(fail)?;
        stream
            .write_all(b"GET /metrics?collect=node HTTP/1.0\r\nHost: localhost\r\n\r\n")
            .map_err(fail)?;
        let mut answer = String::new();
        stream.read_to_string(&mut answer).map_err(fail)?;
        let Some((head, body)) = answer.split_once("\r\n\r\n") else {
            return Err("the agent's page: an answer without a head".to_owned());
        };
        if head.split(' ').nth(1) != Some("200") {
            return Err(format!("the agent's page: {:?}", head.lines().next().unwrap_or_default()));
        }
        Page::parse(body)
    }

    fn parse(body: &str) -> Result<Page> {
        let lines = body.lines().filter(|line| !line.is_empty() && !line.starts_with('#'));
        let samples = lines.map(|line| {
            sample(line).ok_or_else(|| format!("the agent's page has a line {line:?}"))
        });
        Ok(Page(samples.collect::<Result<_>>()?))
    }

    /// The sum of all samples of this name that have these labels among theirs; 0 if there is none.
    pub(crate) fn sum(&self, name: &str, labels: &[(&str, &str)]) -> f64 {
        self.matching(name, labels).map(|sample| sample.value).sum()
    }

    /// Whether there is a sample of this name with these labels.
    pub(crate) fn has(&self, name: &str, labels: &[(&str, &str)]) -> bool {
        self.matching(name, labels).next().is_some()
    }

    /// Samples of this name as they look on the page, to be shown when a check fails.
    pub(crate) fn show(&self, name: &str) -> String {
        let shown: Vec<String> = self
            .matching(name, &[])
            .map(|sample| {
                let labels: Vec<String> =
                    sample.labels.iter().map(|(key, value)| format!("{key}={value}")).collect();
                format!("{{{}}} {}", labels.join(","), sample.value)
            })
            .collect();
        if shown.is_empty() { format!("no {name}") } else { format!("{name}{}", shown.join(", ")) }
    }

    /// The mode of each probe that the agent knows.
    pub(crate) fn modes(&self) -> Vec<(String, String)> {
        let label = |sample: &Sample, wanted: &str| {
            let found = sample.labels.iter().find(|(key, _)| key == wanted);
            found.map(|(_, value)| value.clone())
        };
        self.matching("mote_probe_mode", &[])
            .filter(|sample| sample.value != 0.0)
            .filter_map(|sample| Some((label(sample, "probe")?, label(sample, "mode")?)))
            .collect()
    }

    fn matching<'a>(
        &'a self,
        name: &'a str,
        labels: &'a [(&'a str, &'a str)],
    ) -> impl Iterator<Item = &'a Sample> {
        self.0.iter().filter(move |sample| {
            sample.name == name
                && labels
                    .iter()
                    .all(|(key, value)| sample.labels.iter().any(|(k, v)| k == key && v == value))
        })
    }
}

fn sample(line: &str) -> Option<Sample> {
    let (series, value) = match line.rfind('}') {
        Some(end) => (line.get(..=end)?, line.get(end + 1..)?),
        None => line.split_once(' ')?,
    };
    // A timestamp may follow.
    let value = value.split_ascii_whitespace().next()?;
    let value = match value {
        "+Inf" => f64::INFINITY,
        "-Inf" => f64::NEG_INFINITY,
        number => number.parse().ok()?,
    };
    let (name, labels) = match series.split_once('{') {
        Some((name, rest)) => (name, parse_labels(rest.strip_suffix('}')?)?),
        None => (series, Vec::new()),
    };
    Some(Sample { name: name.trim().to_owned(), labels, value })
}

fn parse_labels(mut rest: &str) -> Option<Vec<(String, String)>> {
    let mut labels = Vec::new();
    while !rest.is_empty() {
        let (key, after) = rest.split_once("=\"")?;
        let mut value = String::new();
        let mut characters = after.char_indices();
        let end = loop {
            match characters.next()? {
                (at, '"') => break at,
                (_, '\\') => match characters.next()?.1 {
                    'n' => value.push('\n'),
                    other => value.push(other),
                },
                (_, other) => value.push(other),
            }
        };
        labels.push((key.to_owned(), value));
        rest = after.get(end + 1..)?.trim_start_matches(',');
    }
    Some(labels)
}

/// What the kernel itself says at one moment.
#[derive(Clone, Debug, Default)]
pub(crate) struct Kernel {
    diskstats: String,
    snmp: String,
    vmstat: String,
}

/// What /proc/diskstats says of a disk and an operation: requests that completed, and the milliseconds
/// that they took (Documentation/admin-guide/iostats.rst).
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(crate) struct Requests {
    /// How many.
    pub(crate) count: u64,
    /// From their making to their end, summed.
    pub(crate) ms: u64,
}

impl Kernel {
    /// Reads the files.
    ///
    /// # Errors
    /// One can't be read.
    pub(crate) fn read() -> Result<Kernel> {
        let read =
            |path: &str| fs::read_to_string(path).map_err(|error| format!("{path}: {error}"));
        Ok(Kernel {
            diskstats: read("/proc/diskstats")?,
            snmp: read("/proc/net/snmp")?,
            vmstat: read("/proc/vmstat")?,
        })
    }

    /// The requests of a disk; None without such a line, or on a kernel that does not count this
    /// operation.
    pub(crate) fn requests(&self, disk: &str, operation: &str) -> Option<Requests> {
        let mut lines = self.diskstats.lines().map(|line| line.split_ascii_whitespace().collect());
        let fields: Vec<&str> = lines.find(|line: &Vec<&str>| line.get(2) == Some(&disk))?;
        let (count, ms) = match operation {
            "read" => (3, 6),
            "write" => (7, 10),
            "discard" => (14, 17),
            "flush" => (18, 19),
            _ => return None,
        };
        let number = |at: usize| fields.get(at)?.parse().ok();
        Some(Requests { count: number(count)?, ms: number(ms)? })
    }

    /// A counter of /proc/net/snmp's `Tcp:` lines.
    pub(crate) fn tcp(&self, name: &str) -> Option<u64> {
        let mut lines = self.snmp.lines().filter_map(|line| line.strip_prefix("Tcp: "));
        let (names, values) = (lines.next()?, lines.next()?);
        let at = names.split(' ').position(|candidate| candidate == name)?;
        values.split(' ').nth(at)?.parse().ok()
    }

    /// The sum of those counters of /proc/vmstat whose names begin so.
    pub(crate) fn vmstat(&self, prefix: &str) -> u64 {
        let lines = self.vmstat.lines().filter(|line| line.starts_with(prefix));
        lines.filter_map(|line| line.split_once(' ')?.1.parse::<u64>().ok()).sum()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn samples_are_found_by_name_and_labels() {
        let page = Page::parse(
            "# TYPE a counter\na{b=\"c\",d=\"e \\\"}\\\\ f\"} 2\na{b=\"g\"} 3\naa 7 1700000000000\n\
             mote_probe_mode{probe=\"block\",mode=\"tracepoint\"} 1\n\
             mote_probe_mode{probe=\"block\",mode=\"off\"} 0\nh{le=\"+Inf\"} +Inf\n",
        )
        .expect("good");
        assert_eq!(page.sum("a", &[]), 5.0);
        assert_eq!(page.sum("a", &[("d", "e \"}\\ f"), ("b", "c")]), 2.0);
        assert_eq!(page.sum("aa", &[]), 7.0);
        assert!(page.has("a", &[("b", "g")]) && !page.has("a", &[("b", "h")]));
        assert_eq!(page.modes(), [("block".to_owned(), "tracepoint".to_owned())]);
        assert_eq!(page.show("a").matches("b=").count(), 2);
    }

    #[test]
    fn what_is_no_page_is_an_error() {
        for bad in ["a", "a{", "a{b} 1", "a{b=\"c} 1", "a many", "a{b=\"c\"}"] {
            assert!(Page::parse(bad).is_err(), "{bad:?} was taken");
        }
    }

    #[test]
    fn the_kernels_accounts_are_read_by_name() {
        let kernel = Kernel {
            diskstats: " 254 0 vda 1 0 8 2 3 0 24 4 0 5 6 7 0 8 9 10 11\n 8 0 sda 1 0 8\n".into(),
            snmp: "Ip: A B\nIp: 1 2\nTcp: ActiveOpens RetransSegs\nTcp: 5 7\n".into(),
            vmstat: "allocstall_dma 1\nallocstall_normal 2\noom_kill 4\n".into(),
        };
        assert_eq!(kernel.requests("vda", "read"), Some(Requests { count: 1, ms: 2 }));
        assert_eq!(kernel.requests("vda", "write"), Some(Requests { count: 3, ms: 4 }));
        assert_eq!(kernel.requests("vda", "flush"), Some(Requests { count: 10, ms: 11 }));
        assert_eq!(kernel.requests("sda", "flush"), None);
        assert_eq!(kernel.requests("sdb", "read"), None);
        assert_eq!(kernel.tcp("RetransSegs"), Some(7));
        assert_eq!(kernel.tcp("InErrs"), None);
        assert_eq!(kernel.vmstat("allocstall"), 3);
    }
}
