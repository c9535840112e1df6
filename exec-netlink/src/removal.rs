//! Links that go, and the kernel's word that they are gone.
//!
//! A removal of links is done, and announced, in a millisecond. The call that asks for it returns 15
//! to 20 ms later, when RCU callbacks have run (`netdev_run_todo`, net/core/dev.c). So somebody else
//! makes the call ([`Runner`](crate::Runner)), and here it is listened for. What is down sends nothing any
//! more: from then on rules may go as well, and they do while links go.

use std::collections::{BTreeMap, BTreeSet};
use std::io;
use std::os::fd::{AsFd, OwnedFd};
use std::sync::Arc;

use mydocker_core::{LinkName, OpError, OpResult};
use netlink_sys::constants::NETLINK_ROUTE;
use netlink_sys::{Socket, SocketAddr};
use nix::errno::Errno;
use nix::poll::{PollFd, PollFlags, PollTimeout, poll};
use nix::sys::socket::{setsockopt, sockopt};

use crate::errand::{Errand, Runner};
use crate::home::Home;
use crate::netlink::{messages, receive};
use crate::room::Room;
use crate::rtnl::{Datagram, Request, RouteSocket};
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
    leaving: Vec<Departure>,
}

impl Errands {
    pub(crate) fn new(runner: Box<dyn Runner>) -> Self {
        Self {
            runner,
            kept: None,
            is_kept: false,
            lines: Vec::new(),
            leaving: Vec::new(),
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

    /// Begins an errand; which of the lines tells of it.
    fn run(&mut self, datagram: Option<(&RouteSocket, &[u8])>) -> io::Result<usize> {
        let kept = self.kept.as_ref().filter(|_| !self.is_kept);
        let line = self.runner.run(Errand {
            datagram: datagram.map(|(socket, bytes)| (socket.as_fd(), bytes)),
            kept: kept.map(|socket| socket.as_fd()),
        })?;
        self.is_kept = self.kept.is_some();
        self.lines.push(line);
        Ok(self.lines.len() - 1)
    }

    /// Sends what removes links of the host, by name and index, and returns when they are down or gone.
    pub(crate) fn remove(
        &mut self,
        home: &Home,
        request: &Request,
        links: BTreeMap<LinkName, u32>,
    ) -> OpResult {
        let count = links.len();
        let open = || Ok((RouteSocket::open()?, Announcements::open(count)?));
        let opened: io::Result<_> = home.inside(open)?;
        let (mut socket, heard) = opened.map_err(of_rtnetlink)?;
        let datagram = socket.write(std::slice::from_ref(request));
        let Ok(line) = self.run(Some((&socket, &datagram.bytes))) else {
            return errno::gone_is_fine(socket.ask(request.clone()).map(drop));
        };
        let there: BTreeSet<u32> = links.values().copied().collect();
        let mut departure = Departure {
            names: links.into_keys().collect(),
            request: request.clone(),
            socket,
            datagram,
            heard,
            listens: true,
            line,
            up: there.clone(),
            there,
        };
        match departure.listen(&self.lines[line], |departure| departure.up.is_empty())? {
            Told::All => self.leaving.push(departure),
            Told::Sent => departure.conclude()?,
        }
        Ok(())
    }

    /// Waits until all links that are down are gone. Those that could not be removed, and why.
    pub(crate) fn end_removals(&mut self) -> Vec<(BTreeSet<LinkName>, OpError)> {
        let mut failed = Vec::new();
        for mut departure in std::mem::take(&mut self.leaving) {
            let line = &self.lines[departure.line];
            let ended = departure
                .listen(line, |departure| departure.there.is_empty())
                .and_then(|_| departure.conclude());
            if let Err(error) = ended {
                failed.push((departure.names, error));
            }
        }
        failed
    }
}

/// Links that somebody was sent to remove.
#[derive(Debug)]
struct Departure {
    names: BTreeSet<LinkName>,
    request: Request,
    socket: RouteSocket,
    datagram: Datagram,
    heard: Announcements,
    /// Whether nothing was missed.
    listens: bool,
    line: usize,
    /// Those that are not known to be down, and not to be gone.
    up: BTreeSet<u32>,
    there: BTreeSet<u32>,
}

/// How listening ended.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
enum Told {
    /// All that was waited for was told.
    All,
    /// Whoever was sent is through, or is no more.
    Sent,
}

impl Departure {
    fn listen(&mut self, line: &OwnedFd, is_told: impl Fn(&Self) -> bool) -> Result<Told, OpError> {
        while !is_told(self) {
            let mut fds = [
                PollFd::new(line.as_fd(), PollFlags::POLLIN),
                PollFd::new(self.heard.socket.as_fd(), PollFlags::POLLIN),
            ];
            let watched = if self.listens {
                &mut fds[..]
            } else {
                &mut fds[..1]
            };
            match poll(watched, PollTimeout::NONE) {
                Ok(_) | Err(Errno::EINTR) => {}
                Err(error) => return Err(of_rtnetlink(error.into())),
            }
            let [sent, told] = fds.map(|fd| fd.any() == Some(true));
            // What was not heard is not heard again: then it takes until the call returns.
            self.listens = self.listens && !(told && self.strike().is_err());
            if sent && !is_told(self) {
                return Ok(Told::Sent);
            }
        }
        Ok(Told::All)
    }

    /// Strikes out those that are down or gone. Fails when some that are may not have been told.
    fn strike(&mut self) -> io::Result<()> {
        let mut room = Room::new();
        while receive(&self.heard.socket, &mut room)? {
            for message in messages(&room) {
                if let Some(index) = link::down(&message) {
                    self.up.remove(&index);
                }
                if let Some(index) = link::gone(&message) {
                    self.up.remove(&index);
                    self.there.remove(&index);
                }
            }
        }
        Ok(())
    }

    /// What became of them, when nothing more is to be heard.
    fn conclude(&mut self) -> OpResult {
        if self.there.is_empty() {
            return Ok(());
        }
        let answered = self.socket.answers(&self.datagram).pop().flatten();
        // Who was to send it could not, or died before.
        let answer = answered.unwrap_or_else(|| self.socket.ask(self.request.clone()));
        errno::gone_is_fine(answer.map(drop))
    }
}

/// A socket that hears of every link of its namespace.
#[derive(Debug)]
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
}

fn of_rtnetlink(error: io::Error) -> OpError {
    errno::of_io("rtnetlink", &error)
}
