//! `make bench`: `mydocker network connect` and `disconnect` as whole processes, one container with one
//! published port, beside the floor doing no more than the kernel has to, in turns on one bridge with
//! so many containers parked on it. Prints medians and ratios, and writes them to a folder, as JSON and
//! as a picture. A detach has two floors: one waits for the kernel's grace periods, and the other for
//! the announcement that the link is gone. Its ratios are to the latter.
//!
//! ```text
//! attach [PARKED,PARKED… [ROUNDS [FOLDER]]]
//! ```
#![expect(clippy::print_stdout, reason = "a table for people")]

use std::error::Error;
use std::fs::File;
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};
use std::time::Duration;

use mydocker_tests::Host;
use mydocker_tests::bench::{Cost, Line, Median};
use nix::sched::{CloneFlags, setns};
use serde::Serialize;

const NETWORK: &str = "network create --subnet 10.1.0.0/16 n";
/// What the floor counts its interfaces from: nobody else gets that far.
const FIRST_INDEX: u32 = 1_000_000;
/// Longer than the kernel takes to let go of what a detach removed: whoever closes a socket of the
/// firewall meanwhile would wait for it.
const GRACE: Duration = Duration::from_millis(40);

#[derive(Debug, Serialize)]
struct Row {
    parked: usize,
    rounds: usize,
    attach_floor: Median,
    attach: Median,
    detach_floor: Median,
    detach_announced_floor: Median,
    detach: Median,
}

/// A cell: the floor, ours, and ratios of wall and CPU time.
fn cell(floor: Median, ours: Median) -> String {
    let ratios = ours.ratios(floor);
    format!("{:5.2} {:5.2} {ratios}", floor.wall_ms, ours.wall_ms)
}

/// Runs a process and waits for it.
fn timed(mut command: Command) -> Cost {
    command.stdin(Stdio::null()).stdout(Stdio::null());
    let (cost, status) = Cost::of(|| command.status().expect("it starts"));
    assert!(status.success(), "{command:?}: {status}");
    cost
}

struct Bench {
    host: Host,
    mydocker: PathBuf,
    floor: PathBuf,
    bridge: String,
    sandbox: PathBuf,
    parked: usize,
}

impl Bench {
    fn new(host: Host) -> Result<Self, Box<dyn Error>> {
        let mydocker = mydocker_tests::binary();
        let floor = mydocker.with_file_name("examples").join("floor");
        // Processes are started without going through another one that enters the namespace.
        setns(File::open(host.ns())?, CloneFlags::CLONE_NEWNET)?;
        host.ok(NETWORK);
        let map = "type inet_proto . inet_service : ipv4_addr . inet_service";
        host.sh(&format!(
            "nft 'add table inet floor; add map inet floor publish {{ {map}; }}'"
        ));
        let bridge = host
            .sh("ip -o link show dev n | cut -d: -f1")
            .trim()
            .to_owned();
        let sandbox = host.sandbox("bench");
        let parked = 0;
        Ok(Self {
            host,
            mydocker,
            floor,
            bridge,
            sandbox,
            parked,
        })
    }

    fn park(&mut self, count: usize) {
        for number in self.parked..count {
            let name = format!("parked{number}");
            let netns = self.host.sandbox(&name);
            timed(self.mydocker(
                &["network", "connect", "-p", "80", "n", &name],
                Some(&netns),
            ));
        }
        self.parked = count;
    }

    fn mydocker(&self, words: &[&str], netns: Option<&Path>) -> Command {
        let mut command = Command::new(&self.mydocker);
        command.args(words).envs(self.host.environment());
        if let Some(netns) = netns {
            command.arg("--netns").arg(netns);
        }
        command
    }

    fn floor(&self, words: &[&str]) -> Command {
        let mut command = Command::new(&self.floor);
        command.args(words);
        command
    }

