//! The probe `tcp` on this machine's own kernel: real connections in a network namespace of each test's
//! own, counted by the probe and by the namespace's /proc/net/snmp and netstat. Needs root, the BPF objects, `unshare`
//! and `ip`.
//!
//! Tracepoints see all namespaces, and other programs connect too. So a test does the same thing again
//! until the probe has counted exactly what the namespace has, and never less. What the kernel says that
//! the probe has missed (`reason="nested"`) may be missing.

#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic)]

use std::collections::BTreeMap;
use std::fs;
use std::io::Write as _;
use std::net::{SocketAddr, TcpListener, TcpStream};
use std::os::fd::{AsFd, OwnedFd};
use std::process::Command;
use std::sync::{Mutex, PoisonError};
use std::thread::sleep;
use std::time::{Duration, Instant};

use mote::host::{Host, Roots};
use mote::model::{Event, Samples};
use mote::probe::{Loader, Options, Probes};
use rustix::io::Errno;
use rustix::net::{AddressFamily, SocketFlags, SocketType, sockopt};

/// An address that takes what is sent to it and never answers, and one that no one has.
const HOLES: [&str; 2] = ["198.51.100.2:9", "[2001:db8::2]:9"];
const NOBODY: [&str; 2] = ["198.51.100.9:9", "[2001:db8::9]:9"];

const NAMESPACE: &str = "
    set -e
    ulimit -n 20000
    ip link set lo up
    ip link add v0 type veth peer name v1
    ip link set v1 up
    ip link set v0 up
    ip addr add 198.51.100.1/24 dev v0
    ip addr add 2001:db8::1/64 dev v0 nodad
    ip neigh add 198.51.100.2 lladdr 02:00:00:00:00:02 dev v0 nud permanent
    ip neigh add 2001:db8::2 lladdr 02:00:00:00:00:02 dev v0 nud permanent
    echo 100 > /proc/sys/net/ipv4/neigh/v0/retrans_time_ms
    echo 100 > /proc/sys/net/ipv6/neigh/v0/retrans_time_ms
    exec \"$0\" --exact \"$1\" --nocapture --test-threads=1";

/// Runs a test, which is named here as well, in a namespace of its own; one at a time, because each
/// counts for all.
fn in_namespace(name: &str, test: impl FnOnce()) {
    static ONE: Mutex<()> = Mutex::new(());
    const INSIDE: &str = "MOTE_TEST_NAMESPACE";
    if std::env::var_os(INSIDE).is_some() {
        return test();
    }
    let _one = ONE.lock().unwrap_or_else(PoisonError::into_inner);
    assert!(
        rustix::process::geteuid().is_root(),
        "this test attaches BPF programs: run it as root"
    );
    let out = Command::new("unshare")
        .args(["--net", "sh", "-c", NAMESPACE])
        .arg(std::env::current_exe().unwrap())
        .arg(name)
        .env(INSIDE, "1")
        .output()
        .expect("unshare, of util-linux");
    let printed = String::from_utf8_lossy(&out.stdout);
    println!("{printed}{}", String::from_utf8_lossy(&out.stderr));
    assert!(out.status.success(), "{}", out.status);
    assert!(printed.contains("1 passed"), "the test {name} did not run");
}

/// The probe and the namespace, which are asked together.
struct Both {
    host: Host,
    probes: Probes,
}

/// What both have counted: samples by name and label values, and the numbers of /proc/net/snmp and
/// netstat.
struct Counts {
    probe: BTreeMap<String, f64>,
    kernel: BTreeMap<String, f64>,
}

impl Both {
    fn start() -> Both {
        let host = Host::new(Roots::default());
        let loader = Loader { executable: env!("CARGO_BIN_EXE_mote").into(), ..Loader::default() };
        let probes = Probes::start(&Options { loader, ..Options::only("tcp") }, &host);
        if let Err(error) = probes.required() {
            panic!("{error}");
        }
        Both { host, probes }
    }

    fn counts(&mut self) -> Counts {
        let mut out = Samples::with_limit(1_000);
        self.probes.collect(&mut self.host, 7, &mut out);
        let mut probe = BTreeMap::new();
        for sample in out.iter() {
            let mut name = sample.name().to_owned();
            for (_, value) in sample.labels() {
                name = format!("{name} {value}");
            }
            probe.insert(name, sample.value);
        }
        Counts { probe, kernel: kernel() }
    }

