//! One rule: the expressions that it stands for.
//!
//! Expressions pass values through registers of four bytes, here called words 0 to 15. A value
//! longer than a word continues in the next ones, and the fields of a concatenation follow one
//! another, each starting a new word.

use std::net::{Ipv4Addr, Ipv6Addr};

use mydocker_core::{
    EtherType, Expression, Family, Field, Icmpv6, Rule, Ruleset, TableFamily, Verdict,
};

use super::abi::*;
use super::attr::Writer;

/// A rule as the kernel takes it; every method appends an expression.
#[derive(Clone, Debug)]
pub(super) struct Code {
    /// Of what table it is.
    table: TableFamily,
    /// The list inside `NFTA_RULE_EXPRESSIONS`.
    pub(super) expressions: Writer,
}

/// What a rule stands for in a table of that family.
pub(super) fn encode(table: TableFamily, rule: &Rule) -> Code {
    let empty = Code {
        table,
        expressions: Writer::default(),
    };
    let code = rule.when.iter().fold(empty, condition);
    match &rule.then {
        Verdict::Accept => code.verdict(NF_ACCEPT, None),
        Verdict::Pass => code.mark(Ruleset::PASSED).verdict(NF_ACCEPT, None),
        Verdict::Drop => code.verdict(NF_DROP, None),
        Verdict::Return => code.verdict(NFT_RETURN, None),
        Verdict::Jump(chain) => code.verdict(NFT_JUMP, Some(chain)),
        Verdict::Masquerade => code.expression("masq", |_| ()),
        Verdict::DnatByMap(family, fields, map) => {
            let mapped = code.load(fields).find(map, 0, Some(0));
            match family {
                Family::V4 => mapped.dnat(NFPROTO_IPV4, 1),
                Family::V6 => mapped.dnat(NFPROTO_IPV6, 4),
            }
        }
        Verdict::SetDestination6ByMap(fields, map) => {
            code.load(fields).find(map, 0, Some(0)).set_destination6()
        }
        Verdict::SetDestination6ToLoopback => code
            .constant(&Ipv6Addr::LOCALHOST.octets())
            .set_destination6(),
    }
}

fn condition(code: Code, condition: &Expression) -> Code {
    match condition {
        Expression::In(fields, set) => code.load(fields).find(set, 0, None),
        Expression::NotIn(fields, set) => code.load(fields).find(set, NFT_LOOKUP_F_INV, None),
        Expression::Is(field, number) => code
            .load(&[*field])
            .compare(NFT_CMP_EQ, &number.to_ne_bytes()),
        Expression::IsNot(field, number) => code
            .load(&[*field])
            .compare(NFT_CMP_NEQ, &number.to_ne_bytes()),
        Expression::Loopback4(field) => code.in_family(Family::V4).loopback4(*field),
        Expression::Loopback6(field) => code
            .load(&[*field])
            .compare(NFT_CMP_EQ, &Ipv6Addr::LOCALHOST.octets()),
        Expression::ToThisHost => code.daddr_local(),
        Expression::Established => code.ct(NFT_CT_STATE, CT_STATE_ESTABLISHED | CT_STATE_RELATED),
        Expression::Dnatted => code.ct(NFT_CT_STATUS, IPS_DST_NAT),
        Expression::Passed => code.mark_is(NFT_CMP_EQ, Ruleset::PASSED),
        Expression::Unpassed => code.mark_is(NFT_CMP_NEQ, Ruleset::PASSED),
        Expression::Reply => code
            .expression("ct", |e| {
                e.number(NFTA_CT_KEY, NFT_CT_DIRECTION)
                    .number(NFTA_CT_DREG, register(0));
            })
            .compare(NFT_CMP_EQ, &[IP_CT_DIR_REPLY]),
        Expression::BegunByLoopback6 => code
            .expression("ct", |e| {
                e.number(NFTA_CT_KEY, NFT_CT_SRC_IP6)
                    .number(NFTA_CT_DREG, register(0))
                    .bytes(NFTA_CT_DIRECTION, &[IP_CT_DIR_ORIGINAL]);
            })
            .compare(NFT_CMP_EQ, &Ipv6Addr::LOCALHOST.octets()),
        Expression::Carries(carried) => {
            let number = match carried {
                EtherType::Ipv4 => ETH_P_IP,
                EtherType::Arp => ETH_P_ARP,
                EtherType::Ipv6 => ETH_P_IPV6,
            };
            code.payload(NFT_PAYLOAD_LL_HEADER, 12, 2, 0)
                .compare(NFT_CMP_EQ, &number.to_be_bytes())
        }
        Expression::Icmpv6Type(message) => {
            let number = match message {
                Icmpv6::RouterAdvertisement => ND_ROUTER_ADVERTISEMENT,
                Icmpv6::NeighbourAdvertisement => ND_NEIGHBOUR_ADVERTISEMENT,
                Icmpv6::Redirect => ND_REDIRECT,
                Icmpv6::PacketTooBig => PACKET_TOO_BIG,
            };
            code.if_of(Family::V6)
                .icmpv6()
                .payload(NFT_PAYLOAD_TRANSPORT_HEADER, 0, 1, 0)
                .compare(NFT_CMP_EQ, &[number])
        }
        Expression::IsIcmpv6 => code.icmpv6(),
        Expression::Unspecified4(field) => code
            .load(&[*field])
            .compare(NFT_CMP_EQ, &Ipv4Addr::UNSPECIFIED.octets()),
        Expression::Unspecified6(field) => code
            .load(&[*field])
            .compare(NFT_CMP_EQ, &Ipv6Addr::UNSPECIFIED.octets()),
    }
}

