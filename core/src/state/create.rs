//! Planning networks: which subnets, which bridge, and what stands in the way.

use alloc::collections::BTreeMap;
use alloc::string::{String, ToString};
use alloc::vec::Vec;
use core::net::{IpAddr, Ipv4Addr, Ipv6Addr};

use ipnet::{IpNet, Ipv4Net, Ipv6Net};

use crate::{
    Change, Facts, Family, Footprint, GatewayMode, Holder, LinkName, Mac, Network, NetworkName,
    NetworkSpec, Object, OnFailure, Op, Plan, Rejection, State, Subnet, diff,
};

const NETWORKS_MAX: usize = 16_384;
const SUBNETS_MAX: usize = 16;
const RESERVED_MAX: usize = 256;
const ROUTES_MAX: usize = 64;
const TRUSTED_MAX: usize = 64;
const LABELS_MAX: usize = 64;
const LABEL_BYTES_MAX: usize = 1024;

/// What Ethernet carries unless somebody says otherwise (RFC 894), bytes.
const MTU_BYTES_DEFAULT: u32 = 1500;
/// The least that IPv4 (RFC 791) and IPv6 (RFC 8200) work with, bytes.
const MTU_BYTES_MIN: [u32; 2] = [68, 1280];
const MTU_BYTES_MAX: u32 = 65_535;

/// Where automatic subnets come from, a /24 each: thousands, so that they don't run out after
/// thirty networks.
const POOLS: [Ipv4Net; 3] = [
    Ipv4Net::new_assert(Ipv4Addr::new(10, 64, 0, 0), 10),
    Ipv4Net::new_assert(Ipv4Addr::new(172, 16, 0, 0), 12),
    Ipv4Net::new_assert(Ipv4Addr::new(192, 168, 0, 0), 16),
];
const POOL_PREFIX: u8 = 24;

impl State {
    pub(super) fn plan_create(&self, facts: &Facts, spec: &NetworkSpec) -> Result<Plan, Rejection> {
        if self.networks.contains_key(&spec.name) {
            return Err(Rejection::NetworkExists(spec.name.clone()));
        }
        at_most("networks", self.networks.len() + 1, NETWORKS_MAX)?;
        at_most("labels", spec.labels.len(), LABELS_MAX)?;
        for (key, value) in &spec.labels {
            short_enough("label", key.len().max(value.len()))?;
        }
        at_most("trusted interfaces", spec.trusted.len(), TRUSTED_MAX)?;
        if let (true, Some(trusted)) = (spec.internal, spec.trusted.first()) {
            let (trusted, network) = (*trusted, spec.name.clone());
            return Err(Rejection::InternalTrusts { trusted, network });
        }
        let subnets = self.subnets(facts, spec)?;
        let network = Network {
            name: spec.name.clone(),
            driver: spec.driver,
            bridge: self.bridge_name(facts, spec)?,
            mac: self.bridge_mac(&spec.name, &subnets),
            mtu_bytes: mtu(facts, spec, &subnets)?,
            subnets,
            internal: spec.internal,
            icc: spec.icc,
            isolate: spec.isolate,
            spoof: spec.spoof,
            gateway_modes: spec.gateway_modes.clone(),
            trusted: spec.trusted.clone(),
            foreign_forward: spec.foreign_forward,
            routes: spec.routes.clone(),
            labels: spec.labels.clone(),
        };
        check_routes(&network)?;
        let raised = self.raise(facts, &network);
        let mut ops = diff(&Footprint::new(), &raised.objects);
        ops.extend(raised.forwarding);
        Ok(Plan {
            change: Change::NetworkAdded(network),
            on_failure: OnFailure::Undo,
            ops,
            warnings: raised.warnings,
        })
    }

