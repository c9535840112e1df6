//! `kill -9` before every system call of every command that changes a network, on a real kernel:
//! the next command finds a kernel and a state that agree, and no file that nobody owns.
#![expect(clippy::unwrap_used, reason = "what helps a test is a test")]

use std::path::Path;

use mydocker_tests::Host;
use mydocker_tests::tracer::{End, kill_before};

/// A command, and the way back from what it does.
struct Case<'a> {
    host: &'a Host,
    /// What a shell does to the host each time before it.
    damage: &'a str,
    line: String,
    /// Commands that undo it.
    undo: Vec<String>,
    /// What a shell does to the host once it is undone.
    tidy: &'a str,
}

impl<'a> Case<'a> {
    fn new(host: &'a Host, line: impl Into<String>, undo: &[&str]) -> Self {
        Self {
            host,
            damage: "",
            line: line.into(),
            undo: undo.iter().map(|&line| line.to_owned()).collect(),
            tidy: "",
        }
    }

    /// Kills it before every call in turn, until one run of it lives.
    #[track_caller]
    fn kill_everywhere(&self) {
        let host = self.host;
        let before = state(host);
        host.sh(self.damage);
        host.ok(&self.line);
        let after = state(host);
        self.go_back(&before);
        for number in 0.. {
            host.sh(self.damage);
            let end = kill_before(&host.mydocker_command(&self.line), 1, number);
            let context = format!("{}, call {number}: {end:?}", self.line);
            self.recover(number, &context);
            let now = state(host);
            assert!([&before, &after].contains(&&now), "{context}\n{now}");
            if now == after {
                self.go_back(&before);
            }
            match end {
                End::Killed(_) => {}
                End::Exited(code) => {
                    assert_eq!((code, &now), (0, &after), "{context}");
                    assert!(number > 10, "{context}: the tracer saw little of it");
                    return;
                }
            }
        }
    }

    /// The next command, be it one that is refused or one that goes its way, leaves nothing of
    /// the one that died.
    fn recover(&self, number: usize, context: &str) {
        let host = self.host;
        // On a host whose firewall was flushed nothing but a repair goes its way.
        let refused = number.is_multiple_of(2) || !self.damage.is_empty();
        if refused {
            host.fails(1, "network remove nosuch");
        } else {
            host.ok("network create --subnet 10.250.0.0/24 bystander");
        }
        let left = unfinished(host.dir());
        assert!(left.is_empty(), "{context}: {left:?}");
        if !self.damage.is_empty() {
            host.ok("network repair");
        }
        let repair = host.ok("network repair --dry-run");
        assert_eq!(repair, "nothing to do\n", "{context}");
        if !refused {
            host.ok("network remove bystander");
        }
    }

    fn go_back(&self, before: &str) {
        for line in &self.undo {
            self.host.ok(line);
        }
        self.host.sh(self.tidy);
        assert_eq!(state(self.host), before, "{:?}", self.undo);
    }
}

/// Networks and endpoints, all there is to say of them.
fn state(host: &Host) -> String {
    host.ok("network list --format json")
}

/// Files that somebody meant to give another name.
fn unfinished(dir: &Path) -> Vec<String> {
    ["lib", "run"]
        .map(|root| dir.join(root).join("network/.new"))
        .iter()
        .filter(|path| path.exists())
        .map(|path| path.display().to_string())
        .collect()
}

/// A host with a network of both families, and on it a container that publishes ports.
fn host_with_container() -> Option<(Host, String)> {
    let host = Host::new()?;
    host.ok("network create --subnet 10.1.0.0/24 --subnet fd01::/64 n");
    let web = host.sandbox("web");
    let connect = format!(
        "network connect n web --ip 10.1.0.9,fd01::9 -p 8080:80 -p 53:53/udp --netns {}",
        web.display()
    );
    host.ok(&connect);
    Some((host, connect))
}

/// That the host is as any other on which there was a network once.
fn assert_clean(host: &Host) {
    let files: Vec<_> = std::fs::read_dir(host.dir().join("lib/network"))
        .unwrap()
        .collect();
    assert!(files.is_empty(), "{files:?}");
    assert_eq!(host.sh("nft list ruleset"), "");
    let links = host.sh("ip -o link");
    assert_eq!(links.lines().count(), 1, "{links}");
}

/// The first command on a host makes the directories, too.
#[test]
fn creating_the_first_network() {
    let Some(host) = Host::new() else { return };
    let before = host.snapshot();
    let create = "network create --subnet 10.1.0.0/24 n";
    Case {
        tidy: &format!("rm -r {0}/lib {0}/run", host.dir().display()),
        ..Case::new(&host, create, &["network remove n"])
    }
    .kill_everywhere();
    host.assert_as(&before);
}

#[test]
fn creating_a_network_of_both_families() {
    let Some(host) = Host::new() else { return };
    let before = host.snapshot();
    host.ok("network create --subnet 10.2.0.0/24 other");
    let create = "network create --subnet 10.1.0.0/24 --subnet fd01::/64 n";
    Case::new(&host, create, &["network remove n"]).kill_everywhere();
    host.ok("network remove other");
    host.assert_as(&before);
}

#[test]
fn removing_a_network() {
    let Some(host) = Host::new() else { return };
    let before = host.snapshot();
    let create = "network create --subnet 10.1.0.0/24 --subnet fd01::/64 n";
    host.ok(create);
    Case::new(&host, "network remove n", &[create]).kill_everywhere();
    host.ok("network remove n");
    host.assert_as(&before);
}

#[test]
fn connecting() {
    let Some((host, connect)) = host_with_container() else {
        return;
    };
    host.ok("network disconnect n web");
    let before = host.snapshot();
    Case::new(&host, connect, &["network disconnect n web"]).kill_everywhere();
    host.assert_as(&before);
    host.ok("network remove n");
    assert_clean(&host);
}

#[test]
fn disconnecting() {
    let Some((host, connect)) = host_with_container() else {
        return;
    };
    Case::new(&host, "network disconnect n web", &[&connect]).kill_everywhere();
    host.ok("network disconnect n web");
    host.ok("network remove n");
    assert_clean(&host);
}

#[test]
fn publishing_and_unpublishing() {
    let Some((host, _)) = host_with_container() else {
        return;
    };
    let before = host.snapshot();
    let (add, rm) = (
        "network port add n web 8081:81 8082:82/udp",
        "network port rm n web 8081:81 8082:82/udp",
    );
    Case::new(&host, add, &[rm]).kill_everywhere();
    host.assert_as(&before);
    host.ok(add);
    Case::new(&host, rm, &[add]).kill_everywhere();
    host.ok(rm);
    host.assert_as(&before);
}

#[test]
fn repairing() {
    let Some((host, _)) = host_with_container() else {
        return;
    };
    let before = host.snapshot();
    Case {
        damage: "nft flush ruleset; ip addr del 10.1.0.1/24 dev n; ip addr del fd01::1/64 dev n",
        ..Case::new(&host, "network repair", &[])
    }
    .kill_everywhere();
    host.assert_as(&before);
    host.ok("network disconnect n web");
    host.ok("network remove n");
    assert_clean(&host);
}
