//! node_exporter's `buddyinfo`, from /proc/buddyinfo (mm/vmstat.c): free blocks of 2 to the power of `size`
//! pages, by zone.

use super::parse::{FirstError, decimal, fields, lines, malformed, text, unsigned, whole};
use super::{CollectError, Collector};
use crate::host::Host;
use crate::model::{Desc, Samples};

const FILE: &str = "proc/buddyinfo";
const BLOCKS: Desc =
    Desc::gauge("node_buddyinfo_blocks", "Count of free blocks according to size.");

/// Free blocks of memory by size.
pub(super) struct Buddyinfo;

impl Collector for Buddyinfo {
    fn collect(&mut self, host: &mut Host, out: &mut Samples) -> Result<(), CollectError> {
        let mut errors = FirstError::default();
        let bytes = whole(FILE, host.proc("buddyinfo")?, &mut errors);
        let mut family = out.family(&BLOCKS);
        for line in lines(bytes) {
            let mut words = fields(line);
            let Some((node, zone)) = zone_of(&mut words) else {
                errors.note(malformed(FILE, line, "Node N, zone NAME"));
                continue;
            };
            let (node, zone) = (text(node), text(zone));
            for (size, token) in (0u64..).zip(words) {
                let Some(blocks) = unsigned(token) else {
                    errors.note(malformed(FILE, line, "a number for each size"));
                    break;
                };
                let labels = [("node", &*node), ("zone", &zone), ("size", &decimal(size))];
                family.add(&labels, blocks as f64);
            }
        }
        errors.result()
    }
}

/// Node and zone of a line that begins with `Node 0, zone DMA`.
pub(super) fn zone_of<'a>(
    words: &mut impl Iterator<Item = &'a [u8]>,
) -> Option<(&'a [u8], &'a [u8])> {
    words.next().filter(|word| *word == b"Node")?;
    let node = words.next()?.strip_suffix(b",").filter(|node| unsigned(node).is_some())?;
    words.next().filter(|word| *word == b"zone")?;
    Some((node, words.next()?))
}

#[cfg(test)]
mod tests {
    use super::super::testing::Tree;
    use super::*;

    #[test]
    fn a_malformed_zone_leaves_the_others() {
        let file =
            "Node x, zone DMA 1\nNode 0, zone\nNode 0, zone DMA 5 -1 2\nNode 1, zone Normal 7\n";
        let (text, result) = Tree::new(&[(FILE, file)]).collect(&mut Buddyinfo);
        assert_eq!(
            text,
            [
                "node_buddyinfo_blocks{node=\"0\",size=\"0\",zone=\"DMA\"} 5",
                "node_buddyinfo_blocks{node=\"1\",size=\"0\",zone=\"Normal\"} 7",
            ]
        );
        assert!(result.unwrap_err().to_string().contains("Node x, zone DMA 1"));
    }
}
