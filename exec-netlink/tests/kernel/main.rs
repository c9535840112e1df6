//! Real plans on a real kernel, each test on a host of its own.
// All of it is test, also what is not marked so.
#![allow(
    unreachable_pub,
    clippy::print_stdout,
    clippy::unwrap_used,
    clippy::wildcard_enum_match_arm
)]

mod embed;
mod refusal;
mod removal;
mod world;

use std::path::Path;

use mydocker_core::{
    ErrorKind, Executor, Family, GatewayMode, Object, Op, Outcome, Request, Setting,
};
use mydocker_exec_netlink::netns;
use world::{
    assert_same, attach_spec, contents, dial, endpoint, inside, network, on_a_host, run, run_in,
    serve,
};

const DUAL: [&str; 2] = ["10.66.0.0/24", "fd00:66::/64"];

/// The op that a plan failed at, if nothing of it is left.
fn rolled_back(outcome: &Outcome) -> (&'static str, ErrorKind) {
    let Outcome::RolledBack(failure) = outcome else {
        panic!("{outcome:?}");
    };
    (failure.op.as_ref().unwrap().name(), failure.error.kind)
}

/// Turns forwarding on beforehand, since it stays on.
fn forward() {
    for key in ["ipv4/ip_forward", "ipv6/conf/all/forwarding"] {
        std::fs::write(Path::new("/proc/sys/net").join(key), "1").unwrap();
    }
}

#[test]
fn a_network_lives_and_leaves_nothing() {
    on_a_host(|world| {
        forward();
        let before = contents();
        let (a, b) = (world.sandbox("a"), world.sandbox("b"));
        let mut spec = network("web", &DUAL);
        spec.mtu_bytes = Some(1400);
        world.create(spec);
        let mut spec = attach_spec("web", "a", &a);
        for port in [
            "8080:80",
            "127.0.0.1:8081:80",
            "5353:53/udp",
            "[::1]:9:9/sctp",
        ] {
            spec.ports.push(port.parse().unwrap());
        }
        world.attach(spec);
        world.attach(attach_spec("web", "b", &b));
        serve(&a, 80);
        let from_b = |to| inside(&b, || dial(to));
        assert_eq!(from_b("10.66.0.2:80").as_deref(), Some("10.66.0.3"));
        assert_eq!(from_b("[fd00:66::2]:80").as_deref(), Some("fd00:66::3"));
        assert_eq!(from_b("10.66.0.1:8080").as_deref(), Some("10.66.0.1"));
        assert_eq!(dial("127.0.0.1:8080").as_deref(), Some("10.66.0.1"));
        assert_eq!(dial("127.0.0.1:8081").as_deref(), Some("10.66.0.1"));
        assert!(run_in(&a, "ip link show eth0").contains("mtu 1400"));
        assert!(run_in(&a, "ip route").contains("default via 10.66.0.1 dev eth0 proto 77"));
        world.detach("web", "a");
        assert!(!run_in(&a, "ip link").contains("eth0"));
        world.detach("web", "b");
        assert!(run("ip link show web").contains("mtu 1400"));
        world.commit(&Request::RemoveNetwork("web".parse().unwrap()));
        assert_same(&before, &contents());
        assert!(world.observe().is_empty());
    });
}

#[test]
fn every_kind_of_network_settles() {
    on_a_host(|world| {
        let netns = world.sandbox("a");
        let mut closed = network("closed", &["10.66.1.0/24"]);
        closed.internal = true;
        closed.icc = false;
        world.create(closed);
        let mut open = network("six", &["fd00:66:2::/64"]);
        open.isolate = false;
        world.create(open);
        let mut odd = network(
            "a.network-with-a-long.name",
            &["10.66.3.0/24", "10.66.4.0/24"],
        );
        odd.routes.push(mydocker_core::StaticRoute {
            destination: "192.0.2.0/24".parse().unwrap(),
            via: "10.66.3.9".parse().unwrap(),
        });
        odd.mtu_bytes = Some(1000);
        world.create(odd);
        let mut blind = network("blind", &["10.66.5.0/24"]);
        blind.gateway_modes = [
            (Family::V4, GatewayMode::Isolated),
            (Family::V6, GatewayMode::Isolated),
        ]
        .into();
        world.create(blind);
        for name in ["closed", "six", "a.network-with-a-long.name", "blind"] {
            let mut spec = attach_spec(name, "a", &netns);
            if name == "six" {
                spec.metric = Some(77);
                for (family, key) in [(Family::V6, "keep_addr_on_down"), (Family::V4, "rp_filter")]
                {
                    let (key, value) = (key.into(), 1);
                    spec.sysctls.push(Setting { family, key, value });
                }
            }
            world.attach(spec);
        }
        assert!(
            run_in(&netns, "ip -6 route")
                .contains("default via fd00:66:2::1 dev eth1 proto 77 metric 77")
        );
        // The default route of a family moves on when its network goes.
        world.detach("a.network-with-a-long.name", "a");
        world.detach("six", "a");
        world.detach("closed", "a");
        assert_eq!(run_in(&netns, "ip route show default"), "");
        world.detach("blind", "a");
    });
}

