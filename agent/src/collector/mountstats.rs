//! node_exporter's `mountstats`, from /proc/PID/mountstats (fs/nfs/super.c, `nfs_show_stats`): what each NFS
//! mount asks of its server. The server's address comes from mountinfo, whose lines have the same order.
//!
//! Of several connections (`nconnect=`) the last one counts, as in version 1.5.0. The errors of operations
//! (since Linux 5.3) and `mountpoint_info` are those of later versions. Mounts of one export from one
//! address share their counters and are written once.

use std::collections::HashSet;
use std::hash::{BuildHasher, Hash, Hasher, RandomState};

use super::parse::{FirstError, Span, fields, lines, malformed, text, unsigned, whole};
use super::rows::{Rows, Shape};
use super::{CollectError, Collector};
use crate::host::{Host, ReadError};
use crate::model::{Desc, Samples};

const FILE: &str = "mountstats";

const MOUNT: &[&str] = &["export", "protocol", "mountaddr"];
const POINT: &[&str] = &["export", "protocol", "mountaddr", "mountpoint"];
const OPERATION: &[&str] = &["export", "protocol", "mountaddr", "operation"];

macro_rules! nfs {
    ($kind:ident $labels:ident $name:literal $help:literal) => {
        (Desc::$kind(concat!("node_mountstats_nfs_", $name), $help), $labels)
    };
}

const AGE: usize = 0;
const BYTES: usize = AGE + 1;
const TRANSPORT: usize = BYTES + 8;
const OPERATIONS: usize = TRANSPORT + TRANSPORT_PLACES.len();
const EVENTS: usize = OPERATIONS + 9;
const MOUNTPOINT: usize = EVENTS + EVENT_PLACES.len();

