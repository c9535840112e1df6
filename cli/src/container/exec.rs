//! Runs another program in a container that runs.

use std::{
    ffi::OsStr,
    fs::File,
    io::{self, Write},
    os::fd::{AsFd, BorrowedFd, OwnedFd},
    path::{Path, PathBuf},
};

use anyhow::{Context, bail};
use rustix::{
    fs::{MemfdFlags, Mode, OFlags, ResolveFlags, memfd_create, openat2},
    process::setsid,
};
use signal_hook::{consts::SIGPIPE, iterator::Signals};

use super::{
    bring_up::set_size,
    control::{Control, Hello, Report, brief},
    helper::{Helper, Relayed},
    id::Id,
    process::Process,
    record::{Record, Status},
    run::Means,
    runtime::{self, Failure, Stdio, process},
    slim::forget_program,
    store::Containers,
    supervisor::PASSED_ON,
    user::{self, User},
    watch,
};
use crate::privilege;

/// The hidden subcommand. Its arguments: root, run root, id. Its standard input: the control line.
pub(crate) const EXECUTE: &str = "__execute";

/// What the command exits with where a program can't be executed, as with `docker exec`.
const CANT_EXECUTE: u8 = 126;

/// Another program for a container, as it is asked for. What is left out is as for the first one.
#[derive(Clone, Debug, Default)]
pub struct Exec {
    /// Program and arguments.
    pub command: Vec<String>,
    /// Variables, `KEY=VALUE`, on top of the first program's.
    pub env: Vec<String>,
    /// Where it starts, absolute.
    pub workdir: Option<PathBuf>,
    /// Whom it runs as, `USER[:GROUP]`, as for a first program.
    pub user: Option<String>,
    /// Whether it gets a terminal of its own (`-t`).
    pub terminal: bool,
    /// Whether it reads what we read (`-i`).
    pub interactive: bool,
    /// Whether it runs on by itself (`-d`); nobody sees its output then.
    pub detached: bool,
}

/// What has become of a program that was run in a container.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub enum Executed {
    /// It runs on, by itself.
    Detached,
    /// It has ended: its exit code, or 128 + the signal that killed it.
    Finished(u8),
}

/// Runs another program in a container and, unless it is detached, waits for its end: its input and
/// output are this process's, and signals are passed on to it. It ends with the container at the latest.
///
/// An error that holds a [`Failure`] knows the exit code.
pub fn exec(containers: &Containers, id: &Id, exec: &Exec) -> anyhow::Result<Executed> {
    privilege::check(
        "running a program in a container",
        privilege::TO_START_CONTAINERS,
    )?;
    let record = containers
        .load(id)?
        .with_context(|| format!("no container {id}"))?;
    runtime::check(record.spec.runtime.as_deref())?;
    check_runs(&record)?;
    exec.check(&record)?;
    let means = Means {
        attached: !exec.detached,
        reads: exec.interactive && !exec.detached,
    };
    means.check(exec.terminal, "-t")?;
    let signals = means.hold_signals()?;
    let user = exec.user.as_deref();
    let user = user.map(|user| user::resolve(Some(user), &containers.overlay(id)));
    let user = user
        .transpose()
        .map_err(|error| Failure::error(Some(CANT_EXECUTE), format!("{error:#}")))?;
    let embedded = record.spec.runtime.is_none();
    let request = request(&containers.bundle(id), exec, user.as_ref(), embedded)?;
    let args = [
        OsStr::new(EXECUTE),
        containers.root().as_os_str(),
        containers.run_root().as_os_str(),
        OsStr::new(id.as_str()),
    ];
    let reads = means.reads && !exec.terminal;
    let mut helper = Helper::start(&args, means.attached, reads, Some(request))?;
    match helper.report.take() {
        Some(Report::Running) => {}
        Some(Report::Failed { exit_code, message }) => {
            helper.wait()?;
            return Err(Failure::error(exit_code, message));
        }
        Some(Report::Exited { .. }) | None => {
            helper.wait()?;
            bail!("the process that was to run it was killed");
        }
    }
    let Some(signals) = signals else {
        return Ok(Executed::Detached);
    };
    match helper.relay(&signals, means.reads)? {
        Relayed::Exited {
            trouble: Some(trouble),
            ..
        } => bail!(trouble),
        Relayed::Exited { exit_code, .. } => Ok(Executed::Finished(exit_code)),
        Relayed::Lost {
            error: Some(error), ..
        } => Err(error),
        Relayed::Lost { status, .. } => {
            bail!("the process that watched over it ended early: {status}")
        }
    }
}

impl Exec {
    /// Says what is wrong with it, before anything is done: the same as of a first program.
    fn check(&self, record: &Record) -> anyhow::Result<()> {
        let mut spec = record.spec.clone();
        if self.command.is_empty() {
            bail!("there is no command to run in container {}", record.name);
        }
        spec.command.clone_from(&self.command);
        spec.env.clone_from(&self.env);
        spec.user.clone_from(&self.user);
        if let Some(workdir) = &self.workdir {
            spec.workdir = Some(workdir.clone());
            spec.check()?;
            return check_workdir(record, workdir);
        }
        spec.check()
    }
}

