//! `mydocker stop`, `rm` and `logs`

use std::io::{self, Write};
use std::time::Duration;

use mydocker::container::{self, Containers, Stream, read_log};

use super::App;
use crate::args::{Logs, PlanFormat, Remove, Stop};
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

pub(super) fn logs(app: &App, logs: &Logs) -> Result<(), Failure> {
    let containers = app.containers()?;
    let record = containers.find(&logs.container)?;
    for line in read_log(&containers.log_path(&record.id))? {
        let line = line?;
        match line.stream {
            Stream::Stdout => io::stdout().write_all(line.log.as_bytes())?,
            Stream::Stderr => io::stderr().write_all(line.log.as_bytes())?,
        }
    }
    Ok(())
}
