//! libFuzzer's door to [`mote_fuzz::runtime`].
#![no_main]

libfuzzer_sys::fuzz_target!(|data: &[u8]| mote_fuzz::runtime(data));
