//! Adopting what the kernel holds under our mark and nobody has on record.

use alloc::collections::{BTreeMap, BTreeSet};
use alloc::vec::Vec;
use core::net::IpAddr;

use ipnet::IpNet;

use super::leading_out;
use crate::{
    Adoption, ContainerName, Endpoint, EndpointId, Family, Footprint, ForeignChain, Hearsay, Link,
    LinkName, Mac, Netns, Network, Ns, Object, PortBinding, Route, State, Stray,
};

impl State {
    /// This state, and whatever else the kernel holds under our mark and can be told whose it is:
    /// networks that are up, containers on them, passages. `observed` must have seen into the
    /// namespaces of these. Nothing that is on record already is changed or dropped;
    /// [`repair`](Self::repair) is what to do about the rest.
    ///
    /// Of an endpoint, the kernel shows network, namespace, interface, MAC, addresses, published ports
    /// and routes. Names and settings are what `hearsay` says, and so is what is missing at the moment.
    #[must_use]
    pub fn adopt(&self, hearsay: &Hearsay, observed: &Footprint) -> (Self, Vec<Adoption>) {
        let (mut state, shown) = (self.clone(), Shown::of(observed));
        let mut told = state.adopt_networks(hearsay, &shown);
        let mut found: BTreeMap<Netns, Vec<Endpoint>> = BTreeMap::new();
        for cable in state.unowned(&shown) {
            match state.endpoint_at(cable, hearsay, &shown) {
                Ok(endpoint) => {
                    let together = found.entry(endpoint.netns.clone()).or_default();
                    together.push(endpoint);
                }
                Err(why) => told.push(Adoption::Stray { cable, why }),
            }
        }
        for endpoints in found.into_values() {
            told.extend(state.adopt_together(endpoints, &shown));
        }
        state.passages.extend(shown.passages);
        (state, told)
    }

    /// Networks whose bridges are there.
    fn adopt_networks(&mut self, hearsay: &Hearsay, shown: &Shown) -> Vec<Adoption> {
        for network in hearsay.networks() {
            let of_bridge = |known: &Network| known.bridge == network.bridge;
            if shown.bridges.contains(&network.bridge) && !self.networks().any(of_bridge) {
                // One of that name that has another bridge is on record, and stays.
                self.insert_network(network.clone(), false).ok();
            }
        }
        let mut told = Vec::new();
        for known in self.networks.values_mut().filter(|known| !known.up) {
            if shown.bridges.contains(&known.network.bridge) {
                known.up = true;
                let name = known.network.name.clone();
                told.push(Adoption::Network { name });
            }
        }
        told
    }

    /// The cables, by the host's end, that no endpoint has and no undo left over.
    fn unowned(&self, shown: &Shown) -> BTreeSet<LinkName> {
        let owned = self.endpoints().map(|endpoint| endpoint.host_link);
        let debris = Shown::of(&self.debris).cables;
        let owned: BTreeSet<LinkName> = owned.chain(debris).collect();
        shown.cables.difference(&owned).copied().collect()
    }

    /// Who is at the other end of a cable.
    fn endpoint_at(
        &self,
        cable: LinkName,
        hearsay: &Hearsay,
        shown: &Shown,
    ) -> Result<Endpoint, Stray> {
        let heard = hearsay.endpoint(cable);
        let (netns, ifname, mac) = shown.far_end(cable, heard).ok_or(Stray::NoNamespace)?;
        let link = Link::sandbox(netns.clone(), ifname);
        let network = self.network_at(cable, heard, shown)?;
        let addresses = network.subnets.iter().map(|subnet| {
            let address = shown.address_in(subnet.net, &link, heard);
            address.ok_or(Stray::NoAddress(subnet.net))
        });
        let addresses = addresses.collect::<Result<Vec<_>, _>>()?;
        let id = EndpointId {
            network: network.name.clone(),
            container: self.container_at(cable, &netns, hearsay),
        };
        let ports = shown.ports_to(&addresses, heard);
        let mut endpoint = Endpoint {
            id,
            netns,
            ifname,
            host_link: cable,
            mac,
            addresses,
            ports,
            rank: u32::MAX,
            default_route: shown.has_default_routes(&link.ns, network),
            metric: shown.default_route(&link).and_then(|route| route.metric),
            sysctls: Vec::new(),
        };
        if let Some(heard) = heard.cloned() {
            endpoint = Endpoint {
                rank: heard.rank,
                default_route: heard.default_route,
                metric: heard.metric,
                sysctls: heard.sysctls,
                ..endpoint
            };
        }
        Ok(endpoint)
    }

