//! The walls around a container, looked at from inside.
#![allow(
    clippy::print_stderr,
    clippy::unwrap_used,
    reason = "what helps a test is a test"
)]

use std::fs;
use std::path::Path;

use mydocker_tests::{Host, eventually};

/// A host with the busybox image.
fn host() -> Option<Host> {
    let host = Host::new()?;
    host.with_image();
    Some(host)
}

/// What a script says inside a container, on both outputs.
fn inside(host: &Host, flags: &str, script: &str) -> String {
    let mut command = host.mydocker_command(&format!("run --rm {flags} busybox sh -c"));
    let output = command
        .arg(format!("exec 2>&1; {script}"))
        .output()
        .unwrap();
    let said = String::from_utf8_lossy(&output.stdout).into_owned();
    let failed = String::from_utf8_lossy(&output.stderr);
    assert!(output.status.success(), "{flags}: {script}\n{said}{failed}");
    said
}

/// A value of `/proc/self/status`, as a script in a container printed it.
fn status<'s>(said: &'s str, key: &str) -> &'s str {
    let mut lines = said.lines().filter_map(|line| line.split_once(":\t"));
    let (_, value) = lines.find(|(name, _)| *name == key).unwrap();
    value
}

const DEFAULT_CAPABILITIES: &str = "00000000a80425fb";

