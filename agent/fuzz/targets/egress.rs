//! libFuzzer's door to [`mote_fuzz::egress`].
#![no_main]

libfuzzer_sys::fuzz_target!(|data: &[u8]| mote_fuzz::egress(data));