#[rustfmt::skip]
const SHAPES: [Shape; MOUNTPOINT + 1] = [
    nfs!(counter MOUNT "age_seconds_total" "The age of the NFS mount in seconds."),
    nfs!(counter MOUNT "read_bytes_total" "Number of bytes read using the read() syscall."),
    nfs!(counter MOUNT "write_bytes_total" "Number of bytes written using the write() syscall."),
    nfs!(counter MOUNT "direct_read_bytes_total" "Number of bytes read using the read() syscall in O_DIRECT mode."),
    nfs!(counter MOUNT "direct_write_bytes_total" "Number of bytes written using the write() syscall in O_DIRECT mode."),
    nfs!(counter MOUNT "total_read_bytes_total" "Number of bytes read from the NFS server, in total."),
    nfs!(counter MOUNT "total_write_bytes_total" "Number of bytes written to the NFS server, in total."),
    nfs!(counter MOUNT "read_pages_total" "Number of pages read directly via mmap()'d files."),
    nfs!(counter MOUNT "write_pages_total" "Number of pages written directly via mmap()'d files."),
    nfs!(counter MOUNT "transport_bind_total" "Number of times the client has had to establish a connection from scratch to the NFS server."),
    nfs!(counter MOUNT "transport_connect_total" "Number of times the client has made a TCP connection to the NFS server."),
    nfs!(gauge MOUNT "transport_idle_time_seconds" "Duration since the NFS mount last saw any RPC traffic, in seconds."),
    nfs!(counter MOUNT "transport_sends_total" "Number of RPC requests for this mount sent to the NFS server."),
    nfs!(counter MOUNT "transport_receives_total" "Number of RPC responses for this mount received from the NFS server."),
    nfs!(counter MOUNT "transport_bad_transaction_ids_total" "Number of times the NFS server sent a response with a transaction ID unknown to this client."),
    nfs!(counter MOUNT "transport_backlog_queue_total" "Total number of items added to the RPC backlog queue."),
    nfs!(gauge MOUNT "transport_maximum_rpc_slots" "Maximum number of simultaneously active RPC requests ever used."),
    nfs!(counter MOUNT "transport_sending_queue_total" "Total number of items added to the RPC transmission sending queue."),
    nfs!(counter MOUNT "transport_pending_queue_total" "Total number of items added to the RPC transmission pending queue."),
    nfs!(counter OPERATION "operations_requests_total" "Number of requests performed for a given operation."),
    nfs!(counter OPERATION "operations_transmissions_total" "Number of times an actual RPC request has been transmitted for a given operation."),
    nfs!(counter OPERATION "operations_major_timeouts_total" "Number of times a request has had a major timeout for a given operation."),
    nfs!(counter OPERATION "operations_sent_bytes_total" "Number of bytes sent for a given operation, including RPC headers and payload."),
    nfs!(counter OPERATION "operations_received_bytes_total" "Number of bytes received for a given operation, including RPC headers and payload."),
    nfs!(counter OPERATION "operations_queue_time_seconds_total" "Duration all requests spent queued for transmission for a given operation before they were sent, in seconds."),
    nfs!(counter OPERATION "operations_response_time_seconds_total" "Duration all requests took to get a reply back after a request for a given operation was transmitted, in seconds."),
    nfs!(counter OPERATION "operations_request_time_seconds_total" "Duration all requests took from when a request was enqueued to when it was completely handled for a given operation, in seconds."),
    nfs!(counter OPERATION "operations_errors_total" "Number of errors for a given operation"),
    nfs!(counter MOUNT "event_inode_revalidate_total" "Number of times cached inode attributes are re-validated from the server."),
    nfs!(counter MOUNT "event_dnode_revalidate_total" "Number of times cached dentry nodes are re-validated from the server."),
    nfs!(counter MOUNT "event_data_invalidate_total" "Number of times an inode cache is cleared."),
    nfs!(counter MOUNT "event_attribute_invalidate_total" "Number of times cached inode attributes are invalidated."),
    nfs!(counter MOUNT "event_vfs_open_total" "Number of times cached inode attributes are invalidated."),
    nfs!(counter MOUNT "event_vfs_lookup_total" "Number of times a directory lookup has occurred."),
    nfs!(counter MOUNT "event_vfs_access_total" "Number of times permissions have been checked."),
    nfs!(counter MOUNT "event_vfs_update_page_total" "Number of updates (and potential writes) to pages."),
    nfs!(counter MOUNT "event_vfs_read_page_total" "Number of pages read directly via mmap()'d files."),
    nfs!(counter MOUNT "event_vfs_read_pages_total" "Number of times a group of pages have been read."),
    nfs!(counter MOUNT "event_vfs_write_page_total" "Number of pages written directly via mmap()'d files."),
    nfs!(counter MOUNT "event_vfs_write_pages_total" "Number of times a group of pages have been written."),
    nfs!(counter MOUNT "event_vfs_getdents_total" "Number of times directory entries have been read with getdents()."),
    nfs!(counter MOUNT "event_vfs_setattr_total" "Number of times directory entries have been read with getdents()."),
    nfs!(counter MOUNT "event_vfs_flush_total" "Number of pending writes that have been forcefully flushed to the server."),
    nfs!(counter MOUNT "event_vfs_fsync_total" "Number of times fsync() has been called on directories and files."),
    nfs!(counter MOUNT "event_vfs_lock_total" "Number of times locking has been attempted on a file."),
    nfs!(counter MOUNT "event_vfs_file_release_total" "Number of times files have been closed and released."),
    nfs!(counter MOUNT "event_truncation_total" "Number of times files have been truncated."),
    nfs!(counter MOUNT "event_write_extension_total" "Number of times a file has been grown due to writes beyond its existing end."),
    nfs!(counter MOUNT "event_silly_rename_total" "Number of times a file was removed while still open by another process."),
    nfs!(counter MOUNT "event_short_read_total" "Number of times the NFS server gave less data than expected while reading."),
    nfs!(counter MOUNT "event_short_write_total" "Number of times the NFS server wrote less data than expected while writing."),
    nfs!(counter MOUNT "event_jukebox_delay_total" "Number of times the NFS server indicated EJUKEBOX; retrieving data from offline storage."),
    nfs!(counter MOUNT "event_pnfs_read_total" "Number of NFS v4.1+ pNFS reads."),
    nfs!(counter MOUNT "event_pnfs_write_total" "Number of NFS v4.1+ pNFS writes."),
    nfs!(gauge POINT "mountpoint_info" "Info metric for an NFS mountpoint."),
];

/// Where in `xprt: tcp` the families stand (net/sunrpc/xprtsock.c); `udp` lacks the numbers 2 to 4.
const TRANSPORT_PLACES: [usize; 10] = [1, 2, 4, 5, 6, 7, 9, 10, 11, 12];
const TRANSPORT_NUMBERS: usize = 13;
const NOT_UDP: std::ops::Range<usize> = 2..5;
/// Where in `events:` the families stand (include/linux/nfs_iostat.h); the 18th is unused.
const EVENT_PLACES: [usize; 26] = {
    let mut places = [0; 26];
    let mut at = 0;
    while at < places.len() {
        places[at] = if at < 18 { at } else { at + 1 };
        at += 1;
    }
    places
};

