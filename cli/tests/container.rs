//! Real containers, in a network namespace and directories of their own. Needs root and a static busybox.
//!
//! Not run by libtest: the supervisor is this program executed again, so `main` has to be ours.

#![expect(
    clippy::unwrap_used,
    reason = "a test program that libtest does not run"
)]

use std::{
    fs,
    os::unix::fs::{PermissionsExt, symlink},
    path::{Path, PathBuf},
    process::{Child, Command, ExitCode, Stdio},
    thread,
    time::{Duration, Instant},
};

use libtest_mimic::{Arguments, Completion, Trial};
use mydocker::container::{
    Attached, Containers, Failure, Id, Network, NetworkMode, Process, Record, Spec, Started,
    Status, read_log, reexec, remove, run, stop, tidy,
};
use nix::sched::{CloneFlags, unshare};
use rustix::{
    mount::{UnmountFlags, unmount},
    process::{Pid, Signal, geteuid, kill_process},
};
use serde_json::{Value, json};
use tempfile::TempDir;

const BUSYBOX: &str = "/bin/busybox";

/// Notes which namespace is attached; refuses a container called `refused`.
struct Notes(PathBuf);

impl Notes {
    fn note(&self, netns: &Path) -> PathBuf {
        self.0.join(netns.file_name().unwrap())
    }
}

impl Network for Notes {
    fn attach(&mut self, container: &Record, netns: &Path) -> anyhow::Result<Attached> {
        assert!(netns.exists());
        fs::create_dir_all(&self.0)?;
        fs::write(self.note(netns), "")?;
        let name = container.name.as_str();
        if name == "refused" {
            return Err(Failure {
                exit_code: 3,
                message: "port 80 is taken".to_owned(),
            }
            .into());
        }
        Ok(Attached {
            hosts: vec![("10.0.0.2".parse()?, name.to_owned())],
            nameservers: vec!["10.0.0.1".parse()?],
            search: vec!["lan".to_owned()],
            info: json!({ "address": "10.0.0.2" }),
            ..Attached::default()
        })
    }

    fn detach(&mut self, netns: &Path) -> anyhow::Result<()> {
        match fs::remove_file(self.note(netns)) {
            Err(error) if error.kind() != std::io::ErrorKind::NotFound => Err(error.into()),
            _ => Ok(()),
        }
    }
}

fn network(containers: &Containers) -> anyhow::Result<Box<dyn Network>> {
    Ok(Box::new(Notes(containers.run_root().join("attached"))))
}

type Test = fn(&Host);

const TESTS: [(&str, Test); 10] = [
    ("exit_codes_come_back", exit_codes),
    ("a_container_sees_what_it_should", inside),
    ("a_detached_container_cleans_up_after_itself", detached),
    ("stop_does_not_trust_term", stops),
    ("a_failed_start_leaves_nothing", failed_starts),
    (
        "a_killed_supervisor_leaves_nothing_for_good",
        killed_supervisor,
    ),
    ("a_damaged_record_is_removed_by_force", damaged),
    ("a_reboot_leaves_nothing_for_good", rebooted),
    ("two_removals_and_a_supervisor_do_not_collide", collisions),
    ("images_are_shared_and_replaced", images),
];

fn main() -> ExitCode {
    let words: Vec<_> = std::env::args_os().collect();
    if let Some(code) = reexec(&words, &network) {
        return code.into();
    }
    let mut args = Arguments::from_args();
    // Each waits for processes most of the time; told otherwise, they do not mind each other.
    args.test_threads.get_or_insert(1);
    let skip = obstacle();
    if skip.is_none() {
        unshare(CloneFlags::CLONE_NEWNET).expect("a network namespace of our own");
    }
    let trials = TESTS.map(|(name, test)| {
        Trial::ignorable_test(name, move || {
            if let Some(reason) = skip {
                return Ok(Completion::ignored_with(reason));
            }
            let host = Host::new();
            test(&host);
            host.check_clean(0);
            Ok(Completion::Completed)
        })
    });
    libtest_mimic::run(&args, trials.into()).exit_code()
}

