//! TCP: segments that are sent again, resets, and how attempts to connect end
//! (include/trace/events/tcp.h and sock.h).
//!
//! - `tcp_retransmit_skb` (__tcp_retransmit_skb in net/ipv4/tcp_output.c) comes once for what is sent again
//!   at a time, one segment as a rule. Up to 6.15 it comes only for what has gone out; later ones have
//!   `err`, and what did not go out is not counted, so that the count means the same everywhere.
//!   RetransSegs of /proc/net/snmp has what did not go out too, and TCPRetransFail of
//!   /proc/net/netstat only that.
//! - `inet_sock_set_state` (tcp_set_state) is how an attempt begins (SYN_SENT) and ends (ESTABLISHED, also
//!   by way of SYN_RECV, or CLOSE). What fails before the kernel enters SYN_SENT, for want of a route, is
//!   none.
//! - A reset in SYN_SENT is a refusal; `tcp_receive_reset` (tcp_reset) comes before the state changes.
//! - Any other error is in `inet_sk_error_report` (5.15 and later), which has no address of the socket
//!   but the ports. Before 6.10 it comes before the state changes, later after it
//!   (tcp_done_with_error), on the same CPU with softirqs off: nothing else comes between. A socket that
//!   a program closes reports no error, or one without the remote port (tcp_disconnect). An error of 0
//!   that comes after the state change is one that the program has taken (SO_ERROR) before it was
//!   reported; before it, it means that there is something in the socket's error queue (ip_icmp_error).
//! - An attempt that ends before it has a local port has found none.
//!
//! Programs of perf's tracepoints don't nest on a CPU (trace_call_bpf): what interrupts another such
//! program is missed, and the kernel counts it in the program's `recursion_misses`.

use agent_common::ABSENT;
use agent_common::histogram::Histogram;
use agent_common::tcp::{
    FAMILIES, Family, Outcome, PEER_NS, TcpCpu, TcpEnd, TcpPeer, TcpRetransmits, TcpStart,
    connects_index, ports,
};
use aya_ebpf::Global;
use aya_ebpf::bindings::BPF_ANY;
use aya_ebpf::helpers::bpf_ktime_get_ns;
use aya_ebpf::macros::{map, tracepoint};
use aya_ebpf::maps::{HashMap, LruHashMap, PerCpuArray};
use aya_ebpf::programs::TracePointContext;

use crate::fields::{field, word};
use crate::say::say;

#[unsafe(no_mangle)]
static TCP_RETRANSMIT_DPORT: Global<u32> = Global::new(ABSENT);
#[unsafe(no_mangle)]
static TCP_RETRANSMIT_DADDR: Global<u32> = Global::new(ABSENT);
/// Since 6.16.
#[unsafe(no_mangle)]
static TCP_RETRANSMIT_ERR: Global<u32> = Global::new(ABSENT);
#[unsafe(no_mangle)]
static TCP_SYNACK_DPORT: Global<u32> = Global::new(ABSENT);
#[unsafe(no_mangle)]
static TCP_SYNACK_DADDR: Global<u32> = Global::new(ABSENT);
#[unsafe(no_mangle)]
static TCP_RECEIVED_SKADDR: Global<u32> = Global::new(ABSENT);
#[unsafe(no_mangle)]
static TCP_RECEIVED_DADDR: Global<u32> = Global::new(ABSENT);
#[unsafe(no_mangle)]
static TCP_SENT_DADDR: Global<u32> = Global::new(ABSENT);
/// A `struct sockaddr_in` or `sockaddr_in6`, which kernels have instead since 6.10.
#[unsafe(no_mangle)]
static TCP_SENT_SOCKADDR: Global<u32> = Global::new(ABSENT);
#[unsafe(no_mangle)]
static TCP_STATE_SKADDR: Global<u32> = Global::new(ABSENT);
#[unsafe(no_mangle)]
static TCP_STATE_OLD: Global<u32> = Global::new(ABSENT);
#[unsafe(no_mangle)]
static TCP_STATE_NEW: Global<u32> = Global::new(ABSENT);
#[unsafe(no_mangle)]
static TCP_STATE_SPORT: Global<u32> = Global::new(ABSENT);
#[unsafe(no_mangle)]
static TCP_STATE_DPORT: Global<u32> = Global::new(ABSENT);
#[unsafe(no_mangle)]
static TCP_STATE_PROTOCOL: Global<u32> = Global::new(ABSENT);
#[unsafe(no_mangle)]
static TCP_STATE_DADDR: Global<u32> = Global::new(ABSENT);
/// [`ABSENT`] where there is no `inet_sk_error_report`.
#[unsafe(no_mangle)]
static TCP_ERROR_ERROR: Global<u32> = Global::new(ABSENT);
#[unsafe(no_mangle)]
static TCP_ERROR_SPORT: Global<u32> = Global::new(ABSENT);
#[unsafe(no_mangle)]
static TCP_ERROR_DPORT: Global<u32> = Global::new(ABSENT);
#[unsafe(no_mangle)]
static TCP_ERROR_PROTOCOL: Global<u32> = Global::new(ABSENT);

