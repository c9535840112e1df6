//! The static half of the firewall, as data: one description that `nft` text and netlink
//! messages are both made from.
//!
//! Everything that varies with networks, endpoints or ports is an element of a set or map; the
//! rules never change, and a packet meets the same few of them on a host with one published
//! port as on a host with ten thousand.

use alloc::format;
use alloc::string::String;
use alloc::vec;
use alloc::vec::Vec;
use core::fmt;

use crate::instance::fnv1a;
use crate::{Family, Instance};

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
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub enum TableFamily {
    /// `inet`: IPv4 and IPv6 at the IP layer.
    Inet,
    /// `bridge`: frames, at the ports of a bridge.
    Bridge,
}

/// A named set, or a map when it has data.
#[derive(Clone, Debug, Eq, PartialEq)]
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

/// An ICMPv6 message (RFC 4861).
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub enum Icmpv6 {
    /// `nd-router-advert`
    RouterAdvertisement,
    /// `nd-neighbor-advert`
    NeighbourAdvertisement,
    /// `nd-redirect`
    Redirect,
}

/// One condition.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub enum Expression {
    /// The concatenated fields are in the set.
    In(&'static [Field], &'static str),
    /// The concatenated fields are not in the set.
    NotIn(&'static [Field], &'static str),
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
}

use Expression::{
    Carries, Dnatted, Established, Icmpv6Type, In, IsIcmpv6, Loopback4, Loopback6, NotIn,
    ToThisHost, Unspecified4, Unspecified6,
};
use Field::{
    Advertised, ArpSource, ArpSourceMac, Destination, DestinationPort, Iifname, L4Proto, Oifname,
    Source, SourceMac,
};
use SetType::{EtherAddr, Ifname, InetProto, InetService, Ipv4Addr, Ipv6Addr};

impl Ruleset {
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
                table(TableFamily::Inet, sets(), chains()),
                table(TableFamily::Bridge, guard_sets(), vec![guard()]),
            ],
        }
    }
}

impl Table {
    /// The table's comment: whose it is, and a hash of everything static in it, so that a table
    /// of another version is told from ours.
    #[must_use]
    pub fn comment(&self) -> String {
        format!(
            "{}{:016x}",
            Self::MARK,
            fnv1a(&[format!("{}", Body(self)).as_bytes()])
        )
    }

    /// How the comment of every table of ours begins.
    pub const MARK: &'static str = "mydocker ruleset ";
}

fn sets() -> Vec<Set> {
    let set = |name, key, interval| Set {
        name,
        key,
        data: &[],
        interval,
    };
    let map = |name, key, data| Set {
        name,
        key,
        data,
        interval: false,
    };
    vec![
        set("bridges", &[Ifname], false),
        set("own", &[Ifname, Ifname], false),
        set("internal", &[Ifname], false),
        set("open", &[Ifname], false),
        set("masquerade4", &[Ipv4Addr, Ifname], true),
        set("masquerade6", &[Ipv6Addr, Ifname], true),
        map(
            "publish4",
            &[InetProto, InetService],
            &[Ipv4Addr, InetService],
        ),
        map(
            "publish4_at",
            &[Ipv4Addr, InetProto, InetService],
            &[Ipv4Addr, InetService],
        ),
        map(
            "publish6",
            &[InetProto, InetService],
            &[Ipv6Addr, InetService],
        ),
        map(
            "publish6_at",
            &[Ipv6Addr, InetProto, InetService],
            &[Ipv6Addr, InetService],
        ),
    ]
}

/// What each guarded port of a bridge may claim to be: an element or two for every endpoint.
fn guard_sets() -> Vec<Set> {
    let set = |name, key| Set {
        name,
        key,
        data: &[],
        interval: false,
    };
    vec![
        set("ports", &[Ifname]),
        set("macs", &[Ifname, EtherAddr]),
        set("addresses4", &[Ifname, EtherAddr, Ipv4Addr]),
        set("addresses6", &[Ifname, EtherAddr, Ipv6Addr]),
        set("targets6", &[Ifname, SetType::Advertised]),
    ]
}

