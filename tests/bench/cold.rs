//! `make bench`: the first container of a network after a reboot, as whole processes: its attach brings
//! the bridge back, beside the floor that makes the same bridge and attaches the same container, in turns.
//! Where no other network is up, the ruleset comes with it: the floor sends the very same one, written
//! down beforehand. Each attaches once more to the bridge that is there then. Prints medians and ratios, and
//! writes them to a folder as JSON; the last ratio is to the next attach and what the bridge adds to the
//! floor.
//!
//! ```text
//! cold [ROUNDS [FOLDER]]
//! ```
#![expect(clippy::print_stdout, reason = "a table for people")]

use std::error::Error;
use std::path::PathBuf;

use mydocker::store::Roots;
use mydocker_core::{
    AttachSpec, Entry, Facts, Instance, NetworkSpec, Object, Op, Outcome, PortSpec, Request,
    Ruleset, State,
};
use mydocker_exec_netlink::nft::Batch;
use mydocker_tests::bench::{Cost, FLOOR_TABLE, Median, Stand, keep, settle, timed};
use serde::Serialize;

const SUBNET: &str = "10.1.0.0/16";
/// As that of `connect -p`.
const PORT: &str = "9000:80";
/// The floor's interfaces: nobody else gets that far.
const BRIDGE_INDEX: &str = "1000000";
const LINK_INDEX: &str = "1000001";

#[derive(Clone, Copy, Debug, Eq, PartialEq, Serialize)]
#[serde(rename_all = "snake_case")]
enum Beside {
    Nothing,
    AnotherNetwork,
}

#[derive(Debug, Serialize)]
struct Row {
    beside: Beside,
    rounds: usize,
    floor: Median,
    cold: Median,
    /// The same with the bridge there already.
    warm_floor: Median,
    warm: Median,
}

impl Row {
    /// How many times as long as an attach to a bridge that is there and what making one takes.
    fn over_warm(&self) -> f64 {
        let bridge = self.floor.wall_ms - self.warm_floor.wall_ms;
        self.cold.wall_ms / (self.warm.wall_ms + bridge)
    }
}

struct Bench {
    stand: Stand,
    sandbox: PathBuf,
    other: PathBuf,
    instance: Instance,
}

impl Bench {
    fn new() -> Result<Self, Box<dyn Error>> {
        let stand = Stand::new()?;
        let host = &stand.host;
        host.ok(&format!("network create --subnet {SUBNET} n"));
        host.ok("network create --subnet 10.2.0.0/16 other");
        let [(_, root), (_, run_root)] = host.environment();
        let instance = Roots { root, run_root }.instance()?;
        let this = Self {
            sandbox: host.sandbox("bench"),
            other: host.sandbox("other"),
            instance,
            stand,
        };
        this.stand.reboot();
        Ok(this)
    }

    /// What the firewall gets of a network that comes up and its first container, as one batch.
    fn batch(&self, beside: Beside) -> Result<PathBuf, Box<dyn Error>> {
        let mut state = State::new(self.instance);
        let mut batch = Batch::new(&self.instance.table());
        for request in requests()? {
            let plan = state.plan(&Facts::default(), &request)?;
            for op in &plan.ops {
                match op {
                    Op::Add(Object::Ruleset(_)) if beside == Beside::AnotherNetwork => {}
                    Op::Add(Object::Ruleset(_)) => {
                        let tables = Ruleset::of(self.instance).tables;
                        tables.iter().for_each(|table| batch.create_table(table));
                    }
                    Op::Add(object) | Op::Del(object) => {
                        let elements = object.elements();
                        elements.iter().for_each(|element| batch.add(element));
                    }
                }
            }
            state.absorb(&Entry::Begin(plan.into()))?;
            state.absorb(&Entry::End(Outcome::Committed))?;
        }
        let path = self.stand.host.dir().join(format!("{beside:?}.batch"));
        std::fs::write(&path, batch.datagram(1))?;
        Ok(path)
    }

    /// Has the other network come up, if it should.
    fn prepare(&self, beside: Beside) {
        if beside == Beside::AnotherNetwork {
            let words = ["other", "other"];
            timed(self.stand.connect(&self.other, &words));
            settle();
        }
    }

