//! See `hull_fuzz::layer::run`.
#![no_main]

libfuzzer_sys::fuzz_target!(|data: &[u8]| hull_fuzz::layer::run(data));