    fn events(&mut self) -> Vec<Event> {
        std::iter::from_fn(|| self.probes.next_event()).map(|waiting| waiting.event).collect()
    }

    /// Does something until the probe's counts are exactly as they should be; `work` says what they
    /// should be, as sums of samples, and is given what the namespace has counted meanwhile.
    fn until_exact(
        &mut self,
        attempts: usize,
        mut work: impl FnMut(&mut Both),
        expected: impl Fn(&Since<'_>) -> Vec<(&'static [&'static str], f64)>,
    ) {
        let mut found = Vec::new();
        for _ in 0..attempts {
            let before = self.counts();
            work(self);
            let after = self.counts();
            let since = Since { before: &before, after: &after };
            found.clear();
            for (samples, expected) in expected(&since) {
                let counted: f64 = samples.iter().map(|sample| since.probe(sample)).sum();
                let nested = since.probe("mote_probe_lost_total tcp nested");
                assert!(
                    counted + nested >= expected,
                    "{samples:?}: {counted} counted, {nested} missed, {expected} expected"
                );
                found.push((samples, counted, expected));
            }
            if found.iter().all(|(_, counted, expected)| counted == expected) {
                println!("exact: {found:?}");
                return;
            }
        }
        panic!("never exact in {attempts} attempts: {found:?}");
    }
}

/// What the namespace has counted.
fn kernel() -> BTreeMap<String, f64> {
    let mut kernel = BTreeMap::new();
    for (file, prefix) in [("snmp", "Tcp: "), ("netstat", "TcpExt: ")] {
        let text = fs::read_to_string(format!("/proc/self/net/{file}")).unwrap();
        let mut lines = text.lines().filter_map(|line| line.strip_prefix(prefix));
        let (names, values) = (lines.next().unwrap(), lines.next().unwrap());
        let values = values.split(' ').map(|value| value.parse().unwrap());
        kernel.extend(names.split(' ').map(str::to_owned).zip(values));
    }
    kernel
}

/// What has gone out again: what the device had no room for has not.
fn sent_again(kernel: &BTreeMap<String, f64>) -> f64 {
    kernel["RetransSegs"] - kernel["TCPRetransFail"]
}

/// Differences of counts.
struct Since<'a> {
    before: &'a Counts,
    after: &'a Counts,
}

impl Since<'_> {
    fn probe(&self, name: &str) -> f64 {
        // A histogram is there once it has something.
        let old = self.before.probe.get(name).copied().unwrap_or(0.0);
        self.after.probe.get(name).unwrap_or_else(|| panic!("no {name}")) - old
    }

    fn kernel(&self, name: &str) -> f64 {
        self.after.kernel[name] - self.before.kernel[name]
    }

    fn sent_again(&self) -> f64 {
        sent_again(&self.after.kernel) - sent_again(&self.before.kernel)
    }
}

/// Begins to connect.
fn begin(to: &str) -> OwnedFd {
    let to: SocketAddr = to.parse().unwrap();
    let family = if to.is_ipv4() { AddressFamily::INET } else { AddressFamily::INET6 };
    let flags = SocketFlags::NONBLOCK | SocketFlags::CLOEXEC;
    let socket = rustix::net::socket_with(family, SocketType::STREAM, flags, None).unwrap();
    match rustix::net::connect(&socket, &to) {
        Ok(()) | Err(Errno::INPROGRESS) => socket,
        Err(error) => panic!("{to}: {error}"),
    }
}

/// Waits until these attempts have failed, and gives the errors. They are taken only later: who is quicker
/// than the kernel's own report takes them out of it.
fn errors(sockets: &[OwnedFd]) -> Vec<Errno> {
    use rustix::event::{PollFd, PollFlags, poll};
    for socket in sockets {
        let mut poll_fd = [PollFd::new(socket, PollFlags::IN)];
        let patience = rustix::time::Timespec { tv_sec: 60, tv_nsec: 0 };
        assert_eq!(poll(&mut poll_fd, Some(&patience)).unwrap(), 1, "an attempt goes on");
    }
    sleep(Duration::from_millis(20));
    sockets.iter().map(|socket| sockopt::socket_error(socket).unwrap().unwrap_err()).collect()
}

