//! TCP on loopback: connections that succeed, are refused, are reset, and lose what they send.

use std::io::{Read as _, Write as _};
use std::net::{Ipv4Addr, Ipv6Addr, SocketAddr, TcpListener, TcpStream};
use std::os::fd::AsRawFd as _;
use std::time::Duration;

use crate::Result;
use crate::checks::{Outcome, Snapshot, World, event};

const TIMES: u32 = 5;

fn fail(what: &str) -> impl Fn(std::io::Error) -> String {
    move |error| format!("{what}: {error}")
}

fn listen(address: SocketAddr) -> Result<(TcpListener, SocketAddr)> {
    let listener = TcpListener::bind(address).map_err(fail("listening"))?;
    let address = listener.local_addr().map_err(fail("listening"))?;
    Ok((listener, address))
}

fn families() -> [(&'static str, SocketAddr); 2] {
    [
        ("ipv4", SocketAddr::from((Ipv4Addr::LOCALHOST, 0))),
        ("ipv6", SocketAddr::from((Ipv6Addr::LOCALHOST, 0))),
    ]
}

fn difference(before: &Snapshot, after: &Snapshot, name: &str, labels: &[(&str, &str)]) -> f64 {
    after.page.sum(name, labels) - before.page.sum(name, labels)
}

/// What a counter of /proc/net/snmp, which has both families, rose by.
fn kernels(before: &Snapshot, after: &Snapshot, name: &str) -> Result<f64> {
    match (before.kernel.tcp(name), after.kernel.tcp(name)) {
        (Some(was), Some(is)) => Ok(is.saturating_sub(was) as f64),
        _ => Err(format!("/proc/net/snmp has no {name}")),
    }
}

/// Connections that succeed, each with its latency; all attempts together are what the kernel calls
/// ActiveOpens.
pub(crate) fn connects(world: &mut World<'_>) -> Result<Outcome> {
    for (_, address) in families() {
        let (listener, address) = listen(address)?;
        for _ in 0..TIMES {
            let stream = TcpStream::connect(address).map_err(fail("connecting"))?;
            let (peer, _) = listener.accept().map_err(fail("accepting"))?;
            // The client closes first, in order, as anyone does.
            drop(stream);
            drop(peer);
        }
    }
    let (before, after) = world.step()?;
    let connects = "mote_tcp_connects_total";
    for (family, _) in families() {
        let labels = [("family", family), ("result", "ok")];
        let good = difference(&before, &after, connects, &labels);
        let count = "mote_tcp_connect_duration_seconds_count";
        let timed = difference(&before, &after, count, &[("family", family)]);
        // Reading a page is a connection of its own, which the round that it shows may just have or not.
        let pages = if family == "ipv4" { after.pages - before.pages } else { 0 };
        let expected = f64::from(TIMES + pages);
        if (good - expected).abs() > 1.0 || timed != good {
            return Err(format!(
                "{expected} connections by {family}, {good} counted and {timed} timed; {}",
                after.page.show(connects)
            ));
        }
    }
    let attempts = difference(&before, &after, connects, &[]);
    let opens = kernels(&before, &after, "ActiveOpens")?;
    if (attempts - opens).abs() > 1.0 {
        return Err(format!("{attempts} attempts, the kernel has ActiveOpens {opens}"));
    }
    Ok(Outcome::Good(format!("{attempts} connections, ActiveOpens {opens}")))
}

/// Connections to a port where nobody listens.
pub(crate) fn refused(world: &mut World<'_>) -> Result<Outcome> {
    for (family, address) in families() {
        let (listener, address) = listen(address)?;
        drop(listener);
        for _ in 0..TIMES {
            if TcpStream::connect(address).is_ok() {
                return Err(format!("a connection by {family} to nobody succeeded"));
            }
        }
    }
    let (before, after) = world.step()?;
    let name = "mote_tcp_connects_total";
    for (family, _) in families() {
        let labels = [("family", family), ("result", "refused")];
        let counted = difference(&before, &after, name, &labels);
        if counted != f64::from(TIMES) {
            return Err(format!("{TIMES} refused by {family}; {}", after.page.show(name)));
        }
    }
    Ok(Outcome::Good(format!("{TIMES} refused by each family")))
}

/// Connections that one side resets, because it closes with something unread. Both sides are on this
/// machine: as many are sent as received.
pub(crate) fn resets(world: &mut World<'_>) -> Result<Outcome> {
    for (_, address) in families() {
        let (listener, address) = listen(address)?;
        for _ in 0..TIMES {
            let mut stream = TcpStream::connect(address).map_err(fail("connecting"))?;
            let (peer, _) = listener.accept().map_err(fail("accepting"))?;
            stream.write_all(b"unread").map_err(fail("writing"))?;
            // What is to stay unread must have arrived.
            let mut byte = [0];
            peer.peek(&mut byte).map_err(fail("peeking"))?;
            drop(peer);
            if stream.read(&mut byte).is_ok() {
                return Err("a connection was not reset".to_owned());
            }
        }
    }
    let (before, after) = world.step()?;
    let name = "mote_tcp_resets_total";
    for (family, _) in families() {
        for direction in ["sent", "received"] {
            let labels = [("family", family), ("direction", direction)];
            let counted = difference(&before, &after, name, &labels);
            if counted != f64::from(TIMES) {
                return Err(format!(
                    "{TIMES} resets by {family}, {counted} counted as {direction}; {}",
                    after.page.show(name)
                ));
            }
        }
    }
    let sent = kernels(&before, &after, "OutRsts")?;
    if sent != f64::from(2 * TIMES) {
        return Err(format!("{} resets were caused, the kernel has OutRsts {sent}", 2 * TIMES));
    }
    Ok(Outcome::Good(format!("{sent} sent and received, OutRsts {sent}")))
}

/// Connections whose receiver drops everything before TCP sees it: their sender sends again.
pub(crate) fn retransmits(world: &mut World<'_>) -> Result<Outcome> {
    // So many that they are a burst.
    const CONNECTIONS: usize = 20;
    let mut open = Vec::new();
    for (_, address) in families() {
        let (listener, address) = listen(address)?;
        for _ in 0..CONNECTIONS {
            let mut stream = TcpStream::connect(address).map_err(fail("connecting"))?;
            let (peer, _) = listener.accept().map_err(fail("accepting"))?;
            drop_all(&peer).map_err(fail("the filter"))?;
            stream.write_all(b"lost").map_err(fail("writing"))?;
            open.push((stream, peer));
        }
    }
    // After 0.2, 0.6 and 1.4 s, as tcp(7) doubles the time.
    std::thread::sleep(Duration::from_millis(1800));
    // Closed with resets (nothing lingers), so that nothing is sent again after this.
    for (stream, peer) in open {
        for socket in [stream, peer] {
            rustix::net::sockopt::set_socket_linger(&socket, Some(Duration::ZERO))
                .map_err(|error| fail("lingering")(error.into()))?;
        }
    }
    let (before, after) = world.step()?;
    let name = "mote_tcp_retransmits_total";
    let expected = kernels(&before, &after, "RetransSegs")?;
    let counted = difference(&before, &after, name, &[]);
    if expected < 2.0 * CONNECTIONS as f64 {
        return Err(format!("only {expected} retransmits could be caused"));
    }
    if counted != expected {
        return Err(format!("{counted}, RetransSegs {expected}; in all {}", after.page.show(name)));
    }
    for (family, _) in families() {
        if after.page.has(name, &[("family", "ipv6")])
            && difference(&before, &after, name, &[("family", family)]) == 0.0
        {
            return Err(format!("none by {family}; {}", after.page.show(name)));
        }
    }
    if world.mode("tcp") != Some("tracepoint") {
        return Ok(Outcome::Good(format!("{counted}, RetransSegs {expected}")));
    }
    let event = event("tcp_retransmits", |event| {
        event.contains(&Ipv4Addr::LOCALHOST.to_string()) || event.contains("::1")
    })?;
    Ok(Outcome::Good(format!("{counted}, RetransSegs {expected}; {event}")))
}

/// Attaches a classic filter that takes no byte of any packet (`ret #0`, socket(7)).
fn drop_all(socket: &TcpStream) -> std::io::Result<()> {
    const BPF_RET_K: u16 = 6;
    let mut filter = libc::sock_filter { code: BPF_RET_K, jt: 0, jf: 0, k: 0 };
    let program = libc::sock_fprog { len: 1, filter: &raw mut filter };
    let length = libc::socklen_t::try_from(size_of::<libc::sock_fprog>()).unwrap_or_default();
    #[expect(unsafe_code, reason = "no wrapper of SO_ATTACH_FILTER exists")]
    // SAFETY: the program and its one instruction live until the call returns, and the length is that
    // of the program; the kernel copies both.
    let result = unsafe {
        libc::setsockopt(
            socket.as_raw_fd(),
            libc::SOL_SOCKET,
            libc::SO_ATTACH_FILTER,
            (&raw const program).cast(),
            length,
        )
    };
    if result == 0 { Ok(()) } else { Err(std::io::Error::last_os_error()) }
}
