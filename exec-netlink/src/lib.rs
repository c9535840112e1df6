//! Applies plans to the real kernel over netlink; no process is ever started.
//!
//! [`NetlinkExecutor`] carries out ops and observes what the kernel holds; an async program has
//! [`drive()`] keep it off its threads. Beneath it: pure functions that write and read messages
//! (`link`, `address`, `route`, with rtnetlink's builders, and [`nft`]), two sockets that carry
//! them (`rtnl`, [`nft::NftSocket`]), `/proc/sys` (`sysctl`) and namespaces ([`netns`]).
// The kernel's enums are open: a new attribute or error number must change nothing.
#![allow(clippy::wildcard_enum_match_arm)]

mod address;
mod cable;
mod carrier;
mod census;
mod conntrack;
mod drive;
mod errand;
mod errno;
mod executor;
mod facts;
mod firewall;
#[doc(hidden)]
pub mod fuzzing;
mod home;
mod legacy;
mod link;
mod listeners;
mod netlink;
pub mod netns;
pub mod nft;
mod observe;
mod removal;
mod room;
mod route;
mod rtnl;
mod solicited;
mod space;
mod sysctl;

pub use drive::{Driven, drive};
pub use errand::{Errand, Runner, Threads};
pub use executor::NetlinkExecutor;