    pub(super) fn plan_remove(&self, name: &NetworkName) -> Result<Plan, Rejection> {
        let known = self
            .networks
            .get(name)
            .ok_or_else(|| Rejection::NetworkUnknown(name.clone()))?;
        if !known.containers.is_empty() {
            let containers = known.containers.iter().cloned().collect();
            return Err(Rejection::NetworkInUse {
                network: name.clone(),
                containers,
            });
        }
        let mut objects = Footprint::new();
        if known.up {
            objects = known.network.objects(self.instance);
            let staying = self.networks_up().filter(|network| network.name != *name);
            if staying.clone().next().is_none() {
                objects.insert(Object::Ruleset(self.instance));
            }
            objects.extend(self.in_chains(self.unwanted_passages(staying)));
        }
        let ops: Vec<Op> = diff(&objects, &Footprint::new());
        let change = Change::NetworkRemoved(name.clone());
        Ok(Plan {
            change,
            on_failure: OnFailure::Continue,
            ops,
            warnings: Vec::new(),
        })
    }

    /// The bridge is called as its network where an interface can be, for that is what users
    /// look for.
    fn bridge_name(&self, facts: &Facts, spec: &NetworkSpec) -> Result<LinkName, Rejection> {
        let name = spec
            .bridge
            .or_else(|| spec.name.as_str().parse().ok())
            .unwrap_or_else(|| {
                LinkName::derived(
                    "md-",
                    self.instance.hash(&["network", spec.name.as_str()]),
                    12,
                )
            });
        let bridges = || self.networks.values().map(|known| known.network.bridge);
        if facts.links.contains(name.as_str()) || bridges().any(|bridge| bridge == name) {
            return Err(Rejection::LinkTaken(name));
        }
        Ok(name)
    }

    fn bridge_mac(&self, name: &NetworkName, subnets: &[Subnet]) -> Mac {
        let gateway = subnets.iter().find_map(|subnet| subnet.gateway);
        let hash = || Mac::of_hash(self.instance.hash(&["bridge", name.as_str()]));
        gateway.map_or_else(hash, Mac::of_address)
    }

    fn subnets(&self, facts: &Facts, spec: &NetworkSpec) -> Result<Vec<Subnet>, Rejection> {
        at_most("subnets", spec.subnets.len(), SUBNETS_MAX)?;
        at_most("reserved addresses", spec.aux_addresses.len(), RESERVED_MAX)?;
        let mut nets: Vec<IpNet> = Vec::new();
        for given in &spec.subnets {
            if let Some(sibling) = nets.iter().find(|net| overlap(net, given)) {
                let with = Holder::Sibling(sibling.trunc());
                return Err(Rejection::Overlap {
                    subnet: given.trunc(),
                    with,
                });
            }
            if let Some(with) = self.in_the_way(facts, given) {
                return Err(Rejection::Overlap {
                    subnet: given.trunc(),
                    with,
                });
            }
            nets.push(*given);
        }
        if nets.is_empty() {
            nets.push(self.free_v4(facts)?.into());
        }
        let has_v6 = nets.iter().any(|net| Family::of(net.addr()) == Family::V6);
        if spec.ipv6 && !has_v6 {
            nets.push(self.free_v6(facts, &spec.name)?.into());
        }
        let mut subnets = Vec::new();
        for net in nets {
            let mut subnet = Subnet::new(net)?;
            if net.addr() != subnet.net.network() {
                subnet.gateway = Some(subnet.host("gateway", net.addr())?);
            }
            subnets.push(subnet);
        }
        assign(spec, subnets)
    }

    /// Who has an address of `net`: another network, or a route of the host.
    fn in_the_way(&self, facts: &Facts, net: &IpNet) -> Option<Holder> {
        let ours = self.networks.values().flat_map(|known| {
            known
                .network
                .subnets
                .iter()
                .map(|subnet| (&known.network.name, subnet.net))
        });
        for (name, taken) in ours {
            if overlap(&taken, net) {
                return Some(Holder::Network(name.clone(), taken));
            }
        }
        let routes = facts.routes.iter().filter(|route| !leads_anywhere(route));
        let found = routes.copied().find(|route| overlap(route, net))?;
        Some(Holder::Route(found))
    }