/// Why the tests can't be run.
fn obstacle() -> Option<&'static str> {
    if !geteuid().is_root() {
        return Some("containers need root");
    }
    let there = Path::new(BUSYBOX).exists();
    (!there).then_some("no /bin/busybox (Debian's busybox-static) to make an image of")
}

struct Host {
    _dir: TempDir,
    containers: Containers,
}

impl Host {
    fn new() -> Self {
        let dir = TempDir::new().unwrap();
        let containers =
            Containers::open(&dir.path().join("root"), &dir.path().join("run")).unwrap();
        fs::create_dir_all(containers.root().join("image")).unwrap();
        let host = Self {
            _dir: dir,
            containers,
        };
        host.write_image("");
        host
    }

    fn write_image(&self, motd: &str) {
        let mut builder = tar::Builder::new(Vec::new());
        builder
            .append_path_with_name(BUSYBOX, "bin/busybox")
            .unwrap();
        let links = TempDir::new().unwrap();
        for applet in [
            "sh", "cat", "echo", "sleep", "ping", "id", "touch", "pwd", "hostname", "kill",
        ] {
            symlink("busybox", links.path().join(applet)).unwrap();
        }
        // As systemd leaves it: a link to nothing.
        symlink(
            "../run/systemd/resolve/stub-resolv.conf",
            links.path().join("resolv.conf"),
        )
        .unwrap();
        builder.follow_symlinks(false);
        for entry in fs::read_dir(links.path()).unwrap() {
            let name = entry.unwrap().file_name().into_string().unwrap();
            let place = if name == "resolv.conf" { "etc" } else { "bin" };
            builder
                .append_path_with_name(links.path().join(&name), format!("{place}/{name}"))
                .unwrap();
        }
        let mut header = tar::Header::new_gnu();
        header.set_size(motd.len() as u64);
        header.set_mode(0o644);
        header.set_uid(0);
        header.set_gid(0);
        builder
            .append_data(&mut header, "etc/motd", motd.as_bytes())
            .unwrap();
        fs::write(
            self.containers.root().join("image/box.tar"),
            builder.into_inner().unwrap(),
        )
        .unwrap();
    }

    fn spec(&self, script: &str) -> Spec {
        let mut spec = Spec::new("box".parse().unwrap());
        spec.command = ["sh", "-c", script].map(str::to_owned).into();
        spec.network = NetworkMode::Attached;
        spec
    }

    /// Runs in the foreground: its exit code, and no trouble.
    fn run(&self, mut spec: Spec) -> u8 {
        spec.auto_remove = true;
        match run(&self.containers, spec, &network).unwrap() {
            Started::Finished {
                exit_code,
                trouble: None,
                ..
            } => exit_code,
            other @ (Started::Finished { .. } | Started::Detached(_)) => panic!("{other:?}"),
        }
    }

    fn start(&self, name: &str, script: &str) -> Id {
        let mut spec = self.spec(script);
        spec.name = Some(name.parse().unwrap());
        spec.detached = true;
        match run(&self.containers, spec, &network).unwrap() {
            Started::Detached(id) => id,
            other @ Started::Finished { .. } => panic!("{other:?}"),
        }
    }

    fn find(&self, name: &str) -> Record {
        self.containers.find(name).unwrap()
    }

    /// Waits until a container has ended and is taken down.
    fn wait(&self, name: &str) -> Record {
        let deadline = Instant::now() + Duration::from_secs(20);
        loop {
            let record = self.find(name);
            if record.torn_down {
                return record;
            }
            assert!(Instant::now() < deadline, "{record:?}");
            thread::sleep(Duration::from_millis(10));
        }
    }

    /// Nothing is mounted, attached, limited or kept but `records` containers that have ended.
    fn check_clean(&self, records: usize) {
        let ours = self.containers.root().parent().unwrap().to_str().unwrap();
        let mounts = fs::read_to_string("/proc/self/mountinfo").unwrap();
        assert!(!mounts.contains(ours), "{mounts}");
        for place in ["netns", "bundle", "runtime", "attached"] {
            if let Ok(mut entries) = fs::read_dir(self.containers.run_root().join(place)) {
                assert!(entries.next().is_none(), "{place} is not empty");
            }
        }
        let listing = self.containers.list().unwrap();
        assert_eq!((listing.records.len(), listing.damaged.len()), (records, 0));
        if let Ok(entries) = fs::read_dir(self.containers.root().join("overlay2")) {
            assert_eq!(entries.count(), records);
        }
    }
}

