//! What a runtime says when it attaches or detaches a container, read without a description of what else there
//! is to say: describing it, and reading by that, takes a quarter of what an attach computes.

use std::ffi::{OsStr, OsString};
use std::path::PathBuf;

use super::network::netns;
use super::{
    Backend, Cli, Command, Connect, Disconnect, DryRun, EndpointArgs, Format, Global,
    NetworkCommand, ROOT, ROOT_VARIABLE, RUN_ROOT, RUN_ROOT_VARIABLE, ports,
};

/// Reads a command line that says no more than that, as its description has it. Nothing else, be it wrong, is
/// told from what it may mean.
pub(super) fn read(words: &[OsString]) -> Option<Cli> {
    let words: Option<Vec<&str>> = words.iter().map(|word| word.to_str()).collect();
    let command = match *words?.get(1..)? {
        ["network" | "net", "connect", ref rest @ ..] => {
            NetworkCommand::Connect(Box::new(connect(rest)?))
        }
        ["network" | "net", "disconnect", ref rest @ ..] => {
            NetworkCommand::Disconnect(disconnect(rest)?)
        }
        _ => return None,
    };
    Some(Cli {
        global: Global {
            root: directory(ROOT_VARIABLE, ROOT)?,
            run_root: directory(RUN_ROOT_VARIABLE, RUN_ROOT)?,
            executor: Backend::Netlink,
        },
        command: Command::Network(command),
    })
}

/// `[--netns NETNS | -p PORT]... NETWORK NAME`
fn connect(words: &[&str]) -> Option<Connect> {
    let (mut namespace, mut publish, mut names) = (None, Vec::new(), Vec::new());
    let mut words = words.iter().copied();
    while let Some(word) = words.next() {
        match word {
            "--netns" if namespace.is_none() => {
                namespace = Some(netns(value(words.next()?)?).ok()?)
            }
            "-p" | "--publish" => publish.push(ports(value(words.next()?)?).ok()?),
            name => names.push(value(name)?),
        }
    }
    let [network, container] = names[..] else {
        return None;
    };
    Some(Connect {
        endpoint: EndpointArgs {
            ip: Vec::new(),
            mac_address: None,
            publish,
        },
        netns: Some(namespace?),
        pid: None,
        ifname: None,
        no_default_route: false,
        metric: None,
        format: Format::Table,
        dry_run: DryRun { dry_run: None },
        network: network.parse().ok()?,
        container: container.parse().ok()?,
    })
}

/// `NETWORK NAME...`
fn disconnect(words: &[&str]) -> Option<Disconnect> {
    let (network, containers) = words.split_first()?;
    let containers: Option<Vec<_>> = containers
        .iter()
        .map(|name| value(name)?.parse().ok())
        .collect();
    Some(Disconnect {
        dry_run: DryRun { dry_run: None },
        network: value(network)?.parse().ok()?,
        container: containers.filter(|containers| !containers.is_empty())?,
    })
}

/// A word that is no option.
fn value(word: &str) -> Option<&str> {
    (!word.starts_with('-')).then_some(word)
}

/// A directory that the environment names, or the usual one.
fn directory(variable: &str, usual: &str) -> Option<PathBuf> {
    match std::env::var_os(variable) {
        Some(directory) if directory == OsStr::new("") => None,
        Some(directory) => Some(directory.into()),
        None => Some(usual.into()),
    }
}

#[cfg(test)]
mod tests {
    use clap::Parser;

    use super::*;

    #[test]
    fn what_is_read_is_what_is_described() {
        for (line, is_plain) in [
            ("network connect --netns c n web", true),
            ("net connect n --netns /run/netns/c web", true),
            (
                "network connect -p 80 -p 1000-1001:90-91/udp --publish 127.0.0.1::7 --netns c n web",
                true,
            ),
            ("network disconnect n web", true),
            ("net disconnect n web db", true),
            ("network connect --pid 7 n web", false),
            ("network connect --netns=c n web", false),
            ("network connect -p80 --netns c n web", false),
            ("network connect --netns c -- n web", false),
            ("network connect --netns c --dry-run n web", false),
            ("network connect --netns c --root /a n web", false),
            ("network connect n web", false),
            ("network connect --netns c n", false),
            ("network connect --netns c n web db", false),
            ("network connect --netns c --netns d n web", false),
            ("network connect --netns -p 80 n web", false),
            ("network connect -p 80 n web --netns", false),
            ("network connect --netns c -p 0 n web", false),
            ("network connect --netns c n a/b", false),
            ("network connect --help", false),
            ("network disconnect n", false),
            ("network disconnect --dry-run n web", false),
            ("network disconnect n web -h", false),
            ("network disconnect n .", false),
            ("network rm n", false),
            ("--root /a network disconnect n web", false),
        ] {
            let words = ["mydocker"].into_iter().chain(line.split(' '));
            let words: Vec<OsString> = words.map(OsString::from).collect();
            let read = read(&words).map(|cli| format!("{cli:?}"));
            assert_eq!(read.is_some(), is_plain, "{line}");
            if let Some(read) = read {
                let described = Cli::try_parse_from(&words).unwrap();
                assert_eq!(read, format!("{described:?}"));
            }
        }
    }
}
