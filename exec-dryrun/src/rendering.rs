//! Rendering: a plan that nobody carries out, as text.

use std::fmt::Write as _;

use mydocker_core::{Object, Op, Warning};
use serde::Serialize;

/// What a plan can be printed as.
#[derive(Clone, Copy, Debug, Default, Eq, PartialEq)]
pub enum Rendering {
    /// A table for people; of a command of several lines, the first.
    #[default]
    Table,
    /// One JSON object a line: `docs/dry-run.md` has the schema.
    JsonLines,
    /// A shell script that does the same as the plan, up to the first command that fails.
    Script,
}

/// One op, as a line of JSON: the schema is `docs/dry-run.md`'s.
#[derive(Serialize)]
pub(crate) struct Line<'a> {
    seq: usize,
    op: &'static str,
    action: &'static str,
    object: &'a Object,
    command: String,
}

impl<'a> Line<'a> {
    /// `seq` counts from 1.
    pub(crate) fn new(seq: usize, op: &'a Op) -> Self {
        let action = match op {
            Op::Add(_) => "add",
            Op::Del(_) => "del",
        };
        Self {
            seq,
            op: op.name(),
            action,
            object: op.object(),
            command: op.to_string(),
        }
    }
}

/// The ops as text, with a line break at the end; equal ops give equal text.
#[must_use]
pub fn render(ops: &[Op], rendering: Rendering) -> String {
    match rendering {
        Rendering::Table => table(ops),
        Rendering::JsonLines => {
            let line = |(i, op)| json(&Line::new(i + 1, op));
            ops.iter().enumerate().map(line).collect()
        }
        Rendering::Script => script(ops),
    }
}

/// A warning, as a line of JSON.
#[derive(Serialize)]
struct Told<'a> {
    warning: &'a Warning,
    text: String,
}

/// What a plan can't do, to stand behind its ops. A table has nothing of it: people are told on
/// standard error.
#[must_use]
pub fn render_warnings(warnings: &[Warning], rendering: Rendering) -> String {
    let line = |warning: &Warning| match rendering {
        Rendering::Table => String::new(),
        Rendering::JsonLines => json(&Told {
            warning,
            text: warning.to_string(),
        }),
        Rendering::Script => format!("\n# warning: {warning}\n"),
    };
    warnings.iter().map(line).collect()
}

/// A line of JSON. Everything that goes in is text and numbers, under keys that are text.
pub(crate) fn json(line: &impl Serialize) -> String {
    let mut text = serde_json::to_string(line).expect("ops are data");
    text.push('\n');
    text
}

fn table(ops: &[Op]) -> String {
    let rows: Vec<[String; 4]> = std::iter::once(["#", "OP", "TARGET", "COMMAND"].map(Into::into))
        .chain(ops.iter().enumerate().map(|(i, op)| {
            let (seq, target) = ((i + 1).to_string(), op.target().to_string());
            [
                seq,
                op.name().to_string(),
                target,
                first_line(&op.to_string()),
            ]
        }))
        .collect();
    let width = |column: usize| rows.iter().map(|row| row[column].len()).max().unwrap_or(0);
    let widths = [width(0), width(1), width(2)];
    let mut text = String::new();
    for [seq, op, target, command] in &rows {
        let [a, b, c] = widths;
        // Writing to a string can't fail.
        writeln!(text, "{seq:>a$}  {op:b$}  {target:c$}  {command}").ok();
    }
    text
}

fn first_line(command: &str) -> String {
    match command.split_once('\n') {
        None => command.to_string(),
        Some((first, _)) => format!("{first} …"),
    }
}

fn script(ops: &[Op]) -> String {
    let mut text = String::from("#!/bin/sh\nset -eu\n");
    for (i, op) in ops.iter().enumerate() {
        writeln!(text, "\n# {} {} {}\n{op}", i + 1, op.name(), op.target()).ok();
    }
    text
}
