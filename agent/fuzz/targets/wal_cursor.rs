//! libFuzzer's door to [`mote_fuzz::wal_cursor`].
#![no_main]

libfuzzer_sys::fuzz_target!(|data: &[u8]| mote_fuzz::wal_cursor(data));
