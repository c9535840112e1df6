//! The static half of the firewall, as data: one description that `nft` text and netlink
//! messages are both made from.
//!
//! Everything that varies with networks, endpoints or ports is an element of a set or map; the
//! rules never change, and a packet meets the same few of them on a host with one published
//! port as on a host with ten thousand.

mod element;
mod rules;
mod text;

use alloc::string::String;
use alloc::vec;
use alloc::vec::Vec;

use serde::{Deserialize, Serialize};

use crate::{Family, Instance};
pub(crate) use element::Key;
pub use element::{Element, Value, objects_of};

/// The tables of one instance, made and removed together: `inet` for what is routed, `bridge` for
/// what a container may claim to be.
#[derive(Clone, Debug, Eq, PartialEq)]
pub struct Ruleset {
    /// One of each family, under one name.
    pub tables: [Table; 2],
}

/// An nf_tables table.
#[derive(Clone, Debug, Eq, PartialEq)]
pub struct Table {
    /// Its family.
    pub family: TableFamily,
    /// Its name.
    pub name: String,
    /// Its sets and maps.
    pub sets: Vec<Set>,
    /// Its chains; one that another jumps to stands before it.
    pub chains: Vec<Chain>,
}

/// Which packets a table sees.
#[derive(Clone, Copy, Debug, Eq, Ord, PartialEq, PartialOrd, Deserialize, Serialize)]
#[serde(rename_all = "snake_case")]
pub enum TableFamily {
    /// `ip`: IPv4.
    Ip,
    /// `ip6`: IPv6.
    Ip6,
    /// `inet`: IPv4 and IPv6 at the IP layer.
    Inet,
    /// `bridge`: frames, at the ports of a bridge.
    Bridge,
}

impl TableFamily {
    /// Whether the table sees packets of that family as such.
    #[must_use]
    pub fn sees(self, family: Family) -> bool {
        match self {
            Self::Ip => family == Family::V4,
            Self::Ip6 => family == Family::V6,
            Self::Inet => true,
            Self::Bridge => false,
        }
    }
}

/// A named set, or a map when it has data.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub struct Set {
    /// Its name.
    pub name: &'static str,
    /// The types of its key, concatenated.
    pub key: &'static [SetType],
    /// The types of its data, concatenated; empty for a set.
    pub data: &'static [SetType],
    /// Whether keys may be prefixes (`flags interval`).
    pub interval: bool,
}

/// The type of one field of a key.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub enum SetType {
    /// `ipv4_addr`
    Ipv4Addr,
    /// `ipv6_addr`
    Ipv6Addr,
    /// `inet_proto`
    InetProto,
    /// `inet_service`
    InetService,
    /// `ifname`
    Ifname,
    /// `ether_addr`
    EtherAddr,
    /// What [`Field::Advertised`] reads, for which nft has no name: a set with it is declared by
    /// the fields that are looked up in it (`typeof`).
    Advertised,
}

/// A chain, with its place in the packet's path if it is a base chain.
#[derive(Clone, Debug, Eq, PartialEq)]
pub struct Chain {
    /// Its name.
    pub name: &'static str,
    /// Type, hook and priority of a base chain. Its policy is always accept: what our rules
    /// don't name is none of our business.
    pub base: Option<(Kind, Hook, i32)>,
    /// Its rules, in order.
    pub rules: Vec<Rule>,
}

/// The type of a base chain.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub enum Kind {
    /// `filter`
    Filter,
    /// `nat`
    Nat,
}

/// A netfilter hook (`enum nf_inet_hooks`, linux/netfilter.h).
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub enum Hook {
    /// Before routing.
    Prerouting,
    /// To this host.
    Input,
    /// Between interfaces.
    Forward,
    /// From this host.
    Output,
    /// After routing.
    Postrouting,
}

/// Conditions that must all hold, and what then happens.
#[derive(Clone, Debug, Eq, PartialEq)]
pub struct Rule {
    /// All must match.
    pub when: Vec<Expression>,
    /// What happens then.
    pub then: Verdict,
}

/// A field of a packet.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub enum Field {
    /// The interface it came in by.
    Iifname,
    /// The interface it leaves by.
    Oifname,
    /// The link group of the interface it came in by; a packet of this host has none.
    Iifgroup,
    /// The link group of the interface it leaves by.
    Oifgroup,
    /// The source address.
    Source(Family),
    /// The destination address.
    Destination(Family),
    /// The transport protocol.
    L4Proto,
    /// The destination port.
    DestinationPort,
    /// The MAC address that a frame comes from.
    SourceMac,
    /// The MAC address that an ARP packet is about.
    ArpSourceMac,
    /// The IPv4 address that an ARP packet is about.
    ArpSource,
    /// The IPv6 address that a neighbour advertisement is about (RFC 4861, 4.4), in bits 64 to 191
    /// of the ICMPv6 message.
    Advertised,
}

