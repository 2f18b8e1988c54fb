//! See `hull_fuzz::blk::run`.
#![no_main]

libfuzzer_sys::fuzz_target!(|data: &[u8]| hull_fuzz::blk::run(data));
