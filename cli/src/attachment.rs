//! Joins the containers that we run to their networks.

use std::net::IpAddr;
use std::path::Path;

use anyhow::Context;
use mydocker::container::{Attached, Containers, Network, Record};
use mydocker::engine::{Engine, EngineError};
use mydocker::store::Roots;
use mydocker_core::{
    AttachSpec, Change, ContainerName, Endpoint, Mac, Netns, NetworkName, PortSpec, Rejection,
    Request, State,
};
use mydocker_exec_netlink::NetlinkExecutor;
use serde::{Deserialize, Serialize};

use crate::errand::Processes;
use crate::failure::warn;

/// How a container joins a network: what its record keeps, until there is a namespace.
#[derive(Clone, Debug, Deserialize, Serialize)]
pub(crate) struct Joining {
    pub(crate) network: NetworkName,
    pub(crate) addresses: Vec<IpAddr>,
    pub(crate) mac: Option<Mac>,
    pub(crate) ports: Vec<PortSpec>,
    /// What else it is called on the network.
    #[serde(default)]
    pub(crate) aliases: Vec<String>,
}

impl Joining {
    /// The request, now that there is a container.
    pub(crate) fn request(self, container: ContainerName, netns: Netns) -> Request {
        Request::Attach(AttachSpec {
            addresses: self.addresses,
            mac: self.mac,
            ports: self.ports,
            ..AttachSpec::new(self.network, container, netns)
        })
    }
}

/// The networks of some containers.
pub(crate) fn make(containers: &Containers) -> anyhow::Result<Box<dyn Network>> {
    let roots = Roots {
        root: containers.root().into(),
        run_root: containers.run_root().into(),
    };
    let executor = NetlinkExecutor::open(roots.instance()?)?.with_runner(Box::new(Processes));
    Ok(Box::new(Attachments(Engine::open(roots, executor))))
}

struct Attachments(Engine<NetlinkExecutor>);

impl Network for Attachments {
    fn attach(&mut self, container: &Record, pin: &Path) -> anyhow::Result<Attached> {
        let name = &container.name;
        let joining: Vec<Joining> = serde_json::from_value(container.spec.attachments.clone())
            .with_context(|| format!("the record of container {name} is damaged"))?;
        let netns = netns(pin)?;
        let gateways = match joining.first() {
            Some(first) if container.spec.names.want_gateway() => self.gateways(&first.network)?,
            _ => Vec::new(),
        };
        let mut endpoints: Vec<Endpoint> = Vec::new();
        let mut aliases: Vec<Vec<String>> = Vec::new();
        for joining in joining {
            let network = joining.network.clone();
            let called = joining.aliases.clone();
            match self.0.apply(&joining.request(name.clone(), netns.clone())) {
                Ok(done) => {
                    done.plan.warnings.iter().for_each(warn);
                    if let Change::EndpointAdded(endpoint) = done.plan.change {
                        endpoints.push(endpoint);
                        aliases.push(called);
                    }
                }
                Err(error) => {
                    let error = anyhow::Error::new(error)
                        .context(format!("can't connect to network {network}"));
                    return Err(match self.detach(pin) {
                        Ok(()) => error,
                        Err(left) => error.context(format!("{left:#}; it was tried because")),
                    });
                }
            }
        }
        let hostname = container.spec.hostname.as_deref();
        let also = Some(name.as_str()).filter(|name| Some(*name) != hostname);
        let names: Vec<&str> = hostname.into_iter().chain(also).collect();
        let mut hosts = Vec::new();
        for (endpoint, aliases) in endpoints.iter().zip(&aliases) {
            let aliases = aliases.iter().map(String::as_str);
            let names: Vec<&str> = names.iter().copied().chain(aliases).collect();
            let addresses = endpoint.addresses.iter();
            hosts.extend(addresses.map(|address| (address.addr(), names.join(" "))));
        }
        Ok(Attached {
            hosts,
            gateways,
            info: serde_json::to_value(&endpoints)?,
            ..Attached::default()
        })
    }

    fn detach(&mut self, pin: &Path) -> anyhow::Result<()> {
        let mut state = self.0.view()?.state;
        // Somebody may have died while it was attached, so that it is on no network yet, or while it
        // was detached, so that it is still.
        if state.pending().is_some() {
            self.0.settle()?;
            state = self.0.view()?.state;
        }
        // The first failure must not keep the others from being taken down.
        let mut failed = None;
        for request in detachments(&state, pin)? {
            match self.0.apply(&request) {
                // Somebody disconnected it meanwhile.
                Ok(_) | Err(EngineError::Rejected(Rejection::EndpointUnknown(_))) => {}
                Err(error) => {
                    failed.get_or_insert(error);
                }
            }
        }
        failed.map_or(Ok(()), |error| Err(error.into()))
    }
}

impl Attachments {
    /// The host's addresses on a network, one of each family at most.
    fn gateways(&self, network: &NetworkName) -> anyhow::Result<Vec<IpAddr>> {
        let state = self.0.view()?.state;
        let network = state
            .network(network)
            .with_context(|| format!("no network `{network}`"))?;
        let families = network.families();
        Ok(families
            .filter_map(|family| network.way_out(family)?.gateway)
            .collect())
    }
}

/// What takes whoever lives in the namespace pinned at `pin` off all networks, the last joined first.
pub(crate) fn detachments(state: &State, pin: &Path) -> anyhow::Result<Vec<Request>> {
    let netns = netns(pin)?;
    let mut endpoints = state.endpoints();
    let Some(one) = endpoints.find(|endpoint| endpoint.netns == netns) else {
        return Ok(Vec::new());
    };
    // One container lives in one namespace.
    let joined = state.joined(&one.id.container);
    let mut requests: Vec<Request> = joined
        .map(|endpoint| Request::Detach(endpoint.id.clone()))
        .collect();
    requests.reverse();
    Ok(requests)
}

fn netns(pin: &Path) -> anyhow::Result<Netns> {
    Ok(pin.to_string_lossy().parse()?)
}
