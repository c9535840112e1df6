//! Both sides of a comparison: the model, and a namespace of the kernel.

use std::collections::BTreeSet;
use std::path::Path;
use std::process::Command;
use std::thread;
use std::time::{Duration, Instant};

use mydocker_core::{
    Bridge, Executor, Family, Footprint, Link, LinkName, Move, Netns, Object, Op, Route, Up,
};
use mydocker_exec_dryrun::Kernel;
use mydocker_exec_netlink::{NetlinkExecutor, netns};
use mydocker_tests::{own_mounts, word};
use nix::net::if_::if_nametoindex;
use nix::sched::{CloneFlags, unshare};

use crate::universe::{Act, List, OURS, Squatter, chains, sandboxes, theirs};
use crate::{Answer, apply};

/// Long for a namespace to end.
const PATIENCE: Duration = Duration::from_secs(20);

/// Runs `f` on a thread that sees a `/run/netns` of its own; that thread must end with it.
pub fn apart<T>(f: impl FnOnce() -> T) -> T {
    // A machine without containers may have none to hide.
    std::fs::create_dir_all("/run/netns").unwrap();
    own_mounts(&["/run/netns"]);
    f()
}

/// Either of the two.
pub trait Side {
    /// Does or suffers `act`.
    fn act(&mut self, act: &Act) -> Vec<Answer>;
    /// What carries our mark.
    fn holds(&mut self, wanted: &Footprint) -> Footprint;
    /// What is forwarded.
    fn forwarding(&mut self) -> BTreeSet<Family>;
}

/// The model.
pub struct Model(Kernel);

impl Model {
    /// A model of the host that a list starts on.
    pub fn with(list: &List) -> Self {
        let mut kernel = Kernel::new();
        for netns in list.namespaces() {
            kernel = kernel.with_namespace(netns);
        }
        for chain in chains() {
            kernel.add_forward_chain(&chain);
        }
        for object in list.foreign.iter().flat_map(as_objects) {
            kernel = kernel.with_foreign(object);
        }
        Self(kernel)
    }

    /// What is forwarded from the start.
    pub fn forwards(&mut self, families: BTreeSet<Family>) {
        for family in families {
            let on = Object::Forwarding(mydocker_core::Forwarding { family });
            assert_eq!(self.0.apply(&[Op::Add(on)]), [Ok(())]);
        }
    }
}

fn as_objects(squatter: &Squatter) -> Vec<Object> {
    let named = |name| {
        vec![Object::Bridge(Bridge {
            instance: theirs(),
            name: word(name),
            mac: word("02:00:00:00:00:09"),
            mtu_bytes: 1500,
            internal: false,
        })]
    };
    let inside = |name| {
        Object::Move(Move {
            host: word("far"),
            to: Link::sandbox(sandboxes()[0].clone(), word(name)),
            mac: word("02:00:00:00:00:09"),
        })
    };
    match squatter {
        Squatter::Bridge => named("br0"),
        Squatter::Cable => named("mdv0"),
        Squatter::Peer => named("mdp1"),
        Squatter::Eth0 => vec![inside("eth0")],
        Squatter::DefaultRoute => vec![
            inside("far"),
            Object::Route(Route {
                link: Link::sandbox(sandboxes()[0].clone(), word("far")),
                destination: word("0.0.0.0/0"),
                via: word("192.0.2.2"),
                metric: None,
            }),
        ],
        Squatter::Table => vec![Object::Ruleset(OURS)],
    }
}

impl Side for Model {
    fn act(&mut self, act: &Act) -> Vec<Answer> {
        match act {
            Act::Apply(ops) => return apply(&mut self.0, ops),
            Act::Kill(netns) => self.0.kill_sandbox(netns),
            Act::Revive(netns) => {
                self.0 = std::mem::take(&mut self.0).with_namespace(netns.clone())
            }
            Act::Unlink(name) => self.0.delete_link(*name),
            Act::Flush => self.0.flush_firewalls(),
        }
        Vec::new()
    }

    fn holds(&mut self, wanted: &Footprint) -> Footprint {
        self.0.observe(wanted).unwrap()
    }

    fn forwarding(&mut self) -> BTreeSet<Family> {
        self.0.facts().unwrap().forwarding
    }
}

/// A namespace of the kernel.
pub struct Real {
    executor: NetlinkExecutor,
    beside: NetlinkExecutor,
}

impl Real {
    /// A new host, which the calling thread is in from then on.
    pub fn with(list: &List) -> Self {
        unshare(CloneFlags::CLONE_NEWNET).unwrap();
        for netns in list.namespaces() {
            netns::remove(Path::new(netns.as_str())).unwrap();
            netns::create(Path::new(netns.as_str())).unwrap();
        }
        for squatter in &list.foreign {
            settle(*squatter);
        }
        Self::raise_chains(list);
        Self {
            executor: NetlinkExecutor::open(OURS).unwrap(),
            beside: NetlinkExecutor::open(theirs()).unwrap(),
        }
    }

