//! node_exporter's `xfs`, from /sys/fs/xfs/DEVICE/stats/stats (fs/xfs/xfs_stats.c): for each mounted file
//! system the counters of its allocator, directories, reads and writes.
//!
//! A line that a kernel lacks counts as zeros, as in node_exporter. Lines that are not wanted are not
//! parsed; node_exporter gives nothing at all when a counter on any line passes 32 bits.

use super::parse::{FirstError, fields, lines, malformed, named, unsigned, whole};
use super::rows::{Rows, Shape};
use super::{CollectError, Collector};
use crate::host::{Host, Names, Root};
use crate::model::{Desc, Samples};

macro_rules! counters {
    ($($name:literal: $help:literal,)*) => {
        [$((
            Desc::counter(concat!("node_xfs_", $name, "_total"), $help),
            &["device"] as &[&str],
        )),*]
    };
}

/// A line's first word, how many counters it has at least, and where which family of [`SHAPES`] stands.
type Line = (&'static [u8], usize, &'static [(usize, usize)]);

#[rustfmt::skip]
const LINES: [Line; 8] = [
    (b"extent_alloc", 4, &[(0, 0), (1, 1), (2, 2), (3, 3)]),
    (b"abt", 4, &[(0, 4), (1, 5), (2, 6), (3, 7)]),
    (b"blk_map", 7, &[(0, 8), (1, 9), (2, 10), (3, 11), (4, 12), (5, 13), (6, 14)]),
    (b"bmbt", 4, &[(0, 15), (1, 16), (2, 17), (3, 18)]),
    (b"dir", 4, &[(0, 19), (1, 20), (2, 21), (3, 22)]),
    (b"rw", 2, &[(1, 23), (0, 24)]),
    (b"vnodes", 7, &[(0, 25), (1, 26), (2, 27), (3, 28), (4, 29), (5, 30), (6, 31)]),
    (b"ig", 7, &[(0, 32), (1, 33), (2, 34), (3, 35), (4, 36), (5, 37), (6, 38)]),
];

#[rustfmt::skip]
const SHAPES: [Shape; 39] = counters![
    "extent_allocation_extents_allocated": "Number of extents allocated for a filesystem.",
    "extent_allocation_blocks_allocated": "Number of blocks allocated for a filesystem.",
    "extent_allocation_extents_freed": "Number of extents freed for a filesystem.",
    "extent_allocation_blocks_freed": "Number of blocks freed for a filesystem.",
    "allocation_btree_lookups": "Number of allocation B-tree lookups for a filesystem.",
    "allocation_btree_compares": "Number of allocation B-tree compares for a filesystem.",
    "allocation_btree_records_inserted": "Number of allocation B-tree records inserted for a filesystem.",
    "allocation_btree_records_deleted": "Number of allocation B-tree records deleted for a filesystem.",
    "block_mapping_reads": "Number of block map for read operations for a filesystem.",
    "block_mapping_writes": "Number of block map for write operations for a filesystem.",
    "block_mapping_unmaps": "Number of block unmaps (deletes) for a filesystem.",
    "block_mapping_extent_list_insertions": "Number of extent list insertions for a filesystem.",
    "block_mapping_extent_list_deletions": "Number of extent list deletions for a filesystem.",
    "block_mapping_extent_list_lookups": "Number of extent list lookups for a filesystem.",
    "block_mapping_extent_list_compares": "Number of extent list compares for a filesystem.",
    "block_map_btree_lookups": "Number of block map B-tree lookups for a filesystem.",
    "block_map_btree_compares": "Number of block map B-tree compares for a filesystem.",
    "block_map_btree_records_inserted": "Number of block map B-tree records inserted for a filesystem.",
    "block_map_btree_records_deleted": "Number of block map B-tree records deleted for a filesystem.",
    "directory_operation_lookup": "Number of file name directory lookups which miss the operating systems directory name lookup cache.",
    "directory_operation_create": "Number of times a new directory entry was created for a filesystem.",
    "directory_operation_remove": "Number of times an existing directory entry was created for a filesystem.",
    "directory_operation_getdents": "Number of times the directory getdents operation was performed for a filesystem.",
    "read_calls": "Number of read(2) system calls made to files in a filesystem.",
    "write_calls": "Number of write(2) system calls made to files in a filesystem.",
    "vnode_active": "Number of vnodes not on free lists for a filesystem.",
    "vnode_allocate": "Number of times vn_alloc called for a filesystem.",
    "vnode_get": "Number of times vn_get called for a filesystem.",
    "vnode_hold": "Number of times vn_hold called for a filesystem.",
    "vnode_release": "Number of times vn_rele called for a filesystem.",
    "vnode_reclaim": "Number of times vn_reclaim called for a filesystem.",
    "vnode_remove": "Number of times vn_remove called for a filesystem.",
    "inode_operation_attempts": "Number of times the OS looked for an XFS inode in the inode cache.",
    "inode_operation_found": "Number of times the OS looked for and found an XFS inode in the inode cache.",
    "inode_operation_recycled": "Number of times the OS found an XFS inode in the cache, but could not use it as it was being recycled.",
    "inode_operation_missed": "Number of times the OS looked for an XFS inode in the cache, but did not find it.",
    "inode_operation_duplicates": "Number of times the OS tried to add a missing XFS inode to the inode cache, but found it had already been added by another process.",
    "inode_operation_reclaims": "Number of times the OS reclaimed an XFS inode from the inode cache to free memory for another purpose.",
    "inode_operation_attribute_changes": "Number of times the OS explicitly changed the attributes of an XFS inode.",
];

