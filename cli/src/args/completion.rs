//! The arguments of `mydocker completion`.

use clap::{Args, ValueEnum};

#[derive(Debug, Args)]
pub(crate) struct Completion {
    /// The shell that is to read it, as in `source <(mydocker completion bash)`
    #[arg(value_enum)]
    pub(crate) shell: Shell,
}

/// A shell that can ask us what to complete.
#[derive(Clone, Copy, Debug, Eq, PartialEq, ValueEnum)]
pub(crate) enum Shell {
    /// bash 4.4 or later
    Bash,
    /// zsh
    Zsh,
    /// fish
    Fish,
}
