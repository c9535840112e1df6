//! `make bench`: many at once, as whole processes. A batch of attaches by an embedded engine beside the floor
//! making as many one after the other, on bridges of one host, in turns; and how long it takes to take all
//! of them off again.
//!
//! ```text
//! bulk [ENDPOINTS,ENDPOINTS… [ROUNDS [FOLDER]]]
//! ```
#![expect(clippy::print_stdout, reason = "a table for people")]

use std::error::Error;
use std::path::{Path, PathBuf};
use std::process::Stdio;

use mydocker::engine::Engine;
use mydocker::store::Roots;
use mydocker_core::{AttachSpec, Request};
use mydocker_exec_netlink::{NetlinkExecutor, netns};
use mydocker_tests::bench::{Cost, FLOOR_TABLE, Median, Stand, keep, numbers, settle, timed};
use serde::Serialize;

const CREATE: &str = "network create --subnet 10.1.0.0/16 n";
/// The bridge of the floor, with addresses that mydocker does not get to.
const FLOOR_BRIDGE: &str = "ip link add floor type bridge; ip link set floor up";
const FLOOR_UNDO: &str = "ip link del group 77; nft flush map inet floor publish";
/// What the floor counts its interfaces from: nobody else gets that far.
const FIRST_INDEX: &str = "1000000";

#[derive(Debug, Serialize)]
struct Row {
    endpoints: usize,
    rounds: usize,
    attach_floor: Median,
    attach: Median,
    remove: Median,
    disconnect: Median,
    prune: Median,
}

struct Bench {
    stand: Stand,
    bridge: String,
    endpoints: usize,
    sandboxes: Vec<PathBuf>,
}

/// In its place, this program is the one that attaches.
const BATCH: &str = "batch";

/// Attaches so many, whose namespaces are in that directory, at once.
fn batch(count: usize, directory: &Path) -> Result<(), Box<dyn Error>> {
    let root = |name: &str| std::env::var_os(name).map(PathBuf::from).ok_or("no root");
    let (root, run_root) = (root("MYDOCKER_ROOT")?, root("MYDOCKER_RUN_ROOT")?);
    let roots = Roots { root, run_root };
    let mut requests = Vec::new();
    for number in 0..count {
        let name = name(number);
        let netns = directory.join(&name).display().to_string().parse()?;
        let mut spec = AttachSpec::new("n".parse()?, name.parse()?, netns);
        spec.ports = vec![format!("{}:80", 10_000 + number).parse()?];
        requests.push(Request::Attach(spec));
    }
    let executor = NetlinkExecutor::open(roots.instance()?)?;
    Engine::open(roots, executor).apply_batch(&requests)?;
    Ok(())
}

fn name(number: usize) -> String {
    format!("c{number:04}")
}

impl Bench {
    fn new(endpoints: usize) -> Result<Self, Box<dyn Error>> {
        let stand = Stand::new()?;
        stand.host.sh(FLOOR_BRIDGE);
        stand.host.sh(FLOOR_TABLE);
        let names = (0..endpoints).map(name);
        Ok(Self {
            bridge: stand.index("floor"),
            sandboxes: names.map(|name| stand.host.sandbox(&name)).collect(),
            endpoints,
            stand,
        })
    }

    fn directory(&self) -> String {
        let directory = self.sandboxes[0].parent().expect("it is in one");
        directory.display().to_string()
    }

    /// One process that embeds the engine, and one transaction.
    fn attach(&self) -> Cost {
        let count = self.endpoints.to_string();
        let mut command = self
            .stand
            .example("bulk", &[BATCH, &count, &self.directory()]);
        command.envs(self.stand.host.environment());
        timed(command)
    }

    /// One process that does no more than the kernel has to, one container after the other.
    fn attach_floor(&self) -> Cost {
        let (count, directory) = (self.endpoints.to_string(), self.directory());
        let words = ["attach-all", &count, FIRST_INDEX, &self.bridge, &directory];
        let cost = timed(self.stand.example("floor", &words));
        self.stand.host.sh(FLOOR_UNDO);
        settle();
        cost
    }

    fn take_off(&self, words: &[&str]) -> Cost {
        let mut command = self.stand.mydocker(words);
        // Who is gone is told, each of them.
        command.stderr(Stdio::null());
        let cost = timed(command);
        settle();
        cost
    }

    /// Costs in the order of a row.
    fn round(&mut self, number: usize) -> Result<[Cost; 5], Box<dyn Error>> {
        let mut floor = Vec::new();
        if number.is_multiple_of(2) {
            floor.push(self.attach_floor());
        }
        self.stand.host.ok(CREATE);
        let attach = self.attach();
        let remove = self.take_off(&["network", "remove", "--force", "n"]);
        if floor.is_empty() {
            floor.push(self.attach_floor());
        }
        self.stand.host.ok(CREATE);
        self.attach();
        let names: Vec<String> = (0..self.endpoints).map(name).collect();
        let mut words = vec!["network", "disconnect", "n"];
        words.extend(names.iter().map(String::as_str));
        let disconnect = self.take_off(&words);
        self.attach();
        for sandbox in &self.sandboxes {
            netns::remove(sandbox)?;
        }
        // Cables go with their namespaces, some time after.
        while self.stand.host.sh("ip -o link").contains("mdv") {
            settle();
        }
        let prune = self.take_off(&["network", "prune"]);
        for sandbox in &self.sandboxes {
            netns::create(sandbox)?;
        }
        Ok([floor[0], attach, remove, disconnect, prune])
    }

    fn row(&mut self, rounds: usize) -> Result<Row, Box<dyn Error>> {
        let mut costs = Vec::new();
        for number in 0..rounds {
            costs.push(self.round(number)?);
        }
        let median =
            |at: usize| Median::of(&costs.iter().map(|costs| costs[at]).collect::<Vec<_>>());
        Ok(Row {
            endpoints: self.endpoints,
            rounds,
            attach_floor: median(0),
            attach: median(1),
            remove: median(2),
            disconnect: median(3),
            prune: median(4),
        })
    }
}

fn main() -> Result<(), Box<dyn Error>> {
    let mut words = std::env::args().skip(1);
    let first = words.next();
    if first.as_deref() == Some(BATCH) {
        let (count, directory) = (words.next(), words.next());
        let (count, directory) = count.zip(directory).ok_or("a count and a directory")?;
        return batch(count.parse()?, Path::new(&directory));
    }
    let endpoints = numbers(first, "100,1000")?;
    let rounds = words.next().map_or(Ok(5), |word| word.parse())?;
    let folder = words.next().map(PathBuf::from);
    println!("median ms of wall time for all of them, and for each; ratios of wall and CPU time");
    println!(
        "ENDPOINTS  ATTACH: FLOOR, BATCH, RATIOS        REMOVE --FORCE   DISCONNECT       PRUNE"
    );
    let mut rows = Vec::new();
    for count in endpoints {
        let row = Bench::new(count)?.row(rounds)?;
        let each = |cost: Median| {
            let each = cost.wall_ms / f64::from(u32::try_from(count).unwrap_or(u32::MAX));
            format!("{:7.1} {each:.3}", cost.wall_ms)
        };
        println!(
            "{count:9}  {} {} {}  {}  {}  {}",
            each(row.attach_floor),
            each(row.attach),
            row.attach.ratios(row.attach_floor),
            each(row.remove),
            each(row.disconnect),
            each(row.prune)
        );
        rows.push(row);
    }
    keep(folder.as_deref(), "bulk", &rows)?;
    Ok(())
}
