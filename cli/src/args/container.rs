//! The arguments of the commands that are about containers.

use clap::Args;

use super::{DryRun, Format};

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
