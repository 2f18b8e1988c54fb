//! See `hull_fuzz::frames::run`.
#![no_main]

libfuzzer_sys::fuzz_target!(|data: &[u8]| hull_fuzz::frames::run(data));
