//! Messages of the block layer (block/blk-core.c, blk_update_request and print_req_error; from 5.16
//! block/blk-mq.c, blk_print_req_error).
//!
//! ```text
//! end_request: I/O error, dev sda, sector 9                                              before 4.x
//! blk_update_request: critical medium error, dev sda, sector 9                         4.x to 4.12
//! print_req_error: I/O error, dev sda, sector 9 flags 80700                           4.13 to 5.0
//! blk_update_request: I/O error, dev sda, sector 9 op 0x0:(READ) flags 0x0 phys_seg 1 prio class 0
//! I/O error, dev sda, sector 9 op 0x1:(WRITE) flags 0x800 phys_seg 1 prio class 2      from 5.17
//! blk_update_request: 12 callbacks suppressed
//! ```
//!
//! The kernel writes ten of them in 5 s for all devices and then says how many it has left out; those
//! are counted for the device `unknown`, and make no event.

use memchr::memchr_iter;

use super::notice::{IoError, Notice};
use super::scan::Scan;

/// The device of lines that were left out.
pub(super) const UNKNOWN: &str = "unknown";

/// No function's name and error together is longer.
const HEAD: usize = 64;

/// The kernel's words for a blk_status_t and the errno that it stands for (blk_errors in
/// block/blk-core.c), which is what the tracepoints give. An empty one is no fault of a device's: a
/// request that must not wait, or an operation that the device does not have.
const ERRORS: [(&str, &str); 20] = [
    ("I/O", "EIO"),
    ("critical medium", "ENODATA"),
    ("timeout", "ETIMEDOUT"),
    ("critical target", "EREMOTEIO"),
    ("critical space allocation", "ENOSPC"),
    ("recoverable transport", "ENOLINK"),
    ("device offline", "ENODEV"),
    ("critical nexus", "EBADE"),
    ("reservation conflict", "EBADE"),
    ("protection", "EILSEQ"),
    ("kernel resource", "ENOMEM"),
    ("device resource", "EBUSY"),
    ("zone resource", "EBUSY"),
    ("open zones exceeded", "ETOOMANYREFS"),
    ("active zones exceeded", "EOVERFLOW"),
    ("duration limit exceeded", "ETIME"),
    ("dm internal retry", "EREMCHG"),
    ("invalid", "EINVAL"),
    ("operation not supported", ""),
    ("nonblocking retry", ""),
];

/// REQ_OP_… without its prefix (blk_op_name in block/blk-core.c).
const OPERATIONS: [(&str, &str); 6] = [
    ("READ", "read"),
    ("WRITE", "write"),
    ("WRITE_ZEROES", "write"),
    ("FLUSH", "flush"),
    ("DISCARD", "discard"),
    ("SECURE_ERASE", "discard"),
];

pub(super) fn look(text: &str) -> Option<(Notice, u64)> {
    if text.ends_with(SUPPRESSED) {
        return suppressed(text);
    }
    let head = text.as_bytes().get(..HEAD).unwrap_or(text.as_bytes());
    // A comma is rare, and found faster than the words around it.
    let is_ours = |at: &usize| {
        head.get(..*at).is_some_and(|before| before.ends_with(b" error"))
            && text.as_bytes().get(*at..).is_some_and(|rest| rest.starts_with(b", dev "))
    };
    let at = memchr_iter(b',', head).find(is_ours)?;
    let (what, rest) = text.split_at_checked(at)?;
    let what = what.strip_suffix(" error")?;
    let what =
        FUNCTIONS.iter().find_map(|f| what.strip_prefix(f)?.strip_prefix(": ")).unwrap_or(what);
    let error = word(&ERRORS, what).filter(|error| !error.is_empty())?;
    let mut scan = Scan(rest);
    scan.tag(", dev ")?;
    let device = scan.until(", sector ")?.to_owned();
    let sector = scan.number();
    let operation = match scan.until(":(").and_then(|_| scan.until(")")) {
        Some(operation) => word(&OPERATIONS, operation).unwrap_or("other"),
        None => "unknown",
    };
    let message = text.to_owned();
    Some((Notice::IoError(IoError { device, sector, operation, error, message }), 1))
}

const FUNCTIONS: [&str; 4] =
    ["blk_update_request", "print_req_error", "blk_print_req_error", "end_request"];
const SUPPRESSED: &str = " callbacks suppressed";

fn suppressed(text: &str) -> Option<(Notice, u64)> {
    let mut scan = Scan(text);
    let function = scan.until(": ")?;
    if !FUNCTIONS.contains(&function) {
        return None;
    }
    let count = scan.number()?;
    (scan.0 == SUPPRESSED).then_some(())?;
    let io = IoError {
        device: UNKNOWN.to_owned(),
        sector: None,
        operation: "unknown",
        error: "unknown",
        message: text.to_owned(),
    };
    Some((Notice::IoError(io), count))
}

fn word(table: &[(&str, &'static str)], of: &str) -> Option<&'static str> {
    table.iter().find(|(words, _)| *words == of).map(|(_, word)| *word)
}
