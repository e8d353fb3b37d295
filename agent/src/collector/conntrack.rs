//! node_exporter's `conntrack`: how full the table of tracked connections is, from
//! /proc/sys/net/netfilter, and the sums over all CPUs of what /proc/net/stat/nf_conntrack counts
//! (net/netfilter/nf_conntrack_standalone.c). node_exporter calls those gauges, and so do we.

use super::parse::{FirstError, fields, hex, lines, malformed, number, whole};
use super::{CollectError, Collector};
use crate::host::{Host, Root};
use crate::model::{Desc, Samples};

const FILE: &str = "proc/net/stat/nf_conntrack";

const ENTRIES: Desc = Desc::gauge(
    "node_nf_conntrack_entries",
    "Number of currently allocated flow entries for connection tracking.",
);
const LIMIT: Desc =
    Desc::gauge("node_nf_conntrack_entries_limit", "Maximum size of connection tracking table.");

/// Before Linux 2.6.35 there is no column for `search_restart`.
const COLUMNS: usize = 16;

/// Each with its column, which is a fixed one: Linux 4.20 has renamed the first two and kept the places.
const STATISTICS: [(usize, Desc); 8] = [
    (
        2,
        Desc::gauge(
            "node_nf_conntrack_stat_found",
            "Number of searched entries which were successful.",
        ),
    ),
    (
        4,
        Desc::gauge(
            "node_nf_conntrack_stat_invalid",
            "Number of packets seen which can not be tracked.",
        ),
    ),
    (
        5,
        Desc::gauge(
            "node_nf_conntrack_stat_ignore",
            "Number of packets seen which are already connected to a conntrack entry.",
        ),
    ),
    (8, Desc::gauge("node_nf_conntrack_stat_insert", "Number of entries inserted into the list.")),
    (
        9,
        Desc::gauge(
            "node_nf_conntrack_stat_insert_failed",
            "Number of entries for which list insertion was attempted but failed.",
        ),
    ),
    (
        10,
        Desc::gauge(
            "node_nf_conntrack_stat_drop",
            "Number of packets dropped due to conntrack failure.",
        ),
    ),
    (
        11,
        Desc::gauge(
            "node_nf_conntrack_stat_early_drop",
            "Number of dropped conntrack entries to make room for new ones, if maximum table size was reached.",
        ),
    ),
    (
        16,
        Desc::gauge(
            "node_nf_conntrack_stat_search_restart",
            "Number of conntrack table lookups which had to be restarted due to hashtable resizes.",
        ),
    ),
];

/// Tracked connections, and what became of packets.
pub(super) struct Conntrack;

impl Collector for Conntrack {
    fn collect(&mut self, host: &mut Host, out: &mut Samples) -> Result<(), CollectError> {
        let mut errors = FirstError::default();
        for (file, desc) in [("nf_conntrack_count", &ENTRIES), ("nf_conntrack_max", &LIMIT)] {
            let path = format_args!("sys/net/netfilter/{file}");
            if let Some(value) = number(host, Root::Proc, path, &mut errors) {
                out.value(desc, value as f64);
            }
        }
        match host.proc("net/stat/nf_conntrack") {
            Ok(bytes) => {
                let sums = sums(bytes, &mut errors);
                for ((_, desc), sum) in STATISTICS.iter().zip(sums) {
                    out.value(desc, sum as f64);
                }
            }
            Err(error) => errors.note(error.into()),
        }
        errors.result()
    }
}

fn sums(bytes: &[u8], errors: &mut FirstError) -> [u64; STATISTICS.len()] {
    let mut sums = [0u64; STATISTICS.len()];
    let mut lines = lines(whole(FILE, bytes, errors));
    let heading = lines.next().unwrap_or_default();
    if !heading.starts_with(b"entries") {
        errors.note(malformed(FILE, heading, "a line of headings"));
        return sums;
    }
    for line in lines {
        let columns = fields(line).count();
        let bad = fields(line).find(|field| hex(field).is_none());
        if let Some(field) = bad {
            errors.note(malformed(FILE, field, "a hexadecimal number"));
            continue;
        }
        if columns < COLUMNS {
            errors.note(malformed(FILE, line, "16 hexadecimal numbers"));
            continue;
        }
        for ((column, _), sum) in STATISTICS.iter().zip(&mut sums) {
            *sum = sum.wrapping_add(fields(line).nth(*column).and_then(hex).unwrap_or_default());
        }
    }
    sums
}

#[cfg(test)]
mod tests {
    use super::*;

    fn read(text: &str) -> ([u64; STATISTICS.len()], Option<String>) {
        let mut errors = FirstError::default();
        let sums = sums(text.as_bytes(), &mut errors);
        (sums, errors.result().err().map(|error| error.to_string()))
    }

    const HEADING: &str = "entries  clashres found new\n";

    #[test]
    fn cpus_are_added_and_a_malformed_one_is_left_out() {
        let cpu = "0 1 2 3 4 5 6 7 8 9 a b c d e f 10\n";
        let sums = [2, 4, 5, 8, 9, 10, 11, 16];
        assert_eq!(read(&format!("{HEADING}{cpu}")), (sums, None));
        assert_eq!(read(&format!("{HEADING}{cpu}{cpu}")).0, sums.map(|n| 2 * n));
        let (kept, error) = read(&format!("{HEADING}{cpu}{}", cpu.replace(" a ", " -1 ")));
        assert_eq!(kept, sums);
        assert!(error.unwrap().contains("nf_conntrack: \"-1\""));
        let (kept, error) = read(&format!("{HEADING}{cpu}0 1 2\n"));
        assert_eq!(kept, sums);
        assert!(error.unwrap().contains("\"0 1 2\""));
        let (_, error) = read(cpu);
        assert!(error.unwrap().contains("headings"));
    }

    #[test]
    fn before_linux_2_6_35_there_is_one_column_less() {
        let cpu = "0 1 2 3 4 5 6 7 8 9 a b c d e f\n";
        assert_eq!(read(&format!("{HEADING}{cpu}")), ([2, 4, 5, 8, 9, 10, 11, 0], None));
    }
}
