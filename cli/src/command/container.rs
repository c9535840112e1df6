//! `mydocker stop` and `rm`

use std::time::Duration;

use mydocker::container::{self, Containers};

use super::App;
use crate::args::{PlanFormat, Remove, Stop};
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
    for text in &stop.container {
        let record = containers.find(text)?;
        container::stop(&containers, &record.id, time, &attachment::make)?;
        told(report::line(text));
    }
    Ok(())
}

pub(super) fn rm(app: &App, rm: &Remove) -> Result<(), Failure> {
    let containers = app.containers()?;
    if let Some(format) = rm.dry_run.dry_run {
        return plan_end(app, &containers, &rm.container, format);
    }
    // What an earlier one that was killed left is no container any more, and has no name.
    containers.sweep()?;
    for text in &rm.container {
        let id = containers.find_id(text)?;
        container::remove(&containers, &id, rm.force, &attachment::make)?;
        told(report::line(text));
    }
    Ok(())
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
