//! See `hull_fuzz::archive::run`.
#![no_main]

libfuzzer_sys::fuzz_target!(|data: &[u8]| hull_fuzz::archive::run(data));