    /// The first attach, and another one after it, as all of these.
    fn floor(&self, beside: Beside, batch: &str) -> [Cost; 2] {
        self.prepare(beside);
        let sandbox = self.sandbox.display().to_string();
        let attach = |words: &[&str]| {
            let cost = timed(self.stand.example("floor", words));
            self.stand.host.sh("ip link del dev floor0");
            settle();
            cost
        };
        let (address, gateway) = ("10.1.0.2/16", "10.1.0.1");
        let link = ["floor0", LINK_INDEX, &sandbox, address, gateway];
        let cold = attach(&[&["cold", batch, "n", BRIDGE_INDEX], &link[..]].concat());
        self.stand.host.sh(FLOOR_TABLE);
        // What follows a pause takes longer than what does not.
        settle();
        let link = ["floor0", LINK_INDEX, BRIDGE_INDEX, &sandbox];
        let warm = attach(&[&["attach"], &link[..], &[address, gateway, "9000"]].concat());
        self.end(beside);
        [cold, warm]
    }

    fn ours(&self, beside: Beside) -> [Cost; 2] {
        self.prepare(beside);
        let attach = || {
            let words = ["-p", PORT, "n", "bench"];
            let cost = timed(self.stand.connect(&self.sandbox, &words));
            timed(
                self.stand
                    .mydocker(&["network", "disconnect", "n", "bench"]),
            );
            settle();
            cost
        };
        let costs = [attach(), attach()];
        self.end(beside);
        costs
    }

    fn end(&self, beside: Beside) {
        if beside == Beside::AnotherNetwork {
            let words = ["network", "disconnect", "other", "other"];
            timed(self.stand.mydocker(&words));
        }
        self.stand.reboot();
    }

    fn row(&self, beside: Beside, rounds: usize) -> Result<Row, Box<dyn Error>> {
        let batch = self.batch(beside)?.display().to_string();
        let (mut floor, mut ours) = (Vec::new(), Vec::new());
        for round in 0..rounds {
            // Each is first as often as the other.
            if round.is_multiple_of(2) {
                floor.push(self.floor(beside, &batch));
                ours.push(self.ours(beside));
            } else {
                ours.push(self.ours(beside));
                floor.push(self.floor(beside, &batch));
            }
        }
        let median = |costs: &[[Cost; 2]], which: usize| {
            Median::of(&costs.iter().map(|costs| costs[which]).collect::<Vec<_>>())
        };
        Ok(Row {
            beside,
            rounds,
            floor: median(&floor, 0),
            cold: median(&ours, 0),
            warm_floor: median(&floor, 1),
            warm: median(&ours, 1),
        })
    }
}

/// The network and the container, as the floor makes them.
fn requests() -> Result<[Request; 2], Box<dyn Error>> {
    let mut network = NetworkSpec::new("n".parse()?);
    network.subnets = vec![SUBNET.parse()?];
    let netns = "/run/netns/bench".parse()?;
    let mut container = AttachSpec::new("n".parse()?, "bench".parse()?, netns);
    container.ports = PortSpec::parse_list(PORT)?;
    Ok([Request::CreateNetwork(network), Request::Attach(container)])
}

fn main() -> Result<(), Box<dyn Error>> {
    let mut words = std::env::args().skip(1);
    let rounds = words.next().map_or(Ok(31), |word| word.parse())?;
    let folder = words.next().map(PathBuf::from);
    let bench = Bench::new()?;
    println!("first attach of a network, whole processes: median ms, ratios of wall and CPU time");
    println!(
        "BESIDE            FLOOR  MYDOCKER  RATIOS       THE NEXT: FLOOR, MYDOCKER  OVER THAT"
    );
    let mut rows = Vec::new();
    for beside in [Beside::Nothing, Beside::AnotherNetwork] {
        let row = bench.row(beside, rounds)?;
        let name = match beside {
            Beside::Nothing => "nothing",
            Beside::AnotherNetwork => "another network",
        };
        println!(
            "{name:16}  {:5.2}  {:8.2}  {}  {:15.2} {:9.2}  {:.2}×",
            row.floor.wall_ms,
            row.cold.wall_ms,
            row.cold.ratios(row.floor),
            row.warm_floor.wall_ms,
            row.warm.wall_ms,
            row.over_warm(),
        );
        rows.push(row);
    }
    Ok(keep(folder.as_deref(), "cold", &rows)?)
}
