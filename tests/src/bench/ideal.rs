//! Ideal: what somebody who knows `ip` and `nft` would write by hand for one bridge, to be fast.

use std::ops::RangeInclusive;

use super::Container;
use crate::Host;

const BRIDGE: &str = "ideal0";
const GATEWAY: &str = "10.4.0.1";
const SUBNET: &str = "10.4.0.0/16";
const SERVER: &str = "10.4.0.2";

/// Makes a bridge on `host`, with one container on it that publishes these ports as its own, over TCP.
///
/// The rules do what any engine's do for it: published ports by a map, for this host's addresses alone, a
/// way out under the host's address, also for a container that calls a published port of its own network,
/// and nothing else comes in. They know nothing of a second network, of IPv6, of loopback, of an administrator's
/// own rules, or of what a container may claim to be.
///
/// # Panics
/// When that can't be made.
pub fn ideal(host: &Host, container: &Container, ports: RangeInclusive<u16>) {
    let netns = container.netns.display();
    // More than a command line takes.
    let rules = host.dir().join("ideal.nft");
    std::fs::write(&rules, ruleset(ports)).expect("a file");
    let rules = rules.display();
    host.sh(&format!(
        "ip link add {BRIDGE} address 02:00:00:00:00:01 type bridge
         ip addr add {GATEWAY}/16 dev {BRIDGE}
         ip link set {BRIDGE} up
         ip link add server numtxqueues 1 numrxqueues 1 type veth \
             peer name eth0 netns {netns} numtxqueues 1 numrxqueues 1
         ip link set server master {BRIDGE} up
         bridge link set dev server hairpin on
         nsenter --net={netns} ip -batch - <<END
link set lo up
addr add {SERVER}/16 dev eth0
link set eth0 up
route add default via {GATEWAY}
END
         sysctl -qw net.ipv4.ip_forward=1
         nft -f {rules}"
    ));
}

fn ruleset(ports: RangeInclusive<u16>) -> String {
    let elements: Vec<String> = ports
        .map(|port| format!("tcp . {port} : {SERVER} . {port}"))
        .collect();
    let elements = elements.join(", ");
    format!(
        "table ip ideal {{
    map publish {{
        type inet_proto . inet_service : ipv4_addr . inet_service
        elements = {{ {elements} }}
    }}
    chain prerouting {{
        type nat hook prerouting priority -100
        fib daddr type local dnat ip to meta l4proto . th dport map @publish
    }}
    chain output {{
        type nat hook output priority -100
        fib daddr type local dnat ip to meta l4proto . th dport map @publish
    }}
    chain postrouting {{
        type nat hook postrouting priority 100
        ip saddr {SUBNET} oifname != {BRIDGE} masquerade
        ip saddr {SUBNET} oifname {BRIDGE} ct status dnat masquerade
    }}
    chain forward {{
        type filter hook forward priority 0
        ct state established,related accept
        oifname {BRIDGE} ct status dnat accept
        oifname {BRIDGE} drop
    }}
}}
"
    )
}
