//! Snapshot: a state at rest, and what is wrong with one that contradicts itself.

use alloc::collections::BTreeSet;
use alloc::sync::Arc;
use alloc::vec::Vec;
use core::net::IpAddr;

use serde::{Deserialize, Serialize};

use crate::{
    Endpoint, EndpointId, Footprint, ForeignChain, Instance, Mac, Netns, Network, NetworkName, Plan,
};

/// Everything of a [`State`](crate::State) that can't be derived.
#[derive(Clone, Debug, Default, Eq, PartialEq, Deserialize, Serialize)]
pub struct Snapshot {
    /// Whose.
    pub instance: Instance,
    /// Networks, by name.
    pub networks: Vec<NetworkRecord>,
    /// Endpoints.
    pub endpoints: Vec<Endpoint>,
    /// Foreign chains that have a passage of ours.
    #[serde(default, skip_serializing_if = "BTreeSet::is_empty")]
    pub passages: BTreeSet<ForeignChain>,
    /// What an undo could not remove.
    pub debris: Footprint,
    /// Begun and not ended.
    pub pending: Option<Arc<Plan>>,
}

/// A network at rest.
#[derive(Clone, Debug, Eq, PartialEq, Deserialize, Serialize)]
pub struct NetworkRecord {
    /// The network.
    pub network: Network,
    /// Whether the kernel has its objects.
    pub up: bool,
    /// Where the search for the next lease of each subnet goes on.
    pub cursors: Vec<IpAddr>,
}

/// A contradiction in a snapshot or a journal.
#[derive(Clone, Debug, Eq, PartialEq, thiserror::Error)]
#[non_exhaustive]
pub enum Damage {
    /// Two networks of one name.
    #[error("network `{0}` is there twice")]
    NetworkTwice(NetworkName),
    /// An endpoint or removal of a network that is not there.
    #[error("network `{0}` is spoken of and not there")]
    NetworkUnknown(NetworkName),
    /// A removed network that has endpoints.
    #[error("network `{0}` is removed and has endpoints")]
    NetworkInUse(NetworkName),
    /// Two endpoints of one id.
    #[error("endpoint {0} is there twice")]
    EndpointTwice(EndpointId),
    /// A removal or change of an endpoint that is not there.
    #[error("endpoint {0} is removed or changed and not there")]
    EndpointUnknown(EndpointId),
    /// An address that is not to be had.
    #[error("endpoint {0} has address {1}, which is taken or of none of its network's subnets")]
    AddressTwice(EndpointId, IpAddr),
    /// A MAC that another endpoint of the network has.
    #[error("endpoint {0} has mac {1}, which is taken")]
    MacTwice(EndpointId, Mac),
    /// A port that another endpoint publishes.
    #[error("endpoint {0} publishes {1}, which is taken")]
    PortTwice(EndpointId, crate::PortBinding),
    /// A namespace that another container has.
    #[error("endpoint {0} is in namespace {1}, which another container has")]
    NetnsTwice(EndpointId, Netns),
    /// A container that is in another namespace on another network.
    #[error("endpoint {0} is in namespace {1}, and its container in another")]
    NetnsOther(EndpointId, Netns),
    /// A changed endpoint that differs in more than its ports.
    #[error("endpoint {0} changes in more than its ports")]
    EndpointOther(EndpointId),
    /// A change of several that holds more than a request makes.
    #[error("a change of several holds what no single request changes")]
    NotOfSeveral,
    /// Two plans begun at once.
    #[error("a transaction begins before the one before it ended")]
    BeginTwice,
    /// An end without a beginning.
    #[error("a transaction ends that never began")]
    EndWithoutBegin,
}
