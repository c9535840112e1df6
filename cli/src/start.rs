//! What comes before anything else, without all that the standard library does there: it reads the mappings of
//! the process for where the stack ends, only to be able to say of a crash that it was an overflow. That takes
//! 46,000 instructions, and the kernel ends such a process anyhow.

use std::os::fd::IntoRawFd;
use std::panic::catch_unwind;
use std::process::{abort, exit};

use nix::libc::{self, c_char, c_int};
use rustix::fs::{Mode, OFlags};

/// What a Rust program exits with that panicked.
const PANICKED: u8 = 101;

/// Called by the C library, which hands the command line to [`std::env::args_os`] as well.
#[expect(unsafe_code, reason = "another `main` would be another program's")]
// SAFETY: it is the only one.
#[unsafe(no_mangle)]
extern "C" fn main(_: c_int, _: *const *const c_char) -> c_int {
    open_standard_files();
    ignore_broken_pipes();
    exit(catch_unwind(super::run).unwrap_or(PANICKED).into())
}

/// Sees to it that no file that is opened is one of those three: what is printed would go there.
#[expect(unsafe_code, reason = "these have no owner")]
fn open_standard_files() {
    for file in [libc::STDIN_FILENO, libc::STDOUT_FILENO, libc::STDERR_FILENO] {
        // SAFETY: this only looks.
        if unsafe { libc::fcntl(file, libc::F_GETFD) } != -1 {
            continue;
        }
        // The first number that is free is this one. Whoever is started inherits it.
        match rustix::fs::open("/dev/null", OFlags::RDWR, Mode::empty()) {
            Ok(nothing) => drop(nothing.into_raw_fd()),
            Err(_) => abort(),
        }
    }
}

/// Who writes to a pipe that nobody reads is told, and not ended.
#[expect(unsafe_code, reason = "no crate at hand ignores signals")]
fn ignore_broken_pipes() {
    // SAFETY: nobody handles the signal, and there is no other thread.
    unsafe { libc::signal(libc::SIGPIPE, libc::SIG_IGN) };
}
