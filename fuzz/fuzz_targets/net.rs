//! See `hull_fuzz::net::run`.
#![no_main]

libfuzzer_sys::fuzz_target!(|data: &[u8]| hull_fuzz::net::run(data));
