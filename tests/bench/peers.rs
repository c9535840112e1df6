//! `make bench-peers`: one container with one published port, attached and detached by mydocker and by
//! others, as whole processes, in turns, with so many containers of each parked on its bridge. Prints
//! medians and ratios, and writes them to a folder, as JSON and as a picture.
//!
//! ```text
//! peers [PARKED,PARKED… [ROUNDS [FOLDER]]]
//! ```
//!
//! The environment says where others are: `NETAVARK`, a file, and `CNI_PLUGINS`, a folder. Who can't be
//! run is named and left out.
#![expect(clippy::print_stdout, reason = "a table for people")]

use std::error::Error;
use std::io;
use std::mem::take;
use std::ops::Range;
use std::path::{Path, PathBuf};

use mydocker_exec_netlink::netns::run_in;
use mydocker_tests::bench::{
    Cni, Container, Contender, Cost, Floor, Line, Median, Mydocker, Netavark, Script, plot, settle,
};
use mydocker_tests::{Host, is_root, own_mounts};
use serde::Serialize;

/// Of so many rounds, one is for the slow as well.
const SLOW_EVERY: usize = 3;
/// From here on are numbers of those that come and go; those that are parked are counted from 0.
const MEASURED: u16 = 5_000;
/// The one that others are tried out with.
const PROBED: u16 = 6_000;
const COLORS: [&str; 5] = ["steelblue", "gray", "seagreen", "firebrick", "darkorange"];

/// What one took with so many parked.
#[derive(Debug, Serialize)]
struct Row {
    parked: u16,
    contender: String,
    rounds: usize,
    attach: Median,
    detach: Median,
}

/// Who competes: on which host, and how often.
struct Entrant<'h> {
    contender: Box<dyn Contender>,
    /// In the table.
    place: usize,
    host: &'h Host,
    /// Whether its host has containers of its own making parked.
    parks: bool,
    /// Of so many rounds, it takes part in one.
    every: usize,
    measured: Container,
    attach: Vec<Cost>,
    detach: Vec<Cost>,
}

impl<'h> Entrant<'h> {
    fn new(host: &'h Host, number: u16, contender: impl Contender + 'static) -> Self {
        Self {
            contender: Box::new(contender),
            place: 0,
            host,
            parks: true,
            every: 1,
            measured: container(host, number),
            attach: Vec::new(),
            detach: Vec::new(),
        }
    }

    /// Attaches containers for good.
    fn park(&mut self, numbers: Range<u16>) -> io::Result<()> {
        for number in numbers.filter(|_| self.parks) {
            let container = container(self.host, number);
            run_in(self.host.ns(), || self.contender.attach(&container))??;
        }
        Ok(())
    }

    fn round(&mut self) -> io::Result<()> {
        let Self {
            contender,
            measured,
            ..
        } = self;
        let (attach, detach) = run_in(self.host.ns(), || {
            let (attach, attached) = Cost::of(|| contender.attach(measured));
            attached?;
            let (detach, detached) = Cost::of(|| contender.detach(measured));
            detached.map(|()| (attach, detach))
        })??;
        // Or the next on this host would wait for what this one removed.
        settle();
        self.attach.push(attach);
        self.detach.push(detach);
        Ok(())
    }

    /// What it took since the last row.
    fn row(&mut self, parked: u16) -> Row {
        let (attach, detach) = (take(&mut self.attach), take(&mut self.detach));
        Row {
            parked,
            contender: self.contender.name().to_owned(),
            rounds: attach.len(),
            attach: Median::of(&attach),
            detach: Median::of(&detach),
        }
    }
}

/// A new one; its namespace lives as long as the host.
fn container(host: &Host, number: u16) -> Container {
    let netns = host.sandbox(&format!("container{number}"));
    Container { number, netns }
}

/// Lets each do something; who fails is named and left out from then on.
fn each(all: &mut Vec<Entrant<'_>>, mut what: impl FnMut(&mut Entrant<'_>) -> io::Result<()>) {
    all.retain_mut(|entrant| match what(entrant) {
        Ok(()) => true,
        Err(error) => {
            left_out(entrant.contender.name(), &error);
            false
        }
    });
}

fn left_out(name: &str, error: &io::Error) {
    println!("left out: {name}: {error}");
}

fn of_environment(name: &str, default: &str) -> PathBuf {
    std::env::var_os(name).map_or_else(|| default.into(), PathBuf::from)
}

