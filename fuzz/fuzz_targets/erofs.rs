//! See `hull_fuzz::erofs::run`.
#![no_main]

libfuzzer_sys::fuzz_target!(|data: &[u8]| hull_fuzz::erofs::run(data));
