//! libFuzzer's door to [`mote_fuzz::local_log`].
#![no_main]

libfuzzer_sys::fuzz_target!(|data: &[u8]| mote_fuzz::local_log(data));
