//! Stand: a host that whole processes are measured on.

use std::error::Error;
use std::fs::File;
use std::num::ParseIntError;
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};
use std::time::Duration;

use nix::net::if_::if_nametoindex;
use nix::sched::{CloneFlags, setns};
use serde::Serialize;

use super::Cost;
use crate::{Host, is_root, own_mounts};

/// Longer than the kernel takes to let go of what a detach removed: whoever closes a socket of the
/// firewall meanwhile would wait for it.
const GRACE: Duration = Duration::from_millis(40);

/// What a reboot leaves of the host; the definitions are elsewhere.
const REBOOT: &str = "
    for link in $(ip -o link show type bridge | cut -d: -f2); do ip link del dev $link; done
    nft flush ruleset
    conntrack -F 2>/dev/null
    sysctl -qw net.ipv4.ip_forward=0";

/// A host, and the calling thread in its namespace: what it starts is there without another process
/// that enters it first. Its run root is in memory, as `/run` is, so the thread has mounts of its own.
pub struct Stand {
    /// The host.
    pub host: Host,
    mydocker: PathBuf,
    examples: PathBuf,
}

impl Stand {
    /// A host with nothing on it.
    ///
    /// # Errors
    /// The calling process is not root's, or may not enter the namespace.
    ///
    /// # Panics
    /// When the kernel refuses to make one.
    pub fn new() -> Result<Self, Box<dyn Error>> {
        if !is_root() {
            return Err("it makes network namespaces: run it as root".into());
        }
        own_mounts(&[]);
        let host = Host::new().ok_or("it has no host")?;
        host.run_in_memory();
        setns(File::open(host.ns())?, CloneFlags::CLONE_NEWNET)?;
        let mydocker = crate::binary();
        let examples = mydocker.with_file_name("examples");
        Ok(Self {
            host,
            mydocker,
            examples,
        })
    }

    /// `mydocker` with these words, yet to be started.
    #[must_use]
    pub fn mydocker(&self, words: &[&str]) -> Command {
        let mut command = Command::new(&self.mydocker);
        command.args(words).envs(self.host.environment());
        command
    }

    /// `mydocker network connect` of a namespace, yet to be started; `words` end with the network and
    /// the name.
    #[must_use]
    pub fn connect(&self, netns: &Path, words: &[&str]) -> Command {
        let mut command = self.mydocker(&["network", "connect", "--netns"]);
        command.arg(netns).args(words);
        command
    }

    /// Another program of `make bench`, yet to be started.
    #[must_use]
    pub fn example(&self, name: &str, words: &[&str]) -> Command {
        let mut command = Command::new(self.examples.join(name));
        command.args(words);
        command
    }

    /// Takes everything down that commands made, as a reboot does: networks are definitions then.
    pub fn reboot(&self) {
        let [_, (_, run_root)] = self.host.environment();
        self.host.sh(REBOOT);
        // Where only the floor ran there is none.
        let _ = std::fs::remove_dir_all(run_root.join("network"));
        settle();
    }

    /// The number of a link, as a word.
    ///
    /// # Panics
    /// When there is none.
    #[must_use]
    pub fn index(&self, link: &str) -> String {
        // The calling thread is there.
        let index = if_nametoindex(link).expect("it is there");
        index.to_string()
    }
}

/// Runs a process, whose output nobody sees, and waits for it.
///
/// # Panics
/// When it can't be started, or fails.
pub fn timed(mut command: Command) -> Cost {
    command.stdin(Stdio::null()).stdout(Stdio::null());
    let (cost, status) = Cost::of(|| command.status().expect("it starts"));
    assert!(status.success(), "{command:?}: {status}");
    cost
}

/// Waits until what was removed no longer makes others wait.
pub fn settle() {
    std::thread::sleep(GRACE);
}

/// Writes what was measured to `NAME.json` in a folder, if there is one.
///
/// # Errors
/// It can't be written.
pub fn keep(folder: Option<&Path>, name: &str, rows: &impl Serialize) -> std::io::Result<()> {
    let Some(folder) = folder else {
        return Ok(());
    };
    std::fs::create_dir_all(folder)?;
    let path = folder.join(name).with_extension("json");
    std::fs::write(path, serde_json::to_vec_pretty(rows)?)
}

/// Numbers with commas between them, as a program of `make bench` takes them.
///
/// # Errors
/// Something is none.
pub fn numbers(word: Option<String>, default: &str) -> Result<Vec<usize>, ParseIntError> {
    let word = word.as_deref().unwrap_or(default);
    word.split(',').map(str::parse).collect()
}
