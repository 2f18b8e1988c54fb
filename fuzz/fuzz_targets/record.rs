//! See `hull_fuzz::record::run`.
#![no_main]

libfuzzer_sys::fuzz_target!(|data: &[u8]| hull_fuzz::record::run(data));
