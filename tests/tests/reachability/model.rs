//! Random networks and containers, and all questions of a grid: the specification and the packets of
//! the model kernel.

use std::collections::{BTreeMap, BTreeSet};
use std::net::{IpAddr, SocketAddr};

use ipnet::IpNet;
use mydocker_core::{
    Arrival, AttachSpec, Call, Callee, Caller, Family, GatewayMode, Link, NetworkSpec, PortSpec,
    Protocol, Request, Source, State, StaticRoute, Wall,
};
use mydocker_exec_dryrun::{Delivery, Loss, Receiver, Sender, Wires};
use mydocker_tests::{World, attach, create, netns, word};
use proptest::prelude::*;

use crate::{UPLINKS, hosts, uplinks};

/// Each network's, of which it takes some.
const SUBNETS: [[&str; 3]; 4] = [
    ["10.1.0.0/24", "fd01::/64", "10.1.1.0/24"],
    ["10.2.0.0/24", "fd02::/64", "fd02:0:0:1::/64"],
    ["10.3.0.0/24", "fd03::/64", "10.3.1.0/24"],
    ["10.4.0.0/24", "fd04::/64", "10.4.1.0/24"],
];
const CONTAINERS: [&str; 4] = ["c0", "c1", "c2", "c3"];

/// Loopback, what a static route leads to, and somebody far away.
const ELSEWHERE: [&str; 7] = [
    "127.0.0.1",
    "127.0.0.2",
    "::1",
    "172.20.0.5",
    "fd77::5",
    "203.0.113.7",
    "2001:db8:9::9",
];

fn name(index: usize) -> String {
    format!("n{index}")
}

fn rarely() -> impl Strategy<Value = bool> {
    prop::bool::weighted(0.2)
}

fn modes() -> impl Strategy<Value = BTreeMap<Family, GatewayMode>> {
    let mode = prop_oneof![
        3 => Just(GatewayMode::Nat),
        2 => Just(GatewayMode::Routed),
        1 => Just(GatewayMode::Isolated),
    ];
    let family = prop::sample::select(&[Family::V4, Family::V6]);
    prop_oneof![2 => Just(BTreeMap::new()), 3 => prop::collection::btree_map(family, mode, 1..3)]
}

prop_compose! {
    fn network(index: usize)(
        subnets in prop::sample::subsequence(SUBNETS[index].to_vec(), 1..=3),
        (internal, no_icc, spoof) in (rarely(), prop::bool::weighted(0.3), rarely()),
        open in any::<bool>(),
        gateway_modes in modes(),
        trusted in prop_oneof![2 => Just(vec![]), 1 => Just(vec!["vpn"]), 1 => Just(vec!["n0", "lan"])],
        routes in prop_oneof![3 => Just(vec![]), 1 => Just(vec![
            ("172.20.0.0/16", 3), ("fd77::/64", 3), ("10.1.0.2/32", 1), ("10.4.0.0/25", 1),
        ])],
    ) -> NetworkSpec {
        let via = |destination: &str, host: u8| {
            let to: IpNet = word(destination);
            let family = Family::of(to.addr());
            let net = subnets.iter().map(|s| word::<IpNet>(s)).find(|s| Family::of(s.addr()) == family)?;
            let via = match net.addr() {
                IpAddr::V4(first) => IpAddr::V4((u32::from(first) + u32::from(host)).into()),
                IpAddr::V6(first) => IpAddr::V6((u128::from(first) + u128::from(host)).into()),
            };
            Some(StaticRoute { destination: to, via })
        };
        NetworkSpec {
            internal, icc: !no_icc, isolate: !open, spoof, gateway_modes,
            trusted: if internal { BTreeSet::new() } else { trusted.into_iter().map(word).collect() },
            routes: routes.iter().filter_map(|(to, host)| via(to, *host)).collect(),
            ..create(&name(index), &subnets)
        }
    }
}

prop_compose! {
    fn port()(
        host_ip in prop::sample::select(&[
            None, None, None, Some("127.0.0.1"), Some("::1"), Some("192.0.2.1"), Some("2001:db8::1"),
            Some("10.1.0.1"), Some("fd02::1"),
        ]),
        host_port in prop_oneof![5 => (8080u16..8082).prop_map(Some), 1 => Just(None)],
        container_port in 80u16..82,
        protocol in prop::sample::select(&[Protocol::Tcp, Protocol::Tcp, Protocol::Udp]),
    ) -> PortSpec {
        PortSpec { host_ip: host_ip.map(word), host_port, container_port, protocol }
    }
}

prop_compose! {
    /// A container on a network or two.
    fn container(index: usize)(
        networks in prop::sample::subsequence(vec![0usize, 1, 2, 3], 1..=2).prop_shuffle(),
        ports in prop::collection::vec(prop::collection::vec(port(), 0..3), 2),
        default_route in prop::collection::vec(prop::bool::weighted(0.9), 2),
    ) -> Vec<AttachSpec> {
        networks.iter().zip(ports).zip(default_route).map(|((network, ports), default_route)| AttachSpec {
            ports, default_route,
            ..attach(&name(*network), CONTAINERS[index], &[])
        }).collect()
    }
}

