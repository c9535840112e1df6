//! `make hot`: which functions of `mydocker` the attach and the detach of a container run, then the first
//! attach of a network after a boot, and those of a container with many ports. Takes them step by step, and
//! prints their symbols in the order of the first step: what `cli/release/hot.txt` is made of, which the linker
//! of `make release` goes by.
//!
//! The program must have its symbols, and one address all the time: linked statically, not to be moved.
#![expect(clippy::print_stdout, reason = "what it is for")]

use std::collections::{BTreeMap, BTreeSet};
use std::error::Error;
use std::process::Command;

use mydocker_tests::bench::{Stand, settle, timed};
use mydocker_tests::tracer::walk;

/// More than are tried one by one.
const MANY_PORTS: &str = "1024-1123:1024-1123";

fn main() -> Result<(), Box<dyn Error>> {
    let stand = Stand::new()?;
    let [netns, other] = ["container", "other"].map(|name| stand.host.sandbox(name));
    let publish = |ports| stand.connect(&netns, &["-p", ports, "net", "container"]);
    let attach = || publish("9000:80");
    let detach = || stand.mydocker(&["network", "disconnect", "net", "container"]);
    for (network, subnet) in [("net", "10.1.0.0/16"), ("other", "10.2.0.0/16")] {
        timed(stand.mydocker(&["network", "create", "--subnet", subnet, network]));
    }
    // The first one finds less than the others do.
    timed(attach());
    timed(detach());
    settle();

    let symbols = Symbols::of(&attach())?;
    let mut called = BTreeSet::new();
    let mut follow = |command| {
        walk(&command, |address| {
            if let Some((first, name)) = symbols.at(address)
                && called.insert(first)
            {
                println!("{name}");
            }
        });
    };
    follow(attach());
    follow(detach());
    settle();
    // What brings a bridge back, with the ruleset and beside another network.
    for beside_another in [false, true] {
        stand.reboot();
        if beside_another {
            timed(stand.connect(&other, &["other", "other"]));
        }
        follow(attach());
        timed(detach());
        settle();
    }
    // Many ports are looked up otherwise, and grow more.
    follow(publish(MANY_PORTS));
    follow(detach());
    Ok(())
}

/// The functions of a program, by their first address: their ends and names.
struct Symbols(BTreeMap<u64, (u64, String)>);

impl Symbols {
    fn of(command: &Command) -> Result<Self, Box<dyn Error>> {
        let mut nm = Command::new("nm");
        nm.args(["--defined-only", "--format=posix"])
            .arg(command.get_program());
        let mut symbols = BTreeMap::new();
        for line in String::from_utf8(nm.output()?.stdout)?.lines() {
            let words: Vec<_> = line.split(' ').collect();
            if let [name, "t" | "T" | "w" | "W" | "i", first, size] = words[..] {
                let first = u64::from_str_radix(first, 16)?;
                let end = match size {
                    // An assembler's reach to the next.
                    "" => u64::MAX,
                    size => first + u64::from_str_radix(size, 16)?,
                };
                symbols.insert(first, (end, name.to_owned()));
            }
        }
        if symbols.is_empty() {
            return Err("the program has no symbols: build it by `make hot`".into());
        }
        Ok(Self(symbols))
    }

    fn at(&self, address: u64) -> Option<(u64, &str)> {
        let (first, (end, name)) = self.0.range(..=address).next_back()?;
        (address < *end).then_some((*first, name))
    }
}
