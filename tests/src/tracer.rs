//! Tracer: a program that is killed before a system call of one's choice.

use std::collections::BTreeMap;
use std::fs::File;
use std::os::unix::fs::FileExt;
use std::process::{Command, Stdio};
use std::thread;

use nix::errno::Errno;
use nix::libc::{self, c_int, c_long};
use nix::sys::ptrace::{self, Options};
use nix::sys::signal::{Signal, kill};
use nix::sys::wait::{WaitPidFlag, WaitStatus, waitpid};
use nix::unistd::Pid;

use crate::Attempt;

/// Stops itself, so that a tracer can seize it, and becomes the program once it goes on.
const LAUNCHER: &str = r#"kill -STOP $$; exec "$@""#;

/// Runs `command`, and ends it with SIGKILL, all threads of it, before the call of that number,
/// the first being 0; it has then met with a line of `/proc/PID/syscall`. Calls count that may have
/// an effect outside the process, from the program that `command` becomes by `execs` more calls of
/// `execve`. Processes that it starts go their way.
///
/// To die before the others would be to die before the next one that counts, and to die after a
/// call is to die before the next: this is every place where a process could end.
///
/// # Panics
/// When it can't be traced.
#[must_use]
pub fn kill_before(command: &Command, execs: usize, number: usize) -> Attempt {
    let leader = launch(command, Stdio::null());
    // The launcher's own one leads to `command`.
    Tracee::new(leader, Some(leader), execs + 1, number).run(|| ())
}

/// The same for the first process that `command` starts, from the program that it becomes. The
/// exit code is the command's, and once that has succeeded, `meanwhile` is done.
///
/// # Panics
/// When it can't be traced.
#[must_use]
pub fn kill_child_before(
    command: &Command,
    number: usize,
    meanwhile: impl FnOnce() + Send,
) -> Attempt {
    Tracee::new(launch(command, Stdio::null()), None, 1, number).run(meanwhile)
}

/// The same for the first process that `command` splits off, and that goes on as the same program.
///
/// # Panics
/// When it can't be traced.
#[must_use]
pub fn kill_split_before(command: &Command, number: usize) -> Attempt {
    Tracee::new(launch(command, Stdio::null()), None, 0, number).run(|| ())
}

/// What a program asked of the kernel between two calls of [`mark`], its memory and waits for its own
/// threads aside.
#[derive(Clone, Debug, Default, Eq, PartialEq)]
pub struct Counts {
    /// How often each system call was made, by number.
    pub calls: BTreeMap<c_long, usize>,
    /// Bytes in datagrams that were sent.
    pub sent_bytes: u64,
    /// Bytes in those that were received.
    pub received_bytes: u64,
    /// Netlink messages that were sent.
    pub messages: usize,
}

/// Begins what [`count`] counts, and ends it: a call that nobody makes otherwise.
pub fn mark() {
    nix::unistd::getppid();
}

/// Runs `command`, which exits with 0, and counts between two [`mark`]s.
///
/// # Panics
/// When it fails or can't be traced.
#[must_use]
pub fn count(command: &Command) -> Counts {
    let (counts, marks) = count_from(command, |stop| stop == Stop::Call(libc::SYS_getppid), 1);
    assert_eq!(marks, 2, "{command:?}");
    counts
}

/// The same from the program that `command` becomes by `execs` more calls of `execve`, to its end.
///
/// # Panics
/// When it fails or can't be traced.
#[must_use]
pub fn count_all(command: &Command, execs: usize) -> Counts {
    // The launcher's own one leads to `command`.
    count_from(command, |stop| stop == Stop::Exec, execs + 1).0
}

/// What a call says that the kernel begins anew by itself: that of a setting of an interface, for one, while
/// another process changes links. Source: include/linux/errno.h.
const ERESTARTNOINTR: i64 = 513;

