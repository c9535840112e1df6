//! The floor: what the kernel alone takes to attach and detach one container with one published port,
//! in a process that does nothing else. Nothing is planned, recorded or checked; whoever calls it
//! chooses interface numbers that nobody has.
//!
//! ```text
//! floor attach LINK INDEX BRIDGE_INDEX NETNS ADDRESS/PREFIX GATEWAY PORT
//! floor attach-all COUNT FIRST_INDEX BRIDGE_INDEX DIRECTORY
//! floor cold BATCH BRIDGE BRIDGE_INDEX LINK INDEX NETNS ADDRESS/PREFIX GATEWAY
//! floor detach INDEX ADDRESS PORT
//! floor detach-announced INDEX ADDRESS PORT
//! ```
//!
//! The second way to attach does so for many, one after the other: the namespaces `c0000`, `c0001`, … of a
//! directory, into a group of links of their own.
//!
//! The third way to attach makes the bridge, settings and address included, and turns forwarding on.
//! What the firewall gets is a batch in a file, written beforehand, in which the last message alone asks
//! for an answer.
//!
//! The second way to detach does not wait for the kernel's grace periods: a child does, while the
//! parent listens for the announcement.

use std::error::Error;
use std::fs::File;
use std::io::Read;
use std::net::Ipv4Addr;
use std::os::fd::{AsRawFd, OwnedFd};

use nix::libc;
use nix::sched::{CloneFlags, setns};
use nix::sys::socket::{
    AddressFamily, MsgFlags, NetlinkAddr, SockFlag, SockProtocol, SockType, bind, recv, send,
    socket,
};
use nix::unistd::{ForkResult, close, fork};

/// The table that `make bench` makes, with a map like ours.
const TABLE: &[u8] = b"floor\0";
const MAP: &[u8] = b"publish\0";

/// The group of links that cables are in: `IFLA_GROUP`.
const GROUP: u32 = 77;

/// uapi/linux/netlink.h
const REQUEST: u16 = 0x1;
const ACK: u16 = 0x4;
const EXCL: u16 = 0x200;
const CREATE: u16 = 0x400;
const ERROR: u16 = 2;
const NESTED: u16 = 0x8000;
/// `AF_INET`
const INET: u8 = 2;

/// A datagram of netlink messages, and how many answers it asks for.
#[derive(Default)]
struct Datagram {
    bytes: Vec<u8>,
    answers: usize,
}

impl Datagram {
    fn message(&mut self, kind: u16, flags: u16, fill: impl FnOnce(&mut Vec<u8>)) {
        let at = self.bytes.len();
        self.bytes.extend([0; 16]);
        fill(&mut self.bytes);
        let length = u32::try_from(self.bytes.len() - at).expect("a short message");
        let head = &mut self.bytes[at..at + 16];
        head[..4].copy_from_slice(&length.to_ne_bytes());
        head[4..6].copy_from_slice(&kind.to_ne_bytes());
        head[6..8].copy_from_slice(&(flags | REQUEST).to_ne_bytes());
        self.answers += usize::from(flags & ACK != 0);
    }

    /// Sends it, and waits for all answers.
    fn exchange(&self, socket: &OwnedFd) -> Result<(), Box<dyn Error>> {
        let fd = socket.as_raw_fd();
        send(fd, &self.bytes, MsgFlags::empty())?;
        let (mut left, mut buffer) = (self.answers, vec![0; 64 * 1024]);
        while left > 0 {
            let length = recv(fd, &mut buffer, MsgFlags::empty())?;
            let mut datagram = &buffer[..length];
            while datagram.len() >= 20 {
                let length = u32::from_ne_bytes(datagram[..4].try_into()?) as usize;
                if u16::from_ne_bytes(datagram[4..6].try_into()?) == ERROR {
                    let errno = i32::from_ne_bytes(datagram[16..20].try_into()?);
                    if errno != 0 {
                        return Err(std::io::Error::from_raw_os_error(-errno).into());
                    }
                    left -= 1;
                }
                datagram = datagram
                    .get(length.next_multiple_of(4)..)
                    .unwrap_or_default();
            }
        }
        Ok(())
    }
}

fn attribute(bytes: &mut Vec<u8>, kind: u16, fill: impl FnOnce(&mut Vec<u8>)) {
    let at = bytes.len();
    bytes.extend([0, 0]);
    bytes.extend(kind.to_ne_bytes());
    fill(bytes);
    let length = u16::try_from(bytes.len() - at).expect("a short attribute");
    bytes[at..at + 2].copy_from_slice(&length.to_ne_bytes());
    bytes.resize(bytes.len().next_multiple_of(4), 0);
}

