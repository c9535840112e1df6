//! Requests at random, few words among them so that they meet.

use std::collections::BTreeMap;

use mydocker_core::{
    AttachSpec, ContainerName, EndpointId, Family, ForeignForward, GatewayMode, NetworkName,
    NetworkSpec, PortSpec, Protocol, Request, Setting, StaticRoute,
};
use proptest::prelude::*;

use crate::{netns, word};

/// Small, so that requests meet: the same names, overlapping subnets, the same few ports.
const SUBNETS: [&str; 12] = [
    "10.0.0.0/24",
    "10.0.0.1/24",
    "10.0.0.128/25",
    "10.0.1.9/24",
    "10.0.0.0/22",
    "10.9.0.0/30",
    "10.9.0.6/30",
    "192.168.7.0/29",
    "fd00:1::/64",
    "fd00:1::5/120",
    "fd00:2::/126",
    "10.16.0.0/14",
];

fn some<T: Clone + std::fmt::Debug + 'static>(
    all: impl IntoIterator<Item = T>,
    most: usize,
) -> impl Strategy<Value = Vec<T>> {
    prop::sample::subsequence(all.into_iter().collect::<Vec<T>>(), 0..=most)
}

fn network() -> impl Strategy<Value = NetworkName> {
    prop::sample::select(&["n0", "n1", "n2", "a-name-too-long-for-a-link"]).prop_map(word)
}

fn container() -> impl Strategy<Value = ContainerName> {
    prop::sample::select(&["c0", "c1", "c2"]).prop_map(word)
}

fn rarely() -> impl Strategy<Value = bool> {
    prop::bool::weighted(0.15)
}

prop_compose! {
    fn network_spec()(
        name in network(),
        subnets in some(SUBNETS, 3).prop_shuffle(),
        (ipv6, internal, no_icc, open) in (rarely(), rarely(), rarely(), rarely()),
        gateway_modes in prop_oneof![4 => Just(BTreeMap::new()), 1 => prop::collection::btree_map(
            prop::sample::select(&[Family::V4, Family::V6]),
            prop::sample::select(&[GatewayMode::Nat, GatewayMode::Routed, GatewayMode::Isolated]),
            1..3,
        )],
        trusted in prop_oneof![4 => Just(vec![]), 1 => Just(vec!["eth0"])],
        foreign_forward in prop::sample::select(&[ForeignForward::Accept, ForeignForward::Accept, ForeignForward::Report]),
        gateways in prop_oneof![4 => Just(vec![]), 1 => some(["10.0.0.3", "fd00:1::7", "10.9.0.2"], 2)],
        ip_ranges in prop_oneof![4 => Just(vec![]), 1 => some(["10.0.0.8/30", "10.0.0.0/32", "10.0.0.255/32", "192.168.7.4/30", "fd00:1::40/124"], 2)],
        aux in prop_oneof![4 => Just(vec![]), 1 => some(["10.0.0.2", "10.0.0.9", "fd00:1::2", "192.168.7.2"], 3)],
        mtu_bytes in prop_oneof![4 => Just(None), 1 => prop::sample::select(&[67, 1280, 9000, 65536]).prop_map(Some)],
        routes in prop_oneof![4 => Just(vec![]), 1 => some([
            ("172.20.0.0/16", "10.0.0.9"), ("172.21.0.0/16", "192.168.7.3"), ("fd77::/64", "fd00:1::9"),
        ], 2)],
    ) -> NetworkSpec {
        let name_of = |(i, a): (usize, &str)| (format!("aux{i}"), word(a));
        NetworkSpec {
            subnets: subnets.into_iter().map(word).collect(),
            ipv6, internal, gateway_modes, icc: !no_icc, isolate: !open, mtu_bytes, foreign_forward,
            trusted: trusted.into_iter().map(word).collect(),
            gateways: gateways.into_iter().map(word).collect(),
            ip_ranges: ip_ranges.into_iter().map(word).collect(),
            aux_addresses: aux.into_iter().enumerate().map(name_of).collect(),
            routes: routes.into_iter().map(|(destination, via)| StaticRoute {
                destination: word(destination), via: word(via),
            }).collect(),
            ..NetworkSpec::new(name)
        }
    }
}

prop_compose! {
    fn port()(
        host_ip in prop::sample::select(&[None, None, Some("127.0.0.1"), Some("0.0.0.0"), Some("::1"), Some("10.1.1.1")]),
        host_port in prop_oneof![5 => (8080u16..8084).prop_map(Some), 1 => Just(None)],
        container_port in 80u16..82,
        protocol in prop::sample::select(&[Protocol::Tcp, Protocol::Udp]),
    ) -> PortSpec {
        PortSpec { host_ip: host_ip.map(word), host_port, container_port, protocol }
    }
}

prop_compose! {
    fn attach_spec()(
        network in network(),
        container in container(),
        addresses in prop_oneof![3 => Just(vec![]), 1 => some(["10.0.0.2", "10.0.0.7", "10.0.0.255", "10.9.0.2", "192.168.7.5", "fd00:1::33"], 2)],
        ports in prop::collection::vec(port(), 0..3),
        ifname in prop_oneof![4 => Just(None), 1 => prop::sample::select(&["eth0", "eth1", "lan"]).prop_map(|n| Some(word(n)))],
        default_route in prop::bool::weighted(0.85),
        metric in prop_oneof![4 => Just(None), 1 => Just(Some(50))],
        mac in prop_oneof![6 => Just(None), 1 => prop::sample::select(&["02:00:00:00:00:01", "02:6d:0a:00:00:01"]).prop_map(|m| Some(word(m)))],
        sysctls in prop_oneof![5 => Just(vec![]), 1 => some([
            (Family::V4, "arp_notify", 1), (Family::V4, "rp_filter", 2), (Family::V6, "accept_ra", 1), (Family::V4, "rp_filter", 1),
        ], 3)],
    ) -> AttachSpec {
        AttachSpec {
            addresses: addresses.into_iter().map(word).collect(),
            ports, ifname, default_route, metric, mac,
            sysctls: sysctls.into_iter().map(|(family, key, value)| Setting {
                family, key: key.into(), value,
            }).collect(),
            ..AttachSpec::new(network, container.clone(), netns(container.as_str()))
        }
    }
}

fn request() -> impl Strategy<Value = Request> {
    prop_oneof![
        3 => network_spec().prop_map(Request::CreateNetwork),
        6 => attach_spec().prop_map(Request::Attach),
        2 => (network(), container())
            .prop_map(|(network, container)| Request::Detach(EndpointId { network, container })),
        1 => network().prop_map(Request::RemoveNetwork),
        3 => (network(), container(), prop::collection::vec(port(), 0..3)).prop_map(
            |(network, container, ports)| Request::Publish {
                id: EndpointId { network, container },
                ports,
            }
        ),
        2 => (network(), container(), prop::collection::vec(port(), 0..3)).prop_map(
            |(network, container, ports)| Request::Unpublish {
                id: EndpointId { network, container },
                ports,
            }
        ),
    ]
}

/// A script: networks first, or most of it is refused.
pub fn script() -> impl Strategy<Value = Vec<Request>> {
    let start = prop::collection::vec(network_spec().prop_map(Request::CreateNetwork), 1..4);
    let rest = prop::collection::vec(request(), 1..24);
    (start, rest).prop_map(|(start, rest)| [start, rest].concat())
}
