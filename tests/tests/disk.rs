//! A full disk, a read-only one and interrupted system calls, at every place in turn: the exit
//! code says what the kernel holds, and with room again the next command finds all well.
#![expect(clippy::unwrap_used, reason = "what helps a test is a test")]

use std::collections::BTreeMap;
use std::fs::File;
use std::io::Write;
use std::path::{Path, PathBuf};
use std::process::{Command, Output};

use mydocker_tests::{Attempt, Host, Trial};
use nix::mount::{MntFlags, MsFlags, mount, umount2};
use nix::sched::{CloneFlags, unshare};

/// What one page of a tmpfs holds, bytes.
const PAGE: u64 = 4096;

/// The calls that a full disk refuses; those with a question mark not every machine has.
const WRITES: &str = "write,pwrite64,fallocate,fsync,?mkdir,mkdirat,?rename,renameat";
/// The calls that a signal interrupts in what mydocker does once it is loaded.
const INTERRUPTIBLE: &str = "write,pwrite64,fsync,sendto,recvfrom,?poll,ppoll";

/// Runs `command`, has strace tamper with it, and says what strace saw.
fn strace(host: &Host, command: &Command, tampering: &[String]) -> (Vec<String>, Output) {
    let trace = host.dir().join("trace");
    let mut strace = Command::new("strace");
    strace.args(["-f", "-qq"]).args(tampering);
    strace.arg("-o").arg(&trace);
    strace.arg(command.get_program()).args(command.get_args());
    let output = strace.envs(host.environment()).output().unwrap();
    let seen = std::fs::read_to_string(trace).unwrap();
    // The thread that makes a call comes first.
    let calls = seen.lines().filter_map(|line| line.split_once(' '));
    let calls = calls.map(|(_, call)| call.trim().to_owned()).collect();
    (calls, output)
}

/// What a run met with, and what it said.
fn attempt(calls: &[String], output: &Output) -> Attempt {
    let met = calls.iter().find(|line| line.ends_with("(INJECTED)"));
    let said = String::from_utf8_lossy(&output.stderr);
    Attempt {
        met: met.map(|line| format!("{line}: {said}")),
        code: output.status.code(),
    }
}

/// All files of the network's state.
fn files(host: &Host) -> Vec<PathBuf> {
    let run = ["", ".new", "lock", "plan", "state"].map(|name| format!("run/network/{name}"));
    let lib = ["", ".new", "n.json"].map(|name| format!("lib/network/{name}"));
    let roots = ["lib", "run"].map(str::to_owned);
    let paths = run.iter().chain(&lib).chain(&roots);
    paths
        .map(|path| host.dir().join(path.trim_end_matches('/')))
        .collect()
}

/// Tries a round of commands, with the first network and the last.
fn round(host: &Host, name: &str, try_it: impl Fn(&Trial) -> usize) -> usize {
    let sandbox = host.sandbox(name);
    let roots = host.dir().display();
    let tidy = format!("rm -rf {roots}/lib/network {roots}/run/network");
    let create = "network create --subnet 10.1.0.0/24 --subnet fd01::/64 n";
    let connect = &format!(
        "network connect n web --ip 10.1.0.9,fd01::9 -p 8080:80 -p 53:53/udp --netns {}",
        sandbox.display()
    );
    let (remove, disconnect) = ("network remove n", "network disconnect n web");
    let mut first = Trial::new(host, create, &[remove]);
    first.tidy = &tidy;
    let mut met = try_it(&first);
    host.ok(create);
    let mut repair = Trial::new(host, "network repair", &[]);
    repair.damage = "nft flush ruleset";
    met += try_it(&repair);
    let (add, rm) = (
        "network port add n web 81:81",
        "network port rm n web 81:81",
    );
    let there = [(connect.as_str(), disconnect), (add, rm)];
    let back = [(rm, add), (disconnect, connect), (remove, create)];
    for (line, undo) in there.into_iter().chain(back) {
        met += try_it(&Trial::new(host, line, &[undo]));
        host.ok(line);
    }
    met
}

/// The writes of a command to the files of the state: each the call's name, and how many of that
/// name there were with it.
fn writes(calls: &[String]) -> Vec<(String, usize)> {
    let mut counts = BTreeMap::new();
    let names = calls.iter().filter_map(|call| call.split_once('('));
    let count = |(name, _): (&str, _)| {
        let count = counts.entry(name.to_owned()).or_insert(0);
        *count += 1;
        (name.to_owned(), *count)
    };
    names.map(count).collect()
}

/// Tries a command with a full disk at each of its writes, and from there on if `on`.
fn without_room(trial: &Trial, on: bool) -> usize {
    let host = trial.host;
    let paths = files(host).into_iter();
    let paths = paths.flat_map(|path| ["-P".to_owned(), path.display().to_string()]);
    let traced = ["-e".to_owned(), format!("trace={WRITES}")];
    let traced: Vec<String> = traced.into_iter().chain(paths).collect();
    let mut found = Vec::new();
    trial.run(|command, number| {
        let Some(number) = number.checked_sub(1) else {
            let (calls, output) = strace(host, command, &traced);
            found = writes(&calls);
            let met = Some("nothing, to see what it does".to_owned());
            return Attempt {
                met,
                code: output.status.code(),
            };
        };
        let mut tampering = traced.clone();
        if let Some((call, first)) = found.get(number) {
            let on = if on { "+" } else { "" };
            let inject = format!("inject={call}:error=ENOSPC:when={first}{on}");
            tampering.extend(["-e".to_owned(), inject]);
        }
        let (calls, output) = strace(host, command, &tampering);
        let attempt = attempt(&calls, &output);
        if let (Some(met), Some(1..)) = (&attempt.met, attempt.code) {
            assert!(met.contains("make room"), "{met}");
        }
        attempt
    })
}

