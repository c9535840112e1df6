//! What a container needs of the network, and nothing more.

use std::{net::IpAddr, path::Path};

use serde_json::Value;

use super::{record::Record, store::Containers};

/// Joins a container to its networks and takes it out again.
///
/// Made by a [`NetworkFactory`] in whatever process needs it: the one that supervises the container,
/// or, when that one was killed, the one that cleans up.
pub trait Network {
    /// Attaches the container called `container`, whose namespace is pinned at `netns`. All or nothing.
    fn attach(&mut self, container: &str, netns: &Path) -> anyhow::Result<Attached>;

    /// Takes back what `attach` did, from what was recorded then. A container that is not attached,
    /// or whose namespace is gone, is no error.
    fn detach(&mut self, container: &str) -> anyhow::Result<()>;
}

/// What a container has to know about where it was attached.
#[derive(Clone, Debug, Default)]
pub struct Attached {
    /// Addresses and names for its `/etc/hosts`.
    pub hosts: Vec<(IpAddr, String)>,
    /// Name servers for its `/etc/resolv.conf`; if there are none, those of the host that it can reach.
    pub nameservers: Vec<IpAddr>,
    /// Domains to search, used with `nameservers`.
    pub search: Vec<String>,
    /// Kept in the container's record as [`Record::endpoints`].
    pub info: Value,
}

/// Makes the [`Network`] of a recorded container. It is asked only for [`NetworkMode::Attached`](super::NetworkMode).
pub type NetworkFactory<'a> = dyn Fn(&Containers, &Record) -> anyhow::Result<Box<dyn Network>> + 'a;
