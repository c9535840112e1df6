//! Runs a container.

use std::{
    ffi::OsStr,
    io::{IsTerminal, stdin},
};

use anyhow::{anyhow, bail};

use super::{
    NetworkFactory,
    control::Report,
    foreground::UserSignals,
    helper::{Helper, Relayed},
    id::Id,
    process::Process,
    record::Record,
    runtime::{self, Failure},
    spec::Spec,
    store::Containers,
    supervisor::SUPERVISE,
    teardown::undo,
};
use crate::privilege;

/// What has become of a container that was run.
#[derive(Clone, Debug, Eq, PartialEq)]
pub enum Started {
    /// It runs on, in the background.
    Detached(Id),
    /// It ran in the foreground, and is taken down.
    Finished {
        /// The container.
        id: Id,
        /// The program's exit code, or 128 + the signal that killed it.
        exit_code: u8,
        /// What went wrong while it was taken down.
        trouble: Option<String>,
    },
}

/// Runs a container and, unless it is detached, waits for its end: its input and output are this
/// process's, and signals are passed on to it.
///
/// After an error nothing of the container is left if it never ran. An error that holds a [`Failure`] knows
/// the exit code.
pub fn run(
    containers: &Containers,
    spec: Spec,
    make_network: &NetworkFactory<'_>,
) -> anyhow::Result<Started> {
    check(&spec)?;
    let detached = spec.detached;
    let means = Means {
        attached: !detached,
        reads: spec.interactive && !detached,
    };
    means.check(spec.terminal, "-t")?;
    let held = containers.images().image(&spec.image)?;
    // Held from here on, so that Ctrl-C ends the container and not the command alone.
    let signals = means.hold_signals()?;
    let record = Record::new(Id::random()?, &held.image, spec)?;
    containers.create(&record)?;
    drop(held);
    launch(containers, &record, means, signals.as_ref(), make_network)
}

/// Refuses what can't be run here and by this process.
pub(crate) fn check(spec: &Spec) -> anyhow::Result<()> {
    runtime::check(spec.runtime.as_deref())?;
    spec.check()?;
    spec.limits.check_here()?;
    let capabilities = spec.confinement.capabilities.resolve();
    let needed = privilege::TO_START_CONTAINERS.union(capabilities);
    privilege::check("starting a container", needed)
}

/// What the user has to do with what is started.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Means {
    /// Whether its output is shown, signals are passed on and its end is waited for.
    pub(crate) attached: bool,
    /// Whether it reads what the user types.
    pub(crate) reads: bool,
}

impl Means {
    /// Refuses to read for a terminal what is typed nowhere; `flag` is what asks for that.
    pub(crate) fn check(self, terminal: bool, flag: &str) -> anyhow::Result<()> {
        if terminal && self.reads && !stdin().is_terminal() {
            bail!("standard input is not a terminal: leave out {flag}");
        }
        Ok(())
    }

    /// Holds signals back for what is started, unless it goes on by itself.
    pub(crate) fn hold_signals(self) -> anyhow::Result<Option<UserSignals>> {
        self.attached.then(UserSignals::hold).transpose()
    }
}

/// Starts a recorded container and, with `signals` held, waits for its end.
pub(crate) fn launch(
    containers: &Containers,
    record: &Record,
    means: Means,
    signals: Option<&UserSignals>,
    make_network: &NetworkFactory<'_>,
) -> anyhow::Result<Started> {
    let (id, name) = (&record.id, &record.name);
    let give_up = |error| give_up(containers, id, make_network, error);
    let args = [
        OsStr::new(SUPERVISE),
        containers.root().as_os_str(),
        containers.run_root().as_os_str(),
        OsStr::new(id.as_str()),
    ];
    let reads = means.reads && !record.spec.terminal;
    let mut supervisor = Helper::start(&args, means.attached, reads, None).map_err(give_up)?;
    match supervisor.report.take() {
        Some(Report::Running) => {}
        Some(Report::Failed { exit_code, message }) => {
            supervisor.wait()?;
            return Err(Failure::error(exit_code, message));
        }
        Some(Report::Exited { .. }) | None => {
            supervisor.wait()?;
            return Err(give_up(anyhow!(
                "the supervisor of container {name} was killed"
            )));
        }
    }
    let Some(signals) = signals else {
        return Ok(Started::Detached(id.clone()));
    };
    match supervisor.relay(signals, means.reads)? {
        Relayed::Exited { exit_code, trouble } => Ok(Started::Finished {
            id: id.clone(),
            exit_code,
            trouble,
        }),
        Relayed::Lost { status, error } => {
            let ended = || anyhow!("the supervisor of container {name} ended early: {status}");
            let error = error.unwrap_or_else(ended);
            Err(match status.success() {
                true => error,
                false => give_up(error),
            })
        }
    }
}

/// Takes down what a dead supervisor left of a container.
fn give_up(
    containers: &Containers,
    id: &Id,
    make_network: &NetworkFactory<'_>,
    error: anyhow::Error,
) -> anyhow::Error {
    let clean_up = || match containers.lock(id)? {
        // Somebody else may have taken it down, and have started it again.
        Some(locked) if is_of_others(&locked.record.supervisor)? => Ok(()),
        Some(locked) => undo(containers, locked, make_network, &error),
        None => Ok(()),
    };
    match clean_up() {
        Ok(()) => error,
        Err(left) => error.context(format!("{left:#}; it was given up because")),
    }
}

fn is_of_others(supervisor: &Process) -> anyhow::Result<bool> {
    Ok(supervisor.is_alive() && *supervisor != Process::current()?)
}
