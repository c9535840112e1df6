//! The life of containers: started again, signalled, renamed, waited for, looked at and looked into, and what
//! is said of them is true whoever was killed meanwhile.
#![allow(clippy::unwrap_used, reason = "what helps a test is a test")]

use std::fs;
use std::process::{Child, Stdio};
use std::thread;
use std::time::Duration;

use mydocker_tests::{Dock, eventually};
use serde_json::Value;

const RUN: &str = "run -d --name web --net n -p 8080:80 busybox sleep 1000";

/// `mydocker` with a script as its last word, and what it prints.
#[track_caller]
fn script(dock: &Dock, line: &str, script: &str) -> String {
    let mut command = dock.host.mydocker_command(line);
    let output = command.arg(script).output().unwrap();
    assert!(output.status.success(), "{line} {script}: {output:?}");
    String::from_utf8(output.stdout).unwrap()
}

/// A command that goes on meanwhile.
fn begin(dock: &Dock, line: &str) -> Child {
    let mut command = dock.host.mydocker_command(line);
    command.stdout(Stdio::piped()).stderr(Stdio::piped());
    command.spawn().unwrap()
}

#[track_caller]
fn text(child: Child) -> String {
    let output = child.wait_with_output().unwrap();
    assert!(output.status.success(), "{output:?}");
    String::from_utf8(output.stdout).unwrap()
}

#[track_caller]
fn inspect(dock: &Dock, name: &str) -> Value {
    let all: Value = serde_json::from_str(&dock.host.ok(&format!("inspect {name}"))).unwrap();
    all[0].clone()
}

#[track_caller]
fn status(dock: &Dock, name: &str) -> (String, Option<i64>) {
    let row = dock.row(name).expect("it is there");
    let status = row["status"].as_str().unwrap().to_owned();
    (status, row["exit_code"].as_i64())
}

/// Kills a supervisor; the container follows, unless it has shed that tie.
fn kill_supervisor(dock: &Dock, name: &str) {
    let state = &inspect(dock, name)["state"];
    let supervisor = state["supervisor_pid"].as_i64().unwrap();
    dock.host.sh(&format!("kill -9 {supervisor}"));
    eventually("it dies", || {
        let status = fs::read_to_string(format!("/proc/{supervisor}/status"));
        status.map_or(true, |status| status.contains("State:\tZ"))
    });
}

#[test]
fn started_again_it_is_the_same() {
    let Some(dock) = Dock::new() else { return };
    let host = &dock.host;
    let id = host.ok(RUN);
    host.ok("exec web touch /kept");
    let first = inspect(&dock, "web");
    host.ok("stop -t 0 web");
    assert_eq!(status(&dock, "web"), ("exited".to_owned(), Some(137)));
    assert!(
        dock.row("web").unwrap()["ip"]
            .as_array()
            .unwrap()
            .is_empty()
    );
    assert_eq!(host.ok("start web"), "web\n");
    assert_eq!(host.ok("start web"), "web\n", "it runs already");
    let row = dock.row("web").unwrap();
    assert_eq!(
        (&row["id"], &row["status"]),
        (&Value::from(id.trim()), &"running".into())
    );
    assert_eq!(row["ports"], serde_json::json!(["0.0.0.0:8080->80/tcp"]));
    assert!(row["exit_code"].is_null() && row["finished"].is_null());
    assert_eq!(host.ok("exec web ls /kept"), "/kept\n");
    assert_ne!(inspect(&dock, "web")["state"]["pid"], first["state"]["pid"]);
    dock.check_network("started again");
    host.ok("restart -t 0 web");
    assert_eq!(host.ok("exec web ls /kept"), "/kept\n");
    dock.check_network("restarted");
    host.ok("rm -f web");
    dock.check_empty("removed");
}

