//! Which sets, chains and rules there are: the only copy of them.

use alloc::vec;
use alloc::vec::Vec;

use super::Expression::{
    BegunByLoopback6, Carries, Dnatted, Established, Icmpv6Type, In, IsIcmpv6, Loopback4,
    Loopback6, NotIn, Reply, ToThisHost, Unpassed, Unspecified4, Unspecified6,
};
use super::Field::{
    Advertised, ArpSource, ArpSourceMac, Destination, DestinationPort, Iifname, L4Proto, Oifname,
    Source, SourceMac,
};
use super::SetType::{EtherAddr, Ifname, InetProto, InetService, Ipv4Addr, Ipv6Addr};
use super::{
    Chain, EtherType, Expression, Field, Hook, Icmpv6, Kind, Rule, Ruleset, Set, SetType, Verdict,
};
use crate::Family;

pub(super) fn sets() -> Vec<Set> {
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
        set("isolated", &[Ifname, Ifname], false),
        set("internal", &[Ifname], false),
        set("open", &[Ifname], false),
        set("trusted", &[Ifname, Ifname], false),
        set("pinholes4", &[Ipv4Addr, InetProto, InetService], false),
        set("pinholes6", &[Ipv6Addr, InetProto, InetService], false),
        set("masquerade4", &[Ipv4Addr, Ifname], true),
        set("masquerade6", &[Ipv6Addr, Ifname], true),
        map("gateways6", &[Ifname], &[Ipv6Addr]),
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
pub(super) fn guard_sets() -> Vec<Set> {
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
        set("isolated", &[Ifname]),
    ]
}

/// Priorities are numbers, for `nft` refuses the name `dstnat` on the output hook.
/// Source: `enum nf_ip_hook_priorities`, linux/netfilter_ipv4.h.
mod priority {
    pub(super) const RAW: i32 = -300;
    pub(super) const DSTNAT: i32 = -100;
    pub(super) const AFTER_DSTNAT: i32 = -90;
    pub(super) const BEFORE_FILTER: i32 = super::super::Ruleset::FORWARD_PRIORITY;
    pub(super) const AFTER_FILTER: i32 = 10;
    pub(super) const SRCNAT: i32 = 100;
    pub(super) const AFTER_SRCNAT: i32 = 110;
}

fn rule<const N: usize>(when: [Expression; N], then: Verdict) -> Rule {
    Rule {
        when: when.into(),
        then,
    }
}

/// What comes out of a container is dropped unless it speaks for that container: before the bridge
/// learns a MAC address from it. Anything but IP and ARP is nobody's to check, so it goes, too.
pub(super) fn guard() -> Chain {
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

/// From one isolated port to another goes only what br_netfilter took through the rules for packets
/// before, at priority 0: a published port, or an answer.
pub(super) fn apart() -> Chain {
    Chain {
        name: "forward",
        base: Some((Kind::Filter, Hook::Forward, priority::AFTER_FILTER)),
        rules: vec![rule(
            [
                In(&[Iifname], "isolated"),
                In(&[Oifname], "isolated"),
                Unpassed,
            ],
            Verdict::Drop,
        )],
    }
}

pub(super) fn chains() -> Vec<Chain> {
    use Family::{V4, V6};
    use Verdict::{DnatByMap, Drop, Jump, Masquerade, Pass, Return};
    let base = |name, kind, hook, priority, rules| Chain {
        name,
        base: Some((kind, hook, priority)),
        rules,
    };
    const AT4: &[Field] = &[Destination(V4), L4Proto, DestinationPort];
    const AT6: &[Field] = &[Destination(V6), L4Proto, DestinationPort];
    const ANY: &[Field] = &[L4Proto, DestinationPort];
    vec![
        Chain {
            name: Ruleset::ADMIN,
            base: None,
            rules: Vec::new(),
        },
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
            vec![rule([ToThisHost], Jump("publish"))],
        ),
        // IPv6 has no route_localnet: an answer to this host's [::1]:PORT, whose destination is ::1
        // again behind dstnat, would not be routed to us. So it comes in under the bridge's own
        // address, and becomes what the client waits for when no more routing is to be done.
        base(
            "loopback6",
            Kind::Filter,
            Hook::Prerouting,
            priority::AFTER_DSTNAT,
            vec![rule(
                [
                    Loopback6(Destination(V6)),
                    In(&[Iifname], "bridges"),
                    Reply,
                    BegunByLoopback6,
                ],
                Verdict::SetDestination6ByMap(&[Iifname], "gateways6"),
            )],
        ),
        Chain {
            name: "to_loopback6",
            base: None,
            rules: vec![
                // Or all that is sent to ::1, by anybody, would be cut to the bridge's MTU.
                rule([Icmpv6Type(Icmpv6::PacketTooBig)], Drop),
                rule(
                    [In(&[Iifname], "bridges"), Loopback6(Source(V6))],
                    Verdict::SetDestination6ToLoopback,
                ),
            ],
        },
        base(
            "input",
            Kind::Filter,
            Hook::Input,
            priority::AFTER_SRCNAT,
            vec![rule(
                [Dnatted, Reply, BegunByLoopback6],
                Jump("to_loopback6"),
            )],
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
                rule(
                    [In(&[Oifname], "bridges"), Loopback6(Source(V6))],
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
                rule([], Jump(Ruleset::ADMIN)),
                rule([In(&[Iifname, Oifname], "own")], Pass),
                rule([In(&[Iifname], "internal")], Drop),
                rule([In(&[Oifname], "internal")], Drop),
                rule([Established], Pass),
                rule([In(&[Oifname], "bridges"), Dnatted], Pass),
                rule([In(&[Iifname, Oifname], "isolated")], Drop),
                rule([In(AT4, "pinholes4")], Pass),
                rule([In(AT6, "pinholes6")], Pass),
                rule([In(&[Iifname], "open"), In(&[Oifname], "open")], Pass),
                rule([In(&[Iifname, Oifname], "trusted")], Pass),
                rule([In(&[Oifname], "bridges")], Drop),
                // What is left comes from a container and leaves.
                rule([], Pass),
            ],
        ),
    ]
}
