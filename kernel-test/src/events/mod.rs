//! What the probes watch, caused for real: each function makes it happen, looks at the kernel's own
//! account, and compares.

pub(crate) mod block;
pub(crate) mod faults;
pub(crate) mod health;
pub(crate) mod memory;
pub(crate) mod oom;
pub(crate) mod tcp;
