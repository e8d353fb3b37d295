//! What the programs say for those who work on them: a line of the agent's own log at level debug. Only in
//! the object that is built with the feature `debug-log`; without it nothing is left of a line.
//!
//! Only numbers are said, and only where something rare happens. The agent ends at a record that it can't
//! read, such as text of the kernel's that is not UTF-8; and what is said for each request fills the buffer.

/// `say!(&ctx, "text with {}", number)`. The arguments are not evaluated where nothing is said.
#[cfg(feature = "debug-log")]
macro_rules! say {
    ($($message:tt)+) => {
        aya_log_ebpf::debug!($($message)+)
    };
}

#[cfg(not(feature = "debug-log"))]
macro_rules! say {
    ($($message:tt)+) => {};
}

pub(crate) use say;