fn no_room(on: bool) {
    let Some(host) = Host::new() else { return };
    let before = host.snapshot();
    let met = round(&host, "web", |trial| without_room(trial, on));
    assert!(met > 35, "{met}");
    host.assert_as(&before);
}

#[test]
fn no_room_from_each_write_on() {
    no_room(true);
}

/// As when somebody else makes room at once.
#[test]
fn no_room_at_each_write_alone() {
    no_room(false);
}

/// A signal that somebody handles is no failure. Every other call of each name is interrupted,
/// so that each is made again once.
#[test]
fn an_interrupted_call_is_made_again() {
    let Some(host) = Host::new() else { return };
    let before = host.snapshot();
    let tampering = [
        "-e".to_owned(),
        format!("inject={INTERRUPTIBLE}:error=EINTR:when=1+2"),
    ];
    round(&host, "web", |trial| {
        trial.run(|command, number| {
            let tampering = if number == 0 { &tampering[..] } else { &[] };
            let (calls, output) = strace(&host, command, tampering);
            let attempt = attempt(&calls, &output);
            assert_eq!(attempt.code, Some(0), "{attempt:?}");
            attempt
        })
    });
    host.assert_as(&before);
}

/// Runs `test` where what it mounts is nobody else's, on file systems of its own for either root.
fn on_small_disks(test: impl FnOnce(&Host) + Send) {
    let Some(host) = Host::new() else { return };
    let on_thread = || {
        unshare(CloneFlags::CLONE_NEWNS).unwrap();
        let (none, private) = (None::<&str>, MsFlags::MS_REC | MsFlags::MS_PRIVATE);
        mount(none, "/", none, private, none).unwrap();
        for root in roots(&host) {
            std::fs::create_dir(&root).unwrap();
            let small = Some("size=4m,nr_inodes=60,mode=700");
            mount(none, &root, Some("tmpfs"), MsFlags::empty(), small).unwrap();
        }
        test(&host);
        for root in roots(&host) {
            umount2(&root, MntFlags::MNT_DETACH).unwrap();
        }
    };
    let ended = std::thread::scope(|scope| scope.spawn(on_thread).join());
    if let Err(panic) = ended {
        std::panic::resume_unwind(panic);
    }
}

fn roots(host: &Host) -> [PathBuf; 2] {
    ["lib", "run"].map(|root| host.dir().join(root))
}

/// Leaves so many pages free on the disk of a file.
fn fill(mut filler: File, pages: usize) {
    while filler.write_all(&[0; PAGE as usize]).is_ok() {}
    let full = filler.metadata().unwrap().len();
    let free = PAGE * u64::try_from(pages).unwrap();
    filler.set_len(full.saturating_sub(free)).unwrap();
}

/// Leaves room for so many files on a disk.
fn crowd(disk: &Path, files: usize) {
    let crowd = disk.join("crowd");
    std::fs::create_dir(&crowd).unwrap();
    let count = (0..)
        .take_while(|number| File::create(crowd.join(number.to_string())).is_ok())
        .count();
    for number in 0..files.min(count) {
        std::fs::remove_file(crowd.join(number.to_string())).unwrap();
    }
}

/// Runs it on a disk with room for so many pages and files.
fn with_room(host: &Host, command: &Command, room: usize, disk: &Path) -> Attempt {
    let filler = File::create(disk.join("filler")).unwrap();
    crowd(disk, room);
    fill(filler, room);
    let mut again = Command::new(command.get_program());
    again.args(command.get_args()).envs(host.environment());
    let output = again.output().unwrap();
    std::fs::remove_file(disk.join("filler")).unwrap();
    std::fs::remove_dir_all(disk.join("crowd")).unwrap();
    let said = String::from_utf8_lossy(&output.stderr).into_owned();
    let met = (!output.status.success()).then_some(said);
    if let Some(said) = &met {
        assert!(said.contains("make room"), "{said}");
    }
    let code = output.status.code();
    Attempt { met, code }
}

#[test]
fn a_disk_with_less_room_than_it_takes() {
    on_small_disks(|host| {
        for (name, disk) in ["lib", "run"].into_iter().zip(roots(host)) {
            let met = round(host, name, |trial| {
                trial.run(|command, number| with_room(host, command, number, &disk))
            });
            assert!(met > 0, "{}", disk.display());
        }
    });
}

/// Refused, and nothing changed; what writes nothing there goes on.
#[test]
fn a_root_that_is_read_only() {
    on_small_disks(|host| {
        let web = host.sandbox("web");
        let connect = &format!("network connect n web --netns {}", web.display());
        host.ok("network create --subnet 10.1.0.0/24 n");
        let [lib, run] = roots(host).map(|root| root.display().to_string());
        let refused = |root: &str, lines: &[&str]| {
            host.sh(&format!("mount -o remount,ro {root}"));
            let before = host.snapshot();
            for line in lines {
                let said = host.fails(1, line);
                assert!(said.contains("--root and --run-root"), "{said}");
            }
            host.assert_as(&before);
            host.ok("network list");
            assert_eq!(host.ok("network repair --dry-run"), "nothing to do\n");
            host.sh(&format!("mount -o remount,rw {root}"));
        };
        let all = [
            "network create m",
            connect,
            "network remove n",
            "network repair",
        ];
        refused(&run, &all);
        refused(&lib, &["network create m", "network remove n"]);
        host.sh(&format!("mount -o remount,ro {lib}"));
        host.ok(connect);
        host.ok("network disconnect n web");
        host.sh(&format!("mount -o remount,rw {lib}"));
        host.ok("network remove n");
    });
}
