//! Real containers on real networks: that they run, answer, and leave nothing.
#![allow(
    clippy::print_stderr,
    clippy::unwrap_used,
    reason = "what helps a test is a test"
)]

use std::path::PathBuf;

use mydocker_tests::{Host, eventually};

/// A host with a network, the busybox image, and what it looked like.
fn host() -> Option<(Host, Vec<String>)> {
    let host = Host::new()?;
    host.with_image();
    host.ok("network create --subnet 10.0.0.1/24 testbridge");
    // The first container unpacks the image, which stays.
    host.ok("run --rm busybox true");
    let before = quiet(&host);
    Some((host, before))
}

/// The host, apart from the records and logs of containers that have ended.
fn quiet(host: &Host) -> Vec<String> {
    let files =
        |line: &&str| !line.contains("/lib/containers/") && !line.contains("/lib/overlay2/");
    let all = host.snapshot();
    let mut kept: Vec<String> = all.lines().filter(files).map(ToOwned::to_owned).collect();
    let ours = host.dir().join("lib").display().to_string();
    let mounts = host.sh("cat /proc/self/mountinfo");
    kept.extend(
        mounts
            .lines()
            .filter(|line| line.contains(&ours))
            .map(ToOwned::to_owned),
    );
    kept
}

/// Checks that the host is as it was.
#[track_caller]
fn assert_quiet(host: &Host, before: &[String]) {
    let after = quiet(host);
    let went: Vec<_> = before.iter().filter(|line| !after.contains(line)).collect();
    let came: Vec<_> = after.iter().filter(|line| !before.contains(line)).collect();
    assert!(
        went.is_empty() && came.is_empty(),
        "went: {went:#?}\ncame: {came:#?}"
    );
}

const SERVE: &str = "httpd -f -p 80 -h /etc";

#[test]
fn a_foreground_container_shows_its_output_and_its_exit_code() {
    let Some((host, before)) = host() else { return };
    let output = host.mydocker("run --net testbridge busybox ip -4 -o addr show eth0");
    assert!(output.status.success());
    assert!(
        String::from_utf8_lossy(&output.stdout).contains("10.0.0.2/24"),
        "{output:?}"
    );
    let mut exits = host.mydocker_command("run --net testbridge busybox sh -c");
    assert_eq!(exits.arg("exit 7").status().unwrap().code(), Some(7));
    assert_quiet(&host, &before);
}

#[test]
fn a_detached_container_answers_on_its_published_port() {
    let Some((host, before)) = host() else { return };
    let id = host.ok(&format!(
        "run -d --name web -p 8080:80 --net testbridge busybox {SERVE}"
    ));
    eventually("the server is up", || {
        !host
            .sh("busybox wget -q -O - http://10.0.0.2/hosts || true")
            .is_empty()
    });
    for address in ["127.0.0.1", "10.0.0.1"] {
        let hosts = host.sh(&format!("busybox wget -q -O - http://{address}:8080/hosts"));
        assert!(
            hosts
                .lines()
                .any(|line| line.starts_with("10.0.0.2") && line.contains("web")),
            "{hosts}"
        );
    }
    let ps = host.ok("ps");
    assert!(
        ps.contains("web") && ps.contains("10.0.0.2") && ps.contains("Up "),
        "{ps}"
    );
    assert!(ps.contains("0.0.0.0:8080->80/tcp"), "{ps}");
    // Another container reaches it by address.
    let line = "run --rm --net testbridge busybox wget -q -O - http://10.0.0.2/hostname";
    assert_eq!(host.ok(line).trim(), id.trim());
    host.ok("stop -t 1 web");
    assert!(host.ok("ps -a").contains("Exited"));
    host.ok("rm web");
    assert_quiet(&host, &before);
}

#[test]
fn defect_17_a_failed_connect_leaves_nothing() {
    let Some((host, before)) = host() else { return };
    let said = host.fails(125, "run -d --name a --net nosuch busybox sleep 60");
    assert!(said.contains("no network `nosuch`"), "{said}");
    host.fails(
        125,
        "run -d --name a --net testbridge --net nosuch busybox sleep 60",
    );
    host.fails(125, "run --name a --net testbridge nosuchimage true");
    host.fails(127, "run --name a --net testbridge busybox nosuchcommand");
    assert_eq!(host.ok("ps -aq"), "");
    assert_quiet(&host, &before);
}

