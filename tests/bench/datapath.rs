//! `make bench`: new TCP connections a second from another machine on the LAN through a published port of
//! the host to a server in a container, with so many ports published, beside rules that somebody wrote by
//! hand to be fast ([`ideal`]). With `--peers`, beside netavark as well (`NETAVARK`, a file), with as many
//! ports as a list of rules is for. Each has hosts of its own, one for each number of ports, and all take
//! turns. Prints medians and ratios, and writes them to a folder as JSON.
//!
//! What is called is the port in the middle of those that are published: what the average one costs those
//! who keep them in a list, in whatever order.
//!
//! ```text
//! datapath [--peers] [PORTS,PORTS… [ROUNDS [FOLDER]]]
//! ```
#![expect(clippy::print_stdout, reason = "a table for people")]

use std::error::Error;
use std::io;
use std::ops::RangeInclusive;
use std::path::{Path, PathBuf};

use mydocker_exec_netlink::netns::run_in;
use mydocker_tests::bench::{
    Caller, Container, Contender as _, Netavark, Rates, Ratios, Typical, ideal,
};
use mydocker_tests::{Host, is_root, own_mounts};
use serde::Serialize;

/// Connections of one turn: few, so that many turns meet whatever else the machine does.
const CALLS: u32 = 500;
/// The first port that is published.
const FIRST: u16 = 10_000;
/// What netavark is asked to publish at most: its rules come one by one.
const NETAVARK_PORTS_MAX: u16 = 1_000;

const MYDOCKER: &str = "mydocker";
const IDEAL: &str = "ideal";

/// One who competes, with so many ports published.
struct Entrant {
    contender: String,
    ports: u16,
    caller: Caller,
    rates: Rates,
}

/// What one did.
#[derive(Debug, Serialize)]
struct Row {
    contender: String,
    ports: u16,
    rounds: usize,
    calls: u32,
    rate: Typical,
    /// Compared with the hand-written rules with as many ports.
    of_ideal: Option<Ratios>,
    /// Compared with the same one with the fewest ports.
    of_fewest: Option<Ratios>,
    /// Compared with netavark with as many ports.
    of_netavark: Option<Ratios>,
}

impl Entrant {
    /// A host, and a container that `publish` makes publish ports; what `publish` says is who did it.
    fn new(
        ports: u16,
        publish: impl FnOnce(&Host, &Container, RangeInclusive<u16>) -> io::Result<String>,
    ) -> io::Result<Self> {
        let host = Host::new().ok_or_else(|| io::Error::other("no namespaces"))?;
        let container = container(&host, 1);
        let last = (FIRST - 1).checked_add(ports);
        let last = last.ok_or_else(|| io::Error::other(format!("{ports} ports are too many")))?;
        let contender = publish(&host, &container, FIRST..=last)?;
        let caller = Caller::new(host, &container.netns, FIRST + (ports - 1) / 2)?;
        Ok(Self {
            contender,
            ports,
            caller,
            rates: Rates::default(),
        })
    }

    fn turn(&mut self) -> io::Result<()> {
        self.rates.push(CALLS, self.caller.turn(CALLS)?);
        Ok(())
    }
}

/// A new one; its namespace lives as long as the host.
fn container(host: &Host, number: u16) -> Container {
    let netns = host.sandbox(&format!("container{number}"));
    Container { number, netns }
}

fn mydocker(ports: u16) -> io::Result<Entrant> {
    Entrant::new(ports, |host, container, ports| {
        host.ok("network create --subnet 10.1.0.0/16 n");
        let (first, last) = ports.into_inner();
        let publish = format!("-p {first}-{last}:{first}-{last}");
        host.connect("n", &container.name(), &container.netns, &publish);
        Ok(MYDOCKER.to_owned())
    })
}

fn by_hand(ports: u16) -> io::Result<Entrant> {
    Entrant::new(ports, |host, container, ports| {
        ideal(host, container, ports);
        Ok(IDEAL.to_owned())
    })
}

fn netavark(ports: u16) -> io::Result<Entrant> {
    let binary = std::env::var_os("NETAVARK");
    let binary = binary.map_or_else(|| "/usr/lib/podman/netavark".into(), PathBuf::from);
    Entrant::new(ports, |host, published, ports| {
        let netavark = Netavark::new(&binary, host, &container(host, 0))?;
        run_in(host.ns(), || netavark.publish(published, ports))??;
        Ok(netavark.name().to_owned())
    })
}

