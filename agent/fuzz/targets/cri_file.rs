//! libFuzzer's door to [`mote_fuzz::cri_file`].
#![no_main]

libfuzzer_sys::fuzz_target!(|data: &[u8]| mote_fuzz::cri_file(data));
