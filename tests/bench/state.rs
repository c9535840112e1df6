//! `make bench`: what one attach and one detach cost beside the kernel: open, load, plan, keep, put down.
//! The executor does nothing. Medians, at so many endpoints of so many ports each.
//!
//! ```text
//! state [ENDPOINTS,ENDPOINTS… [PORTS [ROUNDS]]]
//! ```
#![expect(clippy::print_stdout, reason = "a table for people")]

use std::error::Error;
use std::path::Path;
use std::process::{Command, Stdio};
use std::time::{Duration, Instant};

use mydocker::engine::Engine;
use mydocker::store::Roots;
use mydocker_core::{AttachSpec, EndpointId, NetworkSpec, PortSpec, Request};
use mydocker_tests::Idle;
use nix::sys::resource::{UsageWho, getrusage};

/// So many endpoints a network gets here, of the 1,023 that it may have.
const ENDPOINTS_PER_NETWORK: usize = 1000;

fn engine(dir: &Path) -> Engine<Idle> {
    let (root, run_root) = (dir.join("lib"), dir.join("run"));
    Engine::open(Roots { root, run_root }, Idle)
}

fn network(number: usize) -> Result<Request, Box<dyn Error>> {
    let mut spec = NetworkSpec::new(format!("n{number}").parse()?);
    spec.subnets = vec![format!("10.{number}.0.0/16").parse()?];
    Ok(Request::CreateNetwork(spec))
}

/// One that has so many ports of its own: of an address of the host for each two thousand.
fn endpoint(number: usize, ports: usize) -> Result<AttachSpec, Box<dyn Error>> {
    let network = format!("n{}", number / ENDPOINTS_PER_NETWORK);
    let (container, netns) = (format!("c{number}"), format!("/run/netns/c{number}"));
    let mut spec = AttachSpec::new(network.parse()?, container.parse()?, netns.parse()?);
    for port in number * ports..(number + 1) * ports {
        let (host, port) = (1 + port / 50_000, 1024 + port % 50_000);
        spec.ports.extend(PortSpec::parse_list(&format!(
            "192.0.2.{host}:{port}:{port}"
        ))?);
    }
    Ok(spec)
}

fn median(mut all: Vec<Duration>) -> Duration {
    all.sort_unstable();
    all[all.len() / 2]
}

/// Attaches and detaches one, so many times.
fn measure(
    dir: &Path,
    number: usize,
    ports: usize,
    rounds: usize,
) -> Result<[Duration; 2], Box<dyn Error>> {
    let spec = endpoint(number, ports)?;
    let (network, container) = (spec.network.clone(), spec.container.clone());
    let (attach, detach) = (
        Request::Attach(spec),
        Request::Detach(EndpointId { network, container }),
    );
    let mut times = [Vec::new(), Vec::new()];
    for _ in 0..rounds {
        for (request, times) in [&attach, &detach].into_iter().zip(&mut times) {
            let start = Instant::now();
            engine(dir).apply(request)?;
            times.push(start.elapsed());
        }
    }
    Ok(times.map(median))
}

fn main() -> Result<(), Box<dyn Error>> {
    let mut args = std::env::args().skip(1);
    let first = args.next().unwrap_or_else(|| "10,1000,10000".to_owned());
    let ports: usize = args.next().map_or(Ok(32), |text| text.parse())?;
    let rounds: usize = args.next().map_or(Ok(201), |text| text.parse())?;
    if let Some(dir) = args.next() {
        // The process whose memory is looked at.
        measure(Path::new(&dir), first.parse()?, ports, rounds)?;
        println!("{}", getrusage(UsageWho::RUSAGE_SELF)?.max_rss());
        return Ok(());
    }
    println!("| endpoints | ports each | attach, ms | detach, ms | memory, MiB | state, KiB |");
    println!("|---|---|---|---|---|---|");
    for count in first.split(',') {
        let count: usize = count.parse()?;
        let dir = tempfile::tempdir()?;
        for number in 0..=count / ENDPOINTS_PER_NETWORK {
            engine(dir.path()).apply(&network(number)?)?;
        }
        for number in 0..count {
            engine(dir.path()).apply(&Request::Attach(endpoint(number, ports)?))?;
        }
        let [attach, detach] = measure(dir.path(), count, ports, rounds)?;
        let mut child = Command::new(std::env::current_exe()?);
        child.args([count, ports, 1].map(|n| n.to_string()));
        let output = child.arg(dir.path()).stderr(Stdio::inherit()).output()?;
        let kib: f64 = String::from_utf8(output.stdout)?.trim().parse()?;
        let state = dir.path().join("run/network/state").metadata()?.len();
        let ms = |time: Duration| time.as_secs_f64() * 1e3;
        println!(
            "| {count} | {ports} | {:.3} | {:.3} | {:.1} | {} |",
            ms(attach),
            ms(detach),
            kib / 1024.0,
            state / 1024
        );
    }
    Ok(())
}
