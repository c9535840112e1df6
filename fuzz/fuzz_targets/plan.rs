//! `cargo fuzz run --features libfuzzer plan`
#![no_main]

libfuzzer_sys::fuzz_target!(|data: &[u8]| mydocker_fuzz::plan(data));
