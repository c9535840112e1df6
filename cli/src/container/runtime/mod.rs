//! The OCI runtime: a bundle on disk becomes a process in its own namespaces.
//!
//! Embedded with the feature `containers` ([`youki`]); without it, every start is refused ([`absent`]).
//! The two have the same functions, and nothing else depends on the feature. Any other runtime is driven by
//! its command line ([`external`]).

pub(crate) mod bundle;
pub(crate) mod process;

#[cfg(not(feature = "containers"))]
mod absent;
mod console;
mod external;
mod resources;
#[cfg(feature = "containers")]
mod youki;

use std::{
    os::fd::{AsRawFd, OwnedFd},
    path::{Path, PathBuf},
};

#[cfg(not(feature = "containers"))]
use absent as embedded;
pub(crate) use external::delete;
pub use external::find;
#[cfg(feature = "containers")]
use youki as embedded;

use super::id::Id;

/// What a container's process reads from and writes to.
#[derive(Debug)]
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

impl Failure {
    /// An error with this exit code, if there is one.
    pub(crate) fn error(exit_code: Option<u8>, message: String) -> anyhow::Error {
        match exit_code {
            Some(exit_code) => Self { exit_code, message }.into(),
            None => anyhow::Error::msg(message),
        }
    }
}

/// A container that is complete but for its program, which waits to be started.
#[derive(Debug)]
pub(crate) enum Created {
    Embedded(embedded::Created),
    External(external::Created),
}

impl Created {
    /// Its first process, a child of ours.
    pub(crate) fn pid(&self) -> i32 {
        match self {
            Self::Embedded(created) => created.pid(),
            Self::External(created) => created.pid(),
        }
    }

    /// Starts the program. Returns when it runs, or with a [`Failure`] when it can't.
    pub(crate) fn start(self) -> anyhow::Result<()> {
        match self {
            Self::Embedded(created) => created.start(),
            Self::External(created) => created.start(),
        }
    }
}

/// Refuses where there is no runtime.
pub(crate) fn check(program: Option<&Path>) -> anyhow::Result<()> {
    match program {
        Some(program) => external::check(program),
        None => embedded::check(),
    }
}

/// Has the runtime `program`, or the embedded one, run another program in a container that runs, as the file
/// `request` says: its number, a child of ours, and its terminal if it gets one. If `tied`, and the runtime is
/// the embedded one, it dies with this process, as the first one does.
///
/// Nobody else may do the same meanwhile, or take the container down.
pub(crate) fn exec(
    program: Option<&Path>,
    id: &Id,
    bundle: &Path,
    state_root: &Path,
    request: &OwnedFd,
    stdio: Stdio,
    tied: bool,
) -> anyhow::Result<(i32, Option<OwnedFd>)> {
    let path = |process: &str| {
        let number = request.as_raw_fd();
        PathBuf::from(format!("/proc/{process}/fd/{number}"))
    };
    match program {
        Some(program) => {
            // It is another process, without our files.
            let request = path(&std::process::id().to_string());
            external::exec(program, id, bundle, state_root, &request, stdio)
        }
        None => embedded::exec(id, bundle, state_root, &path("self"), stdio, tied),
    }
}

/// Has the runtime `program`, or the embedded one, make the container described by `bundle`, and its
/// terminal if it gets one.
pub(crate) fn create(
    program: Option<&Path>,
    id: &Id,
    bundle: &Path,
    state_root: &Path,
    stdio: Stdio,
) -> anyhow::Result<(Created, Option<OwnedFd>)> {
    Ok(match program {
        Some(program) => {
            let (created, terminal) = external::create(program, id, bundle, state_root, stdio)?;
            (Created::External(created), terminal)
        }
        None => {
            let (created, terminal) = embedded::create(id, bundle, state_root, stdio)?;
            (Created::Embedded(created), terminal)
        }
    })
}
