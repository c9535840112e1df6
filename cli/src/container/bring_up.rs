//! Makes a recorded container run.

use std::{
    fs::File,
    io::{PipeReader, PipeWriter, pipe},
    os::fd::{AsFd, AsRawFd, OwnedFd},
    path::PathBuf,
    process,
};

use anyhow::Context;
use rustix::{
    fs::{Uid, fchown},
    pty::{OpenptFlags, ioctl_tiocgptpeer},
    termios::{Winsize, tcsetwinsize},
};

use super::{
    NetworkFactory,
    control::Hello,
    files::EtcFiles,
    log::LogWriter,
    netns,
    network::Attached,
    overlay::MadeDirs,
    process::Process,
    record::{Record, Status},
    runtime::{self, Stdio, bundle},
    spec::NetworkMode,
    store::{Containers, Locked},
    user::{self, User},
    wait,
};

/// What the supervisor holds of a running container.
#[derive(Debug, Default)]
pub(crate) struct Running {
    /// Our side of its terminal.
    pub(crate) terminal: Option<OwnedFd>,
    /// Whether a command shows its output, and it ends with that.
    pub(crate) attached: bool,
    /// Keeps its standard input open where nobody writes to it.
    pub(crate) input: Option<PipeWriter>,
    /// Where what comes out of it goes, if no command shows it.
    pub(crate) log: Option<LogWriter>,
    /// What it writes to standard output and standard error, if that goes to the log.
    pub(crate) output: Option<(PipeReader, PipeReader)>,
}

/// Goes from a record to a running program. After a failure, a teardown undoes what was done, and
/// `made_dirs` has the volume directories that are new.
pub(crate) fn bring_up(
    containers: &Containers,
    locked: &mut Locked,
    make_network: &NetworkFactory<'_>,
    made_dirs: &mut MadeDirs,
    (hello, stdin): (Hello, Option<OwnedFd>),
) -> anyhow::Result<Running> {
    let record = &locked.record;
    let hostname = record.spec.hostname.clone().unwrap_or_default();
    for volume in &record.spec.volumes {
        made_dirs.make(&volume.source)?;
    }
    let overlay = containers.overlay(&record.id);
    overlay.mount(&containers.layer_dirs(record))?;
    overlay.make_dir_inside(record.spec.workdir())?;
    wait::begin(&containers.exit_path(&record.id))?;
    let user = user::resolve(record.spec.user.as_deref(), &overlay)?;
    let bundle_dir = containers.bundle(&record.id);
    let etc_dir = bundle_dir.join("etc");
    let home = Home::make(containers, record)?;
    let etc = match &record.spec.network {
        NetworkMode::Container(other) => {
            EtcFiles::share(etc_dir, &containers.bundle(other).join("etc"))?
        }
        NetworkMode::None | NetworkMode::Host | NetworkMode::Attached => {
            EtcFiles::create(etc_dir, &hostname, record.spec.names.clone())?
        }
    };
    let files = etc.mounts();
    for (_, inside) in &files {
        overlay.drop_dangling_link(inside)?;
    }
    let netns = home.path(record.spec.runtime.is_none());
    let places = bundle::Places {
        root: &overlay.merged(),
        netns: netns.as_deref(),
        files: &files,
        user: &user,
    };
    bundle::write(&bundle_dir, record, &places)?;

    let log = (!hello.attached).then(|| LogWriter::open(&containers.log_path(&record.id)));
    let log = log.transpose()?;
    let (stdin, input) = match stdin {
        None if record.spec.interactive && !record.spec.terminal => {
            let (read, write) = pipe().context("can't make a pipe")?;
            (Some(read.into()), Some(write))
        }
        stdin => (stdin, None),
    };
    let (stdio, output) = stdio(record.spec.terminal, hello.attached, stdin, &user)?;
    let program = record.spec.runtime.as_deref();
    let state = containers.runtime_dir();
    let (created, terminal) = runtime::create(program, &record.id, &bundle_dir, &state, stdio)?;
    locked.record.init = Some(Process::of(created.pid())?);
    locked.save_running()?;
    // From here on threads are allowed: the runtime clones no more.
    match &locked.record.spec.network {
        NetworkMode::Attached => {
            let netns = containers.netns(&locked.record.id);
            let attached = make_network(containers)
                .and_then(|mut network| network.attach(&locked.record, &netns))
                .with_context(|| {
                    format!(
                        "can't attach container {} to its networks",
                        locked.record.name
                    )
                })?;
            locked.record.endpoints = attached.info.clone();
            etc.attach(&attached)?;
        }
        NetworkMode::Host => etc.copy_from_host(&hostname)?,
        NetworkMode::None => etc.attach(&Attached::default())?,
        NetworkMode::Container(_) => {}
    }
    if let Some(terminal) = &terminal {
        set_size(terminal, hello)?;
        give_terminal(terminal, &user)?;
    }
    created.start()?;
    locked.record.set_running();
    locked.save_running()?;
    Ok(Running {
        terminal,
        attached: hello.attached,
        input,
        log,
        output,
    })
}

