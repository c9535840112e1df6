//! What the flags of `run` do, looked at from inside a container.
#![allow(
    clippy::print_stderr,
    clippy::unwrap_used,
    reason = "what helps a test is a test"
)]

use std::fs;
use std::path::PathBuf;
use std::process::Output;

use mydocker_tests::{Host, eventually};

/// A host with a network and two images: busybox, and one with users.
fn host() -> Option<Host> {
    let host = Host::new()?;
    host.with_image();
    host.ok("network create --subnet 10.0.0.1/24 testbridge");
    host.sh(&format!(
        "mkdir {0}; cd {0}; tar xf ../lib/image/busybox.tar
         echo 'web:x:1000:1001::/srv:/bin/sh' >>etc/passwd
         printf 'web:x:1001:\\nlog:x:4:web,sys\\nweb2:x:1001:web\\n' >>etc/group
         tar cf ../lib/image/people.tar .",
        host.dir().join("image").display()
    ));
    Some(host)
}

/// Runs a script in a container.
fn run(host: &Host, flags: &str, script: &str) -> Output {
    let mut command = host.mydocker_command(&format!("run {flags} sh -c"));
    command
        .arg(script)
        .env("OURS", "from outside")
        .output()
        .unwrap()
}

/// What it prints when all goes well.
fn said(host: &Host, flags: &str, script: &str) -> String {
    let output = run(host, flags, script);
    let said = String::from_utf8_lossy(&output.stdout).into_owned();
    assert!(output.status.success(), "{flags}: {script}\n{output:?}");
    said
}

fn pid(host: &Host, name: &str) -> i64 {
    let ps: serde_json::Value = serde_json::from_str(&host.ok("ps --format json")).unwrap();
    let rows = ps.as_array().unwrap();
    let row = rows.iter().find(|row| row["name"] == name).unwrap();
    row["pid"].as_i64().unwrap()
}

#[test]
fn what_is_asked_for_is_there() {
    let Some(host) = host() else { return };
    let file = host.dir().join("env");
    fs::write(
        &file,
        "# settings\nA=file\nB=two words\nOURS\nNOT_SET_ANYWHERE\n",
    )
    .unwrap();
    let data = host.dir().join("data");
    fs::create_dir(&data).unwrap();
    let flags = format!(
        "--rm --name web --hostname inner --env-file {} -e A=flag -e OURS -e NOT_SET_ANYWHERE -w /made/here \
         -v {1}:/data -v {1}:/seen:ro -v {1}:/third --net testbridge --ip 10.0.0.77 \
         --mac-address 02:00:00:00:00:77 --network-alias db --network-alias db.lan --dns 192.0.2.53 \
         --dns fd00::53 --dns-search lan --dns-search example.com --add-host one:192.0.2.1 \
         --add-host six:[fd00::6] --add-host up:host-gateway --ulimit nofile=70 busybox",
        file.display(),
        data.display()
    );
    let said = said(
        &host,
        &flags,
        "env; pwd; hostname; ulimit -n; cat /etc/hosts /etc/resolv.conf; ip addr show eth0
         echo x >/data/new && cat /third/new && ! touch /seen/new && echo read-only",
    );
    let lines: Vec<&str> = said.lines().map(str::trim).collect();
    for line in [
        "A=flag",
        "B=two words",
        "OURS=from outside",
        "HOSTNAME=inner",
        "HOME=/root",
        "/made/here",
        "inner",
        "70",
        "10.0.0.77\tinner web db db.lan",
        "192.0.2.1\tone",
        "fd00::6\tsix",
        "10.0.0.1\tup",
        "search lan example.com",
        "nameserver 192.0.2.53",
        "nameserver fd00::53",
        "read-only",
    ] {
        assert!(lines.contains(&line), "{line:?} in {said}");
    }
    assert!(!said.contains("NOT_SET_ANYWHERE"), "{said}");
    assert!(
        said.contains("inet 10.0.0.77/24") && said.contains("02:00:00:00:00:77"),
        "{said}"
    );
    assert_eq!(
        lines
            .iter()
            .filter(|line| line.starts_with("nameserver"))
            .count(),
        2,
        "{said}"
    );
}

