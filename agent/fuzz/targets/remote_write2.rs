//! libFuzzer's door to [`mote_fuzz::remote_write2`].
#![no_main]

libfuzzer_sys::fuzz_target!(|data: &[u8]| mote_fuzz::remote_write2(data));
