//! One rule: what nft would print, and the expressions that it stands for.
//!
//! Expressions pass values through registers of four bytes, here called words 0 to 15. A value
//! longer than a word continues in the next ones, and the fields of a concatenation follow one
//! another, each starting a new word.

use std::net::Ipv6Addr;

use super::abi::*;
use super::attr::Writer;
use super::set::Set;

/// A rule under construction; every method appends an expression.
#[derive(Clone, Debug)]
pub(super) struct Rule {
    /// The rule in nft's language.
    pub(super) text: &'static str,
    /// The list inside `NFTA_RULE_EXPRESSIONS`.
    pub(super) expressions: Writer,
}

/// A register, in the number that the kernel dumps: the four old registers of 16 bytes overlap the
/// sixteen of 4 bytes, and where one starts with the other, it prefers the old number
/// (`nft_dump_register`).
fn register(word: u32) -> u32 {
    if word.is_multiple_of(4) {
        NFT_REG_1 + word / 4
    } else {
        NFT_REG32_00 + word
    }
}

impl Rule {
    pub(super) fn new(text: &'static str) -> Self {
        Self {
            text,
            expressions: Writer::default(),
        }
    }

    fn expression(mut self, name: &str, fill: impl FnOnce(&mut Writer)) -> Self {
        self.expressions.nest(NFTA_LIST_ELEM, |expression| {
            expression
                .string(NFTA_EXPR_NAME, name)
                .nest(NFTA_EXPR_DATA, fill);
        });
        self
    }

    fn meta(self, key: u32, word: u32) -> Self {
        self.expression("meta", |e| {
            e.number(NFTA_META_KEY, key)
                .number(NFTA_META_DREG, register(word));
        })
    }

    fn payload(self, base: u32, offset: u32, bytes: u32, word: u32) -> Self {
        self.expression("payload", |e| {
            e.number(NFTA_PAYLOAD_DREG, register(word))
                .number(NFTA_PAYLOAD_BASE, base);
            e.number(NFTA_PAYLOAD_OFFSET, offset)
                .number(NFTA_PAYLOAD_LEN, bytes);
        })
    }

    fn compare(self, op: u32, value: &[u8]) -> Self {
        self.expression("cmp", |e| {
            e.number(NFTA_CMP_SREG, register(0)).number(NFTA_CMP_OP, op);
            e.nest(NFTA_CMP_DATA, |data| {
                data.bytes(NFTA_DATA_VALUE, value);
            });
        })
    }

    fn find(self, set: Set, flags: u32, result: Option<u32>) -> Self {
        self.expression("lookup", |e| {
            e.string(NFTA_LOOKUP_SET, set.name())
                .number(NFTA_LOOKUP_SREG, register(0));
            if let Some(word) = result {
                e.number(NFTA_LOOKUP_DREG, register(word));
            }
            e.number(NFTA_LOOKUP_FLAGS, flags);
        })
    }

    /// The packet's protocol family, `NFPROTO_*`: go on if it is this one.
    fn family(self, family: u8) -> Self {
        self.meta(NFT_META_NFPROTO, 0)
            .compare(NFT_CMP_EQ, &[family])
    }

    /// Go on with IPv4.
    pub(super) fn ipv4(self) -> Self {
        self.family(NFPROTO_IPV4)
    }

    /// Go on with IPv6.
    pub(super) fn ipv6(self) -> Self {
        self.family(NFPROTO_IPV6)
    }

    /// Loads the name of the interface where the packet came in: 4 words.
    pub(super) fn iifname(self, word: u32) -> Self {
        self.meta(NFT_META_IIFNAME, word)
    }

    /// Loads the name of the interface where the packet goes out: 4 words.
    pub(super) fn oifname(self, word: u32) -> Self {
        self.meta(NFT_META_OIFNAME, word)
    }

    /// Loads the number of the transport protocol: 1 word.
    pub(super) fn l4proto(self, word: u32) -> Self {
        self.meta(NFT_META_L4PROTO, word)
    }

    /// Loads the destination port, where TCP, UDP, SCTP and DCCP have it: 1 word.
    pub(super) fn dport(self, word: u32) -> Self {
        self.payload(NFT_PAYLOAD_TRANSPORT_HEADER, 2, 2, word)
    }

    /// Loads the source address of an IPv4 packet: 1 word.
    pub(super) fn saddr4(self, word: u32) -> Self {
        self.payload(NFT_PAYLOAD_NETWORK_HEADER, 12, 4, word)
    }

    /// Loads the destination address of an IPv4 packet: 1 word.
    pub(super) fn daddr4(self, word: u32) -> Self {
        self.payload(NFT_PAYLOAD_NETWORK_HEADER, 16, 4, word)
    }

    /// Loads the source address of an IPv6 packet: 4 words.
    pub(super) fn saddr6(self, word: u32) -> Self {
        self.payload(NFT_PAYLOAD_NETWORK_HEADER, 8, 16, word)
    }

    /// Loads the destination address of an IPv6 packet: 4 words.
    pub(super) fn daddr6(self, word: u32) -> Self {
        self.payload(NFT_PAYLOAD_NETWORK_HEADER, 24, 16, word)
    }

    /// Go on if an IPv4 packet comes from 127.0.0.0/8: its first byte tells.
    pub(super) fn saddr4_loopback(self) -> Self {
        self.payload(NFT_PAYLOAD_NETWORK_HEADER, 12, 1, 0)
            .compare(NFT_CMP_EQ, &[127])
    }