#[test]
fn an_entry_point_comes_before_the_command() {
    let Some(host) = host() else { return };
    assert_eq!(host.ok("run --rm --entrypoint echo busybox -n a b"), "a b");
    assert_eq!(host.ok("run --rm --entrypoint= busybox echo a"), "a\n");
    let said = host.fails(127, "run --rm --entrypoint nosuch busybox a");
    assert!(said.contains("`nosuch`"), "{said}");
}

#[test]
fn users_are_the_images() {
    let Some(host) = host() else { return };
    let show = "id -u; id -g; cat /proc/self/status | grep Groups; echo $HOME";
    for (user, uid, gid, groups, home) in [
        ("web", "1000", "1001", "4 1001", "/srv"),
        ("1000", "1000", "1001", "4 1001", "/srv"),
        ("web:log", "1000", "4", "4", "/srv"),
        ("7:8", "7", "8", "8", "/"),
        ("7", "7", "0", "0", "/"),
        ("root", "0", "0", "0", "/root"),
    ] {
        let said = said(&host, &format!("--rm -u {user} people"), show);
        let words: Vec<&str> = said.split('\n').map(str::trim).collect();
        let has: Vec<&str> = words[2].split_whitespace().skip(1).collect();
        assert_eq!((words[0], words[1], words[3]), (uid, gid, home), "{user}");
        assert_eq!(has.join(" "), groups, "{user}");
    }
    let said = host.fails(125, "run -u nobody people true");
    assert!(said.contains("no user `nobody`"), "{said}");
    let said = host.fails(125, "run -u web:nobody people true");
    assert!(said.contains("no group `nobody`"), "{said}");
    // A name is looked up in the image, wherever its links point to.
    host.sh(&format!(
        "cd {}; rm etc/passwd; ln -s ../../../../../../../../etc/passwd etc/passwd
         mkfifo etc/pipe; ln -sf pipe etc/group; tar cf ../lib/image/hostile.tar .",
        host.dir().join("image").display()
    ));
    let said = host.fails(125, "run -u root hostile true");
    assert!(said.contains("etc/"), "{said}");
    assert_eq!(host.ok("ps -aq"), "");
}

#[test]
fn a_user_can_write_to_the_output_again() {
    let Some(host) = host() else { return };
    let script = "echo out >/dev/stdout; echo err >/dev/stderr; sleep 1000";
    for flags in ["-d", "-d -t"] {
        let id = said(&host, &format!("{flags} -u web people"), script);
        eventually("it has written", || {
            let logs = host.mydocker(&format!("logs {}", id.trim()));
            let said = [logs.stdout, logs.stderr].concat();
            let said = String::from_utf8_lossy(&said).into_owned();
            assert!(!said.contains("denied"), "{flags}: {said}");
            said.contains("out") && said.contains("err")
        });
        host.ok(&format!("rm -f {}", id.trim()));
    }
}

#[test]
fn a_container_of_a_user_dies_with_its_supervisor() {
    let Some(host) = host() else { return };
    host.ok("run -d --name lone -u web --net testbridge people sleep 1000");
    let pid = pid(&host, "lone");
    let parent = host.sh(&format!("ps -o ppid= -p {pid}"));
    host.sh(&format!("kill -9 {}", parent.trim()));
    eventually("it dies, too", || {
        !PathBuf::from(format!("/proc/{pid}")).exists()
    });
    assert!(host.ok("ps -a").contains("Exited"));
    host.ok("rm lone");
}

#[test]
fn a_network_can_be_another_containers() {
    let Some(host) = host() else { return };
    host.ok("run -d --name web --net testbridge busybox httpd -f -p 80 -h /etc");
    let show = "hostname; cat /etc/hosts; ip -4 -o addr; wget -q -O - http://127.0.0.1/hostname";
    let theirs = said(&host, "--rm --net container:web busybox", show);
    let id = host.ok("ps -q");
    assert!(theirs.matches(id.trim()).count() >= 3, "{theirs}");
    assert!(theirs.contains("10.0.0.2/24"), "{theirs}");
    // It goes on when the other stops, and a third can join it; both go in any order.
    host.ok("run -d --name side --net container:web busybox sleep 1000");
    host.ok("rm -f web");
    let left = said(
        &host,
        "--rm --net container:side busybox",
        "ip -o link; cat /etc/hosts",
    );
    assert!(left.contains("lo") && !left.contains("eth0"), "{left}");
    assert!(left.contains("10.0.0.2"), "the names that it had: {left}");
    host.ok("stop -t 0 side");
    let said = host.fails(125, "run --net container:side busybox true");
    assert!(said.contains("side is exited"), "{said}");
    let said = host.fails(125, "run --net container:nobody busybox true");
    assert!(said.contains("no container `nobody`"), "{said}");
    host.ok("rm side");
    host.ok("network remove testbridge");
    assert_eq!(host.ok("ps -aq"), "");
    let pins = fs::read_dir(host.dir().join("run/netns")).unwrap().count();
    assert_eq!(pins, 0, "no namespace is left");
    for more in [
        "--hostname x",
        "--dns 1.2.3.4",
        "-p 80:80",
        "--network-alias x",
        "--net none",
    ] {
        host.fails(2, &format!("run --net container:web {more} busybox true"));
    }
}

