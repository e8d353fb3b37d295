//! The contract between the BPF programs and the agent: map keys, map values and events.
//!
//! Every struct is `#[repr(C, align(8))]` with fixed-width fields and explicit padding, because the
//! kernel side is compiled for a 64-bit target and the agent may be a 32-bit ARM program. It must not
//! know aya, the standard library or anything of the agent.
#![no_std]

pub mod block;

/// The offset of a field that the running kernel's tracepoint does not have.
pub const ABSENT: u32 = u32::MAX;
