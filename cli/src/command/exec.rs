//! `mydocker exec`

use mydocker::container::{self, Executed, Failure as StartFailure};

use super::App;
use super::container::tidy;
use crate::args::Exec;
use crate::failure::Failure;

pub(super) fn exec(app: &App, exec: Exec) -> Result<u8, Failure> {
    app.needs_a_kernel()?;
    let containers = app.containers()?;
    tidy(&containers)?;
    let id = containers.find(&exec.container)?.id;
    let exec = container::Exec {
        command: exec.command,
        env: exec.variables.read()?,
        workdir: exec.workdir,
        user: exec.user,
        terminal: exec.tty,
        interactive: exec.interactive,
        detached: exec.detach,
    };
    match container::exec(&containers, &id, &exec) {
        Ok(Executed::Detached) => Ok(0),
        Ok(Executed::Finished(code)) => Ok(code),
        Err(error) => {
            let failure = error.downcast_ref::<StartFailure>();
            let code = failure.map(|failure| failure.exit_code);
            let failure = Failure::from(error);
            Err(code.into_iter().fold(failure, Failure::with_code))
        }
    }
}