/// Priorities are numbers, for `nft` refuses the name `dstnat` on the output hook.
/// Source: `enum nf_ip_hook_priorities`, linux/netfilter_ipv4.h.
mod priority {
    pub(super) const RAW: i32 = -300;
    pub(super) const DSTNAT: i32 = -100;
    pub(super) const BEFORE_FILTER: i32 = -10;
    pub(super) const SRCNAT: i32 = 100;
}

fn rule<const N: usize>(when: [Expression; N], then: Verdict) -> Rule {
    Rule {
        when: when.into(),
        then,
    }
}

/// What comes out of a container is dropped unless it speaks for that container: before the bridge
/// learns a MAC address from it. Anything but IP and ARP is nobody's to check, so it goes, too.
fn guard() -> Chain {
    use EtherType::{Arp, Ipv4, Ipv6};
    use Family::{V4, V6};
    use Icmpv6::{NeighbourAdvertisement, Redirect, RouterAdvertisement};
    use Verdict::{Accept, Drop, Return};
    const FROM4: &[Field] = &[Iifname, SourceMac, Source(V4)];
    const FROM6: &[Field] = &[Iifname, SourceMac, Source(V6)];
    const ARP: &[Field] = &[Iifname, ArpSourceMac, ArpSource];
    const ARP_MAC: &[Field] = &[Iifname, ArpSourceMac];
    const TARGET: &[Field] = &[Iifname, Advertised];
    let icmpv6 = |message| [Carries(Ipv6), Icmpv6Type(message)];
    let [ipv6, advertisement] = icmpv6(NeighbourAdvertisement);
    Chain {
        name: "prerouting",
        base: Some((Kind::Filter, Hook::Prerouting, priority::RAW)),
        rules: vec![
            rule([NotIn(&[Iifname], "ports")], Return),
            rule([NotIn(&[Iifname, SourceMac], "macs")], Drop),
            rule([Carries(Ipv4), In(FROM4, "addresses4")], Accept),
            rule([Carries(Arp), In(ARP, "addresses4")], Accept),
            // Is an address free? Nobody learns anything from the question (RFC 5227).
            rule(
                [Carries(Arp), In(ARP_MAC, "macs"), Unspecified4(ArpSource)],
                Accept,
            ),
            rule(icmpv6(RouterAdvertisement), Drop),
            rule(icmpv6(Redirect), Drop),
            rule([ipv6, advertisement, NotIn(TARGET, "targets6")], Drop),
            rule([Carries(Ipv6), In(FROM6, "addresses6")], Accept),
            // The same question in IPv6, and a report of multicast groups before it (RFC 4862).
            rule([Carries(Ipv6), IsIcmpv6, Unspecified6(Source(V6))], Accept),
            rule([], Drop),
        ],
    }
}