    /// One attach and detach of each, as costs in the order of a row.
    fn round(&self, number: u32) -> [Cost; 5] {
        let index = (FIRST_INDEX + number).to_string();
        let sandbox = self.sandbox.display().to_string();
        let (address, gateway, port) = ("10.1.255.1", "10.1.0.1", "9000");
        let with_prefix = format!("{address}/16");
        let floor = |detach: &str| {
            let attach = [
                "attach",
                "floor0",
                &index,
                &self.bridge,
                &sandbox,
                &with_prefix,
                gateway,
                port,
            ];
            let attach = timed(self.floor(&attach));
            let detach = timed(self.floor(&[detach, &index, address, port]));
            std::thread::sleep(GRACE);
            (attach, detach)
        };
        let ours = || {
            let attach = ["network", "connect", "-p", "9000:80", "n", "bench"];
            let attach = timed(self.mydocker(&attach, Some(&self.sandbox)));
            let detach = timed(self.mydocker(&["network", "disconnect", "n", "bench"], None));
            std::thread::sleep(GRACE);
            (attach, detach)
        };
        let (_, announced) = floor("detach-announced");
        // Each is first as often as the other.
        let ((floor_attach, floor_detach), (attach, detach)) = if number.is_multiple_of(2) {
            let floor = floor("detach");
            (floor, ours())
        } else {
            let ours = ours();
            (floor("detach"), ours)
        };
        [floor_attach, attach, floor_detach, announced, detach]
    }

    fn row(&self, rounds: u32) -> Row {
        let costs: Vec<[Cost; 5]> = (0..rounds).map(|number| self.round(number)).collect();
        let median =
            |at: usize| Median::of(&costs.iter().map(|costs| costs[at]).collect::<Vec<_>>());
        Row {
            parked: self.parked,
            rounds: costs.len(),
            attach_floor: median(0),
            attach: median(1),
            detach_floor: median(2),
            detach_announced_floor: median(3),
            detach: median(4),
        }
    }
}

fn main() -> Result<(), Box<dyn Error>> {
    let mut words = std::env::args().skip(1);
    let parked = words.next().unwrap_or_else(|| "1,100,500,900".to_owned());
    let parked = parked
        .split(',')
        .map(str::parse)
        .collect::<Result<Vec<usize>, _>>()?;
    let rounds = words.next().map_or(Ok(31), |word| word.parse())?;
    let folder = words.next().map(PathBuf::from);
    let Some(host) = Host::new() else {
        return Err("it makes network namespaces: run it as root".into());
    };
    let mut bench = Bench::new(host)?;
    println!(
        "wall time of whole processes, median ms, and ratios of wall and CPU time to the floor"
    );
    println!(
        "PARKED  ATTACH: FLOOR, MYDOCKER, RATIOS  DETACH: WAITING FLOOR, FLOOR, MYDOCKER, RATIOS"
    );
    let mut rows = Vec::new();
    for count in parked {
        bench.park(count);
        let row = bench.row(rounds);
        let attach = cell(row.attach_floor, row.attach);
        let waiting = row.detach_floor.wall_ms;
        let detach = cell(row.detach_announced_floor, row.detach);
        println!("{count:6}  {attach:>31}  {waiting:21.2}, {detach:>31}");
        rows.push(row);
    }
    if let Some(folder) = folder {
        std::fs::create_dir_all(&folder)?;
        std::fs::write(
            folder.join("attach.json"),
            serde_json::to_vec_pretty(&rows)?,
        )?;
        std::fs::write(folder.join("attach.svg"), plot(&rows))?;
    }
    Ok(())
}

/// Wall time of an attach against parked containers, as SVG.
fn plot(rows: &[Row]) -> String {
    let line = |name: &str, color, of: &dyn Fn(&Row) -> Median| Line {
        name: name.to_owned(),
        color,
        points: rows
            .iter()
            .map(|row| (row.parked, of(row).wall_ms))
            .collect(),
    };
    let lines = [
        line("floor", "gray", &|row| row.attach_floor),
        line("mydocker", "steelblue", &|row| row.attach),
    ];
    mydocker_tests::bench::plot("one attach, ms, against parked containers", &lines)
}
