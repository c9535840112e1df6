//! What the command prints: columns for people, JSON for programs.

use std::collections::BTreeSet;
use std::fmt::Display;
use std::io::{self, Write};
use std::time::Duration;

use mydocker::engine::Check;
use mydocker::store::Event;
use mydocker_core::{Change, Drift, Endpoint, Netns, Network, NetworkName, Outcome, State, Usage};
use serde::Serialize;

/// Rows under a header, as wide as their widest cell, as `docker` and `podman` align them.
pub(crate) fn table(header: &[&str], rows: &[Vec<String>]) -> io::Result<()> {
    let width = |column: usize| {
        let cells = rows
            .iter()
            .filter_map(|row| row.get(column))
            .map(|cell| cell.chars().count());
        cells.chain([header[column].len()]).max().unwrap_or(0)
    };
    let widths: Vec<usize> = (0..header.len()).map(width).collect();
    let mut out = io::stdout().lock();
    let header: Vec<String> = header.iter().map(|title| (*title).to_owned()).collect();
    for row in std::iter::once(&header).chain(rows) {
        let cells = row
            .iter()
            .zip(&widths)
            .map(|(cell, width)| format!("{cell:<width$}"));
        writeln!(out, "{}", cells.collect::<Vec<_>>().join("   ").trim_end())?;
    }
    Ok(())
}

/// Pretty JSON and a line feed.
pub(crate) fn json(value: &impl Serialize) -> io::Result<()> {
    let mut out = io::stdout().lock();
    serde_json::to_writer_pretty(&mut out, value)?;
    writeln!(out)
}

/// Text that has its line feeds.
pub(crate) fn text(text: &str) -> io::Result<()> {
    io::stdout().lock().write_all(text.as_bytes())
}

/// One line.
pub(crate) fn line(text: impl Display) -> io::Result<()> {
    writeln!(io::stdout().lock(), "{text}")
}

/// A network as `list --format json` and `inspect` show it.
#[derive(Serialize)]
pub(crate) struct NetworkView<'s> {
    #[serde(flatten)]
    network: &'s Network,
    up: bool,
    endpoints: Vec<&'s Endpoint>,
}

impl<'s> NetworkView<'s> {
    pub(crate) fn of(state: &'s State, network: &'s Network) -> Self {
        let endpoints = state.endpoints_of(&network.name).collect();
        Self {
            network,
            up: state.is_up(&network.name),
            endpoints,
        }
    }
}

/// What `network df` shows.
#[derive(Serialize)]
pub(crate) struct UsageView<'s> {
    subnets: Vec<SubnetView<'s>>,
    endpoints: Vec<HolderView<'s>>,
}

#[derive(Serialize)]
struct SubnetView<'s> {
    network: &'s NetworkName,
    #[serde(flatten)]
    usage: Usage,
}

#[derive(Serialize)]
struct HolderView<'s> {
    #[serde(flatten)]
    endpoint: &'s Endpoint,
    /// Whether the container's namespace is there.
    alive: bool,
}

impl<'s> UsageView<'s> {
    pub(crate) fn of(state: &'s State, dead: &BTreeSet<Netns>) -> Self {
        let subnets = state.networks().flat_map(|network| {
            let network = &network.name;
            let usage = state.usage(network);
            usage.map(move |usage| SubnetView { network, usage })
        });
        let holder = |endpoint: &'s Endpoint| HolderView {
            endpoint,
            alive: !dead.contains(&endpoint.netns),
        };
        Self {
            subnets: subnets.collect(),
            endpoints: state.endpoints().map(holder).collect(),
        }
    }

    pub(crate) fn print(&self) -> io::Result<()> {
        let subnet = |SubnetView { network, usage }: &SubnetView| {
            let free = usage.capacity.saturating_sub(usage.leased);
            let (subnet, leased) = (usage.subnet.to_string(), usage.leased.to_string());
            vec![network.to_string(), subnet, leased, free.to_string()]
        };
        let subnets: Vec<_> = self.subnets.iter().map(subnet).collect();
        table(&["NETWORK", "SUBNET", "LEASED", "FREE"], &subnets)?;
        if self.endpoints.is_empty() {
            return Ok(());
        }
        line("")?;
        let holder = |HolderView { endpoint, alive }: &HolderView| {
            vec![
                endpoint.id.network.to_string(),
                endpoint.id.container.to_string(),
                if *alive { "alive" } else { "dead" }.to_owned(),
                comma(&endpoint.addresses),
                comma(&endpoint.ports),
            ]
        };
        let holders: Vec<_> = self.endpoints.iter().map(holder).collect();
        table(
            &["NETWORK", "CONTAINER", "STATE", "ADDRESSES", "PORTS"],
            &holders,
        )
    }
}

