//! Real containers, in a network namespace and directories of their own. Needs root and a static busybox.
//!
//! Without libtest: the supervisor is this program executed again, so `main` has to be ours.

#![expect(
    clippy::print_stdout,
    clippy::unwrap_used,
    reason = "a test program that libtest does not run"
)]

use std::{
    fs,
    os::unix::fs::symlink,
    path::Path,
    process::ExitCode,
    thread,
    time::{Duration, Instant},
};

use mydocker::container::{
    Attached, Containers, Failure, Id, Network, NetworkMode, Record, Spec, Started, Status,
    read_log, reexec, remove, run, stop, tidy,
};
use nix::{
    sched::{CloneFlags, unshare},
    sys::signal::{Signal, kill},
    unistd::Pid,
};
use serde_json::json;
use tempfile::TempDir;

const BUSYBOX: &str = "/bin/busybox";

/// Notes who is attached; refuses whoever is called `refused`.
struct Notes(Containers);

impl Notes {
    fn dir(containers: &Containers) -> std::path::PathBuf {
        containers.run_root().join("attached")
    }
}

impl Network for Notes {
    fn attach(&mut self, container: &str, netns: &Path) -> anyhow::Result<Attached> {
        assert!(netns.exists());
        fs::create_dir_all(Self::dir(&self.0))?;
        fs::write(Self::dir(&self.0).join(container), "")?;
        if container == "refused" {
            return Err(Failure {
                exit_code: 3,
                message: "port 80 is taken".to_owned(),
            }
            .into());
        }
        Ok(Attached {
            hosts: vec![("10.0.0.2".parse()?, container.to_owned())],
            nameservers: vec!["10.0.0.1".parse()?],
            search: vec!["lan".to_owned()],
            info: json!({ "address": "10.0.0.2" }),
        })
    }

    fn detach(&mut self, container: &str) -> anyhow::Result<()> {
        match fs::remove_file(Self::dir(&self.0).join(container)) {
            Err(error) if error.kind() != std::io::ErrorKind::NotFound => Err(error.into()),
            _ => Ok(()),
        }
    }
}

fn network(containers: &Containers, _: &Record) -> anyhow::Result<Box<dyn Network>> {
    Ok(Box::new(Notes(containers.clone())))
}

type Test = fn(&Host);

fn main() -> ExitCode {
    if let Some(code) = reexec(&network) {
        return code;
    }
    if !nix::unistd::geteuid().is_root() {
        println!("skipped: containers need root");
        return ExitCode::SUCCESS;
    }
    if !Path::new(BUSYBOX).exists() {
        println!("skipped: no {BUSYBOX} (Debian's busybox-static) to make an image of");
        return ExitCode::SUCCESS;
    }
    unshare(CloneFlags::CLONE_NEWNET).expect("a network namespace of our own");
    let tests: [(&str, Test); 8] = [
        ("exit codes come back", exit_codes),
        ("a container sees what it should", inside),
        ("a detached container cleans up after itself", detached),
        ("stop does not trust TERM", stops),
        ("a failed start leaves nothing", failed_starts),
        (
            "a killed supervisor leaves nothing for good",
            killed_supervisor,
        ),
        ("two removals and a supervisor do not collide", collisions),
        ("images are shared and replaced", images),
    ];
    for (name, test) in tests {
        let host = Host::new();
        test(&host);
        host.check_clean(0);
        println!("ok: {name}");
    }
    ExitCode::SUCCESS
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
    spec.workdir = "/made/here".into();
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
        kill(Pid::from_raw(record.supervisor.pid), Signal::SIGKILL).unwrap();
        let deadline = Instant::now() + Duration::from_secs(5);
        while record.init.unwrap().is_alive() {
            assert!(
                Instant::now() < deadline,
                "the container outlives its supervisor"
            );
            thread::sleep(Duration::from_millis(5));
        }
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
        fs::read_dir(host.containers.root().join("image/layers/box"))
            .unwrap()
            .count()
            - 1
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
