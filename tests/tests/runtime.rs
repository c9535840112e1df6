//! Containers that another OCI runtime makes.
#![allow(
    clippy::print_stderr,
    clippy::unwrap_used,
    reason = "what helps a test is a test"
)]

use std::fs;
use std::path::PathBuf;
use std::process::Command;

use mydocker_tests::{Host, eventually};

/// A host with a network and the busybox image, if there is a runc.
fn host() -> Option<Host> {
    let there = Command::new("runc").arg("--version").output();
    if !there.is_ok_and(|output| output.status.success()) {
        eprintln!("skipped: runc is not installed");
        return None;
    }
    let host = Host::new()?;
    host.with_image();
    host.ok("network create --subnet 10.0.0.1/24 testbridge");
    Some(host)
}

fn pid(host: &Host) -> String {
    let ps: serde_json::Value = serde_json::from_str(&host.ok("ps --format json")).unwrap();
    ps[0]["pid"].to_string()
}

/// Checks that nothing of a container is left but records.
#[track_caller]
fn assert_clean(host: &Host, records: usize) {
    assert_eq!(host.ok("ps -aq").lines().count(), records);
    for folder in ["runtime", "bundle", "netns"] {
        let path = host.dir().join("run").join(folder);
        let left = fs::read_dir(path).into_iter().flatten().count();
        assert_eq!(left, 0, "{folder}");
    }
    let mounts = host.sh("cat /proc/self/mountinfo");
    let ours = host.dir().join("lib").display().to_string();
    assert!(!mounts.contains(&ours), "{mounts}");
    let cgroups = host.sh("find /sys/fs/cgroup -maxdepth 2 -name 'mydocker-*'");
    for id in host.ok("ps -aq").split_whitespace() {
        assert!(!cgroups.contains(id), "{cgroups}");
    }
}

#[test]
fn its_containers_are_as_confined_and_connected() {
    let Some(host) = host() else { return };
    let line = "run --rm --runtime runc --net testbridge --pids-limit 20 -u 1000 busybox sh -c";
    let script = "cat /proc/self/status; ip -4 -o addr; (true); id -u; exit 7";
    let output = host.mydocker_command(line).arg(script).output().unwrap();
    assert_eq!(output.status.code(), Some(7), "{output:?}");
    let said = String::from_utf8_lossy(&output.stdout);
    for expected in [
        "Seccomp:\t2\n",
        "NoNewPrivs:\t1\n",
        "CapBnd:\t00000000a80425fb\n",
        "CapEff:\t0000000000000000\n",
        "10.0.0.2/24",
        "\n1000\n",
    ] {
        assert!(said.contains(expected), "{expected:?} in {said}");
    }
    // Another of its containers, and the network of one.
    host.ok("run -d --name web --runtime runc --net testbridge busybox sleep 1000");
    for flags in ["--runtime runc", ""] {
        let said = host.ok(&format!(
            "run --rm {flags} --net container:web busybox ip -4 -o addr"
        ));
        assert!(said.contains("10.0.0.3/24"), "{said}");
    }
    host.ok("rm -f web");
    assert_clean(&host, 0);
}

#[test]
fn its_failures_are_ours() {
    let Some(host) = host() else { return };
    // The runtime has the container's standard error, and writes there, too.
    for (code, program) in [(127, "nosuch"), (126, "/etc")] {
        let output = host.mydocker(&format!(
            "run --runtime runc --net testbridge busybox {program}"
        ));
        let said = String::from_utf8_lossy(&output.stderr).into_owned();
        assert_eq!(output.status.code(), Some(code), "{said}");
        assert!(
            said.contains("error: runtime") && said.contains(program),
            "{said}"
        );
    }
    let said = host.fails(125, "run --runtime /bin/false busybox true");
    assert!(said.contains("/false can't create the container"), "{said}");
    // It says that all is well and has done nothing.
    let said = host.fails(125, "run --runtime /bin/true busybox true");
    assert!(said.contains("/pid"), "{said}");
    assert_clean(&host, 0);
}

#[test]
fn it_ends_as_any_other() {
    let Some(host) = host() else { return };
    let run = "run -d --name a --runtime runc -p 8080:80 --net testbridge busybox";
    host.ok(&format!("{run} sh -c sleep${{IFS}}1000"));
    host.ok("stop -t 1 a");
    assert!(host.ok("ps -a").contains("Exited (137)"));
    assert_clean(&host, 1);
    host.ok("rm a");
    // Signals reach it.
    let mut command = host.mydocker_command("run --name b --runtime runc busybox sh -c");
    let script = "trap 'exit 9' TERM; echo ready; while true; do sleep 0.1; done";
    let mut child = command
        .arg(script)
        .stdout(std::process::Stdio::piped())
        .spawn()
        .unwrap();
    let mut ready = [0; 5];
    std::io::Read::read_exact(child.stdout.as_mut().unwrap(), &mut ready).unwrap();
    host.sh(&format!("kill -TERM {}", child.id()));
    assert_eq!(child.wait().unwrap().code(), Some(9));
    host.ok("rm b");
    // With a terminal.
    let id = host.ok("run -d -t --runtime runc busybox tty");
    eventually("it has ended", || host.ok("ps -a").contains("Exited (0)"));
    let logs = host.ok(&format!("logs {}", id.trim()));
    assert!(logs.contains("/dev/"), "{logs}");
    host.ok(&format!("rm {}", id.trim()));
    assert_clean(&host, 0);
}

