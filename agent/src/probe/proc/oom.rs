//! OOM kills from /proc/vmstat: `oom_kill`, from 4.13 on, of the whole host
//! (count_vm_event(OOM_KILL) in mm/oom_kill.c).

use super::{ProcError, fields, lines, unsigned};
use crate::host::Host;

const FILE: &str = "vmstat";

/// How many processes were killed for want of memory, without who.
#[derive(Clone, Copy, Debug, Default)]
pub struct OomCount {
    last: Option<u64>,
}

impl OomCount {
    /// How many were killed since the last look; none where the kernel does not count them. The first
    /// look gives 0, whatever was before.
    ///
    /// # Errors
    /// The file can't be read, or the count is no number.
    pub fn look(&mut self, host: &mut Host) -> Result<Option<u64>, ProcError> {
        for line in lines(host.proc(FILE)?) {
            let mut fields = fields(line);
            if fields.next() != Some(b"oom_kill") {
                continue;
            }
            let count = fields.next().and_then(unsigned);
            let count = count.ok_or_else(|| ProcError::malformed(FILE, line))?;
            let last = self.last.replace(count).unwrap_or(count);
            // It is an unsigned long, which is 32 bits wide on some; it never wraps in a life.
            return Ok(Some(count.saturating_sub(last)));
        }
        Ok(None)
    }
}
