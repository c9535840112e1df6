//! The sets and maps of our table: core says which there are and what of.

use mydocker_core::{Set, SetType};

use super::abi::*;
use super::attr::Writer;

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

/// The attributes of `NFT_MSG_NEWSET` for the set that is number `id` of its table.
pub(super) fn encode(table: &str, id: u32, set: &Set, out: &mut Writer) {
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
}

/// What nft wants to know to print the set, and the kernel keeps without looking
/// (`NFTA_SET_USERDATA`): every version of nft says more or less of it.
pub(super) fn encode_userdata(set: &Set, out: &mut Writer) {
    let byte_order = |kind: u8, order: u32| [&[kind, 4][..], &order.to_ne_bytes()].concat();
    let (key, data) = (NFTNL_UDATA_SET_KEYBYTEORDER, NFTNL_UDATA_SET_DATABYTEORDER);
    match (set.key, set.data) {
        ([SetType::Ifname, SetType::Advertised], _) => {
            out.bytes(NFTA_SET_USERDATA, &typeof_target());
        }
        // Without it, nft takes a name for a big-endian number and prints "".
        ([_], []) => {
            let userdata = byte_order(key, BYTEORDER_HOST_ENDIAN);
            out.bytes(NFTA_SET_USERDATA, &userdata);
        }
        ([_], [_, ..]) => {
            let key = byte_order(key, BYTEORDER_HOST_ENDIAN);
            let data = byte_order(data, BYTEORDER_BIG_ENDIAN);
            out.bytes(NFTA_SET_USERDATA, &[key, data].concat());
        }
        _ => {}
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
