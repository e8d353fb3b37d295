//! libFuzzer's door to [`mote_fuzz::syslog`].
#![no_main]

libfuzzer_sys::fuzz_target!(|data: &[u8]| mote_fuzz::syslog(data));
