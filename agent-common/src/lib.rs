//! The contract between the BPF programs and the agent: map keys, map values and events.
//!
//! Every struct is `#[repr(C, align(8))]` with fixed-width fields and explicit padding, because the
//! kernel side is compiled for a 64-bit target and the agent may be a 32-bit ARM program. It must not
//! know aya, the standard library or anything of the agent.
#![no_std]

pub mod block;
pub mod direct;
pub mod event;
pub mod filesystem;
pub mod histogram;
pub mod mmc;
pub mod oom;
pub mod plain;
pub mod reclaim;
pub mod scsi;
pub mod tcp;
pub mod thermal;

/// The place of a field that the running kernel's tracepoint does not have.
pub const ABSENT: u32 = u32::MAX;

/// What a global that takes a field's place holds: the field's offset, and its size above that.
pub const fn field_place(offset: u16, size: u8) -> u32 {
    (size as u32) << 16 | offset as u32
}

/// The offset of a field's place in bytes.
#[inline(always)]
pub const fn field_offset(place: u32) -> usize {
    (place & 0xffff) as usize
}

/// The size of a field's place in bytes.
#[inline(always)]
pub const fn field_size(place: u32) -> u32 {
    place >> 16
}
