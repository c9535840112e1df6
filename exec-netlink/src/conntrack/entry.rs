//! Tracked connections as ctnetlink describes them, as pure functions over bytes.

use std::net::{IpAddr, Ipv4Addr, SocketAddr};

use mydocker_core::{Family, Protocol};

use super::{Ending, Pass};
use crate::netlink::Message;
use crate::nft::attr::{Attr, Writer, attrs, find};
use crate::nft::message::{FAMILY_BYTES, begin, end};

/// linux/netlink.h
const NLM_F_ACK: u16 = 0x4;
const NLM_F_DUMP: u16 = 0x300;

/// linux/netfilter/nfnetlink.h
const NFNL_SUBSYS_CTNETLINK: u16 = 1;

/// linux/socket.h
const AF_UNSPEC: u8 = 0;
const AF_INET: u8 = 2;
const AF_INET6: u8 = 10;

/// enum cntl_msg_types and what follows: linux/netfilter/nfnetlink_conntrack.h
const IPCTNL_MSG_CT_NEW: u16 = 0;
const IPCTNL_MSG_CT_GET: u16 = 1;
const IPCTNL_MSG_CT_DELETE: u16 = 2;
const IPCTNL_MSG_CT_GET_STATS: u16 = 5;
const CTA_TUPLE_ORIG: u16 = 1;
const CTA_TUPLE_REPLY: u16 = 2;
const CTA_ID: u16 = 12;
const CTA_ZONE: u16 = 18;
const CTA_FILTER: u16 = 25;
const CTA_TUPLE_IP: u16 = 1;
const CTA_TUPLE_PROTO: u16 = 2;
const CTA_IP_V4_SRC: u16 = 1;
const CTA_IP_V4_DST: u16 = 2;
const CTA_IP_V6_SRC: u16 = 3;
const CTA_IP_V6_DST: u16 = 4;
const CTA_PROTO_NUM: u16 = 1;
const CTA_PROTO_SRC_PORT: u16 = 2;
const CTA_PROTO_DST_PORT: u16 = 3;
const CTA_STATS_GLOBAL_ENTRIES: u16 = 1;
const CTA_FILTER_ORIG_FLAGS: u16 = 1;
const CTA_FILTER_REPLY_FLAGS: u16 = 2;

/// What of a tuple counts in a filter: `CTA_FILTER_F_*`, net/netfilter/nf_internals.h.
const F_IP_SRC: u32 = 1 << 0;
const F_IP_DST: u32 = 1 << 1;
const F_PROTO_NUM: u32 = 1 << 3;
const F_PROTO_SRC_PORT: u32 = 1 << 4;
const F_PROTO_DST_PORT: u32 = 1 << 5;

/// A tracked connection: a line of `conntrack -L`. Ports are 0 where the protocol has none.
#[derive(Clone, Debug, Eq, PartialEq)]
pub(super) struct Connection {
    pub(super) protocol: u8,
    /// Who opened it.
    pub(super) source: SocketAddr,
    /// What it was opened to, before any translation.
    pub(super) destination: SocketAddr,
    /// Who answers it: the same if it is not translated.
    pub(super) answers: SocketAddr,
    /// The attributes that name it, as the kernel wrote them.
    pub(super) key: Vec<u8>,
}

impl Connection {
    /// Reads an `IPCTNL_MSG_CT_NEW`; nothing for any other message.
    pub(super) fn decode(message: &Message<'_>) -> Option<Self> {
        let body = message.payload.get(FAMILY_BYTES..)?;
        if message.kind != kind(IPCTNL_MSG_CT_NEW) {
            return None;
        }
        let original = find(body, CTA_TUPLE_ORIG)?;
        let (protocol, source, destination) = tuple(original.value)?;
        let (_, answers, _) = tuple(find(body, CTA_TUPLE_REPLY)?.value)?;
        let mut key = Writer::default();
        key.nest(CTA_TUPLE_ORIG, |out| out.bytes.extend(original.value));
        // The number tells it from most later ones of the same addresses and ports.
        for part in [CTA_ID, CTA_ZONE] {
            if let Some(Attr { value, .. }) = find(body, part) {
                key.bytes(part, value);
            }
        }
        Some(Self {
            protocol,
            source,
            destination,
            answers,
            key: key.bytes,
        })
    }

    /// Ends it. Equivalent to: conntrack -D -p PROTOCOL -s … -d … --sport … --dport …
    pub(super) fn delete(&self) -> Vec<u8> {
        let family = number(Family::of(self.source.ip()));
        request(IPCTNL_MSG_CT_DELETE, NLM_F_ACK, family, |out| {
            out.bytes.extend(&self.key);
        })
    }
}

