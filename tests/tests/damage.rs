//! Run state that is damaged, foreign or gone: refused and named by every command, and read off the
//! kernel again with nobody cut off.
#![allow(clippy::unwrap_used, reason = "what helps a test is a test")]

use std::fs;
use std::os::unix::fs::MetadataExt;
use std::path::{Path, PathBuf};

use mydocker_tests::tracer::kill_before;
use mydocker_tests::{Call, Dock, Host};

const REBUILD: &str = "network repair --rebuild-from-kernel";

/// A network of both families and one with options, `web` on both, `db` on one.
struct Site {
    host: Host,
    web: PathBuf,
    /// What the host was before.
    before: String,
}

impl Site {
    fn new() -> Option<Self> {
        let host = Host::new()?;
        let before = host.snapshot();
        host.ok("network create --subnet 10.1.0.0/24 --subnet fd01::/64 front");
        host.ok("network create --internal --subnet 10.2.0.0/24 --mtu 1400 back");
        let web = host.sandbox("web");
        let ports = "-p 8080:80 -p 127.0.0.1:5353:53/udp";
        host.connect("front", "web", &web, ports);
        host.connect("back", "web", &web, "--ip 10.2.0.77");
        let db = host.sandbox("db");
        host.connect("back", "db", &db, "--mac 02:00:00:00:00:07");
        assert_eq!(host.ok("network check"), "");
        Some(Self { host, web, before })
    }

    fn file(&self, name: &str) -> PathBuf {
        self.host.dir().join("run/network").join(name)
    }

    /// The two files of the run state, and what they hold: nothing, between a rebuild's steps.
    fn files(&self) -> [(PathBuf, Vec<u8>); 2] {
        ["state", "plan"].map(|name| {
            let file = self.file(name);
            let bytes = fs::read(&file).unwrap_or_default();
            (file, bytes)
        })
    }

    fn put(&self, files: &[(PathBuf, Vec<u8>)]) {
        for (file, bytes) in files {
            fs::write(file, bytes).unwrap();
        }
    }

    /// That every command that needs the state names the file and what is wrong with it.
    fn assert_refused(&self, file: &str, word: &str) {
        let named = |said: &str| assert!(said.contains(file) && said.contains(word), "{said}");
        for refused in [
            "network list",
            "network create other",
            "network disconnect back db",
            "network repair",
            "network prune",
        ] {
            named(&self.host.fails(1, refused));
        }
        let checked = self.host.mydocker("network check");
        assert_eq!(checked.status.code(), Some(4));
        named(&String::from_utf8(checked.stdout).unwrap());
    }

    /// All there is to say of both networks.
    fn networks(&self) -> String {
        self.host.ok("network inspect front back")
    }

    fn assert_reached(&self) {
        let call = Call {
            from: self.host.ns(),
            to: "127.0.0.1:8080".parse().unwrap(),
            server: &self.web,
            port: 80,
        };
        call.tcp().unwrap();
    }

    /// Takes all containers off, and all networks away.
    fn end(&self, containers: &[(&str, &str)]) {
        for (network, container) in containers {
            self.host
                .ok(&format!("network disconnect {network} {container}"));
        }
        self.host.ok("network remove front back");
        self.forget_damage();
        self.host.assert_as(&self.before);
    }

    /// Removes the files that a rebuild keeps for whoever wants to know what happened.
    fn forget_damage(&self) {
        for (file, _) in self.files() {
            fs::remove_file(file.with_extension("old")).ok();
        }
    }
}

const CONTAINERS: [(&str, &str); 3] = [("front", "web"), ("back", "web"), ("back", "db")];

