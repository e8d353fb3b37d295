//! node_exporter's `meminfo_numa`, from meminfo and numastat of each node in /sys/devices/system/node
//! (drivers/base/node.c): a gauge, or a counter, for every line.
//!
//! The bytes have no unit in their names, as in node_exporter.

use std::fmt::Write as _;

use super::parse::{FirstError, Span, Texts, fields, lines, malformed, named, unsigned};
use super::{CollectError, Collector};
use crate::host::{Host, Names, Root};
use crate::model::{Kind, Samples};
use crate::sort;

const DIRECTORY: &str = "devices/system/node";
const PREFIX: &str = "node_memory_numa_";

/// Memory by NUMA node.
#[derive(Default)]
pub(super) struct MeminfoNuma {
    nodes: Names,
    texts: Texts,
    rows: Vec<Row>,
    word: String,
}

struct Row {
    /// The family's name without its prefix.
    name: Span,
    kind: Kind,
    /// Place in `nodes`.
    node: usize,
    value: f64,
}

impl Collector for MeminfoNuma {
    fn collect(&mut self, host: &mut Host, out: &mut Samples) -> Result<(), CollectError> {
        let mut errors = FirstError::default();
        host.list(Root::Sys, DIRECTORY, &mut self.nodes)?;
        self.texts.clear();
        self.rows.clear();
        for (place, node) in self.nodes.iter().enumerate() {
            if number_of(node).is_none() {
                continue;
            }
            for (file, kind) in [("meminfo", Kind::Gauge), ("numastat", Kind::Counter)] {
                let path = format_args!("{DIRECTORY}/{node}/{file}");
                for line in lines(host.find(Root::Sys, path).unwrap_or_default()) {
                    let value = match kind {
                        Kind::Counter => counter(line, &mut self.word),
                        _ => gauge(line, &mut self.word),
                    };
                    match value {
                        Ok(value) => {
                            let name = self.texts.keep(&self.word);
                            self.rows.push(Row { name, kind, node: place, value });
                        }
                        Err(expected) => {
                            errors.note(malformed(&named(Root::Sys, path), line, expected));
                        }
                    }
                }
            }
        }
        self.write(out);
        errors.result()
    }
}

impl MeminfoNuma {
    fn write(&mut self, out: &mut Samples) {
        let texts = &self.texts;
        // A family's samples together, those of the first node first.
        sort::unstable_by_key(&mut self.rows, |row| (texts.get(row.name), row.node));
        let mut help = std::mem::take(&mut self.word);
        let mut name = heapless::String::<128>::new();
        for row in &self.rows {
            let field = texts.get(row.name);
            name.clear();
            help.clear();
            // A name that is too long was refused; writing to a String can't fail.
            let _ = write!(name, "{PREFIX}{field}");
            let _ = write!(help, "Memory information field {field}.");
            let node = self.nodes.get(row.node).and_then(number_of).unwrap_or_default();
            out.family_named(&name, &help, row.kind).add(&[("node", node)], row.value);
        }
        self.word = help;
    }
}

/// The number of a directory such as `node0`.
fn number_of(name: &str) -> Option<&str> {
    name.strip_prefix("node").filter(|number| unsigned(number.as_bytes()).is_some())
}

/// Puts the key of a line such as `Node 0 Active(anon):  1234 kB` as `Active_anon`, and gives bytes.
fn gauge(line: &[u8], word: &mut String) -> Result<f64, &'static str> {
    let mut columns = fields(line).skip(2);
    let key = columns.next().and_then(|key| key.strip_suffix(b":")).unwrap_or_default();
    put(key, word)?;
    let value = columns.next().and_then(unsigned).ok_or("a key and a number")? as f64;
    match columns.next() {
        None => Ok(value),
        Some(b"kB") => Ok(value * 1024.0),
        Some(_) => Err("kB or nothing"),
    }
}

/// As [`gauge`], of a line such as `numa_hit 1234`.
fn counter(line: &[u8], word: &mut String) -> Result<f64, &'static str> {
    let mut columns = fields(line);
    put(columns.next().unwrap_or_default(), word)?;
    word.push_str("_total");
    columns.next().and_then(unsigned).map(|value| value as f64).ok_or("a key and a number")
}

fn put(key: &[u8], word: &mut String) -> Result<(), &'static str> {
    word.clear();
    for &byte in key {
        match byte {
            b'(' => word.push('_'),
            b')' => {}
            _ if byte.is_ascii_alphanumeric() || byte == b'_' => word.push(char::from(byte)),
            _ => return Err("a key of letters, digits and underscores"),
        }
    }
    if word.is_empty() || word.len() > 64 {
        Err("a key of letters, digits and underscores")
    } else {
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::super::testing::Tree;
    use super::*;

    #[test]
    fn malformed_lines_cost_themselves_and_families_stay_together() {
        let tree = Tree::new(&[
            ("sys/devices/system/node/online", "0-1\n"),
            (
                "sys/devices/system/node/node0/meminfo",
                "Node 0 Active(anon):   2 kB\nNode 0 HugePages_Total: 3\nNode 0 Mem-Free: 1 kB\n\
                 Node 0 MemFree: 1 MB\nNode 0\nNode 0 MemUsed:",
            ),
            ("sys/devices/system/node/node1/meminfo", "Node 1 Active(anon):   4 kB\n"),
            ("sys/devices/system/node/node1/numastat", "numa_hit 5\nnuma_miss\n"),
        ]);
        let (text, result) = tree.collect(&mut MeminfoNuma::default());
        assert_eq!(
            text,
            [
                "node_memory_numa_Active_anon{node=\"0\"} 2048",
                "node_memory_numa_Active_anon{node=\"1\"} 4096",
                "node_memory_numa_HugePages_Total{node=\"0\"} 3",
                "node_memory_numa_numa_hit_total{node=\"1\"} 5",
            ]
        );
        let error = result.unwrap_err().to_string();
        assert!(error.contains("node0/meminfo") && error.contains("Mem-Free"), "{error}");
    }

    #[test]
    fn a_key_of_any_length_is_bounded() {
        let long = format!("Node 0 {}: 1\n", "x".repeat(70));
        let tree = Tree::new(&[("sys/devices/system/node/node0/meminfo", long.as_str())]);
        let (text, result) = tree.collect(&mut MeminfoNuma::default());
        assert!(text.is_empty() && result.is_err());
    }
}
