//! A host of one's own: a network namespace, its own roots, gone when dropped.

use std::fmt::Write as _;
use std::net::IpAddr;
use std::path::{Path, PathBuf};
use std::process::{Command, Output, Stdio};

use mydocker::engine::Engine;
use mydocker::store::{Options, Roots};
use mydocker_exec_netlink::{NetlinkExecutor, netns};
use nix::mount::{MntFlags, umount2};
use tempfile::TempDir;

use crate::in_memory;

/// A host in a namespace, with directories of its own, sandboxes for containers and neighbours
/// on a LAN. Everything goes with it, also when a test fails.
pub struct Host {
    dir: TempDir,
    ns: PathBuf,
    binary: PathBuf,
}

impl Host {
    /// A host with nothing but its loopback, which is up; `None`, and a word about it, without
    /// root.
    ///
    /// # Panics
    /// When the kernel refuses.
    #[must_use]
    pub fn new() -> Option<Self> {
        if !is_root() {
            return None;
        }
        let dir = tempfile::Builder::new()
            .prefix("mydocker-test-")
            .tempdir()
            .expect("a directory");
        let ns = dir.path().join("netns/host");
        netns::create(&ns).expect("a namespace");
        let host = Self {
            dir,
            ns,
            binary: binary(),
        };
        host.sh("ip link set lo up");
        Some(host)
    }

    /// The host's namespace.
    #[must_use]
    pub fn ns(&self) -> &Path {
        &self.ns
    }

    /// The directory that all of it lives in.
    #[must_use]
    pub fn dir(&self) -> &Path {
        self.dir.path()
    }

    /// Has the run root in memory, as `/run` is, in mounts of one's own.
    ///
    /// # Panics
    /// When the kernel refuses.
    pub fn run_in_memory(&self) {
        let [_, (_, run_root)] = self.environment();
        std::fs::create_dir(&run_root).expect("a directory");
        in_memory(run_root);
    }

    /// A new namespace, for a container or another host.
    ///
    /// # Panics
    /// When the kernel refuses.
    #[must_use]
    pub fn sandbox(&self, name: &str) -> PathBuf {
        let path = self.dir.path().join("netns").join(name);
        netns::create(&path).expect("a namespace");
        path
    }

    /// Another machine, cabled to the host by an interface called as it is. `ours` and `theirs`
    /// are addresses with a prefix length, one or several; it knows no route but its own link.
    ///
    /// # Panics
    /// When the kernel refuses.
    #[must_use]
    pub fn neighbour(&self, name: &str, ours: &str, theirs: &str) -> PathBuf {
        let path = self.sandbox(name);
        let there = path.display();
        self.sh(&format!(
            "ip link add {name} type veth peer name up0 netns {there}
             # No link-local address, which would come a second late.
             ip link set {name} addrgenmode none
             for ours in {ours}; do ip addr add $ours dev {name} nodad; done
             ip link set {name} up
             nsenter --net={there} ip link set lo up
             for theirs in {theirs}; do nsenter --net={there} ip addr add $theirs dev up0 nodad; done
             nsenter --net={there} ip link set up0 up"
        ));
        path
    }

    /// What a shell says inside the host.
    ///
    /// # Panics
    /// When a command fails.
    pub fn sh(&self, script: &str) -> String {
        let output = self
            .inside("sh")
            .args(["-euc", script])
            .output()
            .expect("sh starts");
        assert!(output.status.success(), "{script}\n{}", shown(&output));
        String::from_utf8_lossy(&output.stdout).into_owned()
    }

    /// What a shell says inside another namespace; `script` has no single quotes.
    ///
    /// # Panics
    /// When it fails.
    pub fn sh_in(&self, space: &Path, script: &str) -> String {
        self.sh(&format!(
            "exec nsenter --net={} sh -euc '{script}'",
            space.display()
        ))
    }

    /// A command inside the host, yet to be started.
    #[must_use]
    pub fn inside(&self, program: impl AsRef<Path>) -> Command {
        let mut command = Command::new("nsenter");
        command
            .arg(format!("--net={}", self.ns.display()))
            .arg(program.as_ref());
        command.envs(self.environment()).stdin(Stdio::null());
        command
    }

