//! The way to rtnetlink and back.
//!
//! The messages are those of rtnetlink's builders, its connection is not used: the kernel does all
//! of a request's work inside `send`, so when that returns the answers are waiting and there is
//! nothing to be asynchronous about. A plain synchronous socket spares a runtime and a connection
//! task for every namespace that is visited, and its datagrams carry as many messages as one
//! likes, where rtnetlink's carry one. Async programs have [`drive()`](crate::drive()).

use std::io;
use std::os::fd::{AsFd, BorrowedFd};

use mydocker_core::OpError;
use netlink_packet_core::{Emitable, NLM_F_ACK, NLM_F_DUMP, NLM_F_REQUEST, NetlinkHeader};
use netlink_packet_route::RouteNetlinkMessage;
use netlink_sys::Socket;
use netlink_sys::constants::NETLINK_ROUTE;

use crate::errno;
use crate::netlink::{HEADER_BYTES, NLMSG_DONE, NLMSG_ERROR, messages, receive, send, verdict};
use crate::room::Room;

/// Messages of one datagram: their answers must all fit the receive queue, whose default
/// (`net.core.rmem_default`, 212,992 bytes) takes some 200 of them.
pub(crate) const MESSAGES_MAX: usize = 64;
/// How often a dump is started again because what it lists changed under it.
const DUMP_TRIES_MAX: usize = 64;

/// linux/netlink.h
const NLM_F_DUMP_INTR: u16 = 0x10;

/// One message to the kernel.
#[derive(Clone, Debug)]
pub(crate) struct Request {
    pub(crate) message: RouteNetlinkMessage,
    /// `NLM_F_CREATE` and the like (linux/netlink.h).
    pub(crate) flags: u16,
}

impl Request {
    pub(crate) fn new(message: RouteNetlinkMessage) -> Self {
        Self { message, flags: 0 }
    }

    pub(crate) fn with(message: RouteNetlinkMessage, flags: u16) -> Self {
        Self { message, flags }
    }

    /// The request alone in a datagram, for fuzzing.
    pub(crate) fn datagram(&self) -> Vec<u8> {
        let mut out = Vec::new();
        self.write(1, self.wish(), &mut out);
        out
    }

    /// What has the kernel answer it once: who asks for an object gets that, or an error.
    fn wish(&self) -> u16 {
        match self.message {
            RouteNetlinkMessage::GetLink(_) | RouteNetlinkMessage::GetRoute(_) => 0,
            _ => NLM_F_ACK,
        }
    }

    fn write(&self, sequence: u32, flags: u16, out: &mut Vec<u8>) {
        // Not as a `NetlinkMessage`, which would have to be given a message of its own.
        let (start, length) = (out.len(), HEADER_BYTES + self.message.buffer_len());
        out.resize(start + length.next_multiple_of(4), 0);
        let (head, body) = out[start..start + length].split_at_mut(HEADER_BYTES);
        let mut header = NetlinkHeader::default();
        header.length = length as u32;
        header.message_type = self.message.message_type();
        header.flags = NLM_F_REQUEST | self.flags | flags;
        header.sequence_number = sequence;
        header.emit(head);
        self.message.emit(body);
    }
}

/// How the kernel answered a request: with the object that it was asked for, if it was asked for one.
pub(crate) type Answer = Result<Option<Vec<u8>>, OpError>;

/// Requests that are written down, and how their answers are known.
#[derive(Clone, Debug)]
pub(crate) struct Datagram {
    pub(crate) bytes: Vec<u8>,
    first: u32,
    requests: usize,
}

/// A socket of the network namespace whose thread opened it, wherever it is used.
#[derive(Debug)]
pub(crate) struct RouteSocket {
    socket: Socket,
    sequence: u32,
}

impl AsFd for RouteSocket {
    fn as_fd(&self) -> BorrowedFd<'_> {
        self.socket.as_fd()
    }
}

impl RouteSocket {
    /// Opens a socket in the calling thread's network namespace.
    pub(crate) fn open() -> io::Result<Self> {
        let socket = Socket::new(NETLINK_ROUTE)?;
        // Errors in words, without the whole message coming back with each; no attribute that
        // the kernel does not know is passed over in silence.
        socket.set_ext_ack(true)?;
        socket.set_cap_ack(true)?;
        socket.set_netlink_get_strict_chk(true)?;
        Ok(Self {
            socket,
            sequence: 1,
        })
    }

