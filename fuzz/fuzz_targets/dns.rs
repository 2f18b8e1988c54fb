//! See `hull_fuzz::dns::run`.
#![no_main]

libfuzzer_sys::fuzz_target!(|data: &[u8]| hull_fuzz::dns::run(data));
