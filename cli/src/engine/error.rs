//! Why a request was not carried out.

use mydocker_core::{Damage, Failure, Netns, Object, Op, OpError, Protocol, Rejection};

use crate::store::StoreError;

/// Why a request was not carried out.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum EngineError {
    /// It can't be; nothing was tried.
    #[error(transparent)]
    Rejected(#[from] Rejection),
    /// The state could not be read; nothing was tried.
    #[error(transparent)]
    Store(#[from] StoreError),
    /// The host could not be asked; nothing was tried.
    #[error("can't look at the host's network: {0}")]
    Host(OpError),
    /// The container is not there; nothing was tried.
    #[error("there is no network namespace {0}: start the container first, or check the path")]
    NoNamespace(Netns),
    /// The kernel can't translate ports of that protocol, and why; nothing was tried.
    #[error("{0} is not supported by this kernel: {1}")]
    Unsupported(Protocol, &'static str),
    /// The kernel said no, and is as it was before.
    #[error("{0}; what had been done was taken back")]
    RolledBack(Box<Failure>),
    /// The kernel said no, and holds something that it should not.
    #[error("{cause}; {}", Left(left))]
    Stranded {
        /// The first failure.
        cause: Box<Failure>,
        /// What should be gone and is not.
        left: Vec<Object>,
    },
    /// It could not be recorded, and was taken back.
    #[error("{0}; what had been done was taken back")]
    TakenBack(StoreError),
    /// It could not be recorded how far it went.
    #[error(
        "{error}; the next command that can write there takes back what was done, or finishes it"
    )]
    Interrupted {
        /// Why.
        error: StoreError,
        /// Why it could not be taken back at once.
        #[source]
        again: Option<Box<StoreError>>,
    },
    /// The state and a plan of its own contradict each other.
    #[error("the plan contradicts the state: {0}; please report this")]
    Contradiction(#[from] Damage),
}

impl EngineError {
    /// What the kernel holds, as an exit code: 1 as before, nothing tried; 3 as before, rolled
    /// back; 4 leftovers. (0 is as asked, and 2 a command line that makes no sense.)
    #[must_use]
    pub fn exit_code(&self) -> u8 {
        match self {
            Self::Rejected(_)
            | Self::Store(_)
            | Self::Host(_)
            | Self::NoNamespace(_)
            | Self::Unsupported(..)
            | Self::Contradiction(_) => 1,
            Self::RolledBack(_) | Self::TakenBack(_) => 3,
            Self::Stranded { .. } | Self::Interrupted { .. } => 4,
        }
    }
}

/// What is left, in words.
struct Left<'a>(&'a [Object]);

impl std::fmt::Display for Left<'_> {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        const SHOWN: usize = 5;
        if self.0.is_empty() {
            return f
                .write_str("the rest was done: `mydocker network repair` adds what is missing");
        }
        f.write_str("still there, and tried again with the next command:")?;
        for (i, object) in self.0.iter().take(SHOWN).enumerate() {
            let op = Op::Del(object.clone());
            let comma = if i > 0 { "," } else { "" };
            write!(f, "{comma} {} {}", op.name(), op.target())?;
        }
        match self.0.len().saturating_sub(SHOWN) {
            0 => Ok(()),
            more => write!(f, " and {more} more"),
        }
    }
}