/// Closes with a reset.
fn reset(socket: impl AsFd) {
    sockopt::set_socket_linger(socket, Some(Duration::ZERO)).unwrap();
}

fn sysctl(name: &str, value: &str) {
    let path = format!("/proc/sys/net/ipv4/{name}");
    fs::write(&path, value).unwrap_or_else(|error| panic!("{path}: {error}"));
}

/// No answer is a timeout after 3 s.
fn one_syn_again() {
    sysctl("tcp_syn_retries", "1");
    // Before 6.5 there are none.
    let _ = fs::write("/proc/sys/net/ipv4/tcp_syn_linear_timeouts", "0");
}

/// Listeners on both loopback addresses, and how IPv4, IPv6 and an IPv6 socket that speaks IPv4 get there.
fn listeners() -> ([TcpListener; 2], [String; 3]) {
    let v4 = TcpListener::bind("127.0.0.1:0").unwrap();
    let v6 = TcpListener::bind("[::1]:0").unwrap();
    let ports = [&v4, &v6].map(|listener| listener.local_addr().unwrap().port());
    let ways = [
        format!("127.0.0.1:{}", ports[0]),
        format!("[::1]:{}", ports[1]),
        format!("[::ffff:127.0.0.1]:{}", ports[0]),
    ];
    ([v4, v6], ways)
}

#[test]
fn connects_and_resets_agree_with_snmp_by_the_family_on_the_wire() {
    in_namespace("connects_and_resets_agree_with_snmp_by_the_family_on_the_wire", || {
        let (listeners, ways) = listeners();
        let mut both = Both::start();
        let began = Instant::now();
        let work = |_: &mut Both| {
            for (at, way) in ways.iter().enumerate() {
                for _ in 0..100 {
                    let client = TcpStream::connect(way).unwrap();
                    let server = listeners[at % 2].accept().unwrap();
                    reset(&client);
                    drop(client);
                    drop(server);
                }
            }
        };
        both.until_exact(30, work, |since| {
            assert_eq!(since.kernel("ActiveOpens"), 300.0);
            vec![
                (
                    &["mote_tcp_resets_total sent ipv4", "mote_tcp_resets_total sent ipv6"],
                    since.kernel("OutRsts"),
                ),
                (&["mote_tcp_connects_total ipv4 ok"], 200.0),
                (&["mote_tcp_connects_total ipv6 ok"], 100.0),
                (&["mote_tcp_connect_duration_seconds_count ipv4"], 200.0),
                (&["mote_tcp_connect_duration_seconds_count ipv6"], 100.0),
                (&["mote_tcp_resets_total sent ipv6"], 100.0),
                (&["mote_tcp_resets_total received ipv4"], 200.0),
                (&["mote_tcp_resets_total received ipv6"], 100.0),
            ]
        });
        let counts = both.counts();
        for family in ["ipv4", "ipv6"] {
            let sum = counts.probe[&format!("mote_tcp_connect_duration_seconds_sum {family}")];
            let count = counts.probe[&format!("mote_tcp_connect_duration_seconds_count {family}")];
            println!("{family}: {:.1} us to connect on average", sum / count * 1e6);
            // One at a time here, and what others connect to is not this slow.
            assert!(sum > 0.0 && sum / count < began.elapsed().as_secs_f64(), "{sum} {count}");
        }
    });
}

