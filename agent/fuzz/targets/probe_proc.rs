//! libFuzzer's door to [`mote_fuzz::probe_proc`].
#![no_main]

libfuzzer_sys::fuzz_target!(|data: &[u8]| mote_fuzz::probe_proc(data));
