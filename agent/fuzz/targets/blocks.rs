//! libFuzzer's door to [`mote_fuzz::blocks`].
#![no_main]

libfuzzer_sys::fuzz_target!(|data: &[u8]| mote_fuzz::blocks(data));