#[test]
fn it_runs_other_programs_inside() {
    let Some(host) = host() else { return };
    host.ok("run -d --name a --runtime runc --net testbridge busybox sleep 1000");
    assert!(
        host.ok("exec a ip -4 -o addr show eth0")
            .contains("10.0.0.2")
    );
    let id = host.ok("exec -u 1000:7 a id");
    assert!(id.contains("uid=1000") && id.contains("gid=7"), "{id}");
    let mut command = host.mydocker_command("exec a sh -c");
    assert_eq!(command.arg("exit 7").status().unwrap().code(), Some(7));
    let may = |pid: &str| {
        let mut command = host.mydocker_command("exec a grep -E Cap|NoNew|Seccomp:");
        let output = command.arg(format!("/proc/{pid}/status")).output().unwrap();
        String::from_utf8(output.stdout).unwrap()
    };
    let of_first = may("1");
    assert!(of_first.contains("Seccomp:\t2"), "{of_first}");
    assert_eq!(may("self"), of_first);
    let terminal = host.ok("exec -t a tty");
    assert!(terminal.contains("/dev/pts/"), "{terminal}");
    // The runtime has the program's standard error, and writes there, too.
    let output = host.mydocker("exec a nosuchprogram");
    assert_eq!(output.status.code(), Some(127), "{output:?}");
    host.ok("exec -d a sleep 999");
    host.ok("rm -f a");
    assert_clean(&host, 0);
}

#[test]
fn it_goes_with_its_supervisor_or_is_found() {
    let Some(host) = host() else { return };
    host.ok("run -d --name a --runtime runc --net testbridge busybox sleep 1000");
    let init = pid(&host);
    let parent = host.sh(&format!("ps -o ppid= -p {init}"));
    host.sh(&format!("kill -9 {}", parent.trim()));
    // It is not tied to its supervisor, but on record.
    assert_eq!(pid(&host), init);
    host.ok("rm -f a");
    eventually("it is dead", || {
        !PathBuf::from(format!("/proc/{init}")).exists()
    });
    assert_clean(&host, 0);
}

#[test]
fn a_runtime_that_is_gone_keeps_nothing() {
    let Some(host) = host() else { return };
    let copy = host.dir().join("runc");
    host.sh(&format!("cp $(command -v runc) {}", copy.display()));
    host.ok(&format!(
        "run -d --name a --runtime {} --net testbridge busybox sleep 1000",
        copy.display()
    ));
    fs::remove_file(&copy).unwrap();
    host.ok("rm -f a");
    assert_clean(&host, 0);
}

#[test]
fn a_supervisor_killed_while_it_makes_one_leaves_nothing() {
    let Some(host) = host() else { return };
    let (slow, at) = (host.dir().join("slow"), host.dir().join("at"));
    let stay = format!(
        "echo $$ >{0}.new; mv {0}.new {0}; exec sleep 1000",
        at.display()
    );
    // It stays before it has made anything, and when it has made everything.
    for steps in [stay.clone(), format!("runc \"$@\"; {stay}")] {
        let script = format!(
            "#!/bin/sh\ncase \" $* \" in *\" create \"*) {steps};; esac\nexec runc \"$@\"\n"
        );
        fs::write(&slow, script).unwrap();
        host.sh(&format!("chmod +x {}", slow.display()));
        let line = format!(
            "run -d --name a --runtime {} --net testbridge busybox sleep 1000",
            slow.display()
        );
        let mut child = host.mydocker_command(&line).spawn().unwrap();
        eventually("the runtime is at it", || at.exists());
        let runtime = fs::read_to_string(&at).unwrap().trim().to_owned();
        let supervisor = host
            .sh(&format!("ps -o ppid= -p {runtime}"))
            .trim()
            .to_owned();
        let words = fs::read(format!("/proc/{supervisor}/cmdline")).unwrap();
        let words: Vec<_> = words.split(|&byte| byte == 0).collect();
        let id = String::from_utf8_lossy(words[words.len() - 2]).into_owned();
        host.sh(&format!("kill -9 {supervisor}"));
        assert_eq!(child.wait().unwrap().code(), Some(125));
        eventually("the runtime died with it", || {
            !PathBuf::from(format!("/proc/{runtime}")).exists()
        });
        assert_clean(&host, 0);
        let cgroups = host.sh("find /sys/fs/cgroup -maxdepth 2 -name 'mydocker-*'");
        assert!(!cgroups.contains(&id), "{cgroups}");
        fs::remove_file(&at).unwrap();
    }
}