    /// The network that a cable leads to: that of the bridge which it is plugged into.
    fn network_at(
        &self,
        cable: LinkName,
        heard: Option<&Endpoint>,
        shown: &Shown,
    ) -> Result<&Network, Stray> {
        let bridge = shown.masters.get(&cable).copied();
        let network = match bridge {
            Some(bridge) => self.networks().find(|network| network.bridge == bridge),
            None => heard.and_then(|heard| self.network(&heard.id.network)),
        };
        network.ok_or(Stray::NoNetwork(bridge))
    }

    /// What the container in a namespace is called: as on record for its other networks, as is said
    /// of this cable or of another one in there, or like the cable.
    fn container_at(&self, cable: LinkName, netns: &Netns, hearsay: &Hearsay) -> ContainerName {
        if let Some(name) = self.netns.get(netns) {
            return name.clone();
        }
        let of_cable = hearsay.endpoint(cable).into_iter();
        let in_there = hearsay.endpoints().filter(|heard| heard.netns == *netns);
        let heard = of_cable.chain(in_there).map(|heard| &heard.id.container);
        // A name stands for one namespace.
        let mut free = heard.filter(|name| !self.sandboxes.contains_key(*name));
        free.next().cloned().unwrap_or_else(|| cable.into())
    }

    /// Takes in the endpoints of one namespace, which are one container, in the order that explains
    /// who has which route.
    fn adopt_together(&mut self, mut endpoints: Vec<Endpoint>, shown: &Shown) -> Vec<Adoption> {
        endpoints.sort_by_key(|endpoint| (endpoint.rank, endpoint.ifname));
        let Some(container) = endpoints.first().map(|first| first.id.container.clone()) else {
            return Vec::new();
        };
        let joined: Vec<&Endpoint> = self.joined(&container).collect();
        let mut rank = joined.last().map_or(0, |last| last.rank.saturating_add(1));
        let addresses = joined.iter().copied().chain(&endpoints);
        let addresses = addresses.flat_map(|endpoint| &endpoint.addresses);
        let mut reached: BTreeSet<IpNet> = addresses.map(IpNet::trunc).collect();
        reached.extend(
            joined
                .iter()
                .flat_map(|endpoint| self.destinations(endpoint)),
        );
        let mut told = Vec::new();
        while !endpoints.is_empty() {
            let is_next = |endpoint: &Endpoint| {
                let mut routes = self.routes_of(endpoint).into_iter();
                routes.all(|to| reached.contains(&to.destination) || shown.routes.contains(&to))
            };
            let next = endpoints.iter().position(is_next).unwrap_or(0);
            let mut endpoint = endpoints.remove(next);
            endpoint.rank = rank;
            endpoint.id.container = container.clone();
            reached.extend(self.destinations(&endpoint));
            let (id, cable) = (endpoint.id.clone(), endpoint.host_link);
            let netns = endpoint.netns.clone();
            told.push(match self.insert_endpoint(endpoint) {
                Ok(()) => Adoption::Endpoint { id, netns },
                Err(damage) => {
                    let why = Stray::Contradiction(damage);
                    Adoption::Stray { cable, why }
                }
            });
            rank = rank.saturating_add(1);
        }
        told
    }

    fn destinations(&self, endpoint: &Endpoint) -> impl Iterator<Item = IpNet> + use<> {
        let routes = self.routes_of(endpoint).into_iter();
        routes.map(|route| route.destination)
    }

    fn routes_of(&self, endpoint: &Endpoint) -> Vec<Route> {
        let network = self.network(&endpoint.id.network);
        network.map_or_else(Vec::new, |network| endpoint.routes(network))
    }
}

/// What the kernel shows, by what it is looked up by.
#[derive(Default)]
struct Shown {
    has_ruleset: bool,
    bridges: BTreeSet<LinkName>,
    /// By the host's ends, as are the next two.
    cables: BTreeSet<LinkName>,
    far_ends: BTreeMap<LinkName, Vec<(Netns, LinkName, Mac)>>,
    masters: BTreeMap<LinkName, LinkName>,
    addresses: BTreeMap<Link, Vec<IpNet>>,
    routes: BTreeSet<Route>,
    /// By the container's address.
    ports: BTreeMap<IpAddr, Vec<PortBinding>>,
    passages: BTreeSet<ForeignChain>,
}

