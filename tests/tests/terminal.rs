//! `run -it`, `exec -it` and `start -ai` in front of a real terminal: what is typed, shown and resized, who
//! gets signals, and that the terminal is as it was after every end.
#![allow(clippy::unwrap_used, reason = "what helps a test is a test")]

use std::io::Write;
use std::process::{Child, Command, Stdio};

use mydocker_tests::{Host, Terminal, eventually};
use nix::sys::signal::{Signal, kill};
use nix::unistd::Pid;

const PROMPT: &str = "/ # ";

fn host() -> Option<Host> {
    let host = Host::new()?;
    host.with_image();
    Some(host)
}

/// A command in front of a terminal, and what the terminal was set to before.
struct Session {
    terminal: Terminal,
    before: String,
    child: Child,
}

impl Session {
    fn begin(command: &Command) -> Self {
        let terminal = Terminal::new();
        let before = terminal.settings();
        let child = terminal.run(command);
        Self {
            terminal,
            before,
            child,
        }
    }

    /// A shell that has said that it is ready.
    fn shell(host: &Host, line: &str) -> Self {
        let mut session = Self::begin(&host.mydocker_command(line));
        session.terminal.expect(PROMPT);
        session
    }

    /// Types a line; the terminal inside shows it, and what comes of it.
    #[track_caller]
    fn line(&mut self, typed: &str, shown: &str) {
        self.terminal.types(&format!("{typed}\n"));
        self.terminal.expect(&format!("{typed}\r\n"));
        self.terminal.expect(shown);
        self.terminal.expect(PROMPT);
    }

    fn signal(&self, signal: Signal) {
        kill(Pid::from_raw(self.child.id().cast_signed()), signal).unwrap();
    }

    /// Waits for the end, after which the terminal is as it was, to the last bit.
    #[track_caller]
    fn ends_with(&mut self, code: i32) {
        let mut status = None;
        eventually("the command ends", || {
            status = self.child.try_wait().unwrap();
            status.is_some()
        });
        let shown = self.terminal.shown();
        assert_eq!(status.unwrap().code(), Some(code), "{shown}");
        assert_eq!(self.terminal.settings(), self.before, "{shown}");
    }
}

/// What a shell does in front of a terminal, the first program or another one.
#[track_caller]
fn check_shell(session: &mut Session) {
    assert_ne!(session.terminal.settings(), session.before, "raw mode");
    session.line("stty size", "24 80\r\n");
    session.terminal.resize(30, 100);
    // The shell may learn of it in the middle of the line, and begin to show that anew.
    session.terminal.types("sleep 0.5; stty size\n");
    session.terminal.expect("30 100\r\n");
    session.terminal.expect(PROMPT);
    session.line("echo $((40 + 2))", "42\r\n");
    // Ctrl-C goes to the program inside, not to us.
    // Said by what is to be interrupted, when the terminal is its own.
    session
        .terminal
        .types("sh -c 'echo sl\"\"eeps; exec sleep 1000'\n");
    session.terminal.expect("sleeps\r\n");
    session.terminal.types("\x03");
    session.terminal.expect(PROMPT);
    session.line("echo $?", "130\r\n");
    session.terminal.types("exit 7\n");
    session.ends_with(7);
}

#[test]
fn a_shell() {
    let Some(host) = host() else { return };
    let mut session = Session::shell(&host, "run -it --rm busybox sh");
    check_shell(&mut session);
    assert_eq!(host.ok("ps -aq"), "");
}

#[test]
fn another_shell_in_the_same_container() {
    let Some(host) = host() else { return };
    host.ok("run -d --name box busybox sleep 1000");
    let mut session = Session::shell(&host, "exec -it box sh");
    check_shell(&mut session);
    assert!(host.ok("ps").contains("box"), "it runs on");
    // Both ends of one that is killed with its container.
    let mut session = Session::shell(&host, "exec -it box sh");
    host.ok("rm -f box");
    session.ends_with(137);
}

#[test]
fn once_more() {
    let Some(host) = host() else { return };
    let mut session = Session::shell(&host, "run -it --name box busybox sh");
    session.line("echo kept > /file; echo $?", "0\r\n");
    session.terminal.types("exit 3\n");
    session.ends_with(3);
    let mut session = Session::begin(&host.mydocker_command("start -ai box"));
    session.terminal.types("\n");
    session.terminal.expect(PROMPT);
    session.line("cat /file", "kept\r\n");
    session.terminal.types("exit 4\n");
    session.ends_with(4);
    assert!(host.ok("ps -a").contains("Exited (4)"));
}

#[test]
fn killed_from_outside() {
    let Some(host) = host() else { return };
    for line in ["kill box", "stop -t 0 box", "rm -f box"] {
        let mut session = Session::shell(&host, "run -it --name box busybox sh");
        host.ok(line);
        session.ends_with(137);
        let _ = host.mydocker("rm -f box");
    }
}

/// Its supervisor is killed, and the container with it.
#[test]
fn lost() {
    let Some(host) = host() else { return };
    let mut session = Session::shell(&host, "run -it --name box busybox sh");
    let inspected: serde_json::Value = serde_json::from_str(&host.ok("inspect box")).unwrap();
    let supervisor = inspected[0]["state"]["supervisor_pid"].as_i64().unwrap();
    host.sh(&format!("kill -9 {supervisor}"));
    session.ends_with(125);
    assert!(session.terminal.shown().contains("ended early"));
    let ps = host.ok("ps -a");
    assert!(ps.contains("Exited (?)"), "{ps}");
}