#[test]
fn defect_19_a_stopped_container_is_dead() {
    let Some((host, before)) = host() else { return };
    host.ok("run -d --name deaf --net testbridge busybox sleep 1000");
    let ps: serde_json::Value = serde_json::from_str(&host.ok("ps --format json")).unwrap();
    let pid = ps[0]["pid"].as_i64().unwrap();
    host.ok("stop -t 1 deaf");
    assert!(
        !PathBuf::from(format!("/proc/{pid}")).exists(),
        "sleep ignores SIGTERM as pid 1"
    );
    host.ok("rm deaf");
    assert_quiet(&host, &before);
}

#[test]
fn defect_20_a_container_that_ends_by_itself_is_taken_down() {
    let Some((host, before)) = host() else { return };
    host.ok("run -d --name brief -p 8080:80 --net testbridge busybox sh -c true");
    eventually("it ended", || host.ok("ps -a").contains("Exited (0)"));
    eventually("it is taken down", || quiet(&host) == before);
    host.ok("run -d --name next -p 8080:80 --net testbridge busybox sleep 60");
    host.ok("rm -f next brief");
    assert_quiet(&host, &before);
}

#[test]
fn defect_25_the_network_stays_while_the_container_runs() {
    let Some((host, before)) = host() else { return };
    let mut command = host.mydocker_command("run --net testbridge busybox sh -c");
    command.arg("sleep 1; ping -c 1 -W 2 10.0.0.1 && ip route");
    let output = command.output().unwrap();
    let text = String::from_utf8_lossy(&output.stdout);
    assert!(
        text.contains("1 packets received") && text.contains("default via 10.0.0.1"),
        "{output:?}"
    );
    assert_quiet(&host, &before);
}

#[test]
fn a_container_whose_supervisor_was_killed_is_cleaned_by_the_next_command() {
    let Some((host, before)) = host() else { return };
    host.ok("run -d --name orphan -p 8080:80 --net testbridge busybox sleep 1000");
    let ps: serde_json::Value = serde_json::from_str(&host.ok("ps --format json")).unwrap();
    let pid = ps[0]["pid"].as_i64().unwrap();
    let parent = host.sh(&format!("ps -o ppid= -p {pid}"));
    host.sh(&format!("kill -9 {}", parent.trim()));
    eventually("the container dies with it", || {
        !PathBuf::from(format!("/proc/{pid}")).exists()
    });
    host.ok("run --rm -p 8080:80 --net testbridge busybox true");
    assert_quiet(&host, &before);
    let ps = host.ok("ps -a");
    assert!(ps.contains("Exited"), "{ps}");
    host.ok("rm orphan");
}

#[test]
fn two_networks_and_none() {
    let Some((host, before)) = host() else { return };
    host.ok("network create --subnet 10.1.0.0/24 back");
    let line = "run --rm --net testbridge --net back busybox ip -4 -o addr";
    let text = host.ok(line);
    assert!(
        text.contains("eth0") && text.contains("10.1.0.2/24"),
        "{text}"
    );
    let text = host.ok("run --rm busybox ip -o link");
    assert_eq!(text.lines().count(), 1, "loopback alone: {text}");
    host.ok("network remove back");
    assert_quiet(&host, &before);
}

#[test]
fn a_dry_run_of_a_container_shows_its_network_and_touches_nothing() {
    let Some(host) = Host::new() else { return };
    host.ok("network create --subnet 10.0.0.1/24 testbridge");
    let before = host.snapshot();
    let output = host.mydocker("run --dry-run -d -p 8080:80 --net testbridge nosuchimage sh");
    assert!(output.status.success(), "{output:?}");
    let (plan, said) = (
        String::from_utf8_lossy(&output.stdout),
        String::from_utf8_lossy(&output.stderr),
    );
    for op in [
        "AddDnat",
        "AddVeth",
        "MoveToNs",
        "SetMaster",
        "AddAddress",
        "AddRoute",
    ] {
        assert!(plan.contains(op), "{plan}");
    }
    assert!(said.contains("no image `nosuchimage`"), "{said}");
    host.assert_as(&before);
}
