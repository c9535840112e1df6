//! Another OCI runtime, as runc or crun, by the command line that they have in common.
//!
//! What it starts is no child of ours but a grandchild: we are the reaper of such, so that it becomes a child
//! when the runtime ends, and tells us its exit code. It is not tied to our life as one of the embedded
//! runtime's is.

use std::{
    env, fs,
    io::ErrorKind,
    os::{
        fd::OwnedFd,
        unix::{fs::PermissionsExt, process::CommandExt},
    },
    path::{Path, PathBuf},
    process::{self, Command, ExitStatus},
};

use anyhow::{Context, bail};
use rustix::process::{Signal, getpid, set_child_subreaper, set_parent_process_death_signal};
use serde::Deserialize;

use super::{
    Failure, Stdio,
    console::{self, Console},
};
use crate::container::Id;

const LOG: &str = "runtime.log";
const PID: &str = "pid";
const EXEC_PID: &str = "exec.pid";

/// A container that waits to be started.
#[derive(Debug)]
pub(crate) struct Created {
    program: PathBuf,
    state_root: PathBuf,
    id: Id,
    pid: i32,
}

impl Created {
    /// Its first process.
    pub(crate) fn pid(&self) -> i32 {
        self.pid
    }

    /// Starts the program.
    pub(crate) fn start(self) -> anyhow::Result<()> {
        let mut start = command(&self.program, &self.state_root);
        start.args(["start", self.id.as_str()]);
        run(&mut start, "start the container")
    }
}

/// The absolute path of a runtime: a path, or a name that is searched for in `PATH`.
pub fn find(program: &Path) -> anyhow::Result<PathBuf> {
    let found = if program.as_os_str().as_encoded_bytes().contains(&b'/') {
        fs::canonicalize(program)
            .with_context(|| format!("can't find runtime {}", program.display()))?
    } else {
        let path = env::var_os("PATH").unwrap_or_default();
        let mut places = env::split_paths(&path).map(|place| place.join(program));
        let Some(place) = places.find(|place| check(place).is_ok()) else {
            bail!("there is no runtime `{}` in PATH", program.display());
        };
        fs::canonicalize(&place)
            .with_context(|| format!("can't find runtime {}", place.display()))?
    };
    check(&found)?;
    Ok(found)
}

/// Refuses what is no program.
pub(crate) fn check(program: &Path) -> anyhow::Result<()> {
    let what = || format!("can't use runtime {}", program.display());
    let metadata = fs::metadata(program).with_context(what)?;
    if !metadata.is_file() || metadata.permissions().mode() & 0o111 == 0 {
        bail!("runtime {} is no program", program.display());
    }
    Ok(())
}

/// Makes the container described by `bundle`, and its terminal if it gets one.
pub(crate) fn create(
    program: &Path,
    id: &Id,
    bundle: &Path,
    state_root: &Path,
    stdio: Stdio,
) -> anyhow::Result<(Created, Option<OwnedFd>)> {
    set_child_subreaper(Some(getpid())).context("can't become the reaper of a container")?;
    let mut create = command(program, state_root);
    // Its standard error is the container's, so what it has to say goes to a file.
    create
        .args(["--log", LOG, "--log-format", "json"])
        .args(["create", "--bundle", ".", "--pid-file", PID])
        .current_dir(bundle);
    let console = give(&mut create, stdio, bundle, console::SOCKET)?;
    create.arg(id.as_str());
    let pid = make(create, bundle, PID, "create the container")?;
    let terminal = console.as_ref().map(Console::accept).transpose()?;
    let created = Created {
        program: program.to_owned(),
        state_root: state_root.to_owned(),
        id: id.clone(),
        pid,
    };
    Ok((created, terminal))
}

/// Runs another program, which `request` describes, in a container that runs: its number, a child of ours,
/// and its terminal if it gets one.
pub(crate) fn exec(
    program: &Path,
    id: &Id,
    bundle: &Path,
    state_root: &Path,
    request: &Path,
    stdio: Stdio,
) -> anyhow::Result<(i32, Option<OwnedFd>)> {
    set_child_subreaper(Some(getpid())).context("can't become the reaper of a program")?;
    sweep(bundle)?;
    let mut exec = command(program, state_root);
    exec.args(["--log", LOG, "--log-format", "json"])
        .args(["exec", "--detach", "--pid-file", EXEC_PID, "--process"])
        .arg(request)
        .current_dir(bundle);
    let console = give(&mut exec, stdio, bundle, console::EXEC_SOCKET)?;
    exec.arg(id.as_str());
    let pid = make(exec, bundle, EXEC_PID, "run a program in the container");
    let terminal = console.as_ref().map(Console::accept);
    sweep(bundle)?;
    Ok((pid?, terminal.transpose()?))
}

/// Removes the files by which a program was started, and what the runtime said of an earlier one.
fn sweep(bundle: &Path) -> anyhow::Result<()> {
    for name in [EXEC_PID, console::EXEC_SOCKET, LOG] {
        let path = bundle.join(name);
        match fs::remove_file(&path) {
            Err(error) if error.kind() != ErrorKind::NotFound => {
                return Err(error).with_context(|| format!("can't remove {}", path.display()));
            }
            _ => {}
        }
    }
    Ok(())
}

/// Gives a command what the program that it makes is to have. A terminal is offered in the bundle, by that
/// name.
fn give(
    command: &mut Command,
    stdio: Stdio,
    bundle: &Path,
    console: &str,
) -> anyhow::Result<Option<Console>> {
    match stdio {
        Stdio::Terminal => {
            command.args(["--console-socket", console]);
            command
                .stdin(process::Stdio::null())
                .stdout(process::Stdio::null())
                .stderr(process::Stdio::null());
            Console::listen(bundle, console).map(Some)
        }
        Stdio::Files {
            stdin,
            stdout,
            stderr,
        } => {
            command.stdin(stdin).stdout(stdout).stderr(stderr);
            Ok(None)
        }
    }
}

