//! `cargo fuzz run --features libfuzzer names`
#![no_main]

libfuzzer_sys::fuzz_target!(|data: &[u8]| mydocker_fuzz::names(data));
