//! Reading a tracepoint's record at the offsets that the agent has found on the running kernel.

use agent_common::{ABSENT, field_offset, field_size};
use aya_ebpf::helpers::generated::bpf_probe_read_kernel_str;
use aya_ebpf::programs::TracePointContext;
use aya_ebpf::{EbpfContext as _, Global};

/// A field of plain bytes; None where this kernel does not have it.
#[inline(always)]
pub(crate) fn field<T>(ctx: &TracePointContext, offset: &Global<u32>) -> Option<T> {
    let place = offset.load();
    if place == ABSENT {
        return None;
    }
    // SAFETY: the helper checks the address, and every T asked for is plain bytes.
    unsafe { ctx.read_at(field_offset(place)) }.ok()
}

/// An `unsigned long`, which has 4 bytes on 32-bit kernels.
#[inline(always)]
pub(crate) fn word(ctx: &TracePointContext, offset: &Global<u32>) -> Option<u64> {
    let place = offset.load();
    if place == ABSENT {
        return None;
    }
    let at = field_offset(place);
    // SAFETY: as in `field`.
    unsafe {
        if field_size(place) == 4 {
            ctx.read_at::<u32>(at).ok().map(u64::from)
        } else {
            ctx.read_at(at).ok()
        }
    }
}

/// A string that the record keeps behind its fields (`__data_loc`: length << 16 | offset), into `text`,
/// closed with NUL. Left as it is where this kernel does not have it.
#[inline(always)]
pub(crate) fn text<const N: usize>(
    ctx: &TracePointContext,
    offset: &Global<u32>,
    text: &mut [u8; N],
) {
    let Some(location) = field::<u32>(ctx, offset) else { return };
    let at = (location & 0xffff) as usize;
    // SAFETY: the helper checks the source, and writes no more than the N bytes of `text`.
    unsafe {
        let source = ctx.as_ptr().add(at);
        bpf_probe_read_kernel_str(text.as_mut_ptr().cast(), N as u32, source);
    }
}

/// Reads `$size` bytes of the context at the number of a field, a constant of `agent_common::direct`.
macro_rules! direct {
    ($ctx:expr, u8, $field:expr) => {
        crate::fields::direct!(@ $ctx, "{0} = *(u8 *)({1} + {2})", $field) as u8
    };
    ($ctx:expr, u32, $field:expr) => {
        crate::fields::direct!(@ $ctx, "{0} = *(u32 *)({1} + {2})", $field) as u32
    };
    ($ctx:expr, u64, $field:expr) => {
        crate::fields::direct!(@ $ctx, "{0} = *(u64 *)({1} + {2})", $field)
    };
    (@ $ctx:expr, $load:literal, $field:expr) => {{
        let value: u64;
        // SAFETY: a load from the context, whose bounds the verifier checks.
        unsafe {
            core::arch::asm!(
                $load,
                out(reg) value,
                in(reg) aya_ebpf::EbpfContext::as_ptr($ctx),
                const $field,
                options(pure, readonly, nostack, preserves_flags),
            );
        }
        value
    }};
}
pub(crate) use direct;