fn entrants<'h>(ours: &'h Host, netavark: &'h Host, cni: &'h Host) -> Vec<Entrant<'h>> {
    let mut all = vec![
        Entrant::new(ours, MEASURED, Mydocker::new(ours)),
        Entrant::new(ours, MEASURED + 1, Floor::new(ours)),
        Entrant::new(ours, MEASURED + 2, Script),
    ];
    for guest in &mut all[1..] {
        guest.parks = false;
    }
    let binary = of_environment("NETAVARK", "/usr/lib/podman/netavark");
    match Netavark::new(&binary, netavark, &container(netavark, PROBED)) {
        Ok(contender) => all.push(Entrant::new(netavark, MEASURED, contender)),
        Err(error) => left_out("netavark", &error),
    }
    let plugins = of_environment("CNI_PLUGINS", "/usr/lib/cni");
    match Cni::new(&plugins, cni, &container(cni, PROBED)) {
        Ok(contender) => all.push(Entrant::new(cni, MEASURED, contender)),
        Err(error) => left_out("CNI plugins", &error),
    }
    for slow in &mut all[3..] {
        slow.every = SLOW_EVERY;
    }
    for (place, entrant) in all.iter_mut().enumerate() {
        entrant.place = place;
    }
    all
}

fn main() -> Result<(), Box<dyn Error>> {
    let mut words = std::env::args().skip(1);
    let parked = words.next().unwrap_or_else(|| "1,100,500,900".to_owned());
    let parked = parked
        .split(',')
        .map(str::parse)
        .collect::<Result<Vec<u16>, _>>()?;
    let rounds: usize = words.next().map_or(Ok(31), |word| word.parse())?;
    let folder = words.next().map(PathBuf::from);
    if !is_root() {
        return Err("it makes network namespaces: run it as root".into());
    }
    // Others keep locks and files there.
    own_mounts(&["/run"]);
    let hosts = [Host::new(), Host::new(), Host::new()];
    let [Some(ours), Some(netavark), Some(cni)] = &hosts else {
        return Err("no namespaces".into());
    };
    let mut all = entrants(ours, netavark, cni);
    println!(
        "wall time of whole processes, median ms; how many times as much wall and CPU time as others"
    );
    let mut rows: Vec<Row> = Vec::new();
    let mut from = 0;
    for count in parked {
        each(&mut all, |entrant| entrant.park(from..count));
        from = from.max(count);
        for number in 0..rounds {
            // Nobody is always first.
            let turn = all.len().min(1);
            all.rotate_left(turn);
            each(&mut all, |entrant| {
                if number.is_multiple_of(entrant.every) {
                    entrant.round()
                } else {
                    Ok(())
                }
            });
        }
        all.sort_by_key(|entrant| entrant.place);
        let now: Vec<Row> = all.iter_mut().map(|entrant| entrant.row(count)).collect();
        print(&now);
        rows.extend(now);
    }
    if let Some(folder) = folder {
        write(&folder, &rows)?;
    }
    Ok(())
}

/// The rows of one number of parked containers, beside mydocker's and the floor's.
fn print(rows: &[Row]) {
    let of = |name: &str| rows.iter().find(|row| row.contender == name);
    let Some(parked) = rows.first().map(|row| row.parked) else {
        return;
    };
    println!("\n{parked} PARKED");
    println!(
        "CONTENDER                         ROUNDS   ATTACH   OF MYDOCKER      OF FLOOR   DETACH   OF MYDOCKER      OF FLOOR"
    );
    for row in rows {
        let cell = |median: fn(&Row) -> Median| {
            let ratios = |other: Option<&Row>| {
                other.map_or_else(String::new, |other| median(row).ratios(median(other)))
            };
            let (ours, floor) = (ratios(of("mydocker")), ratios(of("floor")));
            format!("{:8.2} {ours:>13} {floor:>13}", median(row).wall_ms)
        };
        let (attach, detach) = (cell(|row| row.attach), cell(|row| row.detach));
        println!("{:33} {:6} {attach} {detach}", row.contender, row.rounds);
    }
}

/// Everything as JSON, and the attaches as a picture.
fn write(folder: &Path, rows: &[Row]) -> Result<(), Box<dyn Error>> {
    std::fs::create_dir_all(folder)?;
    let json = serde_json::to_vec_pretty(rows)?;
    std::fs::write(folder.join("peers.json"), json)?;
    let mut lines: Vec<Line> = Vec::new();
    for row in rows {
        let point = (usize::from(row.parked), row.attach.wall_ms);
        if let Some(line) = lines.iter_mut().find(|line| line.name == row.contender) {
            line.points.push(point);
        } else {
            lines.push(Line {
                name: row.contender.clone(),
                color: COLORS[lines.len() % COLORS.len()],
                points: vec![point],
            });
        }
    }
    let svg = plot("one attach, ms, against parked containers", &lines);
    std::fs::write(folder.join("peers.svg"), svg)?;
    Ok(())
}
