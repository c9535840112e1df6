//! The arguments of `mydocker network …`

use std::net::IpAddr;

use clap::{Args, Subcommand};
use ipnet::IpNet;
use mydocker_core::{ContainerName, Driver, LinkName, Netns, NetworkName, StaticRoute};

use super::{DryRun, EndpointArgs, Format, PlanFormat, Ports, ports};

#[derive(Debug, Subcommand)]
pub(crate) enum NetworkCommand {
    /// Create a network
    Create(Box<Create>),
    /// List networks
    #[command(visible_alias = "ls")]
    List(List),
    /// Show networks and their endpoints as JSON
    Inspect(Inspect),
    /// Remove networks that no container is on
    #[command(visible_aliases = ["rm", "delete"])]
    Remove(RemoveNetworks),
    /// Connect a network namespace to a network
    Connect(Box<Connect>),
    /// Disconnect a container from a network
    Disconnect(Disconnect),
    /// Published ports of a container that runs
    #[command(subcommand)]
    Port(PortCommand),
    /// Show what was done last: what, when, by whom, how it ended and how long it took
    Log(Log),
    /// List which addresses and ports are taken, and by whom
    Df(Df),
    /// Remove all networks that no living container is on
    Prune(Prune),
    /// Say how the kernel differs from what is wanted; exits with 4 if it does
    Check(Check),
    /// Make the kernel hold what is wanted again, after somebody else changed it
    Repair(Repair),
}

#[derive(Debug, Subcommand)]
pub(crate) enum PortCommand {
    /// Publish more ports; nothing else of the container changes
    Add(ChangePorts),
    /// Publish ports no more; nothing else of the container changes
    #[command(visible_alias = "remove")]
    Rm(ChangePorts),
    /// List published ports
    #[command(visible_alias = "list")]
    Ls(ListPorts),
}

#[derive(Debug, Args)]
pub(crate) struct Create {
    /// What makes the network
    #[arg(long, short, default_value = "bridge")]
    pub(crate) driver: Driver,
    /// A subnet, or a gateway with its prefix length (10.0.0.1/24); a free /24 by default
    #[arg(long, value_name = "CIDR", value_delimiter = ',', value_parser = cidr)]
    pub(crate) subnet: Vec<IpNet>,
    /// The bridge's address in one of the subnets; the first host by default
    #[arg(long, value_name = "IP", value_delimiter = ',')]
    pub(crate) gateway: Vec<IpAddr>,
    /// Lease only from this part of a subnet
    #[arg(long, value_name = "CIDR", value_delimiter = ',', value_parser = cidr)]
    pub(crate) ip_range: Vec<IpNet>,
    /// Keep an address from being leased
    #[arg(long, value_name = "NAME=IP", value_parser = aux_address)]
    pub(crate) aux_address: Vec<(String, IpAddr)>,
    /// Add an IPv6 subnet: a unique local /64 unless --subnet names one
    #[arg(long)]
    pub(crate) ipv6: bool,
    /// Maximum transmission unit, bytes; that of the way out by default
    #[arg(long, value_name = "N")]
    pub(crate) mtu: Option<u32>,
    /// Let nothing pass between this network and anything else
    #[arg(long)]
    pub(crate) internal: bool,
    /// A route for every container of the network
    #[arg(long, value_name = "CIDR,IP", value_parser = static_route)]
    pub(crate) route: Vec<StaticRoute>,
    /// Something to remember
    #[arg(long, value_name = "K=V", value_parser = label)]
    pub(crate) label: Vec<(String, String)>,
    /// An option: icc=false (containers don't reach each other), isolate=false (networks that
    /// have it see each other), spoof=allow (containers may send as somebody else), bridge=NAME,
    /// gateway-mode=nat|routed|isolated (also gateway-mode-ipv4, gateway-mode-ipv6),
    /// trusted-interface=NAME,... (unpublished ports are reached from there),
    /// foreign-forward=report (leave firewalls of others alone)
    #[arg(long, short, value_name = "K=V", value_parser = label)]
    pub(crate) opt: Vec<(String, String)>,
    #[command(flatten)]
    pub(crate) dry_run: DryRun,
    /// Its name: letters, digits, `_`, `.` and `-`
    pub(crate) name: NetworkName,
}

#[derive(Debug, Args)]
pub(crate) struct List {
    /// How to print it
    #[arg(long, value_enum, default_value_t)]
    pub(crate) format: Format,
    /// Print names only
    #[arg(long, short, conflicts_with = "format")]
    pub(crate) quiet: bool,
}

#[derive(Debug, Args)]
pub(crate) struct Inspect {
    /// Their names
    #[arg(required = true)]
    pub(crate) name: Vec<NetworkName>,
}

#[derive(Debug, Args)]
pub(crate) struct RemoveNetworks {
    /// Disconnect everybody first; a network that is not there is no error then
    #[arg(long, short)]
    pub(crate) force: bool,
    #[command(flatten)]
    pub(crate) dry_run: DryRun,
    /// Their names
    #[arg(required = true)]
    pub(crate) name: Vec<NetworkName>,
}