    /// The first free /24 of the pools: jumps over whatever stands in the way.
    fn free_v4(&self, facts: &Facts) -> Result<Ipv4Net, Rejection> {
        for pool in POOLS {
            let end = pool.broadcast().to_bits();
            let mut next = pool.network().to_bits();
            while next < end {
                let Ok(candidate) = Ipv4Net::new(Ipv4Addr::from_bits(next), POOL_PREFIX) else {
                    break;
                };
                let taken = match self.in_the_way(facts, &candidate.into()) {
                    None => return Ok(candidate),
                    Some(Holder::Network(_, taken) | Holder::Route(taken)) => taken,
                    Some(
                        Holder::Sibling(_)
                        | Holder::Endpoint(_)
                        | Holder::Debris
                        | Holder::Listener(_)
                        | Holder::Reserved,
                    ) => candidate.into(),
                };
                let last = match taken.broadcast() {
                    IpAddr::V4(last) => last.max(candidate.broadcast()),
                    IpAddr::V6(_) => candidate.broadcast(),
                };
                match last.to_bits().checked_add(1) {
                    Some(after) => next = after.next_multiple_of(1 << (32 - POOL_PREFIX)),
                    None => break,
                }
            }
        }
        Err(Rejection::NoFreeSubnet {
            pools: POOLS.map(IpNet::V4).to_vec(),
        })
    }

    /// A unique local /64 (RFC 4193) whose global id is a hash of the network's name.
    fn free_v6(&self, facts: &Facts, name: &NetworkName) -> Result<Ipv6Net, Rejection> {
        for attempt in ["0", "1", "2", "3"] {
            let hash = u128::from(self.instance.hash(&["ula", name.as_str(), attempt]));
            let bits = (0xfd << 120) | ((hash & 0xff_ffff_ffff_ffff) << 64);
            let Ok(net) = Ipv6Net::new(Ipv6Addr::from_bits(bits), 64) else {
                continue;
            };
            if self.in_the_way(facts, &net.into()).is_none() {
                return Ok(net);
            }
        }
        let ula = Ipv6Net::new_assert(Ipv6Addr::new(0xfd00, 0, 0, 0, 0, 0, 0, 0), 8);
        Err(Rejection::NoFreeSubnet {
            pools: alloc::vec![ula.into()],
        })
    }
}

/// Gives gateways, ranges and reserved addresses to the subnets they are in.
fn assign(spec: &NetworkSpec, mut subnets: Vec<Subnet>) -> Result<Vec<Subnet>, Rejection> {
    let isolated = |address: IpAddr| {
        let mode = spec.gateway_modes.get(&Family::of(address));
        mode == Some(&GatewayMode::Isolated)
    };
    let mut gateways: BTreeMap<usize, IpAddr> = BTreeMap::new();
    for (index, subnet) in subnets.iter().enumerate() {
        let given = spec
            .subnets
            .get(index)
            .filter(|net| net.addr() != subnet.net.network());
        given.and_then(|net| gateways.insert(index, net.addr()));
    }
    let given = gateways.values().chain(&spec.gateways);
    if let Some(gateway) = given.copied().find(|gateway| isolated(*gateway)) {
        return Err(Rejection::GatewayIsolated { gateway });
    }
    for subnet in &mut subnets {
        subnet.gateway = subnet.gateway.filter(|gateway| !isolated(*gateway));
    }
    for gateway in &spec.gateways {
        let index = subnet_of("gateway", &subnets, &(*gateway).into())?;
        let subnet = &mut subnets[index];
        let gateway = subnet.host("gateway", *gateway)?;
        if let Some(first) = gateways.insert(index, gateway)
            && first != gateway
        {
            return Err(twice("gateway", subnet, &first, &gateway));
        }
        subnet.gateway = Some(gateway);
    }
    for range in &spec.ip_ranges {
        let index = subnet_of("lease range", &subnets, range)?;
        let subnet = &mut subnets[index];
        let (first, last) = subnet.lease_range(*range)?;
        if let Some((other, _)) = subnet.range.replace((first, last)) {
            return Err(twice("lease range", subnet, &other, &first));
        }
    }
    for (name, address) in &spec.aux_addresses {
        short_enough("reserved address's name", name.len())?;
        let index = subnet_of("reserved address", &subnets, &(*address).into())?;
        let subnet = &mut subnets[index];
        let address = subnet.host("reserved address", *address)?;
        subnet.reserved.insert(name.clone(), address);
    }
    Ok(subnets)
}

