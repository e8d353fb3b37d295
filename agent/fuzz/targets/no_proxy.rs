//! libFuzzer's door to [`mote_fuzz::no_proxy`].
#![no_main]

libfuzzer_sys::fuzz_target!(|data: &[u8]| mote_fuzz::no_proxy(data));