#[test]
fn what_a_container_may_not_do_by_default() {
    let Some(host) = host() else { return };
    let said = inside(
        &host,
        "",
        "cat /proc/self/status
         refused() { if \"$@\"; then echo \"WRONG: $*\"; fi; }
         refused mount -t tmpfs none /tmp
         refused unshare -n true
         refused ip link add v0 type veth peer name v1
         refused hostname other
         # Devices are nodes that can be made, and opened only if every container has them.
         mknod /tmp/null c 1 3 && echo works >/tmp/null && mknod /tmp/kmsg c 1 11 && echo nodes
         refused dd if=/tmp/kmsg count=1
         for path in /proc/sys/kernel/hostname /proc/sysrq-trigger /proc/irq/default_smp_affinity \
             /proc/bus/new /sys/new; do
             if (echo b >$path); then echo \"WRONG: write to $path\"; fi
         done
         for path in /proc/kcore /proc/keys /proc/timer_list /proc/sched_debug /proc/interrupts; do
             [ ! -e $path ] || [ -z \"$(cat $path)\" ] || echo \"WRONG: read $path\"
         done
         for path in /sys/firmware /proc/acpi /proc/scsi /sys/devices/virtual/powercap; do
             [ ! -e $path ] || [ -z \"$(ls $path)\" ] || echo \"WRONG: list $path\"
         done
         # What programs commonly do.
         chown 1:1 /tmp/null && (cd /; ping -c 1 127.0.0.1 >/dev/null) && chroot / true && echo ordinary",
    );
    assert!(!said.contains("WRONG"), "{said}");
    assert!(
        said.contains("\nnodes\n") && said.contains("\nordinary\n"),
        "{said}"
    );
    assert_eq!(status(&said, "Seccomp"), "2");
    assert_eq!(status(&said, "NoNewPrivs"), "1");
    for set in ["CapEff", "CapPrm", "CapBnd"] {
        assert_eq!(status(&said, set), DEFAULT_CAPABILITIES, "{set}");
    }
    for set in ["CapInh", "CapAmb"] {
        assert_eq!(status(&said, set), "0000000000000000", "{set}");
    }
}

/// The host's programs, for what busybox can't do.
const PROGRAMS: &str = "-v /usr:/usr:ro -v /usr/lib:/lib:ro -v /usr/lib64:/lib64:ro";

/// The error that each of some system calls ends with: 1 is EPERM, 38 is ENOSYS.
fn errors(host: &Host, flags: &str, calls: &[(&str, &str)]) -> Vec<String> {
    let script: String = calls
        .iter()
        .map(|(name, arguments)| {
            format!("$! = 0; syscall({arguments}); print \"{name} \", $! + 0, \"\\n\";")
        })
        .collect();
    let said = inside(
        host,
        &format!("{PROGRAMS} {flags}"),
        &format!("exec /usr/bin/perl -e '{script}'"),
    );
    said.lines().map(ToOwned::to_owned).collect()
}

#[test]
fn system_calls_are_filtered() {
    let Some(host) = host() else { return };
    if !cfg!(target_arch = "x86_64") || !Path::new("/usr/bin/perl").exists() {
        eprintln!("skipped: it knows the numbers of x86_64, and makes the calls by perl");
        return;
    }
    // Those that fail without a filter, too, fail otherwise: with EFAULT, EINVAL, EBADF.
    let calls = [
        ("keyctl", "250, 0, -3, 0"),
        ("add_key", "248, 0, 0, 0, 0, 0"),
        ("io_uring_setup", "425, 0, 0"),
        ("userfaultfd", "323, -1"),
        ("move_pages", "279, 0, 0, 0, 0, 0, 0"),
        ("vsock", "41, 40, 1, 0"),
        ("clone_newuser", "56, 0x10000011 | 0x800, 0, 0, 0, 0"),
        ("clone3", "435, 0, 0"),
        ("unknown", "900"),
        ("personality", "135, 0"),
        ("socket", "41, 2, 1, 0"),
        ("getpid", "39"),
    ];
    let expected = [
        "keyctl 1",
        "add_key 1",
        "io_uring_setup 1",
        "userfaultfd 1",
        "move_pages 1",
        "vsock 1",
        "clone_newuser 1",
        "clone3 38",
        "unknown 38",
        "personality 0",
        "socket 0",
        "getpid 0",
    ];
    assert_eq!(errors(&host, "", &calls), expected);
    // Also where the filter is loaded by a process that still may do anything.
    let flags = "--security-opt no-new-privileges=false";
    assert_eq!(errors(&host, flags, &calls), expected);

    let free = errors(&host, "--security-opt seccomp=unconfined", &calls[..5]);
    assert!(!free.iter().any(|line| line.ends_with(" 1")), "{free:?}");
    // The filter follows the capabilities: what remains is that the arguments make no sense.
    let calls = [
        ("mount", "165, 0, 0, 0, 0, 0"),
        ("unshare", "272, 0"),
        ("bpf", "321, -1, 0, 0"),
        ("keyctl", "250, 0, -3, 0"),
    ];
    let refused = ["mount 1", "unshare 1", "bpf 1", "keyctl 1"];
    assert_eq!(errors(&host, "", &calls), refused);
    let admin = errors(&host, "--cap-add SYS_ADMIN", &calls);
    assert_eq!(admin[1], "unshare 0");
    assert_eq!(admin[3], "keyctl 1");
    assert!(
        !admin[..3].iter().any(|line| line.ends_with(" 1")),
        "{admin:?}"
    );
}

#[test]
fn a_profile_of_ones_own() {
    let Some(host) = host() else { return };
    let path = host.dir().join("profile.json");
    let profile = |text: &str| fs::write(&path, text).unwrap();
    let flags = format!("--security-opt seccomp={}", path.display());
    profile(
        r#"{"defaultAction": "SCMP_ACT_ALLOW", "syscalls": [
            {"names": ["mkdir", "mkdirat"], "action": "SCMP_ACT_ERRNO", "errnoRet": 28},
            {"names": ["sync"], "action": "SCMP_ACT_ERRNO", "excludes": {"caps": ["CAP_CHOWN"]}}]}"#,
    );
    let said = inside(&host, &flags, "! mkdir /tmp/new; sync && echo synced");
    assert!(
        said.contains("No space left") && said.contains("synced"),
        "{said}"
    );
    profile(r#"{"defaultAction": "SCMP_ACT_PERHAPS"}"#);
    let said = host.fails(2, &format!("run {flags} busybox true"));
    assert!(
        said.contains("SCMP_ACT_PERHAPS") && said.contains("profile.json"),
        "{said}"
    );
    assert_eq!(host.ok("ps -aq"), "");
}

#[test]
fn capabilities_and_privileges() {
    let Some(host) = host() else { return };
    let show = "cat /proc/self/status";
    let said = inside(
        &host,
        "--cap-add net_admin --cap-drop CAP_CHOWN",
        &format!(
            "{show}; ip link add v0 type veth peer name v1 && ! chown 1 /tmp && echo as asked"
        ),
    );
    assert!(said.ends_with("as asked\n"), "{said}");
    assert_eq!(status(&said, "CapEff"), "00000000a80435fa");
    let said = inside(&host, "--cap-drop ALL", show);
    for set in ["CapEff", "CapPrm", "CapBnd"] {
        assert_eq!(status(&said, set), "0000000000000000", "{set}");
    }
    let said = inside(&host, "--cap-drop all --cap-add CHOWN", show);
    assert_eq!(status(&said, "CapEff"), "0000000000000001");
    let ours = fs::read_to_string("/proc/self/status").unwrap();
    let said = inside(&host, "--cap-add ALL", show);
    assert_eq!(status(&said, "CapEff"), status(&ours, "CapPrm"));
    let said = inside(
        &host,
        "--cap-add SYS_ADMIN",
        "mount -t tmpfs none /tmp && grep /tmp /proc/mounts",
    );
    assert!(said.contains("none /tmp tmpfs"), "{said}");
    // A user who is not root has none, and execve(2) gives it none.
    let said = inside(&host, "-u 1000 --cap-add NET_ADMIN", show);
    assert_eq!(status(&said, "CapEff"), "0000000000000000");
    assert_eq!(status(&said, "CapBnd"), "00000000a80435fb");
}

#[test]
fn a_set_user_id_program_gives_nothing_unless_it_is_let() {
    let Some(host) = host() else { return };
    if !Path::new("/usr/bin/perl").exists() {
        eprintln!("skipped: it has perl say who it is, since busybox gives up what it is given");
        return;
    }
    host.sh(&format!(
        "mkdir {0}; cd {0}; tar xf ../lib/image/busybox.tar
         cp /usr/bin/perl suid; chmod 4755 suid; tar cf ../lib/image/suid.tar .",
        host.dir().join("image").display()
    ));
    for (option, euid) in [
        ("", "1000"),
        ("--security-opt no-new-privileges", "1000"),
        ("--security-opt no-new-privileges=false", "0"),
    ] {
        let line = format!("run --rm -u 1000 {PROGRAMS} {option} suid /suid -e");
        let output = host
            .mydocker_command(&line)
            .arg("print $>")
            .output()
            .unwrap();
        assert_eq!(
            String::from_utf8_lossy(&output.stdout),
            euid,
            "{option}: {output:?}"
        );
    }
}

#[test]
fn a_read_only_root() {
    let Some(host) = host() else { return };
    let data = host.dir().join("data");
    fs::create_dir(&data).unwrap();
    let flags = format!(
        "--read-only -w /made -v {0}:/data -v {0}:/seen:ro",
        data.display()
    );
    let said = inside(
        &host,
        &flags,
        "for path in /new /etc/new /tmp/new /made/new /seen/new /etc/hosts; do
             if (echo x >>$path); then echo \"WRONG: write to $path\"; fi
         done
         pwd; echo kept >/data/new && cat /seen/new && grep localhost /etc/hosts && echo x >/dev/shm/new",
    );
    assert!(!said.contains("WRONG"), "{said}");
    assert!(
        said.contains("/made\n") && said.contains("\nkept\n"),
        "{said}"
    );
    assert_eq!(fs::read_to_string(data.join("new")).unwrap(), "kept\n");
}

/// A file of a container's cgroup, under the names that it has in version 1 and in version 2.
fn cgroup(id: &str, (controller, one): (&str, &str), two: &str) -> String {
    let root = Path::new("/sys/fs/cgroup");
    let path = root
        .join(controller)
        .join(format!("mydocker-{id}"))
        .join(one);
    let path = if path.exists() {
        path
    } else {
        root.join(format!("mydocker-{id}")).join(two)
    };
    let text =
        fs::read_to_string(&path).unwrap_or_else(|error| panic!("{}: {error}", path.display()));
    text.trim().to_owned()
}

#[test]
fn limits_are_in_the_cgroup() {
    let Some(host) = host() else { return };
    let id = host.ok(
        "run -d --cpus 0.25 -c 512 --cpuset-cpus 0 --pids-limit 12 -m 64m \
         --ulimit nofile=77:88 busybox sleep 1000",
    );
    let id = id.trim();
    let quota = cgroup(id, ("cpu", "cpu.cfs_quota_us"), "cpu.max");
    assert!(
        ["25000", "25000 100000"].contains(&quota.as_str()),
        "{quota}"
    );
    let shares = cgroup(id, ("cpu", "cpu.shares"), "cpu.weight");
    assert!(["512", "20", "59"].contains(&shares.as_str()), "{shares}");
    assert_eq!(cgroup(id, ("cpuset", "cpuset.cpus"), "cpuset.cpus"), "0");
    assert_eq!(cgroup(id, ("pids", "pids.max"), "pids.max"), "12");
    let memory = cgroup(id, ("memory", "memory.limit_in_bytes"), "memory.max");
    assert_eq!(memory, (64 << 20).to_string());
    let ps: serde_json::Value = serde_json::from_str(&host.ok("ps --format json")).unwrap();
    let limits = fs::read_to_string(format!("/proc/{}/limits", ps[0]["pid"])).unwrap();
    let files = limits
        .lines()
        .find(|line| line.starts_with("Max open files"));
    let files: Vec<_> = files.unwrap().split_whitespace().collect();
    assert_eq!(files[3..5], ["77", "88"]);
    host.ok(&format!("rm -f {id}"));
    // The original's flag is in percent.
    let id = host.ok("run -d -cpu 20 busybox sleep 1000");
    let quota = cgroup(id.trim(), ("cpu", "cpu.cfs_quota_us"), "cpu.max");
    assert!(quota.starts_with("20000"), "{quota}");
    host.ok(&format!("rm -f {}", id.trim()));
    eventually("its cgroups are gone", || {
        let found = host.sh("find /sys/fs/cgroup -maxdepth 2 -name 'mydocker-*'");
        !found.contains(id.trim())
    });
}

#[test]
fn limits_bite() {
    let Some(host) = host() else { return };
    // The shell gives up at the first process that it can't have.
    let mut command = host.mydocker_command("run --rm --pids-limit 8 busybox sh -c");
    let script = "i=0; while [ $i -lt 20 ]; do sleep 100 & i=$((i+1)); done";
    let output = command.arg(script).output().unwrap();
    let said = String::from_utf8_lossy(&output.stderr);
    assert!(
        !output.status.success() && said.contains("fork"),
        "{output:?}"
    );
    let mut command = host.mydocker_command("run --rm --pids-limit -1 busybox sh -c");
    let script = format!("{script}; kill $(jobs -p); echo all");
    assert!(command.arg(script).output().unwrap().status.success());
    // Nothing is read but zeros, and no line ends.
    let output = host.mydocker("run --rm -mem 16m busybox tail /dev/zero");
    assert_eq!(output.status.code(), Some(137), "{output:?}");
}
