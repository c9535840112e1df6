//! `make bench`: what a container takes from start to end, as whole processes, in turns: `mydocker run --rm`
//! of `true`, without a network and with one, beside `runc run` and `crun run` of the bundle that mydocker
//! wrote, and beside the least that can be called a container (`tests/bench/contain.rs`), all on the same
//! root file system. Prints medians and ratios, and writes them to a folder as JSON. Who is not installed,
//! or can't work on this machine, is left out, and named.
//!
//! ```text
//! run [ROUNDS [FOLDER]]
//! ```
#![expect(clippy::print_stdout, reason = "a table for people")]

use std::error::Error;
use std::fs;
use std::path::{Path, PathBuf};
use std::process::Command;

use mydocker_tests::bench::{Cost, Median, Stand, keep, timed};
use serde::Serialize;
use serde_json::{Value, json};

/// What all of them run.
const PROGRAM: &str = "/bin/true";

#[derive(Debug, Serialize)]
struct Row {
    name: String,
    rounds: usize,
    took: Median,
}

/// A way to run a container, named.
struct Way<'s> {
    name: String,
    command: Box<dyn Fn() -> Command + 's>,
}

struct Bench {
    stand: Stand,
    /// The image's root file system, unpacked.
    root: PathBuf,
    bundle: PathBuf,
}

impl Bench {
    fn new() -> Result<Self, Box<dyn Error>> {
        let stand = Stand::new()?;
        let host = &stand.host;
        host.with_image();
        host.ok("network create --subnet 10.1.0.0/16 n");
        // A copy of what mydocker wrote for a container of the image, to be run by others.
        let id = host.ok("run -d --name model busybox sleep 1000");
        let theirs = host.dir().join("run/bundle").join(id.trim());
        let layers = host.dir().join("lib/image/layers/sha256");
        let is_layer = |path: &PathBuf| path.join("bin/busybox").exists();
        let mut layers = fs::read_dir(layers)?.flatten().map(|entry| entry.path());
        let layer = layers.find(is_layer).ok_or("the image has no layer")?;
        let (root, bundle) = (host.dir().join("root"), host.dir().join("bundle"));
        for (from, to) in [(&layer, &root), (&theirs, &bundle)] {
            host.sh(&format!("cp -a {} {}", from.display(), to.display()));
        }
        host.ok("rm -f model");
        let path = bundle.join("config.json");
        let config = serde_json::from_slice(&fs::read(&path)?)?;
        let config = model(config, &theirs, &bundle, &root)?;
        fs::write(&path, serde_json::to_vec_pretty(&config)?)?;
        Ok(Self {
            stand,
            root,
            bundle,
        })
    }

    fn ways(&self) -> Vec<Way<'_>> {
        let mydocker = |name: &str, words: &'static [&str]| Way {
            name: name.to_owned(),
            command: Box::new(|| self.stand.mydocker(words)),
        };
        let root = self.root.display().to_string();
        let mut ways = vec![
            Way {
                name: "floor".to_owned(),
                command: Box::new(move || self.stand.example("contain", &[&root, PROGRAM])),
            },
            mydocker("mydocker", &["run", "--rm", "busybox", PROGRAM]),
            mydocker(
                "mydocker, on a network",
                &["run", "--rm", "--net", "n", "busybox", PROGRAM],
            ),
        ];
        ways.extend(
            ["runc", "crun"]
                .iter()
                .filter_map(|name| self.runtime(name)),
        );
        ways
    }

    /// Another runtime, if it can run the bundle; says so if it can't.
    fn runtime(&self, name: &'static str) -> Option<Way<'_>> {
        let state = self.stand.host.dir().join(name);
        let command = move || {
            let mut command = Command::new(name);
            command.arg("--root").arg(&state).arg("run");
            command
                .arg("--bundle")
                .arg(&self.bundle)
                .arg(format!("bench-{name}"));
            command
        };
        let why = match command().output() {
            Ok(output) if output.status.success() => {
                let version = Command::new(name).arg("--version").output().ok()?;
                let version = String::from_utf8_lossy(&version.stdout).into_owned();
                let version = version.lines().next().unwrap_or(name);
                return Some(Way {
                    name: version.replace(" version ", " "),
                    command: Box::new(command),
                });
            }
            Ok(output) => String::from_utf8_lossy(&output.stderr).trim().to_owned(),
            Err(error) => error.to_string(),
        };
        println!("left out: {name}: {why}");
        None
    }
}

/// The configuration of a bundle, for another place, root file system, program and control group. Its
/// network namespace is new each time, as a container's of mydocker is.
fn model(config: Value, from: &Path, to: &Path, root: &Path) -> Result<Value, Box<dyn Error>> {
    let text = config.to_string();
    let (from, to) = (from.display().to_string(), to.display().to_string());
    let mut config: Value = serde_json::from_str(&text.replace(&from, &to))?;
    config["root"]["path"] = json!(root);
    config["process"]["args"] = json!([PROGRAM]);
    config["linux"]["cgroupsPath"] = json!("/mydocker-bench");
    let namespaces = config["linux"]["namespaces"].as_array_mut();
    for namespace in namespaces.ok_or("a bundle without namespaces")? {
        namespace
            .as_object_mut()
            .ok_or("a namespace is an object")?
            .remove("path");
    }
    Ok(config)
}

fn main() -> Result<(), Box<dyn Error>> {
    let mut words = std::env::args().skip(1);
    let rounds = words.next().map_or(Ok(31), |word| word.parse::<usize>())?;
    let folder = words.next().map(PathBuf::from);
    let bench = Bench::new()?;
    let ways = bench.ways();
    let mut costs: Vec<Vec<Cost>> = vec![Vec::new(); ways.len()];
    for round in 0..rounds {
        // Each is first as often as the others.
        for turn in 0..ways.len() {
            let which = (round + turn) % ways.len();
            costs[which].push(timed((ways[which].command)()));
        }
    }
    let rows: Vec<Row> = ways
        .iter()
        .zip(&costs)
        .map(|(way, costs)| Row {
            name: way.name.clone(),
            rounds,
            took: Median::of(costs),
        })
        .collect();
    println!("a container that ends at once, whole processes: median ms, and ratios to mydocker's");
    println!("                           WALL    CPU  WALL/CPU");
    let ours = rows[1].took;
    for row in &rows {
        println!(
            "{:24}  {:5.1}  {:5.1}  {}",
            row.name,
            row.took.wall_ms,
            row.took.cpu_ms,
            row.took.ratios(ours)
        );
    }
    Ok(keep(folder.as_deref(), "run", &rows)?)
}
