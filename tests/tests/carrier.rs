//! Whether packets pass as soon as a command has ended, whatever the kernel puts off.

use std::fs::File;
use std::io::Read;
use std::process::{Command, Stdio};
use std::sync::atomic::{AtomicBool, Ordering};
use std::thread;

use mydocker_exec_netlink::netns::run_in;
use mydocker_tests::Host;

/// Else a first connection waits for a second: until the kernel has looked at the cable's carrier, the
/// bridge drops what is for it.
#[test]
fn a_bridge_forwards_to_a_container_as_soon_as_it_is_attached() {
    let Some(host) = Host::new() else { return };
    host.ok("network create --subnet 10.0.0.0/24 n");
    for number in 0..20 {
        let name = format!("c{number}");
        host.connect("n", &name, &host.sandbox(&name), "");
        // `ip link show` of one would have it look.
        let ports = host.sh("bridge link show");
        assert_eq!(ports.lines().count(), number + 1, "{ports}");
        let forwards = |port: &str| port.contains("state forwarding");
        assert!(ports.lines().all(forwards), "{ports}");
    }
}

/// Says when it is dropped that all is done: also to those whom a failure would leave at work.
struct Work<'a>(&'a AtomicBool);

impl Drop for Work<'_> {
    fn drop(&mut self) {
        self.0.store(true, Ordering::Relaxed);
    }
}

/// Else nobody hears a neighbour who asks for an IPv6 address: the kernel leaves it to a worker to listen, which waits
/// for whoever changes links anywhere.
#[test]
fn neighbours_are_heard_as_soon_as_a_container_is_attached() {
    let Some(host) = Host::new() else { return };
    host.ok("network create --subnet 10.0.0.0/24,fd00:1::/120 n");
    let busy = host.sandbox("busy");
    let done = AtomicBool::new(false);
    let change_links = |number: u32| {
        let (one, other) = (format!("a{number}"), format!("b{number}"));
        let ip = |words: &[&str]| {
            let mut ip = Command::new("ip");
            ip.args(words).stderr(Stdio::null());
            run_in(&busy, || ip.status())
        };
        while !done.load(Ordering::Relaxed) {
            let added = ip(&["link", "add", &one, "type", "veth", "peer", &other]);
            assert!(added.is_ok_and(|status| status.is_ok_and(|status| status.success())));
            let _ = ip(&["link", "del", &one]);
        }
    };
    let missed: Vec<_> = thread::scope(|scope| {
        let _work = Work(&done);
        for number in 0..6 {
            scope.spawn(move || change_links(number));
        }
        let missed = (0..200).filter_map(|number| {
            let name = format!("c{number}");
            let netns = host.sandbox(&name);
            let list = || File::open("/proc/thread-self/net/igmp6");
            let mut list = run_in(&netns, list).unwrap().unwrap();
            host.connect("n", &name, &netns, "");
            let mut groups = String::new();
            list.read_to_string(&mut groups).unwrap();
            // fd00:1::1 is the gateway.
            let group = format!("ff0200000000000000000001ff{:06x}", number + 2);
            (!groups.contains(&group)).then_some((group, groups))
        });
        missed.collect()
    });
    assert!(missed.is_empty(), "{missed:?}");
}
