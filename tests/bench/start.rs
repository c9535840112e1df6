//! `make bench`: what it takes to start: `mydocker --version` beside a program that prints one line, both
//! static and as whole processes, in turns. Prints medians and ratios, and writes them to a folder as
//! JSON.
//!
//! ```text
//! start [ROUNDS [FOLDER]]
//! ```
#![expect(clippy::print_stdout, reason = "a table for people")]

use std::error::Error;
use std::path::PathBuf;

use mydocker_tests::bench::{Cost, Median, Stand, keep, timed};
use serde::Serialize;

#[derive(Debug, Serialize)]
struct Row {
    rounds: usize,
    hello: Median,
    version: Median,
}

fn main() -> Result<(), Box<dyn Error>> {
    let mut words = std::env::args().skip(1);
    let rounds = words.next().map_or(Ok(401), |word| word.parse::<usize>())?;
    let folder = words.next().map(PathBuf::from);
    let stand = Stand::new()?;
    let hello = || timed(stand.example("hello", &[]));
    let version = || timed(stand.mydocker(&["--version"]));
    let (mut hellos, mut versions): (Vec<Cost>, Vec<Cost>) = (Vec::new(), Vec::new());
    for round in 0..rounds {
        // Each is first as often as the other.
        if round.is_multiple_of(2) {
            hellos.push(hello());
            versions.push(version());
        } else {
            versions.push(version());
            hellos.push(hello());
        }
    }
    let row = Row {
        rounds,
        hello: Median::of(&hellos),
        version: Median::of(&versions),
    };
    println!("wall time of whole processes, median ms, and ratios of wall and CPU time");
    println!("HELLO  MYDOCKER --VERSION  RATIOS");
    println!(
        "{:5.2}  {:18.2}  {}",
        row.hello.wall_ms,
        row.version.wall_ms,
        row.version.ratios(row.hello)
    );
    Ok(keep(folder.as_deref(), "start", &row)?)
}
