//! What a container needs of the network, and nothing more.

use std::{net::IpAddr, path::Path};

use serde_json::Value;

use super::{record::Record, store::Containers};

/// Joins containers to their networks and takes them out again.
///
/// Made by a [`NetworkFactory`] in whatever process needs it: the one that supervises the container,
/// or, when that one was killed, the one that cleans up.
pub trait Network {
    /// Attaches a container whose namespace is pinned at `netns`, as its
    /// [`Spec::attachments`](super::Spec::attachments) say. All or nothing.
    fn attach(&mut self, container: &Record, netns: &Path) -> anyhow::Result<Attached>;

    /// Detaches whoever lives in the namespace that is, or was, pinned at `netns` from all its
    /// networks. Nobody there is no error. Asks for no record, which may be damaged, and for no
    /// name, which may be somebody else's where attaching failed because of that.
    fn detach(&mut self, netns: &Path) -> anyhow::Result<()>;
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
    /// The host's addresses on its first network, if it [wants](super::Names::want_gateway) them.
    pub gateways: Vec<IpAddr>,
    /// Kept in the container's record as [`Record::endpoints`].
    pub info: Value,
}

/// Makes the [`Network`] of some containers. It is asked for [`NetworkMode::Attached`](super::NetworkMode),
/// and where the record that would say so is damaged.
pub type NetworkFactory<'a> = dyn Fn(&Containers) -> anyhow::Result<Box<dyn Network>> + 'a;
