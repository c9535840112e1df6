//! The engine behind `mydocker`, for programs that want it ready-made.

pub mod container;
pub mod engine;
pub mod image;
pub mod privilege;
pub mod store;
mod versioned;

/// The examples in the README, as tests.
#[cfg(doctest)]
#[doc = include_str!("../../README.md")]
struct Readme;