/// The runtime would not say what is wrong with it.
fn check_workdir(record: &Record, workdir: &Path) -> anyhow::Result<()> {
    let root = format!("/proc/{}/root", record.pid().unwrap_or_default());
    let flags = OFlags::PATH | OFlags::DIRECTORY | OFlags::CLOEXEC;
    let root = rustix::fs::open(root, flags, Mode::empty());
    let found =
        root.and_then(|root| openat2(root, workdir, flags, Mode::empty(), ResolveFlags::IN_ROOT));
    found.map(drop).map_err(|errno| {
        let (name, workdir) = (&record.name, workdir.display());
        let message = format!("can't start in {workdir} of container {name}: {errno}");
        Failure::error(Some(CANT_EXECUTE), message)
    })
}

fn check_runs(record: &Record) -> anyhow::Result<()> {
    let name = &record.name;
    match record.status() {
        Status::Running => Ok(()),
        Status::Created => bail!("container {name} does not run yet: try again"),
        Status::Exited => {
            bail!("container {name} has ended: `mydocker start {name}` starts it again")
        }
    }
}

/// A file that tells the runtime what to run. It has no name, so nobody has to remove it.
fn request(
    bundle: &Path,
    exec: &Exec,
    user: Option<&User>,
    embedded: bool,
) -> anyhow::Result<OwnedFd> {
    let text = process::text(bundle, exec, user, embedded)?;
    let what = "can't pass on what to run";
    let mut file = File::from(memfd_create("process", MemfdFlags::CLOEXEC).context(what)?);
    file.write_all(&text).context(what)?;
    Ok(file.into())
}

/// The work of the hidden subcommand.
pub(crate) fn execute(containers: &Containers, id: &Id) -> anyhow::Result<()> {
    let control = Control::from_stdin()?;
    let started = match start(containers, id, &control) {
        Ok(started) => started,
        Err(error) => {
            control.send(&Report::failed(&error), None::<OwnedFd>)?;
            return Err(error);
        }
    };
    let Started {
        process,
        terminal,
        attached,
        signals,
    } = started;
    if attached {
        let helped = watch::help(&process, attached, signals, &control);
        forget_program();
        let waited = watch::wait(Some(&process));
        let trouble = helped.as_ref().err().or(waited.as_ref().err()).map(brief);
        let exit_code = waited.unwrap_or(u8::MAX);
        return control.send(&Report::Exited { exit_code, trouble }, None::<OwnedFd>);
    }
    // Without us nobody would hold its terminal, and it would be hung up on.
    if let Some(terminal) = terminal {
        // An error is how a terminal says that nobody has its other end any more.
        let _ = io::copy(&mut File::from(terminal), &mut io::sink());
    }
    Ok(())
}

/// A program that runs.
struct Started {
    process: Process,
    /// Our side of its terminal, if the command has not got it.
    terminal: Option<OwnedFd>,
    attached: bool,
    signals: Signals,
}

/// Starts the program and says so.
fn start(containers: &Containers, id: &Id, control: &Control) -> anyhow::Result<Started> {
    // From here on a signal waits until there is a program to pass it on to.
    let signals =
        Signals::new(PASSED_ON.iter().chain([&SIGPIPE])).context("can't handle signals")?;
    setsid().context("can't start a session")?;
    let (hello, stdin) = control.receive::<Hello>()?.context("the command is gone")?;
    let request = control.receive::<Hello>()?.and_then(|(_, request)| request);
    let request = request.context("the command does not say what to run")?;
    // While this is held nobody takes the container down, and its first process stays its own.
    let locked = containers
        .lock(id)?
        .with_context(|| format!("no container {id}"))?;
    check_runs(&locked.record)?;
    let (bundle, runtime_dir) = (containers.bundle(id), containers.runtime_dir());
    let terminal = process::has_terminal(&request)?;
    let stdio = stdio(terminal, hello.attached, stdin)?;
    let program = locked.record.spec.runtime.as_deref();
    let (pid, terminal) = runtime::exec(
        program,
        id,
        &bundle,
        &runtime_dir,
        &request,
        stdio,
        hello.attached,
    )?;
    drop(locked);
    let process = Process::of(pid)?;
    if let Some(terminal) = &terminal {
        set_size(terminal, hello)?;
    }
    let (ours, theirs) = match hello.attached {
        true => (None, terminal),
        false => (terminal, None),
    };
    control.send(&Report::Running, theirs)?;
    Ok(Started {
        process,
        terminal: ours,
        attached: hello.attached,
        signals,
    })
}

/// What it reads from and writes to: what this process does, or nothing.
fn stdio(terminal: bool, attached: bool, stdin: Option<OwnedFd>) -> anyhow::Result<Stdio> {
    if terminal {
        return Ok(Stdio::Terminal);
    }
    let null = || -> anyhow::Result<OwnedFd> {
        let file = File::options().read(true).write(true).open("/dev/null");
        Ok(file.context("can't open /dev/null")?.into())
    };
    let own = |fd: BorrowedFd<'_>| fd.try_clone_to_owned().context("can't pass on the output");
    let (stdout, stderr) = match attached {
        true => (own(io::stdout().as_fd())?, own(io::stderr().as_fd())?),
        false => (null()?, null()?),
    };
    Ok(Stdio::Files {
        stdin: stdin.map_or_else(null, Ok)?,
        stdout,
        stderr,
    })
}
