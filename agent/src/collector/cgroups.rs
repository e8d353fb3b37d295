//! node_exporter's `cgroups`, from /proc/cgroups (kernel/cgroup/cgroup-v1.c): how many control groups each
//! controller has. The help text of `enabled` is node_exporter's own slip.

use super::parse::{FirstError, fields, lines, malformed, text, unsigned, whole};
use super::{CollectError, Collector};
use crate::host::Host;
use crate::model::{Desc, Samples};

const FILE: &str = "proc/cgroups";

/// The columns behind name and hierarchy.
const COLUMNS: [Desc; 2] = [
    Desc::gauge("node_cgroups_cgroups", "Current cgroup number of the subsystem."),
    Desc::gauge("node_cgroups_enabled", "Current cgroup number of the subsystem."),
];

/// Controllers and their control groups.
pub(super) struct Cgroups;

impl Collector for Cgroups {
    fn collect(&mut self, host: &mut Host, out: &mut Samples) -> Result<(), CollectError> {
        let mut errors = FirstError::default();
        let bytes = whole(FILE, host.proc("cgroups")?, &mut errors);
        for (index, desc) in COLUMNS.iter().enumerate() {
            let mut family = out.family(desc);
            for line in lines(bytes).filter(|line| !line.starts_with(b"#")) {
                let mut columns = fields(line);
                let name = columns.next().unwrap_or_default();
                match columns.nth(1 + index).and_then(unsigned) {
                    Some(value) => {
                        family.add(&[("subsys_name", &text(name))], value as f64);
                    }
                    None => errors.note(malformed(FILE, line, "a name and three numbers")),
                }
            }
        }
        errors.result()
    }
}

#[cfg(test)]
mod tests {
    use super::super::testing::Tree;
    use super::*;

    #[test]
    fn a_malformed_controller_leaves_the_others() {
        let file = "#subsys_name\thierarchy\tnum_cgroups\tenabled\ncpu\t0\t71\t\npids 0 5 1\n";
        let (text, result) = Tree::new(&[(FILE, file)]).collect(&mut Cgroups);
        assert_eq!(
            text,
            [
                "node_cgroups_cgroups{subsys_name=\"cpu\"} 71",
                "node_cgroups_cgroups{subsys_name=\"pids\"} 5",
                "node_cgroups_enabled{subsys_name=\"pids\"} 1",
            ]
        );
        assert!(result.unwrap_err().to_string().contains("cpu\\t0\\t71"));
    }
}
