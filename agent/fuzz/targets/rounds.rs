//! libFuzzer's door to [`mote_fuzz::rounds`].
#![no_main]

libfuzzer_sys::fuzz_target!(|data: &[u8]| mote_fuzz::rounds(data));