#[test]
fn a_start_that_fails_leaves_it_as_it_was() {
    let Some(dock) = Dock::new() else { return };
    let host = &dock.host;
    host.ok("run -d --name web --net n -p 8080:80 busybox sleep 1000");
    host.ok("stop -t 0 web");
    host.ok("run -d --name other --net n -p 8080:80 busybox sleep 1000");
    let before = host.snapshot();
    let said = host.fails(125, "start web");
    assert!(said.contains("8080") && said.contains("other"), "{said}");
    host.assert_as(&before);
    assert_eq!(status(&dock, "web"), ("exited".to_owned(), Some(137)));
    let error = inspect(&dock, "web")["state"]["error"].clone();
    assert!(error.as_str().unwrap().contains("8080"), "{error}");
    // The one that is in the way goes, and so does the error.
    host.ok("rm -f other");
    host.ok("start web");
    assert!(inspect(&dock, "web")["state"]["error"].is_null());
    // One whose image went behind our back.
    host.ok("stop -t 0 web");
    host.sh(&format!("rm -r {}/lib/image/*", host.dir().display()));
    host.fails(125, "start web");
    assert_eq!(status(&dock, "web"), ("exited".to_owned(), Some(137)));
    host.ok("rm web");
}

#[test]
fn started_in_the_foreground() {
    let Some(dock) = Dock::new() else { return };
    let host = &dock.host;
    script(
        &dock,
        "run --name job busybox sh -c",
        "cat; echo done >> /log; wc -l < /log",
    );
    assert_eq!(host.ok("start -a job"), "2\n");
    let said = host.fails(125, "start -i job");
    assert!(said.contains("without -i"), "{said}");
    host.fails(2, "start -a job job");
    // In the background its output is logged.
    host.ok("start job");
    assert_eq!(host.ok("wait job"), "0\n");
    assert_eq!(host.ok("logs job"), "3\n");
    let seven = host
        .mydocker_command("run --name seven busybox sh -c")
        .arg("exit 7")
        .status();
    assert_eq!(seven.unwrap().code(), Some(7));
    assert_eq!(host.mydocker("start -a seven").status.code(), Some(7));
    host.ok("rm job seven");
    dock.check_empty("removed");
}

#[test]
fn signals() {
    let Some(dock) = Dock::new() else { return };
    let host = &dock.host;
    let trap = "trap 'echo hup' HUP; trap 'exit 4' TERM; echo ready; while :; do sleep 0.05; done";
    script(&dock, "run -d --name trap busybox sh -c", trap);
    eventually("it is ready", || host.ok("logs trap") == "ready\n");
    for signal in ["HUP", "SIGHUP", "sighup", "1"] {
        assert_eq!(host.ok(&format!("kill -s {signal} trap")), "trap\n");
    }
    eventually("they arrive", || host.ok("logs trap").contains("hup"));
    let said = host.fails(2, "kill -s NONE trap");
    assert!(said.contains("`NONE`") && said.contains("TERM"), "{said}");
    host.ok("kill --signal TERM trap");
    assert_eq!(host.ok("wait trap"), "4\n");
    let said = host.fails(1, "kill trap");
    assert!(said.contains("does not run"), "{said}");
    // After SIGKILL it is dead, not dying.
    host.ok("start trap");
    host.ok("kill trap");
    assert_eq!(status(&dock, "trap"), ("exited".to_owned(), Some(137)));
    host.ok("rm trap");
}

#[test]
fn waiting() {
    let Some(dock) = Dock::new() else { return };
    let host = &dock.host;
    script(
        &dock,
        "run -d --name three busybox sh -c",
        "sleep 0.5; exit 3",
    );
    script(
        &dock,
        "run -d --rm --name five busybox sh -c",
        "sleep 1; exit 5",
    );
    // Also of one that is gone with its record by then.
    assert_eq!(host.ok("wait five three"), "5\n3\n");
    assert_eq!(host.ok("wait three"), "3\n", "it has ended already");
    assert!(dock.row("five").is_none());
    let output = host.mydocker("wait nosuch three");
    assert_eq!(output.status.code(), Some(1));
    assert_eq!(output.stdout, b"3\n");
    // Who waits is told of the end that comes next, whoever brings it about.
    for line in ["stop -t 0 three", "rm -f three"] {
        script(&dock, "run -d --name long busybox sh -c", "sleep 1000");
        let waiting = begin(&dock, "wait long");
        thread::sleep(Duration::from_millis(300));
        host.ok(&line.replace("three", "long"));
        assert_eq!(text(waiting), "137\n", "{line}");
        let _ = host.mydocker("rm long");
    }
    host.ok("run -d --name lost busybox sleep 1000");
    kill_supervisor(&dock, "lost");
    let said = host.fails(1, "wait lost");
    assert!(said.contains("its supervisor was killed"), "{said}");
    host.ok("rm three lost");
    dock.check_empty("removed");
}

