//! See `hull_fuzz::documents::reference`.
#![no_main]

libfuzzer_sys::fuzz_target!(|data: &[u8]| hull_fuzz::documents::reference(data));
