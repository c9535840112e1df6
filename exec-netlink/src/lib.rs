//! Applies plans to the real kernel over netlink; no process is ever started.
//!
//! [`NetlinkExecutor`] carries out ops and observes what the kernel holds. Beneath it: pure
//! functions that write and read messages (`link`, `address`, `route`, [`nft`]), two sockets that
//! carry them (`rtnl`, [`nft::NftSocket`]), `/proc/sys` (`sysctl`) and namespaces ([`netns`]).
// The kernel's enums are open: a new attribute or error number must change nothing.
#![allow(clippy::wildcard_enum_match_arm)]

mod address;
mod errno;
mod executor;
mod facts;
mod firewall;
mod home;
mod link;
pub mod netns;
pub mod nft;
mod observe;
mod route;
mod rtnl;
mod space;
mod sysctl;

pub use executor::NetlinkExecutor;
