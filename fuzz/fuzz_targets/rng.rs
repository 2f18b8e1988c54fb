//! See `hull_fuzz::simple::rng`.
#![no_main]

libfuzzer_sys::fuzz_target!(|data: &[u8]| hull_fuzz::simple::rng(data));
