//! libFuzzer's door to [`mote_fuzz::log_position`].
#![no_main]

libfuzzer_sys::fuzz_target!(|data: &[u8]| mote_fuzz::log_position(data));
