//! See `hull_fuzz::wire::from_vmm`.
#![no_main]

libfuzzer_sys::fuzz_target!(|data: &[u8]| hull_fuzz::wire::from_vmm(data));
