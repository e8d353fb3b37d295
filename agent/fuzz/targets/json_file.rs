//! libFuzzer's door to [`mote_fuzz::json_file`].
#![no_main]

libfuzzer_sys::fuzz_target!(|data: &[u8]| mote_fuzz::json_file(data));
