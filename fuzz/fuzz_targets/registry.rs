//! See `hull_fuzz::registry::headers`.
#![no_main]

libfuzzer_sys::fuzz_target!(|data: &[u8]| hull_fuzz::registry::headers(data));
