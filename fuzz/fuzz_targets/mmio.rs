//! See `hull_fuzz::mmio::run`.
#![no_main]

libfuzzer_sys::fuzz_target!(|data: &[u8]| hull_fuzz::mmio::run(data));