#[test]
fn renaming() {
    let Some(dock) = Dock::new() else { return };
    let host = &dock.host;
    let id = host.ok(RUN);
    host.ok("run -d --name other busybox sleep 1000");
    let said = host.fails(1, "rename web new");
    assert!(
        said.contains("network n") && said.contains("stop it"),
        "{said}"
    );
    host.ok("rename other another");
    host.ok("exec another true");
    host.ok("stop -t 0 web");
    let said = host.fails(1, "rename web another");
    assert!(said.contains("is taken by"), "{said}");
    host.fails(1, "rename web web");
    host.fails(2, "rename web ../web");
    host.ok("rename web new");
    host.fails(1, "start web");
    host.ok("start new");
    assert!(host.ok("network inspect n").contains("\"new\""));
    let hosts = host.ok("exec new cat /etc/hosts");
    assert!(hosts.contains("new"), "{hosts}");
    // The id stays, and leads to it, as do its first digits.
    assert_eq!(
        host.ok(&format!("port {}", &id[..6])),
        "80/tcp -> 0.0.0.0:8080\n"
    );
    host.ok("rm -f new another");
    dock.check_empty("removed");
}

#[test]
fn ports() {
    let Some(dock) = Dock::new() else { return };
    let host = &dock.host;
    host.ok("run -d --name web --net n -p 8080:80 -p 127.0.0.1:53:53/udp busybox sleep 1000");
    assert_eq!(
        host.ok("port web"),
        "53/udp -> 127.0.0.1:53\n80/tcp -> 0.0.0.0:8080\n"
    );
    // Not what was asked for once, but what is.
    host.ok("network port add n web 8443:443");
    host.ok("network port rm n web 8080:80");
    assert_eq!(host.ok("port web 443"), "0.0.0.0:8443\n");
    assert_eq!(host.ok("port web 53/udp"), "127.0.0.1:53\n");
    assert!(host.ok("ps").contains("8443->443/tcp"));
    host.fails(1, "port web 80");
    host.fails(1, "port web 53");
    host.fails(2, "port web 0");
    host.fails(2, "port web 80/icmp");
    // After a restart it is what was asked for.
    host.ok("restart -t 0 web");
    assert!(host.ok("port web").contains("80/tcp -> 0.0.0.0:8080"));
    host.ok("stop -t 0 web");
    let said = host.fails(1, "port web");
    assert!(said.contains("does not run"), "{said}");
    host.ok("rm web");
}

