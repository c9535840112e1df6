//! The `mydocker` command.

mod args;
mod attachment;
mod backend;
mod command;
mod errand;
mod failure;
mod lazy;
mod report;
mod single_dash;

use std::process::ExitCode;

fn main() -> ExitCode {
    // A supervisor is this program again, and must fork before anything starts a thread.
    if let Some(code) = mydocker::container::reexec(&attachment::make) {
        return code;
    }
    match command::run(args::Cli::read()) {
        Ok(code) => code,
        Err(failure) => {
            failure.report();
            ExitCode::from(failure.code)
        }
    }
}
