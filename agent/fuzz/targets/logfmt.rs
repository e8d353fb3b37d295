//! libFuzzer's door to [`mote_fuzz::logfmt`].
#![no_main]

libfuzzer_sys::fuzz_target!(|data: &[u8]| mote_fuzz::logfmt(data));