#[test]
fn the_hosts_network_has_added_names() {
    let Some(host) = host() else { return };
    let flags = "--rm --net host --add-host one:192.0.2.1 --dns 192.0.2.53 busybox";
    let said = said(&host, flags, "cat /etc/hosts /etc/resolv.conf; ip -o link");
    assert!(said.contains("192.0.2.1\tone\n"), "{said}");
    assert!(
        said.contains("nameserver 192.0.2.53\n") && said.contains("testbridge"),
        "{said}"
    );
}

#[test]
fn bad_words_are_refused_with_a_reason() {
    let Some(host) = host() else { return };
    let before = host.snapshot();
    for (flags, why) in [
        ("-u :", "user `:`"),
        ("-u 4294967296", "4294967296"),
        ("-e =x", "variable `=x`"),
        ("--env-file /no/such/file", "/no/such/file"),
        ("--cap-add NET", "`NET` is no capability"),
        ("--cap-drop CAP_", "`CAP_` is no capability"),
        ("--security-opt apparmor=x", "`apparmor=x`"),
        ("--security-opt seccomp=/no/such", "/no/such"),
        ("--cpus 0", "0 %"),
        ("--cpus x", "`x`"),
        ("--cpus 1 --cpu 20", "cannot be used with"),
        ("--cpu-shares 1", "shares of 1"),
        ("--pids-limit -2", "-2 processes"),
        ("--ulimit files=1", "`files` is no ulimit"),
        ("--ulimit nofile=2:1", "nofile"),
        ("--dns example.com", "example.com"),
        (
            "--dns 1.1.1.1 --dns 1.1.1.2 --dns 1.1.1.3 --dns 1.1.1.4",
            "4 name servers",
        ),
        ("--dns-search a/b", "`a/b`"),
        ("--add-host one", "`one`"),
        ("--add-host one:two", "`one:two`"),
        ("--add-host up:host-gateway", "--net NETWORK"),
        ("--net testbridge --network-alias a/b", "`a/b`"),
        ("--network-alias a", "--net NETWORK"),
        ("-v data:/data", "named volumes are not supported"),
        ("-v ./data:/data", "`./data` is not an absolute path"),
        ("--runtime nosuchruntime", "`nosuchruntime`"),
        ("--runtime /etc/passwd", "/etc/passwd is no program"),
    ] {
        let said = host.fails(2, &format!("run {flags} busybox true"));
        assert!(said.contains(why), "{flags}: {said}");
    }
    // What only the host can tell.
    let said = host.fails(125, "run --cpuset-cpus 0,9999 busybox true");
    assert!(said.contains("no processor 9999"), "{said}");
    host.ok("network create --internal --subnet 10.1.0.0/24 inner");
    let said = host.fails(
        125,
        "run --net inner --add-host up:host-gateway busybox true",
    );
    assert!(said.contains("`up`"), "{said}");
    host.ok("network remove inner");
    assert_eq!(host.ok("ps -aq"), "");
    // The image is unpacked.
    let left = host.snapshot();
    let left: Vec<_> = left
        .lines()
        .filter(|line| !line.contains("/image/layers/") && !line.contains("/image/manifests/"))
        .collect();
    let came: Vec<_> = left
        .iter()
        .filter(|line| !before.lines().any(|old| old == **line))
        .collect();
    assert!(came.is_empty(), "{came:#?}");
}
