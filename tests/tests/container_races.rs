//! Many processes at once on the same containers: no name, address or port is given twice, nobody
//! waits for ever, and nobody minds what comes and goes meanwhile.

use std::collections::BTreeSet;
use std::process::Output;
use std::thread;
use std::time::{Duration, Instant};

use mydocker_tests::Dock;
use serde_json::Value;

const PROCESSES: usize = 16;
/// Commands that each place runs, one after the other.
const ROUNDS: usize = 8;
const NAMES: [&str; 5] = ["web", "proxy", "queue", "mail", "news"];
/// How long a command may take: some wait for all the others.
const WAIT_MAX: Duration = Duration::from_secs(60);

/// What one place does next.
fn next(dice: &mut fastrand::Rng) -> String {
    let name = NAMES[dice.usize(..NAMES.len())];
    // Few, so that many want the same.
    let port = dice.u16(8000..8004);
    match dice.u8(..16) {
        0..=3 => format!("run -d --name {name} --net n -p {port}:80 busybox sleep 1000"),
        4 => format!("run -d --rm --name {name} --net n -p {port}:80 busybox sleep 1000"),
        5 | 6 => format!("run -d --rm --name {name} --net n busybox true"),
        7 => format!("run -d --name {name} --net n busybox true"),
        8 | 9 => format!("stop -t 0 {name}"),
        10 => format!("rm {name}"),
        11 | 12 => format!("rm -f {name}"),
        13 | 14 => "ps -a --format json".to_owned(),
        _ => "network check".to_owned(),
    }
}

/// That a command did what it should, or was refused in words that hold in such a crowd.
fn check(line: &str, output: &Output, took: Duration) {
    assert!(took < WAIT_MAX, "{line}: {took:?}");
    let said = String::from_utf8_lossy(&output.stderr);
    let context = format!("{line}: {output:?}");
    let word = line.split(' ').next().unwrap_or_default();
    let (code, reasons): (_, &[_]) = match word {
        "run" => (125, &["is taken by container", "is held by container"]),
        "stop" => (1, &["no container"]),
        "rm" => (1, &["no container", "stop it first"]),
        _ => (0, &[]),
    };
    if output.status.success() {
        assert!(said.is_empty(), "{context}");
    } else {
        let refused = reasons.iter().any(|reason| said.contains(reason));
        assert!(output.status.code() == Some(code) && refused, "{context}");
    }
    if word == "ps" {
        let rows: Vec<Value> = serde_json::from_slice(&output.stdout).expect("JSON");
        check_unique(&rows);
    }
}

/// Nothing that must be unique is there twice.
fn check_unique(rows: &[Value]) {
    let mut taken = BTreeSet::new();
    for row in rows {
        let lists = ["ip", "ports"].map(|key| row[key].as_array().expect("a list"));
        for one in lists.into_iter().flatten().chain([&row["name"]]) {
            assert!(taken.insert(one.to_string()), "{one} twice in {rows:#?}");
        }
    }
}

fn timed(dock: &Dock, line: &str) {
    let start = Instant::now();
    check(line, &dock.host.mydocker(line), start.elapsed());
}

/// Runs a line for each of so many numbers, all at once; all succeed.
fn all_at_once(dock: &Dock, line: impl Fn(usize) -> String + Sync) {
    thread::scope(|scope| {
        for number in 0..PROCESSES {
            let line = &line;
            scope.spawn(move || dock.host.ok(&line(number)));
        }
    });
}

#[test]
fn a_mix_of_everything_by_sixteen_processes() {
    let Some(dock) = Dock::new() else { return };
    let before = dock.host.snapshot();
    thread::scope(|scope| {
        for seed in 0..PROCESSES {
            let dock = &dock;
            scope.spawn(move || {
                let mut dice = fastrand::Rng::with_seed(seed as u64);
                for _ in 0..ROUNDS {
                    timed(dock, &next(&mut dice));
                }
            });
        }
    });
    check_unique(&dock.ps());
    dock.check_network("in the end");
    for name in NAMES {
        timed(&dock, &format!("rm -f {name}"));
    }
    dock.check_empty("in the end");
    dock.host.assert_as(&before);
}

/// Where nobody is in the way of anybody, nobody is refused; and who removes what somebody else
/// is removing finds it gone.
#[test]
fn sixteen_of_everything() {
    let Some(dock) = Dock::new() else { return };
    let before = dock.host.snapshot();
    all_at_once(&dock, |number| {
        format!("run -d --name web{number} --net n -p 80 busybox sleep 1000")
    });
    let rows = dock.ps();
    let all_run = rows.iter().all(|row| row["status"] == "running");
    assert!(rows.len() == PROCESSES && all_run, "{rows:#?}");
    check_unique(&rows);
    dock.check_network("all run");
    all_at_once(&dock, |number| format!("stop -t 0 web{number}"));
    thread::scope(|scope| {
        for number in 0..2 * PROCESSES {
            let dock = &dock;
            scope.spawn(move || timed(dock, &format!("rm -f web{}", number / 2)));
        }
    });
    assert!(dock.ps().is_empty());
    dock.check_empty("all are removed");
    dock.host.assert_as(&before);
}
