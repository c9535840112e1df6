//! Applies plans to the real kernel over netlink.

pub mod netns;
pub mod nft;