const IPPROTO_TCP: u16 = 6;
const AF_INET6: u16 = 10;
/// Of `struct sockaddr_in6`, where the address begins.
const SIN6_ADDR: u32 = 8;

/// States of include/net/tcp_states.h.
const ESTABLISHED: u32 = 1;
const SYN_SENT: u32 = 2;
const SYN_RECV: u32 = 3;

/// Attempts to connect, by the address of the socket. The agent counts them and takes out what is there
/// so long that its end must have been missed.
#[map]
static TCP_STARTS: HashMap<u64, TcpStart> = HashMap::with_max_entries(1024, 0);

/// How long it took to connect, by [`Family`].
#[map]
static TCP_CONNECT: PerCpuArray<Histogram> = PerCpuArray::with_max_entries(FAMILIES as u32, 0);

#[map]
static TCP_CPU: PerCpuArray<TcpCpu> = PerCpuArray::with_max_entries(1, 0);

/// Where most retransmits go. A peer that finds no room is in the other counts.
#[map]
static TCP_PEERS: LruHashMap<TcpPeer, TcpRetransmits> = LruHashMap::with_max_entries(256, 0);

#[tracepoint]
fn tcp_retransmit_skb(ctx: TracePointContext) -> u32 {
    if field::<u32>(&ctx, &TCP_RETRANSMIT_ERR).is_some_and(|error| error != 0) {
        return 0;
    }
    retransmitted(&ctx, &TCP_RETRANSMIT_DADDR, &TCP_RETRANSMIT_DPORT);
    0
}

#[tracepoint]
fn tcp_retransmit_synack(ctx: TracePointContext) -> u32 {
    retransmitted(&ctx, &TCP_SYNACK_DADDR, &TCP_SYNACK_DPORT);
    0
}

#[tracepoint]
fn tcp_receive_reset(ctx: TracePointContext) -> u32 {
    reset_received(&ctx);
    0
}

#[tracepoint]
fn tcp_send_reset(ctx: TracePointContext) -> u32 {
    reset_sent(&ctx);
    0
}

#[tracepoint]
fn inet_sock_set_state(ctx: TracePointContext) -> u32 {
    state_changed(&ctx);
    0
}

#[tracepoint]
fn inet_sk_error_report(ctx: TracePointContext) -> u32 {
    error_reported(&ctx);
    0
}

// What follows ends early where a field can't be read, one field at a time: where two are looked at
// together, the compiler copies the second before it has looked at the first, and kernels before 6.3 refuse
// a program that reads bytes of its stack that were never written.

