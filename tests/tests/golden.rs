//! Scenarios beside what they must print: `scenarios/NAME.json` is a host and what is asked of
//! it, `scenarios/NAME.log` the shell script that does the same, with the words of every refusal.
//! `UPDATE=1 cargo test --test golden` writes the logs anew.
#![expect(clippy::unwrap_used, reason = "what helps a test is a test")]

use std::collections::BTreeSet;
use std::fmt::Write as _;

use mydocker_core::{Executor, Outcome, Rejection, Request};
use mydocker_exec_dryrun::{Rendering, render, render_warnings};
use mydocker_tests::{Scenario, Step, World, attach, create};

/// Plays a scenario on the model kernel; its script, and how it was refused.
fn play(name: &str) -> (String, Vec<Rejection>) {
    let scenario = Scenario::read(name);
    let mut world = scenario.world();
    let mut log = render(&[], Rendering::Script);
    let header = log.clone();
    let mut rejections = Vec::new();
    for (text, step) in scenario.steps() {
        write!(log, "\n## {text}\n").unwrap();
        let planned = match step {
            Step::Kill(netns) => {
                world.kernel.kill_sandbox(&netns);
                writeln!(log, "ip netns del {}", netns.ip_netns_name().unwrap()).unwrap();
                continue;
            }
            Step::Request(request) => world.plan(&request),
            Step::Batch(requests) => world.plan_batch(&requests),
        };
        match planned {
            Ok(plan) => {
                let script = render(&plan.ops, Rendering::Script);
                log.push_str(script.strip_prefix(&header).unwrap());
                log.push_str(&render_warnings(&plan.warnings, Rendering::Script));
                assert_eq!(world.carry_out(plan), Outcome::Committed, "{name}: {text}");
                // What a dead container wanted, nobody can have until it is detached.
                let sandboxes = world.state().netns();
                if sandboxes.iter().all(|netns| world.kernel.is_alive(netns)) {
                    world.assert_agrees(&text);
                }
            }
            Err(rejection) => {
                writeln!(log, "# rejected: {rejection}").unwrap();
                rejections.push(rejection);
            }
        }
    }
    (log, rejections)
}

#[test]
fn scenarios_print_what_they_must() {
    let all = Scenario::names();
    assert!(all.len() > 5, "{all:?}");
    for name in all {
        Scenario::check(&format!("{name}.log"), &play(&name).0);
    }
}

/// What it is called in the code.
fn variant(rejection: &Rejection) -> String {
    let text = format!("{rejection:?}");
    text.chars()
        .take_while(char::is_ascii_alphanumeric)
        .collect()
}

/// No way of saying no goes untried: those of `rejection.rs`, less those that no script of
/// requests alone leads to, or only a long one (crash.rs, faults.rs and laws.rs have those).
#[test]
fn every_rejection_is_in_a_scenario() {
    let source = include_str!("../../core/src/rejection.rs");
    let (_, body) = source.split_once("pub enum Rejection {").unwrap();
    let (body, _) = body.split_once("\n}\n").unwrap();
    let name = |line: &str| {
        let line = line.strip_prefix("    ")?;
        let starts = line.starts_with(|c: char| c.is_ascii_uppercase());
        starts.then(|| {
            line.chars()
                .take_while(char::is_ascii_alphanumeric)
                .collect::<String>()
        })
    };
    let mut known: BTreeSet<String> = body.lines().filter_map(name).collect();
    for elsewhere in ["Pending", "BridgeFull", "LeftOver", "PortsExhausted"] {
        known.remove(elsewhere);
    }
    let seen: BTreeSet<String> = Scenario::names()
        .iter()
        .flat_map(|name| play(name).1)
        .map(|r| variant(&r))
        .collect();
    let missing: Vec<_> = known.difference(&seen).collect();
    assert!(missing.is_empty(), "no scenario provokes {missing:?}");
}

/// The other two renderings, of one plan that has every field that differs.
#[test]
fn a_plan_as_table_and_as_json() {
    let network = Request::CreateNetwork(create("testbridge", &["10.0.0.1/24"]));
    let mut world = World::default().after(std::slice::from_ref(&network));
    let joined = world
        .plan(&Request::Attach(attach("testbridge", "web", &["8080:80"])))
        .unwrap();
    let created = World::default().plan(&network).unwrap();
    let tables = [created, joined.clone()].map(|plan| render(&plan.ops, Rendering::Table));
    Scenario::check("rendering.table", &tables.join("\n"));
    Scenario::check(
        "rendering.jsonl",
        &render(&joined.ops, Rendering::JsonLines),
    );
}
