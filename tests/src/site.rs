//! A host with containers on two networks, on a LAN with another machine.

use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};
use std::path::PathBuf;

use crate::Host;

/// `web` and `peer` on network `front`, `other` on network `back`, and `lan`, another machine,
/// which sends all it does not know where to through the host. Each has an address of either family.
pub struct Site {
    /// The host of it all.
    pub host: Host,
    /// The container that may publish ports.
    pub web: PathBuf,
    /// Another one on the same network.
    pub peer: PathBuf,
    /// One on another network.
    pub other: PathBuf,
    /// The other machine.
    pub lan: PathBuf,
}

/// An address of either family, IPv4 first.
pub type Dual = [IpAddr; 2];

const fn dual(v4: [u8; 4], v6: [u16; 8]) -> Dual {
    let ([a, b, c, d], [s, t, u, v, w, x, y, z]) = (v4, v6);
    [
        IpAddr::V4(Ipv4Addr::new(a, b, c, d)),
        IpAddr::V6(Ipv6Addr::new(s, t, u, v, w, x, y, z)),
    ]
}

impl Site {
    /// The host, on the LAN.
    pub const HOST: Dual = dual([192, 0, 2, 1], [0x2001, 0xdb8, 0, 0, 0, 0, 0, 1]);
    /// The other machine.
    pub const LAN: Dual = dual([192, 0, 2, 9], [0x2001, 0xdb8, 0, 0, 0, 0, 0, 9]);
    /// The host, on `front`.
    pub const FRONT: Dual = dual([10, 1, 0, 1], [0xfd01, 0, 0, 0, 0, 0, 0, 1]);
    /// The container that may publish ports.
    pub const WEB: Dual = dual([10, 1, 0, 2], [0xfd01, 0, 0, 0, 0, 0, 0, 2]);
    /// Its neighbour.
    pub const PEER: Dual = dual([10, 1, 0, 3], [0xfd01, 0, 0, 0, 0, 0, 0, 3]);
    /// The host, on `back`.
    pub const BACK: Dual = dual([10, 2, 0, 1], [0xfd02, 0, 0, 0, 0, 0, 0, 1]);
    /// The container on the other network.
    pub const OTHER: Dual = dual([10, 2, 0, 2], [0xfd02, 0, 0, 0, 0, 0, 0, 2]);
    /// Whoever says it.
    pub const LOOPBACK: Dual = dual([127, 0, 0, 1], [0, 0, 0, 0, 0, 0, 0, 1]);

    /// `options` are those of `front`, `publish` those of `web`; `None`, and a word about it,
    /// without root.
    ///
    /// # Panics
    /// When it can't be built.
    #[must_use]
    pub fn new(options: &str, publish: &str) -> Option<Self> {
        let host = Host::new()?;
        let lan = host.neighbour(
            "lan",
            "192.0.2.1/24 2001:db8::1/64",
            "192.0.2.9/24 2001:db8::9/64",
        );
        host.sh_in(
            &lan,
            "ip route add default via 192.0.2.1
             ip -6 route add default via 2001:db8::1",
        );
        let [web, peer, other] = ["web", "peer", "other"].map(|name| host.sandbox(name));
        let create = "network create --subnet";
        host.ok(&format!(
            "{create} 10.1.0.0/24 --subnet fd01::/64 {options} front"
        ));
        host.ok(&format!("{create} 10.2.0.0/24 --subnet fd02::/64 back"));
        assert_eq!(host.connect("front", "web", &web, publish), Self::WEB);
        assert_eq!(host.connect("front", "peer", &peer, ""), Self::PEER);
        assert_eq!(host.connect("back", "other", &other, ""), Self::OTHER);
        Some(Self {
            host,
            web,
            peer,
            other,
            lan,
        })
    }
}
