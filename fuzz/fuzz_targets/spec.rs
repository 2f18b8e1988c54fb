//! See `hull_fuzz::documents::spec`.
#![no_main]

libfuzzer_sys::fuzz_target!(|data: &[u8]| hull_fuzz::documents::spec(data));
