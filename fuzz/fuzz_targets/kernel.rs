//! See `hull_fuzz::kernel::kernel`.
#![no_main]

libfuzzer_sys::fuzz_target!(|data: &[u8]| hull_fuzz::kernel::kernel(data));