#[test]
fn a_default_route_moves_to_the_next_network() {
    on_a_host(|world| {
        let netns = world.sandbox("a");
        for (name, net) in [("one", "10.66.1.0/24"), ("two", "10.66.2.0/24")] {
            world.create(network(name, &[net]));
            world.attach(attach_spec(name, "a", &netns));
        }
        assert!(run_in(&netns, "ip route show default").contains("10.66.1.1"));
        world.detach("one", "a");
        assert!(run_in(&netns, "ip route show default").contains("10.66.2.1"));
    });
}

#[test]
fn a_container_that_died_is_detached() {
    on_a_host(|world| {
        forward();
        let before = contents();
        let netns = world.sandbox("a");
        world.create(network("web", &DUAL));
        let mut spec = attach_spec("web", "a", &netns);
        spec.ports.push("8080:80".parse().unwrap());
        world.attach(spec);
        netns::remove(Path::new(netns.as_str())).unwrap();
        assert!(!world.executor.is_alive(&netns));
        world.detach("web", "a");
        // Attaching to what is not there is refused, and leaves nothing.
        let outcome = world.request(&Request::Attach(attach_spec("web", "a", &netns)));
        assert_eq!(rolled_back(&outcome), ("MoveToNs", ErrorKind::Missing));
        world.commit(&Request::RemoveNetwork("web".parse().unwrap()));
        assert_same(&before, &contents());
    });
}

#[test]
fn drift_is_repaired() {
    on_a_host(|world| {
        let (a, b) = (world.sandbox("a"), world.sandbox("b"));
        world.create(network("web", &DUAL));
        for (name, netns) in [("a", &a), ("b", &b)] {
            let mut spec = attach_spec("web", name, netns);
            let port = if name == "a" { "8080:80" } else { "8081:80" };
            spec.ports.push(port.parse().unwrap());
            let (family, key, value) = (Family::V4, "rp_filter".into(), 2);
            spec.sysctls.push(Setting { family, key, value });
            world.attach(spec);
        }
        serve(&a, 80);
        let host = [
            "nft delete table inet mydocker",
            "nft flush chain inet mydocker forward",
            "nft delete element inet mydocker publish4 { tcp . 8080 }",
            "nft add element inet mydocker internal { \"web\" }",
            "nft add element inet mydocker open { \"other\" }",
            "nft delete table bridge mydocker",
            "nft flush chain bridge mydocker prerouting",
            "nft flush set bridge mydocker targets6",
            "nft flush set bridge mydocker ports",
            "nft add element bridge mydocker ports { \"other\" }",
            "ip link set web down",
            "ip addr del 10.66.0.1/24 dev web",
            "ip addr add 10.99.0.1/24 dev web",
            "ip link set web mtu 1400",
            "ip link del web",
            // Every link of ours: the bridge, and both cables at once.
            "ip link del group 1828716544\nip link del group 1660944384",
        ];
        for command in host {
            for line in command.lines() {
                run(line);
            }
            world.repair();
            assert_eq!(
                dial("10.66.0.2:80").as_deref(),
                Some("10.66.0.1"),
                "{command}"
            );
            assert_eq!(
                dial("127.0.0.1:8080").as_deref(),
                Some("10.66.0.1"),
                "{command}"
            );
        }
        let commands = [
            "ip route del default",
            "ip -6 route del default",
            "ip addr flush dev eth0",
            "ip link set eth0 down",
            "ip link set lo down",
            "ip link del eth0",
        ];
        for command in commands {
            run_in(&a, command);
            world.repair();
        }
        assert_eq!(dial("127.0.0.1:8080").as_deref(), Some("10.66.0.1"));
        let set = |key| std::fs::write(Path::new("/proc/sys/net").join(key), "0").unwrap();
        set("ipv4/conf/web/route_localnet");
        world.repair();
        inside(&a, || set("ipv4/conf/eth0/rp_filter"));
        world.repair();
        set("ipv4/ip_forward");
        world.repair();
    });
}

