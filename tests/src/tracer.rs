//! Tracer: a program that is killed before a system call of one's choice.

use std::process::{Command, Stdio};

use nix::errno::Errno;
use nix::libc::{self, c_long};
use nix::sys::ptrace::{self, Options};
use nix::sys::signal::{Signal, kill};
use nix::sys::wait::{WaitPidFlag, WaitStatus, waitpid};
use nix::unistd::Pid;

use crate::Attempt;

/// Stops itself, so that a tracer can seize it, and becomes the program once it goes on.
const LAUNCHER: &str = r#"kill -STOP $$; exec "$@""#;

/// Runs `command`, and ends it with SIGKILL, all threads of it, before the call of that number,
/// the first being 0; it has then met with a line of `/proc/PID/syscall`. Calls count that may have an effect outside the process, from the program
/// that `command` becomes by `execs` more calls of `execve`.
///
/// To die before the others would be to die before the next one that counts, and to die after a
/// call is to die before the next: this is every place where a process could end.
///
/// # Panics
/// When it can't be traced.
#[must_use]
pub fn kill_before(command: &Command, execs: usize, number: usize) -> Attempt {
    let mut launcher = Command::new("sh");
    launcher.args(["-c", LAUNCHER, "sh"]);
    launcher.arg(command.get_program()).args(command.get_args());
    let envs = command
        .get_envs()
        .filter_map(|(key, value)| Some((key, value?)));
    launcher.envs(envs);
    let quiet = launcher.stdin(Stdio::null()).stdout(Stdio::null());
    let mut child = quiet.stderr(Stdio::null()).spawn().expect("sh starts");
    let leader = Pid::from_raw(child.id().cast_signed());
    seize(leader);
    let end = Tracee {
        leader,
        // The launcher's own one leads to `command`.
        execs: execs + 1,
        calls: number,
        killed_before: None,
    }
    .run();
    // It was waited for above, where the library did not see it.
    let _ = child.wait();
    end
}

fn seize(pid: Pid) {
    let stopped = waitpid(pid, Some(WaitPidFlag::WUNTRACED));
    assert_eq!(stopped, Ok(WaitStatus::Stopped(pid, Signal::SIGSTOP)));
    let options = Options::PTRACE_O_TRACESYSGOOD
        | Options::PTRACE_O_TRACEEXEC
        | Options::PTRACE_O_TRACECLONE
        | Options::PTRACE_O_TRACEFORK
        | Options::PTRACE_O_TRACEVFORK
        | Options::PTRACE_O_EXITKILL;
    ptrace::seize(pid, options).expect("a child can be traced");
    kill(pid, Signal::SIGCONT).expect("it is there");
}

/// A program and its threads.
struct Tracee {
    leader: Pid,
    /// How many programs it is going to become.
    execs: usize,
    /// How many calls it may still make.
    calls: usize,
    killed_before: Option<String>,
}

impl Tracee {
    fn run(mut self) -> Attempt {
        // Not the children of other tests, which are threads of this process under `cargo test`.
        let flags = Some(WaitPidFlag::__WALL | WaitPidFlag::__WNOTHREAD);
        loop {
            let (pid, signal) = match waitpid(None, flags).expect("it has not ended") {
                WaitStatus::Exited(pid, code) if pid == self.leader => {
                    let (met, code) = (None, Some(code));
                    return Attempt { met, code };
                }
                WaitStatus::Signaled(pid, signal, _) if pid == self.leader => {
                    let (met, code) = (self.killed_before, None);
                    assert!(met.is_some(), "it died of {signal}");
                    return Attempt { met, code };
                }
                WaitStatus::PtraceSyscall(pid) => {
                    self.handle_call(pid);
                    (pid, None)
                }
                WaitStatus::PtraceEvent(pid, _, event) => {
                    if event == libc::PTRACE_EVENT_EXEC {
                        self.execs -= 1;
                    }
                    (pid, None)
                }
                WaitStatus::Stopped(pid, signal) => (pid, Some(signal)),
                WaitStatus::Exited(..)
                | WaitStatus::Signaled(..)
                | WaitStatus::Continued(_)
                | WaitStatus::StillAlive => continue,
            };
            match ptrace::syscall(pid, signal) {
                // The others die with the one that was killed.
                Ok(()) | Err(Errno::ESRCH) => {}
                Err(error) => panic!("thread {pid} can't go on: {error}"),
            }
        }
    }

    /// A thread is about to make a call, or has made one.
    fn handle_call(&mut self, pid: Pid) {
        let dying = self.killed_before.is_some();
        if dying || self.execs > 0 || !is_entry(pid) {
            return;
        }
        let path = format!("/proc/{pid}/syscall");
        let call = std::fs::read_to_string(path).expect("it is stopped");
        if is_harmless(&call) {
            return;
        }
        if self.calls > 0 {
            self.calls -= 1;
            return;
        }
        kill(self.leader, Signal::SIGKILL).expect("it is there");
        self.killed_before = Some(call.trim().to_owned());
    }
}

fn is_entry(pid: Pid) -> bool {
    let info = ptrace::syscall_info(pid).expect("it is stopped");
    info.op == libc::PTRACE_SYSCALL_INFO_ENTRY
}

/// Whether nobody else can tell that the call was made. What is not known here is not harmless.
fn is_harmless(call: &str) -> bool {
    let mut words = call.split_whitespace();
    let number: Option<c_long> = words.next().and_then(|word| word.parse().ok());
    let Some(number) = number else { return false };
    if number == libc::SYS_openat {
        let flags = words.nth(2).and_then(|word| word.strip_prefix("0x"));
        let flags = flags.and_then(|hex| i64::from_str_radix(hex, 16).ok());
        let changing = i64::from(libc::O_CREAT | libc::O_TRUNC);
        return flags.is_some_and(|flags| flags & changing == 0);
    }
    HARMLESS.contains(&number) || HARMLESS_HERE.contains(&number)
}

/// They look, or change only what ends with the process: its memory, its signals, its sockets.
const HARMLESS: &[c_long] = &[
    libc::SYS_bind,
    libc::SYS_brk,
    libc::SYS_close,
    libc::SYS_fcntl,
    libc::SYS_fstat,
    libc::SYS_fstatfs,
    libc::SYS_futex,
    libc::SYS_getdents64,
    libc::SYS_geteuid,
    libc::SYS_getpid,
    libc::SYS_getrandom,
    libc::SYS_getsockname,
    libc::SYS_gettid,
    libc::SYS_lseek,
    libc::SYS_madvise,
    libc::SYS_mmap,
    libc::SYS_mprotect,
    libc::SYS_munmap,
    libc::SYS_newfstatat,
    libc::SYS_prctl,
    libc::SYS_pread64,
    libc::SYS_prlimit64,
    libc::SYS_read,
    libc::SYS_readlinkat,
    libc::SYS_recvfrom,
    libc::SYS_recvmsg,
    libc::SYS_rseq,
    libc::SYS_rt_sigaction,
    libc::SYS_rt_sigprocmask,
    libc::SYS_sched_getaffinity,
    libc::SYS_set_robust_list,
    libc::SYS_set_tid_address,
    libc::SYS_setsockopt,
    libc::SYS_sigaltstack,
    libc::SYS_socket,
    libc::SYS_statx,
];

#[cfg(target_arch = "x86_64")]
const HARMLESS_HERE: &[c_long] = &[
    libc::SYS_access,
    libc::SYS_arch_prctl,
    libc::SYS_poll,
    libc::SYS_readlink,
];
#[cfg(not(target_arch = "x86_64"))]
const HARMLESS_HERE: &[c_long] = &[libc::SYS_ppoll];
