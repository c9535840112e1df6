//! The command line.

use std::net::IpAddr;
use std::path::PathBuf;

use clap::{Args, Parser, Subcommand, ValueEnum};
use ipnet::IpNet;
use mydocker_core::{
    ContainerName, Driver, LinkName, Mac, Netns, NetworkName, PortSpec, PortSpecError, StaticRoute,
};

use crate::lazy::Lazy;
use crate::single_dash::double_dashes;

/// Container networks that show what they will do before they do it.
#[derive(Debug, Parser)]
#[command(name = "mydocker", version, propagate_version = true, after_help = EXIT_CODES)]
#[command(subcommand_required = true, arg_required_else_help = true)]
pub(crate) struct Cli {
    /// Where networks, images and containers are kept
    #[arg(long, global = true, value_name = "DIR", env = "MYDOCKER_ROOT", help_heading = GLOBAL)]
    #[arg(default_value = "/var/lib/mydocker")]
    pub(crate) root: PathBuf,
    /// Where endpoints and leases are kept: a directory that a reboot clears
    #[arg(long, global = true, value_name = "DIR", env = "MYDOCKER_RUN_ROOT", help_heading = GLOBAL)]
    #[arg(default_value = "/run/mydocker")]
    pub(crate) run_root: PathBuf,
    /// Who carries plans out
    #[arg(long, global = true, value_enum, default_value_t = Backend::Netlink, help_heading = GLOBAL)]
    pub(crate) executor: Backend,
    #[command(subcommand)]
    pub(crate) command: Command,
}

/// As the library prints it.
const VERSION: &str = concat!(env!("CARGO_BIN_NAME"), " ", env!("CARGO_PKG_VERSION"));

/// What every command takes.
const GLOBAL: &str = "Global options";

const EXIT_CODES: &str = "\
Exit codes say what the kernel holds now:
  0  what was asked for
  1  what it held before: the request was refused
  2  what it held before: the command line was wrong
  3  what it held before: something failed and was rolled back
  4  leftovers: `mydocker network list` still works, and every command tries again to remove them
  `run` exits as its container does; 125 if it could not be set up, 126 if the command
  can't be executed, 127 if it was not found.";

#[derive(Clone, Copy, Debug, Eq, PartialEq, ValueEnum)]
pub(crate) enum Backend {
    /// The kernel of this host
    Netlink,
    /// A log, over a model of the kernel: needs no privileges, touches nothing
    Record,
}

#[derive(Debug, Subcommand)]
pub(crate) enum Command {
    /// Networks and the containers on them
    #[command(subcommand, alias = "net")]
    Network(NetworkCommand),
    /// Run a command in a new container
    Run(Lazy<Box<Run>>),
    /// List containers
    Ps(Lazy<Ps>),
    /// Stop containers: SIGTERM, then SIGKILL
    Stop(Lazy<Stop>),
    /// Remove containers
    Rm(Lazy<Remove>),
    /// Print what a detached container wrote
    Logs(Lazy<Logs>),
}

#[derive(Debug, Subcommand)]
pub(crate) enum NetworkCommand {
    /// Create a network
    Create(Lazy<Box<Create>>),
    /// List networks
    #[command(visible_alias = "ls")]
    List(Lazy<List>),
    /// Show networks and their endpoints as JSON
    Inspect(Lazy<Inspect>),
    /// Remove networks that no container is on
    #[command(visible_aliases = ["rm", "delete"])]
    Remove(Lazy<RemoveNetworks>),
    /// Connect a network namespace to a network
    Connect(Lazy<Box<Connect>>),
    /// Disconnect a container from a network
    Disconnect(Lazy<Disconnect>),
    /// Published ports of a container that runs
    #[command(subcommand)]
    Port(PortCommand),
    /// Show what was done last: what, when, by whom, how it ended and how long it took
    Log(Lazy<Log>),
    /// List which addresses and ports are taken, and by whom
    Df(Lazy<Df>),
    /// Remove all networks that no living container is on
    Prune(Lazy<Prune>),
    /// Say how the kernel differs from what is wanted; exits with 4 if it does
    Check(Lazy<Check>),
    /// Make the kernel hold what is wanted again, after somebody else changed it
    Repair(Lazy<Repair>),
}

