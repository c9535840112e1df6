//! Beside firewalls of others that drop what is forwarded: real packets, and rulesets that stay as
//! they were. The rulesets are those of `fixtures/firewall`.
#![allow(
    clippy::print_stderr,
    clippy::unwrap_used,
    reason = "what helps a test is a test"
)]

use std::fmt::Debug;
use std::io::Write as _;
use std::net::{IpAddr, SocketAddr};
use std::path::{Path, PathBuf};
use std::process::Stdio;

use mydocker_tests::{Call, Host};

/// How a ruleset gets into the kernel.
#[derive(Clone, Copy, Debug)]
enum Firewall {
    /// Through iptables, as nf_tables.
    Iptables(&'static str),
    /// Through iptables-legacy.
    Legacy(&'static str),
    /// As it is.
    Nft(&'static str),
}

/// Everybody who drops and has a chain that takes a rule of ours.
const NF_TABLES: [Firewall; 5] = [
    Firewall::Iptables("docker"),
    Firewall::Iptables("ufw"),
    Firewall::Nft("ufw"),
    Firewall::Nft("firewalld"),
    Firewall::Nft("router"),
];

impl Firewall {
    fn load(self, host: &Host) {
        let folder = Path::new(env!("CARGO_MANIFEST_DIR")).join("fixtures/firewall");
        let folder = folder.display();
        match self {
            Self::Iptables(name) => host.sh(&format!(
                "iptables-restore {folder}/{name}.v4; ip6tables-restore {folder}/{name}.v6"
            )),
            Self::Legacy(name) => host.sh(&format!(
                "iptables-legacy-restore {folder}/{name}.v4
                 ip6tables-legacy-restore {folder}/{name}.v6"
            )),
            Self::Nft(name) => host.sh(&format!("nft -f {folder}/{name}.nft")),
        };
    }

    /// The chains that get a rule.
    fn passages(self) -> usize {
        match self {
            Self::Iptables(_) | Self::Nft("ufw") => 2,
            Self::Nft(_) => 1,
            Self::Legacy(_) => 0,
        }
    }
}

/// All rulesets of others, without times and counters. Table by table, for one that is loaded anew
/// changes its place.
fn rulesets(host: &Host) -> String {
    host.sh(
        "nft list tables | grep -v ' mydocker' | sort | while read -r table
         do nft -s list $table
         done
         for save in iptables-nft-save ip6tables-nft-save iptables-legacy-save ip6tables-legacy-save
         do $save | sed '/^#/d; s/\\[[0-9]*:[0-9]*\\]//'
         done",
    )
}

/// Compares rulesets, and shows no more than the first line that differs.
#[track_caller]
fn assert_same(after: &str, before: &str, context: &dyn Debug) {
    let differing = before.lines().zip(after.lines()).find(|(b, a)| b != a);
    assert_eq!(differing, None, "{context:?}");
    assert_eq!(before.len(), after.len(), "{context:?}");
}

/// How many passages the host has.
fn passages(host: &Host) -> usize {
    let ruleset = host.sh("nft -s list ruleset");
    ruleset.matches("accept comment \"mydocker").count()
}

/// Two networks' worth of neighbours: a LAN, and somebody else whom the host might route to.
struct Scene {
    host: Host,
    lan: PathBuf,
    other: PathBuf,
    web: PathBuf,
    db: PathBuf,
}

const CREATE: &str = "network create --subnet 10.30.0.0/24 --subnet fd00:30::/64 n";

fn to(address: &str, port: u16) -> SocketAddr {
    SocketAddr::new(address.parse::<IpAddr>().unwrap(), port)
}

impl Scene {
    fn new() -> Option<Self> {
        let host = Host::new()?;
        let lan = host.neighbour("lan", "192.0.2.1/24", "192.0.2.9/24");
        let other = host.neighbour("other", "198.51.100.1/24", "198.51.100.9/24");
        for (name, ours, theirs) in [
            ("lan", "2001:db8:1::1/64", "2001:db8:1::9/64"),
            ("other", "2001:db8:2::1/64", "2001:db8:2::9/64"),
        ] {
            let there = host.dir().join("netns").join(name);
            let there = format!("nsenter --net={}", there.display());
            // They know the way to whatever is behind the host.
            host.sh(&format!(
                "ip addr add {ours} dev {name} nodad
                 {there} ip addr add {theirs} dev up0 nodad
                 {there} ip route add default via {}
                 {there} ip route add default via {}",
                if name == "lan" {
                    "192.0.2.1"
                } else {
                    "198.51.100.1"
                },
                ours.trim_end_matches("/64"),
            ));
        }
        let (web, db) = (host.sandbox("web"), host.sandbox("db"));
        Some(Self {
            host,
            lan,
            other,
            web,
            db,
        })
    }

    /// The network, its containers and a published port; what `create` said on standard error.
    fn rise(&self, options: &str) -> String {
        let created = self.host.mydocker(&format!("{CREATE} {options}"));
        let said = String::from_utf8_lossy(&created.stderr).into_owned();
        assert!(created.status.success(), "{said}");
        self.host
            .connect("n", "web", &self.web, "-p 8080:80 -p 8080:80/udp");
        self.host.connect("n", "db", &self.db, "");
        said
    }

    fn fall(&self) {
        for line in ["disconnect n web", "disconnect n db", "remove n"] {
            self.host.ok(&format!("network {line}"));
        }
    }

    /// Calls that our own firewall lets through: who is called, and as whom the caller is seen.
    fn ours(&self) -> Vec<(&'static str, Call<'_>)> {
        let call = |from, to, server, port| Call {
            from,
            to,
            server,
            port,
        };
        vec![
            (
                "192.0.2.1",
                call(&self.web, to("192.0.2.9", 7), &self.lan, 7),
            ),
            (
                "2001:db8:1::1",
                call(&self.web, to("2001:db8:1::9", 7), &self.lan, 7),
            ),
            (
                "192.0.2.9",
                call(&self.lan, to("192.0.2.1", 8080), &self.web, 80),
            ),
            (
                "2001:db8:1::9",
                call(&self.lan, to("2001:db8:1::1", 8080), &self.web, 80),
            ),
            (
                "10.30.0.1",
                call(&self.db, to("192.0.2.1", 8080), &self.web, 80),
            ),
            (
                "10.30.0.3",
                call(&self.db, to("10.30.0.2", 80), &self.web, 80),
            ),
        ]
    }

    fn passes(&self, context: &str) {
        for (seen, call) in self.ours() {
            let tcp = call
                .tcp()
                .unwrap_or_else(|e| panic!("{context}: tcp {call:?}: {e}"));
            let udp = call
                .udp()
                .unwrap_or_else(|e| panic!("{context}: udp {call:?}: {e}"));
            assert_eq!(
                [tcp, udp],
                [seen.parse::<IpAddr>().unwrap(); 2],
                "{context}: {call:?}"
            );
        }
    }

    /// That nothing gets past the foreign firewall, in or out, by either family.
    fn blocked(&self, context: &str) {
        for (_, call) in &self.ours()[1..3] {
            assert!(call.tcp().is_err(), "{context}: {call:?}");
        }
    }

    /// What we don't accept stays with the others: an unpublished port, and packets that are none
    /// of ours.
    fn strangers_are_blocked(&self, context: &str) {
        for (to, server, port) in [
            (to("10.30.0.2", 81), &self.web, 81),
            (to("fd00:30::2", 81), &self.web, 81),
            (to("198.51.100.9", 7), &self.other, 7),
            (to("2001:db8:2::9", 7), &self.other, 7),
        ] {
            let from = &self.lan;
            let call = Call {
                from,
                to,
                server,
                port,
            };
            assert!(call.tcp().is_err(), "{context}: {call:?}");
        }
    }
}

fn before_us(firewall: Firewall) {
    let Some(scene) = Scene::new() else { return };
    let host = &scene.host;
    firewall.load(host);
    let before = rulesets(host);
    let said = scene.rise("");
    assert_eq!(said, "", "{firewall:?}");
    assert_eq!(passages(host), firewall.passages(), "{firewall:?}");
    scene.passes(&format!("{firewall:?}"));
    scene.strangers_are_blocked(&format!("{firewall:?}"));
    if let Firewall::Iptables(_) = firewall {
        for command in ["iptables", "ip6tables"] {
            let listed = host.sh(&format!("{command} -S FORWARD; {command} -L -n >/dev/null"));
            let head =
                "-A FORWARD -m mark --mark 0x1000000/0x1000000 -m comment --comment mydocker";
            let second = listed.lines().nth(1).unwrap();
            assert!(
                second.starts_with(head) && second.ends_with(" -j ACCEPT"),
                "{listed}"
            );
            assert!(host.sh(&format!("{command}-save")).contains(head));
        }
    }
    assert_eq!(host.ok("network repair --dry-run"), "nothing to do\n");
    scene.fall();
    assert_same(&rulesets(host), &before, &firewall);
}

fn after_us(firewall: Firewall) {
    let Some(scene) = Scene::new() else { return };
    let host = &scene.host;
    scene.rise("");
    scene.passes("alone");
    firewall.load(host);
    let before = rulesets(host);
    scene.blocked(&format!("{firewall:?}"));
    let plan = host.ok("network repair --dry-run");
    assert_eq!(plan.matches("AddPassage").count(), firewall.passages());
    host.ok("network repair");
    scene.passes(&format!("{firewall:?}"));
    assert_eq!(host.ok("network repair --dry-run"), "nothing to do\n");
    // Somebody loads his rules anew, and ours is gone with the old ones.
    if let Firewall::Iptables(_) = firewall {
        firewall.load(host);
        assert_eq!(passages(host), 0);
        scene.blocked("loaded anew");
        host.ok("network repair");
        scene.passes("repaired again");
    }
    // A rule that iptables saved and restored is still ours.
    if let Firewall::Iptables(_) = firewall {
        host.sh("iptables-save >/tmp/$$; iptables-restore /tmp/$$; rm /tmp/$$");
        assert_eq!(host.ok("network repair --dry-run"), "nothing to do\n");
    }
    scene.fall();
    assert_same(&rulesets(host), &before, &firewall);
}

#[test]
fn docker_before_us() {
    before_us(Firewall::Iptables("docker"));
}

#[test]
fn ufw_before_us() {
    before_us(Firewall::Iptables("ufw"));
}

#[test]
fn ufw_in_nft_before_us() {
    before_us(Firewall::Nft("ufw"));
}

#[test]
fn firewalld_before_us() {
    before_us(Firewall::Nft("firewalld"));
}

#[test]
fn a_router_of_somebody_before_us() {
    before_us(Firewall::Nft("router"));
}

#[test]
fn docker_after_us() {
    after_us(Firewall::Iptables("docker"));
}

#[test]
fn ufw_after_us() {
    after_us(Firewall::Iptables("ufw"));
}

#[test]
fn a_router_of_somebody_after_us() {
    after_us(Firewall::Nft("router"));
}

/// Without packets in between, which counters would show, a cycle is not to be seen at all.
#[test]
fn a_full_cycle_leaves_no_byte_behind() {
    for firewall in NF_TABLES.into_iter().chain([Firewall::Legacy("docker")]) {
        let Some(host) = Host::new() else { return };
        firewall.load(&host);
        host.sh("sysctl -qw net.ipv4.ip_forward=1 net.ipv6.conf.all.forwarding=1");
        let shown = || host.snapshot() + &rulesets(&host);
        let before = shown();
        host.ok(CREATE);
        host.ok("network remove n");
        assert_same(&shown(), &before, &firewall);
    }
}

/// iptables-legacy has no place for a rule of nf_tables: whoever creates a network is told the
/// command, and the command helps.
#[test]
fn iptables_legacy_is_told_of() {
    for name in ["docker", "ufw"] {
        let firewall = Firewall::Legacy(name);
        let Some(scene) = Scene::new() else { return };
        let host = &scene.host;
        firewall.load(host);
        let before = rulesets(host);
        let said = scene.rise("");
        let warnings: Vec<&str> = said.lines().collect();
        assert_eq!(warnings.len(), 2, "{said}");
        assert_same(&rulesets(host), &before, &firewall);
        scene.blocked("legacy");
        for (warning, command) in warnings.into_iter().zip(["iptables", "ip6tables"]) {
            let rule = "-I FORWARD -m mark --mark 0x1000000/0x1000000 -j ACCEPT";
            let command = format!("{command}-legacy {rule}");
            assert!(
                warning.starts_with("warning: chain FORWARD of ip"),
                "{said}"
            );
            assert!(warning.ends_with(&format!(": {command}")), "{said}");
            host.sh(&command);
        }
        scene.passes("as the warning says");
        scene.strangers_are_blocked("legacy");
        let repaired = host.mydocker("network repair");
        assert_eq!(String::from_utf8_lossy(&repaired.stderr), "");
    }
}

/// Nobody asked for `iptables-legacy`, so its tables are not loaded by a look at them.
#[test]
fn iptables_legacy_is_not_loaded() {
    let Some(host) = Host::new() else { return };
    host.ok(CREATE);
    let names = host.sh("cat /proc/net/ip_tables_names /proc/net/ip6_tables_names");
    assert_eq!(names, "");
}

/// A network that wants foreign chains left alone gets a warning for each, on a dry run and for
/// real, and what the warning says helps.
#[test]
fn a_report_touches_nothing() {
    let firewall = Firewall::Iptables("docker");
    let Some(scene) = Scene::new() else { return };
    let host = &scene.host;
    firewall.load(host);
    let before = rulesets(host);
    let report = "--opt foreign-forward=report";
    let dry = host.mydocker(&format!("{CREATE} {report} --dry-run=json"));
    let lines = String::from_utf8_lossy(&dry.stdout).into_owned();
    assert_eq!(lines.matches("{\"warning\":{\"foreign_drop\":").count(), 2);
    let said = scene.rise(report);
    assert_eq!(said, String::from_utf8_lossy(&dry.stderr));
    assert_same(&rulesets(host), &before, &firewall);
    scene.blocked("reported");
    for (warning, family) in said.lines().zip(["ip", "ip6"]) {
        let start = format!("warning: chain {family} filter FORWARD drops what is forwarded; ");
        let helps = warning.strip_prefix(&start).unwrap();
        host.sh(helps.strip_prefix("to let containers through: ").unwrap());
    }
    scene.passes("as the warnings say");
    let repaired = host.mydocker("network repair");
    assert_eq!(String::from_utf8_lossy(&repaired.stderr), "");
    host.ok("network create second");
    assert_eq!(passages(host), 0, "somebody else's rule does");
    let wrong = host.fails(2, "network create --opt foreign-forward=maybe x");
    assert!(wrong.contains("write accept or report"), "{wrong}");
}

/// However many networks there are, and whatever happens to containers, one rule is there per
/// chain; it goes with the last network that has its family.
#[test]
fn one_rule_for_all_networks() {
    let Some(host) = Host::new() else { return };
    Firewall::Iptables("docker").load(&host);
    let before = rulesets(&host);
    let web = host.sandbox("web");
    for (line, expected) in [
        ("create --subnet 10.1.0.0/24 a", 1),
        ("create --subnet 10.2.0.0/24 --internal b", 1),
        ("create --subnet fd00:3::/64 c", 2),
        ("create --subnet 10.4.0.0/24 --subnet fd00:4::/64 d", 2),
        (
            "create --subnet 10.5.0.0/24 --opt foreign-forward=report e",
            2,
        ),
        ("remove c", 2),
        ("remove d", 1),
        ("remove a", 1),
        ("remove b", 0),
        ("remove e", 0),
    ] {
        host.ok(&format!("network {line}"));
        assert_eq!(passages(&host), expected, "{line}");
        host.sh("iptables -S >/dev/null; ip6tables -S >/dev/null");
    }
    host.ok("network create --subnet 10.1.0.0/24 a");
    let generation = || host.sh("nft -a list chain ip filter FORWARD");
    let handles = generation();
    host.connect("a", "web", &web, "-p 8080:80");
    host.ok("network disconnect a web");
    assert_eq!(generation(), handles);
    host.ok("network remove a");
    assert_same(&rulesets(&host), &before, &());
}

/// After a reboot networks come up with their first container, and find their way then.
#[test]
fn a_network_that_comes_up_again_finds_its_way() {
    let Some(host) = Host::new() else { return };
    host.ok(CREATE);
    host.sh("rm -r $MYDOCKER_RUN_ROOT; ip link del dev n; nft flush ruleset");
    Firewall::Iptables("ufw").load(&host);
    let before = rulesets(&host);
    host.connect("n", "web", &host.sandbox("web"), "");
    assert_eq!(passages(&host), 2);
    host.ok("network disconnect n web");
    host.ok("network remove n");
    assert_same(&rulesets(&host), &before, &());
}

/// Two instances on one host have a rule each, and each takes its own away.
#[test]
fn two_instances_do_not_mix_up_their_rules() {
    let Some(host) = Host::new() else { return };
    Firewall::Nft("router").load(&host);
    let before = rulesets(&host);
    let other = |line: &str| {
        let mut command = host.mydocker_command(line);
        for (key, path) in host.environment() {
            command.env(key, path.with_extension("other"));
        }
        let output = command.output().unwrap();
        assert!(output.status.success(), "{line}: {output:?}");
    };
    host.ok("network create --subnet 10.1.0.0/24 a");
    other("network create --subnet 10.2.0.0/24 b");
    assert_eq!(passages(&host), 2);
    host.ok("network remove a");
    assert_eq!(passages(&host), 1);
    host.ok("network create --subnet 10.1.0.0/24 a");
    other("network remove b");
    assert_eq!(passages(&host), 1);
    host.ok("network remove a");
    assert_same(&rulesets(&host), &before, &());
}

/// A rule of ours that somebody edited is theirs from then on: repair makes another, and neither it
/// nor the end of the last network touches the first.
#[test]
fn an_edited_rule_is_somebody_elses() {
    let Some(host) = Host::new() else { return };
    Firewall::Nft("router").load(&host);
    host.ok("network create --subnet 10.1.0.0/24 a");
    let listed = host.sh("nft -a list chain inet filter forward");
    let ours = listed
        .lines()
        .find(|line| line.contains("mydocker"))
        .unwrap();
    let (rule, handle) = ours.trim().split_once(" # handle ").unwrap();
    let edited = format!("iifname lo {rule}");
    host.sh(&format!(
        "nft 'replace rule inet filter forward handle {handle} {edited}'"
    ));
    let edited = rulesets(&host);
    assert_eq!(host.ok("network repair"), "1 ops carried out\n");
    assert_eq!(passages(&host), 2);
    host.ok("network remove a");
    assert_same(&rulesets(&host), &edited, &());
}

/// Chains that no rule of ours can help are told of, and what the warning says helps where it can.
#[test]
fn chains_that_cannot_be_helped_are_told_of() {
    let Some(scene) = Scene::new() else { return };
    let host = &scene.host;
    // A table of its own belongs to the process that made it for as long as that lives.
    let mut owner = host
        .inside("nft")
        .arg("-i")
        .stdin(Stdio::piped())
        .spawn()
        .unwrap();
    let mut console = owner.stdin.take().unwrap();
    writeln!(console, "add table inet owned {{ flags owner; }}").unwrap();
    writeln!(
        console,
        "add chain inet owned f {{ type filter hook forward priority 0; policy drop; }}"
    )
    .unwrap();
    host.sh("until nft list table inet owned 2>/dev/null | grep -q drop; do sleep 0.05; done");
    host.sh("nft add table inet early
         nft add chain inet early f '{ type filter hook forward priority -150; policy drop; }'
         nft add table inet sleeping '{ flags dormant; }'
         nft add chain inet sleeping f '{ type filter hook forward priority 0; policy drop; }'");
    let said = scene.rise("");
    let warnings: Vec<&str> = said.lines().collect();
    let [early, owned] = warnings[..] else {
        panic!("{said}");
    };
    assert!(owned.contains("chain inet owned f"), "{said}");
    assert!(early.contains("chain inet early f"), "{said}");
    assert_eq!(passages(host), 0);
    drop(console);
    owner.wait().unwrap();
    scene.blocked("early");
    host.sh(early.split_once("through: ").unwrap().1);
    scene.passes("as the warning says");
}

/// With bridge-nf-call-iptables on, what is bridged passes the forward hook, too: an internal
/// network, which nothing else passes through, needs a passage for its own.
#[test]
fn an_internal_network_bridges_past_a_foreign_drop() {
    let Some(host) = Host::new() else { return };
    Firewall::Iptables("docker").load(&host);
    let [web, db] = ["web", "db"].map(|name| host.sandbox(name));
    let call = || Call {
        from: &db,
        to: to("10.6.0.2", 80),
        server: &web,
        port: 80,
    };
    for (report, passes) in [("--opt foreign-forward=report", false), ("", true)] {
        host.ok(&format!(
            "network create --internal --subnet 10.6.0.0/24 {report} secret"
        ));
        if !Path::new("/proc/sys/net/bridge").exists() {
            eprintln!("skipped: this kernel has no br_netfilter");
            return;
        }
        host.sh("sysctl -qw net.bridge.bridge-nf-call-iptables=1");
        host.connect("secret", "web", &web, "");
        host.connect("secret", "db", &db, "");
        assert_eq!(call().tcp().is_ok(), passes, "{report}");
        for line in [
            "disconnect secret web",
            "disconnect secret db",
            "remove secret",
        ] {
            host.ok(&format!("network {line}"));
        }
    }
}