/// Ways to damage a file; each with a word that its error has.
fn damages(file: &Path, whole: &[u8]) -> Vec<(Vec<u8>, &'static str)> {
    let tables = file.ends_with("state");
    let mut flipped = whole.to_vec();
    // In what every command reads.
    flipped[if tables { 4100 } else { 20 }] ^= 4;
    let mut newer = whole.to_vec();
    newer.splice(.., record(br#"{"format":9,"new":"fields"}"#));
    let says = if tables {
        "has format 9"
    } else {
        "after plans"
    };
    let mut damages = vec![
        (whole[..7].to_vec(), "cut short"),
        (flipped, "checksum"),
        (b"#!/bin/sh\necho not ours\n".to_vec(), "checksum"),
        (newer, says),
    ];
    if tables {
        damages.push((whole[..9000].to_vec(), "cut short"));
    }
    damages
}

/// A record as the store writes it.
fn record(payload: &[u8]) -> Vec<u8> {
    let mut bytes = u32::try_from(payload.len()).unwrap().to_le_bytes().to_vec();
    bytes.extend(crc32fast::hash(payload).to_le_bytes());
    bytes.extend(crc32fast::hash(&bytes).to_le_bytes());
    bytes.extend(payload);
    bytes
}

#[test]
fn what_is_damaged_is_refused_and_rebuilt() {
    let Some(site) = Site::new() else { return };
    let host = &site.host;
    let (networks, kernel) = (site.networks(), host.snapshot());
    let whole = site.files();
    for (file, bytes) in &whole {
        for (bytes, word) in damages(file, bytes) {
            site.put(&whole);
            fs::write(file, &bytes).unwrap();
            site.assert_refused(&format!("{}", file.display()), word);
            let dry = host.mydocker(&format!("{REBUILD} --dry-run"));
            assert_eq!(String::from_utf8_lossy(&dry.stdout), "nothing to do\n");
            let told = String::from_utf8(dry.stderr).unwrap();
            for (network, container) in CONTAINERS {
                let line = format!("note: container {container} on {network} is in ");
                assert!(told.contains(&line), "{told}");
            }
            assert_eq!(fs::read(file).unwrap(), bytes, "a dry run touches nothing");
            host.ok(REBUILD);
            assert_eq!(site.networks(), networks, "{}: {word}", file.display());
            assert_eq!(host.ok("network check"), "");
            assert_eq!(fs::read(file.with_extension("old")).unwrap(), bytes);
            site.assert_reached();
        }
    }
    site.forget_damage();
    host.assert_as(&kernel);
    site.end(&CONTAINERS);
}

/// Containers are shown, and run without a network; those on one are taken down as far as that goes.
#[test]
fn what_needs_no_network_goes_on() {
    let Some(dock) = Dock::new() else { return };
    let host = &dock.host;
    host.ok("run -d --name web --net n -p 8080:80 busybox sleep 1000");
    let plan = host.dir().join("run/network/plan");
    fs::write(&plan, "torn").unwrap();
    assert!(host.ok("ps").contains("Up "));
    host.ok("logs web");
    host.ok("run --rm --net none busybox true");
    let said = host.fails(1, "stop -t 0 web");
    let path = plan.display().to_string();
    assert!(
        said.contains(&path) && said.contains("--rebuild-from-kernel"),
        "{said}"
    );
    assert!(host.ok("ps -a").contains("Exited"));
    host.ok(REBUILD);
    host.ok("rm web");
    for file in ["state.old", "plan.old"] {
        fs::remove_file(plan.with_file_name(file)).unwrap();
    }
    dock.check_empty("in the end");
}

/// Two hosts whose directories were mixed up.
#[test]
fn what_belongs_to_another_host_is_refused_and_rebuilt() {
    let (Some(site), Some(other)) = (Site::new(), Host::new()) else {
        return;
    };
    let (host, networks) = (&site.host, site.networks());
    other.ok("network create elsewhere");
    for name in ["state", "plan"] {
        fs::copy(other.dir().join("run/network").join(name), site.file(name)).unwrap();
    }
    let said = host.fails(1, "network list");
    assert!(said.contains("belongs to instance"), "{said}");
    host.ok(REBUILD);
    assert_eq!(site.networks(), networks);
    assert_eq!(host.ok("network check"), "");
    site.end(&CONTAINERS);
}

/// As after somebody cleared the directory: plain repair would take away what nobody has on record.
#[test]
fn what_is_gone_is_rebuilt_without_names() {
    let Some(site) = Site::new() else { return };
    let (host, kernel) = (&site.host, site.host.snapshot());
    fs::remove_dir_all(site.file("")).unwrap();
    let told = String::from_utf8(host.mydocker("network check").stdout).unwrap();
    assert!(told.contains("nobody wants it"), "{told}");
    host.ok(REBUILD);
    assert_eq!(host.ok("network check"), "");
    site.forget_damage();
    host.assert_as(&kernel);
    site.assert_reached();
    let networks: serde_json::Value = serde_json::from_str(&site.networks()).unwrap();
    let mut containers = Vec::new();
    for network in networks.as_array().unwrap() {
        for endpoint in network["endpoints"].as_array().unwrap() {
            let name = |value: &serde_json::Value| value.as_str().unwrap().to_owned();
            containers.push((name(&network["name"]), name(&endpoint["container"])));
        }
    }
    assert_eq!(containers.len(), 3, "{containers:?}");
    assert!(
        containers.iter().all(|(_, name)| name.starts_with("mdv")),
        "{containers:?}"
    );
    let containers: Vec<_> = containers
        .iter()
        .map(|(n, c)| (n.as_str(), c.as_str()))
        .collect();
    site.end(&containers);
}

/// A container that nothing but a process holds is found, too.
#[test]
fn what_no_mount_leads_to_is_found_by_its_process() {
    let Some(host) = Host::new() else { return };
    host.ok("network create --subnet 10.1.0.0/24 n");
    let mut process = host
        .inside("unshare")
        .args(["--net", "sleep", "600"])
        .spawn()
        .unwrap();
    let pid = process.id();
    let ns = |path: &str| fs::metadata(path).unwrap().ino();
    let others = [
        ns("/proc/self/ns/net"),
        fs::metadata(host.ns()).unwrap().ino(),
    ];
    // It enters the host's namespace first, and makes its own then.
    while others.contains(&ns(&format!("/proc/{pid}/ns/net"))) {
        std::thread::yield_now();
    }
    host.ok(&format!("network connect --netns /proc/{pid}/ns/net n web"));
    fs::remove_dir_all(host.dir().join("run/network")).unwrap();
    host.ok(REBUILD);
    let told = host.ok("network inspect n");
    assert!(told.contains(&format!("/proc/{pid}/ns/net")), "{told}");
    process.kill().unwrap();
    process.wait().unwrap();
}

#[test]
fn a_definition_that_is_damaged_stands_in_the_way() {
    let Some(site) = Site::new() else { return };
    let host = &site.host;
    let definition = host.dir().join("lib/network/front.json");
    let (whole, plan) = (fs::read(&definition).unwrap(), site.file("plan"));
    fs::write(&definition, "{").unwrap();
    fs::write(&plan, "torn").unwrap();
    let said = host.fails(1, REBUILD);
    assert!(said.contains("front.json"), "{said}");
    // Moved away, it is what the history says.
    fs::remove_file(&definition).unwrap();
    host.ok(REBUILD);
    assert_eq!(fs::read(&definition).unwrap(), whole);
    assert_eq!(host.ok("network check"), "");
    site.end(&CONTAINERS);
}

#[test]
fn sound_state_stays_as_it_is() {
    let Some(site) = Site::new() else { return };
    let (host, networks) = (&site.host, site.networks());
    assert_eq!(host.ok(REBUILD), "0 ops carried out\n");
    assert_eq!(site.networks(), networks);
    // And what is missing in the kernel is repaired, not forgotten.
    host.sh("nft flush ruleset; ip link del dev back");
    host.ok(REBUILD);
    assert_eq!(site.networks(), networks);
    assert_eq!(host.ok("network check"), "");
    site.end(&CONTAINERS);
}

/// Killed before each of its system calls that could matter, it is done by the next one.
#[test]
fn rebuilding_survives_its_own_death() {
    let Some(site) = Site::new() else { return };
    let (host, networks, kernel) = (&site.host, site.networks(), site.host.snapshot());
    let whole = site.files();
    for (damaged, _) in &whole {
        // Most calls only look around, into every namespace of the machine.
        let (mut number, mut stride, mut kills) = (0, 16, 0);
        let mut passed_by = 0..5;
        loop {
            site.put(&whole);
            fs::write(damaged, "torn").unwrap();
            let before = site.files();
            let died = kill_before(&host.mydocker_command(REBUILD), 1, number);
            let looked = died.met.is_some() && site.files() == before;
            if !looked && stride > 1 {
                number = number.saturating_sub(stride);
                stride = 1;
                continue;
            }
            number += stride;
            if looked {
                continue;
            }
            host.ok(REBUILD);
            assert_eq!(site.networks(), networks, "{number}: {died:?}");
            assert_eq!(host.ok("network check"), "");
            assert!(!site.file(".new").exists(), "{number}: {died:?}");
            if died.met.is_some() {
                kills += 1;
            } else if kills < 10 && passed_by.next().is_some() {
                // Of fewer processes than a moment ago there are fewer namespaces to look into.
                (number, kills) = (number.saturating_sub(200), 0);
            } else {
                break;
            }
        }
        assert!(kills >= 10, "the tracer saw little of it: {kills} calls");
    }
    site.forget_damage();
    host.assert_as(&kernel);
    site.end(&CONTAINERS);
}
