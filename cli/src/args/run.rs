//! The arguments of `mydocker run`.

use std::net::IpAddr;
use std::path::PathBuf;

use clap::Args;
use mydocker::container::{Capability, ExtraHost, Ulimit, parse_cpus};
use mydocker_core::ContainerName;

use super::{DryRun, EndpointArgs, Variables};

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
    #[arg(long, short)]
    pub(crate) detach: bool,
    /// What to call it
    #[arg(long)]
    pub(crate) name: Option<ContainerName>,
    /// The network to join, or `none`, `host`, or `container:NAME` for that of a running container
    #[arg(long, alias = "network", value_name = "NET", default_value = "none")]
    pub(crate) net: Vec<String>,
    /// Another name on its networks. So far the container itself knows it, by /etc/hosts: to find others
    /// by name takes a name server
    #[arg(long, value_name = "NAME")]
    pub(crate) network_alias: Vec<String>,
    /// A name server to ask instead of the host's
    #[arg(long, value_name = "IP")]
    pub(crate) dns: Vec<IpAddr>,
    /// A domain to search instead of the host's; `.` for none
    #[arg(long, value_name = "DOMAIN")]
    pub(crate) dns_search: Vec<String>,
    /// Add a line to /etc/hosts; `host-gateway` is the host on the first network
    #[arg(long, value_name = "NAME:IP")]
    pub(crate) add_host: Vec<ExtraHost>,
    #[command(flatten)]
    pub(crate) variables: Variables,
    /// Run this program, with the command as its arguments
    #[arg(long, value_name = "PROGRAM")]
    pub(crate) entrypoint: Option<String>,
    /// Run as this user and group, by name or number
    #[arg(long, short, value_name = "USER[:GROUP]")]
    pub(crate) user: Option<String>,
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
    #[arg(long, short, visible_alias = "mem", value_name = "BYTES")]
    pub(crate) memory: Option<String>,
    /// Limit CPU time, percent of one CPU
    #[arg(long, value_name = "PERCENT", conflicts_with = "cpus")]
    pub(crate) cpu: Option<f64>,
    /// Limit CPU time, number of CPUs, such as 1.5
    #[arg(long, value_name = "NUMBER", value_parser = parse_cpus)]
    pub(crate) cpus: Option<f64>,
    /// Share of CPU time where there is not enough for all; others have 1024
    #[arg(long, short, value_name = "SHARES")]
    pub(crate) cpu_shares: Option<u64>,
    /// Run on these CPUs only, such as 0,2-3
    #[arg(long, visible_alias = "cpuset", value_name = "CPUS")]
    pub(crate) cpuset_cpus: Option<String>,
    /// Limit the number of processes; -1 for no limit
    #[arg(long, value_name = "NUMBER", allow_negative_numbers = true)]
    pub(crate) pids_limit: Option<i64>,
    /// Limit what each process may use, such as nofile=1024:2048
    #[arg(long, value_name = "NAME=SOFT[:HARD]")]
    pub(crate) ulimit: Vec<Ulimit>,
    /// Add a capability, such as NET_ADMIN, or ALL
    #[arg(long, value_name = "CAP")]
    pub(crate) cap_add: Vec<Capability>,
    /// Drop a capability, or ALL
    #[arg(long, value_name = "CAP")]
    pub(crate) cap_drop: Vec<Capability>,
    /// no-new-privileges[=true|=false], or seccomp=unconfined|FILE
    #[arg(long, value_name = "OPTION")]
    pub(crate) security_opt: Vec<String>,
    /// Let nothing be written but to volumes
    #[arg(long)]
    pub(crate) read_only: bool,
    /// Have another OCI runtime, such as runc, make it
    #[arg(long, value_name = "PATH")]
    pub(crate) runtime: Option<PathBuf>,
    /// Remove the container when it ends
    #[arg(long)]
    pub(crate) rm: bool,
    #[command(flatten)]
    pub(crate) dry_run: DryRun,
    /// The image: its name, the start of its id, or NAME for ROOT/image/NAME.tar
    pub(crate) image: String,
    /// The command and its arguments
    #[arg(
        trailing_var_arg = true,
        allow_hyphen_values = true,
        value_name = "CMD"
    )]
    pub(crate) command: Vec<String>,
}
