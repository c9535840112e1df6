//! `cargo fuzz run --features libfuzzer netlink`
#![no_main]

libfuzzer_sys::fuzz_target!(|data: &[u8]| mydocker_fuzz::netlink(data));