/// What `network check --format json` shows.
#[derive(Serialize)]
pub(crate) struct CheckView<'c> {
    drift: Vec<DriftView<'c>>,
    damaged: Vec<String>,
    interrupted: Option<String>,
}

#[derive(Serialize)]
struct DriftView<'c> {
    #[serde(flatten)]
    drift: &'c Drift,
    /// The same in words.
    text: String,
}

impl<'c> CheckView<'c> {
    pub(crate) fn of(check: &'c Check) -> Self {
        let view = |drift: &'c Drift| DriftView {
            drift,
            text: drift.to_string(),
        };
        Self {
            drift: check.drift.iter().map(view).collect(),
            damaged: check.damaged.iter().map(ToString::to_string).collect(),
            interrupted: check.interrupted.as_ref().map(change),
        }
    }
}

/// A network's line of `network list`.
pub(crate) fn network_row(state: &State, network: &Network) -> Vec<String> {
    let endpoints = state.endpoints_of(&network.name).count();
    vec![
        network.name.to_string(),
        comma(network.subnets.iter().map(|subnet| {
            // As it was asked for: the gateway with its prefix length.
            subnet
                .gateway
                .map_or(subnet.net, |gateway| subnet.with_prefix(gateway))
        })),
        network.driver.to_string(),
        network.bridge.to_string(),
        endpoints.to_string(),
    ]
}

/// A line of `network log`.
pub(crate) fn event_row(number: usize, event: &Event) -> Vec<String> {
    let took = |us| humantime::format_duration(Duration::from_micros(us)).to_string();
    vec![
        number.to_string(),
        humantime::format_rfc3339_millis(event.at()).to_string(),
        event.took_us.map_or_else(|| "-".to_owned(), took),
        format!(
            "uid {}, pid {}: {}",
            event.uid,
            event.pid,
            printable(&event.command)
        ),
        change(&event.plan.change),
        event.ops.to_string(),
        match &event.outcome {
            Outcome::Committed => "done".to_owned(),
            Outcome::RolledBack(failure) => format!("taken back: {failure}"),
            Outcome::Stranded { cause, left } => format!("{} left: {cause}", left.len()),
        },
    ]
}

/// What a plan does to the state, in words.
pub(crate) fn change(change: &Change) -> String {
    match change {
        Change::NetworkAdded(network) => format!("network {} added", network.name),
        Change::NetworkRemoved(name) => format!("network {name} removed"),
        Change::EndpointAdded(endpoint) => format!("{} attached", endpoint.id),
        Change::EndpointRemoved(id) => format!("{id} detached"),
        Change::EndpointChanged(endpoint) => format!("ports of {} changed", endpoint.id),
        Change::Several(changes) => several(changes),
        Change::Repaired => "repaired".to_owned(),
    }
}

/// `3 at once: db on net attached, …`, cut after a few.
fn several(changes: &[Change]) -> String {
    const SHOWN: usize = 5;
    let shown = comma(changes.iter().take(SHOWN).map(change));
    match changes.len().saturating_sub(SHOWN) {
        0 => format!("{} at once: {shown}", changes.len()),
        more => format!("{} at once: {shown} and {more} more", changes.len()),
    }
}

/// Text from outside, without what would steer a terminal.
pub(crate) fn printable(text: &str) -> String {
    text.chars()
        .map(|c| if c.is_control() { '?' } else { c })
        .collect()
}

/// An endpoint in a line.
pub(crate) fn endpoint(endpoint: &Endpoint) -> String {
    let mut line = format!(
        "{} on {}: {} {} {}",
        endpoint.id.container,
        endpoint.id.network,
        endpoint.ifname,
        comma(&endpoint.addresses),
        endpoint.mac
    );
    if !endpoint.ports.is_empty() {
        line += &format!(", {}", comma(&endpoint.ports));
    }
    line
}

/// `a, b`
pub(crate) fn comma(items: impl IntoIterator<Item = impl Display>) -> String {
    items
        .into_iter()
        .map(|item| item.to_string())
        .collect::<Vec<_>>()
        .join(", ")
}