/// Lists the connections of a pass. A kernel before 5.8 knows no filter and lists more. Equivalent
/// to: conntrack -L
pub(super) fn list(pass: Pass) -> Vec<u8> {
    let family = match pass {
        Pass::All => AF_UNSPEC,
        Pass::V6 => AF_INET6,
        Pass::From(_) | Pass::AnsweredBy(_) => AF_INET,
        Pass::Udp(family, _) => number(family),
    };
    request(IPCTNL_MSG_CT_GET, NLM_F_DUMP, family, |out| match pass {
        Pass::All | Pass::V6 => {}
        Pass::From(address) => {
            out.nest(CTA_TUPLE_ORIG, |out| write_source(out, address));
            write_filter(out, F_IP_SRC, 0);
        }
        Pass::AnsweredBy(address) => {
            out.nest(CTA_TUPLE_REPLY, |out| write_source(out, address));
            write_filter(out, 0, F_IP_SRC);
        }
        Pass::Udp(_, port) => {
            out.nest(CTA_TUPLE_ORIG, |out| {
                out.nest(CTA_TUPLE_PROTO, |out| {
                    out.bytes(CTA_PROTO_NUM, &[Protocol::Udp.number()]);
                    out.bytes(CTA_PROTO_DST_PORT, &port.to_be_bytes());
                });
            });
            write_filter(out, F_PROTO_NUM | F_PROTO_DST_PORT, 0);
        }
    })
}

/// Ends all connections of a kind, whoever they are. Equivalent to: conntrack -D, with `--orig-src`,
/// `--reply-src`, or ports
pub(super) fn end_all(ending: &Ending) -> Vec<u8> {
    request(
        IPCTNL_MSG_CT_DELETE,
        NLM_F_ACK,
        AF_INET,
        |out| match *ending {
            Ending::From(address) => {
                out.nest(CTA_TUPLE_ORIG, |out| write_source(out, address));
                write_filter(out, F_IP_SRC, 0);
            }
            Ending::AnsweredBy(address) => {
                out.nest(CTA_TUPLE_REPLY, |out| write_source(out, address));
                write_filter(out, 0, F_IP_SRC);
            }
            Ending::Led {
                protocol,
                at,
                port,
                to,
            } => {
                let mut original = F_PROTO_NUM | F_PROTO_DST_PORT;
                out.nest(CTA_TUPLE_ORIG, |out| {
                    if let Some(at) = at {
                        original |= F_IP_DST;
                        out.nest(CTA_TUPLE_IP, |out| {
                            out.bytes(CTA_IP_V4_DST, &at.octets());
                        });
                    }
                    out.nest(CTA_TUPLE_PROTO, |out| {
                        out.bytes(CTA_PROTO_NUM, &[protocol.number()]);
                        out.bytes(CTA_PROTO_DST_PORT, &port.to_be_bytes());
                    });
                });
                out.nest(CTA_TUPLE_REPLY, |out| {
                    write_source(out, *to.ip());
                    out.nest(CTA_TUPLE_PROTO, |out| {
                        out.bytes(CTA_PROTO_NUM, &[protocol.number()]);
                        out.bytes(CTA_PROTO_SRC_PORT, &to.port().to_be_bytes());
                    });
                });
                let reply = F_IP_SRC | F_PROTO_NUM | F_PROTO_SRC_PORT;
                write_filter(out, original, reply);
            }
        },
    )
}

/// Asks how many connections the namespace has. Equivalent to: conntrack -C
pub(super) fn count() -> Vec<u8> {
    request(IPCTNL_MSG_CT_GET_STATS, NLM_F_ACK, AF_UNSPEC, |_| ())
}

/// Reads the answer to [`count`]; nothing for any other message.
pub(super) fn counted(message: &Message<'_>) -> Option<u32> {
    let body = message.payload.get(FAMILY_BYTES..)?;
    if message.kind != kind(IPCTNL_MSG_CT_GET_STATS) {
        return None;
    }
    find(body, CTA_STATS_GLOBAL_ENTRIES)?.number()
}

fn kind(message: u16) -> u16 {
    NFNL_SUBSYS_CTNETLINK << 8 | message
}

fn number(family: Family) -> u8 {
    match family {
        Family::V4 => AF_INET,
        Family::V6 => AF_INET6,
    }
}

fn request(message: u16, flags: u16, family: u8, fill: impl FnOnce(&mut Writer)) -> Vec<u8> {
    let mut out = Writer::default();
    let start = begin(&mut out, kind(message), flags, family, 0);
    fill(&mut out);
    end(&mut out, start);
    out.bytes
}

fn write_source(out: &mut Writer, address: Ipv4Addr) {
    out.nest(CTA_TUPLE_IP, |out| {
        out.bytes(CTA_IP_V4_SRC, &address.octets());
    });
}

/// Flags are numbers in the byte order of the machine, unlike all others here.
fn write_filter(out: &mut Writer, original: u32, reply: u32) {
    out.nest(CTA_FILTER, |out| {
        out.bytes(CTA_FILTER_ORIG_FLAGS, &original.to_ne_bytes());
        out.bytes(CTA_FILTER_REPLY_FLAGS, &reply.to_ne_bytes());
    });
}

