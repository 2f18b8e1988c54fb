//! See `hull_fuzz::wire::to_vmm`.
#![no_main]

libfuzzer_sys::fuzz_target!(|data: &[u8]| hull_fuzz::wire::to_vmm(data));
