//! Errands: another process waits for the kernel, and whoever called the command does not.

use std::io::{self, Read};
use std::net::Shutdown;
use std::os::fd::{AsRawFd, BorrowedFd, OwnedFd, RawFd};
use std::os::unix::net::UnixStream;

use mydocker_exec_netlink::{Errand, Runner};
use nix::libc;
use nix::sys::socket::{MsgFlags, send};
use nix::unistd::{ForkResult, fork};

/// Has a child of its own run each errand, which may outlive this process by some milliseconds.
///
/// The child does two things that anybody could see: it sends what it was given, and ends. It has none
/// of our files but those of the errand, so that the lock is ours alone, and who reads our output
/// sees its end when we do. Killed before it has sent, it is found missing; and should we be killed, it
/// removes what the next command would have removed first.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Processes;

impl Runner for Processes {
    fn run(&mut self, errand: Errand<'_>) -> io::Result<OwnedFd> {
        let (ours, theirs) = UnixStream::pair()?;
        match split()? {
            ForkResult::Parent { .. } => Ok(ours.into()),
            ForkResult::Child => be_the_child(errand, &theirs),
        }
    }
}

#[expect(unsafe_code, reason = "what the child does is safe after a fork")]
fn split() -> io::Result<ForkResult> {
    // SAFETY: the child makes system calls and nothing else: it takes no memory and no lock that
    // another thread of ours may have held. The one caller sees to that.
    Ok(unsafe { fork() }?)
}

/// Allocates nothing, and does not return.
fn be_the_child(errand: Errand<'_>, mut line: &UnixStream) -> ! {
    let number = |fd: BorrowedFd<'_>| fd.as_raw_fd();
    let mut own = [
        line.as_raw_fd(),
        errand.datagram.map_or(-1, |(socket, _)| number(socket)),
        errand.kept.map_or(-1, number),
    ];
    own.sort_unstable();
    // What it can't close, others would wait for.
    if close_others(own).is_ok() {
        if let Some((socket, bytes)) = errand.datagram {
            // What became of it is told by the kernel's answer, or by there being none.
            let _ = send(socket.as_raw_fd(), bytes, MsgFlags::empty());
        }
        let _ = line.shutdown(Shutdown::Write);
        let _ = line.read(&mut [0]);
    }
    exit()
}

/// Closes all files but those of `own`, which are sorted; -1 is none.
fn close_others(own: [RawFd; 3]) -> io::Result<()> {
    let mut next = 0;
    for fd in own.into_iter().filter_map(|fd| u32::try_from(fd).ok()) {
        if next < fd {
            close_range(next, fd - 1)?;
        }
        next = fd + 1;
    }
    close_range(next, u32::MAX)
}

#[expect(unsafe_code, reason = "no crate at hand closes ranges")]
fn close_range(first: u32, last: u32) -> io::Result<()> {
    // SAFETY: nobody in this process uses the files that it closes: the child ends without them.
    match unsafe { libc::syscall(libc::SYS_close_range, first, last, 0) } {
        0 => Ok(()),
        _ => Err(io::Error::last_os_error()),
    }
}

#[expect(
    unsafe_code,
    reason = "without what is to be done at the parent's exit"
)]
fn exit() -> ! {
    // SAFETY: it ends the process and touches no memory.
    unsafe { libc::_exit(0) }
}
