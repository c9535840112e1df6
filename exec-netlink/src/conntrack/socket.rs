//! The way to ctnetlink and back.

use mydocker_core::{ErrorKind, OpError};
use netlink_sys::constants::NETLINK_NETFILTER;
use nix::errno::Errno;

use super::Pass;
use super::entry::{self, Connection};
use crate::errno;
use crate::netlink::Client;

/// A netfilter socket for tracked connections.
#[derive(Debug)]
pub(super) struct ConntrackSocket(Client);

impl ConntrackSocket {
    /// Opens a socket in the calling thread's network namespace.
    pub(super) fn open() -> Result<Self, OpError> {
        Client::open("ctnetlink", NETLINK_NETFILTER).map(Self)
    }

    /// How many connections the namespace has that can be listed: none in a kernel without
    /// ctnetlink. Loads the kernel's module if need be.
    pub(super) fn count(&mut self) -> Result<u32, OpError> {
        let mut count = 0;
        let asked = self.0.ask(entry::count(), |message| {
            count = entry::counted(message).unwrap_or(count);
        });
        match asked {
            // A question without arguments is invalid where there is nobody to ask
            // (`nfnetlink_rcv_msg`, net/netfilter/nfnetlink.c).
            Err(error) if error.kind == ErrorKind::Os(Errno::EINVAL as i32) => Ok(0),
            other => other.map(|()| count),
        }
    }

    /// The connections of a pass, and maybe others. Those that come or go meanwhile may be missing.
    pub(super) fn list(&mut self, pass: Pass) -> Result<Vec<Connection>, OpError> {
        let mut all = Vec::new();
        let asked = self.0.ask(entry::list(pass), |message| {
            all.extend(Connection::decode(message));
        });
        asked.map(|()| all)
    }

    /// Ends a connection, which may have ended by itself.
    pub(super) fn end(&mut self, connection: &Connection) -> Result<(), OpError> {
        errno::gone_is_fine(self.0.ask(connection.delete(), |_| ()))
    }
}
