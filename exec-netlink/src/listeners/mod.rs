//! Programs of the host that listen where a port is to be published.
//!
//! Each port is tried by binding a socket to it, which nobody notices and which costs the same
//! however many others there are. Only when somebody has it the kernel is asked who. A socket for each takes
//! five microseconds, so for many ports the kernel is asked at once, who listens from the least to the
//! greatest of them.

mod diag;
mod process;

use std::collections::{BTreeMap, BTreeSet};
use std::net::SocketAddr;
use std::os::fd::AsRawFd;

use mydocker_core::{Family, Listener, OpError, PortBinding, Protocol};
use nix::errno::Errno;
use nix::sys::socket::{
    AddressFamily, SockFlag, SockProtocol, SockType, SockaddrStorage, bind, setsockopt, socket,
    sockopt,
};

use crate::errno;
use crate::home::Home;
use diag::{DiagSocket, Holder, Seen};

/// Ports that are tried one by one. It takes as long to ask for all who listen, on a host where few do.
const TRIES_MAX: usize = 32;

/// Those that are in the way of `wanted`, with the addresses that are wanted.
pub(crate) fn find(home: &Home, wanted: &[PortBinding]) -> Result<Vec<Listener>, OpError> {
    let found = home.inside(|| look(wanted))??;
    let inodes: BTreeSet<u32> = found
        .iter()
        .filter_map(|(_, holder)| holder.inode)
        .collect();
    let processes = process::holding(&inodes);
    let listener = |(binding, holder): (&PortBinding, Holder)| Listener {
        address: binding.host_ip,
        port: binding.host_port,
        protocol: binding.protocol,
        process: holder
            .inode
            .and_then(|inode| processes.get(&inode).cloned()),
    };
    Ok(found.into_iter().map(listener).collect())
}

/// The bindings whose ports somebody of this namespace listens on.
fn look(wanted: &[PortBinding]) -> Result<Vec<(&PortBinding, Holder)>, OpError> {
    let mut found = Vec::new();
    if wanted.len() > TRIES_MAX
        && let Some(found) = look_at_all(wanted)?
    {
        return Ok(found);
    }
    let mut socket = None;
    for binding in wanted {
        if is_free(binding)? {
            continue;
        }
        let socket = match &mut socket {
            Some(open) => open,
            none => none.insert(DiagSocket::open()?),
        };
        if let Some(holder) = socket.holder(binding)? {
            found.push((binding, holder));
        }
    }
    Ok(found)
}

/// The same, from all who listen in their range; nothing where the kernel can't say.
fn look_at_all(wanted: &[PortBinding]) -> Result<Option<Vec<(&PortBinding, Holder)>>, OpError> {
    let mut ranges: BTreeMap<Protocol, (u16, u16)> = BTreeMap::new();
    for binding in wanted {
        let port = binding.host_port;
        let (least, greatest) = ranges.entry(binding.protocol).or_insert((port, port));
        (*least, *greatest) = (port.min(*least), port.max(*greatest));
    }
    let mut socket = DiagSocket::open()?;
    let mut listening: BTreeMap<(Protocol, u16), Vec<Seen>> = BTreeMap::new();
    for (protocol, (least, greatest)) in ranges {
        let Some(all) = socket.listening(protocol, least..=greatest)? else {
            return Ok(None);
        };
        for seen in all {
            listening
                .entry((protocol, seen.port))
                .or_default()
                .push(seen);
        }
    }
    let holder = |binding: &PortBinding| {
        let there = listening.get(&(binding.protocol, binding.host_port))?;
        there
            .iter()
            .find(|seen| seen.conflicts(binding))
            .map(Seen::holder)
    };
    let found = wanted
        .iter()
        .filter_map(|binding| Some((binding, holder(binding)?)));
    Ok(Some(found.collect()))
}