fn exit_codes(host: &Host) {
    assert_eq!(host.run(host.spec("exit 7")), 7);
    assert_eq!(
        host.run(host.spec("exec sh -c 'sh -c \"kill -9 \\$\\$\"; exit $?'")),
        137
    );
    for (program, code) in [("nosuch", 127), ("/etc/motd", 126), ("/etc", 126)] {
        let mut spec = host.spec("");
        spec.command = vec![program.to_owned()];
        let error = run(&host.containers, spec, &network).unwrap_err();
        assert_eq!(
            error.downcast_ref::<Failure>().unwrap().exit_code,
            code,
            "{error:#}"
        );
    }
}

fn inside(host: &Host) {
    let shared = TempDir::new().unwrap();
    let mut spec = host.spec(
        "set -e; [ $(pwd) = /made/here ]; [ $X = 1 ]; [ $(hostname) = web ]; touch /rw/new; \
         ! touch /ro/new; ! touch /sys/new; ! echo x >/proc/sys/kernel/hostname; ping -c1 -W1 127.0.0.1 >/dev/null; \
         cat /etc/hosts /etc/resolv.conf /etc/hostname /proc/self/status >/rw/seen",
    );
    spec.workdir = Some("/made/here".into());
    spec.env = vec!["X=1".to_owned()];
    spec.hostname = Some("web".to_owned());
    let volume = |target: &str| {
        format!("{}:{target}", shared.path().display())
            .parse()
            .unwrap()
    };
    spec.volumes = vec![volume("/rw"), volume("/ro:ro")];
    assert_eq!(host.run(spec), 0);
    let seen = fs::read_to_string(shared.path().join("seen")).unwrap();
    for expected in [
        "10.0.0.2\t",
        "nameserver 10.0.0.1\n",
        "search lan\n",
        "\nweb\n",
        "NoNewPrivs:\t1\n",
        "CapBnd:\t00000000a80425fb\n",
    ] {
        assert!(seen.contains(expected), "{expected:?} in {seen}");
    }
}

fn detached(host: &Host) {
    let id = host.start("web", "echo out; echo err >&2; exit 5");
    let record = host.wait("web");
    assert_eq!(
        (record.status(), record.exit_code),
        (Status::Exited, Some(5))
    );
    assert_eq!(record.endpoints, json!({ "address": "10.0.0.2" }));
    host.check_clean(1);
    let mut log: Vec<_> = read_log(&host.containers.log_path(&id))
        .unwrap()
        .map(|line| line.unwrap().log)
        .collect();
    log.sort();
    assert_eq!(log, ["err\n", "out\n"]);
    remove(&host.containers, &id, false, &network).unwrap();
}

fn stops(host: &Host) {
    let id = host.start("deaf", "exec sleep 1000");
    let record = host.find(&id.as_str()[..6]);
    assert_eq!(record.status(), Status::Running);
    let init = record.init.unwrap();
    assert!(
        remove(&host.containers, &id, false, &network).is_err(),
        "it runs"
    );
    let stopped = stop(&host.containers, &id, Duration::from_millis(200), &network)
        .unwrap()
        .unwrap();
    assert_eq!(
        (stopped.status(), stopped.exit_code),
        (Status::Exited, Some(137))
    );
    assert!(!init.is_alive());
    host.check_clean(1);
    remove(&host.containers, &id, false, &network).unwrap();

    let id = host.start("polite", "trap 'exit 3' TERM; while :; do sleep 0.05; done");
    thread::sleep(Duration::from_millis(200));
    let stopped = stop(&host.containers, &id, Duration::from_secs(10), &network)
        .unwrap()
        .unwrap();
    assert_eq!(stopped.exit_code, Some(3));
    remove(&host.containers, &id, false, &network).unwrap();
}

