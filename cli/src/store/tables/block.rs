//! Block: ports of the host that follow each other, which are claimed together. A claim of its own for
//! each port would make many ports many rows; one for a whole range would not be found by a port of it.

use std::collections::BTreeMap;
use std::fmt;
use std::net::IpAddr;
use std::str::FromStr;

use mydocker_core::{Endpoint, Family, PortBinding, Protocol, hosts_overlap};

/// So many ports of one protocol and family, from a multiple of that on.
#[derive(Clone, Copy, Debug, Eq, Ord, PartialEq, PartialOrd)]
pub(super) struct Block {
    protocol: Protocol,
    family: Family,
    first: u16,
}

/// Which ports of a block somebody has, at each address of the host: bit 0 is its first.
#[derive(Clone, Debug, Default, Eq, PartialEq)]
pub(super) struct Ports(BTreeMap<IpAddr, Bits>);

type Bits = u16;

/// Few, for whoever has one port reads who has the others of its block.
const PORTS: u16 = Bits::BITS as u16;

impl Block {
    fn of(binding: &PortBinding) -> Self {
        Self {
            protocol: binding.protocol,
            family: binding.family(),
            first: binding.host_port / PORTS * PORTS,
        }
    }
}

/// As it is claimed.
impl fmt::Display for Block {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let family = match self.family {
            Family::V4 => 4,
            Family::V6 => 6,
        };
        write!(f, "ports {} {family} {}", self.protocol, self.first)
    }
}

impl Ports {
    /// Whether somebody who has these is in the way of somebody who has the others of the same block.
    pub(super) fn overlap(&self, other: &Self) -> bool {
        self.0.iter().any(|(host, ports)| {
            let mut others = other.0.iter();
            others.any(|(other, theirs)| ports & theirs != 0 && hosts_overlap(*host, *other))
        })
    }
}

/// As a claim tells them: `192.0.2.1=3,192.0.2.2=8000`, bits in hexadecimal.
impl fmt::Display for Ports {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        for (place, (host, ports)) in self.0.iter().enumerate() {
            let between = if place > 0 { "," } else { "" };
            write!(f, "{between}{host}={ports:x}")?;
        }
        Ok(())
    }
}

impl FromStr for Ports {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, String> {
        let one = |text: &str| {
            let (host, ports) = text.split_once('=')?;
            Some((host.parse().ok()?, Bits::from_str_radix(ports, 16).ok()?))
        };
        let all: Option<_> = text.split(',').map(one).collect();
        let wrong = || format!("a claim of ports says `{}`", text.escape_debug());
        all.map(Self).ok_or_else(wrong)
    }
}

/// The blocks that an endpoint has ports of the host in, and which.
pub(super) fn of(endpoint: &Endpoint) -> BTreeMap<Block, Ports> {
    let mut blocks: BTreeMap<Block, Ports> = BTreeMap::new();
    for binding in endpoint.host_ports() {
        let Ports(hosts) = blocks.entry(Block::of(binding)).or_default();
        *hosts.entry(binding.host_ip).or_default() |= 1 << (binding.host_port % PORTS);
    }
    blocks
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    /// Few words, so that they meet, and the ends of all ports.
    fn binding() -> impl Strategy<Value = PortBinding> {
        let hosts = ["0.0.0.0", "127.0.0.1", "192.0.2.1", "::", "::1", "fd00::7"];
        let ports = [1, 2, 15, 16, 17, 8080, 65_520, 65_535];
        let protocols = [Protocol::Tcp, Protocol::Udp, Protocol::Sctp];
        let select = prop::sample::select::<&str>;
        (
            select(hosts.to_vec()),
            prop::sample::select(ports.to_vec()),
            prop::sample::select(protocols.to_vec()),
        )
            .prop_map(|(host_ip, host_port, protocol)| PortBinding {
                host_ip: host_ip.parse().unwrap(),
                host_port,
                container_port: 80,
                protocol,
            })
    }

    fn endpoint(ports: Vec<PortBinding>) -> Endpoint {
        Endpoint {
            ports,
            ..serde_json::from_value(serde_json::json!({
                "network": "n", "container": "c", "netns": "/run/netns/c", "ifname": "eth0",
                "host_link": "mdv0", "mac": "02:00:00:00:00:01", "addresses": ["10.0.0.2/24"],
                "rank": 0, "default_route": true, "ports": [],
            }))
            .unwrap()
        }
    }

    fn bindings() -> impl Strategy<Value = Vec<PortBinding>> {
        prop::collection::vec(binding(), 0..6)
    }

    proptest! {
        #[test]
        fn blocks_overlap_where_bindings_do(ours in bindings(), theirs in bindings()) {
            let conflict = ours.iter().any(|a| theirs.iter().any(|b| a.conflicts(b)));
            let [ours, theirs] = [ours, theirs].map(|ports| of(&endpoint(ports)));
            let met = ours.iter().any(|(block, ports)| {
                theirs.get(block).is_some_and(|others| ports.overlap(others))
            });
            prop_assert_eq!(met, conflict);
        }

        #[test]
        fn ports_are_read_as_they_are_told(ports in bindings()) {
            for ports in of(&endpoint(ports)).into_values() {
                prop_assert_eq!(ports.to_string().parse(), Ok(ports));
            }
        }
    }

    #[test]
    fn a_block_is_claimed_in_words() {
        let port = |text: &str| {
            let spec: mydocker_core::PortSpec = text.parse().unwrap();
            PortBinding {
                host_ip: spec.host_ip.unwrap(),
                host_port: spec.host_port.unwrap(),
                container_port: spec.container_port,
                protocol: spec.protocol,
            }
        };
        let ports = [
            "192.0.2.1:8080:80",
            "192.0.2.1:8081:81",
            "192.0.2.2:8095:82",
        ];
        let blocks = of(&endpoint(ports.map(port).to_vec()));
        let told = blocks
            .iter()
            .map(|(block, ports)| format!("{block}: {ports}"));
        assert_eq!(
            told.collect::<Vec<_>>(),
            ["ports tcp 4 8080: 192.0.2.1=3,192.0.2.2=8000"]
        );
    }

    #[test]
    fn what_was_not_written_is_refused() {
        for bad in [
            "",
            "192.0.2.1",
            "192.0.2.1=",
            "=1",
            "192.0.2.1=10000",
            "host=1",
            "192.0.2.1=1,",
        ] {
            let error = bad.parse::<Ports>().unwrap_err();
            assert!(error.contains(&format!("`{bad}`")), "{error}");
        }
    }
}
