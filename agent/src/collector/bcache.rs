//! node_exporter's `bcache`, from /sys/fs/bcache/UUID (drivers/md/bcache/sysfs.c), without what it reads
//! only when told to (`priority_stats`, which costs a walk of all buckets).
//!
//! The kernel writes sizes rounded, as `1.9T` (`bch_hprint`): the figures behind the point are 1024ths
//! divided by 100, not decimals, and node_exporter's arithmetic is kept to the last bit.

use super::parse::{FirstError, Span, fields, lines, malformed, named};
use super::rows::{Rows, Shape};
use super::{CollectError, Collector};
use crate::host::{Host, Names, Root};
use crate::model::{Desc, Samples};

/// An attribute, and its family in [`SHAPES`].
type Attribute = (&'static str, usize);

const READ_DURATION: usize = 25;

const CACHE_SET: [Attribute; 10] = [
    ("average_key_size", 0),
    ("btree_cache_size", 1),
    ("cache_available_percent", 2),
    ("congested", 3),
    ("root_usage_percent", 4),
    ("tree_depth", 5),
    ("internal/active_journal_entries", 6),
    ("internal/btree_nodes", 7),
    ("internal/cache_read_races", 8),
    ("internal/btree_read_average_duration_us", READ_DURATION),
];
const BACKING_DEVICE: [Attribute; 8] = [
    ("dirty_data", 9),
    ("stats_total/bypassed", 10),
    ("stats_total/cache_hits", 11),
    ("stats_total/cache_misses", 12),
    ("stats_total/cache_bypass_hits", 13),
    ("stats_total/cache_bypass_misses", 14),
    ("stats_total/cache_miss_collisions", 15),
    ("stats_total/cache_readaheads", 16),
];
/// Lines of a backing device's `writeback_rate_debug`.
const WRITEBACK: [Attribute; 5] =
    [("target:", 17), ("rate:", 18), ("proportional:", 19), ("integral:", 20), ("change:", 21)];
const CACHE_DEVICE: [Attribute; 3] = [("io_errors", 22), ("metadata_written", 23), ("written", 24)];

const SET: &[&str] = &["uuid"];
const BACKING: &[&str] = &["uuid", "backing_device"];
const CACHE: &[&str] = &["uuid", "cache_device"];

#[rustfmt::skip]
const SHAPES: [Shape; 26] = [
    (Desc::gauge("node_bcache_average_key_size_sectors", "Average data per key in the btree (sectors)."), SET),
    (Desc::gauge("node_bcache_btree_cache_size_bytes", "Amount of memory currently used by the btree cache."), SET),
    (Desc::gauge("node_bcache_cache_available_percent", "Percentage of cache device without dirty data, usable for writeback (may contain clean cached data)."), SET),
    (Desc::gauge("node_bcache_congested", "Congestion."), SET),
    (Desc::gauge("node_bcache_root_usage_percent", "Percentage of the root btree node in use (tree depth increases if too high)."), SET),
    (Desc::gauge("node_bcache_tree_depth", "Depth of the btree."), SET),
    (Desc::gauge("node_bcache_active_journal_entries", "Number of journal entries that are newer than the index."), SET),
    (Desc::gauge("node_bcache_btree_nodes", "Total nodes in the btree."), SET),
    (Desc::counter("node_bcache_cache_read_races_total", "Counts instances where while data was being read from the cache, the bucket was reused and invalidated - i.e. where the pointer was stale after the read completed."), SET),
    (Desc::gauge("node_bcache_dirty_data_bytes", "Amount of dirty data for this backing device in the cache."), BACKING),
    (Desc::counter("node_bcache_bypassed_bytes_total", "Amount of IO (both reads and writes) that has bypassed the cache."), BACKING),
    (Desc::counter("node_bcache_cache_hits_total", "Hits counted per individual IO as bcache sees them."), BACKING),
    (Desc::counter("node_bcache_cache_misses_total", "Misses counted per individual IO as bcache sees them."), BACKING),
    (Desc::counter("node_bcache_cache_bypass_hits_total", "Hits for IO intended to skip the cache."), BACKING),
    (Desc::counter("node_bcache_cache_bypass_misses_total", "Misses for IO intended to skip the cache."), BACKING),
    (Desc::counter("node_bcache_cache_miss_collisions_total", "Instances where data insertion from cache miss raced with write (data already present)."), BACKING),
    (Desc::counter("node_bcache_cache_readaheads_total", "Count of times readahead occurred."), BACKING),
    (Desc::gauge("node_bcache_dirty_target_bytes", "Current dirty data target threshold for this backing device in bytes."), BACKING),
    (Desc::gauge("node_bcache_writeback_rate", "Current writeback rate for this backing device in bytes."), BACKING),
    (Desc::gauge("node_bcache_writeback_rate_proportional_term", "Current result of proportional controller, part of writeback rate"), BACKING),
    (Desc::gauge("node_bcache_writeback_rate_integral_term", "Current result of integral controller, part of writeback rate"), BACKING),
    (Desc::gauge("node_bcache_writeback_change", "Last writeback rate change step for this backing device."), BACKING),
    (Desc::gauge("node_bcache_io_errors", "Number of errors that have occurred, decayed by io_error_halflife."), CACHE),
    (Desc::counter("node_bcache_metadata_written_bytes_total", "Sum of all non data writes (btree writes and all other metadata)."), CACHE),
    (Desc::counter("node_bcache_written_bytes_total", "Sum of all data that has been written to the cache."), CACHE),
    (Desc::gauge("node_bcache_btree_read_average_duration_seconds", "Average btree read duration."), SET),
];

/// The cache sets, their backing devices and cache devices.
#[derive(Default)]
pub(super) struct Bcache {
    entries: Names,
    inside: Names,
    rows: Rows,
}

impl Collector for Bcache {
    fn collect(&mut self, host: &mut Host, out: &mut Samples) -> Result<(), CollectError> {
        let mut errors = FirstError::default();
        host.list(Root::Sys, "fs/bcache", &mut self.entries)?;
        self.rows.clear();
        // `register` and the like stand beside the cache sets.
        for set in self.entries.iter().filter(|entry| entry.contains('-')) {
            let uuid = self.rows.keep(set);
            attributes(&mut self.rows, host, set, &CACHE_SET, &[uuid], &mut errors);
            // A cache set that goes away takes its folder with it.
            if host.list(Root::Sys, format_args!("fs/bcache/{set}"), &mut self.inside).is_err() {
                continue;
            }
            for device in self.inside.iter() {
                let folder = format_args!("{set}/{device}");
                if numbered(device, "bdev") {
                    let labels = [uuid, self.rows.keep(device)];
                    let rows = &mut self.rows;
                    attributes(rows, host, folder, &BACKING_DEVICE, &labels, &mut errors);
                    writeback(rows, host, folder, &labels, &mut errors);
                } else if numbered(device, "cache") {
                    let labels = [uuid, self.rows.keep(device)];
                    let rows = &mut self.rows;
                    attributes(rows, host, folder, &CACHE_DEVICE, &labels, &mut errors);
                }
            }
        }
        self.rows.write(&SHAPES, out);
        errors.result()
    }
}

fn numbered(name: &str, kind: &str) -> bool {
    name.strip_prefix(kind).is_some_and(|rest| rest.starts_with(|c: char| c.is_ascii_digit()))
}

/// Adds the attributes that there are; `cache_readaheads` is gone since Linux 5.11.
fn attributes(
    rows: &mut Rows,
    host: &mut Host,
    folder: impl std::fmt::Display,
    attributes: &[Attribute],
    labels: &[Span],
    errors: &mut FirstError,
) {
    for (file, family) in attributes {
        let path = format_args!("fs/bcache/{folder}/{file}");
        let Some(bytes) = host.find(Root::Sys, path) else { continue };
        match size(bytes.trim_ascii()) {
            // node_exporter takes these microseconds for nanoseconds.
            Some(value) if *family == READ_DURATION => {
                rows.add(*family, labels, value as f64 * 1e-9);
            }
            Some(value) => rows.add(*family, labels, value as f64),
            None => errors.note(malformed(&named(Root::Sys, path), bytes, "a size such as 1.9T")),
        }
    }
}

fn writeback(
    rows: &mut Rows,
    host: &mut Host,
    folder: impl std::fmt::Display,
    labels: &[Span],
    errors: &mut FirstError,
) {
    let path = format_args!("fs/bcache/{folder}/writeback_rate_debug");
    let Some(bytes) = host.find(Root::Sys, path) else { return };
    for line in lines(bytes) {
        let mut words = fields(line);
        let key = words.next().unwrap_or_default();
        let Some((_, family)) = WRITEBACK.iter().find(|(known, _)| known.as_bytes() == key) else {
            continue;
        };
        let token = words.last().unwrap_or_default();
        match signed_size(token.strip_suffix(b"/sec").unwrap_or(token)) {
            Some(value) => rows.add(*family, labels, value),
            None => errors.note(malformed(&named(Root::Sys, path), line, "a word and a size")),
        }
    }
}

fn signed_size(token: &[u8]) -> Option<f64> {
    match token.strip_prefix(b"-") {
        Some(size_of) => Some(-(size(size_of)? as f64)),
        None => Some(size(token)? as f64),
    }
}

/// A number of `bch_hprint`, such as `512`, `3.2M` or `1.10G`, without what is below one.
fn size(token: &[u8]) -> Option<u64> {
    let (unit, digits) = match token.split_last()? {
        (unit, digits) if unit.is_ascii_alphabetic() => {
            // None for a letter that is no unit.
            let power = b"kMGTPEZY".iter().position(|known| known == unit)?;
            (1024f64.powi(power as i32 + 1), digits)
        }
        _ => (1.0, token),
    };
    let mut parts = digits.splitn(2, |&byte| byte == b'.');
    let whole = digits_only(parts.next()?)?;
    let value = match parts.next() {
        // A plain number is a decimal one.
        Some(part) if unit > 1.0 => whole + digits_only(part)? / 10.24,
        Some(part) => {
            digits_only(part)?;
            std::str::from_utf8(digits).ok()?.parse().ok()?
        }
        None => whole,
    };
    // Saturates.
    Some((value * unit) as u64)
}

fn digits_only(digits: &[u8]) -> Option<f64> {
    let good = !digits.is_empty() && digits.iter().all(u8::is_ascii_digit);
    std::str::from_utf8(digits).ok().filter(|_| good)?.parse().ok()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn sizes_are_what_node_exporter_makes_of_them() {
        for (token, expected) in [
            ("0", 0),
            ("512", 512),
            ("3.2M", 3_350_528),
            ("1.9T", 2_065_879_269_376),
            ("1.10G", 2_122_317_824),
            ("20.4G", 21_894_266_880),
            ("4.0k", 4096),
            ("1.5", 1),
            ("99999Y", u64::MAX),
        ] {
            assert_eq!(size(token.as_bytes()), Some(expected), "{token}");
        }
        assert_eq!(signed_size(b"-86.5k"), Some(-88564.0));
    }

    #[test]
    fn what_is_no_size_is_none() {
        for bad in
            ["", "k", "-1", "1.", ".5", "1.k", "1.2.3k", "1x", "1e3", "inf", "nan", "1.x", "+1"]
        {
            assert_eq!(size(bad.as_bytes()), None, "{bad}");
        }
        assert_eq!(signed_size(b"--1"), None);
        assert_eq!(size(b"\xff"), None);
    }
}
