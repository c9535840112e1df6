//! What can be wrong with the store.

use std::io::{Error, ErrorKind};
use std::path::{Path, PathBuf};
use std::time::Duration;

use mydocker_core::{Damage, Instance};

/// Why the store can't be read or written. Each names the path, and what to do about it.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
#[expect(missing_docs, reason = "fields are what their message says")]
pub enum StoreError {
    /// The system said no.
    #[error("can't {action} {}: {source}{}", path.display(), remedy(source))]
    Io {
        action: &'static str,
        path: PathBuf,
        source: Error,
    },
    /// Somebody else could have written it.
    #[error(
        "{} has mode {mode:04o}, so others than its owner can write it: choose another directory, or run `chmod go-w {}` once you trust what is in it",
        path.display(), path.display()
    )]
    Mode { path: PathBuf, mode: u32 },
    /// Somebody else's.
    #[error(
        "{} is owned by uid {owner}, and this process runs as uid {own}: run as its owner, or choose other directories with --root and --run-root",
        path.display()
    )]
    Owner { path: PathBuf, owner: u32, own: u32 },
    /// A link, a device, a directory where a file is expected.
    #[error("{} is not a {wanted}: move it out of the way", path.display())]
    Kind { path: PathBuf, wanted: &'static str },
    /// Somebody else works with it.
    #[error(
        "{what} is locked by {holder} for more than {} s: wait for it to end, or end it ({})",
        wait.as_secs_f32(), path.display()
    )]
    Locked {
        what: String,
        path: PathBuf,
        holder: String,
        wait: Duration,
    },
    /// It is not what was written.
    #[error("{} is damaged at byte {offset}: {what}; {remedy}", path.display())]
    Damaged {
        path: PathBuf,
        offset: u64,
        what: String,
        remedy: &'static str,
    },
    /// Every byte is as written, and together they make no sense.
    #[error("{} contradicts itself at byte {offset}: {source}; {}", path.display(), RUN_REMEDY)]
    Contradiction {
        path: PathBuf,
        offset: u64,
        source: Damage,
    },
    /// A later mydocker wrote it.
    #[error(
        "{} has format {format}, and this mydocker knows formats up to {known}: use the newer mydocker that wrote it",
        path.display()
    )]
    TooNew {
        path: PathBuf,
        format: u64,
        known: u64,
    },
    /// Its directory was moved, and what it describes carries other marks.
    #[error(
        "{} belongs to instance {}, not to {}, which this run root stands for: move the directory back to where it was",
        path.display(), found.table(), wanted.table()
    )]
    OtherInstance {
        path: PathBuf,
        found: Instance,
        wanted: Instance,
    },
    /// Opened for reading, or given up after an error.
    #[error("{} is not open for writing: open it again with `Access::Write`", path.display())]
    ReadOnly { path: PathBuf },
}

impl StoreError {
    /// Whether files are there, and can't be used as they are: cut short, changed, from elsewhere.
    #[must_use]
    pub fn is_damage(&self) -> bool {
        match self {
            Self::Damaged { .. }
            | Self::Contradiction { .. }
            | Self::TooNew { .. }
            | Self::OtherInstance { .. } => true,
            Self::Io { .. }
            | Self::Mode { .. }
            | Self::Owner { .. }
            | Self::Kind { .. }
            | Self::Locked { .. }
            | Self::ReadOnly { .. } => false,
        }
    }
}

/// What to do about a damaged file of the run state.
pub(super) const RUN_REMEDY: &str =
    "`mydocker network repair --rebuild-from-kernel` reads off the kernel what is there";

/// What to do about a damaged definition.
pub(super) const DEFINITION_REMEDY: &str =
    "put it right or restore it from a backup, or move it away and create the network anew";

/// Turns the system's error into one that says what was tried with what.
pub(super) fn io(action: &'static str, path: &Path) -> impl FnOnce(Error) -> StoreError {
    let path = path.to_path_buf();
    move |source| StoreError::Io {
        action,
        path,
        source,
    }
}

fn remedy(error: &Error) -> &'static str {
    if error.kind() == ErrorKind::PermissionDenied {
        " (run as root, or choose other directories with --root and --run-root)"
    } else if matches!(
        error.kind(),
        ErrorKind::StorageFull | ErrorKind::QuotaExceeded
    ) {
        " (make room on that file system)"
    } else if error.kind() == ErrorKind::ReadOnlyFilesystem {
        " (choose other directories with --root and --run-root)"
    } else {
        ""
    }
}
