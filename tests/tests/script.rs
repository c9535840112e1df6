//! What a dry run prints is what is done: each scenario's script, run by `sh`, and its plans, carried
//! out over netlink, leave the same kernel.
//!
//! `scenarios/NAME.nft` is what `nft` then lists of our tables, after the last step that adds
//! anything. `UPDATE=1 cargo test --test script` writes these listings anew.
#![allow(
    clippy::print_stderr,
    clippy::unwrap_used,
    reason = "what helps a test is a test"
)]

use std::collections::BTreeSet;
use std::path::Path;
use std::process::Command;
use std::thread;
use std::time::{Duration, Instant};

use mydocker_core::{
    Executor, Footprint, ForwardChain, Instance, Netns, Ns, Object, Op, Outcome, Plan, Transaction,
    drive,
};
use mydocker_exec_dryrun::{Rendering, render};
use mydocker_exec_netlink::{NetlinkExecutor, netns};
use mydocker_tests::{Journal, Scenario, Step, is_root, listing};
use nix::mount::{MsFlags, mount};
use nix::sched::{CloneFlags, unshare};

/// A scenario as plans, and what becomes of the containers between them.
enum Act {
    Apply(Box<Plan>),
    Kill(Netns),
}

impl Act {
    fn adds(&self) -> bool {
        match self {
            Self::Apply(plan) => plan.ops.iter().any(|op| matches!(op, Op::Add(_))),
            Self::Kill(_) => false,
        }
    }
}

/// What the kernel has after an act.
#[derive(Debug)]
struct Shown {
    /// As we read it.
    objects: Footprint,
    /// As nft lists it: our tables, and firewalls of others where the scenario has some.
    rules: String,
}

/// What the model makes of a scenario, and all that it ever wants.
fn acts(scenario: &Scenario) -> (Vec<Act>, Footprint) {
    let mut world = scenario.world();
    let (mut acts, mut wanted) = (Vec::new(), Footprint::new());
    for (_, step) in scenario.steps() {
        let planned = match step {
            Step::Kill(netns) => {
                world.kernel.kill_sandbox(&netns);
                acts.push(Act::Kill(netns));
                continue;
            }
            Step::Request(request) => world.plan(&request),
            Step::Batch(requests) => world.plan_batch(&requests),
        };
        if let Ok(plan) = planned {
            assert_eq!(world.carry_out(plan.clone()), Outcome::Committed);
            wanted.extend(world.state().footprint());
            acts.push(Act::Apply(Box::new(plan)));
        }
    }
    (acts, wanted)
}

/// Runs `play` as a host of its own: network and mounts, with a private /run/netns that holds
/// the sandboxes of `wanted`, and firewalls of others.
fn on_a_host<T: Send>(
    wanted: &Footprint,
    firewalls: &[ForwardChain],
    play: impl FnOnce() -> T + Send,
) -> T {
    let host = || {
        unshare(CloneFlags::CLONE_NEWNET | CloneFlags::CLONE_NEWNS).unwrap();
        let none: Option<&str> = None;
        mount(none, "/", none, MsFlags::MS_REC | MsFlags::MS_PRIVATE, none).unwrap();
        std::fs::create_dir_all("/run/netns").unwrap();
        mount(
            Some("tmpfs"),
            "/run/netns",
            Some("tmpfs"),
            MsFlags::empty(),
            none,
        )
        .unwrap();
        sh("ip link set lo up");
        firewalls.iter().for_each(raise);
        let sandboxes: BTreeSet<&Ns> = wanted.iter().map(Object::ns).collect();
        for ns in sandboxes {
            if let Ns::Sandbox(netns) = ns {
                netns::create(Path::new(netns.as_str())).unwrap();
            }
        }
        play()
    };
    thread::scope(|scope| scope.spawn(host).join().unwrap())
}

/// A firewall as a scenario has it. That a process owns one makes no difference to a plan that
/// leaves it alone, and such a name as a script can't write is netlink's to make.
fn raise(found: &ForwardChain) {
    if found.named().is_none() {
        return;
    }
    let (table, policy) = (
        format!("{} {}", found.family, found.table),
        if found.drops { "drop" } else { "accept" },
    );
    let base = format!("type filter hook forward priority {}", found.priority);
    sh(&format!(
        "nft 'table {table}; chain {table} {} {{ {base}; policy {policy}; }}'",
        found.chain
    ));
}

