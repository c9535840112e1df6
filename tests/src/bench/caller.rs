//! Caller: another machine on the host's LAN, which opens connections through a published port.

use std::io;
use std::net::{Ipv4Addr, SocketAddr, TcpListener, TcpStream};
use std::path::{Path, PathBuf};
use std::time::{Duration, Instant};

use mydocker_exec_netlink::netns::run_in;
use nix::sys::socket::{setsockopt, sockopt};
use nix::time::{ClockId, clock_gettime};

use super::Cost;
use crate::Host;

/// The host, on the LAN.
const HOST: &str = "192.0.2.1";
/// The other machine, on the LAN.
const LAN: &str = "192.0.2.9";
/// Untimed calls before those that count: the processor's caches hold somebody else's rules.
const WARM_UP: u32 = 100;

/// A host on a LAN, with another machine there that calls a server in a container.
///
/// Caller and server are one thread, which calls, accepts and hangs up: each socket stays in the namespace
/// that it was opened in, and the kernel carries a packet from end to end inside the system call that sends
/// it. So nobody waits to be scheduled, and what is measured is the path of the packets. A call ends with a
/// reset, after which neither end remembers it; the host's connection tracking forgets it after each turn.
pub struct Caller {
    host: Host,
    lan: PathBuf,
    listener: TcpListener,
    to: SocketAddr,
}

impl Caller {
    /// Calls `port` of `host`, which leads to the same port in the namespace `server`. Cables the other
    /// machine to the host.
    ///
    /// # Errors
    /// The port is taken in the container.
    ///
    /// # Panics
    /// When the kernel refuses.
    pub fn new(host: Host, server: &Path, port: u16) -> io::Result<Self> {
        let lan = host.neighbour("lan", &format!("{HOST}/24"), &format!("{LAN}/24"));
        host.sh_in(
            &lan,
            // No port is used twice in a turn, and a packet that is lost ends it soon.
            "sysctl -qw net.ipv4.ip_local_port_range=\"1024 65535\"
             sysctl -qw net.ipv4.tcp_syn_retries=2",
        );
        let bind = || TcpListener::bind((Ipv4Addr::UNSPECIFIED, port));
        let listener = run_in(server, bind)??;
        let to = SocketAddr::new(HOST.parse().map_err(io::Error::other)?, port);
        Ok(Self {
            host,
            lan,
            listener,
            to,
        })
    }

    /// What `count` calls take, one after another.
    ///
    /// # Errors
    /// The port does not answer.
    ///
    /// # Panics
    /// When the host's connection tracking can't be flushed.
    pub fn turn(&self, count: u32) -> io::Result<Cost> {
        let cost = run_in(&self.lan, || {
            self.calls(WARM_UP)?;
            let (before, start) = (cpu()?, Instant::now());
            self.calls(count)?;
            let (wall, cpu) = (start.elapsed(), cpu()?.saturating_sub(before));
            io::Result::Ok(Cost { wall, cpu })
        })?;
        self.host.sh("conntrack -F 2>/dev/null");
        cost
    }

    fn calls(&self, count: u32) -> io::Result<()> {
        // Zero seconds: hanging up is a reset.
        let reset = nix::libc::linger {
            l_onoff: 1,
            l_linger: 0,
        };
        for _ in 0..count {
            let caller = TcpStream::connect(self.to)?;
            let server = self.listener.accept()?;
            setsockopt(&caller, sockopt::Linger, &reset)?;
            drop(caller);
            drop(server);
        }
        Ok(())
    }
}

/// What this thread has used, the kernel on its behalf included.
fn cpu() -> io::Result<Duration> {
    Ok(clock_gettime(ClockId::CLOCK_THREAD_CPUTIME_ID)?.into())
}
