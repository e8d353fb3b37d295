//! libFuzzer's door to [`mote_fuzz::stages`].
#![no_main]

libfuzzer_sys::fuzz_target!(|data: &[u8]| mote_fuzz::stages(data));