#[test]
fn the_kernel_is_quoted() {
    on_a_host(|world| {
        let netns = world.sandbox("a");
        world.create(network("web", &DUAL));
        world.attach(attach_spec("web", "a", &netns));
        let route = mydocker_core::Route {
            link: mydocker_core::Link::sandbox(netns.clone(), "eth0".parse().unwrap()),
            destination: "198.51.100.0/24".parse().unwrap(),
            via: "192.0.2.1".parse().unwrap(),
            metric: None,
        };
        let results = world
            .executor
            .apply(&[Op::Add(Object::Route(route.clone()))]);
        let [Err(error)] = &results[..] else {
            panic!("{results:?}");
        };
        assert!(
            error
                .detail
                .contains("(kernel: Nexthop has invalid gateway"),
            "{error}"
        );
        // A link that lacks our mark is not there.
        run_in(&netns, "ip link add other type bridge");
        let link = mydocker_core::Link::sandbox(netns, "other".parse().unwrap());
        let up = Object::Up(mydocker_core::Up { link });
        let results = world.executor.apply(&[Op::Add(up.clone())]);
        let [Err(error)] = &results[..] else {
            panic!("{results:?}");
        };
        assert_eq!(error.kind, ErrorKind::Missing);
        assert_eq!(world.executor.apply(&[Op::Del(up)]), [Ok(())]);
        world.assert_settled();
    });
}

#[test]
fn the_host_is_where_it_was_opened() {
    on_a_host(|world| {
        let netns = world.sandbox("a");
        // Another thread, in another namespace, applies.
        let elsewhere = world.sandbox("elsewhere");
        inside(&elsewhere, || {
            world.create(network("web", &DUAL));
            world.attach(attach_spec("web", "a", &netns));
        });
        assert!(run("ip addr show web").contains("10.66.0.1/24"));
        assert!(run("nft list tables").contains("inet mydocker"));
        assert_eq!(run("cat /proc/sys/net/ipv4/ip_forward"), "1\n");
        assert_eq!(
            run_in(&elsewhere, "cat /proc/sys/net/ipv4/ip_forward"),
            run_in(&elsewhere, "cat /proc/sys/net/ipv4/conf/default/forwarding")
        );
    });
}

#[test]
fn facts_are_those_of_the_host() {
    on_a_host(|world| {
        run("ip link add up0 mtu 1400 type bridge");
        run("ip addr add 192.0.2.1/24 dev up0");
        run("ip link set up0 up");
        run("ip route add default via 192.0.2.2");
        run("ip route add 198.51.100.0/24 via 192.0.2.3 table 7");
        let facts = world.executor.facts().unwrap();
        for route in ["192.0.2.0/24", "198.51.100.0/24", "0.0.0.0/0"] {
            assert!(facts.routes.contains(&route.parse().unwrap()), "{facts:?}");
        }
        assert!(!facts.routes.contains(&"192.0.2.1/32".parse().unwrap()));
        assert_eq!(facts.mtu_bytes, Some(1400));
        let names: Vec<_> = facts.links.iter().map(String::as_str).collect();
        assert_eq!(names, ["lo", "up0"]);
        std::fs::write("/proc/sys/net/ipv4/ip_forward", "1").unwrap();
        let forwarding = world.executor.facts().unwrap().forwarding;
        assert!(forwarding.contains(&Family::V4));
    });
}

#[test]
fn what_is_not_there_is_removed() {
    on_a_host(|world| {
        let netns = world.sandbox("a");
        world.create(network("web", &DUAL));
        let mut spec = attach_spec("web", "a", &netns);
        spec.ports.push("8080:80".parse().unwrap());
        world.attach(spec);
        // No interface has a multicast address of ours, least of all by taking its first one.
        let address = mydocker_core::Object::Address(mydocker_core::Address {
            link: mydocker_core::Link::host("web".parse().unwrap()),
            address: "224.0.0.9/24".parse().unwrap(),
        });
        assert_eq!(world.executor.apply(&[Op::Del(address)]), [Ok(())]);
        world.assert_settled();
        let all = world.observe();
        world.detach("web", "a");
        world.commit(&Request::RemoveNetwork("web".parse().unwrap()));
        let before = contents();
        for object in all.iter().rev() {
            if matches!(object, Object::Forwarding(_)) {
                continue;
            }
            let removal = [Op::Del(object.clone())];
            assert_eq!(world.executor.apply(&removal), [Ok(())], "{object:?}");
        }
        assert_same(&before, &contents());
        let id = endpoint("web", "a");
        assert!(world.state.endpoint(&id).is_none());
    });
}
