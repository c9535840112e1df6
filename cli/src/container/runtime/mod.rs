//! The OCI runtime: a bundle on disk becomes a process in its own namespaces.
//!
//! Embedded with the feature `containers` ([`youki`]); without it, every start is refused ([`absent`]).
//! The two have the same functions, and nothing else depends on the feature.

pub(crate) mod bundle;

#[cfg(not(feature = "containers"))]
mod absent;
mod resources;
#[cfg(feature = "containers")]
mod youki;

use std::os::fd::OwnedFd;

#[cfg(not(feature = "containers"))]
pub(crate) use absent::{check, create};
#[cfg(feature = "containers")]
pub(crate) use youki::{check, create};

/// What a container's first process reads from and writes to.
#[derive(Debug)]
#[cfg_attr(
    not(feature = "containers"),
    expect(dead_code, reason = "only a runtime reads it")
)]
pub(crate) enum Stdio {
    /// A terminal of its own.
    Terminal,
    /// These files.
    Files {
        /// Standard input.
        stdin: OwnedFd,
        /// Standard output.
        stdout: OwnedFd,
        /// Standard error.
        stderr: OwnedFd,
    },
}

/// A failure that knows what the command should exit with.
#[derive(Clone, Debug, Eq, PartialEq, thiserror::Error)]
#[error("{message}")]
pub struct Failure {
    /// For a program that can't be executed 126, for one that is not found 127, as with `docker run`.
    /// A [`Network`](super::Network) may choose its own.
    pub exit_code: u8,
    /// What went wrong.
    pub message: String,
}
