//! The way to ctnetlink and back.

use std::collections::BTreeSet;
use std::sync::Arc;

use mydocker_core::{ErrorKind, OpError};
use netlink_sys::Socket;
use nix::errno::Errno;

use super::entry::{self, Connection};
use super::{Ending, Pass};
use crate::errno;
use crate::netlink::Client;

/// A netfilter socket for tracked connections.
#[derive(Debug)]
pub(crate) struct ConntrackSocket(Client);

impl ConntrackSocket {
    /// Over a netfilter socket that is there, and at rest: the close of another one would wait for
    /// what was deleted over the first.
    pub(crate) fn over(socket: Arc<Socket>) -> Self {
        Self(Client::over("ctnetlink", socket))
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

    /// Has the kernel end them, those that nobody has moved to hardware; or says that it can't:
    /// Linux 6.11 or later. Others want every tuple to be complete, so that none of them takes less
    /// for more.
    pub(super) fn end_all(&mut self, endings: &BTreeSet<Ending>) -> Result<bool, OpError> {
        for ending in endings {
            match self.0.ask(entry::end_all(ending), |_| ()) {
                Err(error)
                    if matches!(
                        error.kind,
                        ErrorKind::Os(errno) if errno == Errno::EINVAL as i32
                    ) || error.kind == ErrorKind::Unsupported =>
                {
                    return Ok(false);
                }
                other => other?,
            }
        }
        Ok(true)
    }

    /// Ends a connection, which may have ended by itself.
    pub(super) fn end(&mut self, connection: &Connection) -> Result<(), OpError> {
        errno::gone_is_fine(self.0.ask(connection.delete(), |_| ()))
    }
}
