//! See `hull_fuzz::shares::run`.
#![no_main]

libfuzzer_sys::fuzz_target!(|data: &[u8]| hull_fuzz::shares::run(data));
