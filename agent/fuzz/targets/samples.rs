//! libFuzzer's door to [`mote_fuzz::samples`].
#![no_main]

libfuzzer_sys::fuzz_target!(|data: &[u8]| mote_fuzz::samples(data));