/// What a frame carries (`ETH_P_*`, linux/if_ether.h). One with a VLAN tag carries none of them.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub enum EtherType {
    /// `ip`
    Ipv4,
    /// `arp`
    Arp,
    /// `ip6`
    Ipv6,
}

/// An ICMPv6 message (RFC 4861, RFC 4443).
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub enum Icmpv6 {
    /// `nd-router-advert`
    RouterAdvertisement,
    /// `nd-neighbor-advert`
    NeighbourAdvertisement,
    /// `nd-redirect`
    Redirect,
    /// `packet-too-big` (RFC 4443)
    PacketTooBig,
}

/// One condition.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub enum Expression {
    /// The concatenated fields are in the set.
    In(&'static [Field], &'static str),
    /// The concatenated fields are not in the set.
    NotIn(&'static [Field], &'static str),
    /// The field, a number, is this one.
    Is(Field, u32),
    /// The field, a number, is there and another one.
    IsNot(Field, u32),
    /// The field is an IPv4 address of 127.0.0.0/8.
    Loopback4(Field),
    /// The field is the IPv6 loopback address, ::1.
    Loopback6(Field),
    /// The destination is an address of this host (`fib daddr type local`).
    ToThisHost,
    /// The packet belongs to a connection that was let through (`ct state established,related`).
    Established,
    /// The connection's destination was rewritten (`ct status dnat`).
    Dnatted,
    /// Our own forward chain did not let the packet through ([`Ruleset::PASSED`]).
    Unpassed,
    /// The packet answers whoever began the connection (`ct direction reply`).
    Reply,
    /// Who began the connection did so from ::1 (`ct original ip6 saddr ::1`).
    BegunByLoopback6,
    /// Our forward chain let it through: [`Ruleset::PASSED`] is set in its mark.
    Passed,
    /// The frame carries this. In a `bridge` table it stands before whatever reads the packet
    /// inside, or nft would put a condition of its own there.
    Carries(EtherType),
    /// The packet is this ICMPv6 message.
    Icmpv6Type(Icmpv6),
    /// The packet is an ICMPv6 message.
    IsIcmpv6,
    /// The field, an IPv4 address, is 0.0.0.0.
    Unspecified4(Field),
    /// The field, an IPv6 address, is ::.
    Unspecified6(Field),
}

/// What a matching rule does.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub enum Verdict {
    /// Let it through this hook's chain.
    Accept,
    /// Let it through this hook's chain, with [`Ruleset::PASSED`] set in its mark for whoever judges
    /// later.
    Pass,
    /// Throw it away.
    Drop,
    /// Go back to the calling chain, or to the policy.
    Return,
    /// Go on in another chain and come back.
    Jump(&'static str),
    /// Rewrite the source to the address of the outgoing interface.
    Masquerade,
    /// Rewrite destination address and port to what the map says of the concatenated fields;
    /// a packet that the map doesn't know passes on.
    DnatByMap(Family, &'static [Field], &'static str),
    /// Write what the map says of the concatenated fields over the IPv6 destination, behind
    /// the back of connection tracking, and go on.
    SetDestination6ByMap(&'static [Field], &'static str),
    /// Write ::1 over the IPv6 destination, behind the back of connection tracking, and go on.
    SetDestination6ToLoopback,
}

impl Ruleset {
    /// The bit of a packet's mark that says that our own forward chain let it through: an accept in
    /// one base chain does not save a packet from a drop in another one of the same hook.
    pub const PASSED: u32 = 0x0100_0000;
    /// The chain that belongs to the administrator: empty when it is made, and never touched
    /// again. Every packet that is routed to or from a container passes it first.
    pub const ADMIN: &'static str = "admin";

    /// The priority of our forward chain: whoever comes at or before it sees no such bit.
    pub const FORWARD_PRIORITY: i32 = -10;

    /// The tables of `instance`.
    #[must_use]
    pub fn of(instance: Instance) -> Self {
        let table = |family, sets, chains| Table {
            family,
            name: instance.table(),
            sets,
            chains,
        };
        Self {
            tables: [
                table(TableFamily::Inet, rules::sets(), rules::chains(instance)),
                table(
                    TableFamily::Bridge,
                    rules::guard_sets(),
                    vec![rules::guard(), rules::apart()],
                ),
            ],
        }
    }
}

impl Table {
    /// How the comment of every table of ours begins: what has another one is somebody else's.
    pub const MARK: &'static str = "mydocker ruleset";
}