#[test]
fn a_refused_connect_is_told_from_all_others() {
    in_namespace("a_refused_connect_is_told_from_all_others", || {
        let mut both = Both::start();
        let work = |_: &mut Both| {
            for way in ["127.0.0.1:9", "[::1]:9", "[::ffff:127.0.0.1]:9"] {
                for _ in 0..50 {
                    let error = TcpStream::connect(way).unwrap_err();
                    assert_eq!(error.kind(), std::io::ErrorKind::ConnectionRefused);
                    assert_eq!(errors(&[begin(way)]), [Errno::CONNREFUSED]);
                }
            }
        };
        both.until_exact(30, work, |since| {
            let opens = (since.kernel("ActiveOpens"), since.kernel("AttemptFails"));
            assert_eq!((opens, since.kernel("OutRsts")), ((300.0, 300.0), 300.0));
            vec![
                (&["mote_tcp_connects_total ipv4 refused"], 200.0),
                (&["mote_tcp_connects_total ipv6 refused"], 100.0),
                (&["mote_tcp_resets_total sent ipv4"], 200.0),
                (&["mote_tcp_resets_total sent ipv6"], 100.0),
                (&["mote_tcp_resets_total received ipv4"], 200.0),
                (&["mote_tcp_resets_total received ipv6"], 100.0),
            ]
        });
    });
}

#[test]
fn a_connect_without_an_answer_is_a_timeout() {
    in_namespace("a_connect_without_an_answer_is_a_timeout", || {
        one_syn_again();
        let mut both = Both::start();
        let work = |_: &mut Both| {
            let sockets: Vec<_> = HOLES.iter().cycle().take(60).map(|to| begin(to)).collect();
            assert!(errors(&sockets).iter().all(|error| *error == Errno::TIMEDOUT));
        };
        both.until_exact(5, work, |since| {
            assert_eq!(since.kernel("AttemptFails"), 60.0);
            vec![
                (&["mote_tcp_connects_total ipv4 timeout"], 30.0),
                (&["mote_tcp_connects_total ipv6 timeout"], 30.0),
            ]
        });
    });
}

#[test]
fn an_error_that_the_program_takes_before_it_is_reported_is_no_abort() {
    in_namespace("an_error_that_the_program_takes_before_it_is_reported_is_no_abort", || {
        one_syn_again();
        let mut both = Both::start();
        let work = |_: &mut Both| {
            let sockets: Vec<_> = (0..500).map(|_| begin(HOLES[0])).collect();
            for socket in &sockets {
                while sockopt::socket_error(socket).unwrap().is_ok() {
                    std::hint::spin_loop();
                }
            }
            sleep(Duration::from_millis(1_100));
        };
        both.until_exact(5, work, |since| {
            let taken = since.probe("mote_tcp_connects_total ipv4 failed");
            println!("{taken} of 500 errors were taken before");

            vec![
                (
                    &[
                        "mote_tcp_connects_total ipv4 timeout",
                        "mote_tcp_connects_total ipv4 failed",
                    ],
                    500.0,
                ),
                (&["mote_tcp_connects_total ipv4 aborted"], 0.0),
            ]
        });
    });
}

#[test]
fn a_connect_to_where_no_one_is_is_unreachable() {
    in_namespace("a_connect_to_where_no_one_is_is_unreachable", || {
        let mut both = Both::start();
        let work = |_: &mut Both| {
            let sockets: Vec<_> = NOBODY.iter().cycle().take(60).map(|to| begin(to)).collect();
            assert!(errors(&sockets).iter().all(|error| *error == Errno::HOSTUNREACH));
        };
        both.until_exact(10, work, |since| {
            assert_eq!(since.kernel("AttemptFails"), 60.0);
            vec![
                (&["mote_tcp_connects_total ipv4 unreachable"], 30.0),
                (&["mote_tcp_connects_total ipv6 unreachable"], 30.0),
            ]
        });
    });
}

#[test]
fn a_connect_that_the_program_gives_up_is_aborted_also_the_last_one() {
    in_namespace("a_connect_that_the_program_gives_up_is_aborted_also_the_last_one", || {
        let mut both = Both::start();
        let work = |_: &mut Both| {
            for to in HOLES.iter().cycle().take(60) {
                drop(begin(to));
            }
            for to in HOLES {
                // With a reset: the kernel then reports an error of its own.
                reset(begin(to));
                let socket = begin(to);
                rustix::net::shutdown(&socket, rustix::net::Shutdown::Both).unwrap();
            }
            // An error might still come for the last one of each CPU.
            sleep(Duration::from_millis(1_100));
        };
        both.until_exact(10, work, |since| {
            assert_eq!((since.kernel("ActiveOpens"), since.kernel("AttemptFails")), (64.0, 0.0));
            vec![
                (&["mote_tcp_connects_total ipv4 aborted"], 32.0),
                (&["mote_tcp_connects_total ipv6 aborted"], 32.0),
            ]
        });
    });
}

