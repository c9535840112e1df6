//! What all netlink sockets share: messages in a datagram, and datagrams that are waiting.

use std::io;
use std::sync::Arc;

use mydocker_core::OpError;
use netlink_sys::Socket;
use nix::sys::socket::MsgFlags;

use crate::errno;
use crate::nft::attr::{attrs, native_u32};
use crate::room::Room;

/// Bytes of `struct nlmsghdr` (linux/netlink.h).
pub(crate) const HEADER_BYTES: usize = 16;

/// linux/netlink.h
pub(crate) const NLMSG_ERROR: u16 = 2;
pub(crate) const NLMSG_DONE: u16 = 3;
const NLM_F_CAPPED: u16 = 0x100;
const NLMSGERR_ATTR_MSG: u16 = 1;

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

/// What a message of that many bytes takes up in a datagram.
pub(crate) fn padded(length: u32) -> usize {
    let padded = u64::from(length).next_multiple_of(4);
    usize::try_from(padded).unwrap_or(usize::MAX)
}

/// Sends one datagram; a signal that comes meanwhile is no reason to fail.
pub(crate) fn send(socket: &Socket, datagram: &[u8]) -> io::Result<()> {
    loop {
        match socket.send(datagram, 0) {
            Err(error) if error.kind() == io::ErrorKind::Interrupted => {}
            sent => return sent.map(drop),
        }
    }
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

/// A socket for those who ask one thing at a time. It belongs for ever to the network namespace of
/// the thread that opened it.
#[derive(Debug)]
pub(crate) struct Client {
    what: &'static str,
    socket: Arc<Socket>,
    sequence: u32,
}

impl Client {
    /// Opens a socket of that protocol (`NETLINK_*`, linux/netlink.h), which errors call `what`.
    pub(crate) fn open(what: &'static str, protocol: isize) -> Result<Self, OpError> {
        let open = || {
            let socket = Socket::new(protocol)?;
            // Errors in words, and without the whole message coming back with each.
            socket.set_ext_ack(true)?;
            socket.set_cap_ack(true)?;
            Ok(socket)
        };
        let socket = open().map_err(|error| errno::of_io(what, &error))?;
        Ok(Self::over(what, Arc::new(socket)))
    }

    /// Over a socket that somebody opened so, and has no answers to wait for.
    pub(crate) fn over(what: &'static str, socket: Arc<Socket>) -> Self {
        Self {
            what,
            socket,
            sequence: 0,
        }
    }

    /// Sends one message, which asks for an acknowledgement (`NLM_F_ACK`) or a list
    /// (`NLM_F_DUMP`), and hands on what answers it.
    pub(crate) fn ask(
        &mut self,
        mut message: Vec<u8>,
        mut each: impl FnMut(&Message<'_>),
    ) -> Result<(), OpError> {
        let sequence = self.sequence.wrapping_add(1);
        self.sequence = sequence;
        set_sequence(&mut message, 0, sequence);
        let failed = |error: io::Error| errno::of_io(self.what, &error);
        send(&self.socket, &message).map_err(failed)?;
        let mut room = Room::new();
        while receive(&self.socket, &mut room).map_err(failed)? {
            for message in messages(&room).filter(|m| m.sequence == sequence) {
                match message.kind {
                    NLMSG_DONE | NLMSG_ERROR => return verdict(&message),
                    _ => each(&message),
                }
            }
        }
        Err(errno::in_doubt(format_args!("{}: no end", self.what)))
    }
}

/// Gives the message that begins at `start` its sequence number.
pub(crate) fn set_sequence(bytes: &mut [u8], start: usize, sequence: u32) {
    bytes[start + 8..start + 12].copy_from_slice(&sequence.to_ne_bytes());
}

/// What an `NLMSG_ERROR` says (`struct nlmsgerr`, linux/netlink.h), or the number in an
/// `NLMSG_DONE`: 0 is success.
pub(crate) fn verdict(message: &Message<'_>) -> Result<(), OpError> {
    let Some((code, echo)) = message.payload.split_first_chunk::<4>() else {
        return Err(errno::in_doubt("an answer that is too short"));
    };
    let code = i32::from_ne_bytes(*code).saturating_neg();
    if code == 0 {
        return Ok(());
    }
    // The refused message comes back: its header alone, or, against our wish, all of it.
    let length = native_u32(echo).map_or(0, padded);
    let skip = if message.flags & NLM_F_CAPPED == 0 {
        length
    } else {
        HEADER_BYTES
    };
    let words = attrs(echo.get(skip..).unwrap_or_default())
        .find(|attr| attr.kind == NLMSGERR_ATTR_MSG)
        .and_then(|attr| attr.string());
    Err(errno::refusal(code, words))
}

#[cfg(test)]
mod tests {
    use mydocker_core::ErrorKind;

    use super::*;

    #[test]
    fn words_are_found_behind_a_capped_echo() {
        let mut payload = (-17_i32).to_ne_bytes().to_vec();
        payload.extend([0; HEADER_BYTES]);
        payload.extend(8_u16.to_ne_bytes());
        payload.extend(NLMSGERR_ATTR_MSG.to_ne_bytes());
        payload.extend(b"why\0");
        let message = Message {
            kind: NLMSG_ERROR,
            flags: NLM_F_CAPPED,
            sequence: 1,
            payload: &payload,
        };
        let error = verdict(&message).unwrap_err();
        assert_eq!(error.kind, ErrorKind::Exists);
        assert_eq!(error.detail, "EEXIST: File exists (kernel: why)");
    }

    #[test]
    fn no_length_is_too_great() {
        let mut payload = (-17_i32).to_ne_bytes().to_vec();
        payload.extend([0xff; HEADER_BYTES]);
        let message = Message {
            kind: NLMSG_ERROR,
            flags: 0,
            sequence: 1,
            payload: &payload,
        };
        assert_eq!(verdict(&message).unwrap_err().kind, ErrorKind::Exists);
    }

    #[test]
    fn any_bytes_are_survived() {
        for len in 0..80 {
            let bytes = vec![len as u8; len];
            for message in messages(&bytes) {
                let _ = verdict(&message);
            }
        }
    }
}