#[test]
fn another_program_inside() {
    let Some(dock) = Dock::new() else { return };
    let host = &dock.host;
    let line = "run -d --name box --net n -e A=1 -e B=2 --memory 64m -w /srv busybox sleep 1000";
    host.ok(line);
    let see = "hostname; pwd; echo $A $B; ip -4 -o addr show eth0; cat /proc/self/cgroup";
    let seen = script(&dock, "exec -e B=3 box sh -c", see);
    let id = dock.row("box").unwrap()["id"].as_str().unwrap().to_owned();
    assert!(seen.starts_with(&format!("{id}\n/srv\n1 3\n")), "{seen}");
    assert!(
        seen.contains("10.1.0.") && seen.contains(&format!("mydocker-{id}")),
        "{seen}"
    );
    // It may do what the first program may, and no more.
    let may = "grep -E 'Cap|NoNew|Seccomp:' /proc/self/status";
    let of_first = script(
        &dock,
        "exec box sh -c",
        "grep -E 'Cap|NoNew|Seccomp:' /proc/1/status",
    );
    assert_eq!(script(&dock, "exec box sh -c", may), of_first);
    for kind in ["mnt", "net", "pid", "ipc", "uts"] {
        let link = |pid: &str| host.ok(&format!("exec box readlink /proc/{pid}/ns/{kind}"));
        assert_eq!(link("self"), link("1"), "{kind}");
    }
    assert_eq!(host.ok("exec -w /tmp -u 1000:7 box pwd"), "/tmp\n");
    let user = script(
        &dock,
        "exec -u 1000:7 box sh -c",
        "id -u; id -g; grep CapEff /proc/self/status",
    );
    assert_eq!(user, "1000\n7\nCapEff:\t0000000000000000\n");
    for (code, line) in [
        (127, "exec box nosuch"),
        (126, "exec box /etc"),
        (126, "exec -w /nosuch box true"),
        (1, "exec -w tmp box true"),
        (126, "exec -u nosuch box true"),
        (1, "exec -e =A box true"),
        (1, "exec --env-file /nosuch box true"),
        (1, "exec nosuch true"),
        (2, "exec box"),
    ] {
        host.fails(code, line);
    }
    let exits = host
        .mydocker_command("exec box sh -c")
        .arg("exit 9")
        .status();
    assert_eq!(exits.unwrap().code(), Some(9));
    let killed = host
        .mydocker_command("exec box sh -c")
        .arg("kill -9 $$")
        .status();
    assert_eq!(killed.unwrap().code(), Some(137));
    // Nothing of all that is left, neither a process nor a file.
    let ps = host.ok("exec box ps");
    assert_eq!(ps.lines().count(), 3, "{ps}");
    let left = host.sh(&format!(
        "cd {}/run; ls bundle/{id} runtime/{id}",
        host.dir().display()
    ));
    assert!(
        !left.contains("exec-") && !left.contains("tenant-"),
        "{left}"
    );
    host.ok("rm -f box");
    dock.check_empty("removed");
}

#[test]
fn another_program_ends_with_its_command_or_its_container() {
    let Some(dock) = Dock::new() else { return };
    let host = &dock.host;
    host.ok("run -d --name box busybox sleep 1000");
    let runs = |what: &str| host.ok("exec box ps").contains(what);
    // Signals are passed on.
    let asked = begin(&dock, "exec box sleep 1001");
    eventually("it runs", || runs("sleep 1001"));
    host.sh(&format!("kill -TERM {}", asked.id()));
    assert_eq!(asked.wait_with_output().unwrap().status.code(), Some(143));
    assert!(!runs("sleep 1001"));
    // So is the death of the command, in its own way.
    let mut dies = begin(&dock, "exec box sleep 1002");
    eventually("it runs", || runs("sleep 1002"));
    dies.kill().unwrap();
    dies.wait().unwrap();
    eventually("it is ended", || !runs("sleep 1002"));
    host.ok("exec -d box sleep 1003");
    assert!(runs("sleep 1003"));
    let last = begin(&dock, "exec box sleep 1004");
    eventually("it runs", || runs("sleep 1004"));
    host.ok("stop -t 0 box");
    assert_eq!(last.wait_with_output().unwrap().status.code(), Some(137));
    let said = host.fails(1, "exec box true");
    assert!(said.contains("`mydocker start box`"), "{said}");
    host.ok("rm box");
    dock.check_empty("removed");
}

