//! The `mydocker` command.

mod args;
mod attachment;
mod backend;
mod command;
mod errand;
mod failure;
mod lazy;
mod report;
mod signal;
mod single_dash;
mod time;

use std::process::ExitCode;

use command::completion::Question;
use command::man;
use failure::Failure;

fn main() -> ExitCode {
    // A supervisor is this program again, and must fork before anything starts a thread.
    if let Some(code) = mydocker::container::reexec(&attachment::make) {
        return code;
    }
    let done = if let Some(version) = args::version() {
        report::line(version)
            .map(|()| ExitCode::SUCCESS)
            .map_err(Failure::from)
    } else if let Some(question) = Question::read() {
        question.answer().map(|()| ExitCode::SUCCESS)
    } else if let Some(words) = man::wanted() {
        man::write(words).map(|()| ExitCode::SUCCESS)
    } else {
        command::run(args::Cli::read())
    };
    match done {
        Ok(code) => code,
        Err(failure) => {
            failure.report();
            ExitCode::from(failure.code)
        }
    }
}
