//! See `hull_fuzz::simple::console`.
#![no_main]

libfuzzer_sys::fuzz_target!(|data: &[u8]| hull_fuzz::simple::console(data));