fn script() -> impl Strategy<Value = Vec<Request>> {
    let networks = (network(0), network(1), network(2), network(3));
    let containers = (container(0), container(1), container(2), container(3));
    (networks, containers).prop_map(|((a, b, c, d), (e, f, g, h))| {
        let networks = [a, b, c, d].into_iter().map(Request::CreateNetwork);
        let endpoints = [e, f, g, h].into_iter().flatten().map(Request::Attach);
        networks.chain(endpoints).collect()
    })
}

/// What becomes of the requests; where one publishes what can't be, the container is there without.
fn played(requests: Vec<Request>) -> World {
    let mut world = World::default();
    for mut request in requests {
        if world.run(&request).is_ok() {
            continue;
        }
        if let Request::Attach(spec) = &mut request {
            spec.ports.clear();
        }
        // A network whose gateways contradict its mode is one less.
        let _ = world.run(&request);
    }
    world
}

fn callers() -> Vec<Caller> {
    let containers = CONTAINERS.map(|name| Caller::Container(word(name)));
    let outside = UPLINKS.iter().flat_map(|(interface, _, theirs)| {
        theirs.map(|address| Caller::Outside {
            interface: word(interface),
            address: word(address),
        })
    });
    containers
        .into_iter()
        .chain([Caller::Host])
        .chain(outside)
        .collect()
}

/// Every address that somebody has, one of each subnet that nobody has, and some elsewhere.
fn called(state: &State) -> BTreeSet<IpAddr> {
    let subnets = SUBNETS.iter().flatten().map(|s| word::<IpNet>(s));
    let nobodys = subnets.filter_map(|net| net.hosts().nth(98));
    let gateways = state
        .networks()
        .flat_map(|n| n.subnets.iter().filter_map(|s| s.gateway));
    let containers = state
        .endpoints()
        .flat_map(|e| e.addresses.iter().map(IpNet::addr));
    let hosts = UPLINKS.iter().flat_map(|(_, ours, theirs)| [ours, theirs]);
    let fixed = hosts.flatten().chain(&ELSEWHERE).map(|text| word(text));
    gateways
        .chain(containers)
        .chain(nobodys)
        .chain(fixed)
        .collect()
}

fn sender(caller: &Caller) -> Sender {
    match caller {
        Caller::Container(container) => Sender::Container(netns(container.as_str())),
        Caller::Host => Sender::Host,
        Caller::Outside { interface, address } => Sender::Outside {
            interface: *interface,
            address: *address,
        },
    }
}

/// Whether the model's packet went where it was said to go.
fn agree(state: &State, said: &Result<Arrival, Wall>, seen: &Result<Delivery, Loss>) -> bool {
    match (said, seen) {
        (Ok(arrival), Ok(delivery)) => {
            let at = match (&arrival.at, &delivery.at) {
                (Callee::Endpoint(id), Receiver::Container(link)) => {
                    let endpoint = state.endpoint(id).unwrap();
                    *link == Link::sandbox(endpoint.netns.clone(), endpoint.ifname)
                }
                (Callee::Caller, Receiver::Sender)
                | (Callee::Host, Receiver::Host)
                | (Callee::Outside, Receiver::Outside) => true,
                _ => false,
            };
            let source = match arrival.source {
                Source::Caller => delivery.source == delivery.sent_from,
                Source::Gateway(gateway) => delivery.source == gateway,
                Source::Host => uplinks()[0].addresses.contains(&delivery.source),
            };
            at && source && arrival.port == delivery.port
        }
        // The host has no way there, and sends it where it sends all that it does not know.
        (Err(Wall::NoGateway(_)), Ok(delivery)) => delivery.at == Receiver::Outside,
        (Err(wall), Err(loss)) => is_reason(wall, loss),
        (Ok(_), Err(_)) | (Err(_), Ok(_)) => false,
    }
}

/// Whether what a packet met is what was said to be in its way.
fn is_reason(wall: &Wall, loss: &Loss) -> bool {
    let dropped = |by: &str| matches!(loss, Loss::Dropped { chain, .. } if *chain == by);
    match wall {
        Wall::Loopback(_) => matches!(loss, Loss::Martian(_)),
        Wall::Nobody(..) => matches!(loss, Loss::Nobody(..)),
        Wall::NoRoute(..) => matches!(loss, Loss::NoRoute(..)),
        Wall::NoIcc(_) | Wall::Internal(_) | Wall::Closed { .. } | Wall::NoGateway(_) => {
            dropped("forward")
        }
        Wall::NoWayBack(..) => !matches!(loss, Loss::Martian(_)),
        Wall::AnswersAstray(..) => {
            dropped("prerouting") || dropped("forward") || matches!(loss, Loss::Astray(_))
        }
        Wall::Unfit(_) | Wall::Unknown(_) => true,
    }
}

