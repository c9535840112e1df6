//! `make bench`: how soon a container is reached. Containers come and go, and take each other's few
//! addresses; as soon as `mydocker network connect` has ended, somebody connects to a server that has
//! listened in the container from before, and waits for its answer. It is another one who calls each
//! time: a neighbour, over IPv4 and IPv6, the host, and a machine of the LAN by the published port.
//! Prints how long it took and how often it was soon enough, and writes that to a folder as JSON.
//!
//! ```text
//! first [ROUNDS [FOLDER]]
//! ```
#![expect(clippy::print_stdout, reason = "a table for people")]

use std::error::Error;
use std::net::{IpAddr, SocketAddr};
use std::path::PathBuf;
use std::time::{Duration, Instant};

use mydocker_tests::bench::{Stand, keep, timed};
use mydocker_tests::{Question, Server, Transport};
use serde::Serialize;

/// Room for five besides the gateway, two of which stay.
const NETWORK: &str = "network create --subnet 10.1.0.0/29,fd00:1::/125 n";
const NEIGHBOUR: &str = "neighbour";
/// Numbers of callers, of addresses and of containers have no divisor in common: each meets every other.
const CONTAINERS: usize = 7;
const PORT: u16 = 80;
const PUBLISHED: &str = "8080:80";
const OUTSIDE: &str = "192.0.2.1:8080";
const SOON: Duration = Duration::from_millis(5);

/// Who calls, and over what.
struct Caller {
    name: &'static str,
    space: PathBuf,
    to: To,
}

enum To {
    Container4,
    Container6,
    Published,
}

#[derive(Debug, Serialize)]
struct Row {
    caller: &'static str,
    rounds: usize,
    /// How many were answered within 5 ms.
    soon: usize,
    median_ms: f64,
    max_ms: f64,
}

struct Container {
    name: String,
    netns: PathBuf,
    _server: Server,
}

struct Bench {
    stand: Stand,
    containers: Vec<Container>,
    callers: [Caller; 4],
    attached: usize,
}

impl Bench {
    fn new() -> Result<Self, Box<dyn Error>> {
        let stand = Stand::new()?;
        let host = &stand.host;
        host.ok(NETWORK);
        let neighbour = host.sandbox(NEIGHBOUR);
        host.connect("n", NEIGHBOUR, &neighbour, "");
        host.connect("n", "other", &host.sandbox("other"), "");
        let outside = host.neighbour("lan0", "192.0.2.1/24", "192.0.2.2/24");
        let caller = |name, space, to| Caller { name, space, to };
        let callers = [
            caller("neighbour", neighbour.clone(), To::Container4),
            caller("neighbour, IPv6", neighbour, To::Container6),
            caller("host", host.ns().to_owned(), To::Container4),
            caller("LAN, published port", outside, To::Published),
        ];
        let container = |number| {
            let name = format!("c{number}");
            let netns = host.sandbox(&name);
            let _server = Server::start(&name, &netns, &[PORT])?;
            Ok(Container {
                name,
                netns,
                _server,
            })
        };
        let containers = (0..CONTAINERS).map(container);
        Ok(Self {
            containers: containers.collect::<std::io::Result<_>>()?,
            stand,
            callers,
            attached: 0,
        })
    }

    /// Attaches the next one, has it called, and detaches it: how long the call took.
    fn call(&mut self, caller: usize) -> Result<Duration, Box<dyn Error>> {
        let container = &self.containers[self.attached % CONTAINERS];
        self.attached += 1;
        let words = ["-p", PUBLISHED, "--format", "json", "n", &container.name];
        let mut connect = self.stand.connect(&container.netns, &words);
        let said = connect.output()?;
        let connected = Instant::now();
        let caller = &self.callers[caller];
        let question = Question {
            from: &caller.space,
            transport: Transport::Tcp,
            to: target(&caller.to, &said.stdout)?,
        };
        let answer = question.ask()?;
        let took = connected.elapsed();
        if answer.server != container.name {
            return Err(format!("{} answered for {}", answer.server, container.name).into());
        }
        let disconnect = ["network", "disconnect", "n", &container.name];
        timed(self.stand.mydocker(&disconnect));
        Ok(took)
    }

    fn rows(&mut self, rounds: usize) -> Result<Vec<Row>, Box<dyn Error>> {
        let mut times = vec![Vec::new(); self.callers.len()];
        for _ in 0..rounds {
            for (caller, times) in times.iter_mut().enumerate() {
                times.push(self.call(caller)?);
            }
        }
        let callers = self.callers.iter().zip(times);
        Ok(callers.map(|(c, times)| row(c.name, times)).collect())
    }
}

/// Where to call a container that `connect` described.
fn target(to: &To, said: &[u8]) -> Result<SocketAddr, Box<dyn Error>> {
    let endpoint: serde_json::Value = serde_json::from_slice(said)?;
    let address = |v6: bool| -> Result<SocketAddr, Box<dyn Error>> {
        let all = endpoint["addresses"].as_array().into_iter().flatten();
        let all = all.filter_map(|text| text.as_str()?.split('/').next()?.parse::<IpAddr>().ok());
        let found = all.into_iter().find(|address| address.is_ipv6() == v6);
        Ok(SocketAddr::new(
            found.ok_or("it has no such address")?,
            PORT,
        ))
    };
    match to {
        To::Container4 => address(false),
        To::Container6 => address(true),
        To::Published => Ok(OUTSIDE.parse()?),
    }
}

fn row(caller: &'static str, mut times: Vec<Duration>) -> Row {
    times.sort_unstable();
    let ms = |time: Option<&Duration>| time.map_or(f64::NAN, |time| time.as_secs_f64() * 1e3);
    Row {
        caller,
        rounds: times.len(),
        soon: times.iter().filter(|time| **time < SOON).count(),
        median_ms: ms(times.get(times.len() / 2)),
        max_ms: ms(times.last()),
    }
}

fn main() -> Result<(), Box<dyn Error>> {
    let mut words = std::env::args().skip(1);
    let rounds = words.next().map_or(Ok(100), |word| word.parse())?;
    let folder = words.next().map(PathBuf::from);
    let mut bench = Bench::new()?;
    println!("from the end of `connect` to the answer over a first connection, ms");
    println!("CALLER               MEDIAN    MAX  WITHIN 5 ms");
    let rows = bench.rows(rounds)?;
    for row in &rows {
        println!(
            "{:19}  {:6.2} {:6.2}  {} of {}",
            row.caller, row.median_ms, row.max_ms, row.soon, row.rounds
        );
    }
    Ok(keep(folder.as_deref(), "first", &rows)?)
}
