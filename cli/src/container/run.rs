//! Runs a container.

use std::{
    io::{IsTerminal, stdin, stdout},
    os::{
        fd::{AsFd, OwnedFd},
        unix::process::CommandExt,
    },
    path::Path,
    process::{Child, Command, Stdio},
};

use anyhow::{Context, anyhow, bail};
use rustix::termios::tcgetwinsize;

use super::{
    NetworkFactory,
    control::{Control, Hello, Report},
    foreground::{self, UserSignals},
    id::Id,
    process::ProcessHandle,
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
/// After an error nothing is left of the container. An error that holds a [`Failure`] knows the exit code.
pub fn run(
    containers: &Containers,
    spec: Spec,
    make_network: &NetworkFactory<'_>,
) -> anyhow::Result<Started> {
    runtime::check()?;
    spec.check()?;
    privilege::check("starting a container", privilege::TO_START_CONTAINERS)?;
    let detached = spec.detached;
    if spec.terminal && spec.interactive && !detached && !stdin().is_terminal() {
        bail!("standard input is not a terminal: leave out -t");
    }
    let held = containers.images().image(&spec.image)?;
    // Held from here on, so that Ctrl-C ends the container and not the command alone.
    let signals = if detached {
        None
    } else {
        Some(UserSignals::hold()?)
    };
    let record = Record::new(Id::random()?, &held.image, spec)?;
    containers.create(&record)?;
    drop(held);

    let started = supervise(containers, &record);
    let (control, mut supervisor, report, terminal) = match started {
        Ok(started) => started,
        Err(error) => return Err(give_up(containers, &record.id, make_network, error)),
    };
    match report {
        Some(Report::Running) => {}
        Some(Report::Failed { exit_code, message }) => {
            supervisor.wait().context("can't wait for the supervisor")?;
            return Err(match exit_code {
                Some(exit_code) => Failure { exit_code, message }.into(),
                None => anyhow!(message),
            });
        }
        Some(Report::Exited { .. }) | None => {
            supervisor.wait().context("can't wait for the supervisor")?;
            let error = anyhow!("the supervisor of container {} was killed", record.name);
            return Err(give_up(containers, &record.id, make_network, error));
        }
    }
    let Some(signals) = signals else {
        return Ok(Started::Detached(record.id));
    };
    let exited = ProcessHandle::of_child(&supervisor).and_then(|supervisor| {
        foreground::relay(&control, &signals, terminal, &record.spec, &supervisor)
    });
    if let Ok(Some(Report::Exited { exit_code, trouble })) = exited {
        supervisor.wait().context("can't wait for the supervisor")?;
        return Ok(Started::Finished {
            id: record.id,
            exit_code,
            trouble,
        });
    }
    // If it lives, this tells it to end the container and take it down.
    drop(control);
    let status = supervisor.wait().context("can't wait for the supervisor")?;
    let error = exited.err().unwrap_or_else(|| {
        anyhow!(
            "the supervisor of container {} ended early: {status}",
            record.name
        )
    });
    if status.success() {
        Err(error)
    } else {
        Err(give_up(containers, &record.id, make_network, error))
    }
}

type Supervised = (Control, Child, Option<Report>, Option<OwnedFd>);

/// Starts the supervisor and waits until it says how the start went.
fn supervise(containers: &Containers, record: &Record) -> anyhow::Result<Supervised> {
    let (control, theirs) = Control::pair()?;
    let detached = record.spec.detached;
    let output = || {
        if detached {
            Stdio::null()
        } else {
            Stdio::inherit()
        }
    };
    let mut supervisor = Command::new("/proc/self/exe")
        .arg0("mydocker")
        .arg(SUPERVISE)
        .args([containers.root(), containers.run_root(), Path::new(record.id.as_str())])
        // These would pass files of whoever started us on to the container.
        .env_remove("LISTEN_FDS")
        .env_remove("LISTEN_PID")
        .current_dir("/")
        .stdin(theirs.into_fd())
        .stdout(output())
        .stderr(output())
        .spawn()
        .context("can't start a supervisor")?;
    let size = tcgetwinsize(stdout()).ok();
    let hello = Hello {
        rows: size.map_or(0, |s| s.ws_row),
        columns: size.map_or(0, |s| s.ws_col),
    };
    let reads = record.spec.interactive && !record.spec.terminal;
    let asked = control
        .send(
            &hello,
            reads
                .then(|| stdin().as_fd().try_clone_to_owned())
                .transpose()?,
        )
        .and_then(|()| control.receive_from::<Report>(&ProcessHandle::of_child(&supervisor)?));
    let (report, terminal) = match asked {
        Ok(Some((report, terminal))) => (Some(report), terminal),
        Ok(None) => (None, None),
        Err(error) => {
            // It has nobody to report to any more, so it undoes what it did and ends.
            drop(control);
            supervisor.wait().context("can't wait for the supervisor")?;
            return Err(error);
        }
    };
    Ok((control, supervisor, report, terminal))
}

/// Takes down what a dead supervisor left of a container that should not be there.
fn give_up(
    containers: &Containers,
    id: &Id,
    make_network: &NetworkFactory<'_>,
    error: anyhow::Error,
) -> anyhow::Error {
    let clean_up = || match containers.lock(id)? {
        Some(locked) => undo(containers, locked, make_network),
        None => Ok(()),
    };
    match clean_up() {
        Ok(()) => error,
        Err(left) => error.context(format!("{left:#}; it was given up because")),
    }
}
