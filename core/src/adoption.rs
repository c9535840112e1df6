//! Adoption: how a state that was lost is read off the kernel.

use alloc::collections::BTreeMap;
use core::fmt;

use ipnet::IpNet;
use serde::Serialize;

use crate::{
    Change, Damage, Endpoint, EndpointId, LinkName, Netns, Network, NetworkName, Outcome, Plan,
    State,
};

/// What older records and the history say of networks and endpoints. The kernel decides which of it
/// is true still; what it can't show, such as names, is believed.
#[derive(Clone, Debug, Default, Eq, PartialEq)]
pub struct Hearsay {
    networks: BTreeMap<NetworkName, Network>,
    /// By the host's end of their cables, which the kernel knows.
    endpoints: BTreeMap<LinkName, Endpoint>,
}

impl Hearsay {
    /// Takes in a state as it once was.
    pub fn hear_state(&mut self, state: &State) {
        let networks = state.networks().cloned().map(Change::NetworkAdded);
        let endpoints = state.endpoints().cloned().map(Change::EndpointAdded);
        for change in networks.chain(endpoints) {
            self.hear(&change);
        }
    }

    /// Takes in how a plan ended, later than all that was heard before.
    pub fn hear_end(&mut self, plan: &Plan, outcome: &Outcome) {
        if outcome.makes_change(plan.on_failure) {
            self.hear(&plan.change);
        }
    }

    fn hear(&mut self, change: &Change) {
        match change {
            Change::NetworkAdded(network) => {
                self.networks.insert(network.name.clone(), network.clone());
            }
            Change::NetworkRemoved(name) => {
                self.networks.remove(name);
            }
            Change::EndpointAdded(endpoint) | Change::EndpointChanged(endpoint) => {
                self.endpoints.insert(endpoint.host_link, endpoint.clone());
            }
            Change::EndpointRemoved(id) => self.endpoints.retain(|_, known| known.id != *id),
            Change::Several(changes) => changes.iter().for_each(|change| self.hear(change)),
            Change::Repaired => {}
        }
    }

    /// The networks, by name.
    pub(crate) fn networks(&self) -> impl Iterator<Item = &Network> {
        self.networks.values()
    }

    /// The endpoint whose cable has that end in the host.
    pub(crate) fn endpoint(&self, host_link: LinkName) -> Option<&Endpoint> {
        self.endpoints.get(&host_link)
    }

    /// The endpoints, by cable.
    pub(crate) fn endpoints(&self) -> impl Iterator<Item = &Endpoint> {
        self.endpoints.values()
    }

    /// The namespaces where containers were.
    pub fn netns(&self) -> impl Iterator<Item = &Netns> {
        self.endpoints.values().map(|endpoint| &endpoint.netns)
    }
}

/// Something of ours in the kernel that nobody had on record, and what became of it.
#[derive(Clone, Debug, Eq, PartialEq, Serialize)]
#[serde(rename_all = "snake_case", tag = "kind")]
pub enum Adoption {
    /// A network is up, and was thought to be down or not to be there.
    Network {
        /// Which.
        name: NetworkName,
    },
    /// A container is on a network.
    Endpoint {
        /// Which; a name that nobody remembers is replaced by that of its cable.
        id: EndpointId,
        /// Where it is.
        netns: Netns,
    },
    /// A cable stays without an owner: repair removes it.
    Stray {
        /// The host's end of it.
        cable: LinkName,
        /// Why nobody has it.
        why: Stray,
    },
}

/// Why a cable can't be anybody's.
#[derive(Clone, Debug, Eq, PartialEq, thiserror::Error)]
#[non_exhaustive]
pub enum Stray {
    /// Its far end is in no namespace that could be looked into.
    #[error("the namespace at its other end can't be found")]
    NoNamespace,
    /// It is no port of a bridge that a network has.
    #[error("it is plugged into {}, which belongs to no network", Bridge(*.0))]
    NoNetwork(Option<LinkName>),
    /// Nothing at its far end is of that subnet.
    #[error("there is no address of {0} at its other end")]
    NoAddress(IpNet),
    /// What the kernel shows can't be anybody's.
    #[error("{0}")]
    Contradiction(Damage),
}

impl Serialize for Stray {
    fn serialize<S: serde::Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        serializer.collect_str(self)
    }
}

impl fmt::Display for Adoption {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Network { name } => write!(f, "network {name} is up"),
            Self::Endpoint { id, netns } => write!(f, "container {id} is in {netns}"),
            Self::Stray { cable, why } => write!(f, "cable {cable} has no owner: {why}"),
        }
    }
}

struct Bridge(Option<LinkName>);

impl fmt::Display for Bridge {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self.0 {
            Some(bridge) => write!(f, "bridge {bridge}"),
            None => f.write_str("no bridge"),
        }
    }
}
