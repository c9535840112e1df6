//! The socket over which a runtime hands out a container's terminal.

use std::{
    fs::File,
    os::{
        fd::{AsRawFd, OwnedFd},
        unix::net::UnixListener,
    },
    path::Path,
};

use anyhow::{Context, anyhow};

use crate::container::control::receive_file;

/// Its name in the bundle, for the container's first program, and for another one.
pub(crate) const SOCKET: &str = "console.sock";
pub(crate) const EXEC_SOCKET: &str = "exec-console.sock";

/// Our end of it.
#[derive(Debug)]
pub(crate) struct Console(UnixListener);

impl Console {
    /// Makes it, by that name, in the directory `bundle`.
    pub(crate) fn listen(bundle: &Path, name: &str) -> anyhow::Result<Self> {
        let what = || format!("can't listen in {}", bundle.display());
        // A socket's path may have 108 bytes at most; the bundle's own may be longer.
        let dir = File::open(bundle).with_context(what)?;
        let short = format!("/proc/self/fd/{}/{name}", dir.as_raw_fd());
        let listener = UnixListener::bind(short).with_context(what)?;
        listener.set_nonblocking(true).with_context(what)?;
        Ok(Self(listener))
    }

    /// Takes the terminal. The container connected while it was created, so there is no waiting.
    pub(crate) fn accept(&self) -> anyhow::Result<OwnedFd> {
        let (stream, _) = self
            .0
            .accept()
            .context("the container did not offer its terminal")?;
        receive_file(&stream)?.ok_or_else(|| anyhow!("the container offered no terminal"))
    }
}