fn sh(script: &str) -> String {
    let output = Command::new("sh").args(["-c", script]).output().unwrap();
    let said = String::from_utf8_lossy(&output.stderr);
    assert!(output.status.success(), "{script}\n{said}");
    String::from_utf8(output.stdout).unwrap()
}

fn shown(executor: &mut NetlinkExecutor, wanted: &Footprint) -> Shown {
    Shown {
        objects: settled(executor, wanted),
        rules: listing::sorted(&sh("nft list ruleset")),
    }
}

/// What the kernel shows, once it stands still: links of a dead namespace go a moment later.
fn settled(executor: &mut NetlinkExecutor, wanted: &Footprint) -> Footprint {
    let start = Instant::now();
    let mut last = executor.observe(wanted).unwrap();
    loop {
        thread::sleep(Duration::from_millis(30));
        let now = executor.observe(wanted).unwrap();
        if now == last || start.elapsed() > Duration::from_secs(5) {
            return now;
        }
        last = now;
    }
}

fn by_netlink(acts: &[Act], wanted: &Footprint, firewalls: &[ForwardChain]) -> Vec<Shown> {
    on_a_host(wanted, firewalls, || {
        let mut executor = NetlinkExecutor::open(Instance::DEFAULT).unwrap();
        let mut journal = Journal::default();
        let mut all = Vec::new();
        for act in acts {
            match act {
                Act::Apply(plan) => {
                    let mut transaction = Transaction::begin(Plan::clone(plan));
                    let outcome = drive(&mut transaction, &mut executor, &mut journal).unwrap();
                    assert_eq!(outcome, Outcome::Committed);
                }
                Act::Kill(netns) => netns::remove(Path::new(netns.as_str())).unwrap(),
            }
            all.push(shown(&mut executor, wanted));
        }
        all
    })
}

fn by_script(acts: &[Act], wanted: &Footprint, firewalls: &[ForwardChain]) -> Vec<Shown> {
    on_a_host(wanted, firewalls, || {
        let mut executor = NetlinkExecutor::open(Instance::DEFAULT).unwrap();
        let mut all = Vec::new();
        for act in acts {
            match act {
                Act::Apply(plan) => drop(sh(&render(&plan.ops, Rendering::Script))),
                Act::Kill(netns) => netns::remove(Path::new(netns.as_str())).unwrap(),
            }
            all.push(shown(&mut executor, wanted));
        }
        all
    })
}

/// Compares our tables at their last growth with what is written down: chains and rules are the same
/// every time, and what a scenario's networks and containers want are elements.
fn check_listing(name: &str, acts: &[Act], shown: &[Shown]) {
    if let Some(last) = acts.iter().rposition(Act::adds) {
        Scenario::check(&format!("{name}.nft"), &shown[last].rules);
    }
}

fn compare(name: &str, netlink: &[Shown], script: &[Shown]) {
    for (step, (netlink, script)) in netlink.iter().zip(script).enumerate() {
        let only_netlink: Vec<_> = netlink.objects.difference(&script.objects).collect();
        let only_script: Vec<_> = script.objects.difference(&netlink.objects).collect();
        assert!(
            only_netlink.is_empty() && only_script.is_empty(),
            "{name}, step {step}: only netlink {only_netlink:#?}, only script {only_script:#?}"
        );
        assert_eq!(netlink.rules, script.rules, "{name}, step {step}");
    }
}

#[test]
fn a_script_and_netlink_leave_the_same_kernel() {
    if !is_root() {
        return;
    }
    let other = listing::other_nft();
    if let Some(other) = &other {
        let known = listing::NFT;
        eprintln!("skipped: listings are those of nft {known}, and this one is {other}");
    }
    let mut compared = 0;
    for name in Scenario::names() {
        let scenario = Scenario::read(&name);
        let (acts, wanted) = acts(&scenario);
        let firewalls = &scenario.facts.forward_chains;
        let netlink = by_netlink(&acts, &wanted, firewalls);
        if other.is_none() {
            check_listing(&name, &acts, &netlink);
        }
        // A script stops where it removes what is gone already, and there everything is.
        if name != "dead-container" {
            compare(&name, &netlink, &by_script(&acts, &wanted, firewalls));
            compared += netlink.len();
        }
    }
    assert!(compared > 30, "{compared} steps compared");
}
