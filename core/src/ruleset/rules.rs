//! Which sets, chains and rules there are: the only copy of them.

use alloc::vec;
use alloc::vec::Vec;

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
    Chain, EtherType, Expression, Field, Hook, Icmpv6, Kind, Rule, Ruleset, Set, SetType, Verdict,
};
use crate::{Family, Instance};

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
            // Nearly all there is, by one look-up: who may claim an address may claim its MAC address.
            rule([Carries(Ipv4), In(FROM4, "addresses4")], Accept),
            rule([NotIn(&[Iifname], "ports")], Return),
            rule([NotIn(&[Iifname, SourceMac], "macs")], Drop),
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

const AT4: &[Field] = &[Destination(Family::V4), L4Proto, DestinationPort];
const AT6: &[Field] = &[Destination(Family::V6), L4Proto, DestinationPort];

/// The chains of the `inet` table, in the order of their creation.
///
/// Sets know our bridges by name. Groups tell most of them without a look-up, so they are asked first
/// where most packets pass; a bridge that somebody took out of its group is known by name all the same.
pub(super) fn chains(instance: Instance) -> Vec<Chain> {
    let mut all = vec![called(Ruleset::ADMIN, Vec::new()), publish(), raw()];
    all.extend(before_routing());
    all.extend(loopback6());
    all.extend([after_routing(instance), forward(instance)]);
    all
}

/// A chain that others jump to.
fn called(name: &'static str, rules: Vec<Rule>) -> Chain {
    let base = None;
    Chain { name, base, rules }
}

fn base(name: &'static str, (kind, hook, priority): (Kind, Hook, i32), rules: Vec<Rule>) -> Chain {
    let base = Some((kind, hook, priority));
    Chain { name, base, rules }
}

/// A port of this host alone: packets in transit to somebody else's port pass untouched.
///
/// A port that one publishes at all addresses is nobody else's at any of them
/// ([`PortBinding::conflicts`](crate::PortBinding::conflicts)). So the order decides nothing, and what most
/// ports are comes first.
fn publish() -> Chain {
    use Family::{V4, V6};
    use Verdict::DnatByMap;
    const ANY: &[Field] = &[L4Proto, DestinationPort];
    let rules = vec![
        rule([], DnatByMap(V4, ANY, "publish4")),
        rule([], DnatByMap(V4, AT4, "publish4_at")),
        rule([], DnatByMap(V6, ANY, "publish6")),
        rule([], DnatByMap(V6, AT6, "publish6_at")),
    ];
    called("publish", rules)
}

/// Our bridges have route_localnet set, so that 127.0.0.1:PORT can lead to a container. That also
/// lets containers address the host's loopback; this takes it back.
fn raw() -> Chain {
    use Verdict::Drop;
    // Every packet passes here: what hardly any is comes before what takes a look-up.
    let of_bridge = |field| [Loopback4(field), In(&[Iifname], "bridges")];
    let rules = vec![
        rule(of_bridge(Destination(Family::V4)), Drop),
        rule(of_bridge(Source(Family::V4)), Drop),
    ];
    base(
        "raw",
        (Kind::Filter, Hook::Prerouting, priority::RAW),
        rules,
    )
}

/// What comes in, and what the host itself sends.
fn before_routing() -> [Chain; 2] {
    let here = || rule([ToThisHost], Verdict::Jump("publish"));
    let incoming = vec![
        // Rewritten here it would be gone before the kernel sees that 127.0.0.1 came in over a
        // cable, and a port published on loopback would be open to the LAN.
        rule([Loopback4(Destination(Family::V4))], Verdict::Return),
        here(),
    ];
    let at = |hook| (Kind::Nat, hook, priority::DSTNAT);
    [
        base("prerouting", at(Hook::Prerouting), incoming),
        base("output", at(Hook::Output), vec![here()]),
    ]
}

/// IPv6 has no route_localnet: an answer to this host's [::1]:PORT, whose destination is ::1 again
/// behind dstnat, would not be routed to us. So it comes in under the bridge's own address, and
/// becomes what the client waits for when no more routing is to be done.
fn loopback6() -> [Chain; 3] {
    use Family::V6;
    let arriving = rule(
        [
            Loopback6(Destination(V6)),
            In(&[Iifname], "bridges"),
            Reply,
            BegunByLoopback6,
        ],
        Verdict::SetDestination6ByMap(&[Iifname], "gateways6"),
    );
    let arrived = rule(
        [Dnatted, Reply, BegunByLoopback6],
        Verdict::Jump("to_loopback6"),
    );
    let rewriting = vec![
        // Or all that is sent to ::1, by anybody, would be cut to the bridge's MTU.
        rule([Icmpv6Type(Icmpv6::PacketTooBig)], Verdict::Drop),
        rule(
            [In(&[Iifname], "bridges"), Loopback6(Source(V6))],
            Verdict::SetDestination6ToLoopback,
        ),
    ];
    let incoming = (Kind::Filter, Hook::Prerouting, priority::AFTER_DSTNAT);
    let delivered = (Kind::Filter, Hook::Input, priority::AFTER_SRCNAT);
    [
        base("loopback6", incoming, vec![arriving]),
        called("to_loopback6", rewriting),
        base("input", delivered, vec![arrived]),
    ]
}

