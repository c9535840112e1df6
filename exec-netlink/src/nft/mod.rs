//! nf_tables over netlink, without starting a process: what a ruleset is made of, and the socket
//! that takes it to the kernel.
//!
//! The static half, core's [`Ruleset`](mydocker_core::Ruleset) of two tables, is created once and
//! never edited. Everything that varies is an [`Element`](mydocker_core::Element) of one of its
//! sets, added and deleted by key, each for the same price however many there are. Encoding and decoding are pure functions over bytes; only [`NftSocket`] meets
//! the kernel.

mod abi;
pub(crate) mod attr;
mod batch;
pub mod dump;
mod element;
mod error;
mod foreign;
mod fuzzing;
pub mod message;
mod rule;
mod ruleset;
mod set;
mod socket;
mod upkeep;

pub use batch::Batch;
pub use dump::Seen;
pub use error::BatchError;
pub(crate) use foreign::Foreign;
pub(crate) use fuzzing::{fuzz, fuzz_op};
pub use ruleset::Condition;
pub use socket::NftSocket;

#[cfg(test)]
mod kernel_test;
#[cfg(test)]
mod packet_test;
#[cfg(test)]
pub(crate) mod testing;
#[cfg(test)]
mod unknown_test;