fn failed_starts(host: &Host) {
    for detached in [false, true] {
        let mut refused = host.spec("exit 0");
        refused.name = Some("refused".parse().unwrap());
        let mut missing = host.spec("");
        missing.command = vec!["nosuch".to_owned()];
        let mut no_image = host.spec("");
        no_image.image = "nosuch".parse().unwrap();
        let mut no_cpu = host.spec("");
        no_cpu.limits.cpuset = Some("60000".to_owned());
        for mut spec in [refused, missing, no_image, no_cpu] {
            spec.detached = detached;
            // What was made for the volume goes, too.
            let volume = host.containers.root().join("made/for/volume");
            spec.volumes = vec![format!("{}:/v", volume.display()).parse().unwrap()];
            let error = run(&host.containers, spec, &network).unwrap_err();
            host.check_clean(0);
            assert!(!host.containers.root().join("made").exists(), "{error:#}");
        }
    }
}

fn killed_supervisor(host: &Host) {
    for tidied in [false, true] {
        let id = host.start("orphan", "exec sleep 1000");
        let record = host.find("orphan");
        kill_supervisor(&record);
        assert!(host.find("orphan").is_abandoned());
        assert_eq!(host.find("orphan").status(), Status::Exited);
        if tidied {
            assert_eq!(tidy(&host.containers, &network).unwrap().len(), 1);
            host.check_clean(1);
        }
        remove(&host.containers, &id, false, &network).unwrap();
        host.check_clean(0);
    }
}

fn kill_supervisor(record: &Record) {
    kill_process(Pid::from_raw(record.supervisor.pid).unwrap(), Signal::KILL).unwrap();
    let deadline = Instant::now() + Duration::from_secs(5);
    while record.init.as_ref().unwrap().is_alive() {
        assert!(
            Instant::now() < deadline,
            "the container outlives its supervisor"
        );
        thread::sleep(Duration::from_millis(5));
    }
}

fn config(host: &Host, id: &Id) -> PathBuf {
    let dir = host.containers.root().join("containers").join(id.as_str());
    dir.join("config.json")
}

fn damaged(host: &Host) {
    let damage: [fn(&Path); 3] = [
        |path| fs::write(path, "{").unwrap(),
        |path| fs::set_permissions(path, fs::Permissions::from_mode(0o620)).unwrap(),
        |path| fs::remove_file(path).unwrap(),
    ];
    for (damage, alive) in damage.into_iter().zip([true, false, true]) {
        let other = host.start("other", "exec sleep 1000");
        let id = host.start("web", "exec sleep 1000");
        let record = host.find("web");
        if !alive {
            kill_supervisor(&record);
        }
        damage(&config(host, &id));
        let listing = host.containers.list().unwrap();
        assert_eq!((listing.records.len(), listing.damaged.len()), (1, 1));
        assert_eq!(listing.damaged[0].id, id);
        assert_eq!(host.containers.find_id(&id.as_str()[..8]).unwrap(), id);
        assert_eq!(tidy(&host.containers, &network).unwrap().len(), 0);
        let refused = remove(&host.containers, &id, false, &network).unwrap_err();
        assert!(format!("{refused:#}").contains("--force"), "{refused:#}");
        assert_eq!(record.init.as_ref().unwrap().is_alive(), alive);

        remove(&host.containers, &id, true, &network).unwrap();
        remove(&host.containers, &id, true, &network).unwrap();
        assert!(!record.init.as_ref().unwrap().is_alive());
        assert_eq!(host.find("other").status(), Status::Running);
        remove(&host.containers, &other, true, &network).unwrap();
        let deadline = Instant::now() + Duration::from_secs(5);
        while record.supervisor.is_alive() {
            assert!(Instant::now() < deadline, "its supervisor does not end");
            thread::sleep(Duration::from_millis(5));
        }
        host.check_clean(0);
    }
}