fn entrants(counts: &[u16], peers: bool) -> io::Result<Vec<Entrant>> {
    let mut all = Vec::new();
    for ports in counts.iter().copied() {
        all.push(mydocker(ports)?);
        all.push(by_hand(ports)?);
        if peers && ports <= NETAVARK_PORTS_MAX {
            match netavark(ports) {
                Ok(entrant) => all.push(entrant),
                Err(error) => println!("left out: netavark with {ports} ports: {error}"),
            }
        }
    }
    Ok(all)
}

fn rows(all: &[Entrant]) -> Vec<Row> {
    let row = |entrant: &Entrant| {
        let beside = |is: &dyn Fn(&Entrant) -> bool| {
            let other = all.iter().find(|other| is(other));
            other.map(|other| entrant.rates.of(&other.rates))
        };
        let with_as_many = |is: &dyn Fn(&str) -> bool| {
            beside(&|other| other.ports == entrant.ports && is(&other.contender))
        };
        let of_itself = all
            .iter()
            .filter(|other| other.contender == entrant.contender);
        let fewest = of_itself.map(|other| other.ports).min();
        Row {
            contender: entrant.contender.clone(),
            ports: entrant.ports,
            rounds: entrant.rates.rounds(),
            calls: CALLS,
            rate: entrant.rates.typical(),
            of_ideal: with_as_many(&|name| name == IDEAL),
            of_fewest: beside(&|other| {
                other.contender == entrant.contender && Some(other.ports) == fewest
            }),
            of_netavark: with_as_many(&|name| name != IDEAL && name != MYDOCKER),
        }
    };
    all.iter().map(row).collect()
}

fn print(rows: &[Row]) {
    println!(
        "new connections a second, of wall and CPU time; ratios of medians, and the medians of ratios of the same round, wall and CPU"
    );
    println!(
        "CONTENDER                         PORTS  PER S WALL, CPU          OF IDEAL   OF FEWEST PORTS       OF NETAVARK"
    );
    for row in rows {
        let cell = |ratios: Option<Ratios>| {
            ratios.map_or_else(String::new, |ratios| {
                let Ratios {
                    wall,
                    wall_pairs,
                    cpu_pairs,
                    ..
                } = ratios;
                format!("{wall:.2}× {wall_pairs:.2}×/{cpu_pairs:.2}×")
            })
        };
        let (ideal, fewest) = (cell(row.of_ideal), cell(row.of_fewest));
        let netavark = cell(row.of_netavark);
        println!(
            "{:32} {:6}   {:6.0} {:6.0} {ideal:>17} {fewest:>17} {netavark:>17}",
            row.contender, row.ports, row.rate.wall_per_s, row.rate.cpu_per_s,
        );
    }
}

/// Everything as JSON.
fn write(folder: &Path, rows: &[Row]) -> Result<(), Box<dyn Error>> {
    std::fs::create_dir_all(folder)?;
    let json = serde_json::to_vec_pretty(rows)?;
    std::fs::write(folder.join("datapath.json"), json)?;
    Ok(())
}

fn main() -> Result<(), Box<dyn Error>> {
    let mut words = std::env::args().skip(1).peekable();
    let peers = words.next_if(|word| word == "--peers").is_some();
    let counts = words.next().unwrap_or_else(|| "1,1000,10000".to_owned());
    let counts = counts
        .split(',')
        .map(str::parse::<std::num::NonZeroU16>)
        .map(|count| count.map(std::num::NonZeroU16::get))
        .collect::<Result<Vec<u16>, _>>()?;
    let rounds: usize = words.next().map_or(Ok(101), |word| word.parse())?;
    let folder = words.next().map(PathBuf::from);
    if !is_root() {
        return Err("it makes network namespaces: run it as root".into());
    }
    if peers {
        // netavark keeps locks and files there.
        own_mounts(&["/run"]);
    }
    let mut all = entrants(&counts, peers)?;
    for number in 0..rounds {
        let len = all.len();
        // Nobody is always first, and nobody always after the same one.
        let (first, step) = (
            number % len,
            if number.is_multiple_of(2) { 1 } else { len - 1 },
        );
        for place in 0..len {
            all[(first + place * step) % len].turn()?;
        }
    }
    let rows = rows(&all);
    print(&rows);
    if let Some(folder) = folder {
        write(&folder, &rows)?;
    }
    Ok(())
}
