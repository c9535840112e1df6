//! The command on a host of its own: what it says when nobody listens, and what it does about
//! containers that it does not know well.

#![expect(
    clippy::print_stdout,
    clippy::unwrap_used,
    reason = "a test says why it is skipped, and may panic"
)]

use std::{
    fs,
    io::pipe,
    path::PathBuf,
    process::{Command, Output, Stdio},
};

use mydocker_exec_netlink::netns;
use tempfile::TempDir;

const ID: &str = "0123456789ab";

/// Directories of its own, and network namespaces.
struct Host {
    dir: TempDir,
    namespaces: Vec<PathBuf>,
}

impl Host {
    fn new() -> Self {
        let dir = tempfile::tempdir().unwrap();
        let namespaces = Vec::new();
        Self { dir, namespaces }
    }

    /// A new network namespace; none, and a word about it, without root.
    fn namespace(&mut self, name: &str) -> Option<PathBuf> {
        if !rustix::process::geteuid().is_root() {
            println!("skipped: it makes network namespaces, which needs root");
            return None;
        }
        let path = self.dir.path().join("ns").join(name);
        netns::create(&path).unwrap();
        self.namespaces.push(path.clone());
        Some(path)
    }

    /// `mydocker`, yet to be started; words are split at white space.
    fn command(&self, line: &str) -> Command {
        let mut command = match self.namespaces.first() {
            Some(namespace) => {
                let mut command = Command::new("nsenter");
                command.arg(format!("--net={}", namespace.display()));
                command.arg(env!("CARGO_BIN_EXE_mydocker"));
                command
            }
            None => Command::new(env!("CARGO_BIN_EXE_mydocker")),
        };
        command.env("MYDOCKER_ROOT", self.dir.path().join("lib"));
        command.env("MYDOCKER_RUN_ROOT", self.dir.path().join("run"));
        command.args(line.split_whitespace()).stdin(Stdio::null());
        command
    }

    #[track_caller]
    fn ok(&self, line: &str) -> String {
        let output = self.command(line).output().unwrap();
        assert!(output.status.success(), "{line}: {output:?}");
        String::from_utf8(output.stdout).unwrap()
    }

    #[track_caller]
    fn fails(&self, code: i32, line: &str) -> String {
        let Output { status, stderr, .. } = self.command(line).output().unwrap();
        let said = String::from_utf8(stderr).unwrap();
        assert_eq!(status.code(), Some(code), "{line}: {said}");
        said
    }

    /// The exit code when standard error leads to nobody.
    fn deaf(&self, line: &str) -> Option<i32> {
        let (reader, writer) = pipe().unwrap();
        drop(reader);
        let mut command = self.command(line);
        command.stdout(Stdio::null()).stderr(writer);
        command.status().unwrap().code()
    }

    fn config(&self, id: &str) -> PathBuf {
        let records = self.dir.path().join("lib/containers");
        records.join(id).join("config.json")
    }

    /// A container whose record makes no sense.
    fn damaged(&self) {
        self.ok("ps");
        let path = self.config(ID);
        fs::create_dir(path.parent().unwrap()).unwrap();
        fs::write(path, "{").unwrap();
    }

    #[cfg(feature = "containers")]
    fn with_image(&self) {
        let script = concat!(env!("CARGO_MANIFEST_DIR"), "/../tests/image.sh");
        let image = self.dir.path().join("lib/image/busybox.tar");
        assert!(Command::new(script).arg(image).status().unwrap().success());
    }
}

impl Drop for Host {
    fn drop(&mut self) {
        // What a failed test left must not run on.
        let left = self.command("ps -aq").output().unwrap();
        for id in String::from_utf8_lossy(&left.stdout).lines() {
            self.command(&format!("rm -f {id}")).status().unwrap();
        }
        for namespace in &self.namespaces {
            netns::remove(namespace).unwrap();
        }
    }
}

#[test]
fn nobody_has_to_listen() {
    let host = Host::new();
    host.damaged();
    for (code, line) in [
        (0, "ps -a"),
        (1, "rm nosuch"),
        (1, "rm 0123456789ab"),
        (1, "stop nosuch"),
        (1, "logs nosuch"),
        (1, "--executor record network rm nosuch"),
        (2, "nosuch"),
        (125, "run nosuch"),
    ] {
        assert_eq!(host.deaf(line), Some(code), "{line}");
    }
}

#[test]
fn a_damaged_container_is_named_and_removed_by_its_id() {
    let mut host = Host::new();
    if host.namespace("host").is_none() {
        return;
    }
    host.damaged();
    let output = host.command("ps -aq").output().unwrap();
    let said = String::from_utf8(output.stderr).unwrap();
    assert!(output.status.success() && output.stdout.is_empty());
    assert!(said.starts_with("warning: ") && said.contains(ID), "{said}");
    for line in ["rm", "stop", "logs"] {
        let said = host.fails(1, &format!("{line} {ID}"));
        assert!(
            said.contains(&format!("`mydocker rm --force {ID}`")),
            "{said}"
        );
    }
    assert_eq!(host.ok(&format!("rm --force {ID}")), format!("{ID}\n"));
    assert_eq!(
        host.fails(1, &format!("rm --force {ID}")),
        format!("error: no container `{ID}`\n")
    );
    assert!(!host.config(ID).parent().unwrap().exists());
}

#[cfg(feature = "containers")]
#[test]
fn a_container_of_the_same_name_stays_connected() {
    let mut host = Host::new();
    let (Some(_), Some(other)) = (host.namespace("host"), host.namespace("other")) else {
        return;
    };
    host.with_image();
    host.ok("network create --subnet 10.0.0.1/24 one");
    host.ok(&format!(
        "network connect --netns {} one web",
        other.display()
    ));
    host.fails(125, "run -d --name web --net one busybox sleep 60");
    assert_eq!(host.ok("ps -aq"), "");
    let one = host.ok("network inspect one");
    assert!(one.contains("\"web\""), "{one}");
}

#[cfg(feature = "containers")]
#[test]
fn a_damaged_container_is_taken_off_its_networks() {
    let mut host = Host::new();
    if host.namespace("host").is_none() {
        return;
    }
    host.with_image();
    host.ok("network create --subnet 10.0.0.1/24 one");
    let id = host.ok("run -d --name web -p 8080:80 --net one busybox sleep 1000");
    fs::write(host.config(id.trim()), "{").unwrap();
    host.ok(&format!("rm -f {id}"));
    // Its name and its port are free.
    host.ok("run -d --name web -p 8080:80 --net one busybox sleep 1000");
    host.ok("rm -f web");
}