/// A program that changes its user outlives its supervisor, and is not lied about.
#[test]
fn a_container_that_outlives_its_supervisor() {
    let Some(dock) = Dock::new() else { return };
    let host = &dock.host;
    let changes = "echo u:x:1000:1000::/:/bin/sh >> /etc/passwd; exec su u -c 'exec sleep 1000'";
    script(
        &dock,
        "run -d --name box --net n -p 8080:80 busybox sh -c",
        changes,
    );
    let uids = || host.ok("exec box grep Uid /proc/1/status");
    eventually("it has changed", || uids().contains("1000"));
    kill_supervisor(&dock, "box");
    assert_eq!(status(&dock, "box").0, "running");
    assert_eq!(host.ok("exec box id -u"), "0\n");
    assert!(host.ok("port box").contains("8080"));
    host.ok("stats --no-stream box");
    let waiting = begin(&dock, "wait box");
    host.ok("stop -t 0 box");
    assert_eq!(status(&dock, "box"), ("exited".to_owned(), None));
    assert!(host.ok("ps -a").contains("Exited (?)"));
    let output = waiting.wait_with_output().unwrap();
    assert!(!output.status.success(), "nobody knows: {output:?}");
    host.ok("start box");
    host.ok("rm -f box");
    dock.check_empty("removed");
}

#[test]
fn logs() {
    let Some(dock) = Dock::new() else { return };
    let host = &dock.host;
    let count = "for i in 1 2 3; do echo $i; echo e$i >&2; sleep 0.3; done; printf half";
    script(&dock, "run -d --name count busybox sh -c", count);
    // Follows to the end, which it notices.
    let followed = host.mydocker("logs -f count");
    assert_eq!(String::from_utf8_lossy(&followed.stdout), "1\n2\n3\nhalf");
    assert_eq!(String::from_utf8_lossy(&followed.stderr), "e1\ne2\ne3\n");
    assert_eq!(host.ok("logs --tail 1 count"), "half");
    assert_eq!(host.ok("logs --tail 0 count"), "");
    assert_eq!(host.ok("logs --tail all count"), "1\n2\n3\nhalf");
    assert_eq!(
        host.ok("logs --since 2000-01-01T00:00:00+02:00 --until 1m count"),
        ""
    );
    assert_eq!(host.ok("logs --since 1h count"), "1\n2\n3\nhalf");
    let stamped = host.ok("logs -t count");
    let (second, _) = stamped.lines().nth(1).unwrap().split_once(' ').unwrap();
    assert_eq!(
        host.ok(&format!("logs --since {second} count")),
        "2\n3\nhalf"
    );
    assert_eq!(host.ok(&format!("logs --until {second} count")), "1\n2\n");
    for bad in [
        "--tail x",
        "--tail -1",
        "--since never",
        "--until 2026-02-30",
    ] {
        host.fails(2, &format!("logs {bad} count"));
    }
    // What is damaged is named, and the rest is shown.
    let path = inspect(&dock, "count")["log"].as_str().unwrap().to_owned();
    let log = fs::read_to_string(&path).unwrap();
    let (first, rest) = log.split_once('\n').unwrap();
    fs::write(&path, format!("{first}\n{{\n{rest}{{\"log\":")).unwrap();
    let output = host.mydocker("logs count");
    let said = String::from_utf8_lossy(&output.stderr);
    assert_eq!(output.status.code(), Some(1));
    assert_eq!(String::from_utf8_lossy(&output.stdout), "1\n2\n3\nhalf");
    assert!(
        said.contains(&path) && said.contains("breaks off"),
        "{said}"
    );
    assert!(said.contains("2 lines of the log"), "{said}");
    host.ok("run --name front busybox true");
    let output = host.mydocker("logs front");
    assert!(output.status.success());
    assert!(String::from_utf8_lossy(&output.stderr).contains("in the foreground"));
    host.ok("rm count front");
}

