//! Ops.

use mydocker_core::{Dnat, Executor, Family, Ns, Object, Op, Protocol};
use mydocker_exec_dryrun::{Kernel, Rendering, render};
use serde_json::Value;

use crate::shell::{Shape, shape};

/// Ops as `--dry-run=json` prints them, one a line: whatever they say, each is data, prints as the
/// command that it is and no other, and can be taken back.
pub fn plan(data: &[u8]) {
    let ops: Vec<Op> = crate::lines(data).filter_map(read).collect();
    for op in &ops {
        crate::reads_back(op);
        assert_eq!(op.clone().inverse().inverse(), *op);
        assert_eq!(shape(&op.to_string()), command(op), "{op}");
        mydocker_exec_netlink::fuzzing::written(op);
    }
    rendered(&ops);
    applied(&ops);
}

/// A line of a dry run. What it says beside action and object follows from these.
fn read(line: &[u8]) -> Option<Op> {
    let mut line: Value = serde_json::from_slice(line).ok()?;
    let object = serde_json::from_value(line.get_mut("object")?.take()).ok()?;
    match line.get("action")?.as_str()? {
        "add" => Some(Op::Add(object)),
        "del" => Some(Op::Del(object)),
        _ => None,
    }
}

fn rendered(ops: &[Op]) {
    let table = render(ops, Rendering::Table);
    assert_eq!(table.lines().count(), ops.len() + 1, "{table}");
    let json = render(ops, Rendering::JsonLines);
    let again: Vec<Op> = json
        .lines()
        .filter_map(|line| read(line.as_bytes()))
        .collect();
    assert_eq!(again, ops, "{json}");
    let script = render(ops, Rendering::Script);
    let comments = ops.iter().enumerate();
    let mut rest = script
        .strip_prefix("#!/bin/sh\nset -eu\n")
        .unwrap_or_default();
    for (index, op) in comments {
        let comment = format!("\n# {} {} {}\n", index + 1, op.name(), op.target());
        assert_eq!(comment.lines().count(), 2, "{comment:?}");
        let line = format!("{comment}{op}\n");
        assert!(rest.starts_with(&line), "{script}");
        rest = &rest[line.len()..];
    }
    assert_eq!(rest, "", "{script}");
}

/// What an op's command consists of, whatever its values are.
fn command(op: &Op) -> Shape {
    let (words, special) = match op {
        Op::Add(object) => added(object),
        Op::Del(object) => deleted(object),
    };
    Shape {
        words,
        special: special + &flush(op),
        open: false,
    }
}

fn added(object: &Object) -> (usize, String) {
    let (words, special) = match object {
        Object::Ruleset(_) => (3, "<<\n"),
        Object::Zone(_)
        | Object::Masquerade(_)
        | Object::Dnat(_)
        | Object::Pinhole(_)
        | Object::Guard(_)
        | Object::Isolated(_)
        | Object::Passage(_) => (2, ""),
        Object::Bridge(_) => (18, ";"),
        Object::Veth(_) => (36, ";;"),
        Object::Move(moved) => match moved.to.ns {
            Ns::Host => (11, "$$"),
            Ns::Sandbox(_) => (11, ""),
        },
        Object::LooseEnd(_) => (1, ""),
        Object::Master(_) => (10, ""),
        Object::Hairpin(_) => (7, ""),
        Object::LinkSysctl(sysctl) => (3 + inside(&sysctl.link.ns), ""),
        Object::Address(address) => {
            let nodad = Family::of(address.address.addr()) == Family::V6;
            (6 + inside(&address.link.ns) + usize::from(nodad), "")
        }
        Object::Up(up) => (6 + inside(&up.link.ns), ""),
        Object::Route(_) => (routed(object), ""),
        Object::Forwarding(_) => (3, ""),
    };
    (words, special.into())
}

fn deleted(object: &Object) -> (usize, String) {
    let (words, special) = match object {
        Object::Ruleset(_)
        | Object::Zone(_)
        | Object::Masquerade(_)
        | Object::Dnat(_)
        | Object::Pinhole(_)
        | Object::Guard(_)
        | Object::Isolated(_) => (2, ""),
        Object::Passage(_) => (22, "||"),
        Object::Bridge(_) | Object::Veth(_) => (5, ""),
        Object::Move(moved) => (9 + inside(&moved.to.ns), "$$"),
        Object::LooseEnd(end) => (5 + inside(&end.link.ns), ""),
        Object::Master(_) => (7, ""),
        Object::Hairpin(_) => (7, ""),
        Object::LinkSysctl(_) => (1, ""),
        Object::Address(address) => (6 + inside(&address.link.ns), ""),
        Object::Up(up) => (6 + inside(&up.link.ns), ""),
        Object::Route(_) => (routed(object), ""),
        Object::Forwarding(_) => (3, ""),
    };
    (words, special.into())
}

fn routed(object: &Object) -> usize {
    let Object::Route(route) = object else {
        return 0;
    };
    let family = usize::from(Family::of(route.via) == Family::V6);
    let metric = 2 * usize::from(route.metric.is_some());
    10 + inside(&route.link.ns) + family + metric
}

/// The words that say in which namespace: `-n NAME`, or `nsenter --net=PATH`.
fn inside(ns: &Ns) -> usize {
    match ns {
        Ns::Host => 0,
        Ns::Sandbox(_) => 2,
    }
}

/// The lines that end connections.
fn flush(op: &Op) -> String {
    let loops = match op {
        Op::Del(Object::Dnat(_)) => "\n",
        Op::Add(Object::Dnat(Dnat {
            protocol: Protocol::Udp,
            at,
            ..
        })) => match at {
            Some(_) => "\n",
            None => "\n|;${*}${*};",
        },
        Op::Del(Object::Guard(_)) => "\n;$;$;",
        Op::Add(_) | Op::Del(_) => return String::new(),
    };
    format!("{loops}>>&||")
}

/// The model kernel takes or refuses each.
fn applied(ops: &[Op]) {
    let mut kernel = Kernel::new().any_namespace();
    for op in ops {
        if let Object::Passage(passage) = op.object() {
            kernel.add_forward_chain(&passage.chain);
        }
    }
    undone(ops, kernel.clone());
    let mut rest = ops;
    while !rest.is_empty() {
        let results = kernel.apply(rest);
        assert!(!results.is_empty() && results.len() <= rest.len());
        rest = &rest[results.len()..];
    }
}

/// Ops that did nothing but add what they say leave nothing behind when they are undone, last to
/// first. Others overwrite or take something along; whoever plans them knows of it.
fn undone(ops: &[Op], mut kernel: Kernel) {
    let mut landed: Vec<&Op> = Vec::new();
    for op in ops.iter().filter(|op| !op.object().lingers()) {
        let before = kernel.clone();
        let mut wanted = before.objects().clone();
        let is_new = wanted.insert(op.object().clone());
        let took = kernel.apply(std::slice::from_ref(op)) == [Ok(())];
        if is_new && took && *kernel.objects() == wanted {
            landed.push(op);
        } else {
            kernel = before;
        }
    }
    for op in landed.into_iter().rev() {
        assert_eq!(kernel.apply(&[op.clone().inverse()]), [Ok(())], "{op}");
    }
    assert!(kernel.objects().is_empty(), "{:?}", kernel.objects());
}
