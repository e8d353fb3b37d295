//! node_exporter's `zoneinfo`, from /proc/zoneinfo (mm/vmstat.c), in pages. Counts of a node stand, as in the
//! kernel's text, with the node's first zone. A key that only some kernels have is a series there only.

use super::buddyinfo::zone_of;
use super::parse::{FirstError, Span, Texts, fields, lines, malformed, text, unsigned, whole};
use super::{CollectError, Collector};
use crate::host::Host;
use crate::model::{Desc, Samples};

const FILE: &str = "proc/zoneinfo";

/// Keys and their families.
const KEYS: [(&str, Desc); 34] = [
    (
        "nr_free_pages",
        Desc::gauge("node_zoneinfo_nr_free_pages", "Total number of free pages in the zone"),
    ),
    ("min", Desc::gauge("node_zoneinfo_min_pages", "Zone watermark pages_min")),
    ("low", Desc::gauge("node_zoneinfo_low_pages", "Zone watermark pages_low")),
    ("high", Desc::gauge("node_zoneinfo_high_pages", "Zone watermark pages_high")),
    ("scanned", Desc::gauge("node_zoneinfo_scanned_pages", "Pages scanned since last reclaim")),
    (
        "spanned",
        Desc::gauge(
            "node_zoneinfo_spanned_pages",
            "Total pages spanned by the zone, including holes",
        ),
    ),
    (
        "present",
        Desc::gauge("node_zoneinfo_present_pages", "Physical pages existing within the zone"),
    ),
    (
        "managed",
        Desc::gauge("node_zoneinfo_managed_pages", "Present pages managed by the buddy system"),
    ),
    (
        "nr_active_anon",
        Desc::gauge(
            "node_zoneinfo_nr_active_anon_pages",
            "Number of anonymous pages recently more used",
        ),
    ),
    (
        "nr_inactive_anon",
        Desc::gauge(
            "node_zoneinfo_nr_inactive_anon_pages",
            "Number of anonymous pages recently less used",
        ),
    ),
    (
        "nr_isolated_anon",
        Desc::gauge(
            "node_zoneinfo_nr_isolated_anon_pages",
            "Temporary isolated pages from anon lru",
        ),
    ),
    (
        "nr_anon_pages",
        Desc::gauge(
            "node_zoneinfo_nr_anon_pages",
            "Number of anonymous pages currently used by the system",
        ),
    ),
    (
        "nr_anon_transparent_hugepages",
        Desc::gauge(
            "node_zoneinfo_nr_anon_transparent_hugepages",
            "Number of anonymous transparent huge pages currently used by the system",
        ),
    ),
    (
        "nr_active_file",
        Desc::gauge(
            "node_zoneinfo_nr_active_file_pages",
            "Number of active pages with file-backing",
        ),
    ),
    (
        "nr_inactive_file",
        Desc::gauge(
            "node_zoneinfo_nr_inactive_file_pages",
            "Number of inactive pages with file-backing",
        ),
    ),
    (
        "nr_isolated_file",
        Desc::gauge(
            "node_zoneinfo_nr_isolated_file_pages",
            "Temporary isolated pages from file lru",
        ),
    ),
    ("nr_file_pages", Desc::gauge("node_zoneinfo_nr_file_pages", "Number of file pages")),
    (
        "nr_slab_reclaimable",
        Desc::gauge("node_zoneinfo_nr_slab_reclaimable_pages", "Number of reclaimable slab pages"),
    ),
    (
        "nr_slab_unreclaimable",
        Desc::gauge(
            "node_zoneinfo_nr_slab_unreclaimable_pages",
            "Number of unreclaimable slab pages",
        ),
    ),
    (
        "nr_mlock_stack",
        Desc::gauge(
            "node_zoneinfo_nr_mlock_stack_pages",
            "mlock()ed pages found and moved off LRU",
        ),
    ),
    ("nr_kernel_stack", Desc::gauge("node_zoneinfo_nr_kernel_stacks", "Number of kernel stacks")),
    ("nr_mapped", Desc::gauge("node_zoneinfo_nr_mapped_pages", "Number of mapped pages")),
    ("nr_dirty", Desc::gauge("node_zoneinfo_nr_dirty_pages", "Number of dirty pages")),
    ("nr_writeback", Desc::gauge("node_zoneinfo_nr_writeback_pages", "Number of writeback pages")),
    (
        "nr_unevictable",
        Desc::gauge("node_zoneinfo_nr_unevictable_pages", "Number of unevictable pages"),
    ),
    (
        "nr_shmem",
        Desc::gauge(
            "node_zoneinfo_nr_shmem_pages",
            "Number of shmem pages (included tmpfs/GEM pages)",
        ),
    ),
    ("nr_dirtied", Desc::counter("node_zoneinfo_nr_dirtied_total", "Page dirtyings since bootup")),
    ("nr_written", Desc::counter("node_zoneinfo_nr_written_total", "Page writings since bootup")),
    ("numa_hit", Desc::counter("node_zoneinfo_numa_hit_total", "Allocated in intended node")),
    ("numa_miss", Desc::counter("node_zoneinfo_numa_miss_total", "Allocated in non intended node")),
    (
        "numa_foreign",
        Desc::counter("node_zoneinfo_numa_foreign_total", "Was intended here, hit elsewhere"),
    ),
    (
        "numa_interleave",
        Desc::counter("node_zoneinfo_numa_interleave_total", "Interleaver preferred this zone"),
    ),
    ("numa_local", Desc::counter("node_zoneinfo_numa_local_total", "Allocation from local node")),
    ("numa_other", Desc::counter("node_zoneinfo_numa_other_total", "Allocation from other node")),
];

