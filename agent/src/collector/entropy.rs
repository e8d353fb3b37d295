//! node_exporter's `entropy`, from /proc/sys/kernel/random (drivers/char/random.c). Since Linux 5.18
//! both numbers are 256 once the generator has been seeded.

use super::parse::{FirstError, number};
use super::{CollectError, Collector};
use crate::host::{Host, Root};
use crate::model::{Desc, Samples};

const FILES: [(&str, Desc); 2] = [
    ("entropy_avail", Desc::gauge("node_entropy_available_bits", "Bits of available entropy.")),
    ("poolsize", Desc::gauge("node_entropy_pool_size_bits", "Bits of entropy pool.")),
];

/// The bits that the kernel's random number generator has.
pub(super) struct Entropy;

impl Collector for Entropy {
    fn collect(&mut self, host: &mut Host, out: &mut Samples) -> Result<(), CollectError> {
        host.proc("sys/kernel/random/entropy_avail")?;
        let mut errors = FirstError::default();
        for (file, desc) in FILES {
            let path = format_args!("sys/kernel/random/{file}");
            if let Some(bits) = number(host, Root::Proc, path, &mut errors) {
                out.value(&desc, bits as f64);
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
    fn a_malformed_pool_size_leaves_the_other() {
        let tree = Tree::new(&[
            ("proc/sys/kernel/random/entropy_avail", "256\n"),
            ("proc/sys/kernel/random/poolsize", "all\n"),
        ]);
        let (text, result) = tree.collect(&mut Entropy);
        assert_eq!(text, ["node_entropy_available_bits 256"]);
        let error = result.unwrap_err().to_string();
        assert!(error.contains("proc/sys/kernel/random/poolsize") && error.contains("all"));
    }
}