#[test]
fn a_connect_without_a_free_port_has_failed() {
    in_namespace("a_connect_without_a_free_port_has_failed", || {
        sysctl("ip_local_port_range", "50000 50003");
        let mut both = Both::start();
        // They have all ports.
        let ways = HOLES.map(|to| to.parse::<SocketAddr>().unwrap());
        let _holders: Vec<_> = HOLES.iter().cycle().take(8).map(|to| begin(to)).collect();
        let work = |_: &mut Both| {
            for to in ways.iter().cycle().take(40) {
                let error = TcpStream::connect(to).unwrap_err();
                assert_eq!(error.kind(), std::io::ErrorKind::AddrNotAvailable);
            }
        };
        both.until_exact(30, work, |since| {
            assert_eq!(since.kernel("ActiveOpens"), 0.0);
            vec![
                (&["mote_tcp_connects_total ipv4 failed"], 20.0),
                (&["mote_tcp_connects_total ipv6 failed"], 20.0),
            ]
        });
    });
}

/// From now on the socket receives nothing, and so acknowledges nothing.
fn make_deaf(socket: impl AsFd) {
    use std::os::fd::AsRawFd as _;
    // BPF_RET | BPF_K, 0: keep no byte.
    let mut refuse = libc::sock_filter { code: 6, jt: 0, jf: 0, k: 0 };
    let program = libc::sock_fprog { len: 1, filter: &raw mut refuse };
    #[expect(unsafe_code, reason = "no crate here has SO_ATTACH_FILTER")]
    // SAFETY: the kernel copies the program, which is alive.
    let result = unsafe {
        libc::setsockopt(
            socket.as_fd().as_raw_fd(),
            libc::SOL_SOCKET,
            libc::SO_ATTACH_FILTER,
            (&raw const program).cast(),
            size_of::<libc::sock_fprog>() as libc::socklen_t,
        )
    };
    assert_eq!(result, 0, "{}", std::io::Error::last_os_error());
}

#[test]
fn retransmits_agree_with_snmp_and_a_burst_names_the_peer_once() {
    in_namespace("retransmits_agree_with_snmp_and_a_burst_names_the_peer_once", || {
        // Before 6.11 it takes longer.
        let _ = fs::write("/proc/sys/net/ipv4/tcp_rto_min_us", "1000");
        let (listeners, ways) = listeners();
        let mut both = Both::start();
        let mut events = Vec::new();
        let mut sent = Vec::new();
        let work = |both: &mut Both| {
            assert!(sent.is_empty() || !events.is_empty(), "a burst without an event");
            let before = sent_again(&kernel());
            let mut pairs = Vec::new();
            for (at, way) in ways.iter().cycle().take(60).enumerate() {
                let mut client = TcpStream::connect(way).unwrap();
                let (server, _) = listeners[at % 3 % 2].accept().unwrap();
                make_deaf(&server);
                client.write_all(b"anyone there?").unwrap();
                // Else the deaf side would send its FIN again and again, long after.
                reset(&client);
                reset(&server);
                pairs.push((client, server));
            }
            let deadline = Instant::now() + Duration::from_secs(60);
            while sent_again(&kernel()) - before < 300.0 {
                assert!(Instant::now() < deadline, "too few retransmits");
                sleep(Duration::from_millis(100));
            }
            drop(pairs);
            sent.push(sent_again(&kernel()) - before);
            both.counts();
            events.extend(both.events());
        };
        both.until_exact(6, work, |since| {
            let all = since.sent_again();
            assert!(all >= 300.0, "{all}");
            vec![(&["mote_tcp_retransmits_total ipv4", "mote_tcp_retransmits_total ipv6"], all)]
        });
        // One event for all attempts, because they follow each other.
        println!("{} retransmits: {}", sent[0], events[0].line());
        let [event] = events.as_slice() else { panic!("{events:?}") };
        assert_eq!((event.kind, event.timestamp_ns), ("tcp_retransmits", 7));
        let field = |name| &event.fields.iter().find(|(known, _)| *known == name).unwrap().1;
        // What the programs have missed is in neither.
        assert!(field("count").parse::<f64>().unwrap() >= sent[0] * 0.95);
        let peers: BTreeMap<&str, f64> = field("peers")
            .split(',')
            .map(|peer| peer.rsplit_once('=').unwrap())
            .map(|(peer, count)| (peer, count.parse().unwrap()))
            .collect();
        assert!(peers.len() <= 5);
        let ours: f64 = ways[..2].iter().map(|way| peers[way.as_str()]).sum();
        // Two CPUs that count for one peer at once may lose a count.
        assert!(ours <= sent[0] && ours >= sent[0] * 0.95, "{ours} of {sent:?}");
    });
}

