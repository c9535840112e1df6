//! The arguments of `mydocker run`.

use clap::Args;
use mydocker_core::ContainerName;

use super::{DryRun, EndpointArgs};

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
