//! See `hull_fuzz::segments::run`.
#![no_main]

libfuzzer_sys::fuzz_target!(|data: &[u8]| hull_fuzz::segments::run(data));
