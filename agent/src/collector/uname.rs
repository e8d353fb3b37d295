//! node_exporter's `uname`, from the system call of that name (kernel/sys.c).

use super::{CollectError, Collector};
use crate::host::Host;
use crate::model::{Desc, Samples};

const INFO: Desc = Desc::gauge(
    "node_uname_info",
    "Labeled system information as provided by the uname system call.",
);

/// Who this kernel says it is.
pub(super) struct Uname;

impl Collector for Uname {
    fn collect(&mut self, _host: &mut Host, out: &mut Samples) -> Result<(), CollectError> {
        let uname = rustix::system::uname();
        out.family(&INFO).add(
            &[
                ("sysname", &uname.sysname().to_string_lossy()),
                ("release", &uname.release().to_string_lossy()),
                ("version", &uname.version().to_string_lossy()),
                ("machine", &uname.machine().to_string_lossy()),
                ("nodename", &uname.nodename().to_string_lossy()),
                ("domainname", &uname.domainname().to_string_lossy()),
            ],
            1.0,
        );
        Ok(())
    }
}
