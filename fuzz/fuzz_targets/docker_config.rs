//! See `hull_fuzz::registry::docker_config`.
#![no_main]

libfuzzer_sys::fuzz_target!(|data: &[u8]| hull_fuzz::registry::docker_config(data));
