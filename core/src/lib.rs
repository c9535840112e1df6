//! The deciding half of mydocker: requests become plans, plans become transactions.
#![no_std]
#![forbid(unsafe_code)]
extern crate alloc;