/// Whether a socket could listen there, so that nobody does.
fn is_free(binding: &PortBinding) -> Result<bool, OpError> {
    match try_bind(binding) {
        Ok(()) => Ok(true),
        // Nobody listens with what this kernel can't.
        Err(Errno::EAFNOSUPPORT | Errno::EPROTONOSUPPORT | Errno::ESOCKTNOSUPPORT) => Ok(true),
        // A user who plans may not try each port, and can't publish it either.
        Err(Errno::EACCES | Errno::EPERM) => Ok(true),
        // Or else it is the address of a link, which would have to be named as well.
        Err(Errno::EADDRINUSE | Errno::EINVAL) => Ok(false),
        Err(errno) => Err(errno::of_io("port of the host", &errno.into())),
    }
}

/// Binds a socket as a server would, for a moment. The address may be one that the host does not
/// have yet. It does not listen, so no connection is ever made to it, and two that try at the same
/// time are not in each other's way (but for UDP, where nothing tells them from servers).
fn try_bind(binding: &PortBinding) -> Result<(), Errno> {
    let (kind, protocol) = match binding.protocol {
        Protocol::Tcp => (SockType::Stream, SockProtocol::Tcp),
        Protocol::Udp => (SockType::Datagram, SockProtocol::Udp),
        Protocol::Sctp => (SockType::Stream, SockProtocol::Sctp),
    };
    let family = match binding.family() {
        Family::V4 => AddressFamily::Inet,
        Family::V6 => AddressFamily::Inet6,
    };
    let socket = socket(family, kind, SockFlag::SOCK_CLOEXEC, protocol)?;
    // Every host has the unspecified one; of five thousand ports each call counts.
    if !binding.host_ip.is_unspecified() {
        setsockopt(&socket, sockopt::IpFreebind, &true)?;
    }
    if binding.family() == Family::V6 {
        setsockopt(&socket, sockopt::Ipv6V6Only, &true)?;
    }
    if binding.protocol != Protocol::Udp {
        // Connections that a server left behind are nobody who listens.
        setsockopt(&socket, sockopt::ReuseAddr, &true)?;
    }
    let address = SocketAddr::new(binding.host_ip, binding.host_port);
    bind(socket.as_raw_fd(), &SockaddrStorage::from(address))
}

/// Reads any message.
pub(crate) fn fuzz(message: &crate::netlink::Message<'_>) {
    diag::fuzz(message);
}

#[cfg(test)]
mod tests {
    use std::net::{IpAddr, TcpListener, TcpStream, UdpSocket};

    use nix::sys::socket::{Backlog, listen};

    use super::*;
    use crate::nft::testing::{isolated, run};

    fn on_a_host(f: impl FnOnce() + Send) {
        isolated(|| {
            run("ip link set lo up");
            f();
        });
    }

    fn binding(host_ip: &str, protocol: Protocol) -> PortBinding {
        PortBinding {
            host_ip: host_ip.parse().unwrap(),
            host_port: 8080,
            container_port: 80,
            protocol,
        }
    }

