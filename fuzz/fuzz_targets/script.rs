//! `cargo fuzz run --features libfuzzer script`
#![no_main]

libfuzzer_sys::fuzz_target!(|data: &[u8]| mydocker_fuzz::script(data));
