//! What programs miss because another one runs on their CPU: the kernel's own count. Knows fdinfo files.

use std::fmt::Write as _;
use std::fs;
use std::io::Read as _;
use std::os::fd::{AsRawFd as _, OwnedFd};

/// Events that came while another program of perf's ran on the same CPU, which the kernel counts in
/// `recursion_misses` of the program's fdinfo (bpf_prog_show_fdinfo in kernel/bpf/syscall.c, 5.12 and
/// later; tracepoints count from 5.17 on). `text` is memory to use.
pub(super) fn nested(programs: &[OwnedFd], text: &mut String) -> u64 {
    let mut sum: u64 = 0;
    for program in programs {
        text.clear();
        // The path of this process' own /proc, which need not be the host's.
        let _ = write!(text, "/proc/self/fdinfo/{}", program.as_raw_fd());
        let Ok(mut file) = fs::File::open(text.as_str()) else { continue };
        text.clear();
        if file.read_to_string(text).is_err() {
            continue;
        }
        sum += recursion_misses(text).unwrap_or(0);
    }
    sum
}

fn recursion_misses(fdinfo: &str) -> Option<u64> {
    fdinfo.lines().find_map(|line| line.strip_prefix("recursion_misses:"))?.trim().parse().ok()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn recursion_misses_are_read_where_the_kernel_counts_them() {
        let fdinfo = "pos:\t0\nprog_type:\t5\nrun_cnt:\t7\nrecursion_misses:\t12\n";
        assert_eq!(recursion_misses(fdinfo), Some(12));
        assert_eq!(recursion_misses("run_cnt:\t7\n"), None);
        assert_eq!(recursion_misses("recursion_misses:\tx\n"), None);
    }
}
