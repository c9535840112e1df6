//! `mydocker stop`, `kill`, `restart`, `wait`, `rename` and `rm`: what changes containers, or waits for it

use std::time::Duration;

use mydocker::container::{self, Containers};

use super::App;
use super::each::each;
use crate::args::{Kill, PlanFormat, Remove, Rename, Restart, Stop, Wait};
use crate::attachment;
use crate::failure::{Failure, told, warn};
use crate::report;

impl App {
    /// The containers below our roots.
    pub(super) fn containers(&self) -> Result<Containers, Failure> {
        Ok(Containers::open(&self.roots.root, &self.roots.run_root)?)
    }
}

/// Takes down those whose supervisor was killed: they are not shown as what they were, and their
/// addresses and ports come back.
pub(super) fn tidy(containers: &Containers) -> Result<(), Failure> {
    for tidied in container::tidy(containers, &attachment::make)? {
        if let Err(error) = tidied {
            warn(format!("{error:#}"));
        }
    }
    Ok(())
}

pub(super) fn stop(app: &App, stop: &Stop) -> Result<(), Failure> {
    let containers = app.containers()?;
    if let Some(format) = stop.dry_run.dry_run {
        return plan_end(app, &containers, &stop.container, format);
    }
    let time = Duration::from_secs(stop.time);
    tidy(&containers)?;
    each(&stop.container, |text| {
        let id = containers.find(text)?.id;
        container::stop(&containers, &id, time, &attachment::make)?;
        told(report::line(text));
        Ok(())
    })
}

pub(super) fn kill(app: &App, kill: &Kill) -> Result<(), Failure> {
    let containers = app.containers()?;
    tidy(&containers)?;
    each(&kill.container, |text| {
        let id = containers.find(text)?.id;
        container::kill(&containers, &id, kill.signal, &attachment::make)?;
        told(report::line(text));
        Ok(())
    })
}

pub(super) fn restart(app: &App, restart: &Restart) -> Result<(), Failure> {
    app.needs_a_kernel()?;
    let containers = app.containers()?;
    tidy(&containers)?;
    let time = Duration::from_secs(restart.time);
    each(&restart.container, |text| {
        let id = containers.find(text)?.id;
        container::restart(&containers, &id, time, &attachment::make).map_err(Failure::of_start)?;
        told(report::line(text));
        Ok(())
    })
}

/// Prints exit codes in the order in which the containers are named.
pub(super) fn wait(app: &App, wait: &Wait) -> Result<(), Failure> {
    let containers = app.containers()?;
    tidy(&containers)?;
    each(&wait.container, |text| {
        let id = containers.find(text)?.id;
        let code = container::wait(&containers, &id, &attachment::make)?;
        Ok(report::line(code)?)
    })
}

pub(super) fn rename(app: &App, rename: &Rename) -> Result<(), Failure> {
    let containers = app.containers()?;
    tidy(&containers)?;
    let id = containers.find(&rename.container)?.id;
    Ok(container::rename(&containers, &id, &rename.name)?)
}

pub(super) fn rm(app: &App, rm: &Remove) -> Result<(), Failure> {
    let containers = app.containers()?;
    if let Some(format) = rm.dry_run.dry_run {
        return plan_end(app, &containers, &rm.container, format);
    }
    // What an earlier one that was killed left is no container any more, and has no name.
    tidy(&containers)?;
    each(&rm.container, |text| {
        let id = containers.find_id(text)?;
        container::remove(&containers, &id, rm.force, &attachment::make)?;
        told(report::line(text));
        Ok(())
    })
}

/// Prints what taking containers off their networks would do.
fn plan_end(
    app: &App,
    containers: &Containers,
    texts: &[String],
    format: PlanFormat,
) -> Result<(), Failure> {
    let view = app.view()?;
    let mut requests = Vec::new();
    for text in texts {
        let pin = containers.netns(&containers.find_id(text)?);
        requests.extend(attachment::detachments(&view.state, &pin)?);
    }
    app.dry_run(&requests, format)
}