/// The network namespace that a container lives in.
enum Home {
    Host,
    /// Pinned here.
    Own(PathBuf),
    /// Another container's, kept by the open file.
    Shared(File),
}

impl Home {
    fn make(containers: &Containers, record: &Record) -> anyhow::Result<Self> {
        match &record.spec.network {
            NetworkMode::Host => Ok(Self::Host),
            NetworkMode::None | NetworkMode::Attached => {
                let pin = containers.netns(&record.id);
                netns::create(&pin)?;
                Ok(Self::Own(pin))
            }
            NetworkMode::Container(other) => {
                let other = containers.load(other)?.with_context(|| {
                    format!("no container {other}, whose network is to be joined")
                })?;
                let running = match (&other.init, other.status()) {
                    (Some(init), Status::Running) => netns::of_process(init)?,
                    (_, Status::Created | Status::Running | Status::Exited) => None,
                };
                running.map(Self::Shared).with_context(|| {
                    format!(
                        "container {} does not run: its network can't be joined",
                        other.name
                    )
                })
            }
        }
    }

    /// Where a runtime finds it: one that is not `ours` is another process, without our files.
    fn path(&self, ours: bool) -> Option<PathBuf> {
        match self {
            Self::Host => None,
            Self::Own(pin) => Some(pin.clone()),
            Self::Shared(file) if ours => {
                Some(format!("/proc/self/fd/{}", file.as_raw_fd()).into())
            }
            Self::Shared(file) => {
                Some(format!("/proc/{}/fd/{}", process::id(), file.as_raw_fd()).into())
            }
        }
    }
}

type Output = Option<(PipeReader, PipeReader)>;

fn stdio(
    terminal: bool,
    attached: bool,
    stdin: Option<OwnedFd>,
    user: &User,
) -> anyhow::Result<(Stdio, Output)> {
    if terminal {
        return Ok((Stdio::Terminal, None));
    }
    let stdin = match stdin {
        Some(stdin) => stdin,
        None => File::open("/dev/null")
            .context("can't open /dev/null")?
            .into(),
    };
    if !attached {
        let (stdout_log, stdout) = pipe().context("can't make a pipe")?;
        let (stderr_log, stderr) = pipe().context("can't make a pipe")?;
        give(&stdout, user)?;
        give(&stderr, user)?;
        let files = Stdio::Files {
            stdin,
            stdout: stdout.into(),
            stderr: stderr.into(),
        };
        return Ok((files, Some((stdout_log, stderr_log))));
    }
    let own = |fd: std::os::fd::BorrowedFd<'_>| {
        fd.try_clone_to_owned().context("can't pass on the output")
    };
    let stdout = own(std::io::stdout().as_fd())?;
    let stderr = own(std::io::stderr().as_fd())?;
    Ok((
        Stdio::Files {
            stdin,
            stdout,
            stderr,
        },
        None,
    ))
}

/// So that its user can open what it writes to again, as `/dev/stdout` does.
fn give(file: impl AsFd, user: &User) -> anyhow::Result<()> {
    fchown(file, Some(Uid::from_raw(user.uid)), None).context("can't give the container its output")
}

/// The same for its end of `terminal`.
fn give_terminal(terminal: &OwnedFd, user: &User) -> anyhow::Result<()> {
    let flags = OpenptFlags::RDWR | OpenptFlags::NOCTTY | OpenptFlags::CLOEXEC;
    let inside =
        ioctl_tiocgptpeer(terminal, flags).context("can't open the container's terminal")?;
    give(inside, user)
}

pub(crate) fn set_size(terminal: &OwnedFd, hello: Hello) -> anyhow::Result<()> {
    if hello.rows == 0 || hello.columns == 0 {
        return Ok(());
    }
    let size = Winsize {
        ws_row: hello.rows,
        ws_col: hello.columns,
        ws_xpixel: 0,
        ws_ypixel: 0,
    };
    tcsetwinsize(terminal, size).context("can't size the container's terminal")
}