/// The times of an operation, in milliseconds.
const OPERATION_TIMES: std::ops::Range<usize> = 5..8;

/// Of one mount, what comes before its operations.
#[derive(Default)]
struct Mount {
    export: Span,
    point: Span,
    address: Span,
    protocol: Span,
    age: Option<u64>,
    bytes: Option<[u64; 8]>,
    events: Option<[u64; 27]>,
    transport: Option<[u64; TRANSPORT_NUMBERS]>,
}

/// The NFS mounts of this host.
#[derive(Default)]
pub(super) struct Mountstats {
    rows: Rows,
    /// Of each mount of mountinfo, the server's address.
    addresses: Vec<Span>,
    /// Hashes of export, protocol and address of the mounts that are written, and of those with the mount
    /// point, with keys of this process.
    seen: HashSet<u64>,
    hasher: RandomState,
}

impl Collector for Mountstats {
    fn collect(&mut self, host: &mut Host, out: &mut Samples) -> Result<(), CollectError> {
        let mut errors = FirstError::default();
        self.rows.clear();
        self.addresses.clear();
        self.seen.clear();
        // Process 1's are readable to root alone.
        let process = if host.proc("1/mountstats").is_ok() { "1" } else { "self" };
        let bytes = read(host, process, "mountinfo").unwrap_or_default();
        for line in lines(bytes) {
            let address = self.rows.keep(&text(address(line)));
            self.addresses.push(address);
        }
        let bytes = whole(FILE, read(host, process, FILE)?, &mut errors);
        self.parse(bytes, &mut errors);
        self.rows.write(&SHAPES, out);
        errors.result()
    }
}

fn read<'a>(host: &'a mut Host, process: &str, file: &str) -> Result<&'a [u8], ReadError> {
    host.proc(format_args!("{process}/{file}"))
}

/// The option `addr=` of a mount's file system, which stands behind ` - type source`.
fn address(line: &[u8]) -> &[u8] {
    let mut words = fields(line).skip_while(|word| *word != b"-");
    let options = words.nth(3).unwrap_or_default();
    let mut options = options.split(|&byte| byte == b',');
    options.find_map(|option| option.strip_prefix(b"addr=")).unwrap_or_default()
}

impl Mountstats {
    fn parse(&mut self, bytes: &[u8], errors: &mut FirstError) {
        let mut mounts = 0;
        let mut mount: Option<Mount> = None;
        // Whether the lines are operations, and of a mount that is written.
        let mut operations = None;
        for line in lines(bytes) {
            let mut words = fields(line);
            let key = words.next().unwrap_or_default();
            if key == b"device" {
                self.finish(mount.take());
                operations = None;
                let address = self.addresses.get(mounts).copied().unwrap_or_default();
                mounts += 1;
                mount = self.begin(line, address);
            } else if let Some(labels) = operations {
                if let Err((token, expected)) = self.operation(line, labels) {
                    errors.note(malformed(FILE, token, expected));
                }
            } else if key == b"per-op" {
                operations = Some(self.finish(mount.take()));
            } else if let Some(mount) = &mut mount
                && let Err((token, expected)) = mount.line(line, &mut self.rows)
            {
                errors.note(malformed(FILE, token, expected));
            }
        }
        self.finish(mount);
    }

    /// A line such as `device server:/export mounted on /mnt with fstype nfs4 statvers=1.1`.
    fn begin(&mut self, line: &[u8], address: Span) -> Option<Mount> {
        let mut words = fields(line).skip(1);
        let (export, point) = (words.next()?, words.nth(2)?);
        let kind = words.nth(2)?;
        words.next().filter(|_| kind == b"nfs" || kind == b"nfs4")?;
        let export = self.rows.keep(&text(export));
        let point = self.rows.keep(&text(point));
        Some(Mount { export, point, address, ..Mount::default() })
    }