/// What each zone keeps from allocations that could use another one; there are six zones at most.
const PROTECTION: [Desc; 6] = [
    Desc::gauge("node_zoneinfo_protection_0", "Protection array 0. field"),
    Desc::gauge("node_zoneinfo_protection_1", "Protection array 1. field"),
    Desc::gauge("node_zoneinfo_protection_2", "Protection array 2. field"),
    Desc::gauge("node_zoneinfo_protection_3", "Protection array 3. field"),
    Desc::gauge("node_zoneinfo_protection_4", "Protection array 4. field"),
    Desc::gauge("node_zoneinfo_protection_5", "Protection array 5. field"),
];

/// Pages by zone.
#[derive(Default)]
pub(super) struct Zoneinfo {
    texts: Texts,
    zones: Vec<Zone>,
}

struct Zone {
    node: Span,
    zone: Span,
    values: [Option<u64>; KEYS.len()],
    protection: [Option<u64>; PROTECTION.len()],
}

impl Collector for Zoneinfo {
    fn collect(&mut self, host: &mut Host, out: &mut Samples) -> Result<(), CollectError> {
        let mut errors = FirstError::default();
        self.texts.clear();
        self.zones.clear();
        for line in lines(whole(FILE, host.proc("zoneinfo")?, &mut errors)) {
            self.line(line).unwrap_or_else(|error| errors.note(error));
        }
        self.write(out);
        errors.result()
    }
}

impl Zoneinfo {
    fn line(&mut self, line: &[u8]) -> Result<(), CollectError> {
        if line.starts_with(b"Node") {
            let (node, zone) = zone_of(&mut fields(line))
                .ok_or_else(|| malformed(FILE, line, "Node N, zone NAME"))?;
            self.zones.push(Zone {
                node: self.texts.keep(&text(node)),
                zone: self.texts.keep(&text(zone)),
                values: [None; KEYS.len()],
                protection: [None; PROTECTION.len()],
            });
            return Ok(());
        }
        let mut words = fields(line);
        let key = words.next().unwrap_or_default();
        let Some(zone) = self.zones.last_mut() else {
            return Err(malformed(FILE, line, "a line Node before it"));
        };
        if key == b"protection:" {
            for (place, word) in zone.protection.iter_mut().zip(words) {
                let token = word.strip_prefix(b"(").unwrap_or(word);
                let token = token.strip_suffix(b")").or(token.strip_suffix(b",")).unwrap_or(token);
                let value = unsigned(token);
                *place =
                    Some(value.ok_or_else(|| malformed(FILE, line, "numbers in parentheses"))?);
            }
            return Ok(());
        }
        let known = KEYS.iter().zip(&mut zone.values).find(|((name, _), _)| name.as_bytes() == key);
        if let Some((_, place)) = known {
            let value = words.next().and_then(unsigned);
            *place = Some(value.ok_or_else(|| malformed(FILE, line, "a key and a number"))?);
        }
        Ok(())
    }

    fn write(&self, out: &mut Samples) {
        let mut family = |desc: &Desc, value: &dyn Fn(&Zone) -> Option<u64>| {
            let mut family = out.family(desc);
            for zone in &self.zones {
                if let Some(value) = value(zone) {
                    let labels =
                        [("node", self.texts.get(zone.node)), ("zone", self.texts.get(zone.zone))];
                    family.add(&labels, value as f64);
                }
            }
        };
        for (index, (_, desc)) in KEYS.iter().enumerate() {
            family(desc, &|zone| zone.values.get(index).copied().flatten());
        }
        for (index, desc) in PROTECTION.iter().enumerate() {
            family(desc, &|zone| zone.protection.get(index).copied().flatten());
        }
    }
}

#[cfg(test)]
mod tests {
    use super::super::testing::Tree;
    use super::*;

    #[test]
    fn malformed_lines_cost_themselves() {
        let file = "  min 3\nNode 0, zone DMA\n  pages free 9\n        min      x\n        low 5\n\
                    \x20       protection: (0, 3019, y)\n  pagesets\n    high: 7\n\
                    Node 1,\nNode 1, zone Normal\n  numa_hit 18446744073709551615\n";
        let (text, result) = Tree::new(&[(FILE, file)]).collect(&mut Zoneinfo::default());
        assert_eq!(
            text,
            [
                "node_zoneinfo_low_pages{node=\"0\",zone=\"DMA\"} 5",
                "node_zoneinfo_numa_hit_total{node=\"1\",zone=\"Normal\"} 18446744073709552000",
                "node_zoneinfo_protection_0{node=\"0\",zone=\"DMA\"} 0",
                "node_zoneinfo_protection_1{node=\"0\",zone=\"DMA\"} 3019",
            ]
        );
        assert!(result.unwrap_err().to_string().contains("min 3"));
    }
}
