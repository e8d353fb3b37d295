//! node_exporter's `filefd`, from /proc/sys/fs/file-nr (fs/file_table.c): file handles in use, a zero that
//! stands for free ones since Linux 2.6, and the most there may be.

use super::parse::{FirstError, fields, malformed, unsigned};
use super::{CollectError, Collector};
use crate::host::Host;
use crate::model::{Desc, Samples};

const FILE: &str = "proc/sys/fs/file-nr";
const ALLOCATED: Desc =
    Desc::gauge("node_filefd_allocated", "File descriptor statistics: allocated.");
const MAXIMUM: Desc = Desc::gauge("node_filefd_maximum", "File descriptor statistics: maximum.");

/// Open files of the whole system.
pub(super) struct Filefd;

impl Collector for Filefd {
    fn collect(&mut self, host: &mut Host, out: &mut Samples) -> Result<(), CollectError> {
        let mut errors = FirstError::default();
        let bytes = host.proc("sys/fs/file-nr")?;
        let mut columns = fields(bytes);
        let (allocated, maximum) = (columns.next(), columns.nth(1));
        for (desc, token) in [(ALLOCATED, allocated), (MAXIMUM, maximum)] {
            match token.and_then(unsigned) {
                Some(value) => out.value(&desc, value as f64),
                None => errors.note(malformed(FILE, token.unwrap_or(bytes), "three numbers")),
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
    fn a_cut_line_and_a_limit_of_all_bits() {
        let file = "proc/sys/fs/file-nr";
        let (text, result) =
            Tree::new(&[(file, "992\t0\t9223372036854775807\n")]).collect(&mut Filefd);
        assert_eq!(text, ["node_filefd_allocated 992", "node_filefd_maximum 9223372036854776000"]);
        assert!(result.is_ok());
        for cut in ["", "x", "992", "992\t0", "992\t0\t-1"] {
            let (text, result) = Tree::new(&[(file, cut)]).collect(&mut Filefd);
            assert!(result.unwrap_err().to_string().contains(file));
            assert_eq!(text.len(), usize::from(cut.starts_with('9')), "{cut:?}");
        }
    }
}