    /// Starting `nft` costs as much as a list: only where somebody looks for its chains.
    fn raise_chains(list: &List) {
        let passes = |object: &Object| matches!(object, Object::Passage(_));
        if !list.objects().any(passes) {
            return;
        }
        let script: Vec<String> = chains()
            .iter()
            .map(|chain| {
                let table = format!("{} {}", chain.family, chain.table);
                format!("add table {table}; add chain {chain} {{ type filter hook forward priority 0; policy drop; }}")
            })
            .collect();
        assert!(run("nft", &[&script.join("; ")]));
    }

    /// What only the kernel tells. A setting that nobody made has the kernel's value, which the
    /// model does not know.
    pub fn told<'a>(found: &'a Footprint, expected: &'a Footprint) -> Vec<&'a Object> {
        let known = |object: &&Object| match object {
            Object::LinkSysctl(one) => expected.iter().any(|object| match object {
                Object::LinkSysctl(set) => {
                    (&set.link, set.family, &set.key) == (&one.link, one.family, &one.key)
                }
                _ => false,
            }),
            _ => true,
        };
        found.difference(expected).filter(known).collect()
    }
}

/// Runs a command; whether it succeeds.
fn run(program: &str, args: &[&str]) -> bool {
    let output = Command::new(program).args(args).output().unwrap();
    output.status.success()
}

fn sh(script: &str) {
    assert!(run("sh", &["-euc", script]), "{script}");
}

fn settle(squatter: Squatter) {
    let inside = |script: &str| {
        let place = &sandboxes()[0];
        sh(&format!("nsenter --net={place} sh -euc '{script}'"));
    };
    match squatter {
        Squatter::Bridge => sh("ip link add name br0 type bridge"),
        Squatter::Cable => sh("ip link add name mdv0 type bridge"),
        Squatter::Peer => sh("ip link add name mdp1 type bridge"),
        Squatter::Eth0 => inside("ip link add name eth0 type bridge"),
        Squatter::DefaultRoute => inside(
            "ip link add name far type bridge; ip addr add 192.0.2.1/24 dev far
             ip link set far up; ip route add default via 192.0.2.2",
        ),
        Squatter::Table => sh("nft add table inet mydocker"),
    }
}

impl Side for Real {
    fn act(&mut self, act: &Act) -> Vec<Answer> {
        match act {
            Act::Apply(ops) => return apply(&mut self.executor, ops),
            Act::Kill(netns) => self.kill(netns),
            Act::Revive(netns) => {
                let path = Path::new(netns.as_str());
                if !path.exists() {
                    netns::create(path).unwrap();
                }
            }
            Act::Unlink(name) => drop(run("ip", &["link", "del", "dev", name.as_str()])),
            Act::Flush => assert!(run("nft", &["flush", "ruleset"])),
        }
        Vec::new()
    }

    fn holds(&mut self, wanted: &Footprint) -> Footprint {
        let mut all = self.executor.observe(wanted).unwrap();
        // Looking costs, and where nobody speaks of it there is nothing.
        if wanted.iter().any(|o| o.firewall() == Some(theirs())) {
            let beside = self.beside.observe(&Footprint::new()).unwrap();
            let walls = beside.into_iter().filter(|o| o.firewall().is_some());
            all.extend(walls);
        }
        all
    }

    fn forwarding(&mut self) -> BTreeSet<Family> {
        let all = [
            (Family::V4, "/proc/sys/net/ipv4/ip_forward"),
            (Family::V6, "/proc/sys/net/ipv6/conf/all/forwarding"),
        ];
        let on =
            |path: &str| std::fs::read_to_string(path).is_ok_and(|text| text.trim_end() != "0");
        let forwarded = all.into_iter().filter(|(_, path)| on(path));
        forwarded.map(|(family, _)| family).collect()
    }
}

impl Real {
    /// The kernel takes its time to end a namespace, and nobody can tell when but by what goes with
    /// it.
    fn kill(&mut self, netns: &Netns) {
        let link = Link::sandbox(netns.clone(), LinkName::LOOPBACK);
        let wanted = [Object::Up(Up { link })].into();
        let inside = self.executor.observe(&wanted).unwrap();
        let cables: Vec<LinkName> = inside
            .iter()
            .filter_map(|object| match object {
                Object::Move(moved) => Some(moved.host),
                _ => None,
            })
            .collect();
        netns::remove(Path::new(netns.as_str())).unwrap();
        let start = Instant::now();
        while cables
            .iter()
            .any(|name| if_nametoindex(name.as_str()).is_ok())
        {
            assert!(start.elapsed() < PATIENCE, "{netns} does not end");
            thread::sleep(Duration::from_millis(1));
        }
    }
}