/// Asks everything, and says where the two disagree.
fn disagreements(state: &State) -> Vec<String> {
    let uplinks = uplinks();
    let hosts = hosts();
    let footprint = state.footprint();
    let wires = Wires::new(&footprint, &uplinks);
    let mut wrong = Vec::new();
    for (from, to) in pairs(state) {
        for (port, protocol) in ports() {
            let (from, to) = (from.clone(), SocketAddr::new(to, port));
            let call = Call { from, to, protocol };
            let said = state.reach(&hosts, &call);
            let seen = wires.send(&sender(&call.from), to, protocol);
            if !agree(state, &said, &seen) {
                wrong.push(format!("{call:?}: {said:?}, and the packet: {seen:?}"));
            }
        }
    }
    wrong
}

/// Everybody who can call, and every address of its families.
fn pairs(state: &State) -> Vec<(Caller, IpAddr)> {
    let called = called(state);
    let can = |caller: &Caller, to: IpAddr| match caller {
        Caller::Container(container) => state.joined(container).next().is_some(),
        Caller::Host => true,
        Caller::Outside { address, .. } => Family::of(*address) == Family::of(to),
    };
    let all = |caller: Caller| {
        let fitting = called.iter().copied().filter(|to| can(&caller, *to));
        fitting.map(|to| (caller.clone(), to)).collect::<Vec<_>>()
    };
    callers().into_iter().flat_map(all).collect()
}

/// Such as are published, and such as are not.
fn ports() -> impl Iterator<Item = (u16, Protocol)> {
    let tcp = [80, 81, 8080, 8081].map(|port| (port, Protocol::Tcp));
    let udp = [80, 8080].map(|port| (port, Protocol::Udp));
    tcp.into_iter().chain(udp)
}

/// Whoever asks why learns the rule.
#[test]
fn a_lost_packet_names_the_rule_that_dropped_it() {
    let world = World::default().after(&[
        Request::CreateNetwork(create("n0", &["10.1.0.0/24"])),
        Request::Attach(attach("n0", "c0", &["8080:80"])),
    ]);
    let (footprint, uplinks) = (world.state().footprint(), uplinks());
    let lan = Sender::Outside {
        interface: word("lan"),
        address: word("192.0.2.9"),
    };
    let wires = Wires::new(&footprint, &uplinks);
    let send = |to: &str| wires.send(&lan, word(to), Protocol::Tcp);
    assert_eq!(send("192.0.2.1:8080").unwrap().port, 80);
    let dropped = Loss::Dropped {
        table: "inet mydocker".into(),
        chain: "forward",
        rule: "oifname @bridges drop".into(),
    };
    assert_eq!(send("10.1.0.2:80"), Err(dropped));
}

/// A neighbour that is called by way of the gateway is a neighbour still.
#[test]
fn icc_off_holds_by_way_of_the_gateway() {
    let detour = StaticRoute {
        destination: word("10.1.0.0/25"),
        via: word("10.1.0.1"),
    };
    let network = NetworkSpec {
        icc: false,
        routes: vec![detour],
        ..create("n0", &["10.1.0.0/24"])
    };
    let world = World::default().after(&[
        Request::CreateNetwork(network),
        Request::Attach(attach("n0", "c0", &[])),
        Request::Attach(attach("n0", "c1", &[])),
    ]);
    assert_eq!(disagreements(world.state()), Vec::<String>::new());
}

/// The host has no way to those whom it has no address beside: what it is to pass on to them goes out by an
/// uplink.
#[test]
fn an_answer_by_way_of_the_host_needs_a_host_that_is_there() {
    for internal in [false, true] {
        let isolated = NetworkSpec {
            gateway_modes: [(Family::V4, GatewayMode::Isolated)].into(),
            internal,
            ..create("n0", &["10.1.0.0/24"])
        };
        let detour = StaticRoute {
            destination: word("10.1.0.2/32"),
            via: word("10.4.1.1"),
        };
        let other = NetworkSpec {
            routes: vec![detour],
            spoof: true,
            ..create("n3", &["10.4.1.0/24"])
        };
        let world = World::default().after(&[
            Request::CreateNetwork(isolated),
            Request::CreateNetwork(other),
            Request::Attach(attach("n0", "c0", &[])),
            Request::Attach(attach("n3", "c0", &[])),
            Request::Attach(attach("n0", "c2", &[])),
        ]);
        assert_eq!(
            disagreements(world.state()),
            Vec::<String>::new(),
            "{internal}"
        );
    }
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 256, failure_persistence: None, ..ProptestConfig::default() })]

    /// Every caller × every address × published and unpublished ports.
    #[test]
    fn the_rules_come_to_what_is_said(requests in script()) {
        let world = played(requests);
        let wrong = disagreements(world.state());
        prop_assert!(wrong.is_empty(), "{wrong:#?}");
    }
}
