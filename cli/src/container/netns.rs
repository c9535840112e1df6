//! A container's network namespace, kept alive by a file.

use std::{fs::File, path::Path};

use anyhow::Context;
use mydocker_core::{Executor, Instance, Link, LinkName, Netns, Object, Op, Up};
use mydocker_exec_netlink::{NetlinkExecutor, netns};

use super::process::Process;

/// Makes a network namespace with nothing but a running loopback, and pins it at the path `pin`.
///
/// Equivalent to: `ip netns add NAME && ip -n NAME link set lo up`.
pub(crate) fn create(pin: &Path) -> anyhow::Result<()> {
    netns::create(pin)
        .with_context(|| format!("can't make a network namespace at {}", pin.display()))?;
    let raised = netns::run_in(pin, raise_loopback)
        .map_err(anyhow::Error::new)
        .flatten()
        .context("can't raise loopback");
    if raised.is_err() {
        remove(pin)?;
    }
    raised
}

/// The namespace that another process lives in, open; none if it has ended. It stays when the process ends.
pub(crate) fn of_process(process: &Process) -> anyhow::Result<Option<File>> {
    let path = format!("/proc/{}/ns/net", process.pid);
    let opened = File::open(&path);
    // Asked afterwards: before it was opened, the number may have become another's.
    if !process.is_alive() {
        return Ok(None);
    }
    opened
        .map(Some)
        .with_context(|| format!("can't open {path}"))
}

/// Unpins the namespace, which ends with its last process. One that is not there is no error.
///
/// Equivalent to: `ip netns delete NAME`.
pub(crate) fn remove(pin: &Path) -> anyhow::Result<()> {
    netns::remove(pin).with_context(|| format!("can't remove {}", pin.display()))
}

/// In the namespace of the calling thread, by a name that an op can have: a pin's may need quoting.
fn raise_loopback() -> anyhow::Result<()> {
    let here: Netns = "/proc/thread-self/ns/net".parse()?;
    let link = Link::sandbox(here, LinkName::LOOPBACK);
    let up = Op::Add(Object::Up(Up { link }));
    let results = NetlinkExecutor::open(Instance::DEFAULT)?.apply(&[up]);
    Ok(results.into_iter().collect::<Result<(), _>>()?)
}

#[cfg(test)]
mod tests {
    use std::fs;

    use tempfile::TempDir;

    use super::*;

    #[test]
    fn is_that_of_a_process_while_it_lives() {
        let me = Process::current().unwrap();
        assert!(of_process(&me).unwrap().is_some());
        let other = Process {
            start_ticks: me.start_ticks + 1,
            ..me
        };
        assert!(of_process(&other).unwrap().is_none());
    }

    #[test]
    fn has_a_running_loopback() {
        if !rustix::process::geteuid().is_root() {
            println!("skipped: making a network namespace needs root");
            return;
        }
        let dir = TempDir::new().unwrap();
        let pin = dir.path().join("net ns/abc");
        create(&pin).unwrap();
        assert!(create(&pin).is_err(), "a pin is not taken over");
        // /sys shows the namespace of whoever mounted it; this file that of its reader.
        let addresses = || fs::read_to_string("/proc/thread-self/net/if_inet6");
        let addresses = netns::run_in(&pin, addresses).unwrap().unwrap();
        assert!(
            addresses.contains("lo"),
            "loopback has ::1 once it is up: {addresses:?}"
        );
        remove(&pin).unwrap();
        remove(&pin).unwrap();
        assert!(!pin.exists());
    }
}
