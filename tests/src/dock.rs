//! Dock: a host where containers come and go, and what they leave behind is found.

use std::collections::BTreeSet;
use std::fs;
use std::path::{Path, PathBuf};
use std::thread;
use std::time::{Duration, Instant};

use serde_json::Value;

use crate::{Host, is_root, own_mounts};

/// How long what is being taken down may take.
const PATIENCE: Duration = Duration::from_secs(30);
const POLL: Duration = Duration::from_millis(5);
const CGROUPS: &str = "/sys/fs/cgroup";
/// What is there for good, or tells nothing.
const KEPT: [&str; 5] = ["lock", "state", "plan", "history.log", "history.log.1"];

/// A host with the busybox image, a network `n`, and mounts of its own, which nobody else sees and
/// which end with the test.
pub struct Dock {
    /// The host.
    pub host: Host,
    before: BTreeSet<String>,
    networks: String,
}

impl Dock {
    /// `None`, and a word about it, without root.
    ///
    /// # Panics
    /// When the kernel refuses.
    #[must_use]
    pub fn new() -> Option<Self> {
        if !is_root() {
            return None;
        }
        own_mounts(&[]);
        let host = Host::new()?;
        host.with_image();
        host.ok("network create --subnet 10.1.0.0/24 n");
        // The first container unpacks the image and makes the directories, which stay.
        host.ok("run --rm --net n busybox true");
        let networks = host.ok("network list --format json");
        let mut dock = Self {
            host,
            before: BTreeSet::new(),
            networks,
        };
        dock.before = dock.remains();
        Some(dock)
    }

    /// What `ps -a` shows, which never fails and has nothing to complain of.
    ///
    /// # Panics
    /// When it does, or has.
    #[track_caller]
    pub fn ps(&self) -> Vec<Value> {
        let output = self.host.mydocker("ps -a --format json");
        assert!(
            output.status.success() && output.stderr.is_empty(),
            "{output:?}"
        );
        serde_json::from_slice(&output.stdout).expect("JSON")
    }

    /// The row of one container.
    #[track_caller]
    pub fn row(&self, name: &str) -> Option<Value> {
        let rows = self.ps().into_iter();
        let mut named = rows.filter(|row| row["name"] == name);
        let row = named.next();
        assert_eq!(named.next(), None, "two are called {name}");
        row
    }

    /// Checks that kernel and state agree, and soon nothing is there that was not in the beginning.
    ///
    /// # Panics
    /// When they don't, or something is.
    #[track_caller]
    pub fn check_empty(&self, context: &str) {
        let mut came = BTreeSet::new();
        let is_empty = || {
            came = &self.remains() - &self.before;
            came.is_empty()
        };
        let empty = soon(is_empty);
        assert!(empty, "{context}: left {came:#?}");
        let networks = self.host.ok("network list --format json");
        assert_eq!(networks, self.networks, "{context}");
        self.check_network(context);
    }

    /// Checks that kernel and state agree.
    ///
    /// # Panics
    /// When they don't.
    #[track_caller]
    pub fn check_network(&self, context: &str) {
        let output = self.host.mydocker("network check");
        assert!(output.status.success(), "{context}: {output:?}");
    }

    /// Files and directories of ours, mounts, processes that see them, and control groups.
    fn remains(&self) -> BTreeSet<String> {
        let mut found = BTreeSet::new();
        for folder in ["lib", "run"] {
            entries_below(&self.host.dir().join(folder), &mut found);
        }
        let mounts = fs::read_to_string("/proc/thread-self/mountinfo").expect("mounts");
        // Without the number, which is another each time.
        let points = mounts.lines().filter_map(|line| line.split(' ').nth(4));
        found.extend(
            points
                .filter(|point| self.is_ours(point))
                .map(|point| format!("mount {point}")),
        );
        for pid in processes() {
            if self.is_inside(pid) {
                let command = fs::read(format!("/proc/{pid}/cmdline")).unwrap_or_default();
                let command = String::from_utf8_lossy(&command).replace('\0', " ");
                found.insert(format!("process {pid} {command}"));
            }
        }
        found.extend(self.cgroups());
        found
    }

    /// The control groups with processes of ours, or with none: those of others are soon gone.
    fn cgroups(&self) -> Vec<String> {
        let top = Path::new(CGROUPS).to_owned();
        let below = children(&top);
        let all = below.iter().chain([&top]).flat_map(|dir| children(dir));
        let named = all.filter(|path| {
            let name = path.file_name().unwrap_or_default();
            name.to_string_lossy().starts_with("mydocker-")
        });
        let ours = named.filter(|path| {
            let members = fs::read_to_string(path.join("cgroup.procs")).unwrap_or_default();
            let mut pids = members.lines().filter_map(|line| line.parse().ok());
            members.is_empty() || pids.any(|pid| self.is_inside(pid))
        });
        ours.map(|path| format!("cgroup {}", path.display()))
            .collect()
    }

    /// Whether a process, but for this one, sees a mount of ours.
    fn is_inside(&self, pid: u32) -> bool {
        let mounts = fs::read_to_string(format!("/proc/{pid}/mountinfo"));
        pid != std::process::id() && mounts.is_ok_and(|mounts| self.is_ours(&mounts))
    }

    fn is_ours(&self, text: &str) -> bool {
        text.contains(&self.host.dir().display().to_string())
    }
}

/// Waits until something holds.
///
/// # Panics
/// When it does not for too long.
#[track_caller]
pub fn eventually(what: &str, holds: impl FnMut() -> bool) {
    assert!(soon(holds), "{what}: not within {PATIENCE:?}");
}

/// Whether something holds before too long.
pub(crate) fn soon(mut holds: impl FnMut() -> bool) -> bool {
    let start = Instant::now();
    while !holds() {
        if start.elapsed() > PATIENCE {
            return false;
        }
        thread::sleep(POLL);
    }
    true
}

fn processes() -> impl Iterator<Item = u32> {
    let all = children(Path::new("/proc")).into_iter();
    all.filter_map(|path| path.file_name()?.to_str()?.parse().ok())
}

fn children(dir: &Path) -> Vec<PathBuf> {
    let entries = fs::read_dir(dir).into_iter().flatten().flatten();
    entries.map(|entry| entry.path()).collect()
}

fn entries_below(dir: &Path, found: &mut BTreeSet<String>) {
    for path in children(dir) {
        if KEPT.iter().any(|kept| path.ends_with(kept)) {
            continue;
        }
        // A link may lead out.
        if path.is_dir() && !path.is_symlink() {
            entries_below(&path, found);
        }
        found.insert(path.display().to_string());
    }
}