fn value(bytes: &mut Vec<u8>, kind: u16, value: &[u8]) {
    attribute(bytes, kind, |bytes| bytes.extend(value));
}

fn number(bytes: &mut Vec<u8>, kind: u16, number: u32) {
    value(bytes, kind, &number.to_ne_bytes());
}

/// `struct ifinfomsg` (linux/rtnetlink.h).
fn link(bytes: &mut Vec<u8>, family: u8, index: u32, up: bool) {
    let flags = u32::from(up).to_ne_bytes();
    bytes.extend([family, 0, 0, 0]);
    bytes.extend(index.to_ne_bytes());
    bytes.extend(flags);
    bytes.extend(flags);
}

/// One queue for each direction: `IFLA_NUM_TX_QUEUES`, `IFLA_NUM_RX_QUEUES`.
fn queues(bytes: &mut Vec<u8>) {
    number(bytes, 31, 1);
    number(bytes, 32, 1);
}

/// A locally administered MAC, from an address: `IFLA_ADDRESS`.
fn mac(bytes: &mut Vec<u8>, address: Ipv4Addr) {
    let [a, b, c, d] = address.octets();
    value(bytes, 1, &[2, 0x6d, a, b, c, d]);
}

/// RTM_NEWADDR
fn assign(datagram: &mut Datagram, index: u32, address: Ipv4Addr, prefix: u8) {
    datagram.message(20, ACK | CREATE | EXCL, |bytes| {
        bytes.extend([INET, prefix, 0, 0]);
        bytes.extend(index.to_ne_bytes());
        value(bytes, 2, &address.octets());
        value(bytes, 1, &address.octets());
    });
}

/// A bridge that is down.
fn bridge(name: &str, index: u32, gateway: Ipv4Addr) -> Datagram {
    let mut datagram = Datagram::default();
    datagram.message(16, ACK | CREATE | EXCL, |bytes| {
        link(bytes, 0, index, false);
        value(bytes, 3, format!("{name}\0").as_bytes());
        mac(bytes, gateway);
        attribute(bytes, 18, |bytes| value(bytes, 1, b"bridge"));
    });
    datagram
}

/// Its address, and up.
fn raise(index: u32, gateway: Ipv4Addr, prefix: u8) -> Datagram {
    let mut datagram = Datagram::default();
    assign(&mut datagram, index, gateway, prefix);
    datagram.message(16, ACK, |bytes| link(bytes, 0, index, true));
    datagram
}

fn set(family: &str, setting: &str, value: &str) -> std::io::Result<()> {
    std::fs::write(format!("/proc/sys/net/{family}/{setting}"), value)
}

/// A cable, plugged in and up, its far end in the namespace; hairpin mode as for any published port.
fn cable(name: &str, index: u32, bridge: u32, netns: &File, address: Ipv4Addr) -> Datagram {
    let mut datagram = Datagram::default();
    // RTM_NEWLINK
    datagram.message(16, ACK | CREATE | EXCL, |bytes| {
        link(bytes, 0, index, true);
        value(bytes, 3, format!("{name}\0").as_bytes());
        number(bytes, 10, bridge);
        number(bytes, 27, GROUP);
        queues(bytes);
        // IFLA_LINKINFO { IFLA_INFO_KIND, IFLA_INFO_DATA { VETH_INFO_PEER } }
        attribute(bytes, 18, |bytes| {
            value(bytes, 1, b"veth");
            attribute(bytes, 2, |bytes| {
                attribute(bytes, 1, |bytes| {
                    link(bytes, 0, index, false);
                    value(bytes, 3, b"eth0\0");
                    mac(bytes, address);
                    number(bytes, 28, netns.as_raw_fd().cast_unsigned());
                    queues(bytes);
                });
            });
        });
    });
    // RTM_SETLINK of the bridge port: IFLA_PROTINFO { IFLA_BRPORT_MODE }
    datagram.message(19, ACK, |bytes| {
        link(bytes, 7, index, true);
        attribute(bytes, 12 | NESTED, |bytes| value(bytes, 4, &[1]));
    });
    datagram
}

/// Everything inside: loopback and interface up, address, default route.
fn inside(index: u32, address: Ipv4Addr, prefix: u8, gateway: Ipv4Addr) -> Datagram {
    let mut datagram = Datagram::default();
    for index in [1, index] {
        datagram.message(16, ACK, |bytes| link(bytes, 0, index, true));
    }
    assign(&mut datagram, index, address, prefix);
    // RTM_NEWROUTE, in the main table, by an administrator, unicast: RTA_GATEWAY, RTA_OIF
    datagram.message(24, ACK | CREATE | EXCL, |bytes| {
        bytes.extend([INET, 0, 0, 0, 254, 4, 0, 1]);
        bytes.extend([0; 4]);
        value(bytes, 5, &gateway.octets());
        number(bytes, 4, index);
    });
    datagram
}