    /// Where `mydocker` finds the host's directories.
    #[must_use]
    pub fn environment(&self) -> [(&'static str, PathBuf); 2] {
        [
            ("MYDOCKER_ROOT", self.dir.path().join("lib")),
            ("MYDOCKER_RUN_ROOT", self.dir.path().join("run")),
        ]
    }

    /// `mydocker` inside the host, yet to be started; words are split at white space.
    #[must_use]
    pub fn mydocker_command(&self, line: &str) -> Command {
        let mut command = self.inside(&self.binary);
        command.args(line.split_whitespace());
        command
    }

    /// An engine on the host's files and in its namespace, inside this process.
    ///
    /// # Panics
    /// When the kernel refuses.
    #[must_use]
    pub fn engine(&self, options: Options) -> Engine<NetlinkExecutor> {
        let [(_, root), (_, run_root)] = self.environment();
        let roots = Roots { root, run_root };
        let instance = roots.instance().expect("it has a run root");
        let executor = netns::run_in(self.ns(), || NetlinkExecutor::open(instance));
        let executor = executor.expect("the host is there");
        Engine::with_options(roots, options, executor.expect("there is rtnetlink"))
    }

    /// Puts the busybox image where `mydocker run busybox` finds it.
    ///
    /// # Panics
    /// When there is no busybox.
    pub fn with_image(&self) {
        let script = Path::new(env!("CARGO_MANIFEST_DIR")).join("image.sh");
        let image = self.dir.path().join("lib/image/busybox.tar");
        let status = Command::new(script).arg(image).status();
        assert!(
            status.is_ok_and(|status| status.success()),
            "tests/image.sh needs busybox"
        );
    }

    /// Runs `mydocker` inside the host; words are split at white space.
    ///
    /// # Panics
    /// When it can't be started.
    #[must_use]
    pub fn mydocker(&self, line: &str) -> Output {
        self.mydocker_command(line)
            .output()
            .expect("mydocker starts")
    }

    /// What `mydocker` prints when all goes well.
    ///
    /// # Panics
    /// When it does not.
    pub fn ok(&self, line: &str) -> String {
        let output = self.mydocker(line);
        assert!(
            output.status.success(),
            "mydocker {line}\n{}",
            shown(&output)
        );
        String::from_utf8_lossy(&output.stdout).into_owned()
    }

    /// What `mydocker` says on standard error when it fails with `code`.
    ///
    /// # Panics
    /// When it does not fail so.
    pub fn fails(&self, code: i32, line: &str) -> String {
        let output = self.mydocker(line);
        assert_eq!(
            output.status.code(),
            Some(code),
            "mydocker {line}\n{}",
            shown(&output)
        );
        let said = String::from_utf8_lossy(&output.stderr).into_owned();
        assert!(
            said.starts_with("error: "),
            "mydocker {line}\n{}",
            shown(&output)
        );
        said
    }

    /// Connects a sandbox and says which addresses it got.
    ///
    /// # Panics
    /// When it can't be.
    pub fn connect(&self, network: &str, name: &str, sandbox: &Path, more: &str) -> Vec<IpAddr> {
        let path = sandbox.display();
        let line = format!("network connect --format json --netns {path} {more} {network} {name}");
        let endpoint: serde_json::Value = serde_json::from_str(&self.ok(&line)).expect("JSON");
        let addresses = endpoint["addresses"].as_array().expect("addresses").iter();
        let bare = |text: &str| text.split('/').next().unwrap_or_default().parse();
        addresses
            .map(|text| bare(text.as_str().unwrap_or_default()).expect("an IP"))
            .collect()
    }

    /// Everything a full cycle must leave as it was: links, addresses, routes, rules, rulesets,
    /// settings (but for forwarding, which stays on) and our files.
    #[must_use]
    pub fn snapshot(&self) -> String {
        let mut all = self.sh(
            "# Whether a bridge has a carrier follows its ports a moment later.
             steady() { sed 's/ qlen.*//; s/NO-CARRIER,//; s/ state [A-Z]*//; s/ linkdown//'; }
             ip -o link | steady
             ip -o addr
             # A host that forwards IPv6 answers to its subnets' anycast addresses.
             { ip route show table all; ip -6 route show table all; } | grep -v ^anycast | steady
             ip rule; ip -6 rule
             nft list ruleset
             sysctl -a -r '^net\\.(ipv4|ipv6|bridge)' 2>/dev/null |
                 # What follows from forwarding, and what changes by itself.
                 grep -Ev 'forward|accept_redirects|_mem|_count|netdev_rss|random|tcp_fastopen|secret'",
        );
        for folder in ["lib", "run"] {
            let mut files: Vec<PathBuf> = Vec::new();
            files_below(&self.dir.path().join(folder), &mut files);
            files.sort();
            for file in files {
                writeln!(all, "{}", file.display()).expect("a string takes it");
            }
        }
        all
    }

    /// Checks that everything [`snapshot`](Self::snapshot) saw is as it was.
    ///
    /// # Panics
    /// When it is not; says what came and what went.
    #[track_caller]
    pub fn assert_as(&self, before: &str) {
        let after = self.snapshot();
        let only_in = |one: &str, other: &str| -> Vec<String> {
            let other: Vec<&str> = other.lines().collect();
            one.lines()
                .filter(|line| !other.contains(line))
                .map(ToOwned::to_owned)
                .collect()
        };
        let (went, came) = (only_in(before, &after), only_in(&after, before));
        assert!(
            went.is_empty() && came.is_empty(),
            "went: {went:#?}\ncame: {came:#?}"
        );
    }
}

impl Drop for Host {
    fn drop(&mut self) {
        // A test that failed may have left containers running.
        if self.dir.path().join("lib/containers").exists() {
            let ids = String::from_utf8(self.mydocker("ps -aq").stdout).unwrap_or_default();
            for id in ids.split_whitespace() {
                let _ = self.mydocker(&format!("rm -f {id}"));
            }
        }
        let Ok(entries) = std::fs::read_dir(self.dir.path().join("netns")) else {
            return;
        };
        for entry in entries.flatten() {
            if let Err(error) = netns::remove(&entry.path()) {
                note(&format!("{} stays: {error}", entry.path().display()));
            }
        }
        // The directory could not go with a run root in memory; most have none.
        let [_, (_, run_root)] = self.environment();
        let _ = umount2(&run_root, MntFlags::MNT_DETACH);
    }
}

/// Our files, apart from the lock and those of an empty state, which outlive the last network.
fn files_below(folder: &Path, found: &mut Vec<PathBuf>) {
    for entry in std::fs::read_dir(folder).into_iter().flatten().flatten() {
        let path = entry.path();
        if path.is_dir() {
            files_below(&path, found);
        } else if !["lock", "state", "plan", "history.log"]
            .iter()
            .any(|own| path.ends_with(own))
        {
            found.push(path);
        }
    }
}

/// The `mydocker` that was built with this test.
///
/// # Panics
/// When it does not build.
#[must_use]
pub fn binary() -> PathBuf {
    let test = std::env::current_exe().expect("a path");
    let built = test
        .ancestors()
        .nth(2)
        .expect("target/PROFILE/deps/TEST")
        .join("mydocker");
    // A stale one would test yesterday's code.
    if let Some(cargo) = std::env::var_os("CARGO") {
        let status = Command::new(cargo)
            .args(["build", "-q", "-p", "mydocker"])
            .status();
        assert!(
            status.is_ok_and(|status| status.success()),
            "mydocker does not build"
        );
    }
    assert!(
        built.exists(),
        "{} is missing: cargo build -p mydocker",
        built.display()
    );
    built
}

/// Whether a test may make network namespaces; says so if it may not.
#[must_use]
pub fn is_root() -> bool {
    let root = nix::unistd::geteuid().is_root();
    if !root {
        note("skipped: it makes network namespaces, which needs root");
    }
    root
}

#[expect(clippy::print_stderr, reason = "a test that does not run says so")]
fn note(text: &str) {
    eprintln!("{text}");
}

fn shown(output: &Output) -> String {
    format!(
        "{}\n{}{}",
        output.status,
        String::from_utf8_lossy(&output.stdout),
        String::from_utf8_lossy(&output.stderr)
    )
}