/// The shell ignores the first two, and the third is not asked.
#[test]
fn asked_to_end() {
    let Some(host) = host() else { return };
    let mut session = Session::shell(&host, "run -it --rm busybox sh");
    for _ in 0..3 {
        session.signal(Signal::SIGTERM);
        // Two at once would be one.
        std::thread::sleep(std::time::Duration::from_millis(200));
    }
    session.ends_with(137);
    assert_eq!(host.ok("ps -aq"), "");
}

#[test]
fn signals_reach_the_program() {
    let Some(host) = host() else { return };
    let mut command = host.mydocker_command("run -it --rm busybox sh -c");
    command.arg("trap 'echo got usr1; exit 5' USR1; echo ready; while :; do sleep 0.1; done");
    let mut session = Session::begin(&command);
    session.terminal.expect("ready");
    session.signal(Signal::SIGUSR1);
    session.terminal.expect("got usr1");
    session.ends_with(5);
}

#[test]
fn hung_up_on() {
    let Some(host) = host() else { return };
    let mut session = Session::shell(&host, "run -it --name box busybox sh");
    session.signal(Signal::SIGHUP);
    session.ends_with(129);
    eventually("the container ends", || host.ok("ps -q").is_empty());
    // The terminal itself is gone, and nobody says so.
    let mut session = Session::shell(&host, "run -it --name box2 busybox sh");
    session.terminal.hang_up();
    eventually("the command ends", || {
        session.child.try_wait().unwrap().is_some()
    });
    eventually("the container ends", || host.ok("ps -q").is_empty());
}

#[test]
fn never_begun() {
    let Some(host) = host() else { return };
    for (code, line) in [
        (125, "run -it nosuchimage sh"),
        (127, "run -it busybox nosuchcommand"),
        (125, "run -it --net nosuch busybox sh"),
        (1, "exec -it nosuch sh"),
    ] {
        let mut session = Session::begin(&host.mydocker_command(line));
        session.terminal.expect("error: ");
        session.ends_with(code);
    }
    assert_eq!(host.ok("ps -aq"), "");
}

#[test]
fn a_pipe_in_place_of_a_terminal() {
    let Some(host) = host() else { return };
    host.ok("run -d --name box busybox sleep 1000");
    for line in [
        "run -i --rm busybox cat",
        "exec -i box cat",
        // Without -i nothing is read.
        "run --rm busybox cat",
        "exec box cat",
    ] {
        let mut command = host.mydocker_command(line);
        command.stdin(Stdio::piped()).stdout(Stdio::piped());
        let mut child = command.spawn().unwrap();
        let mut input = child.stdin.take().unwrap();
        // Whoever reads nothing may have ended before.
        let _ = input.write_all(b"hello\n");
        drop(input);
        let output = child.wait_with_output().unwrap();
        let expected = if line.contains("-i ") { "hello\n" } else { "" };
        assert_eq!(String::from_utf8_lossy(&output.stdout), expected, "{line}");
        assert!(output.status.success(), "{line}");
    }
    for line in ["run -it --rm busybox sh", "exec -it box sh"] {
        let output = host.mydocker(line);
        let said = String::from_utf8_lossy(&output.stderr);
        assert!(said.contains("not a terminal"), "{line}: {said}");
    }
}

#[test]
fn a_terminal_without_input() {
    let Some(host) = host() else { return };
    assert_eq!(host.ok("run -t --rm busybox tty"), "/dev/pts/0\r\n");
    host.ok("run -d --name box busybox sleep 1000");
    assert_eq!(host.ok("exec -t box tty"), "/dev/pts/0\r\n");
}

/// Who is left behind on a terminal keeps nobody waiting.
#[test]
fn a_terminal_that_others_hold_open() {
    let Some(host) = host() else { return };
    host.ok("run -d --name box busybox sleep 1000");
    let mut exec = host.mydocker_command("exec -t box sh -c");
    let output = exec.arg("trap '' HUP; sleep 1000 & echo done").output();
    assert_eq!(output.unwrap().stdout, b"done\r\n");
    assert!(host.ok("exec box ps").matches("sleep 1000").count() == 2);
}

/// In the background a terminal feeds the log, and a shell that reads waits for what never comes.
#[test]
fn a_terminal_in_the_background() {
    let Some(host) = host() else { return };
    let mut run = host.mydocker_command("run -d -t --name box busybox sh -c");
    assert!(run.arg("tty; sleep 1000").status().unwrap().success());
    eventually("it is logged", || host.ok("logs box") == "/dev/pts/0\r\n");
    host.ok("run -d -i -t --name shell busybox sh");
    host.ok("run -d -i --name cat busybox cat");
    let mut exec = host.mydocker_command("exec -d -t box sh -c");
    let exec = exec.arg("tty > /tty; trap 'echo hung up > /tty' HUP; sleep 1000");
    assert!(exec.status().unwrap().success());
    std::thread::sleep(std::time::Duration::from_millis(500));
    assert_eq!(host.ok("exec box cat /tty"), "/dev/pts/1\n");
    let ps = host.ok("ps");
    for name in ["box", "shell", "cat"] {
        assert!(ps.contains(name), "{name}: {ps}");
    }
}