/// One element of the map, added or deleted (`NFT_MSG_NEWSETELEM`, `NFT_MSG_DELSETELEM`).
fn publish(add: bool, address: Ipv4Addr, port: u16) -> Datagram {
    const NFTABLES: u8 = 10;
    let mut datagram = Datagram::default();
    // `struct nfgenmsg`: family, version, resource
    datagram.message(0x10, 0, |bytes| bytes.extend([0, 0, 0, NFTABLES]));
    let (message, flags) = if add { (12, CREATE | EXCL) } else { (14, 0) };
    let port = port.to_be_bytes();
    datagram.message(u16::from(NFTABLES) << 8 | message, ACK | flags, |bytes| {
        bytes.extend([1, 0, 0, 0]);
        value(bytes, 1, TABLE);
        value(bytes, 2, MAP);
        attribute(bytes, 3 | NESTED, |bytes| {
            attribute(bytes, 1 | NESTED, |bytes| {
                let data = |bytes: &mut Vec<u8>, kind: u16, data: &[u8]| {
                    attribute(bytes, kind | NESTED, |bytes| value(bytes, 1, data));
                };
                let tcp = u8::try_from(libc::IPPROTO_TCP).expect("6");
                data(bytes, 1, &[tcp, 0, 0, 0, port[0], port[1], 0, 0]);
                if add {
                    let to = [&address.octets()[..], &[0, 80, 0, 0]].concat();
                    data(bytes, 2, &to);
                }
            });
        });
    });
    datagram.message(0x11, 0, |bytes| bytes.extend([0, 0, 0, NFTABLES]));
    datagram
}

/// RTM_DELLINK
fn cut(index: u32) -> Datagram {
    let mut cable = Datagram::default();
    cable.message(17, ACK, |bytes| link(bytes, 0, index, false));
    cable
}

/// Has a child cut the cable, and keep the firewall's socket until this process has ended; returns
/// when the kernel says that the link is gone.
fn cut_announced(index: u32) -> Result<(), Box<dyn Error>> {
    let (mut ended, ends) = std::io::pipe()?;
    // RTMGRP_LINK
    let told = netlink_hearing(SockProtocol::NetlinkRoute, 1)?;
    let route = netlink(SockProtocol::NetlinkRoute)?;
    #[expect(unsafe_code, reason = "this process has one thread")]
    // SAFETY: nobody else holds a lock.
    if matches!(unsafe { fork() }?, ForkResult::Child) {
        drop(ends);
        // Who reads what this program says is not to wait for the kernel either.
        for output in [1, 2] {
            close(output)?;
        }
        cut(index).exchange(&route)?;
        ended.read_to_end(&mut Vec::new())?;
        std::process::exit(0);
    }
    // The other end closes with this process.
    std::mem::forget(ends);
    let mut buffer = vec![0; 64 * 1024];
    loop {
        let length = recv(told.as_raw_fd(), &mut buffer, MsgFlags::empty())?;
        let mut datagram = &buffer[..length];
        while datagram.len() >= 24 {
            let length = u32::from_ne_bytes(datagram[..4].try_into()?) as usize;
            let kind = u16::from_ne_bytes(datagram[4..6].try_into()?);
            let gone = u32::from_ne_bytes(datagram[20..24].try_into()?);
            // Of no family: a bridge tells of its ports.
            if (kind, datagram[16], gone) == (17, 0, index) {
                return Ok(());
            }
            datagram = datagram
                .get(length.next_multiple_of(4)..)
                .unwrap_or_default();
        }
    }
}

fn netlink(protocol: SockProtocol) -> Result<OwnedFd, Box<dyn Error>> {
    netlink_hearing(protocol, 0)
}

/// A socket that hears of what these groups are about.
fn netlink_hearing(protocol: SockProtocol, groups: u32) -> Result<OwnedFd, Box<dyn Error>> {
    let (family, flags) = (AddressFamily::Netlink, SockFlag::SOCK_CLOEXEC);
    let socket = socket(family, SockType::Raw, flags, protocol)?;
    bind(socket.as_raw_fd(), &NetlinkAddr::new(0, groups))?;
    Ok(socket)
}

