//! Scenarios: a host and what is asked of it, in `scenarios/NAME.json`.

use std::fs;
use std::path::PathBuf;

use mydocker_core::{Facts, Netns, Request};
use mydocker_exec_dryrun::Kernel;
use serde::Deserialize;

use crate::World;

/// A host and what is asked of it.
#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Scenario {
    /// What the host has before we come.
    #[serde(default)]
    pub facts: Facts,
    steps: Vec<serde_json::Value>,
}

/// One thing that happens.
pub enum Step {
    /// Somebody asks for something.
    Request(Box<Request>),
    /// Somebody asks for several things at once.
    Batch(Vec<Request>),
    /// A container dies, and its namespace with it.
    Kill(Netns),
}

#[derive(Deserialize)]
#[serde(rename_all = "snake_case")]
enum Event {
    KillSandbox(Netns),
    Batch(Vec<Request>),
}

impl Scenario {
    /// Where scenarios and their logs are.
    #[must_use]
    pub fn folder() -> PathBuf {
        PathBuf::from(env!("CARGO_MANIFEST_DIR")).join("scenarios")
    }

    /// The names of all scenarios, sorted.
    ///
    /// # Panics
    /// The folder can't be read.
    #[must_use]
    pub fn names() -> Vec<String> {
        let entries = fs::read_dir(Self::folder()).expect("a folder of scenarios");
        let paths = entries.map(|entry| entry.expect("a file").path());
        let json = paths.filter(|path| path.extension().is_some_and(|ending| ending == "json"));
        let stem = |path: PathBuf| Some(path.file_stem()?.to_str()?.to_owned());
        let mut names: Vec<String> = json.filter_map(stem).collect();
        names.sort();
        names
    }

    /// The scenario of that name.
    ///
    /// # Panics
    /// There is none, or it makes no sense.
    #[must_use]
    pub fn read(name: &str) -> Self {
        let text = fs::read_to_string(Self::folder().join(format!("{name}.json")));
        let text = text.unwrap_or_else(|error| panic!("{name}: {error}"));
        serde_json::from_str(&text).unwrap_or_else(|error| panic!("{name}: {error}"))
    }

    /// Compares a text with what is written down in `file` beside the scenarios; where `UPDATE` is
    /// in the environment, writes it down.
    ///
    /// # Panics
    /// They differ.
    #[track_caller]
    pub fn check(file: &str, actual: &str) {
        let path = Self::folder().join(file);
        if std::env::var_os("UPDATE").is_some() {
            fs::write(&path, actual).expect("the folder takes it");
            return;
        }
        let expected = fs::read_to_string(&path).unwrap_or_default();
        let differs = expected
            .lines()
            .zip(actual.lines())
            .position(|(a, b)| a != b);
        let line = differs.unwrap_or(expected.lines().count().min(actual.lines().count()));
        assert!(
            expected == actual,
            "{file} differs from line {} on:\n-{}\n+{}\nUPDATE=1 writes it anew",
            line + 1,
            expected.lines().nth(line).unwrap_or("(the end)"),
            actual.lines().nth(line).unwrap_or("(the end)"),
        );
    }

    /// A mydocker on the host that it begins with.
    #[must_use]
    pub fn world(&self) -> World {
        World::on(Kernel::new().any_namespace().with_facts(self.facts.clone()))
    }

    /// What happens, as it is written and as it is meant.
    ///
    /// # Panics
    /// A step makes no sense.
    pub fn steps(&self) -> impl Iterator<Item = (&serde_json::Value, Step)> {
        self.steps.iter().map(|text| {
            let step = match serde_json::from_value(text.clone()) {
                Ok(Event::KillSandbox(netns)) => Step::Kill(netns),
                Ok(Event::Batch(requests)) => Step::Batch(requests),
                Err(_) => {
                    let request = serde_json::from_value(text.clone());
                    Step::Request(request.unwrap_or_else(|error| panic!("{text}: {error}")))
                }
            };
            (text, step)
        })
    }
}
