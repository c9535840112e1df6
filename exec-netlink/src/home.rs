//! The namespace that an executor was opened in, and the way into others.

use std::fs::{self, File};
use std::io;
use std::os::fd::{AsFd, BorrowedFd};
use std::os::unix::fs::MetadataExt;
use std::path::Path;

use mydocker_core::{ErrorKind, Ns, OpError};
use nix::errno::Errno;
use nix::unistd::{getpid, gettid};

use crate::errno::missing;
use crate::{errno, netns};

/// The namespace of the calling thread. To that of a main thread there is a way of two directories less,
/// which each process is the first to look up.
fn current() -> &'static str {
    if gettid() == getpid() {
        "/proc/self/ns/net"
    } else {
        "/proc/thread-self/ns/net"
    }
}

/// The namespace that [`Ns::Host`](mydocker_core::Ns::Host) means, whichever thread applies.
#[derive(Debug)]
pub(crate) struct Home {
    netns: File,
    id: (u64, u64),
}

impl Home {
    /// The calling thread's namespace.
    pub(crate) fn open() -> io::Result<Self> {
        let netns = File::open(current())?;
        let id = id(&netns.metadata()?);
        Ok(Self { netns, id })
    }

    /// What tells it from others.
    pub(crate) fn id(&self) -> (u64, u64) {
        self.id
    }

    /// Runs `f` in it: on the calling thread if that is there, else on one that ends afterwards.
    pub(crate) fn inside<T: Send>(&self, f: impl FnOnce() -> T + Send) -> Result<T, OpError> {
        if self.is_here() {
            return Ok(f());
        }
        netns::run_in_fd(self.netns.as_fd(), f).map_err(|error| errno::of_io("host", &error))
    }

    /// Runs `f` in another namespace: on the calling thread if that is here, and then comes back, else
    /// on one that ends afterwards.
    pub(crate) fn visit<T: Send>(
        &self,
        netns: BorrowedFd<'_>,
        f: impl FnOnce() -> T + Send,
    ) -> io::Result<T> {
        if self.is_here() {
            return netns::visit(self.netns.as_fd(), netns, f);
        }
        netns::run_in_fd(netns, f)
    }

    fn is_here(&self) -> bool {
        fs::metadata(current()).is_ok_and(|current| id(&current) == self.id)
    }
}

impl AsFd for Home {
    fn as_fd(&self) -> BorrowedFd<'_> {
        self.netns.as_fd()
    }
}

/// Opens a container's namespace.
pub(crate) fn open(ns: &Ns) -> Result<File, OpError> {
    match ns {
        Ns::Host => Err(missing("namespace")),
        Ns::Sandbox(netns) => {
            let opened = netns::open(Path::new(netns.as_str()));
            opened.map_err(|error| {
                let OpError { kind, detail } = errno::of_io(netns.as_str(), &error);
                let kind = if is_gone(&error) {
                    ErrorKind::Missing
                } else {
                    kind
                };
                OpError { kind, detail }
            })
        }
    }
}

/// Whether a namespace could not be opened because it is no more: no such file or process, or a
/// file that a crash left behind unbound.
fn is_gone(error: &io::Error) -> bool {
    let errno = error.raw_os_error().map(Errno::from_raw);
    matches!(
        errno,
        Some(Errno::ENOENT | Errno::ENOTDIR | Errno::ESRCH | Errno::EINVAL | Errno::ENXIO)
    )
}

/// What tells namespaces apart, whichever path leads to them: device and inode.
pub(crate) fn id(file: &fs::Metadata) -> (u64, u64) {
    (file.dev(), file.ino())
}