/// Has a command make a process, whose number it writes to a file in the bundle.
fn make(mut command: Command, bundle: &Path, pid: &str, what: &str) -> anyhow::Result<i32> {
    let program = PathBuf::from(command.get_program());
    let status = command
        .status()
        .with_context(|| cannot(&program, "be executed"))?;
    // The files that it was given are the container's alone from here on.
    drop(command);
    if !status.success() {
        let said = fs::read(bundle.join(LOG)).unwrap_or_default();
        return Err(failure(&program, what, status, &last_error(&said)));
    }
    let path = bundle.join(pid);
    fs::read_to_string(&path)
        .with_context(|| format!("can't read {}", path.display()))?
        .trim()
        .parse()
        .with_context(|| format!("{} holds no process number", path.display()))
}

/// Has the runtime end and forget a container. One that it doesn't know is no error; nor is a runtime that
/// is gone: whoever calls this removes the container's processes and files, too.
pub(crate) fn delete(program: &Path, state_root: &Path, id: &Id) -> anyhow::Result<()> {
    if !state_root.join(id.as_str()).exists() || !program.exists() {
        return Ok(());
    }
    let mut delete = command(program, state_root);
    delete.args(["delete", "--force", id.as_str()]);
    run(&mut delete, "delete the container")
}

#[expect(
    unsafe_code,
    reason = "no safe way to be tied to whoever waits for a command"
)]
fn command(program: &Path, state_root: &Path) -> Command {
    let mut command = Command::new(program);
    command.arg("--root").arg(state_root);
    // What is meant for whoever started us (a socket to notify, files to inherit) is not the container's.
    command.env_clear();
    command.envs(env::var_os("PATH").map(|path| ("PATH", path)));
    // SAFETY: after a fork, it makes one system call, and takes no memory and no lock.
    unsafe {
        // If we are killed, nobody may go on with what the next command takes down.
        command.pre_exec(|| Ok(set_parent_process_death_signal(Some(Signal::KILL))?));
    }
    command
}

fn run(command: &mut Command, what: &str) -> anyhow::Result<()> {
    let program = PathBuf::from(command.get_program());
    let output = command
        .stdin(process::Stdio::null())
        .output()
        .with_context(|| cannot(&program, "be executed"))?;
    if output.status.success() {
        return Ok(());
    }
    let said = String::from_utf8_lossy(&output.stderr);
    Err(failure(&program, what, output.status, said.trim()))
}

fn cannot(program: &Path, what: &str) -> String {
    format!("runtime {} can't {what}", program.display())
}

/// By what it says: there is no other way to tell why, for Docker neither.
fn failure(program: &Path, what: &str, status: ExitStatus, said: &str) -> anyhow::Error {
    let said = if said.is_empty() {
        status.to_string()
    } else {
        said.to_owned()
    };
    let lower = said.to_ascii_lowercase();
    let says =
        |words: &[&str]| lower.contains("exec") && words.iter().any(|word| lower.contains(word));
    let message = format!("{}: {said}", cannot(program, what));
    let exit_code = if says(&["not found", "no such file or directory"]) {
        127
    } else if says(&["permission denied", "is a directory", "exec format error"]) {
        126
    } else {
        return anyhow::Error::msg(message);
    };
    Failure { exit_code, message }.into()
}

/// The last error in a log of JSON lines.
fn last_error(log: &[u8]) -> String {
    #[derive(Deserialize)]
    struct Line {
        level: String,
        msg: String,
    }
    let lines = log.split(|&byte| byte == b'\n').rev();
    let mut lines = lines.filter_map(|line| serde_json::from_slice::<Line>(line).ok());
    let error = lines.find(|line| line.level.eq_ignore_ascii_case("error"));
    error.map(|line| line.msg).unwrap_or_default()
}

#[cfg(test)]
mod tests {
    use std::os::unix::process::ExitStatusExt;

    use super::*;

    #[test]
    fn a_runtime_is_a_program() {
        let sh = find(Path::new("sh")).unwrap();
        assert!(sh.is_absolute());
        assert_eq!(find(&sh).unwrap(), sh);
        for bad in [
            "",
            "no-such-runtime",
            "/no/such/runtime",
            "/etc/passwd",
            "/etc",
        ] {
            let said = format!("{:#}", find(Path::new(bad)).unwrap_err());
            assert!(said.contains(bad), "{said}");
        }
    }

    #[test]
    fn what_it_says_is_what_we_exit_with() {
        let log =
            b"{\"level\":\"warning\",\"msg\":\"w\"}\n{\"level\":\"error\",\"msg\":\"first\"}\n\
            {\"level\":\"error\",\"msg\":\"last\"}\nno json\n";
        assert_eq!(last_error(log), "last");
        assert_eq!(last_error(b""), "");
        let status = ExitStatus::from_raw(1 << 8);
        for (said, exit_code) in [
            ("exec: \"x\": executable file not found in $PATH", Some(127)),
            (
                "exec: \"/x\": stat /x: no such file or directory",
                Some(127),
            ),
            (
                "exec: \"/etc\": is a directory: permission denied",
                Some(126),
            ),
            ("mount /x: no such file or directory", None),
            ("", None),
        ] {
            let error = failure(Path::new("/runc"), "create the container", status, said);
            let failure = error.downcast_ref::<Failure>();
            assert_eq!(
                failure.map(|failure| failure.exit_code),
                exit_code,
                "{said}"
            );
            assert!(error.to_string().contains("/runc"), "{error}");
        }
    }
}
