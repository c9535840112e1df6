//! The sets and maps of our table.

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
}

/// One field of a key or of a value: nft's number and name for its type, and its bytes.
///
/// The numbers are `enum datatypes` in nft's include/datatype.h. The kernel keeps them for nft,
/// which prints by them, and does not look at them itself.
#[derive(Clone, Copy)]
struct Field {
    type_id: u32,
    name: &'static str,
    bytes: usize,
}

const IPV4: Field = Field {
    type_id: 7,
    name: "ipv4_addr",
    bytes: 4,
};
const IPV6: Field = Field {
    type_id: 8,
    name: "ipv6_addr",
    bytes: 16,
};
const PROTOCOL: Field = Field {
    type_id: 12,
    name: "inet_proto",
    bytes: 1,
};
const PORT: Field = Field {
    type_id: 13,
    name: "inet_service",
    bytes: 2,
};
const IFNAME: Field = Field {
    type_id: 41,
    name: "ifname",
    bytes: 16,
};

struct Shape {
    key: &'static [Field],
    data: &'static [Field],
    interval: bool,
}

impl Set {
    /// All of them, in the order in which they are created.
    pub const ALL: [Self; 10] = [
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
        }
    }

    fn shape(self) -> Shape {
        let (key, data, interval): (&[_], &[_], _) = match self {
            Self::Bridges | Self::Internal | Self::Open => (&[IFNAME], &[], false),
            Self::Own => (&[IFNAME, IFNAME], &[], false),
            Self::Masquerade4 => (&[IPV4, IFNAME], &[], true),
            Self::Masquerade6 => (&[IPV6, IFNAME], &[], true),
            Self::Publish4 => (&[PROTOCOL, PORT], &[IPV4, PORT], false),
            Self::Publish4At => (&[IPV4, PROTOCOL, PORT], &[IPV4, PORT], false),
            Self::Publish6 => (&[PROTOCOL, PORT], &[IPV6, PORT], false),
            Self::Publish6At => (&[IPV6, PROTOCOL, PORT], &[IPV6, PORT], false),
        };
        Shape {
            key,
            data,
            interval,
        }
    }

    /// The attributes of `NFT_MSG_NEWSET`.
    pub(super) fn encode(self, table: &str, out: &mut Writer) {
        let Shape {
            key,
            data,
            interval,
        } = self.shape();
        let mut flags = 0;
        if !data.is_empty() {
            flags |= NFT_SET_MAP;
        }
        // For a hash, a key is so many bytes: nft says nothing of its fields, nor do we.
        if interval {
            flags |= NFT_SET_INTERVAL | NFT_SET_CONCAT;
        }
        out.string(NFTA_SET_TABLE, table)
            .string(NFTA_SET_NAME, self.name());
        out.number(NFTA_SET_FLAGS, flags);
        out.number(NFTA_SET_KEY_TYPE, type_id(key))
            .number(NFTA_SET_KEY_LEN, register_bytes(key));
        if !data.is_empty() {
            out.number(NFTA_SET_DATA_TYPE, type_id(data));
            out.number(NFTA_SET_DATA_LEN, register_bytes(data));
        }
        // Intervals are matched field by field.
        if interval {
            out.nest(NFTA_SET_DESC, |desc| {
                desc.nest(NFTA_SET_DESC_CONCAT, |concat| {
                    for field in key {
                        concat.nest(NFTA_LIST_ELEM, |f| {
                            f.number(NFTA_SET_FIELD_LEN, bytes_u32(field.bytes));
                        });
                    }
                });
            });
        }
        // The kernel insists on one; our rules name their sets instead.
        out.number(NFTA_SET_ID, self as u32 + 1);
        // Without it, nft takes a name for a big-endian number and prints "".
        if key.len() == 1 {
            let mut userdata = vec![NFTNL_UDATA_SET_KEYBYTEORDER, 4];
            userdata.extend_from_slice(&BYTEORDER_HOST_ENDIAN.to_ne_bytes());
            out.bytes(NFTA_SET_USERDATA, &userdata);
        }
    }

    /// The set as nft writes it.
    pub(super) fn text(self) -> String {
        let Shape {
            key,
            data,
            interval,
        } = self.shape();
        let names = |fields: &[Field]| {
            fields
                .iter()
                .map(|field| field.name)
                .collect::<Vec<_>>()
                .join(" . ")
        };
        let keyword = if data.is_empty() { "set" } else { "map" };
        let mut text = format!("{keyword} {} {{ type {}", self.name(), names(key));
        if !data.is_empty() {
            text.push_str(" : ");
            text.push_str(&names(data));
        }
        text.push_str(if interval {
            "; flags interval; }"
        } else {
            "; }"
        });
        text
    }
}

/// nft's type of a concatenation: six bits per field.
fn type_id(fields: &[Field]) -> u32 {
    fields.iter().fold(0, |id, field| id << 6 | field.type_id)
}

/// Bytes of the registers that hold the fields, each of which starts a new one.
fn register_bytes(fields: &[Field]) -> u32 {
    fields
        .iter()
        .map(|field| bytes_u32(field.bytes.next_multiple_of(4)))
        .sum()
}

fn bytes_u32(bytes: usize) -> u32 {
    u32::try_from(bytes).unwrap_or(u32::MAX)
}
