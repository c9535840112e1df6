//! Who has a port: sock_diag, the messages as pure functions.

use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};
use std::ops::RangeInclusive;

use mydocker_core::{ErrorKind, OpError, PortBinding, Protocol, hosts_overlap};
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
const TCPDIAG_GETSOCK: u16 = 18;
const SOCK_DIAG_BY_FAMILY: u16 = 20;
const INET_DIAG_SKV6ONLY: u16 = 11;
const INET_DIAG_REQ_BYTECODE: u16 = 1;
const INET_DIAG_BC_S_GE: u8 = 2;
const INET_DIAG_BC_S_LE: u8 = 3;

/// The states of a socket that takes what comes: net/tcp_states.h. A UDP socket is `CLOSE` until
/// it is connected to somebody.
const TCP_CLOSE: u32 = 7;
const TCP_LISTEN: u32 = 10;

/// A `struct inet_diag_sockid` that leaves everything open (linux/inet_diag.h).
const ANY_SOCKET: [u8; 48] = [0; 48];
/// Bytes of `struct inet_diag_msg` (linux/inet_diag.h).
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
        let port = binding.host_port;
        let Some(all) = self.listening(binding.protocol, port..=port)? else {
            return Ok(Some(Holder { inode: None }));
        };
        let found = all.iter().find(|seen| seen.conflicts(binding));
        Ok(found.map(Seen::holder))
    }

    /// All who listen on some ports, at whatever addresses; nothing where the kernel can't say.
    pub(super) fn listening(
        &mut self,
        protocol: Protocol,
        ports: RangeInclusive<u16>,
    ) -> Result<Option<Vec<Seen>>, OpError> {
        let Some(client) = &mut self.0 else {
            return Ok(None);
        };
        let mut all = Vec::new();
        for request in requests(protocol, &ports) {
            let asked = client.ask(request, |message| all.extend(Seen::decode(message)));
            match asked {
                // No module for this protocol, or for any.
                Err(error) if matches!(error.kind, ErrorKind::Missing | ErrorKind::Unsupported) => {
                    return Ok(None);
                }
                other => other?,
            }
        }
        Ok(Some(all))
    }
}

/// Lists the sockets that listen on some ports, of both families, for a socket of IPv6 may take IPv4's packets
/// as well. The kernel goes past all that listen, and all places where one could, for each request: of TCP there
/// is an older one, which means both.
/// Equivalent to: ss -ln 'sport >= LEAST and sport <= GREATEST'
fn requests(protocol: Protocol, ports: &RangeInclusive<u16>) -> Vec<Vec<u8>> {
    let states = |state: u32| (1_u32 << state).to_ne_bytes();
    let of_family = |family, state| {
        // A `struct inet_diag_req_v2`.
        let head = [family, protocol.number(), 0, 0];
        let body = [&head[..], &states(state), &ANY_SOCKET].concat();
        request(SOCK_DIAG_BY_FAMILY, &body, ports)
    };
    match protocol {
        Protocol::Tcp => {
            // A `struct inet_diag_req`.
            let body = [&[0; 4][..], &ANY_SOCKET, &states(TCP_LISTEN), &[0; 4]].concat();
            vec![request(TCPDIAG_GETSOCK, &body, ports)]
        }
        Protocol::Udp => [AF_INET, AF_INET6]
            .map(|family| of_family(family, TCP_CLOSE))
            .into(),
        Protocol::Sctp => [AF_INET, AF_INET6]
            .map(|family| of_family(family, TCP_LISTEN))
            .into(),
    }
}

fn request(kind: u16, body: &[u8], ports: &RangeInclusive<u16>) -> Vec<u8> {
    let filter = filter(ports);
    let length = HEADER_BYTES + body.len() + filter.len();
    let mut out = Vec::with_capacity(length);
    out.extend((length as u32).to_ne_bytes());
    out.extend(kind.to_ne_bytes());
    out.extend((NLM_F_REQUEST | NLM_F_DUMP).to_ne_bytes());
    out.extend([0; 8]);
    out.extend(body);
    out.extend(filter);
    out
}

/// An attribute that has the kernel leave out other ports. Of `struct inet_diag_bc_op` there are two for a
/// comparison, each with how far it is to what comes next if it holds, and if not: past the end, to say no.
fn filter(ports: &RangeInclusive<u16>) -> Vec<u8> {
    let comparisons = [
        (INET_DIAG_BC_S_GE, *ports.start(), 20_u16),
        (INET_DIAG_BC_S_LE, *ports.end(), 12),
    ];
    let mut out = Vec::new();
    out.extend(20_u16.to_ne_bytes());
    out.extend(INET_DIAG_REQ_BYTECODE.to_ne_bytes());
    for (code, port, to_no) in comparisons {
        out.extend([code, 8]);
        out.extend(to_no.to_ne_bytes());
        out.extend([0, 0]);
        out.extend(port.to_ne_bytes());
    }
    out
}

/// A socket as the kernel describes it.
#[derive(Debug)]
pub(super) struct Seen {
    address: IpAddr,
    pub(super) port: u16,
    /// It is of IPv6 and takes no packets of IPv4.
    v6_only: bool,
    inode: u32,
}

impl Seen {
    /// Reads a `struct inet_diag_msg` and what follows it; nothing for any other message.
    fn decode(message: &Message<'_>) -> Option<Self> {
        let (head, rest) = message.payload.split_first_chunk::<MESSAGE_BYTES>()?;
        if ![SOCK_DIAG_BY_FAMILY, TCPDIAG_GETSOCK].contains(&message.kind) {
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

    /// It, as who has its port.
    pub(super) fn holder(&self) -> Holder {
        let inode = Some(self.inode);
        Holder { inode }
    }

    /// Whether it gets packets that are for the binding.
    pub(super) fn conflicts(&self, binding: &PortBinding) -> bool {
        let everything = self.address == Ipv6Addr::UNSPECIFIED && !self.v6_only;
        self.port == binding.host_port
            && (everything || hosts_overlap(self.address, binding.host_ip))
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
    fn requests_are_as_long_as_they_say() {
        let udp = |family| [family, 17, 0, 0, 1 << 7, 0, 0, 0].to_vec();
        for (protocol, heads, body_bytes) in [
            (Protocol::Tcp, vec![vec![0; 8]], 60),
            (Protocol::Udp, vec![udp(AF_INET), udp(AF_INET6)], 56),
        ] {
            let requests = requests(protocol, &(80..=90));
            assert_eq!(requests.len(), heads.len());
            for (bytes, expected) in requests.iter().zip(heads) {
                let message = messages(bytes).next().unwrap();
                assert_eq!(message.payload.len() + HEADER_BYTES, bytes.len());
                let (body, rest) = message.payload.split_at(body_bytes);
                assert_eq!(body[..8], expected);
                let filter = attrs(rest).next().unwrap();
                assert_eq!(
                    (filter.kind, filter.value.len()),
                    (INET_DIAG_REQ_BYTECODE, 16)
                );
            }
        }
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
