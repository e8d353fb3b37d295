//! node_exporter's `nfs`, from /proc/net/rpc/nfs (fs/nfs/client.c): what this host asks of NFS servers. A
//! version of the protocol that the kernel was built without counts as zeros, as in node_exporter.

use super::parse::FirstError;
use super::sunrpc::{Line, read};
use super::{CollectError, Collector};
use crate::host::Host;
use crate::model::{Desc, Samples};

const FILE: &str = "proc/net/rpc/nfs";

const PACKETS: Desc = Desc::counter(
    "node_nfs_packets_total",
    "Total NFSd network packets (sent+received) by protocol type.",
);
const CONNECTIONS: Desc =
    Desc::counter("node_nfs_connections_total", "Total number of NFSd TCP connections.");
const RPCS: Desc = Desc::counter("node_nfs_rpcs_total", "Total number of RPCs performed.");
const RETRANSMISSIONS: Desc =
    Desc::counter("node_nfs_rpc_retransmissions_total", "Number of RPC transmissions performed.");
const REFRESHES: Desc = Desc::counter(
    "node_nfs_rpc_authentication_refreshes_total",
    "Number of RPC authentication refreshes performed.",
);
const REQUESTS: Desc =
    Desc::counter("node_nfs_requests_total", "Number of NFS procedures invoked.");

/// The procedures of version 2, in the order of their numbers (fs/nfs/nfs2xdr.c).
#[rustfmt::skip]
pub(super) const V2: [&str; 18] = [
    "Null", "GetAttr", "SetAttr", "Root", "Lookup", "ReadLink", "Read", "WrCache", "Write", "Create",
    "Remove", "Rename", "Link", "SymLink", "MkDir", "RmDir", "ReadDir", "FsStat",
];

/// Those of version 3 (fs/nfs/nfs3xdr.c).
#[rustfmt::skip]
pub(super) const V3: [&str; 22] = [
    "Null", "GetAttr", "SetAttr", "Lookup", "Access", "ReadLink", "Read", "Write", "Create", "MkDir",
    "SymLink", "MkNod", "Remove", "RmDir", "Rename", "Link", "ReadDir", "ReadDirPlus", "FsStat", "FsInfo",
    "PathConf", "Commit",
];

/// The client's own numbers of version 4 (include/linux/nfs4.h, `NFSPROC4_CLNT_NULL` and behind); newer
/// kernels have more.
#[rustfmt::skip]
const V4: [&str; 59] = [
    "Null", "Read", "Write", "Commit", "Open", "OpenConfirm", "OpenNoattr", "OpenDowngrade", "Close",
    "Setattr", "FsInfo", "Renew", "SetClientID", "SetClientIDConfirm", "Lock", "Lockt", "Locku", "Access",
    "Getattr", "Lookup", "LookupRoot", "Remove", "Rename", "Link", "Symlink", "Create", "Pathconf", "StatFs",
    "ReadLink", "ReadDir", "ServerCaps", "DelegReturn", "GetACL", "SetACL", "FsLocations",
    "ReleaseLockowner", "Secinfo", "FsidPresent", "ExchangeID", "CreateSession", "DestroySession",
    "Sequence", "GetLeaseTime", "ReclaimComplete", "LayoutGet", "GetDeviceInfo", "LayoutCommit",
    "LayoutReturn", "SecinfoNoName", "TestStateID", "FreeStateID", "GetDeviceList", "BindConnToSession",
    "DestroyClientID", "Seek", "Allocate", "DeAllocate", "LayoutStats", "Clone",
];

const LINES: [Line; 5] = [
    Line { key: "net", counted: false, least: 4, wanted: 4 },
    Line { key: "rpc", counted: false, least: 3, wanted: 3 },
    Line { key: "proc2", counted: true, least: V2.len(), wanted: V2.len() },
    Line { key: "proc3", counted: true, least: V3.len(), wanted: V3.len() },
    Line { key: "proc4", counted: true, least: 1, wanted: V4.len() },
];
const NET: usize = 0;
const RPC: usize = NET + 4;
const PROC2: usize = RPC + 3;
const VALUES: usize = PROC2 + V2.len() + V3.len() + V4.len();

/// Calls of the NFS client.
pub(super) struct Nfs;

impl Collector for Nfs {
    fn collect(&mut self, host: &mut Host, out: &mut Samples) -> Result<(), CollectError> {
        let mut errors = FirstError::default();
        let mut values = [None; VALUES];
        read(FILE, host.proc("net/rpc/nfs")?, &LINES, &mut values, &mut errors);
        let value = |place: usize| values.get(place).copied().flatten();
        let [_, udp, tcp, connections] = [0, 1, 2, 3].map(|place| value(NET + place));
        let mut family = out.family(&PACKETS);
        for (protocol, count) in [("udp", udp), ("tcp", tcp)] {
            if let Some(count) = count {
                family.add(&[("protocol", protocol)], count as f64);
            }
        }
        let single = [
            (&CONNECTIONS, connections),
            (&RPCS, value(RPC)),
            (&RETRANSMISSIONS, value(RPC + 1)),
            (&REFRESHES, value(RPC + 2)),
        ];
        for (desc, count) in single {
            if let Some(count) = count {
                out.value(desc, count as f64);
            }
        }
        let methods = [("2", &V2[..]), ("3", &V3), ("4", &V4)];
        let methods =
            methods.iter().flat_map(|(proto, names)| names.iter().map(|name| (*proto, *name)));
        let mut family = out.family(&REQUESTS);
        for ((proto, method), count) in methods.zip(values.iter().skip(PROC2)) {
            if let Some(count) = count {
                family.add(&[("proto", proto), ("method", method)], *count as f64);
            }
        }
        errors.result()
    }
}
