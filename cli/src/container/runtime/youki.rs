//! The embedded runtime: youki's libcontainer.
//!
//! It clones processes that go on running Rust code, so it may be called only while this process has
//! a single thread. The supervisor does so, before it starts its own threads.

use std::{
    fs,
    io::{ErrorKind, PipeReader, PipeWriter, Read, Write, pipe},
    os::{fd::OwnedFd, unix::process::CommandExt},
    path::Path,
    process::Command,
    sync::Arc,
    time::Duration,
};

use anyhow::{Context, anyhow};
use libcontainer::{
    container::{Container, builder::ContainerBuilder},
    oci_spec::runtime::{LinuxSeccomp, Spec},
    seccomp::initialize_seccomp,
    syscall::syscall::SyscallType,
    workload::{Executor, ExecutorError, ExecutorSetEnvsError, ExecutorValidationError},
};
use rustix::process::{Signal, WaitOptions, set_parent_process_death_signal, wait};

use super::{
    Failure, Stdio,
    console::{self, Console},
};
use crate::container::{
    Id,
    process::{Process, ProcessHandle},
};

/// A container that is complete but for its program, which waits to be started.
#[derive(Debug)]
pub(crate) struct Created {
    container: Container,
    pid: i32,
    failure: PipeReader,
}

impl Created {
    /// Its first process, a child of ours.
    pub(crate) fn pid(&self) -> i32 {
        self.pid
    }

    /// Starts the program. Returns when it runs, or with a [`Failure`] when it can't.
    pub(crate) fn start(mut self) -> anyhow::Result<()> {
        self.container
            .start()
            .context("can't start the container")?;
        hear(self.failure)
    }
}

/// Returns when the program was executed, which closes the other end, or with the reason why it can't be.
fn hear(mut failure: PipeReader) -> anyhow::Result<()> {
    let mut text = String::new();
    failure
        .read_to_string(&mut text)
        .context("can't hear the container")?;
    match text.split_once(' ') {
        Some((code, message)) => {
            let exit_code = code
                .parse()
                .context("the container failed without saying how")?;
            Err(Failure {
                exit_code,
                message: message.to_owned(),
            }
            .into())
        }
        None => Ok(()),
    }
}

/// The runtime is there.
pub(crate) fn check() -> anyhow::Result<()> {
    Ok(())
}

/// Makes the container described by `bundle`, and its terminal if it gets one.
pub(crate) fn create(
    id: &Id,
    bundle: &Path,
    state_root: &Path,
    stdio: Stdio,
) -> anyhow::Result<(Created, Option<OwnedFd>)> {
    let (failure, launcher) = Launcher::new(true)?;
    let (builder, console) = builder(id, state_root, launcher, stdio, bundle, console::SOCKET)?;
    // No systemd: the cgroups are made directly, whatever manages the others.
    let container = builder
        .as_init(bundle)
        .with_systemd(false)
        .with_detach(true)
        .build()
        .context("can't create the container")?;
    let pid = container
        .pid()
        .ok_or_else(|| anyhow!("the container has no process"))?
        .as_raw();
    let terminal = console.as_ref().map(Console::accept).transpose()?;
    Ok((
        Created {
            container,
            pid,
            failure,
        },
        terminal,
    ))
}

/// Runs another program, which `request` describes, in a container that runs: its number, a child of
/// ours, and its terminal if it gets one. If `tied` it dies with this process, as the first one does.
///
/// Nobody else may do the same meanwhile, or take the container down.
pub(crate) fn exec(
    id: &Id,
    bundle: &Path,
    state_root: &Path,
    request: &Path,
    stdio: Stdio,
    tied: bool,
) -> anyhow::Result<(i32, Option<OwnedFd>)> {
    sweep(bundle, state_root, id)?;
    let (failure, mut launcher) = Launcher::new(tied)?;
    launcher.filter = filter(bundle)?.map(Arc::new);
    let (builder, console) = builder(
        id,
        state_root,
        launcher,
        stdio,
        bundle,
        console::EXEC_SOCKET,
    )?;
    let built = builder
        .as_tenant()
        .with_process(Some(request))
        .with_detach(true)
        .build()
        .context("can't run a program in the container");
    sweep(bundle, state_root, id)?;
    let started = built.and_then(|pid| {
        let terminal = console.as_ref().map(Console::accept).transpose()?;
        hear(failure)?;
        Ok((pid.as_raw(), terminal))
    });
    if started.is_err() {
        // It ends by itself, and would stay a zombie where nobody waits for it.
        while wait(WaitOptions::empty()).is_ok() {}
    }
    started
}

/// Which system calls a container may make: the library sees to that for the first program alone.
fn filter(bundle: &Path) -> anyhow::Result<Option<LinuxSeccomp>> {
    let path = bundle.join("config.json");
    let spec = Spec::load(&path).with_context(|| format!("can't read {}", path.display()))?;
    let linux = spec.linux().as_ref();
    Ok(linux.and_then(|linux| linux.seccomp().clone()))
}

