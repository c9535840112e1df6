//! What the commands do.

mod commit;
pub(crate) mod completion;
mod container;
mod each;
mod endpoints;
mod exec;
mod image;
mod inspect;
mod logs;
pub(crate) mod man;
mod network;
mod port;
mod ps;
mod run;
mod start;
mod stats;
mod upkeep;

use std::collections::BTreeSet;

use mydocker::engine::{Done, Engine, EngineError, View};
use mydocker::store::{Event, Options, Roots, Store};
use mydocker_core::{Change, EndpointId, Plan, Request};
use mydocker_exec_dryrun::{Rendering, render, render_warnings};

use crate::args::{self, Cli, Command, PlanFormat};
use crate::backend::Backend;
use crate::failure::{Failure, warn};
use crate::report;

/// Where things are kept and who carries plans out.
pub(crate) struct App {
    roots: Roots,
    backend: args::Backend,
}

/// Does what the command line says.
pub(crate) fn run(cli: Cli) -> Result<u8, Failure> {
    let app = App {
        roots: Roots {
            root: cli.global.root,
            run_root: cli.global.run_root,
        },
        backend: cli.global.executor,
    };
    match cli.command {
        Command::Network(command) => network::run(&app, command).map(|()| 0),
        Command::Run(run) => out_of_line(|| run::run(&app, *run)),
        Command::Ps(ps) => out_of_line(|| ps::ps(&app, &ps).map(|()| 0)),
        Command::Stop(stop) => out_of_line(|| container::stop(&app, &stop).map(|()| 0)),
        Command::Rm(rm) => out_of_line(|| container::rm(&app, &rm).map(|()| 0)),
        Command::Image(command) => out_of_line(|| image::run(&app, command).map(|()| 0)),
        Command::Commit(commit) => out_of_line(|| commit::commit(&app, &commit).map(|()| 0)),
        Command::Logs(logs) => out_of_line(|| logs::logs(&app, &logs).map(|()| 0)),
        Command::Exec(exec) => out_of_line(|| exec::exec(&app, exec)),
        Command::Start(start) => out_of_line(|| start::start(&app, &start)),
        Command::Restart(args) => out_of_line(|| container::restart(&app, &args).map(|()| 0)),
        Command::Kill(kill) => out_of_line(|| container::kill(&app, &kill).map(|()| 0)),
        Command::Wait(wait) => out_of_line(|| container::wait(&app, &wait).map(|()| 0)),
        Command::Rename(args) => out_of_line(|| container::rename(&app, &args).map(|()| 0)),
        Command::Port(args) => out_of_line(|| inspect::port(&app, &args).map(|()| 0)),
        Command::Inspect(args) => out_of_line(|| inspect::inspect(&app, &args).map(|()| 0)),
        Command::Stats(stats) => out_of_line(|| stats::stats(&app, &stats).map(|()| 0)),
        Command::Completion(completion) => {
            out_of_line(|| completion::script(completion.shell).map(|()| 0))
        }
    }
}

/// Calls what is no part of its caller: all commands in one function would have one frame, and an attach
/// would touch the stack, and map the text, of each of them.
#[inline(never)]
fn out_of_line<T>(command: impl FnOnce() -> T) -> T {
    command()
}

impl App {
    pub(crate) fn engine(&self) -> Result<Engine<Backend>, Failure> {
        let instance = self.roots.instance()?;
        let backend = Backend::open(self.backend, &self.roots, instance)?;
        let options = Options {
            instance: Some(instance),
            ..Options::default()
        };
        Ok(Engine::with_options(self.roots.clone(), options, backend))
    }

    /// Carries out a request.
    fn apply(&self, request: &Request) -> Result<Plan, Failure> {
        self.carry_out(|engine| engine.apply(request))
    }

    /// Has the engine do something.
    fn carry_out(
        &self,
        act: impl FnOnce(&mut Engine<Backend>) -> Result<Done, EngineError>,
    ) -> Result<Plan, Failure> {
        let mut engine = self.engine()?;
        let done = act(&mut engine)?;
        Self::finish(engine)?;
        Self::tell(&done);
        Ok(done.plan)
    }

    /// Says what nobody asked for.
    fn tell(done: &Done) {
        for change in done.buried.iter().flat_map(|plan| plan.change.each()) {
            if let Change::EndpointRemoved(EndpointId { network, container }) = change {
                let gone = format!("container `{container}` is gone, and off network `{network}`");
                warn(gone);
            }
        }
        done.plan.warnings.iter().for_each(warn);
        if let Some(error) = &done.forgotten {
            warn(format!("done, but not written into the history: {error}"));
        }
    }

    /// What was done, oldest first, and how many lines of that can't be read.
    fn history(&self) -> Result<(Vec<Event>, usize), Failure> {
        Ok(Store::history(&self.roots).map_err(EngineError::from)?)
    }

    /// Makes sure that what was recorded is in the log.
    fn finish(engine: Engine<Backend>) -> Result<(), Failure> {
        let unwritten = |error| format!("done, but the log could not be written: {error}");
        let finished = engine.into_executor().finish();
        finished.map_err(|error| Failure::refused(unwritten(error)))
    }

    /// Prints what the requests, one after the other, would do.
    fn dry_run(&self, requests: &[Request], format: PlanFormat) -> Result<(), Failure> {
        Self::print(&self.engine()?.plan_all(requests)?, format)
    }

    /// Prints what would be done.
    fn print(plans: &[Plan], format: PlanFormat) -> Result<(), Failure> {
        let rendering = match format {
            PlanFormat::Table => Rendering::Table,
            PlanFormat::Json => Rendering::JsonLines,
            PlanFormat::Script => Rendering::Script,
        };
        let ops: Vec<_> = plans.iter().flat_map(|plan| plan.ops.clone()).collect();
        // Once each, also where one network after the other has the same in its way.
        let warnings: BTreeSet<_> = plans
            .iter()
            .flat_map(|plan| plan.warnings.clone())
            .collect();
        let warnings = Vec::from_iter(warnings);
        warnings.iter().for_each(warn);
        if ops.is_empty() && format == PlanFormat::Table {
            return Ok(report::line("nothing to do")?);
        }
        report::text(&render(&ops, rendering))?;
        Ok(report::text(&render_warnings(&warnings, rendering))?)
    }

    /// The state as it is now; says which definitions could not be read.
    fn view(&self) -> Result<View, Failure> {
        let view = Engine::<Backend>::look(&self.roots)?;
        view.damaged.iter().for_each(warn);
        Ok(view)
    }
}
