//! The BPF programs of Mote: one file for each tracepoint family, compiled to one object.
//!
//! The rules of this crate: no loop without a constant bound, no subprogram call, no 64-bit division
//! (32-bit kernels run the interpreter or a JIT that refuses them), no event that wakes user space
//! where a count in a map will do. Offsets of tracepoint fields are never written here: the agent
//! reads them from the running kernel's format files and sets the globals when it loads the object.
//!
//! Fields are read one at a time, each with its own way out: where two are matched together, the compiler
//! copies the second before it has looked at the first, and verifiers before 6.3 refuse a program that reads
//! bytes of its stack that were never written.
#![no_std]
#![no_main]
#![feature(asm_experimental_arch)]

mod block;
mod errors;
mod event;
mod fields;
mod filesystem;
mod mmc;
mod oom;
mod reclaim;
mod say;
mod scsi;
mod tcp;
mod thermal;

/// The kernel gives `bpf_probe_read_kernel` and its kin to programs under a GPL-compatible licence
/// only; the user's choice of two is the usual declaration.
#[unsafe(link_section = "license")]
#[unsafe(no_mangle)]
static LICENSE: [u8; 13] = *b"Dual MIT/GPL\0";

#[cfg(target_arch = "bpf")]
#[panic_handler]
fn panic(_: &core::panic::PanicInfo<'_>) -> ! {
    loop {}
}
