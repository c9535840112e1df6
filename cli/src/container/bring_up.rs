//! Makes a recorded container run.

use std::{
    fs::File,
    io::{PipeReader, pipe},
    os::fd::{AsFd, OwnedFd},
};

use anyhow::Context;
use rustix::termios::{Winsize, tcsetwinsize};

use super::{
    NetworkFactory,
    control::Hello,
    files::EtcFiles,
    log::LogWriter,
    netns,
    overlay::MadeDirs,
    process::Process,
    runtime::{self, Stdio, bundle},
    spec::NetworkMode,
    store::{Containers, Locked},
};

/// What the supervisor holds of a running container.
#[derive(Debug, Default)]
pub(crate) struct Running {
    /// Our side of its terminal.
    pub(crate) terminal: Option<OwnedFd>,
    /// Where what comes out of it goes, if it is detached.
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
    let netns = (record.spec.network != NetworkMode::Host).then(|| containers.netns(&record.id));
    if let Some(netns) = &netns {
        netns::create(netns)?;
    }
    let bundle_dir = containers.bundle(&record.id);
    let etc = EtcFiles::create(bundle_dir.join("etc"), &hostname)?;
    let files = etc.mounts();
    for (_, inside) in &files {
        overlay.drop_dangling_link(inside)?;
    }
    let places = bundle::Places {
        root: &overlay.merged(),
        netns: netns.as_deref(),
        files: &files,
    };
    bundle::write(&bundle_dir, record, &places)?;

    let log = record
        .spec
        .detached
        .then(|| LogWriter::open(&containers.log_path(&record.id)));
    let log = log.transpose()?;
    let (stdio, output) = stdio(record.spec.terminal, record.spec.detached, stdin)?;
    let (created, terminal) =
        runtime::create(&record.id, &bundle_dir, &containers.runtime_dir(), stdio)?;
    locked.record.init = Some(Process::of(created.pid())?);
    locked.save()?;
    // From here on threads are allowed: the runtime clones no more.
    match (locked.record.spec.network, &netns) {
        (NetworkMode::Attached, Some(netns)) => {
            let attached = make_network(containers)
                .and_then(|mut network| network.attach(&locked.record, netns))
                .with_context(|| {
                    format!(
                        "can't attach container {} to its networks",
                        locked.record.name
                    )
                })?;
            locked.record.endpoints = attached.info.clone();
            etc.attach(&attached)?;
        }
        (NetworkMode::Host, _) => etc.copy_from_host(&hostname)?,
        (NetworkMode::None | NetworkMode::Attached, _) => {}
    }
    if let Some(terminal) = &terminal {
        set_size(terminal, hello)?;
    }
    created.start()?;
    locked.record.set_running();
    locked.save()?;
    Ok(Running {
        terminal,
        log,
        output,
    })
}

type Output = Option<(PipeReader, PipeReader)>;

fn stdio(
    terminal: bool,
    detached: bool,
    stdin: Option<OwnedFd>,
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
    if detached {
        let (stdout_log, stdout) = pipe().context("can't make a pipe")?;
        let (stderr_log, stderr) = pipe().context("can't make a pipe")?;
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

fn set_size(terminal: &OwnedFd, hello: Hello) -> anyhow::Result<()> {
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
