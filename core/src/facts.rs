//! Facts: what planning needs to know of the host.

use alloc::collections::BTreeSet;
use alloc::string::String;
use alloc::vec::Vec;

use ipnet::IpNet;
use serde::{Deserialize, Serialize};

use crate::{Family, Listener, Netns};

/// What planning needs to know of the host, handed in as data. They are gathered only for
/// requests that need them ([`State::needs_facts`](crate::State::needs_facts)): attaching a
/// container to a network that is up asks the host nothing.
#[derive(Clone, Debug, Default, Eq, PartialEq, Deserialize, Serialize)]
#[serde(default, deny_unknown_fields)]
pub struct Facts {
    /// Destinations of the host's routes, for clashes and automatic subnets.
    pub routes: Vec<IpNet>,
    /// Names of the host's interfaces.
    pub links: BTreeSet<String>,
    /// Families that the host forwards already.
    pub forwarding: BTreeSet<Family>,
    /// The smallest MTU of the interfaces that default routes leave by, bytes.
    pub mtu_bytes: Option<u32>,
    /// Namespaces that are gone, of those in question, and all that was in them.
    pub gone: BTreeSet<Netns>,
    /// Programs of the host that listen on ports in question
    /// ([`State::plan_around`](crate::State::plan_around)).
    pub listeners: Vec<Listener>,
}
