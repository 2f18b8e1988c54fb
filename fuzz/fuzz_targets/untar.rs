//! See `hull_fuzz::wire::untar`.
#![no_main]

libfuzzer_sys::fuzz_target!(|data: &[u8]| hull_fuzz::wire::untar(data));
