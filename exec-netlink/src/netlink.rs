//! What all netlink sockets share: messages in a datagram, and datagrams that are waiting.

use std::io;

use netlink_sys::Socket;
use nix::sys::socket::MsgFlags;

/// Bytes of `struct nlmsghdr` (linux/netlink.h).
pub(crate) const HEADER_BYTES: usize = 16;

/// One message of a datagram.
#[derive(Clone, Copy, Debug)]
pub struct Message<'a> {
    /// Message type: `NLMSG_*`, or one of the protocol's own (`RTM_*`; in nfnetlink the subsystem
    /// in the high byte and `NFT_MSG_*` in the low one).
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

/// Fills `buffer` with the next datagram, if one is waiting: the kernel answers while it is sent
/// to, so what is not there yet is not coming.
pub(crate) fn receive(socket: &Socket, buffer: &mut Vec<u8>) -> io::Result<bool> {
    buffer.clear();
    let flags = (MsgFlags::MSG_DONTWAIT | MsgFlags::MSG_TRUNC).bits();
    // The buffer's room is what counts, and `Vec` grows only when it has none.
    let received = loop {
        match socket.recv(buffer, flags) {
            Err(error) if error.kind() == io::ErrorKind::Interrupted => {}
            other => break other,
        }
    };
    match received {
        Ok(len) if len > buffer.len() => Err(io::ErrorKind::InvalidData.into()),
        Ok(_) => Ok(true),
        Err(error) if error.kind() == io::ErrorKind::WouldBlock => Ok(false),
        Err(error) => Err(error),
    }
}
