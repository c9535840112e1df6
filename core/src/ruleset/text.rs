//! The ruleset as `nft -f` takes it.

use core::fmt;

use super::Expression::{
    BegunByLoopback6, Carries, Dnatted, Established, Icmpv6Type, In, Is, IsIcmpv6, IsNot,
    Loopback4, Loopback6, NotIn, Reply, ToThisHost, Unpassed, Unspecified4, Unspecified6,
};
use super::Field::{
    Advertised, ArpSource, ArpSourceMac, Destination, DestinationPort, Iifgroup, Iifname, L4Proto,
    Oifgroup, Oifname, Source, SourceMac,
};
use super::SetType::{EtherAddr, Ifname, InetProto, InetService, Ipv4Addr, Ipv6Addr};
use super::{
    Chain, EtherType, Expression, Field, Hook, Icmpv6, Kind, Rule, Ruleset, Set, SetType, Table,
    TableFamily, Verdict,
};
use crate::Family;

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
        writeln!(f, "\tcomment \"{}\"", Self::MARK)?;
        for set in &self.sets {
            writeln!(f, "{set}")?;
        }
        for chain in &self.chains {
            writeln!(f, "{chain}")?;
        }
        f.write_str("}")
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
            Is(field, number) => write!(f, "{field} {number}"),
            IsNot(field, number) => write!(f, "{field} != {number}"),
            Loopback4(field) => write!(f, "{field} 127.0.0.0/8"),
            Loopback6(field) => write!(f, "{field} ::1"),
            ToThisHost => f.write_str("fib daddr type local"),
            Established => f.write_str("ct state established,related"),
            Dnatted => f.write_str("ct status dnat"),
            Self::Passed => {
                let bit = Ruleset::PASSED;
                write!(f, "meta mark & {bit:#010x} == {bit:#010x}")
            }
            Unpassed => {
                let bit = Ruleset::PASSED;
                write!(f, "meta mark & {bit:#010x} != {bit:#010x}")
            }
            Reply => f.write_str("ct direction reply"),
            BegunByLoopback6 => f.write_str("ct original ip6 saddr ::1"),
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
            Self::Pass => {
                let bit = Ruleset::PASSED;
                write!(f, "meta mark set meta mark | {bit:#010x} accept")
            }
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
            Self::SetDestination6ByMap(fields, map) => {
                write!(f, "ip6 daddr set {} map @{map}", Concat(fields))
            }
            Self::SetDestination6ToLoopback => f.write_str("ip6 daddr set ::1"),
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
            Iifgroup => "iifgroup",
            Oifgroup => "oifgroup",
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
            Self::Ip => "ip",
            Self::Ip6 => "ip6",
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
            Self::PacketTooBig => "packet-too-big",
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
            Self::Input => "input",
            Self::Forward => "forward",
            Self::Output => "output",
            Self::Postrouting => "postrouting",
        })
    }
}