/// Counts what is sent again.
#[inline(always)]
fn retransmitted(ctx: &TracePointContext, daddr: &Global<u32>, dport: &Global<u32>) -> Option<()> {
    let address = field(ctx, daddr)?;
    let port: u16 = field(ctx, dport)?;
    count(|cpu| add(&mut cpu.retransmits, Family::of(&address) as usize));
    let peer = TcpPeer { address, port: u32::from(port), padding: 0 };
    // SAFETY: the helper has no preconditions.
    let now_ns = unsafe { bpf_ktime_get_ns() };
    if let Some(known) = TCP_PEERS.get_ptr_mut(peer) {
        // SAFETY: plain numbers, which another CPU or the agent may change: a count is lost then.
        unsafe {
            if now_ns.wrapping_sub((*known).since_ns) < PEER_NS {
                (*known).count += 1;
                return None;
            }
        }
    }
    // Without room it is one peer less to choose from.
    let first = TcpRetransmits { since_ns: now_ns, count: 1 };
    let _ = TCP_PEERS.insert(peer, first, BPF_ANY as u64);
    None
}

#[inline(always)]
fn reset_sent(ctx: &TracePointContext) -> Option<()> {
    let family = if TCP_SENT_SOCKADDR.load() == ABSENT {
        let address = field(ctx, &TCP_SENT_DADDR)?;
        Family::of(&address)
    } else {
        let family: u16 = field(ctx, &TCP_SENT_SOCKADDR)?;
        let address = field_behind(ctx, &TCP_SENT_SOCKADDR)?;
        if family == AF_INET6 { Family::of(&address) } else { Family::V4 }
    };
    count(|cpu| add(&mut cpu.resets_sent, family as usize));
    None
}

/// Counts a reset and notes it of an attempt to connect.
#[inline(always)]
fn reset_received(ctx: &TracePointContext) -> Option<()> {
    let socket = word(ctx, &TCP_RECEIVED_SKADDR)?;
    let address = field(ctx, &TCP_RECEIVED_DADDR)?;
    count(|cpu| add(&mut cpu.resets_received, Family::of(&address) as usize));
    let start = TCP_STARTS.get_ptr_mut(socket)?;
    // SAFETY: the socket is locked, so that no other program has this entry.
    unsafe { (*start).reset = 1 };
    None
}

#[inline(always)]
fn state_changed(ctx: &TracePointContext) -> Option<()> {
    let old: u32 = field(ctx, &TCP_STATE_OLD)?;
    let new: u32 = field(ctx, &TCP_STATE_NEW)?;
    if new != SYN_SENT && old != SYN_SENT && old != SYN_RECV {
        return None;
    }
    let protocol: u16 = field(ctx, &TCP_STATE_PROTOCOL)?;
    if protocol != IPPROTO_TCP {
        return None;
    }
    let socket = word(ctx, &TCP_STATE_SKADDR)?;
    // SAFETY: the helper has no preconditions.
    let now_ns = unsafe { bpf_ktime_get_ns() };
    if new == SYN_SENT {
        let start = TcpStart { at_ns: now_ns, reset: 0 };
        if TCP_STARTS.insert(socket, start, BPF_ANY as u64).is_err() {
            count(|cpu| cpu.starts_lost += 1);
        }
    } else if new != SYN_RECV {
        ended(ctx, socket, now_ns, old == SYN_SENT, new == ESTABLISHED)?;
    }
    None
}

#[inline(always)]
fn error_reported(ctx: &TracePointContext) -> Option<()> {
    let protocol: u16 = field(ctx, &TCP_ERROR_PROTOCOL)?;
    if protocol != IPPROTO_TCP {
        return None;
    }
    let error: u32 = field(ctx, &TCP_ERROR_ERROR)?;
    let local = field(ctx, &TCP_ERROR_SPORT)?;
    let remote = field(ctx, &TCP_ERROR_DPORT)?;
    let cpu = TCP_CPU.get_ptr_mut(0)?;
    // SAFETY: as in `ended`. Not by `count`: the compiler would make a closure of this size a subprogram.
    let cpu = unsafe { &mut *cpu };
    let ports = ports(local, remote);
    // SAFETY: the helper has no preconditions.
    let now_ns = unsafe { bpf_ktime_get_ns() };
    if cpu.over.fits(now_ns, ports) {
        cpu.over.at_ns = 0;
        let family = if cpu.over.detail == 0 { Family::V4 } else { Family::V6 };
        say!(ctx, "tcp: connect from port {} to port {}: error {}", local, remote, error);
        add(&mut cpu.connects, connects_index(family, Outcome::of_error(error)));
    } else if error != 0 {
        cpu.error = TcpEnd { at_ns: now_ns, ports, detail: error };
    }
    None
}