/// The words that a field takes, and the family that has it.
fn shape(field: Field) -> (u32, Option<Family>) {
    match field {
        Field::Iifname | Field::Oifname => (4, None),
        Field::Source(Family::V4) | Field::Destination(Family::V4) => (1, Some(Family::V4)),
        Field::Source(Family::V6) | Field::Destination(Family::V6) => (4, Some(Family::V6)),
        Field::Iifgroup
        | Field::Oifgroup
        | Field::L4Proto
        | Field::DestinationPort
        | Field::ArpSource => (1, None),
        Field::SourceMac | Field::ArpSourceMac => (2, None),
        Field::Advertised => (4, None),
    }
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

impl Code {
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

    /// Looks the key that starts in word 0 up, and loads what a map has for it; goes on if it is
    /// there.
    fn find(self, set: &str, flags: u32, result: Option<u32>) -> Self {
        self.expression("lookup", |e| {
            e.string(NFTA_LOOKUP_SET, set)
                .number(NFTA_LOOKUP_SREG, register(0));
            if let Some(word) = result {
                e.number(NFTA_LOOKUP_DREG, register(word));
            }
            e.number(NFTA_LOOKUP_FLAGS, flags);
        })
    }

    /// Go on with ICMPv6 messages.
    fn icmpv6(self) -> Self {
        self.meta(NFT_META_L4PROTO, 0)
            .compare(NFT_CMP_EQ, &[IPPROTO_ICMPV6])
    }

    /// Go on with packets of one family.
    fn in_family(self, family: Family) -> Self {
        let number = match family {
            Family::V4 => NFPROTO_IPV4,
            Family::V6 => NFPROTO_IPV6,
        };
        self.meta(NFT_META_NFPROTO, 0)
            .compare(NFT_CMP_EQ, &[number])
    }

    /// Go on with packets of one family. Rules about frames say themselves which those are.
    fn if_of(self, family: Family) -> Self {
        match self.table {
            TableFamily::Inet => self.in_family(family),
            TableFamily::Ip | TableFamily::Ip6 | TableFamily::Bridge => self,
        }
    }

    /// Loads the fields one after another from word 0 on, of packets that have them.
    fn load(self, fields: &[Field]) -> Self {
        let mut code = match fields.iter().find_map(|field| shape(*field).1) {
            Some(family) => self.if_of(family),
            None => self,
        };
        let mut word = 0;
        for field in fields {
            code = code.field(*field, word);
            word += shape(*field).0;
        }
        code
    }

    /// Offsets are those of the IP headers (RFC 791, RFC 8200), of TCP, UDP, SCTP and DCCP, which
    /// all have the destination port in the same place, of Ethernet, ARP (RFC 826) and neighbour
    /// advertisements (RFC 4861, 4.4).
    fn field(self, field: Field, word: u32) -> Self {
        let network = NFT_PAYLOAD_NETWORK_HEADER;
        match field {
            Field::Iifname => self.meta(NFT_META_IIFNAME, word),
            Field::Oifname => self.meta(NFT_META_OIFNAME, word),
            Field::Iifgroup => self.meta(NFT_META_IIFGROUP, word),
            Field::Oifgroup => self.meta(NFT_META_OIFGROUP, word),
            Field::L4Proto => self.meta(NFT_META_L4PROTO, word),
            Field::DestinationPort => self.payload(NFT_PAYLOAD_TRANSPORT_HEADER, 2, 2, word),
            Field::SourceMac => self.payload(NFT_PAYLOAD_LL_HEADER, 6, 6, word),
            Field::ArpSourceMac => self.payload(network, 8, 6, word),
            Field::ArpSource => self.payload(network, 14, 4, word),
            Field::Advertised => self.payload(NFT_PAYLOAD_TRANSPORT_HEADER, 8, 16, word),
            Field::Source(Family::V4) => self.payload(network, 12, 4, word),
            Field::Destination(Family::V4) => self.payload(network, 16, 4, word),
            Field::Source(Family::V6) => self.payload(network, 8, 16, word),
            Field::Destination(Family::V6) => self.payload(network, 24, 16, word),
        }
    }

    /// Go on if an IPv4 address is of 127.0.0.0/8: its first byte tells.
    fn loopback4(self, field: Field) -> Self {
        let offset = if matches!(field, Field::Source(_)) {
            12
        } else {
            16
        };
        self.payload(NFT_PAYLOAD_NETWORK_HEADER, offset, 1, 0)
            .compare(NFT_CMP_EQ, &[127])
    }

    /// Go on if the destination is an address of this host.
    fn daddr_local(self) -> Self {
        self.expression("fib", |e| {
            e.number(NFTA_FIB_DREG, register(0))
                .number(NFTA_FIB_RESULT, NFT_FIB_RESULT_ADDRTYPE);
            e.number(NFTA_FIB_FLAGS, NFTA_FIB_F_DADDR);
        })
        .compare(NFT_CMP_EQ, &RTN_LOCAL.to_ne_bytes())
    }

    /// Go on if the connection has one of these bits.
    fn ct(self, key: u32, bits: u32) -> Self {
        self.expression("ct", |e| {
            e.number(NFTA_CT_KEY, key).number(NFTA_CT_DREG, register(0));
        })
        .bitwise(bits, 0)
        .compare(NFT_CMP_NEQ, &[0; 4])
    }

    /// The number in word 0, in the machine's byte order, becomes `number & mask ^ xor`.
    fn bitwise(self, mask: u32, xor: u32) -> Self {
        self.expression("bitwise", |e| {
            e.number(NFTA_BITWISE_SREG, register(0))
                .number(NFTA_BITWISE_DREG, register(0));
            e.number(NFTA_BITWISE_LEN, 4);
            e.nest(NFTA_BITWISE_MASK, |data| {
                data.bytes(NFTA_DATA_VALUE, &mask.to_ne_bytes());
            });
            e.nest(NFTA_BITWISE_XOR, |data| {
                data.bytes(NFTA_DATA_VALUE, &xor.to_ne_bytes());
            });
        })
    }

    /// Go on if the packet's mark has all of these bits, or, if `op` says so, lacks one.
    fn mark_is(self, op: u32, bits: u32) -> Self {
        self.meta(NFT_META_MARK, 0)
            .bitwise(bits, 0)
            .compare(op, &bits.to_ne_bytes())
    }

    /// The packet's mark gets these bits.
    fn mark(self, bits: u32) -> Self {
        self.meta(NFT_META_MARK, 0)
            .bitwise(!bits, bits)
            .expression("meta", |e| {
                e.number(NFTA_META_KEY, NFT_META_MARK)
                    .number(NFTA_META_SREG, register(0));
            })
    }

    /// Loads a value into the words from 0 on.
    fn constant(self, value: &[u8]) -> Self {
        self.expression("immediate", |e| {
            e.number(NFTA_IMMEDIATE_DREG, register(0));
            e.nest(NFTA_IMMEDIATE_DATA, |data| {
                data.bytes(NFTA_DATA_VALUE, value);
            });
        })
    }

    /// The IPv6 destination becomes the address in word 0, and transport checksums follow. The
    /// header of IPv6 has none of its own.
    fn set_destination6(self) -> Self {
        self.expression("payload", |e| {
            e.number(NFTA_PAYLOAD_SREG, register(0))
                .number(NFTA_PAYLOAD_BASE, NFT_PAYLOAD_NETWORK_HEADER)
                .number(NFTA_PAYLOAD_OFFSET, 24)
                .number(NFTA_PAYLOAD_LEN, 16)
                .number(NFTA_PAYLOAD_CSUM_TYPE, NFT_PAYLOAD_CSUM_NONE)
                .number(NFTA_PAYLOAD_CSUM_OFFSET, 0)
                .number(NFTA_PAYLOAD_CSUM_FLAGS, NFT_PAYLOAD_L4CSUM_PSEUDOHDR);
        })
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

    /// The connection's destination becomes the address in word 0 and the port in `port_word`.
    fn dnat(self, family: u8, port_word: u32) -> Self {
        self.expression("nat", |e| {
            e.number(NFTA_NAT_TYPE, NFT_NAT_DNAT)
                .number(NFTA_NAT_FAMILY, u32::from(family));
            e.number(NFTA_NAT_REG_ADDR_MIN, register(0));
            e.number(NFTA_NAT_REG_PROTO_MIN, register(port_word));
        })
    }
}