/// What a program stopped at.
#[derive(Clone, Copy, Eq, PartialEq)]
enum Stop {
    /// A system call, by number.
    Call(c_long),
    /// It became another program.
    Exec,
}

/// Counts while there have been so many marks, and how many there were in the end.
fn count_from(command: &Command, is_mark: impl Fn(Stop) -> bool, from: usize) -> (Counts, usize) {
    // Whoever fails says why.
    let leader = launch(command, Stdio::inherit());
    let (mut counts, mut marks) = (Counts::default(), 0);
    loop {
        let flags = Some(WaitPidFlag::__WALL | WaitPidFlag::__WNOTHREAD);
        let (pid, signal) = match waitpid(None, flags).expect("it has not ended") {
            WaitStatus::Exited(pid, code) if pid == leader => {
                assert_eq!(code, 0, "{command:?}");
                return (counts, marks);
            }
            WaitStatus::PtraceSyscall(pid) => {
                if is_entry(pid) {
                    let call = call_of(pid);
                    marks += usize::from(is_mark(Stop::Call(call.number)));
                    if marks == from {
                        counts.enter(pid, &call);
                    }
                } else if marks == from {
                    counts.leave(pid);
                }
                (pid, None)
            }
            WaitStatus::Stopped(pid, signal) => (pid, Some(signal)),
            WaitStatus::PtraceEvent(pid, _, event) => {
                let new = event == libc::PTRACE_EVENT_STOP && is_process(pid);
                if new && pid != leader && let_go(pid) {
                    continue;
                }
                marks += usize::from(event == libc::PTRACE_EVENT_EXEC && is_mark(Stop::Exec));
                (pid, None)
            }
            WaitStatus::Exited(..)
            | WaitStatus::Signaled(..)
            | WaitStatus::Continued(_)
            | WaitStatus::StillAlive => continue,
        };
        match ptrace::syscall(pid, signal) {
            Ok(()) | Err(Errno::ESRCH) => {}
            Err(error) => panic!("thread {pid} can't go on: {error}"),
        }
    }
}

impl Counts {
    fn enter(&mut self, pid: Pid, call: &Call) {
        if OF_ITS_OWN.contains(&call.number) {
            return;
        }
        *self.calls.entry(call.number).or_default() += 1;
        if call.number == libc::SYS_sendto {
            let [_, at, length, ..] = call.arguments;
            self.sent_bytes += length;
            let mut datagram = vec![0; usize::try_from(length).expect("a short datagram")];
            let memory = File::open(format!("/proc/{pid}/mem")).expect("it is stopped");
            memory.read_exact_at(&mut datagram, at).expect("a datagram");
            self.messages += messages(&datagram);
        }
    }

    fn leave(&mut self, pid: Pid) {
        let (number, returned) = (call_of(pid).number, returned(pid));
        if returned == -ERESTARTNOINTR {
            // It is entered once more.
            if let Some(count) = self.calls.get_mut(&number) {
                *count = count.saturating_sub(1);
            }
        } else if matches!(number, libc::SYS_recvfrom | libc::SYS_recvmsg) {
            self.received_bytes += u64::try_from(returned).unwrap_or_default();
        }
    }
}

/// How many messages a netlink datagram holds (`struct nlmsghdr`, linux/netlink.h: length first).
fn messages(mut datagram: &[u8]) -> usize {
    let mut count = 0;
    while let Some(length) = datagram.first_chunk().map(|head| u32::from_ne_bytes(*head)) {
        let length = usize::try_from(length.max(16)).expect("32 bits");
        datagram = datagram
            .get(length.next_multiple_of(4)..)
            .unwrap_or_default();
        count += 1;
    }
    count
}

/// What the call that a stopped thread comes back from says.
#[expect(unsafe_code, reason = "a union")]
fn returned(pid: Pid) -> i64 {
    let info = ptrace::syscall_info(pid).expect("it is stopped");
    assert_eq!(info.op, libc::PTRACE_SYSCALL_INFO_EXIT, "it comes back");
    // SAFETY: so it says.
    unsafe { info.u.exit.sval }
}