/// The counters of the mounted XFS file systems.
#[derive(Default)]
pub(super) struct Xfs {
    names: Names,
    rows: Rows,
}

impl Collector for Xfs {
    fn collect(&mut self, host: &mut Host, out: &mut Samples) -> Result<(), CollectError> {
        let mut errors = FirstError::default();
        host.list(Root::Sys, "fs/xfs", &mut self.names)?;
        self.rows.clear();
        for name in self.names.iter() {
            let path = format_args!("fs/xfs/{name}/stats/stats");
            // `stats` and `debug` stand beside the file systems and have no such file.
            let Some(bytes) = host.find(Root::Sys, path) else { continue };
            let mut values = [Some(0); SHAPES.len()];
            read(bytes, &mut values, || named(Root::Sys, path), &mut errors);
            let device = self.rows.keep(name);
            for (family, value) in values.into_iter().enumerate() {
                if let Some(value) = value {
                    self.rows.add(family, &[device], value as f64);
                }
            }
        }
        self.rows.write(&SHAPES, out);
        errors.result()
    }
}

/// Fills in the counters of one file system; those of a malformed line become none.
fn read(
    bytes: &[u8],
    values: &mut [Option<u64>; SHAPES.len()],
    file: impl Fn() -> String,
    errors: &mut FirstError,
) {
    let cut = !bytes.ends_with(b"\n") && !bytes.is_empty();
    let bytes = if cut { whole(&file(), bytes, errors) } else { bytes };
    for line in lines(bytes) {
        let mut words = fields(line);
        let key = words.next().unwrap_or_default();
        let Some((_, least, places)) = LINES.iter().find(|(known, ..)| *known == key) else {
            continue;
        };
        let whole = words.clone().count() >= *least;
        let bad = words.clone().take(*least).find(|word| unsigned(word).is_none());
        for (place, family) in *places {
            let value = words.clone().nth(*place).and_then(unsigned);
            if let Some(slot) = values.get_mut(*family) {
                *slot = value.filter(|_| whole && bad.is_none());
            }
        }
        if let Some(bad) = bad {
            errors.note(malformed(&file(), bad, "a number"));
        } else if !whole {
            errors.note(malformed(&file(), line, "as many counters as the line has"));
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_malformed_line_costs_itself_and_a_missing_one_is_zeros() {
        let mut values = [Some(0); SHAPES.len()];
        let mut errors = FirstError::default();
        let bytes = b"extent_alloc 1 2 3 4\nabt 1 2 x 4\nvnodes 1 2 3\nrw 7 5000000000\nnew 1\n";
        read(bytes, &mut values, || "stats".into(), &mut errors);
        assert_eq!(
            values[..9],
            [Some(1), Some(2), Some(3), Some(4), None, None, None, None, Some(0)]
        );
        assert_eq!(values[23..26], [Some(5_000_000_000), Some(7), None]);
        let error = errors.result().unwrap_err().to_string();
        assert!(error.contains("stats") && error.contains("\"x\""), "{error}");
        let mut errors = FirstError::default();
        read(b"rw 1 2\nabt 1 2 3 4", &mut values, || "stats".into(), &mut errors);
        assert!(errors.result().unwrap_err().to_string().contains("abt 1 2"));
    }

    #[test]
    fn every_family_stands_on_one_line() {
        let mut places: Vec<_> = LINES.iter().flat_map(|(.., places)| *places).collect();
        places.sort_by_key(|(_, family)| *family);
        assert!(places.iter().enumerate().all(|(index, (_, family))| index == *family));
        assert_eq!(places.len(), SHAPES.len());
    }
}
