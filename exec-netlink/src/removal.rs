//! Links that go, and the kernel's word that they are gone.
//!
//! A removal of links is done, and announced, in a millisecond. The call that asks for it returns 15
//! to 20 ms later, when RCU callbacks have run (`netdev_run_todo`, net/core/dev.c). So somebody else
//! makes the call ([`Runner`](crate::Runner)), and here it is listened for.

use std::collections::BTreeSet;
use std::io;
use std::os::fd::{AsFd, OwnedFd};
use std::sync::Arc;

use mydocker_core::{OpError, OpResult};
use netlink_sys::constants::NETLINK_ROUTE;
use netlink_sys::{Socket, SocketAddr};
use nix::errno::Errno;
use nix::poll::{PollFd, PollFlags, PollTimeout, poll};
use nix::sys::socket::{setsockopt, sockopt};

use crate::errand::{Errand, Runner};
use crate::home::Home;
use crate::netlink::{messages, receive};
use crate::room::Room;
use crate::rtnl::{Request, RouteSocket};
use crate::{errno, link};

/// Who hears of links: `1 << (RTNLGRP_LINK - 1)`, linux/rtnetlink.h.
const LINK_GROUPS: u32 = 1;

/// What the kernel keeps for a listener of one link that leaves a bridge and goes, bytes: some five
/// messages, of 2 KiB each and as much again for its own accounts.
const TOLD_BYTES_MAX: usize = 24 * 1024;
/// Links that there is room for anyway (`net.core.rmem_default`, 212,992 bytes).
const ROOMY_MAX: usize = 8;

/// Errands that were begun, and end with this.
#[derive(Debug)]
pub(crate) struct Errands {
    runner: Box<dyn Runner>,
    /// A socket that is not to be closed here, last.
    kept: Option<Arc<Socket>>,
    is_kept: bool,
    lines: Vec<OwnedFd>,
}

impl Errands {
    pub(crate) fn new(runner: Box<dyn Runner>) -> Self {
        Self {
            runner,
            kept: None,
            is_kept: false,
            lines: Vec::new(),
        }
    }

    /// Has the next errand keep a socket.
    pub(crate) fn keep_with_next(&mut self, socket: Arc<Socket>) {
        if self.kept.is_none() {
            self.kept = Some(socket);
        }
    }

    /// Has somebody keep the socket, if there is one that nobody keeps.
    pub(crate) fn keep(&mut self) {
        if self.kept.is_some() && !self.is_kept {
            // Who can't be spared the wait waits.
            let _ = self.run(None);
        }
        self.kept = None;
    }

    fn run(&mut self, datagram: Option<(&RouteSocket, &[u8])>) -> io::Result<&OwnedFd> {
        let kept = self.kept.as_ref().filter(|_| !self.is_kept);
        let line = self.runner.run(Errand {
            datagram: datagram.map(|(socket, bytes)| (socket.as_fd(), bytes)),
            kept: kept.map(|socket| socket.as_fd()),
        })?;
        self.is_kept = self.kept.is_some();
        self.lines.push(line);
        Ok(&self.lines[self.lines.len() - 1])
    }
}

/// Sends what removes `links` of the host, by index, and returns when they are gone.
pub(crate) fn remove(
    home: &Home,
    errands: &mut Errands,
    request: &Request,
    mut links: BTreeSet<u32>,
) -> OpResult {
    let count = links.len();
    let open = || Ok((RouteSocket::open()?, Announcements::open(count)?));
    let opened: io::Result<_> = home.inside(open)?;
    let (mut socket, heard) = opened.map_err(of_rtnetlink)?;
    let datagram = socket.write(std::slice::from_ref(request));
    let mut listens = true;
    if let Ok(line) = errands.run(Some((&socket, &datagram.bytes))) {
        while !links.is_empty() {
            let mut fds = [
                PollFd::new(line.as_fd(), PollFlags::POLLIN),
                PollFd::new(heard.socket.as_fd(), PollFlags::POLLIN),
            ];
            let watched = if listens { &mut fds[..] } else { &mut fds[..1] };
            match poll(watched, PollTimeout::NONE) {
                Ok(_) | Err(Errno::EINTR) => {}
                Err(error) => return Err(of_rtnetlink(error.into())),
            }
            let [sent, told] = fds.map(|fd| fd.any() == Some(true));
            // What was not heard is not heard again: then it takes until the call returns.
            listens = listens && !(told && heard.strike(&mut links).is_err());
            if sent {
                break;
            }
        }
        if links.is_empty() {
            return Ok(());
        }
    }
    let answered = socket.answers(&datagram).pop().flatten();
    // Who was to send it could not, or died before.
    let answer = answered.unwrap_or_else(|| socket.ask(request.clone()));
    errno::gone_is_fine(answer.map(drop))
}

/// A socket that hears of every link of its namespace that goes.
struct Announcements {
    socket: Socket,
}

impl Announcements {
    /// With room for what is told of so many links that go at once.
    fn open(links: usize) -> io::Result<Self> {
        let mut socket = Socket::new(NETLINK_ROUTE)?;
        if links > ROOMY_MAX {
            // Who may not have more hears of some of them, and waits for the rest.
            let _ = setsockopt(&socket, sockopt::RcvBufForce, &(links * TOLD_BYTES_MAX));
        }
        socket.bind(&SocketAddr::new(0, LINK_GROUPS))?;
        Ok(Self { socket })
    }

    /// Strikes out those that are gone. Fails when some that are may not have been told.
    fn strike(&self, links: &mut BTreeSet<u32>) -> io::Result<()> {
        let mut room = Room::new();
        while receive(&self.socket, &mut room)? {
            for gone in messages(&room).filter_map(|message| link::gone(&message)) {
                links.remove(&gone);
            }
        }
        Ok(())
    }
}

fn of_rtnetlink(error: io::Error) -> OpError {
    errno::of_io("rtnetlink", &error)
}