fn after_routing(instance: Instance) -> Chain {
    use Family::{V4, V6};
    use Verdict::{Masquerade, Return};
    let to_container = In(&[Oifname], "bridges");
    let bridges = instance.bridge_group();
    let rules = vec![
        // From outside to a container the source stays, as all of what follows would find.
        rule([IsNot(Iifgroup, bridges), Is(Oifgroup, bridges)], Return),
        // A container to a published port of its own network: the answer must come back through
        // here to be rewritten. Told by address, since a frame that was rewritten while it was
        // bridged has no incoming interface at this hook.
        rule(
            [Dnatted, In(&[Source(V4), Oifname], "masquerade4")],
            Masquerade,
        ),
        rule(
            [Dnatted, In(&[Source(V6), Oifname], "masquerade6")],
            Masquerade,
        ),
        // This host's 127.0.0.1:PORT and [::1]:PORT: nobody can answer a loopback address.
        rule([Loopback4(Source(V4)), to_container], Masquerade),
        rule([Loopback6(Source(V6)), to_container], Masquerade),
        // Between networks of ours the answer finds its way, so the source stays.
        rule([to_container], Return),
        rule([In(&[Source(V4), Iifname], "masquerade4")], Masquerade),
        rule([In(&[Source(V6), Iifname], "masquerade6")], Masquerade),
    ];
    let place = (Kind::Nat, Hook::Postrouting, priority::SRCNAT);
    base("postrouting", place, rules)
}

/// Who reaches whom, of what is routed.
fn forward(instance: Instance) -> Chain {
    use Verdict::{Drop, Jump, Pass, Return};
    const BOTH: &[Field] = &[Iifname, Oifname];
    const FROM_INTERNAL: Expression = In(&[Iifname], "internal");
    const TO_INTERNAL: Expression = In(&[Oifname], "internal");
    const FROM_NO_INTERNAL: Expression = NotIn(&[Iifname], "internal");
    const TO_NO_INTERNAL: Expression = NotIn(&[Oifname], "internal");
    let (bridges, internal) = (instance.bridge_group(), instance.internal_group());
    let rules = vec![
        rule(
            [
                IsNot(Oifgroup, bridges),
                IsNot(Iifgroup, bridges),
                NotIn(&[Iifname], "bridges"),
                NotIn(&[Oifname], "bridges"),
            ],
            Return,
        ),
        rule([], Jump(Ruleset::ADMIN)),
        // Nearly all there is, in and out: a set would take as long as all else that is done here.
        rule(
            [
                Is(Oifgroup, bridges),
                IsNot(Iifgroup, internal),
                Established,
            ],
            Pass,
        ),
        rule(
            [
                Is(Iifgroup, bridges),
                IsNot(Oifgroup, internal),
                Established,
            ],
            Pass,
        ),
        // First packets to published ports, and then all of it by name.
        rule(
            [
                Is(Oifgroup, bridges),
                Dnatted,
                FROM_NO_INTERNAL,
                TO_NO_INTERNAL,
            ],
            Pass,
        ),
        rule([Established, FROM_NO_INTERNAL, TO_NO_INTERNAL], Pass),
        rule([In(BOTH, "own")], Pass),
        rule([FROM_INTERNAL], Drop),
        rule([TO_INTERNAL], Drop),
        rule([In(BOTH, "isolated")], Drop),
        rule([In(AT4, "pinholes4")], Pass),
        rule([In(AT6, "pinholes6")], Pass),
        rule([In(&[Iifname], "open"), In(&[Oifname], "open")], Pass),
        rule([In(BOTH, "trusted")], Pass),
        rule([In(&[Oifname], "bridges")], Drop),
        // What is left comes from a container and leaves.
        rule([], Pass),
    ];
    let place = (Kind::Filter, Hook::Forward, priority::BEFORE_FILTER);
    base("forward", place, rules)
}