fn chains() -> Vec<Chain> {
    use Family::{V4, V6};
    use Verdict::{Accept, DnatByMap, Drop, Jump, Masquerade, Return};
    let base = |name, kind, hook, priority, rules| Chain {
        name,
        base: Some((kind, hook, priority)),
        rules,
    };
    const AT4: &[Field] = &[Destination(V4), L4Proto, DestinationPort];
    const AT6: &[Field] = &[Destination(V6), L4Proto, DestinationPort];
    const ANY: &[Field] = &[L4Proto, DestinationPort];
    vec![
        // A port of this host alone: packets in transit to somebody else's port pass untouched.
        Chain {
            name: "publish",
            base: None,
            rules: vec![
                rule([], DnatByMap(V4, AT4, "publish4_at")),
                rule([], DnatByMap(V4, ANY, "publish4")),
                rule([], DnatByMap(V6, AT6, "publish6_at")),
                rule([], DnatByMap(V6, ANY, "publish6")),
            ],
        },
        // Our bridges have route_localnet set, so that 127.0.0.1:PORT can lead to a container.
        // That also lets containers address the host's loopback; this takes it back.
        base(
            "raw",
            Kind::Filter,
            Hook::Prerouting,
            priority::RAW,
            vec![
                rule(
                    [In(&[Iifname], "bridges"), Loopback4(Destination(V4))],
                    Drop,
                ),
                rule([In(&[Iifname], "bridges"), Loopback4(Source(V4))], Drop),
            ],
        ),
        base(
            "prerouting",
            Kind::Nat,
            Hook::Prerouting,
            priority::DSTNAT,
            vec![
                // Rewritten here it would be gone before the kernel sees that 127.0.0.1 came in
                // over a cable, and a port published on loopback would be open to the LAN.
                rule([Loopback4(Destination(V4))], Return),
                rule([ToThisHost], Jump("publish")),
            ],
        ),
        base(
            "output",
            Kind::Nat,
            Hook::Output,
            priority::DSTNAT,
            vec![
                // IPv6 has no route_localnet: rewritten, the packet could not leave, and a client
                // that tries ::1 first would hang instead of being refused.
                rule([Loopback6(Destination(V6))], Return),
                rule([ToThisHost], Jump("publish")),
            ],
        ),
        base(
            "postrouting",
            Kind::Nat,
            Hook::Postrouting,
            priority::SRCNAT,
            vec![
                // A container to a published port of its own network: the answer must come back
                // through here to be rewritten. Told by address, since a frame that was rewritten
                // while it was bridged has no incoming interface at this hook.
                rule(
                    [Dnatted, In(&[Source(V4), Oifname], "masquerade4")],
                    Masquerade,
                ),
                rule(
                    [Dnatted, In(&[Source(V6), Oifname], "masquerade6")],
                    Masquerade,
                ),
                // This host's 127.0.0.1:PORT: nobody can answer a loopback address.
                rule(
                    [In(&[Oifname], "bridges"), Loopback4(Source(V4))],
                    Masquerade,
                ),
                // Between networks of ours the answer finds its way, so the source stays.
                rule([In(&[Oifname], "bridges")], Return),
                rule([In(&[Source(V4), Iifname], "masquerade4")], Masquerade),
                rule([In(&[Source(V6), Iifname], "masquerade6")], Masquerade),
            ],
        ),
        base(
            "forward",
            Kind::Filter,
            Hook::Forward,
            priority::BEFORE_FILTER,
            vec![
                rule(
                    [NotIn(&[Iifname], "bridges"), NotIn(&[Oifname], "bridges")],
                    Return,
                ),
                rule([In(&[Iifname, Oifname], "own")], Accept),
                rule([In(&[Iifname], "internal")], Drop),
                rule([In(&[Oifname], "internal")], Drop),
                rule([Established], Accept),
                rule([In(&[Oifname], "bridges"), Dnatted], Accept),
                rule([In(&[Iifname], "open"), In(&[Oifname], "open")], Accept),
                rule([In(&[Oifname], "bridges")], Drop),
            ],
        ),
    ]
}

/// The text that `nft -f` takes.
impl fmt::Display for Ruleset {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let [inet, bridge] = &self.tables;
        write!(f, "{inet}\n{bridge}")
    }
}

impl fmt::Display for Table {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        writeln!(f, "table {} {} {{", self.family, self.name)?;
        writeln!(f, "\tcomment \"{}\"", self.comment())?;
        write!(f, "{}}}", Body(self))
    }
}

/// Sets and chains, without the table's own name and comment.
struct Body<'a>(&'a Table);

impl fmt::Display for Body<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        for set in &self.0.sets {
            writeln!(f, "{set}")?;
        }
        for chain in &self.0.chains {
            writeln!(f, "{chain}")?;
        }
        Ok(())
    }
}

impl fmt::Display for Set {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let kind = if self.data.is_empty() { "set" } else { "map" };
        write!(f, "\t{kind} {} {{ ", self.name)?;
        if self.key == [Ifname, SetType::Advertised] {
            write!(f, "typeof {}", Concat(&[Iifname, Advertised]))?;
        } else {
            write!(f, "type {}", Concat(self.key))?;
        }
        if !self.data.is_empty() {
            write!(f, " : {}", Concat(self.data))?;
        }
        f.write_str(if self.interval {
            "; flags interval; }"
        } else {
            "; }"
        })
    }
}

