//! `make bench`: `mydocker network connect` and `disconnect` as whole processes, one container with one
//! published port, beside the floor doing no more than the kernel has to, in turns on one bridge with
//! so many containers parked on it. Prints medians and ratios, and writes them to a folder, as JSON and
//! as a picture.
//!
//! ```text
//! attach [PARKED,PARKED… [ROUNDS [FOLDER]]]
//! ```
#![expect(clippy::print_stdout, reason = "a table for people")]

use std::error::Error;
use std::fs::File;
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};
use std::time::{Duration, Instant};

use mydocker_tests::Host;
use nix::sched::{CloneFlags, setns};
use nix::sys::resource::{UsageWho, getrusage};
use nix::sys::time::TimeValLike;
use serde::Serialize;

const NETWORK: &str = "network create --subnet 10.1.0.0/16 n";
/// What the floor counts its interfaces from: nobody else gets that far.
const FIRST_INDEX: u32 = 1_000_000;

/// What one process took.
#[derive(Clone, Copy, Debug)]
struct Cost {
    wall: Duration,
    cpu: Duration,
}

/// Medians of several, milliseconds.
#[derive(Clone, Copy, Debug, Serialize)]
struct Median {
    wall_ms: f64,
    cpu_ms: f64,
}

#[derive(Debug, Serialize)]
struct Row {
    parked: usize,
    rounds: usize,
    attach_floor: Median,
    attach: Median,
    detach_floor: Median,
    detach: Median,
}

impl Median {
    fn of(costs: &[Cost]) -> Self {
        let median = |mut all: Vec<Duration>| {
            all.sort_unstable();
            all[all.len() / 2].as_secs_f64() * 1e3
        };
        Self {
            wall_ms: median(costs.iter().map(|cost| cost.wall).collect()),
            cpu_ms: median(costs.iter().map(|cost| cost.cpu).collect()),
        }
    }

    fn ratio(self, floor: Self) -> String {
        let (wall, cpu) = (self.wall_ms / floor.wall_ms, self.cpu_ms / floor.cpu_ms);
        format!(
            "{:5.2} {:5.2} {wall:4.2}×/{cpu:4.2}×",
            floor.wall_ms, self.wall_ms
        )
    }
}

/// Runs a process and waits for it.
fn timed(mut command: Command) -> Cost {
    command.stdin(Stdio::null()).stdout(Stdio::null());
    let (before, start) = (cpu(), Instant::now());
    let status = command.status().expect("it starts");
    let (wall, cpu) = (start.elapsed(), cpu() - before);
    assert!(status.success(), "{command:?}: {status}");
    Cost { wall, cpu }
}

/// What the children that were waited for have used.
fn cpu() -> Duration {
    let used = getrusage(UsageWho::RUSAGE_CHILDREN).expect("it can be asked");
    let us = used.user_time().num_microseconds() + used.system_time().num_microseconds();
    Duration::from_micros(us.unsigned_abs())
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
    fn round(&self, number: u32) -> [Cost; 4] {
        let index = (FIRST_INDEX + number).to_string();
        let sandbox = self.sandbox.display().to_string();
        let (address, gateway, port) = ("10.1.255.1", "10.1.0.1", "9000");
        let with_prefix = format!("{address}/16");
        let floor = || {
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
            let detach = timed(self.floor(&["detach", &index, address, port]));
            (attach, detach)
        };
        let ours = || {
            let attach = ["network", "connect", "-p", "9000:80", "n", "bench"];
            let attach = timed(self.mydocker(&attach, Some(&self.sandbox)));
            let detach = timed(self.mydocker(&["network", "disconnect", "n", "bench"], None));
            (attach, detach)
        };
        // Each is first as often as the other.
        let ((floor_attach, floor_detach), (attach, detach)) = if number.is_multiple_of(2) {
            let floor = floor();
            (floor, ours())
        } else {
            let ours = ours();
            (floor(), ours)
        };
        [floor_attach, attach, floor_detach, detach]
    }

    fn row(&self, rounds: u32) -> Row {
        let costs: Vec<[Cost; 4]> = (0..rounds).map(|number| self.round(number)).collect();
        let median =
            |at: usize| Median::of(&costs.iter().map(|costs| costs[at]).collect::<Vec<_>>());
        Row {
            parked: self.parked,
            rounds: costs.len(),
            attach_floor: median(0),
            attach: median(1),
            detach_floor: median(2),
            detach: median(3),
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
    println!("PARKED  ATTACH: FLOOR, MYDOCKER, RATIOS  DETACH: FLOOR, MYDOCKER, RATIOS");
    let mut rows = Vec::new();
    for count in parked {
        bench.park(count);
        let row = bench.row(rounds);
        let attach = row.attach.ratio(row.attach_floor);
        let detach = row.detach.ratio(row.detach_floor);
        println!("{count:6}  {attach:>31}  {detach:>31}");
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
    const WIDTH: f64 = 640.0;
    const HEIGHT: f64 = 320.0;
    const MARGIN: f64 = 48.0;
    let most = |of: &dyn Fn(&Row) -> f64| rows.iter().map(of).fold(1.0, f64::max);
    let parked = |row: &Row| f64::from(u32::try_from(row.parked).unwrap_or(u32::MAX));
    let (parked_max, ms_max) = (most(&parked), most(&|row| row.attach.wall_ms).ceil());
    let x = |parked: f64| MARGIN + parked / parked_max * (WIDTH - 2.0 * MARGIN);
    let y = |ms: f64| HEIGHT - MARGIN - ms / ms_max * (HEIGHT - 2.0 * MARGIN);
    let mut svg = format!(
        r#"<svg xmlns="http://www.w3.org/2000/svg" width="{WIDTH}" height="{HEIGHT}" font-family="sans-serif" font-size="12"><rect width="100%" height="100%" fill="white"/>"#
    );
    let mut text = |at: (f64, f64), anchor: &str, text: String| {
        svg += &format!(
            r#"<text x="{:.0}" y="{:.0}" text-anchor="{anchor}">{text}</text>"#,
            at.0, at.1
        );
    };
    text(
        (MARGIN, 20.0),
        "start",
        "one attach, ms, against parked containers".to_owned(),
    );
    for ms in [0.0, ms_max / 2.0, ms_max] {
        text((MARGIN - 8.0, y(ms) + 4.0), "end", format!("{ms}"));
    }
    for row in rows {
        text(
            (x(parked(row)), HEIGHT - MARGIN + 20.0),
            "middle",
            row.parked.to_string(),
        );
    }
    type Line<'l> = (&'l str, &'l str, &'l dyn Fn(&Row) -> f64);
    let lines: [Line<'_>; 2] = [
        ("floor", "gray", &|row| row.attach_floor.wall_ms),
        ("mydocker", "steelblue", &|row| row.attach.wall_ms),
    ];
    for (name, color, of) in lines {
        let points = rows
            .iter()
            .map(|row| format!("{:.1},{:.1}", x(parked(row)), y(of(row))));
        let points: Vec<String> = points.collect();
        let last = rows.last().map_or(0.0, of);
        svg += &format!(
            r#"<polyline points="{}" fill="none" stroke="{color}" stroke-width="2"/><text x="{:.0}" y="{:.0}" text-anchor="end" fill="{color}">{name}</text>"#,
            points.join(" "),
            x(parked_max),
            y(last) - 8.0,
        );
    }
    svg + "</svg>\n"
}
