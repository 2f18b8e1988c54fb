//! See `hull_fuzz::seccomp::run`.
#![no_main]

libfuzzer_sys::fuzz_target!(|data: &[u8]| hull_fuzz::seccomp::run(data));
