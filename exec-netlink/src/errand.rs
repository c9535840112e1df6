//! Errands: what the kernel takes long to finish, and whoever waits for it in our place.
//!
//! Two calls return long after what they are for is done: a removal of links waits 15 to 20 ms for
//! RCU callbacks when it has dropped the lock and told everybody, and the last close of a netfilter
//! socket waits 8 to 16 ms for what was deleted in its namespace. Neither can be taken back or cut
//! short, not even by a signal: a thread in it keeps its process from ending. So a program that
//! ends soon gives them to another process ([`Runner`]), and the others to a thread.

use std::fmt::Debug;
use std::io::{self, Read};
use std::net::Shutdown;
use std::os::fd::{AsRawFd, BorrowedFd, OwnedFd};
use std::os::unix::net::UnixStream;
use std::thread;

use nix::sys::socket::{MsgFlags, send};

/// Work that takes the kernel longer than anybody wants to wait.
#[derive(Clone, Copy, Debug)]
pub struct Errand<'a> {
    /// A datagram to be sent, and the socket for it.
    pub datagram: Option<(BorrowedFd<'a>, &'a [u8])>,
    /// A file that stays open until whoever sent for it has closed it.
    pub kept: Option<BorrowedFd<'a>>,
}

/// Who runs errands.
pub trait Runner: Debug + Send {
    /// Begins one. The file that it returns reads its end as soon as the datagram is sent, or will
    /// not be; once that file is closed, the errand ends. What was kept is then closed by the runner,
    /// which must not have any other file of ours open from before it sends.
    ///
    /// # Errors
    /// It was not begun.
    fn run(&mut self, errand: Errand<'_>) -> io::Result<OwnedFd>;
}

/// Has threads of this process run errands. It does not end before they do.
#[derive(Clone, Copy, Debug, Default)]
pub struct Threads;

impl Runner for Threads {
    fn run(&mut self, errand: Errand<'_>) -> io::Result<OwnedFd> {
        let (ours, theirs) = UnixStream::pair()?;
        let own = |fd: BorrowedFd<'_>| fd.try_clone_to_owned();
        let datagram = errand.datagram;
        let datagram = datagram
            .map(|(socket, bytes)| Ok::<_, io::Error>((own(socket)?, bytes.to_vec())))
            .transpose()?;
        let kept = errand.kept.map(own).transpose()?;
        let run = move || {
            if let Some((socket, bytes)) = datagram {
                // What became of it is told by the kernel's answer, or by there being none.
                let _ = send(socket.as_raw_fd(), &bytes, MsgFlags::empty());
            }
            // The other end may be closed.
            let _ = theirs.shutdown(Shutdown::Write);
            let _ = (&theirs).read(&mut [0]);
            drop(kept);
        };
        thread::Builder::new()
            .name("errand".to_owned())
            .spawn(run)?;
        Ok(ours.into())
    }
}