/// A container, and where it goes.
struct Attachment<'w> {
    name: &'w str,
    index: u32,
    bridge: u32,
    netns: File,
    address: Ipv4Addr,
    prefix: u8,
    gateway: Ipv4Addr,
}

impl<'w> Attachment<'w> {
    fn parse(bridge: u32, words: [&'w str; 5]) -> Result<Self, Box<dyn Error>> {
        let [name, index, netns, address, gateway] = words;
        let (address, prefix) = address.split_once('/').ok_or("an address has a prefix")?;
        Ok(Self {
            name,
            index: index.parse()?,
            bridge,
            netns: File::open(netns)?,
            address: address.parse()?,
            prefix: prefix.parse()?,
            gateway: gateway.parse()?,
        })
    }

    fn make(&self, route: &OwnedFd) -> Result<(), Box<dyn Error>> {
        cable(
            self.name,
            self.index,
            self.bridge,
            &self.netns,
            self.address,
        )
        .exchange(route)?;
        setns(&self.netns, CloneFlags::CLONE_NEWNET)?;
        let there = netlink(SockProtocol::NetlinkRoute)?;
        inside(self.index, self.address, self.prefix, self.gateway).exchange(&there)
    }
}

/// Attaches so many, with a socket of each kind for all of them.
fn attach_all(count: u16, first: u32, bridge: u32, directory: &str) -> Result<(), Box<dyn Error>> {
    let home = File::open("/proc/self/ns/net")?;
    let firewall = netlink(SockProtocol::NetlinkNetFilter)?;
    let route = netlink(SockProtocol::NetlinkRoute)?;
    for number in 0..count {
        let [high, low] = number.to_be_bytes();
        let address = Ipv4Addr::new(10, 9, high + 1, low);
        publish(true, address, 10_000 + number).exchange(&firewall)?;
        let attachment = Attachment {
            name: &format!("floor{number}"),
            index: first + u32::from(number),
            bridge,
            netns: File::open(format!("{directory}/c{number:04}"))?,
            address,
            prefix: 16,
            gateway: Ipv4Addr::new(10, 9, 0, 1),
        };
        attachment.make(&route)?;
        setns(&home, CloneFlags::CLONE_NEWNET)?;
    }
    Ok(())
}

fn main() -> Result<(), Box<dyn Error>> {
    let words: Vec<String> = std::env::args().skip(1).collect();
    let words: Vec<&str> = words.iter().map(String::as_str).collect();
    match words[..] {
        ["attach", name, index, bridge, netns, address, gateway, port] => {
            let words = [name, index, netns, address, gateway];
            let attachment = Attachment::parse(bridge.parse()?, words)?;
            let firewall = netlink(SockProtocol::NetlinkNetFilter)?;
            publish(true, attachment.address, port.parse()?).exchange(&firewall)?;
            attachment.make(&netlink(SockProtocol::NetlinkRoute)?)
        }
        ["attach-all", count, first, bridge, directory] => {
            attach_all(count.parse()?, first.parse()?, bridge.parse()?, directory)
        }
        ["cold", batch, name, index, ref words @ ..] => {
            let (index, words) = (index.parse()?, words.try_into()?);
            let attachment = Attachment::parse(index, words)?;
            let (gateway, prefix) = (attachment.gateway, attachment.prefix);
            let firewall = netlink(SockProtocol::NetlinkNetFilter)?;
            let (bytes, answers) = (std::fs::read(batch)?, 1);
            Datagram { bytes, answers }.exchange(&firewall)?;
            let route = netlink(SockProtocol::NetlinkRoute)?;
            bridge(name, index, gateway).exchange(&route)?;
            set("ipv4/conf", &format!("{name}/route_localnet"), "1")?;
            set("ipv6/conf", &format!("{name}/disable_ipv6"), "1")?;
            raise(index, gateway, prefix).exchange(&route)?;
            set("ipv4", "ip_forward", "1")?;
            attachment.make(&route)
        }
        ["detach", index, address, port] => {
            cut(index.parse()?).exchange(&netlink(SockProtocol::NetlinkRoute)?)?;
            let firewall = netlink(SockProtocol::NetlinkNetFilter)?;
            publish(false, address.parse()?, port.parse()?).exchange(&firewall)
        }
        ["detach-announced", index, address, port] => {
            let firewall = netlink(SockProtocol::NetlinkNetFilter)?;
            cut_announced(index.parse()?)?;
            publish(false, address.parse()?, port.parse()?).exchange(&firewall)
        }
        _ => Err(
            "floor attach|attach-all|cold|detach|detach-announced …: see the head of tests/bench/floor.rs"
                .into(),
        ),
    }
}
