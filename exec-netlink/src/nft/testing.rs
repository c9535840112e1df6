//! What tests against the real kernel share: a namespace of their own, and the tools in it.

use std::collections::BTreeSet;
use std::fs;
use std::panic::resume_unwind;
use std::process::{Command, Stdio};
use std::thread;

use mydocker_core::{
    Dnat, Element, Guard, Instance, Isolated, Masquerade, Object, Pinhole, Protocol, Zone,
};
use nix::sched::{CloneFlags, unshare};

/// Whose ruleset the tests make.
pub(super) const INSTANCE: Instance = Instance::DEFAULT;

/// A bridge where the host has `gateway6`.
pub(super) fn zone6(bridge: &str, gateway6: &str) -> Vec<Element> {
    let zone = Zone {
        instance: INSTANCE,
        bridge: bridge.parse().unwrap(),
        internal: false,
        icc: true,
        open: false,
        gateway6: Some(gateway6.parse().unwrap()),
        trusted: BTreeSet::new(),
    };
    Object::Zone(zone).elements()
}

pub(super) fn zone(bridge: &str, internal: bool, open: bool) -> Vec<Element> {
    let zone = Zone {
        instance: INSTANCE,
        bridge: bridge.parse().unwrap(),
        internal,
        icc: true,
        open,
        gateway6: None,
        trusted: BTreeSet::from(["eth0".parse().unwrap()]),
    };
    Object::Zone(zone).elements()
}

pub(super) fn masquerade(subnet: &str, bridge: &str) -> Vec<Element> {
    let masquerade = Masquerade {
        instance: INSTANCE,
        subnet: subnet.parse().unwrap(),
        bridge: bridge.parse().unwrap(),
    };
    Object::Masquerade(masquerade).elements()
}

pub(super) fn publish(at: Option<&str>, protocol: Protocol, port: u16, to: &str) -> Vec<Element> {
    let dnat = Dnat {
        instance: INSTANCE,
        at: at.map(|at| at.parse().unwrap()),
        protocol,
        port,
        to: to.parse().unwrap(),
    };
    Object::Dnat(dnat).elements()
}

pub(super) fn pinhole(protocol: Protocol, to: &str) -> Vec<Element> {
    let pinhole = Pinhole {
        instance: INSTANCE,
        protocol,
        to: to.parse().unwrap(),
    };
    Object::Pinhole(pinhole).elements()
}

pub(super) fn isolated_port(port: &str) -> Vec<Element> {
    let isolated = Isolated {
        instance: INSTANCE,
        port: port.parse().unwrap(),
    };
    Object::Isolated(isolated).elements()
}

pub(super) fn guard(port: &str, mac: &str, addresses: &[&str]) -> Vec<Element> {
    let guard = Guard {
        instance: INSTANCE,
        port: port.parse().unwrap(),
        mac: mac.parse().unwrap(),
        addresses: addresses.iter().map(|a| a.parse().unwrap()).collect(),
    };
    Object::Guard(guard).elements()
}

/// Runs `f` on a thread in a network namespace of its own, and says so if it cannot.
pub(crate) fn isolated(f: impl FnOnce() + Send) {
    for (tool, version) in [("nft", "--version"), ("ip", "-V")] {
        if let Err(error) = Command::new(tool).arg(version).output() {
            println!("skipped: no `{tool}` to compare with: {error}");
            return;
        }
    }
    let ended = thread::scope(|scope| {
        scope
            .spawn(|| match unshare(CloneFlags::CLONE_NEWNET) {
                Ok(()) => f(),
                Err(errno) => println!("skipped: a network namespace takes root: {errno}"),
            })
            .join()
    });
    if let Err(panic) = ended {
        resume_unwind(panic);
    }
}

/// Runs a command in the calling thread's namespace; its words stand between single spaces.
pub(crate) fn run(command: &str) -> String {
    let mut words = command.split(' ');
    let program = words.next().unwrap();
    let output = Command::new(program)
        .args(words)
        .stdin(Stdio::null())
        .output()
        .unwrap();
    let err = String::from_utf8_lossy(&output.stderr);
    assert!(output.status.success(), "{command}: {err}");
    String::from_utf8(output.stdout).unwrap()
}

/// Runs a command that is expected to fail; its error.
pub(crate) fn refused(command: &str) -> String {
    let mut words = command.split(' ');
    let program = words.next().unwrap();
    let output = Command::new(program)
        .args(words)
        .stdin(Stdio::null())
        .output()
        .unwrap();
    assert!(!output.status.success(), "{command} succeeded");
    String::from_utf8_lossy(&output.stderr).into_owned()
}

/// Feeds a script to `nft`.
pub(crate) fn nft_script(script: &str) {
    let file = tempfile::NamedTempFile::new().unwrap();
    fs::write(file.path(), script).unwrap();
    run(&format!("nft -f {}", file.path().display()));
}

/// Sets a sysctl below /proc/sys/net in the calling thread's namespace.
pub(crate) fn sysctl(path: &str, value: &str) {
    let path = format!("/proc/sys/net/{path}");
    fs::write(&path, value).unwrap_or_else(|error| panic!("{path}: {error}"));
}
