//! See `hull_fuzz::virtiofs::run`.
#![no_main]

libfuzzer_sys::fuzz_target!(|data: &[u8]| hull_fuzz::virtiofs::run(data));