/// How a program looks after its memory and its threads.
const OF_ITS_OWN: &[c_long] = &[
    libc::SYS_brk,
    libc::SYS_futex,
    libc::SYS_getppid,
    libc::SYS_madvise,
    libc::SYS_mmap,
    libc::SYS_mprotect,
    libc::SYS_mremap,
    libc::SYS_munmap,
];

/// A call and its arguments.
struct Call {
    number: c_long,
    arguments: [u64; 6],
}

/// The call that a stopped thread makes, or comes back from.
fn call_of(pid: Pid) -> Call {
    let path = format!("/proc/{pid}/syscall");
    let text = std::fs::read_to_string(path).expect("it is stopped");
    let mut words = text.split_whitespace();
    let number = words.next().and_then(|word| word.parse().ok());
    let mut arguments = [0; 6];
    for (argument, word) in arguments.iter_mut().zip(words) {
        *argument = hexadecimal(word).unwrap_or_default();
    }
    Call {
        number: number.unwrap_or(-1),
        arguments,
    }
}

/// A child that is about to become `command`, seized.
#[expect(clippy::zombie_processes, reason = "it is waited for as a tracee")]
fn launch(command: &Command, stderr: Stdio) -> Pid {
    let mut launcher = Command::new("sh");
    launcher.args(["-c", LAUNCHER, "sh"]);
    launcher.arg(command.get_program()).args(command.get_args());
    let envs = command
        .get_envs()
        .filter_map(|(key, value)| Some((key, value?)));
    launcher.envs(envs);
    let quiet = launcher.stdin(Stdio::null()).stdout(Stdio::null());
    let child = quiet.stderr(stderr).spawn().expect("sh starts");
    let leader = Pid::from_raw(child.id().cast_signed());
    seize(leader);
    leader
}

/// Runs `command` one instruction after the other, and says where each is. Nobody follows the processes
/// that it starts.
///
/// # Panics
/// When it can't be traced, or fails.
pub fn walk(command: &Command, mut step: impl FnMut(u64)) {
    let tracee = launch(command, Stdio::inherit());
    let mut is_there = false;
    loop {
        let status = waitpid(tracee, None).expect("it is a child");
        if let WaitStatus::Exited(_, code) = status {
            assert_eq!(code, 0, "{command:?}");
            return;
        }
        if let WaitStatus::PtraceEvent(_, _, event) = status {
            is_there |= event == libc::PTRACE_EVENT_EXEC;
            if event == libc::PTRACE_EVENT_FORK {
                let child = ptrace::getevent(tracee).expect("it has just been made");
                let child = Pid::from_raw(i32::try_from(child).expect("a number of a process"));
                waitpid(child, None).expect("it is traced from the first");
                ptrace::detach(child, None).expect("it is stopped");
            }
        } else if is_there && matches!(status, WaitStatus::Stopped(_, Signal::SIGTRAP)) {
            step(address(tracee));
        }
        match is_there {
            true => ptrace::step(tracee, None),
            false => ptrace::cont(tracee, None),
        }
        .expect("it is stopped");
    }
}

/// Of the next instruction.
#[cfg(target_arch = "x86_64")]
fn address(tracee: Pid) -> u64 {
    ptrace::getregs(tracee).expect("it is stopped").rip
}

