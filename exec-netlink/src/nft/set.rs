//! The sets and maps of our table: core says which there are and what of.

use mydocker_core::{SetType, TableFamily};

use super::abi::*;
use super::attr::Writer;

/// A set or map of our table. Both are one thing to the kernel.
#[derive(Clone, Copy, Debug, Eq, Hash, Ord, PartialEq, PartialOrd)]
pub enum Set {
    /// Every bridge of ours.
    Bridges,
    /// A bridge twice: traffic of one network with itself that passes the IP layer.
    Own,
    /// Bridges of networks with no way in or out.
    Internal,
    /// Bridges of networks that see each other.
    Open,
    /// IPv4 subnet and bridge of networks whose way out is masqueraded.
    Masquerade4,
    /// IPv6 subnet and bridge of networks whose way out is masqueraded.
    Masquerade6,
    /// Ports published on every IPv4 address of the host.
    Publish4,
    /// Ports published on one IPv4 address of the host.
    Publish4At,
    /// Ports published on every IPv6 address of the host.
    Publish6,
    /// Ports published on one IPv6 address of the host.
    Publish6At,
    /// Guarded ports of bridges.
    Ports,
    /// Guarded port and the MAC address that it may send from.
    Macs,
    /// Guarded port, MAC and IPv4 address that it may send from and claim.
    Addresses4,
    /// Guarded port, MAC and IPv6 address that it may send from.
    Addresses6,
    /// Guarded port and IPv6 address that it may claim.
    Targets6,
}

/// nft's number for a type, and the bytes of its values.
///
/// The numbers are `enum datatypes` in nft's include/datatype.h. The kernel keeps them for nft,
/// which prints by them, and does not look at them itself.
fn shape(field: SetType) -> (u32, usize) {
    match field {
        SetType::Ipv4Addr => (7, 4),
        SetType::Ipv6Addr => (8, 16),
        SetType::InetProto => (12, 1),
        SetType::InetService => (13, 2),
        SetType::Ifname => (41, 16),
        SetType::EtherAddr => (9, 6),
        SetType::Advertised => (4, 16),
    }
}

impl Set {
    /// All of them, in the order in which they are created.
    pub const ALL: [Self; 15] = [
        Self::Bridges,
        Self::Own,
        Self::Internal,
        Self::Open,
        Self::Masquerade4,
        Self::Masquerade6,
        Self::Publish4,
        Self::Publish4At,
        Self::Publish6,
        Self::Publish6At,
        Self::Ports,
        Self::Macs,
        Self::Addresses4,
        Self::Addresses6,
        Self::Targets6,
    ];

    /// The name in the table.
    #[must_use]
    pub fn name(self) -> &'static str {
        match self {
            Self::Bridges => "bridges",
            Self::Own => "own",
            Self::Internal => "internal",
            Self::Open => "open",
            Self::Masquerade4 => "masquerade4",
            Self::Masquerade6 => "masquerade6",
            Self::Publish4 => "publish4",
            Self::Publish4At => "publish4_at",
            Self::Publish6 => "publish6",
            Self::Publish6At => "publish6_at",
            Self::Ports => "ports",
            Self::Macs => "macs",
            Self::Addresses4 => "addresses4",
            Self::Addresses6 => "addresses6",
            Self::Targets6 => "targets6",
        }
    }

    /// The family of the table that it is in.
    #[must_use]
    pub fn family(self) -> TableFamily {
        match self {
            Self::Bridges
            | Self::Own
            | Self::Internal
            | Self::Open
            | Self::Masquerade4
            | Self::Masquerade6
            | Self::Publish4
            | Self::Publish4At
            | Self::Publish6
            | Self::Publish6At => TableFamily::Inet,
            Self::Ports | Self::Macs | Self::Addresses4 | Self::Addresses6 | Self::Targets6 => {
                TableFamily::Bridge
            }
        }
    }
}

