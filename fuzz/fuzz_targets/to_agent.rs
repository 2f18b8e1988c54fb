//! See `hull_fuzz::wire::to_agent`.
#![no_main]

libfuzzer_sys::fuzz_target!(|data: &[u8]| hull_fuzz::wire::to_agent(data));