#[test]
fn statistics() {
    let Some(dock) = Dock::new() else { return };
    let host = &dock.host;
    script(
        &dock,
        "run -d --name busy --net n --memory 64m busybox sh -c",
        "while :; do :; done",
    );
    host.ok("run -d --name idle busybox sleep 1000");
    host.ok("exec busy ping -c 2 -i 0.2 10.1.0.1");
    let seen: Vec<Value> =
        serde_json::from_str(&host.ok("stats --no-stream --format json")).unwrap();
    assert_eq!(seen.len(), 2);
    let of = |name: &str| seen.iter().find(|one| one["name"] == name).unwrap();
    let (busy, idle) = (of("busy"), of("idle"));
    let percent = |one: &Value| one["cpu_percent"].as_f64().unwrap();
    assert!(percent(busy) > 10.0 && percent(busy) < 150.0, "{seen:#?}");
    assert!(percent(idle) < 5.0, "{seen:#?}");
    assert_eq!(busy["memory_max_bytes"], 64 << 20);
    assert!(idle["memory_max_bytes"].as_u64().unwrap() > 64 << 20);
    for one in &seen {
        assert!(
            (1..64 << 20).contains(&one["memory_bytes"].as_u64().unwrap()),
            "{one}"
        );
        assert_eq!(one["pids"], 1);
    }
    let eth0 = &busy["network"][0];
    assert_eq!(eth0["interface"], "eth0");
    // Two requests of 98 bytes out, two answers in.
    for key in ["received_bytes", "sent_bytes"] {
        let bytes = eth0[key].as_u64().unwrap();
        assert!((196..10_000).contains(&bytes), "{eth0}");
    }
    assert!(idle["network"].as_array().unwrap().is_empty());
    let table = host.ok("stats --no-stream busy");
    assert!(
        table.contains("/ 64MiB") && table.contains("eth0 ") && !table.contains("idle"),
        "{table}"
    );
    // A stream of those that are named ends with them.
    let streaming = begin(&dock, "stats --format json idle");
    thread::sleep(Duration::from_millis(2500));
    host.ok("rm -f busy idle");
    let lines: Vec<Value> = text(streaming)
        .lines()
        .map(|line| serde_json::from_str(line).unwrap())
        .collect();
    assert!(
        lines.len() > 1 && lines[0][0]["name"] == "idle",
        "{lines:?}"
    );
    host.fails(1, "stats --no-stream nosuch");
}

#[test]
fn looking_at_them() {
    let Some(dock) = Dock::new() else { return };
    let host = &dock.host;
    let volume = host.dir().join("volume");
    host.ok(&format!(
        "{} ",
        RUN.replace(
            "busybox",
            &format!("-v {}:/data:ro busybox", volume.display())
        )
    ));
    let seen = inspect(&dock, "web");
    assert_eq!(seen["name"], "web");
    assert_eq!(seen["state"]["status"], "running");
    assert_eq!(seen["networks"][0]["network"], "n");
    assert_eq!(seen["networks"][0]["ports"][0]["host_port"], 8080);
    assert_eq!(seen["mounts"][1]["target"], "/data");
    assert_eq!(seen["mounts"][1]["read_only"], true);
    assert_eq!(
        seen["spec"]["command"],
        serde_json::json!(["sleep", "1000"])
    );
    // Those that are there are shown, and the other is named.
    let output = host.mydocker("inspect nosuch web --format json");
    assert_eq!(output.status.code(), Some(1));
    let shown: Vec<Value> = serde_json::from_slice(&output.stdout).unwrap();
    assert_eq!(shown.len(), 1);
    assert!(String::from_utf8_lossy(&output.stderr).contains("`nosuch`"));
    // A command that would break the table.
    script(
        &dock,
        "run -d --name odd busybox sh -c",
        "sleep 1000 # \n\x1b[31m and very much more than fits",
    );
    let table = host.ok("ps");
    assert_eq!(table.lines().count(), 3, "{table}");
    assert!(table.contains('…') && !table.contains('\x1b'), "{table}");
    assert!(host.ok("ps --no-trunc").contains("much more than fits"));
    assert_eq!(host.ok("ps -q").lines().count(), 2);
    host.ok("stop -t 0 web");
    assert!(!host.ok("ps").contains("web"));
    let (table, seen) = (host.ok("ps -a"), inspect(&dock, "web"));
    assert!(
        table.contains("Exited (137)") && table.contains(" ago"),
        "{table}"
    );
    assert!(seen["networks"].as_array().unwrap().is_empty() && seen["state"]["pid"].is_null());
    host.ok("rm -f web odd");
}