/// The attributes of `NFT_MSG_NEWSET` for the set that is number `id` of its table.
pub(super) fn encode(table: &str, id: u32, set: &mydocker_core::Set, out: &mut Writer) {
    let (key, data) = (set.key, set.data);
    let mut flags = 0;
    if !data.is_empty() {
        flags |= NFT_SET_MAP;
    }
    // For a hash, a key is so many bytes: nft says nothing of its fields, nor do we.
    if set.interval {
        flags |= NFT_SET_INTERVAL | NFT_SET_CONCAT;
    }
    out.string(NFTA_SET_TABLE, table)
        .string(NFTA_SET_NAME, set.name);
    out.number(NFTA_SET_FLAGS, flags);
    out.number(NFTA_SET_KEY_TYPE, type_id(key))
        .number(NFTA_SET_KEY_LEN, register_bytes(key));
    if !data.is_empty() {
        out.number(NFTA_SET_DATA_TYPE, type_id(data));
        out.number(NFTA_SET_DATA_LEN, register_bytes(data));
    }
    // Intervals are matched field by field.
    if set.interval {
        out.nest(NFTA_SET_DESC, |desc| {
            desc.nest(NFTA_SET_DESC_CONCAT, |concat| {
                for field in key {
                    concat.nest(NFTA_LIST_ELEM, |f| {
                        f.number(NFTA_SET_FIELD_LEN, bytes_u32(shape(*field).1));
                    });
                }
            });
        });
    }
    // The kernel insists on one; our rules name their sets instead.
    out.number(NFTA_SET_ID, id);
    // Without it, nft takes a name for a big-endian number and prints "".
    if key.len() == 1 {
        let mut userdata = vec![NFTNL_UDATA_SET_KEYBYTEORDER, 4];
        userdata.extend_from_slice(&BYTEORDER_HOST_ENDIAN.to_ne_bytes());
        out.bytes(NFTA_SET_USERDATA, &userdata);
    }
    if key == [SetType::Ifname, SetType::Advertised] {
        out.bytes(NFTA_SET_USERDATA, &typeof_target());
    }
}

/// `typeof iifname . @th,64,128`: how nft prints a key that it has no type for. Entries of type,
/// length and value, one inside another.
fn typeof_target() -> Vec<u8> {
    let number = |kind: u8, value: u32| [&[kind, 4][..], &value.to_ne_bytes()].concat();
    let nest = |kind: u8, parts: &[Vec<u8>]| {
        let inside = parts.concat();
        let len = u8::try_from(inside.len()).unwrap_or(u8::MAX);
        [&[kind, len][..], &inside].concat()
    };
    let expression = |kind: u32, parts: &[Vec<u8>]| {
        let parts = nest(NFTNL_UDATA_SET_TYPEOF_DATA, parts);
        [number(NFTNL_UDATA_SET_TYPEOF_EXPR, kind), parts]
    };
    let iifname = expression(EXPR_META, &[number(META_KEY, NFT_META_IIFNAME)]);
    let target = [
        number(PAYLOAD_DESC, 0),
        number(PAYLOAD_TYPE, 0),
        number(PAYLOAD_BASE, PROTO_BASE_TRANSPORT_HDR),
        number(PAYLOAD_OFFSET, 64),
        number(PAYLOAD_LEN, 128),
    ];
    let target = expression(EXPR_PAYLOAD, &target);
    let both = expression(EXPR_CONCAT, &[nest(0, &iifname), nest(1, &target)]);
    [
        number(NFTNL_UDATA_SET_KEYBYTEORDER, BYTEORDER_INVALID),
        nest(NFTNL_UDATA_SET_KEY_TYPEOF, &both),
    ]
    .concat()
}

/// nft's type of a concatenation: six bits per field.
fn type_id(fields: &[SetType]) -> u32 {
    fields.iter().fold(0, |id, field| id << 6 | shape(*field).0)
}

/// Bytes of the registers that hold the fields, each of which starts a new one.
fn register_bytes(fields: &[SetType]) -> u32 {
    fields
        .iter()
        .map(|field| bytes_u32(shape(*field).1.next_multiple_of(4)))
        .sum()
}

fn bytes_u32(bytes: usize) -> u32 {
    u32::try_from(bytes).unwrap_or(u32::MAX)
}

#[cfg(test)]
mod tests {
    use mydocker_core::{Instance, Ruleset};

    use super::*;

    #[test]
    fn they_are_those_of_the_ruleset() {
        let tables = Ruleset::of(Instance::DEFAULT).tables;
        let named = tables.iter().flat_map(|table| {
            let sets = table.sets.iter();
            sets.map(|set| (table.family, set.name))
        });
        let known = Set::ALL.map(|set| (set.family(), set.name()));
        assert_eq!(named.collect::<Vec<_>>(), known);
    }
}
