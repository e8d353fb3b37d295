//! node_exporter's `nfsd`, from /proc/net/rpc/nfsd (fs/nfsd/stats.c): what NFS clients ask of this host. A
//! version of the protocol that the kernel was built without counts as zeros, as in node_exporter.
//!
//! `Verify`, `Write` and `RelLockOwner` of version 4 are the operations of those names (RFC 7530, 16.35 and
//! behind), as in later versions of node_exporter: 1.5.0 gives them the counts of three others.
//! `WdelegGetattr`, of Linux 6.9, is later node_exporters'; 1.5.0 fails on its line.

use super::nfs::{V2, V3};
use super::parse::FirstError;
use super::sunrpc::{Line, read};
use super::{CollectError, Collector};
use crate::host::Host;
use crate::model::{Desc, Samples};

const FILE: &str = "proc/net/rpc/nfsd";

const PACKETS: Desc = Desc::counter(
    "node_nfsd_packets_total",
    "Total NFSd network packets (sent+received) by protocol type.",
);
const ERRORS: Desc =
    Desc::counter("node_nfsd_rpc_errors_total", "Total number of NFSd RPC errors by error type.");
const REQUESTS: Desc =
    Desc::counter("node_nfsd_requests_total", "Total number NFSd Requests by method and protocol.");

/// Families without labels, and where their values stand.
#[rustfmt::skip]
const SINGLE: [(usize, Desc); 11] = [
    (RC, Desc::counter("node_nfsd_reply_cache_hits_total", "Total number of NFSd Reply Cache hits (client lost server response).")),
    (RC + 1, Desc::counter("node_nfsd_reply_cache_misses_total", "Total number of NFSd Reply Cache an operation that requires caching (idempotent).")),
    (RC + 2, Desc::counter("node_nfsd_reply_cache_nocache_total", "Total number of NFSd Reply Cache non-idempotent operations (rename/delete/…).")),
    (FH, Desc::counter("node_nfsd_file_handles_stale_total", "Total number of NFSd stale file handles")),
    (IO, Desc::counter("node_nfsd_disk_bytes_read_total", "Total NFSd bytes read.")),
    (IO + 1, Desc::counter("node_nfsd_disk_bytes_written_total", "Total NFSd bytes written.")),
    (TH, Desc::gauge("node_nfsd_server_threads", "Total number of NFSd kernel threads that are running.")),
    (RA, Desc::gauge("node_nfsd_read_ahead_cache_size_blocks", "How large the read ahead cache is in blocks.")),
    (RA + 11, Desc::counter("node_nfsd_read_ahead_cache_not_found_total", "Total number of NFSd read ahead cache not found.")),
    (NET + 3, Desc::counter("node_nfsd_connections_total", "Total number of NFSd TCP connections.")),
    (RPC, Desc::counter("node_nfsd_server_rpcs_total", "Total number of NFSd RPCs.")),
];

/// The operations of version 4 that are wanted, by number (include/linux/nfs4.h, `enum nfs_opnum4`).
#[rustfmt::skip]
const V4: [(usize, &str); 33] = [
    (3, "Access"), (4, "Close"), (5, "Commit"), (6, "Create"), (7, "DelegPurge"), (8, "DelegReturn"),
    (9, "GetAttr"), (10, "GetFH"), (11, "Link"), (12, "Lock"), (13, "Lockt"), (14, "Locku"),
    (15, "Lookup"), (16, "LookupRoot"), (17, "Nverify"), (18, "Open"), (19, "OpenAttr"),
    (20, "OpenConfirm"), (21, "OpenDgrd"), (22, "PutFH"), (25, "Read"), (26, "ReadDir"),
    (27, "ReadLink"), (28, "Remove"), (29, "Rename"), (30, "Renew"), (31, "RestoreFH"), (32, "SaveFH"),
    (33, "SecInfo"), (34, "SetAttr"), (37, "Verify"), (38, "Write"), (39, "RelLockOwner"),
];

const LINES: [Line; 11] = [
    Line { key: "rc", counted: false, least: 3, wanted: 3 },
    Line { key: "fh", counted: false, least: 1, wanted: 1 },
    Line { key: "io", counted: false, least: 2, wanted: 2 },
    // What follows the threads are times of kernels before 5.8.
    Line { key: "th", counted: false, least: 1, wanted: 1 },
    Line { key: "ra", counted: false, least: 12, wanted: 12 },
    Line { key: "net", counted: false, least: 4, wanted: 4 },
    Line { key: "rpc", counted: false, least: 5, wanted: 5 },
    Line { key: "proc2", counted: true, least: V2.len(), wanted: V2.len() },
    Line { key: "proc3", counted: true, least: V3.len(), wanted: V3.len() },
    Line { key: "proc4ops", counted: true, least: 40, wanted: 40 },
    Line { key: "wdeleg_getattr", counted: false, least: 1, wanted: 1 },
];
const RC: usize = 0;
const FH: usize = RC + 3;
const IO: usize = FH + 1;
const TH: usize = IO + 2;
const RA: usize = TH + 1;
const NET: usize = RA + 12;
const RPC: usize = NET + 4;
const PROC2: usize = RPC + 5;
const PROC3: usize = PROC2 + V2.len();
const PROC4: usize = PROC3 + V3.len();
const WDELEG: usize = PROC4 + 40;
const VALUES: usize = WDELEG + 1;

/// Calls that the NFS server has answered.
pub(super) struct Nfsd;

impl Collector for Nfsd {
    fn collect(&mut self, host: &mut Host, out: &mut Samples) -> Result<(), CollectError> {
        let mut errors = FirstError::default();
        let mut values = [None; VALUES];
        let bytes = host.proc("net/rpc/nfsd")?;
        read(FILE, bytes, &LINES, &mut values, &mut errors);
        let value = |place: usize| values.get(place).copied().flatten().map(|value| value as f64);
        for (place, desc) in &SINGLE {
            if let Some(value) = value(*place) {
                out.value(desc, value);
            }
        }
        let mut family = out.family(&PACKETS);
        for (proto, place) in [("udp", NET + 1), ("tcp", NET + 2)] {
            if let Some(value) = value(place) {
                family.add(&[("proto", proto)], value);
            }
        }
        let mut family = out.family(&ERRORS);
        for (error, place) in [("fmt", RPC + 2), ("auth", RPC + 3), ("cInt", RPC + 4)] {
            if let Some(value) = value(place) {
                family.add(&[("error", error)], value);
            }
        }
        let numbered = |(number, name): (usize, &&'static str)| (number, *name);
        // node_exporter leaves the procedure that does nothing out.
        let v2 = V2.iter().enumerate().skip(1).map(numbered).map(|row| ("2", PROC2, row));
        let v3 = V3.iter().enumerate().skip(1).map(numbered).map(|row| ("3", PROC3, row));
        let v4 = V4.iter().map(|row| ("4", PROC4, *row));
        // Not told from a kernel without the line while it is 0.
        let newer = (value(WDELEG) != Some(0.0)).then_some(("4", WDELEG, (0, "WdelegGetattr")));
        let mut family = out.family(&REQUESTS);
        for (proto, start, (number, method)) in v2.chain(v3).chain(v4).chain(newer) {
            if let Some(value) = value(start + number) {
                family.add(&[("proto", proto), ("method", method)], value);
            }
        }
        errors.result()
    }
}
