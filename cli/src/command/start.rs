//! `mydocker start`

use mydocker::container::{self, Attach};

use super::App;
use super::container::tidy;
use super::each::each;
use super::run::exit_code;
use crate::args::Start;
use crate::attachment;
use crate::failure::{Failure, told};
use crate::report;

pub(super) fn start(app: &App, start: &Start) -> Result<u8, Failure> {
    let attach = Attach {
        output: start.attach || start.interactive,
        input: start.interactive,
    };
    if attach.output && start.container.len() > 1 {
        let message = "only one container at a time can be shown: leave out -a and -i";
        return Err(Failure::refused(message).with_code(2));
    }
    app.needs_a_kernel()?;
    let containers = app.containers()?;
    tidy(&containers)?;
    let mut code = 0;
    each(&start.container, |text| {
        let id = containers.find(text)?.id;
        let started = container::start(&containers, &id, attach, &attachment::make)
            .map_err(Failure::of_start)?;
        if attach.output {
            code = started.as_ref().map_or(code, exit_code);
        } else {
            told(report::line(text));
        }
        Ok(())
    })?;
    Ok(code)
}
