//! Failures: what went wrong, what to do about it, and what to exit with.

use std::borrow::Cow;
use std::fmt::{self, Display};
use std::io::{self, Write};

use mydocker::engine::EngineError;
use mydocker::privilege;
use mydocker::store::StoreError;
use mydocker_core::{ErrorKind, OpError, Rejection};

/// Why a command failed.
#[derive(Debug)]
pub(crate) struct Failure {
    /// The exit code: what the kernel holds now.
    pub(crate) code: u8,
    message: String,
    hint: Option<Cow<'static, str>>,
}

impl Failure {
    /// A failure that left everything as it was.
    pub(crate) fn refused(message: impl Display) -> Self {
        Self {
            code: 1,
            message: message.to_string(),
            hint: None,
        }
    }

    pub(crate) fn with_code(self, code: u8) -> Self {
        Self { code, ..self }
    }

    pub(crate) fn with_hint(self, hint: impl Into<Cow<'static, str>>) -> Self {
        Self {
            hint: Some(hint.into()),
            ..self
        }
    }

    pub(crate) fn no_netlink(error: OpError) -> Self {
        Self::refused(format!("can't talk to the kernel: {error}"))
            .with_hint("--executor record plays a session on a model kernel, without privileges")
    }

    /// Says it on standard error.
    pub(crate) fn report(&self) {
        if self.code == 0 {
            return;
        }
        say("error", &self.message);
        if let Some(hint) = &self.hint {
            say("hint", hint);
        }
    }
}

impl Display for Failure {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.message)
    }
}

/// Says what does not stop the command.
pub(crate) fn warn(message: impl Display) {
    say("warning", message);
}

/// Says what is good to know.
pub(crate) fn note(message: impl Display) {
    say("note", message);
}

/// What was done is done, whether or not anybody can be told: a command goes on, and its exit
/// code says what the kernel holds.
pub(crate) fn told(result: io::Result<()>) {
    match result {
        Err(error) if error.kind() != io::ErrorKind::BrokenPipe => {
            warn(format!("done, but can't write to standard output: {error}"));
        }
        Ok(()) | Err(_) => {}
    }
}

fn say(what: &str, message: impl Display) {
    // A terminal that hung up is no reason to fail, or to fail differently.
    let _ = writeln!(io::stderr(), "{what}: {message}");
}

impl From<EngineError> for Failure {
    fn from(error: EngineError) -> Self {
        let hint = hint(&error);
        Self {
            code: error.exit_code(),
            message: error.to_string(),
            hint,
        }
    }
}

impl From<StoreError> for Failure {
    fn from(error: StoreError) -> Self {
        EngineError::from(error).into()
    }
}

/// Standard output could not be written.
impl From<io::Error> for Failure {
    fn from(error: io::Error) -> Self {
        if error.kind() == io::ErrorKind::BrokenPipe {
            // The reader has seen enough, as in `mydocker ps | head -1`.
            return Self {
                code: 0,
                message: String::new(),
                hint: None,
            };
        }
        Self::refused(format!("can't write to standard output: {error}"))
    }
}

impl From<anyhow::Error> for Failure {
    fn from(error: anyhow::Error) -> Self {
        Self::refused(format!("{error:#}"))
    }
}

#[expect(clippy::wildcard_enum_match_arm, reason = "few errors need a hint")]
fn hint(error: &EngineError) -> Option<Cow<'static, str>> {
    match error {
        EngineError::Rejected(rejection) => {
            let rejection = match rejection {
                Rejection::InBatch { why, .. } => why,
                alone => alone,
            };
            let hint = match rejection {
                Rejection::NetworkUnknown(_) => {
                    "`mydocker network list` shows the networks there are"
                }
                Rejection::EndpointUnknown(_) => {
                    "`mydocker network inspect NETWORK` shows who is on it"
                }
                Rejection::NetworkInUse { .. } => "`network remove --force` disconnects them first",
                Rejection::Exhausted { .. } => {
                    "disconnect a container, or make another network with a larger subnet"
                }
                _ => return None,
            };
            Some(hint.into())
        }
        EngineError::Host(error) if error.kind == ErrorKind::Denied => Some(denied()),
        EngineError::RolledBack(failure) => of_op(failure.error.kind),
        EngineError::Stranded { cause, .. } => of_op(cause.error.kind),
        _ => None,
    }
}

fn of_op(kind: ErrorKind) -> Option<Cow<'static, str>> {
    match kind {
        ErrorKind::Denied => Some(denied()),
        ErrorKind::Exists => {
            Some("it belongs to somebody else: mydocker changes nothing that lacks its mark".into())
        }
        ErrorKind::Missing => {
            Some("something was removed behind mydocker's back, or the namespace is gone".into())
        }
        ErrorKind::Busy | ErrorKind::Unsupported | ErrorKind::InDoubt | ErrorKind::Os(_) => None,
    }
}

/// What this process would need.
fn denied() -> Cow<'static, str> {
    let lacking = privilege::names(privilege::lacking(privilege::FOR_NETWORKS));
    if lacking.is_empty() {
        let here = privilege::names(privilege::FOR_NETWORKS).join(" and ");
        return format!(
            "this process has {here}: a security module stands in the way, or a user namespace that \
             does not own the network"
        )
        .into();
    }
    format!("this process lacks {}: run as root", lacking.join(" and ")).into()
}
