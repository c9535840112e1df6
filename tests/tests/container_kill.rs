//! `kill -9` before every system call of every command that changes a container, and of the
//! process that watches over one: the next commands find it running or gone, and nothing that nobody owns.

use std::fs;
use std::process::Command;

use mydocker_tests::tracer::{kill_before, kill_child_before};
use mydocker_tests::{Attempt, Dock, eventually};

const RUN: &str = "run -d --name web --net n -p 8080:80 busybox sleep 1000";

/// Has `attempt` run a command with a death at each place, after `prepare`, until none happens.
/// What comes next finds all well each time.
#[track_caller]
fn everywhere(
    dock: &Dock,
    prepare: &[&str],
    line: &str,
    attempt: impl Fn(&Command, usize) -> Attempt,
) {
    let before = dock.host.snapshot();
    for number in 0.. {
        for line in prepare {
            dock.host.ok(line);
        }
        let attempt = attempt(&dock.host.mydocker_command(line), number);
        let context = format!("{line}, {number}: {attempt:?}");
        go_on(dock, number, &context);
        if attempt.met.is_none() {
            assert_eq!(attempt.code, Some(0), "{context}");
            assert!(number >= 10, "the tracer saw little of it: {number} calls");
            break;
        }
    }
    dock.host.assert_as(&before);
}

/// What a user does next, something else each time.
#[track_caller]
fn go_on(dock: &Dock, number: usize, context: &str) {
    let host = &dock.host;
    match number % 4 {
        0 => {}
        1 => remove(dock, context),
        2 => {
            host.ok("network create --subnet 10.250.0.0/24 bystander");
            host.ok("network remove bystander");
        }
        _ => {
            host.ok("run --rm --net n busybox true");
        }
    }
    check_row(dock, context);
    dock.check_network(context);
    remove(dock, context);
    dock.check_empty(context);
}

/// Kills it, and waits until it is dead, and the container with it, which may be so a moment before.
fn kill_supervisor(dock: &Dock) {
    let row = dock.row("web").expect("it runs");
    let pid = row["pid"].as_i64().expect("it runs");
    let parent = dock.host.sh(&format!("ps -o ppid= -p {pid}"));
    let (pid, parent) = (pid.to_string(), parent.trim());
    dock.host.sh(&format!("kill -9 {parent}"));
    for dies in [&pid, parent] {
        // A zombie is dead enough, and may stay one for a while.
        eventually("both die", || {
            let status = fs::read_to_string(format!("/proc/{dies}/status"));
            status.map_or(true, |status| status.contains("State:\tZ"))
        });
    }
}

#[track_caller]
fn remove(dock: &Dock, context: &str) {
    let output = dock.host.mydocker("rm -f web");
    let said = String::from_utf8_lossy(&output.stderr);
    let absent = output.status.code() == Some(1) && said.contains("no container `web`");
    assert!(output.status.success() || absent, "{context}: {output:?}");
}

/// What is said of the container is true: it runs and is on its network, or it does neither.
#[track_caller]
fn check_row(dock: &Dock, context: &str) {
    eventually(context, || {
        let row = dock.row("web");
        let attached = dock.host.ok("network list --format json").contains("8080");
        match row.as_ref().and_then(|row| row["status"].as_str()) {
            Some("running") => attached,
            // Whoever makes it has not been killed, and comes to an end.
            Some("created") => false,
            Some(_) | None => !attached,
        }
    });
}

#[test]
fn running() {
    let Some(dock) = Dock::new() else { return };
    everywhere(&dock, &[], RUN, |command, number| {
        kill_before(command, 1, number)
    });
}

/// It is killed while it makes the container, too, and while somebody waits for it to take it down.
#[test]
fn watching() {
    let Some(dock) = Dock::new() else { return };
    everywhere(&dock, &[], RUN, |command, number| {
        let ending = || remove(&dock, &format!("while {RUN} is watched, {number}"));
        kill_child_before(command, number, ending)
    });
}

/// One that ends by itself and is removed when it has: not even its record is left.
#[test]
fn watching_to_the_end() {
    let Some(dock) = Dock::new() else { return };
    let line = "run -d --rm --name web --net n -p 8080:80 busybox true";
    everywhere(&dock, &[], line, |command, number| {
        let attempt = kill_child_before(command, number, || ());
        dock.ps();
        assert_eq!(dock.row("web"), None, "{attempt:?}");
        attempt
    });
}

/// Whoever takes down what a dead supervisor left dies, too.
#[test]
fn removing_what_is_abandoned() {
    let Some(dock) = Dock::new() else { return };
    abandoned(&dock, "rm -f web");
}

#[test]
fn tidying() {
    let Some(dock) = Dock::new() else { return };
    abandoned(&dock, "ps -a");
}

#[track_caller]
fn abandoned(dock: &Dock, line: &str) {
    everywhere(dock, &[RUN], line, |command, number| {
        kill_supervisor(dock);
        kill_before(command, 1, number)
    });
}

#[test]
fn stopping() {
    let Some(dock) = Dock::new() else { return };
    let stop = "stop -t 0 web";
    everywhere(&dock, &[RUN], stop, |command, number| {
        kill_before(command, 1, number)
    });
}

#[test]
fn removing() {
    let Some(dock) = Dock::new() else { return };
    let prepare = [RUN, "stop -t 0 web"];
    everywhere(&dock, &prepare, "rm web", |command, number| {
        kill_before(command, 1, number)
    });
}

#[test]
fn removing_by_force() {
    let Some(dock) = Dock::new() else { return };
    everywhere(&dock, &[RUN], "rm -f web", |command, number| {
        kill_before(command, 1, number)
    });
}

#[test]
fn starting() {
    let Some(dock) = Dock::new() else { return };
    let prepare = [RUN, "stop -t 0 web"];
    everywhere(&dock, &prepare, "start web", |command, number| {
        kill_before(command, 1, number)
    });
}

/// The supervisor of one that is started again, at every third place: most of what it does is
/// what it did the first time.
#[test]
fn watching_once_more() {
    let Some(dock) = Dock::new() else { return };
    let prepare = [RUN, "stop -t 0 web"];
    everywhere(&dock, &prepare, "start web", |command, number| {
        let ending = || remove(&dock, &format!("while it is watched once more, {number}"));
        kill_child_before(command, 3 * number, ending)
    });
}

#[test]
fn restarting() {
    let Some(dock) = Dock::new() else { return };
    let restart = "restart -t 0 web";
    everywhere(&dock, &[RUN], restart, |command, number| {
        kill_before(command, 1, number)
    });
}

/// Who runs another program inside is killed, and whoever watches over that.
#[test]
fn executing() {
    let Some(dock) = Dock::new() else { return };
    let exec = "exec web true";
    everywhere(&dock, &[RUN], exec, |command, number| {
        kill_before(command, 1, number)
    });
    everywhere(&dock, &[RUN], exec, |command, number| {
        kill_child_before(command, number, || ())
    });
}

#[test]
fn renaming() {
    let Some(dock) = Dock::new() else { return };
    let prepare = [RUN, "stop -t 0 web", "rename web other"];
    everywhere(&dock, &prepare, "rename other web", |command, number| {
        let attempt = kill_before(command, 1, number);
        let row = dock.row("web").or_else(|| dock.row("other"));
        assert!(row.is_some(), "{attempt:?}");
        let _ = dock.host.mydocker("rename other web");
        attempt
    });
}
