//! libFuzzer's door to [`mote_fuzz::scrape`].
#![no_main]

libfuzzer_sys::fuzz_target!(|data: &[u8]| mote_fuzz::scrape(data));
