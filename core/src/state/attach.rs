//! Planning endpoints: which addresses and names, and what stands in the way.

use alloc::collections::BTreeSet;
use alloc::format;
use alloc::vec::Vec;
use core::net::IpAddr;

use ipnet::IpNet;

use super::create::at_most;
use super::index::NetworkState;
use super::{Raised, landing};
use crate::name::is_setting_key;
use crate::network::IPV6_SETTINGS;
use crate::{
    AttachSpec, Change, Endpoint, EndpointId, Facts, Family, Holder, LinkName, Mac, OnFailure,
    Plan, PoolError, Rejection, Setting, State, diff,
};

/// So many endpoints a network has at most: the kernel's limit of a bridge's ports (`BR_MAX_PORTS`,
/// net/bridge/br_private.h).
pub const BRIDGE_PORTS_MAX: usize = 1023;
const SETTINGS_MAX: usize = 64;
/// How many holders an error about an exhausted pool names.
const HOLDERS_SHOWN: usize = 16;

impl State {
    pub(super) fn plan_attach(&self, facts: &Facts, spec: &AttachSpec) -> Result<Plan, Rejection> {
        let id = spec.id();
        let known = self
            .networks
            .get(&spec.network)
            .ok_or_else(|| Rejection::NetworkUnknown(spec.network.clone()))?;
        if self.endpoints.contains_key(&id) {
            return Err(Rejection::EndpointExists(id));
        }
        if known.containers.len() >= BRIDGE_PORTS_MAX {
            let (network, max) = (spec.network.clone(), BRIDGE_PORTS_MAX);
            return Err(Rejection::BridgeFull { network, max });
        }
        self.check_sandbox(spec)?;
        check_settings(spec)?;
        let addresses = self.addresses(known, spec)?;
        let joined: Vec<&Endpoint> = self.joined(&spec.container).collect();
        let endpoint = Endpoint {
            netns: spec.netns.clone(),
            ifname: ifname(&joined, spec)?,
            host_link: Endpoint::host_link(self.instance, &id),
            mac: self.mac(known, spec, &addresses)?,
            ports: self.bindings(facts, &known.network, &id, &spec.ports, &addresses)?,
            addresses,
            rank: joined.last().map_or(0, |last| last.rank.saturating_add(1)),
            default_route: spec.default_route,
            metric: spec.metric,
            sysctls: spec.sysctls.clone(),
            id,
        };
        let before = self.objects_of(&joined);
        let mut all = joined;
        all.push(&endpoint);
        let mut after = self.objects_of(&all);
        let mut raised = Raised::default();
        if !known.up {
            raised = self.raise(facts, &known.network);
            after.extend(raised.objects);
        }
        let mut ops = diff(&before, &after);
        ops.extend(raised.forwarding);
        Ok(Plan {
            change: Change::EndpointAdded(endpoint),
            on_failure: OnFailure::Undo,
            ops,
            warnings: raised.warnings,
        })
    }

    pub(super) fn plan_detach(&self, facts: &Facts, id: &EndpointId) -> Result<Plan, Rejection> {
        if !self.endpoints.contains_key(id) {
            return Err(Rejection::EndpointUnknown(id.clone()));
        }
        let joined: Vec<&Endpoint> = self.joined(&id.container).collect();
        let staying: Vec<&Endpoint> = joined
            .iter()
            .copied()
            .filter(|endpoint| endpoint.id != *id)
            .collect();
        let mut ops = diff(&self.objects_of(&joined), &self.objects_of(&staying));
        landing(&mut ops, facts);
        let change = Change::EndpointRemoved(id.clone());
        Ok(Plan {
            change,
            on_failure: OnFailure::Continue,
            ops,
            warnings: Vec::new(),
        })
    }

    /// One container, one namespace: else two default routes or two `eth0` could meet in it.
    fn check_sandbox(&self, spec: &AttachSpec) -> Result<(), Rejection> {
        let (container, given) = (spec.container.clone(), spec.netns.clone());
        if let Some(sandbox) = self.sandboxes.get(&container)
            && sandbox.netns != given
        {
            let known = sandbox.netns.clone();
            return Err(Rejection::OtherSandbox {
                container,
                known,
                given,
            });
        }
        match self.netns.get(&given) {
            Some(holder) if *holder != container => Err(Rejection::SharedSandbox {
                netns: given,
                holder: holder.clone(),
            }),
            Some(_) | None => Ok(()),
        }
    }

