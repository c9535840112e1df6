//! What is not ours is in the way, and left as it is.

use mydocker_core::{ErrorKind, Executor, Facts, Ns, Object, Op, Outcome, Request};

use crate::world::{
    World, assert_same, attach_spec, contents, dial, inside, network, on_a_host, run, run_in, serve,
};
use crate::{DUAL, forward, rolled_back};

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
fn what_landed_behind_a_failure_is_told() {
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
        assert_eq!(kinds[..2], [Ok(&()), Err(ErrorKind::Exists)]);
        // Nothing is lost that was there before, as it would be with a link that went down again.
        let wanted = rest.iter().map(|op| op.object().clone()).collect();
        let held = world.executor.observe(&wanted).unwrap();
        let told = rest.iter().zip(&results).filter(|(_, r)| r.is_ok());
        assert!(told.clone().count() > 2);
        assert!(
            told.clone().all(|(op, _)| held.contains(op.object())),
            "{held:#?}"
        );
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
fn what_landed_behind_a_failure_and_stays_is_told() {
    on_a_host(|world| {
        let sandboxes = [world.sandbox("a"), world.sandbox("b")];
        world.create(network("web", &DUAL));
        for (name, netns) in ["a", "b"].into_iter().zip(&sandboxes) {
            world.attach(attach_spec("web", name, netns));
        }
        // Both cables share a datagram, each with its far end where it goes.
        run("ip link del group 1828716544"); // bridges
        run("ip link del group 1660944384"); // cables
        let ops = world.drift();
        let split = ops.iter().position(|op| op.name() == "AddVeth").unwrap();
        let (first, rest) = ops.split_at(split);
        let mut done = 0;
        while done < first.len() {
            let results = world.executor.apply(&first[done..]);
            assert!(results.iter().all(Result::is_ok), "{results:?}");
            done += results.len();
        }
        // The first can be made, and not sent. The other is there all the same.
        let Ns::Sandbox(spoiled) = rest[1].object().ns() else {
            panic!("{:?}", rest[1]);
        };
        run_in(spoiled, "ip link add eth0 type bridge");
        let results = world.executor.apply(rest);
        let kinds: Vec<_> = results
            .iter()
            .map(|r| r.as_ref().map_err(|e| e.kind))
            .collect();
        let expected = [Ok(&()), Err(ErrorKind::Exists), Ok(&()), Ok(&())];
        assert_eq!(kinds, expected);
        // A repair does all that it can, as often as one likes.
        for _ in 0..2 {
            let observed = world.observe();
            let facts = world.executor.facts().unwrap();
            let plan = world.state.repair(&facts, &observed);
            let outcome = world.carry_out(plan);
            assert!(matches!(outcome, Outcome::Stranded { .. }), "{outcome:?}");
        }
        for (netns, address) in sandboxes.iter().zip(["10.66.0.2", "10.66.0.3"]) {
            serve(netns, 80);
            let answer = dial(&format!("{address}:80"));
            assert_eq!(answer.is_some(), netns != spoiled);
        }
    });
}
