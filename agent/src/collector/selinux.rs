//! node_exporter's `selinux`, from selinuxfs below /sys (security/selinux/selinuxfs.c) and
//! /etc/selinux/config. Where selinuxfs is not mounted, SELinux is off, which is a sample too.
//!
//! node_exporter calls it off as well while no policy is loaded, in the first seconds after boot.

use super::parse::{FirstError, fields, lines, malformed, number, signed_number, text, unsigned};
use super::{CollectError, Collector};
use crate::host::{Host, Root};
use crate::model::{Desc, Samples};

const ENABLED: Desc =
    Desc::gauge("node_selinux_enabled", "SELinux is enabled, 1 is true, 0 is false");
const CONFIG_MODE: Desc =
    Desc::gauge("node_selinux_config_mode", "Configured SELinux enforcement mode");
const CURRENT_MODE: Desc =
    Desc::gauge("node_selinux_current_mode", "Current SELinux enforcement mode");

/// The columns of avc/cache_stats, by the name in its first line; each CPU has a line.
const CACHE: [(&str, Desc); 6] = [
    ("lookups", Desc::counter("node_selinux_avc_lookups_total", "SELinux AVC lookups")),
    ("hits", Desc::counter("node_selinux_avc_hits_total", "SELinux AVC hits")),
    ("misses", Desc::counter("node_selinux_avc_misses_total", "SELinux AVC misses")),
    ("allocations", Desc::counter("node_selinux_avc_allocations_total", "SELinux AVC allocations")),
    ("reclaims", Desc::counter("node_selinux_avc_reclaims_total", "SELinux AVC reclaims")),
    ("frees", Desc::counter("node_selinux_avc_frees_total", "SELinux AVC frees")),
];
const ENTRIES: Desc = Desc::gauge("node_selinux_avc_hash_entries", "SELinux AVC hash entries");
const BUCKETS: Desc =
    Desc::gauge("node_selinux_avc_hash_buckets_available", "SELinux AVC hash buckets available");
const USED: Desc =
    Desc::gauge("node_selinux_avc_hash_buckets_used", "SELinux AVC hash buckets used");
const CHAIN: Desc =
    Desc::gauge("node_selinux_avc_hash_longest_chain", "SELinux AVC hash longest chain");
const THRESHOLD: Desc = Desc::gauge("node_selinux_avc_threshold", "SELinux AVC threshold");

/// Modes of SELinux and its cache of decisions.
pub(super) struct Selinux;

impl Collector for Selinux {
    fn collect(&mut self, host: &mut Host, out: &mut Samples) -> Result<(), CollectError> {
        let mut errors = FirstError::default();
        if host.find(Root::Sys, "fs/selinux/enforce").is_none() {
            out.value(&ENABLED, 0.0);
            return Ok(());
        }
        out.value(&ENABLED, 1.0);
        let config = host.find(Root::Root, "etc/selinux/config").unwrap_or_default();
        out.value(&CONFIG_MODE, configured(config));
        let path = format_args!("fs/selinux/enforce");
        if let Some(mode) = signed_number(host, Root::Sys, path, &mut errors) {
            out.value(&CURRENT_MODE, mode as f64);
        }
        if let Some(bytes) = host.find(Root::Sys, "fs/selinux/avc/cache_stats") {
            cache(bytes, out).unwrap_or_else(|error| errors.note(error));
        }
        if let Some(bytes) = host.find(Root::Sys, "fs/selinux/avc/hash_stats") {
            hash(bytes, &mut errors, out);
        }
        let path = format_args!("fs/selinux/avc/cache_threshold");
        if let Some(threshold) = number(host, Root::Sys, path, &mut errors) {
            out.value(&THRESHOLD, threshold as f64);
        }
        errors.result()
    }
}

/// The mode of the next boot: 1 enforcing, 0 permissive, -1 disabled or not said.
fn configured(config: &[u8]) -> f64 {
    let mode = lines(config).find_map(|line| line.trim_ascii().strip_prefix(b"SELINUX="));
    match mode.map(<[u8]>::trim_ascii) {
        Some(b"enforcing") => 1.0,
        Some(b"permissive") => 0.0,
        Some(_) | None => -1.0,
    }
}

