//! See `hull_fuzz::bus::run`.
#![no_main]

libfuzzer_sys::fuzz_target!(|data: &[u8]| hull_fuzz::bus::run(data));
