//! Netlink messages as nfnetlink frames them: `struct nlmsghdr` (linux/netlink.h), then
//! `struct nfgenmsg` (linux/netfilter/nfnetlink.h), then attributes.

use super::abi::{NFNL_SUBSYS_NFTABLES, NFPROTO_INET, NLM_F_REQUEST};
use super::attr::Writer;

/// Bytes of `struct nlmsghdr`.
pub(super) const HEADER_BYTES: usize = 16;
/// Bytes of `struct nfgenmsg`.
pub(super) const FAMILY_BYTES: usize = 4;

/// One message of a datagram.
#[derive(Clone, Copy, Debug)]
pub struct Message<'a> {
    /// Message type: `NLMSG_*`, or the subsystem in the high byte and `NFT_MSG_*` in the low one.
    pub kind: u16,
    /// `NLM_F_*`.
    pub flags: u16,
    /// The sequence number of the request that this answers.
    pub sequence: u32,
    /// What follows the netlink header.
    pub payload: &'a [u8],
}

/// The messages of one datagram. Ends at the first one that does not fit.
pub fn messages(datagram: &[u8]) -> impl Iterator<Item = Message<'_>> {
    let mut rest = datagram;
    std::iter::from_fn(move || {
        let (head, _) = rest.split_first_chunk::<HEADER_BYTES>()?;
        let [l0, l1, l2, l3, k0, k1, f0, f1, s0, s1, s2, s3, ..] = *head;
        let len = usize::try_from(u32::from_ne_bytes([l0, l1, l2, l3])).ok()?;
        let payload = rest.get(HEADER_BYTES..len)?;
        rest = rest.get(len.next_multiple_of(4)..).unwrap_or_default();
        Some(Message {
            kind: u16::from_ne_bytes([k0, k1]),
            flags: u16::from_ne_bytes([f0, f1]),
            sequence: u32::from_ne_bytes([s0, s1, s2, s3]),
            payload,
        })
    })
}

impl<'a> Message<'a> {
    /// The attributes of an nf_tables message of type `kind` (`NFT_MSG_*`) in the family `inet`;
    /// nothing for any other message.
    pub(super) fn inet(&self, kind: u16) -> Option<&'a [u8]> {
        let (family, attrs) = self.payload.split_first_chunk::<FAMILY_BYTES>()?;
        (self.kind == nft(kind) && family[0] == NFPROTO_INET).then_some(attrs)
    }
}

/// An nf_tables message type (`NFT_MSG_*`) as it stands in a header.
pub(super) fn nft(kind: u16) -> u16 {
    NFNL_SUBSYS_NFTABLES << 8 | kind
}

/// Starts a message; [`end`] fills in its length. Sequence 0, to be replaced when it is sent.
pub(super) fn begin(out: &mut Writer, kind: u16, flags: u16, family: u8, resource: u16) -> usize {
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
pub(super) fn end(out: &mut Writer, start: usize) {
    let len = out.bytes.len() - start;
    let Ok(len) = u32::try_from(len) else {
        panic!("a netlink message of {len} bytes: its length field has 32 bits");
    };
    out.bytes[start..start + 4].copy_from_slice(&len.to_ne_bytes());
}

/// Gives the message that begins at `start` its sequence number.
pub(super) fn set_sequence(bytes: &mut [u8], start: usize, sequence: u32) {
    bytes[start + 8..start + 12].copy_from_slice(&sequence.to_ne_bytes());
}

/// Adds `flags` to the message that begins at `start`.
pub(super) fn add_flags(bytes: &mut [u8], start: usize, flags: u16) {
    let old = u16::from_ne_bytes([bytes[start + 6], bytes[start + 7]]);
    bytes[start + 6..start + 8].copy_from_slice(&(old | flags).to_ne_bytes());
}

/// A request outside a batch, in the family `inet`.
pub(super) fn request(
    kind: u16,
    flags: u16,
    sequence: u32,
    fill: impl FnOnce(&mut Writer),
) -> Vec<u8> {
    let mut out = Writer::default();
    let start = begin(&mut out, nft(kind), flags, NFPROTO_INET, 0);
    fill(&mut out);
    end(&mut out, start);
    set_sequence(&mut out.bytes, start, sequence);
    out.bytes
}
