//! `make bench`: what published ports add to an attach and a detach as whole processes. One container
//! with so many TCP ports and one with none take turns, beside so many ports that others publish
//! already. Prints what one port adds in microseconds, and writes that to a folder as JSON.
//!
//! ```text
//! ports [PORTS,PORTS… [PUBLISHED,PUBLISHED… [ROUNDS [FOLDER]]]]
//! ```
#![expect(clippy::print_stdout, reason = "a table for people")]

use std::error::Error;
use std::path::PathBuf;
use std::time::Duration;

use mydocker_tests::bench::{Cost, Median, Stand, keep, numbers, settle, timed};
use serde::Serialize;

/// The ports of the container that comes and goes are from here on, and below those of the others.
const FIRST_PORT: usize = 1024;
const OTHERS_FIRST_PORT: usize = 10_000;
/// So many ports each of the others has.
const OTHERS_PORTS: usize = 5000;

#[derive(Debug, Serialize)]
struct Row {
    published: usize,
    ports: usize,
    rounds: usize,
    attach_none: Median,
    attach: Median,
    attach_port: Added,
    detach_none: Median,
    detach: Median,
    detach_port: Added,
}

/// What a port adds, microseconds, in the median of pairs.
#[derive(Clone, Copy, Debug, Serialize)]
struct Added {
    wall_us: f64,
    cpu_us: f64,
}

struct Bench {
    stand: Stand,
    sandbox: PathBuf,
    published: usize,
}

/// What was measured with no ports and with some, in turns.
type Pair = [Cost; 2];

impl Bench {
    fn new() -> Result<Self, Box<dyn Error>> {
        let stand = Stand::new()?;
        stand.host.ok("network create --subnet 10.1.0.0/16 n");
        let sandbox = stand.host.sandbox("bench");
        Ok(Self {
            stand,
            sandbox,
            published: 0,
        })
    }

    /// Has others publish so many ports.
    fn publish(&mut self, count: usize) {
        while self.published < count {
            let more = OTHERS_PORTS.min(count - self.published);
            let name = format!("other{}", self.published);
            let netns = self.stand.host.sandbox(&name);
            let range = range(OTHERS_FIRST_PORT + self.published, more);
            timed(self.stand.connect(&netns, &["-p", &range, "n", &name]));
            self.published += more;
        }
    }

    /// Attaches and detaches one with so many ports.
    fn cycle(&self, ports: usize) -> [Cost; 2] {
        let range = range(FIRST_PORT, ports);
        let publish: &[&str] = if ports == 0 { &[] } else { &["-p", &range] };
        let words = [publish, &["n", "bench"]].concat();
        let attach = timed(self.stand.connect(&self.sandbox, &words));
        let detach = ["network", "disconnect", "n", "bench"];
        let detach = timed(self.stand.mydocker(&detach));
        settle();
        [attach, detach]
    }

    fn row(&self, ports: usize, rounds: usize) -> Row {
        let (mut attach, mut detach): (Vec<Pair>, Vec<Pair>) = (Vec::new(), Vec::new());
        for round in 0..rounds {
            // Each is first as often as the other.
            let (none, some) = if round.is_multiple_of(2) {
                let none = self.cycle(0);
                (none, self.cycle(ports))
            } else {
                let some = self.cycle(ports);
                (self.cycle(0), some)
            };
            attach.push([none[0], some[0]]);
            detach.push([none[1], some[1]]);
        }
        let median = |pairs: &[Pair], which: usize| {
            Median::of(&pairs.iter().map(|pair| pair[which]).collect::<Vec<_>>())
        };
        Row {
            published: self.published,
            ports,
            rounds,
            attach_none: median(&attach, 0),
            attach: median(&attach, 1),
            attach_port: Added::of(&attach, ports),
            detach_none: median(&detach, 0),
            detach: median(&detach, 1),
            detach_port: Added::of(&detach, ports),
        }
    }
}

/// As many ports from one on, as `-p` has them.
fn range(first: usize, count: usize) -> String {
    let last = (first + count).saturating_sub(1);
    format!("{first}-{last}:{first}-{last}")
}

impl Added {
    fn of(pairs: &[Pair], ports: usize) -> Self {
        let ports = f64::from(u32::try_from(ports).unwrap_or(u32::MAX));
        let median = |of: fn(&Cost) -> Duration| {
            let added = |[none, some]: &Pair| of(some).as_secs_f64() - of(none).as_secs_f64();
            let mut added: Vec<f64> = pairs.iter().map(added).collect();
            added.sort_unstable_by(f64::total_cmp);
            added[added.len() / 2] * 1e6 / ports
        };
        Self {
            wall_us: median(|cost| cost.wall),
            cpu_us: median(|cost| cost.cpu),
        }
    }
}

/// A cell: with none, with some, and wall and CPU time of each.
fn cell(none: Median, some: Median, added: Added) -> String {
    let Added { wall_us, cpu_us } = added;
    format!(
        "{:12.2} {:6.2} {wall_us:7.1}/{cpu_us:5.1}",
        none.wall_ms, some.wall_ms
    )
}

fn main() -> Result<(), Box<dyn Error>> {
    let mut words = std::env::args().skip(1);
    let ports = numbers(words.next(), "1,10,100,1000,5000")?;
    let published = numbers(words.next(), "0,5000,50000")?;
    let rounds = words.next().map_or(Ok(31), |word| word.parse())?;
    let folder = words.next().map(PathBuf::from);
    let mut bench = Bench::new()?;
    println!(
        "wall time of whole processes, median ms with no ports and with some; µs of wall and CPU time a port"
    );
    println!("PUBLISHED  PORTS  ATTACH: NONE, SOME, A PORT        DETACH: NONE, SOME, A PORT");
    let mut rows = Vec::new();
    for published in published {
        bench.publish(published);
        for ports in &ports {
            let row = bench.row(*ports, rounds);
            let attach = cell(row.attach_none, row.attach, row.attach_port);
            let detach = cell(row.detach_none, row.detach, row.detach_port);
            println!("{published:9}  {ports:5}  {attach}  {detach}");
            rows.push(row);
        }
    }
    Ok(keep(folder.as_deref(), "ports", &rows)?)
}
