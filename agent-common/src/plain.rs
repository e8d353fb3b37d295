//! Types that are plain bytes: what maps hold and what the kernel copies.

/// A type for which every pattern of bytes is a value, and every byte of a value is initialised.
///
/// # Safety
/// A `repr(C)` struct of integers and arrays of integers without padding, or such an integer.
#[expect(unsafe_code, reason = "a promise that the compiler can't check")]
pub unsafe trait Plain: Copy + 'static {}

#[expect(unsafe_code, reason = "a promise that the compiler can't check")]
// SAFETY: an integer.
unsafe impl Plain for u64 {}

#[expect(unsafe_code, reason = "a promise that the compiler can't check")]
// SAFETY: an integer.
unsafe impl Plain for u32 {}

/// Declares structs of this crate to be [`Plain`]. Each asserts its size, so that there is no padding.
macro_rules! plain {
    ($($name:ty),+) => {$(
        #[expect(unsafe_code, reason = "a promise that the compiler can't check")]
        // SAFETY: repr(C), of integers and of structs that are plain, and its size is asserted.
        unsafe impl crate::plain::Plain for $name {}
    )+};
}
pub(crate) use plain;