    /// Writes what came before the operations; the labels for those, none if they are written already.
    fn finish(&mut self, mount: Option<Mount>) -> Option<[Span; 3]> {
        let mount = mount?;
        let labels = [mount.export, mount.protocol, mount.address];
        let [export, protocol, address] = labels;
        let all = [export, protocol, address, mount.point];
        let hash = |spans: &[Span]| {
            let mut hasher = self.hasher.build_hasher();
            spans.iter().for_each(|span| self.rows.get(*span).hash(&mut hasher));
            hasher.finish()
        };
        let written = !self.seen.insert(hash(&labels));
        // A mount may lie upon another of the same export.
        if self.seen.insert(hash(&all)) {
            self.rows.add(MOUNTPOINT, &all, 1.0);
        }
        if written {
            return None;
        }
        let rows = &mut self.rows;
        if let Some(age) = mount.age {
            rows.add(AGE, &labels, age as f64);
        }
        for (place, value) in mount.bytes.iter().flatten().enumerate() {
            rows.add(BYTES + place, &labels, *value as f64);
        }
        for (numbers, places, start) in [
            (mount.transport.as_ref().map(|all| &all[..]), &TRANSPORT_PLACES[..], TRANSPORT),
            (mount.events.as_ref().map(|all| &all[..]), &EVENT_PLACES[..], EVENTS),
        ] {
            let Some(numbers) = numbers else { continue };
            for (family, place) in places.iter().enumerate() {
                let value = numbers.get(*place).copied().unwrap_or_default();
                rows.add(start + family, &labels, value as f64);
            }
        }
        Some(labels)
    }

    /// A line such as `READ: 1 1 0 5 5 0 1 1 0`.
    fn operation<'a>(&mut self, line: &'a [u8], labels: Option<[Span; 3]>) -> Fault<'a> {
        let Some([export, protocol, address]) = labels else { return Ok(()) };
        let mut words = fields(line);
        let name = words.next().unwrap_or_default();
        let name = name.strip_suffix(b":").ok_or((line, "an operation and a colon"))?;
        let mut values = [0; 9];
        let count = fill(line, words, &mut values, 8)?;
        let name = self.rows.keep(&text(name));
        for (place, value) in values.iter().enumerate().take(count) {
            let value = *value as f64;
            let value = if OPERATION_TIMES.contains(&place) { value / 1000.0 } else { value };
            self.rows.add(OPERATIONS + place, &[export, protocol, address, name], value);
        }
        Ok(())
    }
}

/// The token that is malformed, and what should stand there.
type Fault<'a, T = ()> = Result<T, (&'a [u8], &'static str)>;

impl Mount {
    /// One of the lines before the operations; those that are not wanted are passed over.
    fn line<'a>(&mut self, line: &'a [u8], rows: &mut Rows) -> Fault<'a> {
        let mut words = fields(line);
        match words.next().unwrap_or_default() {
            b"age:" => {
                let token = words.next().unwrap_or(line);
                self.age = Some(unsigned(token).ok_or((token, "seconds"))?);
            }
            b"bytes:" => {
                let mut values = [0; 8];
                fill(line, words, &mut values, 8)?;
                self.bytes = Some(values);
            }
            b"events:" => {
                let mut values = [0; 27];
                // Kernels before 3.8 have two less.
                fill(line, words, &mut values, 25)?;
                self.events = Some(values);
            }
            b"xprt:" => {
                let protocol = words.next().unwrap_or_default();
                let mut values = [0; TRANSPORT_NUMBERS];
                if protocol == b"udp" {
                    let (front, back) = values.split_at_mut(NOT_UDP.start);
                    let back = back.get_mut(NOT_UDP.len()..).unwrap_or_default();
                    fill(line, words.clone(), front, NOT_UDP.start)?;
                    fill(line, words.skip(NOT_UDP.start), back, 5)?;
                } else {
                    fill(line, words, &mut values, 10)?;
                }
                self.protocol = rows.keep(&text(protocol));
                self.transport = Some(values);
            }
            _ => {}
        }
        Ok(())
    }
}

/// Fills in numbers, and says how many there were; there must be at least `least`.
fn fill<'a>(
    line: &'a [u8],
    words: impl Iterator<Item = &'a [u8]>,
    values: &mut [u64],
    least: usize,
) -> Fault<'a, usize> {
    let mut count = 0;
    for (slot, word) in values.iter_mut().zip(words) {
        *slot = unsigned(word).ok_or((word, "a number"))?;
        count += 1;
    }
    if count < least { Err((line, "as many numbers as the line has")) } else { Ok(count) }
}

