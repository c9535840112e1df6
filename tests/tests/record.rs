//! What needs no root: dry runs, and a whole session on the model kernel.
#![allow(
    clippy::print_stderr,
    clippy::unwrap_used,
    reason = "what helps a test is a test"
)]

use std::os::unix::fs::{PermissionsExt, chown};
use std::path::{Path, PathBuf};
use std::process::{Command, Output};

use mydocker_tests::binary;

/// `nobody`, by number.
const NOBODY: u32 = 65_534;

/// Somebody without privileges, and directories of theirs.
struct User {
    dir: tempfile::TempDir,
    binary: PathBuf,
}

impl User {
    fn new() -> Self {
        let dir = tempfile::tempdir().unwrap();
        let program = dir.path().join("mydocker");
        // A build directory may be closed to others.
        std::fs::copy(binary(), &program).unwrap();
        if nix::unistd::geteuid().is_root() {
            std::fs::set_permissions(dir.path(), PermissionsExt::from_mode(0o755)).unwrap();
            chown(dir.path(), Some(NOBODY), Some(NOBODY)).unwrap();
        }
        Self {
            dir,
            binary: program,
        }
    }

    fn run(&self, line: &str) -> Output {
        self.command(line).output().unwrap()
    }

    fn command(&self, line: &str) -> Command {
        let mut command = if nix::unistd::geteuid().is_root() {
            let mut command = Command::new("setpriv");
            command.args(["--reuid", "65534", "--regid", "65534", "--clear-groups"]);
            command.arg(&self.binary);
            command
        } else {
            Command::new(&self.binary)
        };
        command
            .args(line.split_whitespace())
            .env("MYDOCKER_ROOT", self.path("lib"))
            .env("MYDOCKER_RUN_ROOT", self.path("run"));
        command
    }

    fn path(&self, name: &str) -> PathBuf {
        self.dir.path().join(name)
    }

    #[track_caller]
    fn ok(&self, line: &str) -> String {
        let output = self.run(line);
        assert!(output.status.success(), "{line}: {output:?}");
        String::from_utf8(output.stdout).unwrap()
    }
}

#[test]
fn a_dry_run_needs_no_root_and_makes_no_file() {
    let user = User::new();
    for format in ["", "=table", "=json", "=script"] {
        let create = user.ok(&format!(
            "network create --dry-run{format} --subnet 10.99.0.0/24 n"
        ));
        assert!(create.contains("10.99.0.1/24"), "{create}");
    }
    for line in [
        "network connect --dry-run --netns /run/netns/x n x",
        "network disconnect --dry-run n x",
        "network remove --dry-run n",
        "run --dry-run --net n busybox",
    ] {
        assert_eq!(
            user.run(line).status.code(),
            Some(1),
            "there is no such network"
        );
    }
    assert_eq!(user.ok("run --dry-run busybox"), "nothing to do\n");
    assert_eq!(user.ok("network list --format json").trim(), "[]");
    assert!(!user.path("lib").exists() && !user.path("run").exists());
}

#[test]
fn without_root_the_kernel_says_no_and_nothing_is_left() {
    let user = User::new();
    let output = user.run("network create --subnet 10.99.0.0/24 n");
    assert_eq!(output.status.code(), Some(3), "{output:?}");
    let said = String::from_utf8_lossy(&output.stderr);
    assert!(
        said.contains("EPERM")
            && said.contains("hint: this process lacks CAP_NET_ADMIN and CAP_SYS_ADMIN"),
        "{said}"
    );
    assert!(!user.ok("network list").contains("10.99.0"));
}

#[test]
fn a_recorded_session_advances_the_state_and_logs_its_ops() {
    let user = User::new();
    let lines = [
        "network create --subnet 10.99.0.1/24 --subnet fd00:99::/64 front",
        "network create back",
        "network connect --netns /run/netns/web -p 8080:80 -p 127.0.0.1:5353:53/udp front web",
        "network connect --netns /run/netns/web back web",
        "network connect --netns /run/netns/db --ip 10.99.0.77 front db",
    ];
    for line in lines {
        user.ok(&format!("--executor record {line}"));
    }
    let list = user.ok("network list");
    assert!(list.contains("10.99.0.1/24, fd00:99::1/64"), "{list}");
    let taken = user.run("--executor record network connect --netns /run/netns/c -p 8080:1 back c");
    assert_eq!(taken.status.code(), Some(1), "{taken:?}");
    let endpoint: serde_json::Value = serde_json::from_str(
        &user.ok("--executor record network connect --format json --netns /run/netns/c front c"),
    )
    .unwrap();
    assert_eq!(endpoint["addresses"][0], "10.99.0.3/24");
    for line in [
        "network disconnect front web",
        "network disconnect back web",
        "network disconnect front db",
        "network disconnect front c",
        "network remove front back",
    ] {
        user.ok(&format!("--executor record {line}"));
    }
    assert_eq!(user.ok("network list -q"), "");
    let log = std::fs::read_to_string(user.path("run/network/record.log")).unwrap();
    let ops: Vec<serde_json::Value> = log
        .lines()
        .map(|line| serde_json::from_str(line).unwrap())
        .collect();
    let names: Vec<&str> = ops.iter().map(|op| op["op"].as_str().unwrap()).collect();
    assert_eq!(names.first(), Some(&"CreateRuleset"));
    assert_eq!(names.last(), Some(&"DeleteRuleset"));
    assert!(ops.iter().all(|op| op["result"] == "ok"), "{log}");
    assert!(definitions(&user.path("lib/network")).is_empty());
}

fn definitions(folder: &Path) -> Vec<PathBuf> {
    std::fs::read_dir(folder)
        .unwrap()
        .map(|entry| entry.unwrap().path())
        .collect()
}

/// What is done is done, also when nobody can be told: the exit code says so, and the command
/// goes on with the rest.
#[test]
fn a_standard_output_that_takes_nothing_is_no_failure() {
    let user = User::new();
    let (reader, hung_up) = std::io::pipe().unwrap();
    drop(reader);
    let full = std::fs::File::create("/dev/full").unwrap();
    let outputs: [std::process::Stdio; 2] = [hung_up.into(), full.into()];
    for (output, warned) in outputs.into_iter().zip([false, true]) {
        for network in ["a", "b"] {
            user.ok(&format!("--executor record network create {network}"));
        }
        let line = "--executor record network remove a b";
        let done = user.command(line).stdout(output).output().unwrap();
        assert_eq!(done.status.code(), Some(0), "{done:?}");
        let said = String::from_utf8_lossy(&done.stderr);
        assert_eq!(said.starts_with("warning: done, but"), warned, "{said}");
        assert_eq!(user.ok("network list -q"), "");
    }
}

#[test]
fn a_container_does_not_run_on_a_model() {
    let user = User::new();
    let output = user.run("--executor record run --net n busybox");
    assert_eq!(output.status.code(), Some(125), "{output:?}");
}
