//! The command line.

mod alone;
mod completion;
mod container;
mod image;
mod network;
mod plain;
mod run;

pub(crate) use completion::{Completion, Shell};
pub(crate) use container::{
    ContainerPorts, Exec, InspectContainers, Kill, Logs, OnlyJson, Ps, Remove, Rename, Restart,
    Start, Stats, Stop, Wait,
};
pub(crate) use image::{Commit, ImageCommand, Import, InspectImages, ListImages, RemoveImages};
pub(crate) use network::{
    ChangePorts, Check, Connect, Create, Df, Disconnect, Inspect, List, ListPorts, Log,
    NetworkCommand, PortCommand, Prune, RemoveNetworks, Repair,
};
pub(crate) use run::Run;

use std::ffi::OsString;
use std::net::IpAddr;
use std::path::PathBuf;

use clap::{Args, Parser, Subcommand, ValueEnum};
use mydocker::container::variables;
use mydocker_core::{Mac, PortSpec, PortSpecError};

use crate::single_dash::double_dashes;

/// Container networks that show what they will do before they do it.
#[derive(Debug, Parser)]
#[command(name = "mydocker", version, propagate_version = true, after_help = EXIT_CODES)]
#[command(subcommand_required = true, arg_required_else_help = true)]
pub(crate) struct Cli {
    #[command(flatten)]
    pub(crate) global: Global,
    #[command(subcommand)]
    pub(crate) command: Command,
}

/// What every command takes.
#[derive(Debug, Args)]
pub(crate) struct Global {
    /// Where networks, images and containers are kept
    #[arg(long, global = true, value_name = "DIR", env = ROOT_VARIABLE, help_heading = GLOBAL)]
    #[arg(default_value = ROOT)]
    pub(crate) root: PathBuf,
    /// Where endpoints and leases are kept: a directory that a reboot clears
    #[arg(long, global = true, value_name = "DIR", env = RUN_ROOT_VARIABLE, help_heading = GLOBAL)]
    #[arg(default_value = RUN_ROOT)]
    pub(crate) run_root: PathBuf,
    /// Who carries plans out
    #[arg(long, global = true, value_enum, default_value_t = Backend::Netlink, help_heading = GLOBAL)]
    pub(crate) executor: Backend,
}

/// As the library prints it.
const VERSION: &str = concat!(env!("CARGO_BIN_NAME"), " ", env!("CARGO_PKG_VERSION"));

/// Where things are kept unless somebody says otherwise.
pub(crate) const ROOT: &str = "/var/lib/mydocker";
pub(crate) const RUN_ROOT: &str = "/run/mydocker";
/// Where the environment says so.
const ROOT_VARIABLE: &str = "MYDOCKER_ROOT";
const RUN_ROOT_VARIABLE: &str = "MYDOCKER_RUN_ROOT";

/// The heading of what every command takes.
const GLOBAL: &str = "Global options";

const EXIT_CODES: &str = "\
Exit codes say what the kernel holds now:
  0  what was asked for
  1  what it held before: the request was refused
  2  what it held before: the command line was wrong
  3  what it held before: something failed and was rolled back
  4  leftovers: `mydocker network list` still works, and every command tries again to remove them
  `run`, `start --attach` and `exec` exit as their command does; 125 if a container could not be set
  up, 126 if the command can't be executed, 127 if it was not found.";

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
    Run(Box<Run>),
    /// List containers
    Ps(Ps),
    /// Stop containers: SIGTERM, then SIGKILL
    Stop(Stop),
    /// Remove containers
    Rm(Remove),
    /// Print what a container in the background wrote
    Logs(Logs),
    /// Images that containers are made from
    #[command(subcommand)]
    Image(ImageCommand),
    /// Make an image of what a container wrote; one that runs is not paused
    Commit(Commit),
    /// Run another command in a container that runs
    Exec(Exec),
    /// Start containers that have ended, in the background
    Start(Start),
    /// Stop containers and start them again
    Restart(Restart),
    /// Send a signal to containers
    Kill(Kill),
    /// Wait until containers have ended, and print their exit codes
    Wait(Wait),
    /// Call a container otherwise
    Rename(Rename),
    /// List published ports of a container that runs
    Port(ContainerPorts),
    /// Show all that is known of containers, as JSON
    Inspect(InspectContainers),
    /// Show what containers use: processor, memory, network
    Stats(Stats),
    /// Print a script that makes a shell complete commands, options and names
    Completion(Completion),
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

/// What `run` and `exec` say alike of the environment.
#[derive(Debug, Args)]
pub(crate) struct Variables {
    /// Set an environment variable; without a value, to that of ours
    #[arg(long, short, value_name = "K[=V]")]
    env: Vec<String>,
    /// Set the environment variables that a file has, one a line
    #[arg(long, value_name = "FILE")]
    env_file: Vec<PathBuf>,
}

impl Variables {
    /// All of them, those of files first.
    pub(crate) fn read(&self) -> anyhow::Result<Vec<String>> {
        variables(&self.env_file, &self.env)
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

/// What `--version` prints, if nothing else is asked for: then no command needs to be described, which
/// takes as long as all the rest of it.
pub(crate) fn version(words: &[OsString]) -> Option<&'static str> {
    match words {
        [_, word] if word == "--version" || word == "-V" => Some(VERSION),
        _ => None,
    }
}

impl Cli {
    /// Reads the command line, single-dash long flags included.
    pub(crate) fn read(words: Vec<OsString>) -> Self {
        alone::read(double_dashes(words)).unwrap_or_else(|error| error.exit())
    }
}

fn ports(text: &str) -> Result<Ports, PortSpecError> {
    PortSpec::parse_list(text).map(Ports)
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