impl Shown {
    fn of(observed: &Footprint) -> Self {
        let mut shown = Self::default();
        for object in observed {
            shown.take_in(object);
        }
        shown
    }

    fn take_in(&mut self, object: &Object) {
        match object {
            Object::Ruleset(_) => self.has_ruleset = true,
            Object::Bridge(bridge) => {
                self.bridges.insert(bridge.name);
            }
            Object::Veth(veth) => {
                self.cables.insert(veth.name);
            }
            Object::Move(moved) => {
                if let Ns::Sandbox(netns) = &moved.to.ns {
                    let ends = self.far_ends.entry(moved.host).or_default();
                    ends.push((netns.clone(), moved.to.name, moved.mac));
                }
            }
            Object::Master(master) => {
                self.masters.insert(master.link, master.bridge);
            }
            Object::Address(address) => {
                let on = self.addresses.entry(address.link.clone()).or_default();
                on.push(address.address);
            }
            Object::Route(route) => {
                self.routes.insert(route.clone());
            }
            Object::Dnat(dnat) => {
                let to = self.ports.entry(dnat.to.ip()).or_default();
                to.push(dnat.binding());
            }
            Object::Pinhole(pinhole) => {
                let to = self.ports.entry(pinhole.to.ip()).or_default();
                to.push(pinhole.binding());
            }
            Object::Passage(passage) => {
                self.passages.insert(passage.chain.clone());
            }
            Object::Zone(_)
            | Object::Masquerade(_)
            | Object::Guard(_)
            | Object::Isolated(_)
            | Object::LooseEnd(_)
            | Object::Hairpin(_)
            | Object::LinkSysctl(_)
            | Object::Up(_)
            | Object::Forwarding(_) => {}
        }
    }

    /// Where a cable leads, by the path that is said to lead there if there are several.
    fn far_end(&self, cable: LinkName, heard: Option<&Endpoint>) -> Option<(Netns, LinkName, Mac)> {
        let ends = self.far_ends.get(&cable)?;
        let is_said = |(netns, ..): &&(Netns, _, _)| heard.is_some_and(|h| h.netns == *netns);
        ends.iter().find(is_said).or(ends.first()).cloned()
    }

    /// The address that an interface has in a subnet, or is said to have if it has none.
    fn address_in(&self, subnet: IpNet, link: &Link, heard: Option<&Endpoint>) -> Option<IpNet> {
        let within = |address: &&IpNet| subnet.contains(&address.addr());
        let on_it = self.addresses.get(link).into_iter().flatten();
        let there: Vec<&IpNet> = on_it.filter(within).collect();
        let said = heard.and_then(|heard| heard.addresses.iter().find(within));
        let said = said.filter(|said| there.is_empty() || there.contains(said));
        said.or(there.first().copied()).copied()
    }

    /// The published ports that lead to these addresses, or are said to while there is no ruleset.
    fn ports_to(&self, addresses: &[IpNet], heard: Option<&Endpoint>) -> Vec<PortBinding> {
        let heard = heard.map(|heard| heard.ports.clone()).unwrap_or_default();
        if !self.has_ruleset {
            return heard;
        }
        let to = |address: &IpNet| self.ports.get(&address.addr());
        let there: Vec<&PortBinding> = addresses.iter().filter_map(to).flatten().collect();
        // In the order that they were asked for in.
        let known = heard.iter().filter(|port| there.contains(port));
        let others = there.iter().filter(|port| !heard.contains(port));
        known.chain(others.copied()).cloned().collect()
    }

    /// The default route that leaves by an interface.
    fn default_route(&self, link: &Link) -> Option<&Route> {
        let mut routes = self.default_routes();
        routes.find(|route| route.link == *link)
    }

    /// Whether there is a default route, by whichever interface, of each family that a network leads
    /// out of.
    fn has_default_routes(&self, ns: &Ns, network: &Network) -> bool {
        let is_there = |family| {
            let mut routes = self.default_routes();
            routes.any(|route| route.link.ns == *ns && Family::of(route.via) == family)
        };
        leading_out(network).all(is_there)
    }

    fn default_routes(&self) -> impl Iterator<Item = &Route> {
        let routes = self.routes.iter();
        routes.filter(|route| route.destination.prefix_len() == 0)
    }
}
