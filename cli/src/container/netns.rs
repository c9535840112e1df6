//! Network namespaces, kept alive by a file. Entered only on threads that end.

use std::{
    fs::{self, DirBuilder, File},
    io,
    os::unix::fs::DirBuilderExt,
    path::Path,
    thread,
};

use anyhow::{Context, anyhow};
use netlink_sys::{Socket, protocols::NETLINK_ROUTE};
use nix::{
    errno::Errno,
    mount::{MntFlags, MsFlags, mount, umount2},
    sched::{CloneFlags, unshare},
};

/// Makes a network namespace with nothing but a running loopback, and pins it at the path `pin`.
///
/// Equivalent to: `ip netns add NAME && ip -n NAME link set lo up`.
pub fn create(pin: &Path) -> anyhow::Result<()> {
    if let Some(dir) = pin.parent() {
        DirBuilder::new()
            .recursive(true)
            .mode(0o700)
            .create(dir)
            .with_context(|| format!("can't create {}", dir.display()))?;
    }
    File::create_new(pin).with_context(|| format!("can't create {}", pin.display()))?;
    let made = on_own_thread(|| {
        unshare(CloneFlags::CLONE_NEWNET).context("can't make a network namespace")?;
        raise_loopback().context("can't raise loopback")?;
        let none: Option<&str> = None;
        mount(
            Some("/proc/thread-self/ns/net"),
            pin,
            none,
            MsFlags::MS_BIND,
            none,
        )
        .with_context(|| format!("can't pin a network namespace at {}", pin.display()))
    });
    if made.is_err() {
        remove(pin)?;
    }
    made
}

/// Unpins the namespace, which ends with its last process. One that is not there is no error.
///
/// Equivalent to: `ip netns delete NAME`.
pub fn remove(pin: &Path) -> anyhow::Result<()> {
    match umount2(pin, MntFlags::MNT_DETACH) {
        // EINVAL: the file is there, but nothing is mounted on it.
        Ok(()) | Err(Errno::EINVAL | Errno::ENOENT) => {}
        Err(errno) => {
            return Err(errno).with_context(|| format!("can't unmount {}", pin.display()));
        }
    }
    match fs::remove_file(pin) {
        Err(error) if error.kind() != io::ErrorKind::NotFound => {
            Err(error).with_context(|| format!("can't remove {}", pin.display()))
        }
        _ => Ok(()),
    }
}

/// Runs `f` on a thread that ends with it, so that no other code meets the namespace it leaves behind.
fn on_own_thread<T: Send>(f: impl FnOnce() -> anyhow::Result<T> + Send) -> anyhow::Result<T> {
    thread::scope(|scope| {
        thread::Builder::new()
            .spawn_scoped(scope, f)
            .context("can't start a thread")?
            .join()
            .map_err(|_| anyhow!("a thread in another network namespace panicked"))?
    })
}

/// Equivalent to: `ip link set lo up`, in the namespace of the calling thread.
fn raise_loopback() -> io::Result<()> {
    const RTM_SETLINK: u16 = 19;
    const REQUEST_AND_ACK: u16 = 1 | 4;
    const IFF_UP: u32 = 1;
    const LOOPBACK_INDEX: u32 = 1;

    // One fixed message: struct nlmsghdr, struct ifinfomsg.
    let mut message = Vec::with_capacity(32);
    message.extend(32_u32.to_ne_bytes());
    message.extend(RTM_SETLINK.to_ne_bytes());
    message.extend(REQUEST_AND_ACK.to_ne_bytes());
    message.extend([0; 8]); // sequence, port
    message.extend([0; 4]); // family, padding, type
    message.extend(LOOPBACK_INDEX.to_ne_bytes());
    message.extend(IFF_UP.to_ne_bytes()); // flags
    message.extend(IFF_UP.to_ne_bytes()); // which of them to change

    let socket = Socket::new(NETLINK_ROUTE)?;
    socket.send(&message, 0)?;
    // struct nlmsghdr, then struct nlmsgerr, which starts with the negative errno.
    let (answer, _) = socket.recv_from_full()?;
    match answer
        .get(16..20)
        .and_then(|bytes| bytes.try_into().ok())
        .map(i32::from_ne_bytes)
    {
        Some(0) => Ok(()),
        Some(errno) => Err(io::Error::from_raw_os_error(-errno)),
        None => Err(io::ErrorKind::UnexpectedEof.into()),
    }
}

#[cfg(test)]
mod tests {
    use tempfile::TempDir;

    use super::*;

    #[test]
    fn pins_and_unpins() {
        if !rustix::process::geteuid().is_root() {
            println!("skipped: making a network namespace needs root");
            return;
        }
        let dir = TempDir::new().unwrap();
        let pin = dir.path().join("netns/abc");
        let before = fs::read_link("/proc/thread-self/ns/net").unwrap();
        create(&pin).unwrap();
        assert_eq!(fs::read_link("/proc/thread-self/ns/net").unwrap(), before);
        assert!(create(&pin).is_err(), "a pin is not taken over");
        let flags = on_own_thread(|| {
            nix::sched::setns(File::open(&pin)?, CloneFlags::CLONE_NEWNET)?;
            // /sys shows the namespace of whoever mounted it; this file that of its reader.
            Ok(fs::read_to_string("/proc/thread-self/net/if_inet6")?)
        })
        .unwrap();
        assert!(
            flags.contains("lo"),
            "loopback has ::1 once it is up: {flags:?}"
        );
        remove(&pin).unwrap();
        remove(&pin).unwrap();
        assert!(!pin.exists());
    }
}
