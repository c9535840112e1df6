//! `cargo fuzz run --features libfuzzer request`
#![no_main]

libfuzzer_sys::fuzz_target!(|data: &[u8]| mydocker_fuzz::request(data));
