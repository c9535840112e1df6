//! Who lacks a capability is told which, nothing that others could have put below a root is followed,
//! and nothing is left half-done.
#![allow(clippy::unwrap_used, reason = "what helps a test is a test")]

use std::fs;
use std::os::unix::fs::{PermissionsExt, symlink};
use std::process::Output;

use mydocker_tests::Host;

/// `mydocker` as root without some capabilities.
fn without(host: &Host, capabilities: &str, line: &str) -> Output {
    let mydocker = host.mydocker_command(line);
    let mut command = host.inside("setpriv");
    command.args(["--inh-caps", "-all", "--bounding-set", capabilities]);
    // The words after `nsenter --net=…`.
    command.args(mydocker.get_args().skip(1));
    command.output().unwrap()
}

#[track_caller]
fn assert_names(output: &Output, code: i32, capability: &str, others: &[&str]) {
    let said = String::from_utf8_lossy(&output.stderr);
    assert_eq!(output.status.code(), Some(code), "{said}");
    assert!(said.contains(capability), "{said}");
    for other in others {
        assert!(!said.contains(other), "{said}");
    }
}

#[test]
fn a_network_command_names_the_capability_that_it_lacks() {
    let Some(host) = Host::new() else { return };
    let before = host.snapshot();
    let create = "network create --subnet 10.1.0.0/24 n";
    let refused = without(&host, "-net_admin", create);
    assert_names(&refused, 3, "lacks CAP_NET_ADMIN:", &["CAP_SYS_ADMIN"]);
    host.assert_as(&before);
    host.ok(create);
    let web = host.sandbox("web");
    let connect = format!("network connect n web --netns {} -p 8080:80", web.display());
    let refused = without(&host, "-sys_admin", &connect);
    assert_names(&refused, 3, "lacks CAP_SYS_ADMIN:", &["CAP_NET_ADMIN"]);
    let refused = without(&host, "-net_admin,-sys_admin", &connect);
    assert_names(&refused, 3, "lacks CAP_NET_ADMIN and CAP_SYS_ADMIN:", &[]);
    assert_eq!(host.ok("network check"), "");
    host.ok(&connect);
    for line in ["network check", "network repair"] {
        let refused = without(&host, "-sys_admin", line);
        assert_names(&refused, 1, "lacks CAP_SYS_ADMIN:", &["CAP_NET_ADMIN"]);
    }
    host.ok("network disconnect n web");
    host.ok("network remove n");
    host.assert_as(&before);
}

#[test]
fn a_container_command_names_them_before_anything_is_tried() {
    let Some(host) = Host::new() else { return };
    host.with_image();
    host.ok("network create --subnet 10.1.0.0/24 n");
    let before = host.snapshot();
    let run = "run -d --name web --net n busybox sleep 1000";
    for (capability, name) in [
        ("net_admin", "CAP_NET_ADMIN"),
        ("sys_admin", "CAP_SYS_ADMIN"),
        ("mknod", "CAP_MKNOD"),
        ("setuid", "CAP_SETUID"),
    ] {
        let refused = without(&host, &format!("-{capability}"), run);
        assert_names(&refused, 125, &format!("takes {name}, which"), &[]);
        host.assert_as(&before);
    }
    host.ok(run);
    for line in ["stop -t 0 web", "rm -f web"] {
        let refused = without(&host, "-sys_admin,-kill", line);
        let named = "takes CAP_KILL, CAP_SYS_ADMIN, which";
        assert_names(&refused, 1, named, &["CAP_NET_ADMIN"]);
        assert!(host.ok("ps").contains("Up "), "{line}");
    }
    host.ok("rm -f web");
    host.ok("network remove n");
}

/// Directories of ours, and what uses them.
const DIRECTORIES: [(&str, &str); 10] = [
    ("lib/network", "network create --subnet 10.2.0.0/24 other"),
    ("run/network", "network create --subnet 10.2.0.0/24 other"),
    ("lib/image", "run -d --net n busybox sleep 1000"),
    ("lib/image/layers", "run -d --net n busybox sleep 1000"),
    (
        "lib/image/layers/sha256",
        "run -d --net n busybox sleep 1000",
    ),
    ("lib/image/manifests", "run -d --net n busybox sleep 1000"),
    ("lib/containers", "run -d --net n busybox sleep 1000"),
    ("lib/overlay2", "run -d --net n busybox sleep 1000"),
    ("run/netns", "run -d --net n busybox sleep 1000"),
    ("run/bundle", "run -d --net n busybox sleep 1000"),
];

#[test]
fn links_below_the_roots_are_not_followed() {
    let Some(host) = Host::new() else { return };
    host.with_image();
    host.ok("network create --subnet 10.1.0.0/24 n");
    // So that all of them are there.
    host.ok("run --rm --net n busybox true");
    let elsewhere = host.dir().join("elsewhere");
    for (directory, line) in DIRECTORIES {
        let (path, aside) = (host.dir().join(directory), host.dir().join("aside"));
        fs::rename(&path, &aside).unwrap();
        // What is there is what is expected there, but not where.
        host.sh(&format!(
            "cp -a {} {}",
            aside.display(),
            elsewhere.display()
        ));
        symlink(&elsewhere, &path).unwrap();
        let listing = || host.sh(&format!("cd {} && find . | sort", elsewhere.display()));
        let before = listing();
        let output = host.mydocker(line);
        let said = String::from_utf8_lossy(&output.stderr);
        assert!(!output.status.success(), "{directory}: {said}");
        assert!(
            said.contains(&path.display().to_string()),
            "{directory}: {said}"
        );
        assert_eq!(listing(), before, "{directory}");
        fs::remove_file(&path).unwrap();
        fs::rename(&aside, &path).unwrap();
        fs::remove_dir_all(&elsewhere).unwrap();
    }
    assert_eq!(host.ok("ps -aq"), "");
    host.ok("network remove n");
}

#[test]
fn what_others_can_write_is_no_image() {
    let Some(host) = Host::new() else { return };
    host.with_image();
    let image = host.dir().join("lib/image");
    let archive = image.join("busybox.tar");
    for (path, bad) in [(&image, 0o777), (&archive, 0o666)] {
        let mode = fs::metadata(path).unwrap().permissions();
        fs::set_permissions(path, fs::Permissions::from_mode(bad)).unwrap();
        let said = host.fails(125, "run --rm busybox true");
        let named = format!("{} has mode {bad:04o}", path.display());
        assert!(
            said.contains(&named) && said.contains("chmod go-w"),
            "{said}"
        );
        fs::set_permissions(path, mode).unwrap();
    }
    for outside in ["../busybox", "/etc/passwd", "a//b"] {
        let said = host.fails(2, &format!("run --rm {outside} true"));
        assert!(said.contains("is not a valid image name"), "{said}");
    }
    host.ok("run --rm busybox true");
}