/// Removes the sockets by which a program was started, which the runtime leaves.
fn sweep(bundle: &Path, state_root: &Path, id: &Id) -> anyhow::Result<()> {
    let dir = state_root.join(id.as_str());
    let what = || format!("can't sweep {}", dir.display());
    let mut left = vec![bundle.join(console::EXEC_SOCKET)];
    for entry in fs::read_dir(&dir).with_context(what)? {
        let entry = entry.with_context(what)?;
        if entry.file_name().to_string_lossy().starts_with("tenant-") {
            left.push(entry.path());
        }
    }
    for path in left {
        match fs::remove_file(&path) {
            Err(error) if error.kind() != ErrorKind::NotFound => {
                return Err(error).with_context(|| format!("can't remove {}", path.display()));
            }
            _ => {}
        }
    }
    Ok(())
}

/// What is alike for a container's first program and any other. A terminal is offered in the bundle, by the
/// name `console`.
fn builder(
    id: &Id,
    state_root: &Path,
    launcher: Launcher,
    stdio: Stdio,
    bundle: &Path,
    console: &str,
) -> anyhow::Result<(ContainerBuilder, Option<Console>)> {
    let builder = ContainerBuilder::new(id.as_str().to_owned(), SyscallType::default())
        .with_executor(launcher)
        .with_root_path(state_root)
        .context("can't use the runtime's state directory")?;
    Ok(match stdio {
        Stdio::Terminal => (
            builder.with_console_socket(Some(bundle.join(console))),
            Some(Console::listen(bundle, console)?),
        ),
        Stdio::Files {
            stdin,
            stdout,
            stderr,
        } => (
            builder
                .with_stdin(stdin)
                .with_stdout(stdout)
                .with_stderr(stderr),
            None,
        ),
    })
}

/// The last of our code that runs in the container.
#[derive(Clone, Debug)]
struct Launcher {
    failed: Arc<PipeWriter>,
    /// Whom it dies with.
    supervisor: Option<Arc<ProcessHandle>>,
    /// Which system calls it may make, where the library does not see to that.
    filter: Option<Arc<LinuxSeccomp>>,
}

impl Launcher {
    /// One that ties the program to this process or not, and where its failure is heard.
    fn new(tied: bool) -> anyhow::Result<(PipeReader, Self)> {
        let (failure, failed) = pipe().context("can't make a pipe")?;
        let this = || -> anyhow::Result<_> {
            let this = Process::current()?.open()?;
            Ok(Arc::new(this.context("this process is gone")?))
        };
        let launcher = Self {
            failed: Arc::new(failed),
            supervisor: tied.then(this).transpose()?,
            filter: None,
        };
        Ok((failure, launcher))
    }
}

impl Executor for Launcher {
    /// Runs before the container counts as created, with its final identity: from here on it dies with
    /// its supervisor. (The kernel forgets this when the identity changes, so not earlier.)
    fn validate(&self, _: &Spec) -> Result<(), ExecutorValidationError> {
        let Some(supervisor) = &self.supervisor else {
            return Ok(());
        };
        let tied = set_parent_process_death_signal(Some(Signal::KILL))
            .context("can't tie the container to its supervisor")
            .and_then(|()| {
                // It may have been killed just before, and then no signal comes.
                match supervisor.wait(Duration::ZERO)? {
                    true => Err(anyhow!("the supervisor is gone")),
                    false => Ok(()),
                }
            });
        tied.map_err(|error| ExecutorValidationError::ArgValidationError(format!("{error:#}")))
    }

    /// [`Executor::exec`] gives the program its variables; ours need not change.
    fn setup_envs(
        &self,
        _: std::collections::HashMap<String, String>,
    ) -> Result<(), ExecutorSetEnvsError> {
        Ok(())
    }

    fn exec(&self, spec: &Spec) -> Result<(), ExecutorError> {
        let process = spec.process().as_ref().ok_or(ExecutorError::InvalidArg)?;
        let args = process.args().as_deref().unwrap_or_default();
        let (program, args) = args.split_first().ok_or(ExecutorError::InvalidArg)?;
        let env = process.env().as_deref().unwrap_or_default();
        if let Some(filter) = &self.filter {
            // Last, so that it need not allow what was done before.
            let loaded = initialize_seccomp(filter);
            loaded.map_err(|error| ExecutorError::Other(error.to_string()))?;
        }
        // `exec` searches the new PATH, and resets the signal mask and the SIGPIPE that Rust ignores.
        let error = Command::new(program)
            .args(args)
            .env_clear()
            .envs(env.iter().filter_map(|variable| variable.split_once('=')))
            .exec();
        let exit_code = if error.kind() == ErrorKind::NotFound {
            127
        } else {
            126
        };
        let message = format!("{exit_code} can't execute `{program}`: {error}");
        (&*self.failed)
            .write_all(message.as_bytes())
            .map_err(|error| ExecutorError::Other(error.to_string()))?;
        std::process::exit(exit_code)
    }
}
