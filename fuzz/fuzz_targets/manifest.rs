//! See `hull_fuzz::documents::manifest`.
#![no_main]

libfuzzer_sys::fuzz_target!(|data: &[u8]| hull_fuzz::documents::manifest(data));