    /// Sends all requests in one datagram, or in as few as carry them. One answer per request, in
    /// order. The kernel goes on after a request that it refuses.
    pub(crate) fn exchange(&mut self, requests: &[Request]) -> Vec<Answer> {
        let chunks = requests.chunks(MESSAGES_MAX);
        chunks.flat_map(|chunk| self.exchange_one(chunk)).collect()
    }

    /// One request, one answer.
    pub(crate) fn ask(&mut self, request: Request) -> Answer {
        self.exchange(&[request])
            .pop()
            .unwrap_or_else(|| Err(errno::in_doubt("nothing was sent")))
    }

    fn exchange_one(&mut self, requests: &[Request]) -> Vec<Answer> {
        let datagram = self.write(requests);
        if let Err(error) = send(&self.socket, &datagram.bytes) {
            let refused = errno::of_io("rtnetlink", &error);
            return requests.iter().map(|_| Err(refused.clone())).collect();
        }
        let lost = || Err(errno::in_doubt("the acknowledgement was lost"));
        let answers = self.answers(&datagram).into_iter();
        answers.map(|answer| answer.unwrap_or_else(lost)).collect()
    }

    /// The requests in one datagram, for somebody to send over this socket.
    pub(crate) fn write(&mut self, requests: &[Request]) -> Datagram {
        let (first, mut bytes) = (self.sequence, Vec::new());
        for request in requests {
            request.write(self.sequence, request.wish(), &mut bytes);
            self.sequence = self.sequence.wrapping_add(1);
        }
        let requests = requests.len();
        Datagram {
            bytes,
            first,
            requests,
        }
    }

    /// The answers to a datagram that was sent: one per request, in order, of those that are there.
    pub(crate) fn answers(&mut self, datagram: &Datagram) -> Vec<Option<Answer>> {
        let (first, requests) = (datagram.first, datagram.requests);
        let mut answers: Vec<Option<Answer>> = vec![None; requests];
        let mut open = requests;
        let mut room = Room::new();
        while open > 0 {
            match receive(&self.socket, &mut room) {
                Ok(true) => {}
                Ok(false) => break,
                // The queue overflowed: whose answer was lost will show.
                Err(_) => continue,
            }
            for message in messages(&room) {
                let index = message.sequence.wrapping_sub(first) as usize;
                let Some(slot) = answers.get_mut(index) else {
                    continue;
                };
                if slot.is_none() {
                    open -= 1;
                }
                *slot = Some(match message.kind {
                    NLMSG_ERROR => verdict(&message).map(|()| None),
                    _ => Ok(Some(message.payload.to_vec())),
                });
            }
        }
        answers
    }

    /// Lists all objects of a kind, as they stand at one moment.
    pub(crate) fn dump<T>(
        &mut self,
        request: &Request,
        decode: impl Fn(&[u8]) -> Option<T>,
    ) -> Result<Vec<T>, OpError> {
        for _ in 0..DUMP_TRIES_MAX {
            if let Some(all) = self.dump_once(request, &decode)? {
                return Ok(all);
            }
        }
        Err(errno::in_doubt("what it lists keeps changing"))
    }

    fn dump_once<T>(
        &mut self,
        request: &Request,
        decode: impl Fn(&[u8]) -> Option<T>,
    ) -> Result<Option<Vec<T>>, OpError> {
        let sequence = self.sequence;
        self.sequence = sequence.wrapping_add(1);
        let mut datagram = Vec::new();
        request.write(sequence, NLM_F_DUMP, &mut datagram);
        let failed = |error: io::Error| errno::of_io("rtnetlink", &error);
        send(&self.socket, &datagram).map_err(failed)?;
        let (mut all, mut intact) = (Vec::new(), true);
        let mut room = Room::new();
        while receive(&self.socket, &mut room).map_err(failed)? {
            for message in messages(&room) {
                if message.sequence != sequence {
                    continue;
                }
                intact &= message.flags & NLM_F_DUMP_INTR == 0;
                match message.kind {
                    NLMSG_DONE => return Ok(intact.then_some(all)),
                    NLMSG_ERROR => verdict(&message)?,
                    _ => all.extend(decode(message.payload)),
                }
            }
        }
        Err(errno::in_doubt("a list without an end"))
    }
}