#[test]
fn a_storm_is_counted_whole_and_grows_no_memory() {
    in_namespace("a_storm_is_counted_whole_and_grows_no_memory", || {
        sysctl("tcp_syn_retries", "2");
        sysctl("tcp_syn_linear_timeouts", "4");
        let (listeners, ways) = listeners();
        let mut both = Both::start();
        let connect = |at: usize| {
            let client = TcpStream::connect(&ways[at % 3]).unwrap();
            reset(&client);
            listeners[at % 3 % 2].accept().unwrap();
        };
        (0..3).for_each(connect);
        let mut sockets = Vec::with_capacity(5_000);
        let before = both.counts();
        let resident = resident_kib();
        for at in 0..21_000 {
            connect(at);
            if at % 1_000 == 0 {
                both.counts();
            }
        }
        // More than the map of attempts holds. Each is tried again 5 times, once a second, and not all at
        // once, for which the device has no room.
        for _ in 0..25 {
            sockets.extend(HOLES.iter().cycle().take(200).map(|to| begin(to)));
            sleep(Duration::from_millis(20));
        }
        assert_eq!(errors(&sockets), vec![Errno::TIMEDOUT; 5_000]);
        let after = both.counts();
        let grown = resident_kib() - resident;

        let since = Since { before: &before, after: &after };
        let of = |sample: &str| {
            let families = ["ipv4", "ipv6"].map(|family| sample.replace("FAMILY", family));
            families.iter().map(|sample| since.probe(sample)).sum::<f64>()
        };
        let again = of("mote_tcp_retransmits_total FAMILY");
        let timeouts = of("mote_tcp_connects_total FAMILY timeout");
        let connected = of("mote_tcp_connects_total FAMILY ok");
        let timed = of("mote_tcp_connect_duration_seconds_count FAMILY");
        let lost = since.probe("mote_probe_lost_total tcp starts_full");
        let unmatched = since.probe("mote_probe_unmatched_total tcp");
        let nested = since.probe("mote_probe_lost_total tcp nested");
        let segments = since.sent_again();
        println!(
            "{again} retransmits, {segments} of them here; {timeouts} timeouts, {connected} connects, {timed} timed; {lost} found no room, {unmatched} ended so, {nested} nested; {grown} KiB"
        );
        // Perf leaves whole batches out where its buffer of this context is in use, and counts them nowhere
        // (perf_trace_buf_alloc): up to 5 in 100 on a busy machine, and none on a quiet one.
        assert!(segments >= 20_000.0 && again + nested >= segments * 0.9);
        assert!(timeouts + nested >= 5_000.0 * 0.9 && connected + nested >= 21_000.0 * 0.9);
        assert!(timed + unmatched + nested >= connected * 0.9);
        // What finds no room in the map is counted, and its end nevertheless.
        assert!(lost + nested >= (5_000.0 - 1_024.0) * 0.9 && unmatched <= lost + nested);
        assert!(grown < 512, "{grown} KiB");
        let events = both.events();
        let [event] = events.as_slice() else { panic!("{events:?}") };
        assert!(HOLES.iter().all(|hole| event.line().contains(hole)), "{}", event.line());
    });
}

fn resident_kib() -> i64 {
    let status = fs::read_to_string("/proc/self/status").unwrap();
    let line = status.lines().find_map(|line| line.strip_prefix("VmRSS:")).unwrap();
    line.trim().trim_end_matches(" kB").parse().unwrap()
}
