//! libFuzzer's door to [`mote_fuzz::stage_replace`].
#![no_main]

libfuzzer_sys::fuzz_target!(|data: &[u8]| mote_fuzz::stage_replace(data));