fn subnet_of(what: &'static str, subnets: &[Subnet], wanted: &IpNet) -> Result<usize, Rejection> {
    subnets
        .iter()
        .position(|subnet| subnet.net.contains(wanted))
        .ok_or_else(|| not_in(what, shown(wanted), subnets))
}

/// A single address without its prefix length.
fn shown(net: &IpNet) -> String {
    let single = net.prefix_len() == net.max_prefix_len();
    if single {
        net.addr().to_string()
    } else {
        net.to_string()
    }
}

fn not_in(what: &'static str, value: String, subnets: &[Subnet]) -> Rejection {
    let subnets = subnets.iter().map(|subnet| subnet.net).collect();
    Rejection::InNoSubnet {
        what,
        value,
        subnets,
    }
}

fn twice(what: &'static str, subnet: &Subnet, first: &IpAddr, second: &IpAddr) -> Rejection {
    let (first, second) = (first.to_string(), second.to_string());
    Rejection::Twice {
        what,
        subnet: subnet.net,
        first,
        second,
    }
}

fn overlap(a: &IpNet, b: &IpNet) -> bool {
    a.contains(b) || b.contains(a)
}

/// A default route, also in the halves and quarters that full-tunnel VPNs write it in: it says
/// nothing about who uses an address.
fn leads_anywhere(route: &IpNet) -> bool {
    let specific = match route {
        IpNet::V4(_) => 4,
        IpNet::V6(_) => 7,
    };
    route.prefix_len() < specific
}

/// Routes that every container of the network can have: none fights with another, with the
/// subnets or with the default route.
fn check_routes(network: &Network) -> Result<(), Rejection> {
    at_most("routes", network.routes.len(), ROUTES_MAX)?;
    for (index, route) in network.routes.iter().enumerate() {
        subnet_of("route's next hop", &network.subnets, &route.via.into())?;
        let destination = route.destination;
        let wrong = |reason| {
            Err(Rejection::Route {
                destination,
                reason,
            })
        };
        if Family::of(destination.addr()) != Family::of(route.via) {
            return wrong("its next hop is of the other family");
        }
        if destination != destination.trunc() {
            return wrong("it has host bits that are not zero");
        }
        if destination.prefix_len() == 0 {
            return wrong("the way to everything is the gateway's: give --gateway");
        }
        if network
            .subnets
            .iter()
            .any(|subnet| subnet.net == destination)
        {
            return wrong("that is a subnet of the network itself");
        }
        if network.routes[..index]
            .iter()
            .any(|other| other.destination == destination)
        {
            return wrong("there is another to the same destination");
        }
    }
    Ok(())
}

/// As asked for, or as the way out has it if the network's families can live with that.
fn mtu(facts: &Facts, spec: &NetworkSpec, subnets: &[Subnet]) -> Result<u32, Rejection> {
    let [v4, v6] = MTU_BYTES_MIN;
    let has_v6 = subnets.iter().any(|subnet| subnet.family() == Family::V6);
    let min = if has_v6 { v6 } else { v4 };
    match spec.mtu_bytes {
        Some(mtu) if !(min..=MTU_BYTES_MAX).contains(&mtu) => Err(Rejection::Mtu { mtu, min }),
        Some(mtu) => Ok(mtu),
        None => Ok(facts
            .mtu_bytes
            .unwrap_or(MTU_BYTES_DEFAULT)
            .clamp(min, MTU_BYTES_MAX)),
    }
}

pub(super) fn at_most(what: &'static str, count: usize, max: usize) -> Result<(), Rejection> {
    if count <= max {
        Ok(())
    } else {
        Err(Rejection::TooMany { what, count, max })
    }
}

fn short_enough(what: &'static str, bytes: usize) -> Result<(), Rejection> {
    let bytes_max = LABEL_BYTES_MAX;
    if bytes <= bytes_max {
        Ok(())
    } else {
        Err(Rejection::TooLong {
            what,
            bytes,
            bytes_max,
        })
    }
}
