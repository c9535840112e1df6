//! `cargo fuzz run --features libfuzzer store`
#![no_main]

libfuzzer_sys::fuzz_target!(|data: &[u8]| mydocker_fuzz::store(data));
