//! Errands: another process waits for the kernel, and whoever called the command does not.

use std::io;
use std::os::fd::{AsRawFd, BorrowedFd, OwnedFd, RawFd};
use std::os::unix::net::UnixStream;

use mydocker_exec_netlink::{Errand, Runner};
use nix::errno::Errno;
use nix::libc::{self, c_int, c_void};

/// What a child of a few calls needs, and a debug build of it.
const STACK_BYTES: usize = 32 * 1024;

/// Has a child of its own run each errand, which may outlive this process by some milliseconds.
///
/// The child does two things that anybody could see: it sends what it was given, and ends. It has none
/// of our files but those of the errand, so that the lock is ours alone, and who reads our output
/// sees its end when we do. Killed before it has sent, it is found missing; and should we be killed, it
/// removes what the next command would have removed first.
///
/// It shares our memory, as after `vfork`, but does not hold us up: to copy what both touch takes longer than
/// all that it does. And the last of us unmaps it, which is the child.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Processes;

impl Runner for Processes {
    fn run(&mut self, errand: Errand<'_>) -> io::Result<OwnedFd> {
        let (ours, theirs) = UnixStream::pair()?;
        let number = |fd: BorrowedFd<'_>| fd.as_raw_fd();
        spawn(Job {
            line: theirs.as_raw_fd(),
            socket: errand.datagram.map(|(socket, _)| number(socket)),
            kept: errand.kept.map(number),
            datagram: errand
                .datagram
                .map_or_else(Vec::new, |(_, bytes)| bytes.to_vec()),
        })?;
        Ok(ours.into())
    }
}

/// An errand as the child has it.
struct Job {
    line: RawFd,
    socket: Option<RawFd>,
    kept: Option<RawFd>,
    datagram: Vec<u8>,
}

/// Nobody says when the child is done with its job and its stack, so they stay as long as this process.
#[expect(unsafe_code, reason = "what the child does is safe beside us")]
fn spawn(job: Job) -> io::Result<()> {
    let job: &'static Job = Box::leak(Box::new(job));
    // As the kernel wants it aligned.
    let stack: &'static mut [u128] = Box::leak(vec![0; STACK_BYTES / size_of::<u128>()].into());
    let top = stack.as_mut_ptr_range().end.cast();
    let job = std::ptr::from_ref(job).cast_mut().cast();
    // SAFETY: the stack is the child's alone, and nobody writes to the job. What else the two of us share is
    // what belongs to a thread, which here are two: `be_the_child` makes system calls and nothing else, so
    // it uses none of that but the place for an error's number, and only where a call fails.
    let pid = unsafe { libc::clone(be_the_child, top, libc::CLONE_VM | libc::SIGCHLD, job) };
    Errno::result(pid).map(drop).map_err(io::Error::from)
}

/// Allocates nothing, takes no lock and can't panic.
#[expect(unsafe_code, reason = "nothing of the library is for two at a time")]
extern "C" fn be_the_child(job: *mut c_void) -> c_int {
    // SAFETY: it is a job that stays.
    let job = unsafe { &*job.cast::<Job>() };
    let mut own = [Some(job.line), job.socket, job.kept];
    own.sort_unstable();
    // What it can't close, others would wait for.
    if !close_others(own) {
        return 1;
    }
    if let Some(socket) = job.socket {
        let (bytes, length) = (job.datagram.as_ptr().cast(), job.datagram.len());
        // SAFETY: the bytes are there. What became of them is told by the kernel's answer, or by there being none.
        unsafe { libc::send(socket, bytes, length, 0) };
    }
    let mut byte = 0_u8;
    // SAFETY: it is room for one byte. The other end may be closed.
    unsafe {
        libc::shutdown(job.line, libc::SHUT_WR);
        libc::read(job.line, (&raw mut byte).cast(), 1);
    }
    0
}

/// Closes all files but those of `own`, which are sorted.
fn close_others(own: [Option<RawFd>; 3]) -> bool {
    let mut next = 0;
    for fd in own.into_iter().flatten() {
        if next < fd && !close_range(next, fd - 1) {
            return false;
        }
        next = fd + 1;
    }
    close_range(next, RawFd::MAX)
}

#[expect(unsafe_code, reason = "no crate at hand closes ranges")]
fn close_range(first: RawFd, last: RawFd) -> bool {
    // SAFETY: these are the child's own; nobody uses them there.
    unsafe { libc::syscall(libc::SYS_close_range, first, last, 0) == 0 }
}
