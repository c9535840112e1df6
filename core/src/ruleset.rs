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

/// The `inet` table of one instance.
#[derive(Clone, Debug, Eq, PartialEq)]
pub struct Ruleset {
    /// The table's name.
    pub table: String,
    /// Its sets and maps.
    pub sets: Vec<Set>,
    /// Its chains; one that another jumps to stands before it.
    pub chains: Vec<Chain>,
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

use Expression::{Dnatted, Established, In, Loopback4, Loopback6, NotIn, ToThisHost};
use Field::{Destination, DestinationPort, Iifname, L4Proto, Oifname, Source};
use SetType::{Ifname, InetProto, InetService, Ipv4Addr, Ipv6Addr};

impl Ruleset {
    /// The table of `instance`.
    #[must_use]
    pub fn of(instance: Instance) -> Self {
        Self {
            table: instance.table(),
            sets: sets(),
            chains: chains(),
        }
    }

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

/// Priorities are numbers, for `nft` refuses the name `dstnat` on the output hook.
/// Source: `enum nf_ip_hook_priorities`, linux/netfilter_ipv4.h.
mod priority {
    pub(super) const RAW: i32 = -300;
    pub(super) const DSTNAT: i32 = -100;
    pub(super) const BEFORE_FILTER: i32 = -10;
    pub(super) const SRCNAT: i32 = 100;
}

fn chains() -> Vec<Chain> {
    use Family::{V4, V6};
    use Verdict::{Accept, DnatByMap, Drop, Jump, Masquerade, Return};
    fn rule<const N: usize>(when: [Expression; N], then: Verdict) -> Rule {
        Rule {
            when: when.into(),
            then,
        }
    }
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
        writeln!(f, "table inet {} {{", self.table)?;
        writeln!(f, "\tcomment \"{}\"", self.comment())?;
        write!(f, "{}}}", Body(self))
    }
}

/// Sets and chains, without the table's own name and comment.
struct Body<'a>(&'a Ruleset);

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
        write!(f, "\t{kind} {} {{ type {}", self.name, Concat(self.key))?;
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
