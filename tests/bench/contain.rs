//! The floor that `run` measures against: the least that can be called a container. Namespaces of its own,
//! the root file system that it is given, `/proc`, and the program; no limits, no `/dev`, no record, and
//! nothing to clean up. One process that starts another, linked statically.
//!
//! ```text
//! contain ROOT PROGRAM [ARGUMENT…]
//! ```
#![expect(unsafe_code, reason = "a fork in a process with one thread")]

use std::error::Error;
use std::ffi::CString;
use std::process::ExitCode;

use nix::mount::{MntFlags, MsFlags, mount, umount2};
use nix::sched::{CloneFlags, unshare};
use nix::sys::wait::{WaitStatus, waitpid};
use nix::unistd::{ForkResult, chdir, execv, fork, pivot_root};

/// Those that a container of `mydocker run` has.
const NAMESPACES: CloneFlags = CloneFlags::CLONE_NEWNS
    .union(CloneFlags::CLONE_NEWPID)
    .union(CloneFlags::CLONE_NEWNET)
    .union(CloneFlags::CLONE_NEWUTS)
    .union(CloneFlags::CLONE_NEWIPC);

fn enter(root: &str) -> Result<(), Box<dyn Error>> {
    let none = None::<&str>;
    mount(none, "/", none, MsFlags::MS_REC | MsFlags::MS_PRIVATE, none)?;
    // What becomes the root has to be a mount.
    mount(Some(root), root, none, MsFlags::MS_BIND, none)?;
    chdir(root)?;
    mount(Some("proc"), "proc", Some("proc"), MsFlags::empty(), none)?;
    pivot_root(".", ".")?;
    umount2(".", MntFlags::MNT_DETACH)?;
    Ok(chdir("/")?)
}

fn main() -> Result<ExitCode, Box<dyn Error>> {
    let mut words = std::env::args().skip(1);
    let root = words.next().ok_or("contain ROOT PROGRAM [ARGUMENT…]")?;
    let words: Vec<CString> = words.map(CString::new).collect::<Result<_, _>>()?;
    let program = words.first().ok_or("contain ROOT PROGRAM [ARGUMENT…]")?;
    unshare(NAMESPACES)?;
    // SAFETY: this process has one thread.
    match unsafe { fork() }? {
        ForkResult::Child => {
            enter(&root)?;
            execv(program, &words)?;
            Ok(ExitCode::FAILURE)
        }
        ForkResult::Parent { child } => {
            let ended = waitpid(child, None)?;
            if ended != WaitStatus::Exited(child, 0) {
                return Err(format!("{ended:?}").into());
            }
            Ok(ExitCode::SUCCESS)
        }
    }
}
