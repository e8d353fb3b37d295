//! libFuzzer's door to [`mote_fuzz::tracepoint_format`].
#![no_main]

libfuzzer_sys::fuzz_target!(|data: &[u8]| mote_fuzz::tracepoint_format(data));
