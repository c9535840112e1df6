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
use std::path::{Path, PathBuf};

use mydocker_tests::bench::{Cost, FLOOR_TABLE, Line, Median, Stand, keep, numbers, settle, timed};
use serde::Serialize;

const NETWORK: &str = "network create --subnet 10.1.0.0/16 n";
/// What the floor counts its interfaces from: nobody else gets that far.
const FIRST_INDEX: u32 = 1_000_000;

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

struct Bench {
    stand: Stand,
    bridge: String,
    parked: usize,
}

impl Bench {
    fn new() -> Result<Self, Box<dyn Error>> {
        let stand = Stand::new()?;
        stand.host.ok(NETWORK);
        stand.host.sh(FLOOR_TABLE);
        Ok(Self {
            bridge: stand.index("n"),
            stand,
            parked: 0,
        })
    }

    fn park(&mut self, count: usize) {
        for number in self.parked..count {
            let name = format!("parked{number}");
            let netns = self.stand.host.sandbox(&name);
            timed(self.stand.connect(&netns, &["-p", "80", "n", &name]));
        }
        self.parked = count;
    }

    /// One attach and detach of each, as costs in the order of a row.
    fn round(&self, number: u32, sandbox: &Path) -> [Cost; 5] {
        let index = (FIRST_INDEX + number).to_string();
        let (address, gateway, port) = ("10.1.255.1", "10.1.0.1", "9000");
        let with_prefix = format!("{address}/16");
        let floor = |detach: &str| {
            let attach = [
                "attach",
                "floor0",
                &index,
                &self.bridge,
                &sandbox.display().to_string(),
                &with_prefix,
                gateway,
                port,
            ];
            let attach = timed(self.stand.example("floor", &attach));
            let detach = [detach, &index, address, port];
            let detach = timed(self.stand.example("floor", &detach));
            settle();
            (attach, detach)
        };
        let ours = || {
            let attach = ["-p", "9000:80", "n", "bench"];
            let attach = timed(self.stand.connect(sandbox, &attach));
            let detach = ["network", "disconnect", "n", "bench"];
            let detach = timed(self.stand.mydocker(&detach));
            settle();
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
        // Younger than those that are parked, as that of a new container is.
        let sandbox = self.stand.host.sandbox(&format!("bench{}", self.parked));
        let costs: Vec<[Cost; 5]> = (0..rounds)
            .map(|number| self.round(number, &sandbox))
            .collect();
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
    let parked = numbers(words.next(), "1,100,500,900")?;
    let rounds = words.next().map_or(Ok(31), |word| word.parse())?;
    let folder = words.next().map(PathBuf::from);
    let mut bench = Bench::new()?;
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
    keep(folder.as_deref(), "attach", &rows)?;
    if let Some(folder) = folder {
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