#[test]
fn one_failure_does_not_keep_the_others() {
    let Some(dock) = Dock::new() else { return };
    let host = &dock.host;
    for line in ["stop -t 0", "start", "restart -t 0", "kill", "rm"] {
        host.ok("run -d --name one busybox sleep 1000");
        host.ok("run -d --name two busybox sleep 1000");
        if ["start", "rm"].contains(&line) {
            host.ok("stop -t 0 one two");
        }
        let output = host.mydocker(&format!("{line} one nosuch two gone"));
        assert_eq!(output.status.code(), Some(1), "{line}: {output:?}");
        assert_eq!(output.stdout, b"one\ntwo\n", "{line}");
        let said = String::from_utf8_lossy(&output.stderr);
        assert!(
            said.contains("`nosuch`") && said.contains("`gone`"),
            "{line}: {said}"
        );
        let _ = host.mydocker("rm -f one two");
    }
    dock.check_empty("removed");
}

/// One that goes when it ends stays when it is restarted, and goes afterwards.
#[test]
fn restarting_what_goes_when_it_ends() {
    let Some(dock) = Dock::new() else { return };
    let host = &dock.host;
    host.ok("run -d --rm --name web --net n -p 8080:80 busybox sleep 1000");
    host.ok("restart -t 0 web");
    assert_eq!(status(&dock, "web").0, "running");
    host.ok("stop -t 0 web");
    assert!(dock.row("web").is_none());
    dock.check_empty("ended");
}

/// Whenever a supervisor is killed, what is said afterwards is true, and the next command cleans up.
#[test]
fn supervisors_killed_at_random() {
    let Some(dock) = Dock::new() else { return };
    let host = &dock.host;
    let mut dice = fastrand::Rng::with_seed(7);
    for round in 0..12 {
        let line = [
            "exec web sleep 0.2",
            "stop -t 0 web",
            "restart -t 0 web",
            "kill web",
        ][round % 4];
        host.ok(RUN);
        let supervisor = inspect(&dock, "web")["state"]["supervisor_pid"]
            .as_i64()
            .unwrap();
        let mut meanwhile = begin(&dock, line);
        thread::sleep(Duration::from_millis(dice.u64(0..60)));
        // It may have ended by itself.
        host.sh(&format!("kill -9 {supervisor} 2>/dev/null || true"));
        meanwhile.wait().unwrap();
        eventually("what is said is true", || {
            let Some(row) = dock.row("web") else {
                return false;
            };
            let attached = host.ok("network inspect n").contains("8080");
            let pid = row["pid"].as_i64();
            let alive = pid.is_some_and(|pid| fs::exists(format!("/proc/{pid}")).unwrap());
            match row["status"].as_str() {
                Some("running") => attached && alive,
                _ => !attached && !alive,
            }
        });
        dock.check_network(line);
        host.ok("rm -f web");
        dock.check_empty(line);
    }
}

/// All that is resident, also the pages of its program, which supervisors share. Those are many more in
/// a debug build, where only what they don't share has the same bound.
#[test]
fn a_supervisor_is_small() {
    const KIB_MAX: u64 = 5 << 10;
    let Some(dock) = Dock::new() else { return };
    let host = &dock.host;
    let logs = "seq 100000; sleep 1000";
    script(&dock, "run -d --name web --net n busybox sh -c", logs);
    eventually("it has logged", || {
        host.ok("logs --tail 1 web") == "100000\n"
    });
    let supervisor = inspect(&dock, "web")["state"]["supervisor_pid"]
        .as_i64()
        .unwrap();
    let status = fs::read_to_string(format!("/proc/{supervisor}/status")).unwrap();
    let kib = |name: &str| -> u64 {
        let line = status.lines().find(|line| line.starts_with(name)).unwrap();
        line.split_whitespace().nth(1).unwrap().parse().unwrap()
    };
    assert!(kib("RssAnon:") < KIB_MAX / 2, "{status}");
    let resident_max = match cfg!(debug_assertions) {
        true => 2 * KIB_MAX,
        false => KIB_MAX,
    };
    assert!(kib("VmRSS:") < resident_max, "{status}");
    host.ok("rm -f web");
}