#[derive(Debug, Subcommand)]
pub(crate) enum PortCommand {
    /// Publish more ports; nothing else of the container changes
    Add(Lazy<ChangePorts>),
    /// Publish ports no more; nothing else of the container changes
    #[command(visible_alias = "remove")]
    Rm(Lazy<ChangePorts>),
    /// List published ports
    #[command(visible_alias = "list")]
    Ls(Lazy<ListPorts>),
}

/// How a plan is shown.
#[derive(Clone, Copy, Debug, Eq, PartialEq, ValueEnum)]
pub(crate) enum PlanFormat {
    /// Columns for people
    Table,
    /// One JSON object a line
    Json,
    /// A shell script that does the same
    Script,
}

/// How a listing is shown.
#[derive(Clone, Copy, Debug, Default, Eq, PartialEq, ValueEnum)]
pub(crate) enum Format {
    /// Columns for people
    #[default]
    Table,
    /// JSON
    Json,
}

#[derive(Debug, Args)]
pub(crate) struct DryRun {
    /// Print the plan and touch nothing
    #[arg(long, value_enum, value_name = "FORMAT", num_args = 0..=1)]
    #[arg(require_equals = true, default_missing_value = "table")]
    pub(crate) dry_run: Option<PlanFormat>,
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

/// What `connect` and `run` say alike of an endpoint.
#[derive(Debug, Args)]
pub(crate) struct EndpointArgs {
    /// An address to have, one of each subnet at most
    #[arg(long, value_name = "IP", value_delimiter = ',')]
    pub(crate) ip: Vec<IpAddr>,
    /// The MAC address to have
    #[arg(long, visible_alias = "mac", value_name = "MAC")]
    pub(crate) mac_address: Option<Mac>,
    /// Publish a port of the container: [[HOSTIP:]HOST:]CONTAINER[/tcp|/udp|/sctp]. HOST and
    /// CONTAINER may be ranges as long as each other; without HOST, a free port is taken
    #[arg(long = "publish", short = 'p', value_name = "PORT", value_parser = ports)]
    pub(crate) publish: Vec<Ports>,
}

impl EndpointArgs {
    /// All that `-p` said, ranges port by port.
    pub(crate) fn ports(&self) -> Vec<PortSpec> {
        Ports::all(&self.publish)
    }
}

/// The ports of one `-p`: more than one when it is a range.
#[derive(Clone, Debug)]
pub(crate) struct Ports(Vec<PortSpec>);

impl Ports {
    /// The ports of several, in order.
    pub(crate) fn all(several: &[Self]) -> Vec<PortSpec> {
        several.iter().flat_map(|one| &one.0).cloned().collect()
    }
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

#[derive(Debug, Args)]
pub(crate) struct Run {
    #[command(flatten)]
    pub(crate) endpoint: EndpointArgs,
    /// Keep standard input open
    #[arg(long, short)]
    pub(crate) interactive: bool,
    /// Give the container a terminal
    #[arg(long, short)]
    pub(crate) tty: bool,
    /// Run in the background and print the id
    #[arg(long, short, conflicts_with_all = ["interactive", "tty"])]
    pub(crate) detach: bool,
    /// What to call it
    #[arg(long)]
    pub(crate) name: Option<ContainerName>,
    /// The network to join, or `none`, or `host`
    #[arg(long, alias = "network", value_name = "NET", default_value = "none")]
    pub(crate) net: Vec<String>,
    /// Set an environment variable
    #[arg(long, short, value_name = "K=V")]
    pub(crate) env: Vec<String>,
    /// Mount a directory of the host
    #[arg(long, short, value_name = "HOST:CONTAINER[:ro]")]
    pub(crate) volume: Vec<String>,
    /// Start in this directory
    #[arg(long, short, value_name = "DIR")]
    pub(crate) workdir: Option<String>,
    /// The host name inside; the id by default
    #[arg(long, value_name = "NAME")]
    pub(crate) hostname: Option<String>,
    /// Limit memory, such as 100m
    #[arg(long, visible_alias = "mem", value_name = "BYTES")]
    pub(crate) memory: Option<String>,
    /// Limit CPU time, percent of one CPU
    #[arg(long, value_name = "PERCENT")]
    pub(crate) cpu: Option<u32>,
    /// Run on these CPUs only, such as 0,2-3
    #[arg(long, visible_alias = "cpuset", value_name = "CPUS")]
    pub(crate) cpuset_cpus: Option<String>,
    /// Remove the container when it ends
    #[arg(long)]
    pub(crate) rm: bool,
    #[command(flatten)]
    pub(crate) dry_run: DryRun,
    /// The image: ROOT/image/IMAGE.tar
    pub(crate) image: String,
    /// The command and its arguments
    #[arg(
        trailing_var_arg = true,
        allow_hyphen_values = true,
        value_name = "CMD"
    )]
    pub(crate) command: Vec<String>,
}

