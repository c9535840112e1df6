//! Links go while somebody else waits for the kernel, or nobody does.

use std::io;
use std::os::fd::OwnedFd;
use std::os::unix::net::UnixStream;
use std::sync::{Arc, Mutex};

use mydocker_core::{Executor, Instance, Object, Op};
use mydocker_exec_netlink::{Errand, NetlinkExecutor, Runner, Threads};

use crate::world::{World, attach_spec, endpoint, network, on_a_host, run};
use crate::{DUAL, forward};

/// What an errand was about: whether it had something to send, and something to keep.
type Begun = Arc<Mutex<Vec<(bool, bool)>>>;

/// Takes note of errands, and runs them as it is asked to.
#[derive(Debug)]
struct Noted {
    begun: Begun,
    runs: Runs,
}

#[derive(Clone, Copy, Debug)]
enum Runs {
    Well,
    NoneAtAll,
    /// And dies before it has sent anything.
    Away,
}

impl Runner for Noted {
    fn run(&mut self, errand: Errand<'_>) -> io::Result<OwnedFd> {
        let what = (errand.datagram.is_some(), errand.kept.is_some());
        self.begun.lock().unwrap().push(what);
        match self.runs {
            Runs::Well => Threads.run(errand),
            Runs::NoneAtAll => Err(io::ErrorKind::WouldBlock.into()),
            Runs::Away => Ok(UnixStream::pair()?.0.into()),
        }
    }
}

/// A network with so many containers on it, and who runs errands.
fn busy(world: &mut World, containers: usize, runs: Runs) -> Begun {
    forward();
    let begun = Begun::default();
    let runner = Noted {
        begun: Arc::clone(&begun),
        runs,
    };
    let executor = NetlinkExecutor::open(Instance::DEFAULT).unwrap();
    world.executor = executor.with_runner(Box::new(runner));
    world.create(network("web", &DUAL));
    for number in 0..containers {
        let name = format!("c{number}");
        let netns = world.sandbox(&name);
        world.attach(attach_spec("web", &name, &netns));
    }
    begun
}

/// What removes the cables of all containers.
fn cut(world: &World) -> Vec<Op> {
    let all = world.state.footprint().into_iter();
    let cables = all.filter(|object| matches!(object, Object::Veth(_)));
    cables.map(Op::Del).collect()
}

fn cables() -> usize {
    run("ip -o link")
        .lines()
        .filter(|line| line.contains(": mdv"))
        .count()
}

#[test]
fn many_go_at_once() {
    const MANY: usize = 70;
    on_a_host(|world| {
        let begun = busy(world, MANY, Runs::Well);
        run("ip link add bystander type bridge");
        let ops = cut(world);
        assert_eq!((ops.len(), cables()), (MANY, MANY));
        assert_eq!(world.executor.apply(&ops), vec![Ok(()); MANY]);
        assert_eq!(cables(), 0);
        assert_eq!(*begun.lock().unwrap(), [(true, false)]);
        // What is not there is out already.
        assert_eq!(world.executor.apply(&ops), vec![Ok(()); MANY]);
        run("ip link show bystander");
    });
}

#[test]
fn what_is_not_ours_stays_though_it_has_the_mark() {
    on_a_host(|world| {
        let begun = busy(world, 5, Runs::Well);
        let group = Instance::DEFAULT.leaving_group();
        run(&format!("ip link add bystander group {group} type bridge"));
        let ops = cut(world);
        assert_eq!(world.executor.apply(&ops), vec![Ok(()); 5]);
        assert_eq!((cables(), begun.lock().unwrap().len()), (0, 5));
        run("ip link show bystander");
    });
}

/// Whoever was to remove it died in between.
#[test]
fn a_link_that_was_about_to_go_goes() {
    on_a_host(|world| {
        busy(world, 1, Runs::Well);
        let ops = cut(world);
        let Op::Del(Object::Veth(veth)) = &ops[0] else {
            panic!("{ops:?}");
        };
        let group = Instance::DEFAULT.leaving_group();
        run(&format!("ip link set {} group {group}", veth.name));
        world.detach("web", "c0");
        assert_eq!(cables(), 0);
    });
}

#[test]
fn without_a_runner_it_goes_on_alone() {
    for runs in [Runs::NoneAtAll, Runs::Away] {
        on_a_host(|world| {
            let begun = busy(world, 7, runs);
            world.detach("web", "c0");
            assert_eq!((cables(), begun.lock().unwrap().len()), (6, 1));
            let ops = cut(world);
            assert_eq!(world.executor.apply(&ops), vec![Ok(()); 6]);
            assert_eq!((cables(), begun.lock().unwrap().len()), (0, 2));
        });
    }
}

/// One errand does for a detach; what removes no cable takes one when all is done.
#[test]
fn the_last_close_is_left_to_a_runner() {
    on_a_host(|world| {
        let begun = busy(world, 0, Runs::Well);
        let netns = world.sandbox("a");
        let mut spec = attach_spec("web", "a", &netns);
        spec.ports.push("8080:80".parse().unwrap());
        world.attach(spec.clone());
        world.detach("web", "a");
        assert_eq!(*begun.lock().unwrap(), [(true, true)]);
        let runs = Runs::Well;
        let anew = |begun: &Begun| {
            let begun = Arc::clone(begun);
            let runner = Box::new(Noted { begun, runs });
            NetlinkExecutor::open(Instance::DEFAULT)
                .unwrap()
                .with_runner(runner)
        };
        world.executor = anew(&begun);
        world.attach(spec);
        begun.lock().unwrap().clear();
        let id = endpoint("web", "a");
        let ports = vec!["8080:80".parse().unwrap()];
        world.commit(&mydocker_core::Request::Unpublish { id, ports });
        assert_eq!(*begun.lock().unwrap(), []);
        world.executor = anew(&begun);
        assert_eq!(*begun.lock().unwrap(), [(false, true)]);
    });
}