impl fmt::Display for Chain {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        writeln!(f, "\tchain {} {{", self.name)?;
        if let Some((kind, hook, priority)) = self.base {
            writeln!(
                f,
                "\t\ttype {kind} hook {hook} priority {priority}; policy accept;"
            )?;
        }
        for rule in &self.rules {
            writeln!(f, "\t\t{rule}")?;
        }
        f.write_str("\t}")
    }
}

impl fmt::Display for Rule {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        for expression in &self.when {
            write!(f, "{expression} ")?;
        }
        write!(f, "{}", self.then)
    }
}

impl fmt::Display for Expression {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            In(fields, set) => write!(f, "{} @{set}", Concat(fields)),
            NotIn(fields, set) => write!(f, "{} != @{set}", Concat(fields)),
            Loopback4(field) => write!(f, "{field} 127.0.0.0/8"),
            Loopback6(field) => write!(f, "{field} ::1"),
            ToThisHost => f.write_str("fib daddr type local"),
            Established => f.write_str("ct state established,related"),
            Dnatted => f.write_str("ct status dnat"),
            Carries(carried) => write!(f, "ether type {carried}"),
            Icmpv6Type(message) => write!(f, "icmpv6 type {message}"),
            IsIcmpv6 => f.write_str("meta l4proto ipv6-icmp"),
            Unspecified4(field) => write!(f, "{field} 0.0.0.0"),
            Unspecified6(field) => write!(f, "{field} ::"),
        }
    }
}

impl fmt::Display for Verdict {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Accept => f.write_str("accept"),
            Self::Drop => f.write_str("drop"),
            Self::Return => f.write_str("return"),
            Self::Jump(chain) => write!(f, "jump {chain}"),
            Self::Masquerade => f.write_str("masquerade"),
            Self::DnatByMap(family, fields, map) => {
                let ip = match family {
                    Family::V4 => "ip",
                    Family::V6 => "ip6",
                };
                write!(f, "dnat {ip} to {} map @{map}", Concat(fields))
            }
        }
    }
}

/// `a . b . c`
struct Concat<'a, T>(&'a [T]);

impl<T: fmt::Display> fmt::Display for Concat<'_, T> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        for (i, item) in self.0.iter().enumerate() {
            if i > 0 {
                f.write_str(" . ")?;
            }
            write!(f, "{item}")?;
        }
        Ok(())
    }
}

impl fmt::Display for SetType {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Ipv4Addr => "ipv4_addr",
            Ipv6Addr => "ipv6_addr",
            InetProto => "inet_proto",
            InetService => "inet_service",
            Ifname => "ifname",
            EtherAddr => "ether_addr",
            Self::Advertised => "@th,64,128",
        })
    }
}

impl fmt::Display for Field {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Iifname => "iifname",
            Oifname => "oifname",
            Source(Family::V4) => "ip saddr",
            Source(Family::V6) => "ip6 saddr",
            Destination(Family::V4) => "ip daddr",
            Destination(Family::V6) => "ip6 daddr",
            L4Proto => "meta l4proto",
            DestinationPort => "th dport",
            SourceMac => "ether saddr",
            ArpSourceMac => "arp saddr ether",
            ArpSource => "arp saddr ip",
            Advertised => "@th,64,128",
        })
    }
}

impl fmt::Display for TableFamily {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::Inet => "inet",
            Self::Bridge => "bridge",
        })
    }
}

impl fmt::Display for EtherType {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::Ipv4 => "ip",
            Self::Arp => "arp",
            Self::Ipv6 => "ip6",
        })
    }
}

impl fmt::Display for Icmpv6 {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::RouterAdvertisement => "nd-router-advert",
            Self::NeighbourAdvertisement => "nd-neighbor-advert",
            Self::Redirect => "nd-redirect",
        })
    }
}

impl fmt::Display for Kind {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::Filter => "filter",
            Self::Nat => "nat",
        })
    }
}

impl fmt::Display for Hook {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::Prerouting => "prerouting",
            Self::Forward => "forward",
            Self::Output => "output",
            Self::Postrouting => "postrouting",
        })
    }
}