    /// Go on if an IPv6 packet goes to ::1.
    pub(super) fn daddr6_loopback(self) -> Self {
        self.daddr6(0)
            .compare(NFT_CMP_EQ, &Ipv6Addr::LOCALHOST.octets())
    }

    /// Go on if an IPv4 packet goes to 127.0.0.0/8.
    pub(super) fn daddr4_loopback(self) -> Self {
        self.payload(NFT_PAYLOAD_NETWORK_HEADER, 16, 1, 0)
            .compare(NFT_CMP_EQ, &[127])
    }

    /// Go on if the destination is an address of this host.
    pub(super) fn daddr_local(self) -> Self {
        self.expression("fib", |e| {
            e.number(NFTA_FIB_DREG, register(0))
                .number(NFTA_FIB_RESULT, NFT_FIB_RESULT_ADDRTYPE);
            e.number(NFTA_FIB_FLAGS, NFTA_FIB_F_DADDR);
        })
        .compare(NFT_CMP_EQ, &RTN_LOCAL.to_ne_bytes())
    }

    /// Go on if the key that starts in word 0 is in the set.
    pub(super) fn in_set(self, set: Set) -> Self {
        self.find(set, 0, None)
    }

    /// Go on if the key that starts in word 0 is not in the set.
    pub(super) fn not_in_set(self, set: Set) -> Self {
        self.find(set, NFT_LOOKUP_F_INV, None)
    }

    /// Go on if the key that starts in word 0 is in the map; its value is in word 0 from now on.
    pub(super) fn mapped_by(self, map: Set) -> Self {
        self.find(map, 0, Some(0))
    }

    /// Go on if the connection has one of these bits.
    fn ct(self, key: u32, bits: u32) -> Self {
        self.expression("ct", |e| {
            e.number(NFTA_CT_KEY, key).number(NFTA_CT_DREG, register(0));
        })
        .expression("bitwise", |e| {
            e.number(NFTA_BITWISE_SREG, register(0))
                .number(NFTA_BITWISE_DREG, register(0));
            e.number(NFTA_BITWISE_LEN, 4);
            e.nest(NFTA_BITWISE_MASK, |mask| {
                mask.bytes(NFTA_DATA_VALUE, &bits.to_ne_bytes());
            });
            e.nest(NFTA_BITWISE_XOR, |xor| {
                xor.bytes(NFTA_DATA_VALUE, &[0; 4]);
            });
        })
        .compare(NFT_CMP_NEQ, &[0; 4])
    }

    /// Go on if the packet belongs to a connection that exists, or to one that such a one announced.
    pub(super) fn ct_established(self) -> Self {
        self.ct(NFT_CT_STATE, CT_STATE_ESTABLISHED | CT_STATE_RELATED)
    }

    /// Go on if the connection's destination was translated.
    pub(super) fn ct_dnat(self) -> Self {
        self.ct(NFT_CT_STATUS, IPS_DST_NAT)
    }

    fn verdict(self, code: i32, chain: Option<&str>) -> Self {
        self.expression("immediate", |e| {
            e.number(NFTA_IMMEDIATE_DREG, NFT_REG_VERDICT);
            e.nest(NFTA_IMMEDIATE_DATA, |data| {
                data.nest(NFTA_DATA_VERDICT, |verdict| {
                    verdict.bytes(NFTA_VERDICT_CODE, &code.to_be_bytes());
                    if let Some(chain) = chain {
                        verdict.string(NFTA_VERDICT_CHAIN, chain);
                    }
                });
            });
        })
    }

    /// Done with the packet in this hook's chain: let it through.
    pub(super) fn accept(self) -> Self {
        self.verdict(NF_ACCEPT, None)
    }

    /// Done with the packet altogether.
    pub(super) fn drop(self) -> Self {
        self.verdict(NF_DROP, None)
    }

    /// Done with this chain.
    pub(super) fn back(self) -> Self {
        self.verdict(NFT_RETURN, None)
    }

    /// Go through another chain, and on from here if it has no verdict.
    pub(super) fn jump(self, chain: &str) -> Self {
        self.verdict(NFT_JUMP, Some(chain))
    }

    /// The connection's source becomes the address of the interface where it goes out.
    pub(super) fn masquerade(self) -> Self {
        self.expression("masq", |_| ())
    }

    fn dnat(self, family: u8, port_word: u32) -> Self {
        self.expression("nat", |e| {
            e.number(NFTA_NAT_TYPE, NFT_NAT_DNAT)
                .number(NFTA_NAT_FAMILY, u32::from(family));
            e.number(NFTA_NAT_REG_ADDR_MIN, register(0));
            e.number(NFTA_NAT_REG_PROTO_MIN, register(port_word));
        })
    }

    /// The connection's destination becomes the IPv4 address in word 0, the port after it. Does
    /// nothing to IPv6.
    pub(super) fn dnat4(self) -> Self {
        self.dnat(NFPROTO_IPV4, 1)
    }

    /// The connection's destination becomes the IPv6 address in words 0 to 3, the port after it.
    /// Does nothing to IPv4.
    pub(super) fn dnat6(self) -> Self {
        self.dnat(NFPROTO_IPV6, 4)
    }
}
