//! node_exporter's `zfs`, from /proc/spl/kstat/zfs of OpenZFS: the counters of its caches and queues, of
//! each pool and each dataset, and the state of each pool. `node_zfs_dbuf_*`, values that may be negative
//! (`memory_available_bytes`) and the state `suspended` are those of versions after 1.5.0.
//!
//! That is all that OpenZFS (up to 2.3) shows as text: the state of a vdev, its read, write and checksum
//! errors, and when a pool was scrubbed last are only in the answers to ioctls of /dev/zfs, whose layout
//! changes between versions and which libzfs alone is meant to decode. They are left out here; a timer
//! that writes what `zpool status` says for `textfile` has them. The event counters `node_zfs_fm_*` tell that
//! something was reported at all.
//!
//! `kstat` reads the files.

mod kstat;

use std::fmt::Write as _;

use super::parse::{FirstError, Span, Texts};
use super::rows::Rows;
use super::{CollectError, Collector};
use crate::host::{Host, Names, Root};
use crate::model::{Desc, Kind, Samples};

const FOLDER: &str = "spl/kstat/zfs";

/// Files about all pools, and what stands for each in the names of its families.
const FILES: [(&str, &str); 11] = [
    ("abdstats", "abd"),
    ("arcstats", "arc"),
    ("dbufstats", "dbuf"),
    ("dmu_tx", "dmu_tx"),
    ("dnodestats", "dnode"),
    ("fm", "fm"),
    // Gone since OpenZFS 2.2.
    ("vdev_cache_stats", "vdev_cache"),
    ("vdev_mirror_stats", "vdev_mirror"),
    // Gone since OpenZFS 2.0.
    ("xuio_stats", "xuio"),
    ("zfetchstats", "zfetch"),
    ("zil", "zil"),
];

const STATE: Desc = Desc::gauge("node_zfs_zpool_state", "kstat.zfs.misc.state");
const STATES: [&str; 7] =
    ["online", "degraded", "faulted", "offline", "removed", "unavail", "suspended"];

/// What a family of a pool counts.
#[derive(Clone, Copy, PartialEq, Eq)]
enum Of {
    /// The file `io`, up to OpenZFS 0.8.
    Pool,
    /// A file `objset-*`, since OpenZFS 0.8.
    Dataset,
}

/// The kernel statistics of ZFS.
#[derive(Default)]
pub(super) struct Zfs {
    entries: Names,
    inside: Names,
    rows: Rows,
    /// Keys that were met, each a family; the number of a row's family is its place here.
    families: Vec<(Of, Span)>,
    keys: Texts,
    /// A place in [`STATES`], or none of them, for each pool.
    states: Vec<(Span, Option<usize>)>,
    pools: Texts,
    name: String,
    help: String,
}

impl Collector for Zfs {
    fn collect(&mut self, host: &mut Host, out: &mut Samples) -> Result<(), CollectError> {
        let mut errors = FirstError::default();
        host.list(Root::Proc, FOLDER, &mut self.entries)?;
        for (file, subsystem) in FILES {
            if self.entries.iter().any(|entry| entry == file) {
                let path = format_args!("{FOLDER}/{file}");
                if let Some(bytes) = host.find(Root::Proc, path) {
                    self.write_file(file, subsystem, bytes, out, &mut errors);
                }
            }
        }
        self.read_pools(host, &mut errors);
        self.write_pools(out);
        errors.result()
    }
}

impl Zfs {
    /// Writes the counters of one file, such as `node_zfs_arc_hits` of `arcstats`.
    fn write_file(
        &mut self,
        file: &str,
        subsystem: &str,
        bytes: &[u8],
        out: &mut Samples,
        errors: &mut FirstError,
    ) {
        let path = format_args!("{FOLDER}/{file}");
        kstat::named_values(bytes, path, errors, |line| {
            if let kstat::Line::Number(key, value) = line {
                describe(&mut self.name, &mut self.help, subsystem, file, key);
                out.family_named(&self.name, &self.help, Kind::Untyped).add(&[], value);
            }
        });
    }