#[derive(Debug, Args)]
pub(crate) struct Ps {
    /// Containers that have ended as well
    #[arg(long, short)]
    pub(crate) all: bool,
    /// How to print it
    #[arg(long, value_enum, default_value_t)]
    pub(crate) format: Format,
    /// Print ids only
    #[arg(long, short, conflicts_with = "format")]
    pub(crate) quiet: bool,
}

#[derive(Debug, Args)]
pub(crate) struct Stop {
    /// Seconds from SIGTERM to SIGKILL
    #[arg(long, short, value_name = "SECONDS", default_value_t = 10)]
    pub(crate) time: u64,
    #[command(flatten)]
    pub(crate) dry_run: DryRun,
    /// Names, ids or unique prefixes of ids
    #[arg(required = true)]
    pub(crate) container: Vec<String>,
}

#[derive(Debug, Args)]
pub(crate) struct Remove {
    /// Kill what is running
    #[arg(long, short)]
    pub(crate) force: bool,
    #[command(flatten)]
    pub(crate) dry_run: DryRun,
    /// Names, ids or unique prefixes of ids
    #[arg(required = true)]
    pub(crate) container: Vec<String>,
}

#[derive(Debug, Args)]
pub(crate) struct Logs {
    /// A name, id or unique prefix of an id
    pub(crate) container: String,
}

/// What `--version` prints, if nothing else is asked for: then no command needs to be described, which
/// takes as long as all the rest of it.
pub(crate) fn version() -> Option<&'static str> {
    let mut words = std::env::args_os().skip(1);
    match (words.next(), words.next()) {
        (Some(word), None) if word == "--version" || word == "-V" => Some(VERSION),
        _ => None,
    }
}

impl Cli {
    /// Reads the command line, single-dash long flags included.
    pub(crate) fn read() -> Self {
        Self::parse_from(double_dashes(std::env::args_os()))
    }
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

fn ports(text: &str) -> Result<Ports, PortSpecError> {
    PortSpec::parse_list(text).map(Ports)
}

/// A namespace by path, or by its name as `ip netns` lists it.
fn netns(text: &str) -> Result<Netns, String> {
    let path = if text.contains('/') {
        text.to_owned()
    } else {
        format!("/run/netns/{text}")
    };
    path.parse::<Netns>().map_err(|error| error.to_string())
}

#[cfg(test)]
mod tests {
    use clap::CommandFactory;

    use super::*;

    #[test]
    fn the_definition_is_sound() {
        Cli::command().debug_assert();
    }

    #[test]
    fn the_version_is_that_of_every_command() {
        assert_eq!(Cli::command().render_version().trim_end(), VERSION);
    }
}