/// Protocol, source and destination of one direction.
fn tuple(bytes: &[u8]) -> Option<(u8, SocketAddr, SocketAddr)> {
    let (mut source, mut destination) = (None, None);
    for attr in attrs(find(bytes, CTA_TUPLE_IP)?.value) {
        match attr.kind {
            CTA_IP_V4_SRC | CTA_IP_V6_SRC => source = address(attr.value),
            CTA_IP_V4_DST | CTA_IP_V6_DST => destination = address(attr.value),
            _ => {}
        }
    }
    let protocol = find(bytes, CTA_TUPLE_PROTO)?.value;
    let port = |kind| {
        let value = find(protocol, kind).and_then(|attr| attr.value.try_into().ok());
        value.map_or(0, u16::from_be_bytes)
    };
    Some((
        *find(protocol, CTA_PROTO_NUM)?.value.first()?,
        SocketAddr::new(source?, port(CTA_PROTO_SRC_PORT)),
        SocketAddr::new(destination?, port(CTA_PROTO_DST_PORT)),
    ))
}

fn address(bytes: &[u8]) -> Option<IpAddr> {
    let v4 = || <[u8; 4]>::try_from(bytes).ok().map(IpAddr::from);
    let v6 = || <[u8; 16]>::try_from(bytes).ok().map(IpAddr::from);
    v4().or_else(v6)
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;
    use crate::netlink::messages;

    /// What the kernel says of a datagram from 192.0.2.9 to 192.0.2.1:8080, answered by
    /// 10.0.0.2:80.
    fn described() -> Vec<u8> {
        let tuple = |out: &mut Writer, source: [u8; 4], destination: [u8; 4], ports: [u16; 2]| {
            out.nest(CTA_TUPLE_IP, |out| {
                out.bytes(CTA_IP_V4_SRC, &source);
                out.bytes(CTA_IP_V4_DST, &destination);
            });
            out.nest(CTA_TUPLE_PROTO, |out| {
                out.bytes(CTA_PROTO_NUM, &[17]);
                out.bytes(CTA_PROTO_SRC_PORT, &ports[0].to_be_bytes());
                out.bytes(CTA_PROTO_DST_PORT, &ports[1].to_be_bytes());
            });
        };
        let (client, host, container) = ([192, 0, 2, 9], [192, 0, 2, 1], [10, 0, 0, 2]);
        request(IPCTNL_MSG_CT_NEW, 0, AF_INET, |out| {
            out.nest(CTA_TUPLE_ORIG, |out| tuple(out, client, host, [5000, 8080]));
            out.nest(CTA_TUPLE_REPLY, |out| {
                tuple(out, container, client, [80, 5000])
            });
            out.number(CTA_ID, 7);
        })
    }

    fn decoded(bytes: &[u8]) -> Vec<Connection> {
        messages(bytes)
            .filter_map(|message| Connection::decode(&message))
            .collect()
    }

    #[test]
    fn a_connection_is_read_and_named_again() {
        let all = decoded(&described());
        let [connection] = all.as_slice() else {
            panic!("{all:?}");
        };
        assert_eq!(connection.protocol, 17);
        assert_eq!(connection.source, "192.0.2.9:5000".parse().unwrap());
        assert_eq!(connection.destination, "192.0.2.1:8080".parse().unwrap());
        assert_eq!(connection.answers, "10.0.0.2:80".parse().unwrap());
        let deletion = connection.delete();
        let message = messages(&deletion).next().unwrap();
        assert_eq!(message.kind, 0x102);
        assert_eq!(message.payload[0], AF_INET);
        let body = &message.payload[FAMILY_BYTES..];
        let original = find(body, CTA_TUPLE_ORIG).unwrap();
        assert_eq!(tuple(original.value).unwrap().1, connection.source);
        assert_eq!(find(body, CTA_ID).unwrap().number(), Some(7));
    }

    #[test]
    fn a_pass_says_what_counts() {
        let bytes = list(Pass::AnsweredBy(Ipv4Addr::new(10, 0, 0, 2)));
        let message = messages(&bytes).next().unwrap();
        assert_eq!((message.kind, message.payload[0]), (0x101, AF_INET));
        let body = &message.payload[FAMILY_BYTES..];
        let reply = find(body, CTA_TUPLE_REPLY).unwrap();
        let ip = find(reply.value, CTA_TUPLE_IP).unwrap();
        assert_eq!(find(ip.value, CTA_IP_V4_SRC).unwrap().value, [10, 0, 0, 2]);
        let filter = find(body, CTA_FILTER).unwrap();
        let flags = find(filter.value, CTA_FILTER_REPLY_FLAGS).unwrap();
        assert_eq!(flags.value, F_IP_SRC.to_ne_bytes());
        let all = list(Pass::All);
        let message = messages(&all).next().unwrap();
        assert_eq!(message.payload.len(), FAMILY_BYTES);
    }

    proptest! {
        #[test]
        fn damaged_messages_are_survived(at in 0_usize..200, to: u8, cut in 0_usize..200) {
            let mut bytes = described();
            if let Some(byte) = bytes.get_mut(at) {
                *byte = to;
            }
            bytes.truncate(cut.max(20));
            for message in messages(&bytes) {
                let _ = (Connection::decode(&message), counted(&message));
            }
        }
    }
}
