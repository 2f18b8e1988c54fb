//! See `hull_fuzz::documents::resolv_conf`.
#![no_main]

libfuzzer_sys::fuzz_target!(|data: &[u8]| hull_fuzz::documents::resolv_conf(data));
