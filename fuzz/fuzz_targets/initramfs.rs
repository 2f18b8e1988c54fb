//! See `hull_fuzz::kernel::initramfs`.
#![no_main]

libfuzzer_sys::fuzz_target!(|data: &[u8]| hull_fuzz::kernel::initramfs(data));