/// As a reboot does, takes processes and mounts away and, unless it is on a disk, the run root; then
/// gives the number of the container's process to somebody else.
fn reboot(host: &Host, record: &Record, run_root_is_kept: bool, stranger: u32) {
    kill_supervisor(record);
    let (containers, id) = (&host.containers, record.id.as_str());
    let merged = containers.root().join("overlay2").join(id).join("merged");
    for mount in [merged, containers.netns(&record.id)] {
        unmount(mount, UnmountFlags::DETACH).unwrap();
    }
    let path = config(host, &record.id);
    let mut config: Value = serde_json::from_slice(&fs::read(&path).unwrap()).unwrap();
    let pid = i32::try_from(stranger).unwrap();
    let Process { start_ticks, .. } = Process::of(pid).unwrap();
    for process in ["init", "supervisor"] {
        config[process] = json!({ "pid": pid, "start_ticks": start_ticks, "boot_id": "before" });
    }
    fs::write(&path, config.to_string()).unwrap();
    if !run_root_is_kept {
        fs::remove_dir_all(containers.run_root()).unwrap();
        return;
    }
    let path = containers
        .run_root()
        .join("runtime")
        .join(id)
        .join("state.json");
    let mut state: Value = serde_json::from_slice(&fs::read(&path).unwrap()).unwrap();
    assert!(state["pid"].is_number(), "{state}");
    state["pid"] = json!(pid);
    fs::write(&path, state.to_string()).unwrap();
}

/// A process that has nothing to do with containers.
struct Stranger(Child);

impl Stranger {
    fn new() -> Self {
        let mut sleep = Command::new("sleep");
        // Should the test fail, nobody waits for the end of its output.
        Self(sleep.arg("1000").stdout(Stdio::null()).spawn().unwrap())
    }
}

impl Drop for Stranger {
    fn drop(&mut self) {
        self.0.kill().unwrap();
        self.0.wait().unwrap();
    }
}

fn rebooted(host: &Host) {
    let mut stranger = Stranger::new();
    let ways: [fn(&Containers, &Id); 3] = [
        |_, _| (),
        |containers, id| {
            let stopped = stop(containers, id, Duration::from_secs(10), &network).unwrap();
            assert!(stopped.unwrap().torn_down);
        },
        |containers, _| {
            let tidied = tidy(containers, &network).unwrap();
            assert!(
                tidied
                    .into_iter()
                    .map(Result::unwrap)
                    .all(|record| record.torn_down)
            );
        },
    ];
    for run_root_is_kept in [false, true] {
        for way in ways {
            let id = host.start("old", "exec sleep 1000");
            let record = host.find("old");
            reboot(host, &record, run_root_is_kept, stranger.0.id());
            // As the next command does.
            let containers = &host.containers;
            let containers = Containers::open(containers.root(), containers.run_root()).unwrap();
            let record = containers.find("old").unwrap();
            assert_eq!((record.status(), record.pid()), (Status::Exited, None));
            way(&containers, &id);
            assert_eq!(containers.find("old").unwrap().status(), Status::Exited);
            remove(&containers, &id, false, &network).unwrap();
            assert!(
                stranger.0.try_wait().unwrap().is_none(),
                "a stranger was killed"
            );
            host.check_clean(0);
        }
    }
}

fn collisions(host: &Host) {
    let id = host.start("one", "exec sleep 1000");
    let taken = {
        let mut spec = host.spec("");
        spec.name = Some("one".parse().unwrap());
        run(&host.containers, spec, &network).unwrap_err()
    };
    assert!(taken.to_string().contains("taken"), "{taken:#}");
    thread::scope(|scope| {
        for _ in 0..4 {
            scope.spawn(|| remove(&host.containers, &id, true, &network).unwrap());
        }
    });
}

fn images(host: &Host) {
    let layers = || {
        fs::read_dir(host.containers.root().join("image/layers/sha256"))
            .unwrap()
            .count()
    };
    host.write_image("old");
    let old = host.start("old", "exec sleep 1000");
    host.write_image("newer");
    let new = host.start("new", "cat /etc/motd; touch /etc/motd");
    host.wait("new");
    let line = read_log(&host.containers.log_path(&new))
        .unwrap()
        .next()
        .unwrap()
        .unwrap();
    assert_eq!(line.log, "newer");
    assert_eq!(layers(), 2, "the old one is in use");
    remove(&host.containers, &old, true, &network).unwrap();
    assert_eq!(layers(), 1);
    remove(&host.containers, &new, true, &network).unwrap();
    assert_eq!(layers(), 1, "the current one stays for the next run");
}