    /// Which of some addresses are taken.
    fn taken(protocol: Protocol) -> Vec<&'static str> {
        let home = Home::open().unwrap();
        let mut all = vec![
            "0.0.0.0",
            "127.0.0.1",
            "192.0.2.1",
            "::",
            "::1",
            "2001:db8::1",
        ];
        let wanted = |ip: &&str| binding(ip, protocol);
        let wanted: Vec<PortBinding> = all.iter().map(wanted).collect();
        let found = find(&home, &wanted).unwrap();
        // Among many they are asked for otherwise.
        let others = (20_000..20_100).map(|host_port| PortBinding {
            host_port,
            ..binding("0.0.0.0", protocol)
        });
        let many: Vec<PortBinding> = others.chain(wanted.iter().cloned()).collect();
        assert_eq!(find(&home, &many).unwrap(), found);
        for listener in &found {
            let process = listener.process.as_ref().unwrap();
            assert_eq!(process.pid, std::process::id());
        }
        let found: Vec<IpAddr> = found.iter().map(|listener| listener.address).collect();
        all.retain(|ip| found.contains(&ip.parse().unwrap()));
        all
    }

    #[test]
    fn each_address_is_taken_by_who_would_get_its_packets() {
        use Protocol::{Sctp, Tcp, Udp};
        on_a_host(|| {
            assert!([Tcp, Udp, Sctp].map(taken).iter().all(Vec::is_empty));
            for (at, expected) in [
                ("0.0.0.0:8080", &["0.0.0.0", "127.0.0.1", "192.0.2.1"][..]),
                ("127.0.0.1:8080", &["0.0.0.0", "127.0.0.1"]),
                (
                    "[::]:8080",
                    &[
                        "0.0.0.0",
                        "127.0.0.1",
                        "192.0.2.1",
                        "::",
                        "::1",
                        "2001:db8::1",
                    ],
                ),
                ("[::1]:8080", &["::", "::1"]),
                ("[::ffff:127.0.0.1]:8080", &["0.0.0.0", "127.0.0.1"]),
            ] {
                let listener = TcpListener::bind(at).unwrap();
                assert_eq!(taken(Tcp), expected, "{at}");
                assert!(taken(Udp).is_empty(), "{at}");
                drop(listener);
                let socket = UdpSocket::bind(at).unwrap();
                assert_eq!(taken(Udp), expected, "{at}");
                assert!(taken(Tcp).is_empty(), "{at}");
                drop(socket);
            }
        });
    }

    #[test]
    fn a_listener_of_one_family_leaves_the_other_alone() {
        on_a_host(|| {
            let flags = SockFlag::SOCK_CLOEXEC;
            let v6 = socket(AddressFamily::Inet6, SockType::Stream, flags, None).unwrap();
            setsockopt(&v6, sockopt::Ipv6V6Only, &true).unwrap();
            let at: SocketAddr = "[::]:8080".parse().unwrap();
            bind(v6.as_raw_fd(), &SockaddrStorage::from(at)).unwrap();
            listen(&v6, Backlog::new(1).unwrap()).unwrap();
            assert_eq!(taken(Protocol::Tcp), ["::", "::1", "2001:db8::1"]);
        });
    }

    /// moby#36591: nobody has a port that a connection merely comes from, or came to.
    #[test]
    fn a_connection_is_no_listener() {
        on_a_host(|| {
            let server = TcpListener::bind("127.0.0.1:9").unwrap();
            let flags = SockFlag::SOCK_CLOEXEC;
            let client = socket(AddressFamily::Inet, SockType::Stream, flags, None).unwrap();
            let at = |text: &str| SockaddrStorage::from(text.parse::<SocketAddr>().unwrap());
            bind(client.as_raw_fd(), &at("127.0.0.1:8080")).unwrap();
            nix::sys::socket::connect(client.as_raw_fd(), &at("127.0.0.1:9")).unwrap();
            let served = server.accept().unwrap();
            assert!(taken(Protocol::Tcp).is_empty());
            let resolver = UdpSocket::bind("127.0.0.1:8080").unwrap();
            resolver.connect("127.0.0.1:53").unwrap();
            assert!(taken(Protocol::Udp).is_empty());
            drop((client, served));
        });
        on_a_host(|| {
            let listener = TcpListener::bind("127.0.0.1:8080").unwrap();
            let stream = TcpStream::connect("127.0.0.1:8080").unwrap();
            let served = listener.accept().unwrap();
            drop(listener);
            assert!(taken(Protocol::Tcp).is_empty());
            drop((stream, served));
        });
    }

    #[test]
    fn the_address_of_a_link_is_looked_up() {
        on_a_host(|| {
            let home = Home::open().unwrap();
            let wanted = [binding("fe80::1", Protocol::Tcp)];
            assert_eq!(find(&home, &wanted).unwrap(), []);
            let _listener = TcpListener::bind("[::]:8080").unwrap();
            assert_eq!(find(&home, &wanted).unwrap().len(), 1);
        });
    }
}
