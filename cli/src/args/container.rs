//! The arguments of the commands that are about containers.

use std::path::PathBuf;
use std::time::SystemTime;

use clap::{Args, ValueEnum};
use mydocker_core::ContainerName;
use rustix::process::Signal;

use super::{DryRun, Format, Variables};
use crate::{signal, time};

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
    /// Print commands whole
    #[arg(long)]
    pub(crate) no_trunc: bool,
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
pub(crate) struct Kill {
    /// What to send: a name with or without SIG, or a number
    #[arg(long, short, value_name = "SIGNAL", default_value = "KILL", value_parser = signal::parse)]
    pub(crate) signal: Signal,
    /// Names, ids or unique prefixes of ids
    #[arg(required = true)]
    pub(crate) container: Vec<String>,
}

#[derive(Debug, Args)]
pub(crate) struct Start {
    /// Show its output, pass signals on, and exit as it does
    #[arg(long, short)]
    pub(crate) attach: bool,
    /// Have it read standard input; shows its output as well
    #[arg(long, short)]
    pub(crate) interactive: bool,
    /// Names, ids or unique prefixes of ids
    #[arg(required = true)]
    pub(crate) container: Vec<String>,
}

#[derive(Debug, Args)]
pub(crate) struct Restart {
    /// Seconds from SIGTERM to SIGKILL
    #[arg(long, short, value_name = "SECONDS", default_value_t = 10)]
    pub(crate) time: u64,
    /// Names, ids or unique prefixes of ids
    #[arg(required = true)]
    pub(crate) container: Vec<String>,
}

#[derive(Debug, Args)]
pub(crate) struct Wait {
    /// Names, ids or unique prefixes of ids
    #[arg(required = true)]
    pub(crate) container: Vec<String>,
}

#[derive(Debug, Args)]
pub(crate) struct Rename {
    /// A name, id or unique prefix of an id
    pub(crate) container: String,
    /// What to call it
    pub(crate) name: ContainerName,
}

#[derive(Debug, Args)]
pub(crate) struct ContainerPorts {
    /// A name, id or unique prefix of an id
    pub(crate) container: String,
    /// Print only where this port of the container is published: PORT[/tcp|/udp|/sctp]
    pub(crate) port: Option<String>,
}

#[derive(Debug, Args)]
pub(crate) struct InspectContainers {
    /// How to print it
    #[arg(long, value_enum, default_value_t)]
    pub(crate) format: OnlyJson,
    /// Names, ids or unique prefixes of ids
    #[arg(required = true)]
    pub(crate) container: Vec<String>,
}

/// How what is too much for a table is shown.
#[derive(Clone, Copy, Debug, Default, Eq, PartialEq, ValueEnum)]
pub(crate) enum OnlyJson {
    /// JSON
    #[default]
    Json,
}

#[derive(Debug, Args)]
pub(crate) struct Stats {
    /// Print once and end
    #[arg(long)]
    pub(crate) no_stream: bool,
    /// How to print it; JSON is one array a line, one line a second
    #[arg(long, value_enum, default_value_t)]
    pub(crate) format: Format,
    /// Names, ids or unique prefixes of ids; all that run by default
    pub(crate) container: Vec<String>,
}

#[derive(Debug, Args)]
pub(crate) struct Exec {
    /// Keep standard input open
    #[arg(long, short)]
    pub(crate) interactive: bool,
    /// Give the command a terminal
    #[arg(long, short)]
    pub(crate) tty: bool,
    /// Let it run by itself; nobody sees its output
    #[arg(long, short)]
    pub(crate) detach: bool,
    #[command(flatten)]
    pub(crate) variables: Variables,
    /// Start in this directory
    #[arg(long, short, value_name = "DIR")]
    pub(crate) workdir: Option<PathBuf>,
    /// Run as this user, by names or numbers
    #[arg(long, short, value_name = "USER[:GROUP]")]
    pub(crate) user: Option<String>,
    /// A name, id or unique prefix of an id
    pub(crate) container: String,
    /// The command and its arguments
    #[arg(
        required = true,
        trailing_var_arg = true,
        allow_hyphen_values = true,
        value_name = "CMD"
    )]
    pub(crate) command: Vec<String>,
}

#[derive(Debug, Args)]
pub(crate) struct Logs {
    /// Go on until the container ends
    #[arg(long, short)]
    pub(crate) follow: bool,
    /// Begin with this many of the last entries
    #[arg(long, short = 'n', value_name = "N|all", default_value = "all", value_parser = tail)]
    pub(crate) tail: Tail,
    /// Leave out what is older: a time (RFC 3339, or seconds since 1970), or 10m for 10 minutes ago
    #[arg(long, value_name = "TIME", value_parser = moment)]
    pub(crate) since: Option<SystemTime>,
    /// Leave out what is newer
    #[arg(long, value_name = "TIME", value_parser = moment)]
    pub(crate) until: Option<SystemTime>,
    /// Say when each line was written
    #[arg(long, short)]
    pub(crate) timestamps: bool,
    /// A name, id or unique prefix of an id
    pub(crate) container: String,
}

/// How much of a log is printed: so many of the last entries, or all.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub(crate) struct Tail(pub(crate) Option<u64>);

fn tail(text: &str) -> Result<Tail, String> {
    if text == "all" {
        return Ok(Tail(None));
    }
    let count = text.parse().map(|count| Tail(Some(count)));
    count.map_err(|_| format!("`{text}` is neither a count nor `all`"))
}

fn moment(text: &str) -> Result<SystemTime, String> {
    time::moment(text, SystemTime::now()).map_err(|error| error.to_string())
}
