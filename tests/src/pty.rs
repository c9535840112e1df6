//! A terminal with somebody in front of it: types, reads what is shown, resizes the window.

use std::fs::File;
use std::io::{Read, Write};
use std::os::fd::{AsFd, OwnedFd};
use std::path::PathBuf;
use std::process::{Child, Command, Stdio};
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex, PoisonError};
use std::thread::{self, JoinHandle};

use nix::poll::{PollFd, PollFlags, poll};
use nix::pty::openpty;
use nix::unistd::ttyname;

use crate::dock::soon;

/// How often to look whether it is to hang up.
const POLL_MS: u8 = 20;

/// A pseudoterminal.
pub struct Terminal {
    master: Option<File>,
    /// Held open, so that its settings can be read when nobody else has it open any more.
    slave: OwnedFd,
    path: PathBuf,
    shown: Arc<Mutex<String>>,
    reader: Option<JoinHandle<()>>,
    hangs_up: Arc<AtomicBool>,
    /// Up to where what was shown has been met with.
    met: usize,
}

impl Terminal {
    /// One of 24 lines and 80 columns.
    ///
    /// # Panics
    /// When there is none to be had.
    #[must_use]
    pub fn new() -> Self {
        let pair = openpty(None, None).expect("a pseudoterminal");
        // These are closed in programs that are started, which would keep it from hanging up.
        let ours = |end: OwnedFd| end.try_clone().expect("another handle");
        let (master, slave) = (ours(pair.master), ours(pair.slave));
        let path = ttyname(&slave).expect("it has a name");
        let shown = Arc::new(Mutex::new(String::new()));
        let master = File::from(master);
        let from = master.try_clone().expect("another handle");
        let hangs_up = Arc::new(AtomicBool::new(false));
        let (onto, ends) = (Arc::clone(&shown), Arc::clone(&hangs_up));
        let terminal = Self {
            master: Some(master),
            slave,
            path,
            shown,
            reader: Some(thread::spawn(move || read(from, &onto, &ends))),
            hangs_up,
            met: 0,
        };
        terminal.resize(24, 80);
        terminal
    }

    /// Starts a command on it, as the first of a session whose terminal it is.
    ///
    /// # Panics
    /// When it can't be started.
    pub fn run(&self, command: &Command) -> Child {
        let end = || Stdio::from(self.slave.try_clone().expect("another handle"));
        let mut session = Command::new("setsid");
        session.arg("--ctty").arg(command.get_program());
        session.args(command.get_args());
        for (key, value) in command.get_envs() {
            session.env(key, value.unwrap_or_default());
        }
        session.stdin(end()).stdout(end()).stderr(end());
        session.spawn().expect("setsid starts")
    }

    /// Types something.
    ///
    /// # Panics
    /// When it has hung up.
    pub fn types(&mut self, text: &str) {
        let master = self.master.as_mut().expect("it has not hung up");
        master.write_all(text.as_bytes()).expect("it takes it");
    }

    /// Waits until something is shown, after what was waited for before.
    ///
    /// # Panics
    /// When it is not for too long.
    #[track_caller]
    pub fn expect(&mut self, text: &str) {
        let mut found = None;
        let shown = Arc::clone(&self.shown);
        let holds = || {
            let shown = shown.lock().unwrap_or_else(PoisonError::into_inner);
            found = shown[self.met..].find(text);
            found.is_some()
        };
        assert!(soon(holds), "`{text}` is not shown: {:?}", self.shown());
        self.met += found.unwrap_or_default() + text.len();
    }

    /// All that was ever shown.
    #[must_use]
    pub fn shown(&self) -> String {
        let shown = self.shown.lock().unwrap_or_else(PoisonError::into_inner);
        shown.clone()
    }

    /// Gives it another size.
    ///
    /// # Panics
    /// When it takes none.
    pub fn resize(&self, rows: u16, columns: u16) {
        self.stty(&["rows", &rows.to_string(), "cols", &columns.to_string()]);
    }

    /// All its settings, as stty(1) writes them down.
    ///
    /// # Panics
    /// When it has none.
    #[must_use]
    pub fn settings(&self) -> String {
        self.stty(&["--save"])
    }

    /// Hangs up: nobody is in front of it any more.
    pub fn hang_up(&mut self) {
        self.hangs_up.store(true, Ordering::Relaxed);
        self.reader.take().map(JoinHandle::join);
        self.master = None;
    }

    fn stty(&self, args: &[&str]) -> String {
        let mut command = Command::new("stty");
        let output = command.arg("-F").arg(&self.path).args(args).output();
        let output = output.expect("stty starts");
        assert!(output.status.success(), "stty {args:?}: {output:?}");
        String::from_utf8_lossy(&output.stdout).into_owned()
    }
}

/// Notes what is shown, until it hangs up.
fn read(mut from: File, onto: &Mutex<String>, ends: &AtomicBool) {
    let mut bytes = [0; 4096];
    while !ends.load(Ordering::Relaxed) {
        let mut fds = [PollFd::new(from.as_fd(), PollFlags::POLLIN)];
        if poll(&mut fds, POLL_MS) != Ok(1) {
            continue;
        }
        let Ok(count @ 1..) = from.read(&mut bytes) else {
            return;
        };
        let text = String::from_utf8_lossy(&bytes[..count]);
        onto.lock()
            .unwrap_or_else(PoisonError::into_inner)
            .push_str(&text);
    }
}

impl Drop for Terminal {
    fn drop(&mut self) {
        self.hang_up();
    }
}

impl Default for Terminal {
    fn default() -> Self {
        Self::new()
    }
}
