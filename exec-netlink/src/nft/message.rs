//! Netlink messages as nfnetlink frames them: `struct nlmsghdr` (linux/netlink.h), then
//! `struct nfgenmsg` (linux/netfilter/nfnetlink.h), then attributes.

use mydocker_core::TableFamily;

use super::abi::{NFNL_SUBSYS_NFTABLES, NLM_F_REQUEST};
use super::attr::Writer;
use super::ruleset::family_number;
pub(super) use crate::netlink::set_sequence;
pub use crate::netlink::{Message, messages};

/// Bytes of `struct nfgenmsg`.
pub(crate) const FAMILY_BYTES: usize = 4;

impl<'a> Message<'a> {
    /// The attributes of an nf_tables message of type `kind` (`NFT_MSG_*`) in that family; nothing
    /// for any other message.
    pub(super) fn of(&self, wanted: TableFamily, kind: u16) -> Option<&'a [u8]> {
        let (family, attrs) = self.payload.split_first_chunk::<FAMILY_BYTES>()?;
        (self.kind == nft(kind) && family[0] == family_number(wanted)).then_some(attrs)
    }
}

/// An nf_tables message type (`NFT_MSG_*`) as it stands in a header.
pub(super) fn nft(kind: u16) -> u16 {
    NFNL_SUBSYS_NFTABLES << 8 | kind
}

/// Starts a message; [`end`] fills in its length. Sequence 0, to be replaced when it is sent.
pub(crate) fn begin(out: &mut Writer, kind: u16, flags: u16, family: u8, resource: u16) -> usize {
    let start = out.bytes.len();
    out.bytes.extend_from_slice(&[0; 4]);
    out.bytes.extend_from_slice(&kind.to_ne_bytes());
    out.bytes
        .extend_from_slice(&(flags | NLM_F_REQUEST).to_ne_bytes());
    out.bytes.extend_from_slice(&[0; 8]);
    out.bytes.extend_from_slice(&[family, 0]);
    out.bytes.extend_from_slice(&resource.to_be_bytes());
    start
}

/// Ends the message that begins at `start`, or ends it again, further on.
pub(crate) fn end(out: &mut Writer, start: usize) {
    let len = out.bytes.len() - start;
    let Ok(len) = u32::try_from(len) else {
        panic!("a netlink message of {len} bytes: its length field has 32 bits");
    };
    out.bytes[start..start + 4].copy_from_slice(&len.to_ne_bytes());
}

/// Adds `flags` to the message that begins at `start`.
pub(super) fn add_flags(bytes: &mut [u8], start: usize, flags: u16) {
    let old = u16::from_ne_bytes([bytes[start + 6], bytes[start + 7]]);
    bytes[start + 6..start + 8].copy_from_slice(&(old | flags).to_ne_bytes());
}

/// A request outside a batch.
pub(super) fn request(
    family: TableFamily,
    kind: u16,
    flags: u16,
    sequence: u32,
    fill: impl FnOnce(&mut Writer),
) -> Vec<u8> {
    let mut out = Writer::default();
    let start = begin(&mut out, nft(kind), flags, family_number(family), 0);
    fill(&mut out);
    end(&mut out, start);
    set_sequence(&mut out.bytes, start, sequence);
    out.bytes
}