/// Counts an attempt to connect that is over. A socket in SYN_RECV may also be one that was accepted,
/// which is no attempt.
#[inline(always)]
fn ended(
    ctx: &TracePointContext,
    socket: u64,
    now_ns: u64,
    known: bool,
    connected: bool,
) -> Option<()> {
    let start = match TCP_STARTS.get_ptr(socket) {
        Some(start) => {
            // SAFETY: the socket is locked; the agent takes out only what is old.
            let start = unsafe { *start };
            // Nothing to be done about a failure: the agent has taken it out meanwhile.
            let _ = TCP_STARTS.remove(socket);
            Some(start)
        }
        None if known => None,
        None => return None,
    };
    let address = field(ctx, &TCP_STATE_DADDR)?;
    let local = field(ctx, &TCP_STATE_SPORT)?;
    let remote = field(ctx, &TCP_STATE_DPORT)?;
    let family = Family::of(&address);
    let cpu = TCP_CPU.get_ptr_mut(0)?;
    // SAFETY: the value is this CPU's own, and programs of this kind don't nest on a CPU.
    let cpu = unsafe { &mut *cpu };
    if start.is_none() {
        cpu.unmatched += 1;
    }
    let ports = ports(local, remote);
    let outcome = if connected {
        Outcome::Ok
    } else if start.is_some_and(|start| start.reset != 0) {
        Outcome::Refused
    } else if local == 0 || TCP_ERROR_ERROR.load() == ABSENT {
        Outcome::Failed
    } else if cpu.error.fits(now_ns, ports) {
        cpu.error.at_ns = 0;
        Outcome::of_error(cpu.error.detail)
    } else {
        // Its error may come next. The one before it has got none.
        let before = cpu.over;
        cpu.over = TcpEnd { at_ns: now_ns, ports, detail: family as u32 };
        if before.at_ns == 0 {
            return None;
        }
        say!(
            ctx,
            "tcp: connect from port {} to port {}: aborted",
            before.ports as u16,
            (before.ports >> 16) as u16
        );
        let family = if before.detail == 0 { Family::V4 } else { Family::V6 };
        add(&mut cpu.connects, connects_index(family, Outcome::Aborted));
        return None;
    };
    say!(ctx, "tcp: connect from port {} to port {}: outcome {}", local, remote, outcome as u32);
    add(&mut cpu.connects, connects_index(family, outcome));
    if let (true, Some(start)) = (connected, start)
        && let Some(histogram) = TCP_CONNECT.get_ptr_mut(family as u32)
    {
        // SAFETY: as above.
        unsafe { (*histogram).observe(now_ns.wrapping_sub(start.at_ns)) };
    }
    None
}

/// The address in a `struct sockaddr_in6`.
#[inline(always)]
fn field_behind(ctx: &TracePointContext, sockaddr: &Global<u32>) -> Option<[u32; 4]> {
    // SAFETY: the helper checks the address; the agent has found 28 bytes there.
    unsafe { ctx.read_at(agent_common::field_offset(sockaddr.load() + SIN6_ADDR)) }.ok()
}

/// Counts at a place. The compiler knows that it is within bounds and would leave the check out, and how
/// much of that a kernel's verifier can follow differs: read like this, neither knows, and the check stays.
#[inline(always)]
fn add<const N: usize>(counts: &mut [u64; N], at: usize) {
    // SAFETY: a reference is valid.
    let at = unsafe { core::ptr::read_volatile(&at) };
    if let Some(count) = counts.get_mut(at) {
        *count += 1;
    }
}

#[inline(always)]
fn count(add: impl FnOnce(&mut TcpCpu)) {
    if let Some(cpu) = TCP_CPU.get_ptr_mut(0) {
        // SAFETY: as in `ended`.
        add(unsafe { &mut *cpu });
    }
}
