//! See `hull_fuzz::wire::guest_console`.
#![no_main]

libfuzzer_sys::fuzz_target!(|data: &[u8]| hull_fuzz::wire::guest_console(data));
