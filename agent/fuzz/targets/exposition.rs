//! libFuzzer's door to [`mote_fuzz::exposition`].
#![no_main]

libfuzzer_sys::fuzz_target!(|data: &[u8]| mote_fuzz::exposition(data));
