//! See `hull_fuzz::places::passwd`.
#![no_main]

libfuzzer_sys::fuzz_target!(|data: &[u8]| hull_fuzz::places::passwd(data));