fn cache(bytes: &[u8], out: &mut Samples) -> Result<(), CollectError> {
    const FILE: &str = "sys/fs/selinux/avc/cache_stats";
    let mut rows = lines(bytes);
    let header = rows.next().unwrap_or_default();
    let mut sums = [0u64; CACHE.len()];
    for row in rows {
        let mut columns = fields(row);
        for name in fields(header) {
            let token = columns.next().unwrap_or_default();
            let value = unsigned(token).ok_or_else(|| malformed(FILE, row, "six numbers"))?;
            let known =
                CACHE.iter().zip(&mut sums).find(|((known, _), _)| known.as_bytes() == name);
            if let Some((_, sum)) = known {
                *sum = sum.saturating_add(value);
            }
        }
    }
    for ((_, desc), sum) in CACHE.iter().zip(sums) {
        out.value(desc, sum as f64);
    }
    Ok(())
}

/// Three lines: `entries: 503`, `buckets used: 283/512`, `longest chain: 6`.
fn hash(bytes: &[u8], errors: &mut FirstError, out: &mut Samples) {
    for line in lines(bytes) {
        let text = text(line);
        let (name, value) = text.split_once(": ").unwrap_or_default();
        let (first, second) = match value.split_once('/') {
            Some((used, all)) => (used, Some(all)),
            None => (value, None),
        };
        let values = [Some(first), second].map(|token| token.and_then(|t| unsigned(t.as_bytes())));
        match (name, values) {
            ("entries", [Some(entries), _]) => out.value(&ENTRIES, entries as f64),
            ("buckets used", [Some(used), Some(all)]) => {
                out.value(&BUCKETS, all as f64);
                out.value(&USED, used as f64);
            }
            ("longest chain", [Some(chain), _]) => out.value(&CHAIN, chain as f64),
            _ => {
                errors.note(malformed("sys/fs/selinux/avc/hash_stats", line, "a name and a number"))
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::super::testing::Tree;
    use super::*;

    #[test]
    fn off_where_its_file_system_is_not_mounted() {
        let (text, result) = Tree::new(&[]).collect(&mut Selinux);
        assert_eq!(text, ["node_selinux_enabled 0"]);
        assert!(result.is_ok());
    }

    #[test]
    fn malformed_statistics_leave_the_others() {
        let tree = Tree::new(&[
            ("sys/fs/selinux/enforce", "1"),
            ("root/etc/selinux/config", "# SELINUX=disabled\nSELINUX=permissive\nSELINUXTYPE=x\n"),
            ("sys/fs/selinux/avc/cache_stats", "lookups hits\n5 x\n"),
            ("sys/fs/selinux/avc/hash_stats", "entries: 7\nbuckets used: 3/\nlongest chain: 2\n"),
            ("sys/fs/selinux/avc/cache_threshold", "512"),
        ]);
        let (text, result) = tree.collect(&mut Selinux);
        assert_eq!(
            text,
            [
                "node_selinux_enabled 1",
                "node_selinux_config_mode 0",
                "node_selinux_current_mode 1",
                "node_selinux_avc_hash_entries 7",
                "node_selinux_avc_hash_longest_chain 2",
                "node_selinux_avc_threshold 512",
            ]
        );
        assert!(result.unwrap_err().to_string().contains("avc/cache_stats: \"5 x\""));
    }

    #[test]
    fn counts_of_all_cpus_are_added() {
        let tree = Tree::new(&[
            ("sys/fs/selinux/enforce", "0"),
            (
                "sys/fs/selinux/avc/cache_stats",
                "lookups hits misses allocations reclaims frees\n10 9 1 1 0 0\n5 3 2 2 1 18446744073709551615\n",
            ),
        ]);
        let (text, result) = tree.collect(&mut Selinux);
        assert!(result.is_ok());
        assert!(text.contains(&"node_selinux_avc_lookups_total 15".to_owned()), "{text:?}");
        assert!(text.contains(&"node_selinux_avc_misses_total 3".to_owned()));
    }
}