    /// One address of each subnet: as asked for, or the next free one; of all but the first subnet the one
    /// with the same place, if that is free.
    fn addresses(&self, known: &NetworkState, spec: &AttachSpec) -> Result<Vec<IpNet>, Rejection> {
        let network = &known.network;
        let subnets = || network.subnets.iter().map(|subnet| subnet.net).collect();
        let outside = |address: IpAddr| Rejection::AddressOutside {
            address,
            network: network.name.clone(),
            subnets: subnets(),
        };
        if let Some(stray) = spec.addresses.iter().find(|address| {
            !network
                .subnets
                .iter()
                .any(|subnet| subnet.net.contains(*address))
        }) {
            return Err(outside(*stray));
        }
        let mut addresses: Vec<IpNet> = Vec::new();
        for (subnet, pool) in network.subnets.iter().zip(&known.pools) {
            let counterpart = || pool.counterpart(known.pools.first()?, addresses.first()?.addr());
            let mut asked = spec
                .addresses
                .iter()
                .copied()
                .filter(|a| subnet.net.contains(a));
            let address = match (asked.next(), asked.next()) {
                (Some(first), Some(second)) => {
                    return Err(Rejection::Twice {
                        what: "requested address",
                        subnet: subnet.net,
                        first: format!("{first}"),
                        second: format!("{second}"),
                    });
                }
                (Some(address), None) => {
                    pool.check(address).map_err(|error| match error {
                        PoolError::Outside => outside(address),
                        PoolError::Taken => {
                            let holder = self.holder_of(known, address);
                            Rejection::AddressTaken { address, holder }
                        }
                    })?;
                    address
                }
                (None, _) => counterpart().or_else(|| pool.next_free()).ok_or_else(|| {
                    Rejection::Exhausted {
                        network: network.name.clone(),
                        subnet: subnet.net,
                        leased: pool.leased(),
                        capacity: pool.capacity(),
                        holders: known
                            .containers
                            .iter()
                            .take(HOLDERS_SHOWN)
                            .cloned()
                            .collect(),
                    }
                })?,
            };
            addresses.push(subnet.with_prefix(address));
        }
        Ok(addresses)
    }

    fn holder_of(&self, known: &NetworkState, address: IpAddr) -> Holder {
        let has = |endpoint: &&Endpoint| endpoint.addresses.iter().any(|a| a.addr() == address);
        if let Some(endpoint) = self.endpoints_of(&known.network.name).find(has) {
            return Holder::Endpoint(endpoint.id.clone());
        }
        let reserved = known
            .network
            .subnets
            .iter()
            .any(|subnet| subnet.never_leased().any(|never| never == address));
        if reserved {
            Holder::Reserved
        } else {
            Holder::Debris
        }
    }

    fn mac(
        &self,
        known: &NetworkState,
        spec: &AttachSpec,
        addresses: &[IpNet],
    ) -> Result<Mac, Rejection> {
        let derived = || {
            addresses
                .first()
                .map(|address| Mac::of_address(address.addr()))
        };
        let mac = spec.mac.or_else(derived).unwrap_or(known.network.mac);
        if mac == known.network.mac {
            let network = known.network.name.clone();
            return Err(Rejection::MacOfBridge { mac, network });
        }
        match known.macs.get(&mac) {
            None => Ok(mac),
            Some(holder) => Err(Rejection::MacTaken {
                mac,
                network: known.network.name.clone(),
                holder: holder.clone(),
            }),
        }
    }
}

/// The interface's name in the container: as asked for, or the first free `ethN`.
fn ifname(joined: &[&Endpoint], spec: &AttachSpec) -> Result<LinkName, Rejection> {
    let taken = |name: LinkName| {
        name == LinkName::LOOPBACK || joined.iter().any(|endpoint| endpoint.ifname == name)
    };
    match spec.ifname {
        Some(ifname) if taken(ifname) => Err(Rejection::IfnameTaken {
            container: spec.container.clone(),
            ifname,
        }),
        Some(ifname) => Ok(ifname),
        None => {
            // One more candidate than there are names in use.
            let mut names = (0..=joined.len()).filter_map(|n| format!("eth{n}").parse().ok());
            let free = names.find(|name| !taken(*name));
            free.ok_or_else(|| Rejection::IfnameTaken {
                container: spec.container.clone(),
                ifname: LinkName::LOOPBACK,
            })
        }
    }
}

fn check_settings(spec: &AttachSpec) -> Result<(), Rejection> {
    at_most("settings", spec.sysctls.len(), SETTINGS_MAX)?;
    let wrong = |setting: &&Setting| !is_setting_key(&setting.key);
    match spec.sysctls.iter().find(wrong) {
        Some(setting) => Err(Rejection::SettingKey(
            setting.key.chars().take(64).collect(),
        )),
        None => each_setting_once(spec),
    }
}

/// One value per setting, or what is wanted could never be; and none of those that keep router
/// advertisements out.
fn each_setting_once(spec: &AttachSpec) -> Result<(), Rejection> {
    let mut seen = BTreeSet::from(IPV6_SETTINGS.map(|key| (Family::V6, key)));
    for setting in &spec.sysctls {
        if !seen.insert((setting.family, setting.key.as_str())) {
            return Err(Rejection::SettingTwice(setting.key.clone()));
        }
    }
    Ok(())
}
