//! The kernel's refusals in our words.

use std::io;

use mydocker_core::{ErrorKind, OpError};
use nix::errno::Errno;

/// What an error number (errno.h) means for a plan, with what the kernel added in words:
/// `EEXIST: File exists (kernel: Address already assigned)`.
pub(crate) fn refusal(errno: i32, words: Option<&str>) -> OpError {
    let code = Errno::from_raw(errno);
    let kind = match code {
        Errno::EEXIST => ErrorKind::Exists,
        Errno::ENODEV | Errno::ENOENT | Errno::ESRCH => ErrorKind::Missing,
        Errno::EPERM | Errno::EACCES => ErrorKind::Denied,
        Errno::EBUSY => ErrorKind::Busy,
        Errno::EOPNOTSUPP | Errno::EAFNOSUPPORT | Errno::EPROTONOSUPPORT => ErrorKind::Unsupported,
        _ => ErrorKind::Os(errno),
    };
    let mut detail = match kind {
        ErrorKind::Unsupported => format!("not supported by this kernel ({code})"),
        _ => code.to_string(),
    };
    if let Some(words) = words {
        detail.push_str(&format!(" (kernel: {words})"));
    }
    OpError { kind, detail }
}

/// The same for an error of the standard library, about `what`.
pub(crate) fn of_io(what: &str, error: &io::Error) -> OpError {
    match error.raw_os_error() {
        Some(errno) => {
            let OpError { kind, detail } = refusal(errno, None);
            let detail = format!("{what}: {detail}");
            OpError { kind, detail }
        }
        None => OpError {
            kind: ErrorKind::InDoubt,
            detail: format!("{what}: {error}"),
        },
    }
}

/// No answer came, so nobody knows.
pub(crate) fn in_doubt(why: impl std::fmt::Display) -> OpError {
    OpError {
        kind: ErrorKind::InDoubt,
        detail: format!("no answer from the kernel: {why}"),
    }
}

/// What an object stands on is not there, or is not ours.
pub(crate) fn missing(what: impl std::fmt::Display) -> OpError {
    OpError {
        kind: ErrorKind::Missing,
        detail: format!("ENODEV: {what}: what lacks our mark is not there"),
    }
}

/// Takes a refusal for success if what was to go is gone.
pub(crate) fn gone_is_fine(result: Result<(), OpError>) -> Result<(), OpError> {
    match result {
        Err(error) if is_gone(&error) => Ok(()),
        other => other,
    }
}

fn is_gone(error: &OpError) -> bool {
    // `EADDRNOTAVAIL` is how the kernel says that an interface lacks an address.
    matches!(error.kind, ErrorKind::Missing)
        || error.kind == ErrorKind::Os(Errno::EADDRNOTAVAIL as i32)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_number_and_words() {
        let error = refusal(Errno::EEXIST as i32, Some("Address already assigned"));
        assert_eq!(error.kind, ErrorKind::Exists);
        assert_eq!(
            error.to_string(),
            "EEXIST: File exists (kernel: Address already assigned)"
        );
        let error = refusal(Errno::EAFNOSUPPORT as i32, None);
        assert_eq!(error.kind, ErrorKind::Unsupported);
        assert!(error.detail.contains("not supported by this kernel"));
        assert_eq!(
            refusal(Errno::EINVAL as i32, None).kind,
            ErrorKind::Os(Errno::EINVAL as i32)
        );
    }

    #[test]
    fn what_is_gone_is_fine() {
        for errno in [
            Errno::ENODEV,
            Errno::ESRCH,
            Errno::ENOENT,
            Errno::EADDRNOTAVAIL,
        ] {
            assert_eq!(gone_is_fine(Err(refusal(errno as i32, None))), Ok(()));
        }
        assert!(gone_is_fine(Err(refusal(Errno::EPERM as i32, None))).is_err());
    }
}
