//! A process of ours that works for a command: this program, executed again.

use std::{
    ffi::OsStr,
    io::{stdin, stdout},
    os::{
        fd::{AsFd, OwnedFd},
        unix::process::CommandExt,
    },
    process::{Child, Command, ExitStatus, Stdio},
};

use anyhow::Context;
use rustix::termios::tcgetwinsize;

use super::{
    control::{Control, Hello, Report},
    foreground::{self, UserSignals},
    process::ProcessHandle,
};

/// The other end of the line to a helper, and what it said first.
pub(crate) struct Helper {
    control: Control,
    child: Child,
    /// Whether what it was to start runs; none if the helper was killed before it could say.
    pub(crate) report: Option<Report>,
    terminal: Option<OwnedFd>,
}

/// What has become of what a helper started.
pub(crate) enum Relayed {
    /// It has ended.
    Exited {
        /// Its exit code, or 128 + the signal that killed it.
        exit_code: u8,
        /// What went wrong when it had ended.
        trouble: Option<String>,
    },
    /// Nobody said how it ended, or could hear it.
    Lost {
        /// How the helper ended.
        status: ExitStatus,
        /// Why it was given up, if it was not the helper that was lost.
        error: Option<anyhow::Error>,
    },
}

impl Helper {
    /// Executes this program with hidden arguments, and waits until it says how the start went.
    ///
    /// What is started is shown by this process if `attached`, and reads what this process reads if
    /// `reads`. A `request` is passed on after the hello.
    pub(crate) fn start(
        args: &[&OsStr],
        attached: bool,
        reads: bool,
        request: Option<OwnedFd>,
    ) -> anyhow::Result<Self> {
        let (control, theirs) = Control::pair()?;
        let output = || {
            if attached {
                Stdio::inherit()
            } else {
                Stdio::null()
            }
        };
        let mut child = Command::new("/proc/self/exe")
            .arg0("mydocker")
            .args(args)
            // These would pass files of whoever started us on to the container.
            .env_remove("LISTEN_FDS")
            .env_remove("LISTEN_PID")
            .current_dir("/")
            .stdin(theirs.into_fd())
            .stdout(output())
            .stderr(output())
            .spawn()
            .context("can't start a helper")?;
        match ask(&control, &child, attached, reads, request) {
            Ok((report, terminal)) => Ok(Self {
                control,
                child,
                report,
                terminal,
            }),
            Err(error) => {
                // It has nobody to report to any more, so it undoes what it did and ends.
                drop(control);
                child.wait().context("can't wait for the helper")?;
                Err(error)
            }
        }
    }

    /// Waits for its end.
    pub(crate) fn wait(&mut self) -> anyhow::Result<ExitStatus> {
        self.child.wait().context("can't wait for the helper")
    }

    /// Passes input, output and signals to and fro until what was started has ended.
    pub(crate) fn relay(
        mut self,
        signals: &UserSignals,
        interactive: bool,
    ) -> anyhow::Result<Relayed> {
        let terminal = self.terminal.take();
        let exited = ProcessHandle::of_child(&self.child).and_then(|helper| {
            foreground::relay(&self.control, signals, terminal, interactive, &helper)
        });
        if let Ok(Some(Report::Exited { exit_code, trouble })) = exited {
            self.wait()?;
            return Ok(Relayed::Exited { exit_code, trouble });
        }
        let Self {
            control, mut child, ..
        } = self;
        // If it lives, this tells it to end what it watches over.
        drop(control);
        let status = child.wait().context("can't wait for the helper")?;
        let error = exited.err();
        Ok(Relayed::Lost { status, error })
    }
}

type Answer = (Option<Report>, Option<OwnedFd>);

fn ask(
    control: &Control,
    child: &Child,
    attached: bool,
    reads: bool,
    request: Option<OwnedFd>,
) -> anyhow::Result<Answer> {
    let size = tcgetwinsize(stdout()).ok();
    let hello = Hello {
        rows: size.map_or(0, |size| size.ws_row),
        columns: size.map_or(0, |size| size.ws_col),
        attached,
    };
    let input = reads.then(|| stdin().as_fd().try_clone_to_owned());
    control.send(&hello, input.transpose()?)?;
    if request.is_some() {
        control.send(&hello, request)?;
    }
    let answer = control.receive_from::<Report>(&ProcessHandle::of_child(child)?)?;
    Ok(answer.map_or((None, None), |(report, terminal)| (Some(report), terminal)))
}
