//! See `hull_fuzz::places::state`.
#![no_main]

libfuzzer_sys::fuzz_target!(|data: &[u8]| hull_fuzz::places::state(data));
