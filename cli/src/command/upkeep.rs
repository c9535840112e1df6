//! `mydocker network check|repair|prune|df`: what keeps networks in order.

use std::collections::BTreeSet;

use mydocker_core::{Executor, Netns, NetworkName, Request};

use super::App;
use crate::args::{Check, Df, Format, Prune, Repair};
use crate::failure::Failure;
use crate::report;

pub(super) fn check(app: &App, check: &Check) -> Result<(), Failure> {
    let found = app.engine()?.check()?;
    match check.format {
        Format::Json => report::json(&report::CheckView::of(&found))?,
        Format::Table => {
            for damage in &found.damaged {
                report::line(damage)?;
            }
            for drift in &found.drift {
                report::line(drift)?;
            }
        }
    }
    match found.damaged.len() + found.drift.len() {
        0 => Ok(()),
        many => {
            let wrong = format!("{many} things are not as they should be");
            let hint = "`mydocker network repair --dry-run` shows what would be done about them";
            Err(Failure::refused(wrong).with_code(4).with_hint(hint))
        }
    }
}

pub(super) fn repair(app: &App, repair: &Repair) -> Result<(), Failure> {
    if let Some(format) = repair.dry_run.dry_run {
        let plans = app.engine()?.plan_repair()?;
        return App::print(&plans, format);
    }
    let mut engine = app.engine()?;
    let done = engine.repair()?;
    App::finish(engine)?;
    App::tell(&done);
    Ok(report::line(format!(
        "{} ops carried out",
        done.plan.ops.len()
    ))?)
}

/// Removes the networks that no living container is on.
pub(super) fn prune(app: &App, prune: &Prune) -> Result<(), Failure> {
    let state = app.view()?.state;
    let dead = dead(app, state.netns())?;
    let is_unused = |name: &NetworkName| state.endpoints_of(name).all(|e| dead.contains(&e.netns));
    let networks = state.networks().map(|network| network.name.clone());
    let unused: Vec<NetworkName> = networks.filter(is_unused).collect();
    let requests: Vec<_> = unused.iter().cloned().map(Request::RemoveNetwork).collect();
    if let Some(format) = prune.dry_run.dry_run {
        return app.dry_run(&requests, format);
    }
    for (name, request) in unused.iter().zip(&requests) {
        app.apply(request)?;
        report::line(name)?;
    }
    Ok(())
}

/// Says which addresses and ports are taken, and by whom.
pub(super) fn df(app: &App, df: &Df) -> Result<(), Failure> {
    let state = app.view()?.state;
    let dead = dead(app, state.netns())?;
    let usage = report::UsageView::of(&state, &dead);
    match df.format {
        Format::Json => report::json(&usage)?,
        Format::Table => usage.print()?,
    }
    Ok(())
}

/// The namespaces that are gone.
fn dead(app: &App, all: BTreeSet<Netns>) -> Result<BTreeSet<Netns>, Failure> {
    let mut engine = app.engine()?;
    let gone = all
        .into_iter()
        .filter(|netns| !engine.executor().is_alive(netns));
    Ok(gone.collect())
}
