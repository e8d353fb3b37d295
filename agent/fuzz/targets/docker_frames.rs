//! libFuzzer's door to [`mote_fuzz::docker_frames`].
#![no_main]

libfuzzer_sys::fuzz_target!(|data: &[u8]| mote_fuzz::docker_frames(data));
