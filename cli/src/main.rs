//! The `mydocker` command.
// Elsewhere, and for tests, the standard library's start is the one that is there.
#![cfg_attr(all(target_env = "gnu", not(test)), no_main)]

mod args;
mod attachment;
mod backend;
mod command;
mod errand;
mod failure;
mod report;
mod signal;
mod single_dash;
#[cfg(all(target_env = "gnu", not(test)))]
mod start;
mod time;

use std::ffi::OsString;

use command::completion::Question;
use command::man;
use failure::Failure;

#[cfg(not(all(target_env = "gnu", not(test))))]
fn main() -> std::process::ExitCode {
    run().into()
}

/// Does what the command line says. What to exit with.
fn run() -> u8 {
    // A supervisor is this program again, and must fork before anything starts a thread.
    let words: Vec<OsString> = std::env::args_os().collect();
    if let Some(code) = mydocker::container::reexec(&words, &attachment::make) {
        return code;
    }
    let done = if let Some(version) = args::version(&words) {
        report::line(version).map(|()| 0).map_err(Failure::from)
    } else if let Some(question) = Question::of(&words) {
        question.answer().map(|()| 0)
    } else if let Some(words) = man::wanted(&words) {
        man::write(words).map(|()| 0)
    } else {
        command::run(args::Cli::read(words))
    };
    done.unwrap_or_else(|failure| {
        failure.report();
        failure.code
    })
}
