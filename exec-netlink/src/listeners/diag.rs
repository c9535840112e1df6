//! Who has a port: sock_diag, the messages as pure functions.

use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};

use mydocker_core::{ErrorKind, Family, OpError, PortBinding, Protocol};
use netlink_sys::constants::NETLINK_SOCK_DIAG;

use crate::netlink::{Client, HEADER_BYTES, Message};
use crate::nft::attr::{attrs, native_u32};

/// linux/netlink.h
const NLM_F_REQUEST: u16 = 0x1;
const NLM_F_DUMP: u16 = 0x300;

/// linux/socket.h
const AF_INET: u8 = 2;
const AF_INET6: u8 = 10;

/// linux/sock_diag.h and linux/inet_diag.h
const SOCK_DIAG_BY_FAMILY: u16 = 20;
const INET_DIAG_SKV6ONLY: u16 = 11;

/// The states of a socket that takes what comes: net/tcp_states.h. A UDP socket is `CLOSE` until
/// it is connected to somebody.
const TCP_CLOSE: u32 = 7;
const TCP_LISTEN: u32 = 10;

/// Bytes of `struct inet_diag_req_v2` and `struct inet_diag_msg` (linux/inet_diag.h).
const REQUEST_BYTES: usize = 56;
const MESSAGE_BYTES: usize = 72;

/// Who has a port.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub(super) struct Holder {
    /// The number of the socket, by which its process is found; nothing in a kernel that can't say.
    pub(super) inode: Option<u32>,
}

/// A socket for questions about sockets.
#[derive(Debug)]
pub(super) struct DiagSocket(Option<Client>);

impl DiagSocket {
    /// Opens a socket in the calling thread's network namespace.
    pub(super) fn open() -> Result<Self, OpError> {
        match Client::open("sock_diag", NETLINK_SOCK_DIAG) {
            Err(error) if error.kind == ErrorKind::Unsupported => Ok(Self(None)),
            other => other.map(|client| Self(Some(client))),
        }
    }

    /// Who listens where `binding` would, if it is not just a connection that has the port. Where
    /// the kernel can't say, it is somebody.
    pub(super) fn holder(&mut self, binding: &PortBinding) -> Result<Option<Holder>, OpError> {
        let somebody = Holder { inode: None };
        let Some(client) = &mut self.0 else {
            return Ok(Some(somebody));
        };
        // A socket of IPv6 may take IPv4's packets as well.
        let families = match binding.family() {
            Family::V4 => &[AF_INET, AF_INET6][..],
            Family::V6 => &[AF_INET6],
        };
        let mut found = None;
        for family in families {
            let asked = client.ask(request(*family, binding), |message| {
                let seen = Seen::decode(message).filter(|seen| seen.conflicts(binding));
                found = found.or(seen.map(|seen| Holder {
                    inode: Some(seen.inode),
                }));
            });
            match asked {
                // No module for this protocol.
                Err(error) if error.kind == ErrorKind::Missing => return Ok(Some(somebody)),
                other => other?,
            }
        }
        Ok(found)
    }
}

/// Lists the sockets of a family that listen on the binding's port. Equivalent to: ss -ln
fn request(family: u8, binding: &PortBinding) -> Vec<u8> {
    let states: u32 = match binding.protocol {
        Protocol::Tcp | Protocol::Sctp => 1 << TCP_LISTEN,
        Protocol::Udp => 1 << TCP_CLOSE,
    };
    let mut out = Vec::with_capacity(HEADER_BYTES + REQUEST_BYTES);
    out.extend((HEADER_BYTES as u32 + REQUEST_BYTES as u32).to_ne_bytes());
    out.extend(SOCK_DIAG_BY_FAMILY.to_ne_bytes());
    out.extend((NLM_F_REQUEST | NLM_F_DUMP).to_ne_bytes());
    out.extend([0; 8]);
    out.extend([family, binding.protocol.number(), 0, 0]);
    out.extend(states.to_ne_bytes());
    out.extend(binding.host_port.to_be_bytes());
    out.resize(HEADER_BYTES + REQUEST_BYTES, 0);
    out
}

/// A socket as the kernel describes it.
#[derive(Debug)]
struct Seen {
    address: IpAddr,
    port: u16,
    /// It is of IPv6 and takes no packets of IPv4.
    v6_only: bool,
    inode: u32,
}

impl Seen {
    /// Reads a `struct inet_diag_msg` and what follows it; nothing for any other message.
    fn decode(message: &Message<'_>) -> Option<Self> {
        let (head, rest) = message.payload.split_first_chunk::<MESSAGE_BYTES>()?;
        if message.kind != SOCK_DIAG_BY_FAMILY {
            return None;
        }
        let source: [u8; 16] = head[8..24].try_into().ok()?;
        let [a, b, c, d, ..] = source;
        let address = match head[0] {
            AF_INET => Ipv4Addr::new(a, b, c, d).into(),
            AF_INET6 => IpAddr::from(source).to_canonical(),
            _ => return None,
        };
        let only = attrs(rest).find(|attr| attr.kind == INET_DIAG_SKV6ONLY);
        Some(Self {
            address,
            port: u16::from_be_bytes([head[4], head[5]]),
            v6_only: only.is_some_and(|attr| attr.value.first() == Some(&1)),
            inode: native_u32(&head[68..])?,
        })
    }

    /// Whether it gets packets that are for the binding.
    fn conflicts(&self, binding: &PortBinding) -> bool {
        let (ours, theirs) = (binding.host_ip, self.address);
        let everything = theirs == Ipv6Addr::UNSPECIFIED && !self.v6_only;
        self.port == binding.host_port
            && (everything
                || Family::of(ours) == Family::of(theirs)
                    && (ours == theirs || ours.is_unspecified() || theirs.is_unspecified()))
    }
}

/// Reads any message, and asks whether it is about whatever it is about.
pub(super) fn fuzz(message: &Message<'_>) {
    if let Some(seen) = Seen::decode(message) {
        assert!(seen.conflicts(&PortBinding {
            host_ip: seen.address,
            host_port: seen.port,
            container_port: 1,
            protocol: Protocol::Tcp,
        }));
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;
    use crate::netlink::messages;

    #[test]
    fn a_request_is_as_long_as_it_says() {
        let binding = PortBinding {
            host_ip: "127.0.0.1".parse().unwrap(),
            host_port: 0x1f90,
            container_port: 80,
            protocol: Protocol::Udp,
        };
        let bytes = request(AF_INET, &binding);
        let message = messages(&bytes).next().unwrap();
        assert_eq!(message.kind, SOCK_DIAG_BY_FAMILY);
        assert_eq!(message.payload.len(), REQUEST_BYTES);
        assert_eq!(message.payload[..4], [AF_INET, 17, 0, 0]);
        assert_eq!(message.payload[4..8], (1_u32 << 7).to_ne_bytes());
        assert_eq!(message.payload[8..10], [0x1f, 0x90]);
    }

    proptest! {
        #[test]
        fn any_bytes_are_survived(payload in prop::collection::vec(any::<u8>(), 0..120)) {
            let (kind, flags, sequence) = (SOCK_DIAG_BY_FAMILY, 0, 1);
            let message = Message { kind, flags, sequence, payload: &payload };
            let _ = Seen::decode(&message);
        }
    }
}