    /// Reads the folders of the pools: those that have a file `state` or `io`.
    fn read_pools(&mut self, host: &mut Host, errors: &mut FirstError) {
        self.rows.clear();
        self.families.clear();
        self.keys.clear();
        self.states.clear();
        self.pools.clear();
        let entries = std::mem::take(&mut self.entries);
        for pool in entries.iter() {
            if FILES.iter().any(|(file, _)| *file == pool) {
                continue;
            }
            let state = host.find(Root::Proc, format_args!("{FOLDER}/{pool}/state")).map(place);
            if let Some(state) = state {
                self.states.push((self.pools.keep(pool), state));
            }
            let path = format_args!("{FOLDER}/{pool}/io");
            let io = host.find(Root::Proc, path);
            if state.is_none() && io.is_none() {
                continue;
            }
            let zpool = self.rows.keep(pool);
            if let Some(bytes) = io {
                kstat::columns(bytes, path, errors, |key, value| {
                    let family = family(&mut self.families, &mut self.keys, Of::Pool, key);
                    self.rows.add(family, &[zpool], value);
                });
            }
            self.read_datasets(pool, zpool, host, errors);
        }
        self.entries = entries;
    }

    fn read_datasets(&mut self, pool: &str, zpool: Span, host: &mut Host, errors: &mut FirstError) {
        // A pool that goes away takes its folder with it.
        if host.list(Root::Proc, format_args!("{FOLDER}/{pool}"), &mut self.inside).is_err() {
            return;
        }
        for file in self.inside.iter().filter(|file| file.starts_with("objset-")) {
            let path = format_args!("{FOLDER}/{pool}/{file}");
            let Some(bytes) = host.find(Root::Proc, path) else { continue };
            let mut dataset = Span::default();
            kstat::named_values(bytes, path, errors, |line| match line {
                kstat::Line::Text("dataset_name", name) => dataset = self.rows.keep(name),
                kstat::Line::Text(..) => {}
                kstat::Line::Number(key, value) => {
                    let family = family(&mut self.families, &mut self.keys, Of::Dataset, key);
                    self.rows.add(family, &[zpool, dataset], value);
                }
            });
        }
    }

    fn write_pools(&mut self, out: &mut Samples) {
        let (families, keys) = (&self.families, &self.keys);
        let (name, help) = (&mut self.name, &mut self.help);
        self.rows.each(|family, [zpool, dataset, ..], value| {
            let Some((of, key)) = families.get(family) else { return };
            let (subsystem, file) = match of {
                Of::Pool => ("zpool", "io"),
                Of::Dataset => ("zpool_dataset", "objset"),
            };
            describe(name, help, subsystem, file, keys.get(*key));
            let mut family = out.family_named(name, help, Kind::Untyped);
            match of {
                Of::Pool => family.add(&[("zpool", zpool)], value),
                Of::Dataset => family.add(&[("zpool", zpool), ("dataset", dataset)], value),
            };
        });
        let mut family = out.family(&STATE);
        for (pool, state) in &self.states {
            for (index, name) in STATES.iter().enumerate() {
                let labels = [("zpool", self.pools.get(*pool)), ("state", *name)];
                family.add(&labels, f64::from(u8::from(*state == Some(index))));
            }
        }
    }
}

/// The family's name and help text, as node_exporter makes them of the file and the key.
fn describe(name: &mut String, help: &mut String, subsystem: &str, file: &str, key: &str) {
    name.clear();
    help.clear();
    // Writing to a String can't fail.
    let _ = write!(help, "kstat.zfs.misc.{file}.{key}");
    let _ = write!(name, "node_zfs_{subsystem}_");
    name.extend(key.chars().map(|c| if c == '-' { '_' } else { c }));
}

/// The number of a key's family.
fn family(families: &mut Vec<(Of, Span)>, keys: &mut Texts, of: Of, key: &str) -> usize {
    let known = families.iter().position(|known| known.0 == of && keys.get(known.1) == key);
    known.unwrap_or_else(|| {
        families.push((of, keys.keep(key)));
        families.len() - 1
    })
}

/// What a pool's file `state` says, as a place in [`STATES`].
fn place(bytes: &[u8]) -> Option<usize> {
    let word = bytes.trim_ascii();
    STATES.iter().position(|state| state.as_bytes().eq_ignore_ascii_case(word))
}