#[derive(Debug, Args)]
pub(crate) struct Connect {
    #[command(flatten)]
    pub(crate) endpoint: EndpointArgs,
    /// The namespace, by path or by its name under /run/netns
    #[arg(long, value_name = "PATH", value_parser = netns, required_unless_present = "pid")]
    pub(crate) netns: Option<Netns>,
    /// The namespace of this process
    #[arg(long, value_name = "PID", conflicts_with = "netns")]
    pub(crate) pid: Option<u32>,
    /// The interface's name in the container; the first free ethN by default
    #[arg(long, value_name = "NAME")]
    pub(crate) ifname: Option<LinkName>,
    /// Leave the container's default route alone
    #[arg(long)]
    pub(crate) no_default_route: bool,
    /// The default route's metric
    #[arg(long, value_name = "N")]
    pub(crate) metric: Option<u32>,
    /// How to print the endpoint
    #[arg(long, value_enum, default_value_t)]
    pub(crate) format: Format,
    #[command(flatten)]
    pub(crate) dry_run: DryRun,
    /// The network
    pub(crate) network: NetworkName,
    /// What the container is called
    #[arg(value_name = "NAME")]
    pub(crate) container: ContainerName,
}

#[derive(Debug, Args)]
pub(crate) struct Disconnect {
    #[command(flatten)]
    pub(crate) dry_run: DryRun,
    /// The network
    pub(crate) network: NetworkName,
    /// What the containers are called; all of them go at once
    #[arg(value_name = "NAME", required = true)]
    pub(crate) container: Vec<ContainerName>,
}

#[derive(Debug, Args)]
pub(crate) struct ChangePorts {
    /// How to print the ports
    #[arg(long, value_enum, default_value_t)]
    pub(crate) format: Format,
    #[command(flatten)]
    pub(crate) dry_run: DryRun,
    /// The network
    pub(crate) network: NetworkName,
    /// What the container is called
    #[arg(value_name = "NAME")]
    pub(crate) container: ContainerName,
    /// Ports as in `run -p`; `rm 80` stands for every port of the host that leads to 80
    #[arg(required = true, value_name = "PORT", value_parser = ports)]
    pub(crate) ports: Vec<Ports>,
}

#[derive(Debug, Args)]
pub(crate) struct ListPorts {
    /// How to print it
    #[arg(long, value_enum, default_value_t)]
    pub(crate) format: Format,
    /// The network
    pub(crate) network: NetworkName,
    /// What the container is called
    #[arg(value_name = "NAME")]
    pub(crate) container: ContainerName,
}

#[derive(Debug, Args)]
pub(crate) struct Log {
    /// How to print it
    #[arg(long, value_enum, default_value_t, conflicts_with = "replay")]
    pub(crate) format: Format,
    /// Print only so many of the newest
    #[arg(long, short = 'n', value_name = "COUNT", conflicts_with = "replay")]
    pub(crate) tail: Option<usize>,
    /// Print the ops of one of them, by its number, as a script that does the same
    #[arg(long, value_name = "NUMBER", requires = "dry_run")]
    pub(crate) replay: Option<usize>,
    /// Touch nothing; there is no other replay
    #[arg(long, value_enum, value_name = "FORMAT", num_args = 0..=1, requires = "replay")]
    #[arg(require_equals = true, default_missing_value = "script")]
    pub(crate) dry_run: Option<PlanFormat>,
}

#[derive(Debug, Args)]
pub(crate) struct Df {
    /// How to print it
    #[arg(long, value_enum, default_value_t)]
    pub(crate) format: Format,
}

#[derive(Debug, Args)]
pub(crate) struct Prune {
    #[command(flatten)]
    pub(crate) dry_run: DryRun,
}

#[derive(Debug, Args)]
pub(crate) struct Check {
    /// How to print it
    #[arg(long, value_enum, default_value_t)]
    pub(crate) format: Format,
}

#[derive(Debug, Args)]
pub(crate) struct Repair {
    /// Take up the networks and containers that the kernel shows and nobody has on record, as when
    /// the state is damaged or gone
    #[arg(long)]
    pub(crate) rebuild_from_kernel: bool,
    #[command(flatten)]
    pub(crate) dry_run: DryRun,
}

fn cidr(text: &str) -> Result<IpNet, String> {
    let wrong = |_| "write ADDRESS/PREFIX, such as 10.88.0.0/24 or fd00:88::/64".to_owned();
    text.parse().map_err(wrong)
}

fn aux_address(text: &str) -> Result<(String, IpAddr), String> {
    let wrong = || "write NAME=IP, such as router=10.0.0.254".to_owned();
    let (name, ip) = text
        .split_once('=')
        .filter(|(name, _)| !name.is_empty())
        .ok_or_else(wrong)?;
    Ok((name.to_owned(), ip.parse().map_err(|_| wrong())?))
}

fn label(text: &str) -> Result<(String, String), String> {
    let (key, value) = text.split_once('=').unwrap_or((text, ""));
    if key.is_empty() {
        return Err("write KEY=VALUE".to_owned());
    }
    Ok((key.to_owned(), value.to_owned()))
}

fn static_route(text: &str) -> Result<StaticRoute, String> {
    let wrong = || "write DESTINATION,NEXTHOP, such as 192.0.2.0/24,10.0.0.254".to_owned();
    let (destination, via) = text.split_once(',').ok_or_else(wrong)?;
    Ok(StaticRoute {
        destination: cidr(destination).map_err(|_| wrong())?,
        via: via.parse().map_err(|_| wrong())?,
    })
}

/// A namespace by path, or by its name as `ip netns` lists it.
pub(super) fn netns(text: &str) -> Result<Netns, String> {
    let path = if text.contains('/') {
        text.to_owned()
    } else {
        format!("/run/netns/{text}")
    };
    path.parse::<Netns>().map_err(|error| error.to_string())
}