#[cfg(not(target_arch = "x86_64"))]
fn address(_: Pid) -> u64 {
    panic!("which register it is in is known of x86-64 alone")
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

/// A command, and the program with its threads that is to be killed: the command or its child.
struct Tracee {
    leader: Pid,
    /// What the command exited with.
    code: Option<i32>,
    /// Who is killed, once it is there.
    victim: Option<Pid>,
    ended: bool,
    /// How many programs the victim is going to become.
    execs: usize,
    /// How many calls it may still make.
    calls: usize,
    killed_before: Option<String>,
}

impl Tracee {
    fn new(leader: Pid, victim: Option<Pid>, execs: usize, calls: usize) -> Self {
        Self {
            leader,
            code: None,
            victim,
            ended: false,
            execs,
            calls,
            killed_before: None,
        }
    }

    fn run(mut self, meanwhile: impl FnOnce() + Send) -> Attempt {
        thread::scope(|scope| {
            let mut meanwhile = Some(meanwhile);
            while !self.is_over() {
                self.step();
                if self.code == Some(0)
                    && let Some(meanwhile) = meanwhile.take()
                {
                    scope.spawn(meanwhile);
                }
            }
        });
        let (met, code) = (self.killed_before, self.code);
        Attempt { met, code }
    }

    fn is_over(&self) -> bool {
        let leads = self.victim == Some(self.leader);
        // A command that failed early has no child.
        self.ended && (leads || self.code.is_some()) || self.victim.is_none() && self.code.is_some()
    }

    fn step(&mut self) {
        // Not the children of other tests, which are threads of this process under `cargo test`.
        let flags = Some(WaitPidFlag::__WALL | WaitPidFlag::__WNOTHREAD);
        let (pid, signal) = match waitpid(None, flags).expect("it has not ended") {
            WaitStatus::Exited(pid, code) => return self.handle_end(pid, Some(code)),
            WaitStatus::Signaled(pid, signal, _) => {
                let known = pid != self.leader && Some(pid) != self.victim;
                let killed = self.killed_before.is_some() && Some(pid) == self.victim;
                assert!(known || killed, "{pid} died of {signal}");
                return self.handle_end(pid, None);
            }
            WaitStatus::PtraceSyscall(pid) => {
                self.handle_call(pid);
                (pid, None)
            }
            WaitStatus::PtraceEvent(pid, _, event) => {
                if self.handle_event(pid, event) {
                    return;
                }
                (pid, None)
            }
            WaitStatus::Stopped(pid, signal) => (pid, Some(signal)),
            WaitStatus::Continued(_) | WaitStatus::StillAlive => return,
        };
        match ptrace::syscall(pid, signal) {
            // The others die with the one that was killed.
            Ok(()) | Err(Errno::ESRCH) => {}
            Err(error) => panic!("thread {pid} can't go on: {error}"),
        }
    }

    fn handle_end(&mut self, pid: Pid, code: Option<i32>) {
        self.ended |= Some(pid) == self.victim;
        if pid == self.leader {
            self.code = code;
        }
    }

    /// Something but a call happened to a thread. Whether it is let go.
    fn handle_event(&mut self, pid: Pid, event: c_int) -> bool {
        match event {
            libc::PTRACE_EVENT_EXEC if Some(pid) == self.victim => self.execs -= 1,
            // It is new: a thread of somebody known, or a process.
            libc::PTRACE_EVENT_STOP if is_process(pid) && pid != self.leader => {
                if self.victim.is_none() || self.victim == Some(pid) {
                    self.victim = Some(pid);
                } else {
                    return let_go(pid);
                }
            }
            libc::PTRACE_EVENT_FORK | libc::PTRACE_EVENT_VFORK | libc::PTRACE_EVENT_CLONE
                if self.victim != Some(self.leader) && pid == self.leader =>
            {
                let new = ptrace::getevent(pid).expect("it is stopped");
                let new = Pid::from_raw(new.try_into().expect("a process number"));
                if is_process(new) {
                    self.victim = Some(new);
                    return let_go(pid);
                }
            }
            _ => {}
        }
        false
    }

    /// A thread is about to make a call, or has made one.
    fn handle_call(&mut self, pid: Pid) {
        let Some(victim) = self.victim else { return };
        let dying = self.killed_before.is_some();
        if dying || self.execs > 0 || !is_entry(pid) {
            return;
        }
        let path = format!("/proc/{pid}/syscall");
        let call = std::fs::read_to_string(path).expect("it is stopped");
        if is_harmless(pid, &call) {
            return;
        }
        if self.calls > 0 {
            self.calls -= 1;
            return;
        }
        kill(victim, Signal::SIGKILL).expect("it is there");
        self.killed_before = Some(call.trim().to_owned());
    }
}

/// Whether it is not just a thread of another.
fn is_process(pid: Pid) -> bool {
    let status = std::fs::read_to_string(format!("/proc/{pid}/status")).unwrap_or_default();
    status
        .lines()
        .any(|line| line.strip_prefix("Tgid:").map(str::trim) == Some(&pid.to_string()))
}

fn let_go(pid: Pid) -> bool {
    match ptrace::detach(pid, None) {
        Ok(()) | Err(Errno::ESRCH) => true,
        Err(error) => panic!("process {pid} can't be let go: {error}"),
    }
}

fn is_entry(pid: Pid) -> bool {
    let info = ptrace::syscall_info(pid).expect("it is stopped");
    info.op == libc::PTRACE_SYSCALL_INFO_ENTRY
}

/// Whether nobody else can tell that the call was made. What is not known here is not harmless.
fn is_harmless(pid: Pid, call: &str) -> bool {
    let mut words = call.split_whitespace();
    let number: Option<c_long> = words.next().and_then(|word| word.parse().ok());
    let Some(number) = number else { return false };
    if let Some(place) = open_flags(number) {
        let flags = words.nth(place).and_then(hexadecimal);
        let changing = u64::from((libc::O_CREAT | libc::O_TRUNC).cast_unsigned());
        return flags.is_some_and(|flags| flags & changing == 0);
    }
    if number == libc::SYS_sendto {
        let mut arguments = words.skip(1).map(hexadecimal);
        let (at, bytes) = (arguments.next().flatten(), arguments.next().flatten());
        return at
            .zip(bytes)
            .is_some_and(|(at, bytes)| is_dump(pid, at, bytes));
    }
    HARMLESS.contains(&number) || HARMLESS_HERE.contains(&number)
}

fn hexadecimal(word: &str) -> Option<u64> {
    u64::from_str_radix(word.strip_prefix("0x")?, 16).ok()
}

/// Whether so many bytes at a place of a process are one netlink message that asks for a list
/// (`struct nlmsghdr`, linux/netlink.h: length, type, flags).
fn is_dump(pid: Pid, at: u64, bytes: u64) -> bool {
    let Ok(word) = ptrace::read(pid, at as ptrace::AddressType) else {
        return false;
    };
    let [a, b, c, d, _, _, low, high] = word.to_ne_bytes();
    let flags = i32::from(u16::from_ne_bytes([low, high]));
    let asks = flags & (libc::NLM_F_DUMP | libc::NLM_F_CREATE) == libc::NLM_F_DUMP;
    asks && u64::from(u32::from_ne_bytes([a, b, c, d])) == bytes
}

/// Which argument says how a call opens a file, if it does.
fn open_flags(number: c_long) -> Option<usize> {
    match number {
        libc::SYS_openat => Some(2),
        #[cfg(target_arch = "x86_64")]
        libc::SYS_open => Some(1),
        _ => None,
    }
}

/// They look, or change only what ends with the process: its memory, its signals, its sockets.
const HARMLESS: &[c_long] = &[
    libc::SYS_bind,
    libc::SYS_brk,
    libc::SYS_close,
    libc::SYS_close_range,
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
    libc::SYS_pidfd_open,
    libc::SYS_ppoll,
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
    libc::SYS_setns,
    libc::SYS_setsockopt,
    libc::SYS_sigaltstack,
    libc::SYS_socket,
    libc::SYS_socketpair,
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
const HARMLESS_HERE: &[c_long] = &[];
