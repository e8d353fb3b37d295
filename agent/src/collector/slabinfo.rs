//! node_exporter's `slabinfo`, from /proc/slabinfo (mm/slab_common.c, version 2.1), which only root may
//! read.

use super::parse::{FirstError, fields, lines, malformed, text, unsigned, whole};
use super::{CollectError, Collector};
use crate::host::Host;
use crate::model::{Desc, Samples};

const FILE: &str = "proc/slabinfo";

/// The columns behind the name.
const COLUMNS: [Desc; 5] = [
    Desc::gauge(
        "node_slabinfo_active_objects",
        "The number of objects that are currently active (i.e., in use).",
    ),
    Desc::gauge(
        "node_slabinfo_objects",
        "The total number of allocated objects (i.e., objects that are both in use and not in use).",
    ),
    Desc::gauge("node_slabinfo_object_size_bytes", "The size of objects in this slab, in bytes."),
    Desc::gauge("node_slabinfo_objects_per_slab", "The number of objects stored in each slab."),
    Desc::gauge("node_slabinfo_pages_per_slab", "The number of pages allocated for each slab."),
];

/// The kernel's caches of objects.
pub(super) struct Slabinfo;

impl Collector for Slabinfo {
    fn collect(&mut self, host: &mut Host, out: &mut Samples) -> Result<(), CollectError> {
        let mut errors = FirstError::default();
        let bytes = whole(FILE, host.proc("slabinfo")?, &mut errors);
        let rows = || lines(bytes).filter(|row| !row.starts_with(b"#") && !is_version(row));
        for (index, desc) in COLUMNS.iter().enumerate() {
            let mut family = out.family(desc);
            for row in rows() {
                let mut columns = fields(row);
                let name = columns.next().unwrap_or_default();
                match columns.nth(index).and_then(unsigned) {
                    Some(value) => {
                        family.add(&[("slab", &text(name))], value as f64);
                    }
                    None => errors.note(malformed(FILE, row, "a name and five numbers")),
                }
            }
        }
        errors.result()
    }
}

/// The first line, `slabinfo - version: 2.1`.
fn is_version(row: &[u8]) -> bool {
    row.starts_with(b"slabinfo - version:")
}

#[cfg(test)]
mod tests {
    use super::super::testing::Tree;
    use super::*;

    #[test]
    fn a_malformed_cache_leaves_the_others() {
        let file = "slabinfo - version: 2.1\n# name <active_objs>\n:A-40 1 2 x 4 5 : tunables\n\
                    dentry 6 7 8\nkmalloc-8 1 2 3 4 5 : tunables 0 0 0\n";
        let (text, result) = Tree::new(&[(FILE, file)]).collect(&mut Slabinfo);
        assert_eq!(text.len(), 4 + 3 + 5);
        assert!(text.contains(&"node_slabinfo_pages_per_slab{slab=\"kmalloc-8\"} 5".to_owned()));
        assert!(result.unwrap_err().to_string().contains(":A-40 1 2 x"));
    }
}
