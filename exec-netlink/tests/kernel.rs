//! Real plans on a real kernel, each test on a host of its own.
// All of it is test, also what is not marked so.
#![allow(
    unreachable_pub,
    clippy::print_stdout,
    clippy::unwrap_used,
    clippy::wildcard_enum_match_arm
)]

mod world;

use std::path::Path;

use mydocker_core::{ErrorKind, Executor, Facts, Family, Object, Op, Outcome, Request, Setting};
use mydocker_exec_netlink::netns;
use world::{
    World, assert_same, attach_spec, contents, dial, endpoint, inside, network, on_a_host, run,
    run_in, serve,
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
        blind.no_gateway = true;
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
fn a_foreign_bridge_of_that_name_is_left_alone() {
    on_a_host(|world| {
        forward();
        run("ip link add web type bridge");
        let before = contents();
        let create = Request::CreateNetwork(network("web", &DUAL));
        // With facts it would be refused at once.
        let plan = world.state.plan(&Facts::default(), &create).unwrap();
        let outcome = world.carry_out(plan);
        assert_eq!(rolled_back(&outcome), ("CreateBridge", ErrorKind::Exists));
        assert_same(&before, &contents());
    });
}

#[test]
fn a_foreign_table_of_that_name_is_left_alone() {
    on_a_host(|world| {
        run("nft add table inet mydocker");
        let before = contents();
        let outcome = world.request(&Request::CreateNetwork(network("web", &DUAL)));
        assert_eq!(rolled_back(&outcome), ("CreateRuleset", ErrorKind::Exists));
        assert_same(&before, &contents());
        assert!(world.observe().is_empty());
    });
}

/// Tries to attach `a` to `web`, and finds everything as it was before.
fn refused(world: &mut World, spoil: &str) -> (&'static str, ErrorKind) {
    let netns = world.sandbox("a");
    world.create(network("web", &DUAL));
    run_in(&netns, "ip link set lo up");
    for command in spoil.split("; ") {
        run_in(&netns, command);
    }
    // A bridge that once had a port has a link-local address and other flags.
    let look = |world: &mut World| {
        let links = world.executor.facts().unwrap().links;
        (world.observe(), links, run("nft list ruleset"))
    };
    let (before, host) = (inside(&netns, contents), look(world));
    let mut spec = attach_spec("web", "a", &netns);
    spec.ports.push("8080:80".parse().unwrap());
    let outcome = world.request(&Request::Attach(spec));
    assert_same(&before, &inside(&netns, contents));
    assert_eq!(look(world), host);
    world.assert_settled();
    let Outcome::RolledBack(failure) = &outcome else {
        panic!("{outcome:?}");
    };
    println!("{failure}");
    rolled_back(&outcome)
}

#[test]
fn a_foreign_default_route_is_left_alone() {
    on_a_host(|world| {
        let spoil = "ip link add far type bridge; ip addr add 192.0.2.1/24 dev far; \
                     ip link set far up; ip route add default via 192.0.2.2";
        assert_eq!(refused(world, spoil), ("AddRoute", ErrorKind::Exists));
    });
}

#[test]
fn a_foreign_interface_in_the_container_is_left_alone() {
    on_a_host(|world| {
        let spoil = "ip link add eth0 type bridge";
        assert_eq!(refused(world, spoil), ("MoveToNs", ErrorKind::Exists));
    });
}

#[test]
fn what_landed_behind_a_failure_is_taken_back() {
    on_a_host(|world| {
        // The second address is refused, the third and the links behind it are not.
        let netns = world.sandbox("a");
        let mut spec = network("web", &["10.66.0.0/24", "fd00:66::/64", "fd00:67::/64"]);
        spec.mtu_bytes = Some(1400);
        world.create(spec);
        let plan = world
            .plan(&Request::Attach(attach_spec("web", "a", &netns)))
            .unwrap();
        let split = plan
            .ops
            .iter()
            .position(|op| op.name() == "AddAddress")
            .unwrap();
        let (first, rest) = plan.ops.split_at(split);
        assert!(world.executor.apply(first).iter().all(Result::is_ok));
        run_in(&netns, "ip addr add fd00:66::2/64 dev eth0 nodad");
        let results = world.executor.apply(rest);
        let kinds: Vec<_> = results
            .iter()
            .map(|r| r.as_ref().map_err(|e| e.kind))
            .collect();
        assert_eq!(kinds, [Ok(&()), Err(ErrorKind::Exists)]);
        let left = run_in(&netns, "ip addr show eth0");
        assert!(
            left.contains("10.66.0.2/24") && !left.contains("fd00:67"),
            "{left}"
        );
        assert!(!left.contains("state UP") && !run_in(&netns, "ip route").contains("default"));
    });
}

#[test]
fn a_foreign_cable_of_that_name_is_left_alone() {
    on_a_host(|world| {
        let netns = world.sandbox("a");
        world.create(network("web", &DUAL));
        let attach = Request::Attach(attach_spec("web", "a", &netns));
        let plan = world.plan(&attach).unwrap();
        let name = plan.ops.iter().find_map(|op| match op {
            Op::Add(Object::Veth(veth)) => Some(veth.name),
            _ => None,
        });
        run(&format!("ip link add {} type bridge", name.unwrap()));
        let before = contents();
        assert_eq!(
            rolled_back(&world.carry_out(plan)),
            ("AddVeth", ErrorKind::Exists)
        );
        assert_same(&before, &contents());
        // Nor does removing ours remove it.
        let removal = Op::Del(cable(name.unwrap()));
        assert_eq!(world.executor.apply(&[removal]), [Ok(())]);
        assert_same(&before, &contents());
    });
}

fn cable(name: mydocker_core::LinkName) -> Object {
    Object::Veth(mydocker_core::Veth {
        instance: mydocker_core::Instance::DEFAULT,
        name,
        mtu_bytes: 1500,
    })
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
            world.attach(spec);
        }
        serve(&a, 80);
        let host = [
            "nft delete table inet mydocker",
            "nft flush chain inet mydocker forward",
            "nft delete element inet mydocker publish4 { tcp . 8080 }",
            "nft add element inet mydocker internal { \"web\" }",
            "nft add element inet mydocker open { \"other\" }",
            "ip link set web down",
            "ip addr del 10.66.0.1/24 dev web",
            "ip addr add 10.99.0.1/24 dev web",
            "ip link set web mtu 1400",
            "ip link del web",
            // Every link of ours, both cables at once.
            "ip link del group 1828716544",
        ];
        for command in host {
            run(command);
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
        let inside = [
            "ip route del default",
            "ip -6 route del default",
            "ip addr flush dev eth0",
            "ip link set eth0 down",
            "ip link set lo down",
            "ip link del eth0",
        ];
        for command in inside {
            run_in(&a, command);
            world.repair();
        }
        assert_eq!(dial("127.0.0.1:8080").as_deref(), Some("10.66.0.1"));
        std::fs::write("/proc/sys/net/ipv4/ip_forward", "0").unwrap();
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
