//! Joins the containers that we run to their networks.

use std::net::IpAddr;
use std::path::Path;

use anyhow::Context;
use mydocker::container::{Attached, Containers, Network, Record};
use mydocker::engine::Engine;
use mydocker::store::Roots;
use mydocker_core::{
    AttachSpec, Change, ContainerName, Endpoint, EndpointId, Mac, Netns, NetworkName, PortSpec,
    Request,
};
use mydocker_exec_netlink::NetlinkExecutor;
use serde::{Deserialize, Serialize};

/// How a container joins a network: what its record keeps, until there is a namespace.
#[derive(Clone, Debug, Deserialize, Serialize)]
pub(crate) struct Joining {
    pub(crate) network: NetworkName,
    pub(crate) addresses: Vec<IpAddr>,
    pub(crate) mac: Option<Mac>,
    pub(crate) ports: Vec<PortSpec>,
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

/// The networks of a recorded container.
pub(crate) fn make(containers: &Containers, record: &Record) -> anyhow::Result<Box<dyn Network>> {
    let joining = serde_json::from_value(record.spec.attachments.clone())
        .with_context(|| format!("the record of container {} is damaged", record.name))?;
    let roots = Roots {
        root: containers.root().into(),
        run_root: containers.run_root().into(),
    };
    let executor = NetlinkExecutor::open(roots.instance()?)?;
    let hostname = record.spec.hostname.clone();
    Ok(Box::new(Attachments {
        engine: Engine::open(roots, executor),
        joining,
        hostname,
    }))
}

struct Attachments {
    engine: Engine<NetlinkExecutor>,
    joining: Vec<Joining>,
    hostname: Option<String>,
}

impl Network for Attachments {
    fn attach(&mut self, container: &str, netns: &Path) -> anyhow::Result<Attached> {
        let name: ContainerName = container.parse()?;
        let netns: Netns = netns.to_string_lossy().into_owned().try_into()?;
        let mut endpoints: Vec<Endpoint> = Vec::new();
        for joining in self.joining.clone() {
            let network = joining.network.clone();
            match self
                .engine
                .apply(&joining.request(name.clone(), netns.clone()))
            {
                Ok(done) => {
                    if let Change::EndpointAdded(endpoint) = done.plan.change {
                        endpoints.push(endpoint);
                    }
                }
                Err(error) => {
                    let error = anyhow::Error::new(error)
                        .context(format!("can't connect to network {network}"));
                    return Err(match self.detach(container) {
                        Ok(()) => error,
                        Err(left) => error.context(format!("{left:#}; it was tried because")),
                    });
                }
            }
        }
        let names = self
            .hostname
            .iter()
            .cloned()
            .chain((self.hostname.as_deref() != Some(container)).then(|| container.to_owned()));
        let names: Vec<String> = names.collect();
        let addresses = endpoints.iter().flat_map(|endpoint| &endpoint.addresses);
        Ok(Attached {
            hosts: addresses
                .map(|address| (address.addr(), names.join(" ")))
                .collect(),
            info: serde_json::to_value(&endpoints)?,
            ..Attached::default()
        })
    }

    fn detach(&mut self, container: &str) -> anyhow::Result<()> {
        let name: ContainerName = container.parse()?;
        let view = self.engine.view()?;
        let joined: Vec<EndpointId> = view
            .state
            .joined(&name)
            .map(|endpoint| endpoint.id.clone())
            .collect();
        // The first failure must not keep the others from being taken down.
        let mut failed = None;
        for id in joined.into_iter().rev() {
            if let Err(error) = self.engine.apply(&Request::Detach(id)) {
                failed.get_or_insert(error);
            }
        }
        failed.map_or(Ok(()), |error| Err(error.into()))
    }
}