#[cfg(test)]
mod tests {
    use super::*;

    const GOOD: &str = "device none mounted on / with fstype ext4\n\
        device s:/x mounted on /mnt with fstype nfs4 statvers=1.1\n\
        \topts:\trw\n\
        \tage:\t7\n\
        \tbytes:\t1 2 3 4 5 6 7 8\n\
        \txprt:\tudp 1 2 3 4 5 6 7 8 9 10\n\
        \tper-op statistics\n\
        \t  READ: 1 2 3 4 5 6000 7 8 9\n";

    fn parse(bytes: &str) -> (Vec<String>, String) {
        let (mut stats, mut errors) = (Mountstats::default(), FirstError::default());
        stats.parse(bytes.as_bytes(), &mut errors);
        let mut samples = Samples::with_limit(500);
        stats.rows.write(&SHAPES, &mut samples);
        let prefix = "node_mountstats_nfs_";
        let named = |name: &str| name.strip_prefix(prefix).unwrap().to_owned();
        let got = samples.iter().map(|s| format!("{} {}", named(s.name()), s.value)).collect();
        let error = errors.result().err().map(|error| error.to_string()).unwrap_or_default();
        (got, error)
    }

    #[test]
    fn udp_has_no_connections_and_times_are_seconds() {
        let (got, error) = parse(GOOD);
        assert_eq!(error, "");
        for line in [
            "age_seconds_total 7",
            "write_pages_total 8",
            "transport_bind_total 2",
            "transport_connect_total 0",
            "transport_sends_total 3",
            "transport_backlog_queue_total 7",
            "transport_pending_queue_total 10",
            "operations_queue_time_seconds_total 6",
            "operations_errors_total 9",
            "mountpoint_info 1",
        ] {
            assert!(got.contains(&line.to_owned()), "{line} of {got:#?}");
        }
        assert_eq!(got.len(), 1 + 8 + 10 + 9 + 1);
    }

    #[test]
    fn a_malformed_line_costs_itself_and_is_named() {
        for (line, altered, lost) in [
            ("age:\t7", "age:\tx7", 1),
            ("age:\t7", "age:", 1),
            ("7 8\n\txprt", "7\n\txprt", 8),
            ("udp 1 2", "udp 1 -2", 10),
            ("8 9 10", "", 0),
            ("udp 1 2 3 4 5 6 7 8 9 10", "udp 1 2", 10),
            ("READ:", "READ", 9),
            ("6000 7 8 9", "6000", 9),
        ] {
            let (got, error) = parse(&GOOD.replacen(line, altered, 1));
            assert_eq!(got.len(), 29 - lost, "{altered}: {got:#?}");
            assert_eq!(error.is_empty(), lost == 0, "{altered}: {error}");
        }
        let twice = format!("{GOOD}{GOOD}");
        assert_eq!(parse(&twice).0.len(), 29);
        let again = twice.replacen("/mnt", "/srv", 1);
        assert_eq!(parse(&again).0.len(), 30, "only the mount point is told again");
        assert_eq!(parse("device\ndevice a mounted\nper-op\n\tx: 1\n").0.len(), 0);
    }

    #[test]
    fn tens_of_thousands_of_mounts_are_no_matter() {
        let line = |n: u32| {
            format!(
                "device s:/{n} mounted on /{n} with fstype nfs4 statvers=1.1\n\tper-op statistics\n"
            )
        };
        let text: String = (0..20_000).map(line).collect();
        let mut stats = Mountstats::default();
        let start = std::time::Instant::now();
        stats.parse(text.as_bytes(), &mut FirstError::default());
        assert_eq!(stats.seen.len(), 40_000);
        // Each with each would be a minute.
        assert!(start.elapsed() < std::time::Duration::from_secs(6), "{:?}", start.elapsed());
    }

    #[test]
    fn the_address_is_an_option_of_the_file_system() {
        let line = b"1 2 0:4 / /mnt rw,addr=no shared:1 - nfs4 s:/x rw,clientaddr=a,addr=10.0.0.1";
        assert_eq!(address(line), b"10.0.0.1");
        assert_eq!(address(b"1 2 0:4 / / rw - ext4"), b"");
        assert_eq!(address(b""), b"");
    }
}
