//! See `hull_fuzz::vsock::run`.
#![no_main]

libfuzzer_sys::fuzz_target!(|data: &[u8]| hull_fuzz::vsock::run(data));
