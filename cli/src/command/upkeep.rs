//! `mydocker network check|repair|prune|df`: what keeps networks in order.

use std::collections::BTreeSet;

use mydocker_core::{BATCH_MAX, Change, Endpoint, Executor, Netns, Request, State};

use super::App;
use crate::args::{Check, Df, Format, Log, Prune, Repair};
use crate::backend::Backend;
use crate::failure::{Failure, note, told, warn};
use crate::report;

pub(super) fn check(app: &App, check: &Check) -> Result<(), Failure> {
    let found = app.engine()?.check()?;
    match check.format {
        Format::Json => report::json(&report::CheckView::of(&found))?,
        Format::Table => {
            for damage in &found.damaged {
                report::line(damage)?;
            }
            if let Some(change) = &found.interrupted {
                let change = report::change(change);
                report::line(format!("a process died before this was done: {change}"))?;
            }
            for drift in &found.drift {
                report::line(drift)?;
            }
        }
    }
    let interrupted = usize::from(found.interrupted.is_some());
    match found.damaged.len() + interrupted + found.drift.len() {
        0 => Ok(()),
        many => {
            let wrong = match many {
                1 => "one thing is not as it should be".to_owned(),
                _ => format!("{many} things are not as they should be"),
            };
            let failure = Failure::refused(wrong).with_code(4);
            Err(if interrupted > 0 {
                failure.with_hint(
                    "the next command that changes something finishes that, or takes it back",
                )
            } else if found.drift.is_empty() {
                // What is wrong with a file says itself what to do about it.
                failure
            } else {
                failure.with_hint(
                    "`mydocker network repair --dry-run` shows what would be done about them",
                )
            })
        }
    }
}

pub(super) fn repair(app: &App, repair: &Repair) -> Result<(), Failure> {
    let mut engine = app.engine()?;
    if let Some(format) = repair.dry_run.dry_run {
        let plans = if repair.rebuild_from_kernel {
            let (adopted, plans) = engine.plan_rebuild()?;
            adopted.iter().for_each(note);
            plans
        } else {
            engine.plan_repair()?
        };
        return App::print(&plans, format);
    }
    let done = if repair.rebuild_from_kernel {
        let rebuilt = engine.rebuild()?;
        rebuilt.adopted.iter().for_each(note);
        rebuilt.done
    } else {
        engine.repair()?
    };
    App::finish(engine)?;
    App::tell(&done);
    let count = done.plan.ops.len();
    told(report::line(format!("{count} ops carried out")));
    Ok(())
}

/// Shows what was done, the newest last and numbered from it.
pub(super) fn log(app: &App, log: &Log) -> Result<(), Failure> {
    let (events, unreadable) = app.history()?;
    if unreadable > 0 {
        let lines = if unreadable == 1 { "line" } else { "lines" };
        warn(format!("{unreadable} {lines} of the history can't be read"));
    }
    if let (Some(number), Some(format)) = (log.replay, log.dry_run) {
        let place = events.len().checked_sub(number).filter(|_| number > 0);
        let event = place.and_then(|place| events.get(place));
        let unknown = || {
            let kept = events.len();
            Failure::refused(format!(
                "there is no event {number}: {kept} are kept, the newest is 1"
            ))
        };
        let event = event.ok_or_else(unknown)?;
        if event.plan.ops.len() < event.ops {
            let many = format!("event {number} had {} ops, which are not kept", event.ops);
            return Err(Failure::refused(many));
        }
        return App::print(std::slice::from_ref(&event.plan), format);
    }
    let shown = log.tail.unwrap_or(events.len()).min(events.len());
    let shown = &events[events.len() - shown..];
    match log.format {
        Format::Json => report::json(&shown)?,
        Format::Table => {
            let numbers = (1..=shown.len()).rev();
            let rows: Vec<_> = numbers
                .zip(shown)
                .map(|(n, e)| report::event_row(n, e))
                .collect();
            let header = ["NUMBER", "WHEN", "TOOK", "WHO", "WHAT", "OPS", "OUTCOME"];
            report::table(&header, &rows)?;
        }
    }
    Ok(())
}

/// Removes the networks that no living container is on.
pub(super) fn prune(app: &App, prune: &Prune) -> Result<(), Failure> {
    if let Some(format) = prune.dry_run.dry_run {
        return App::print(&app.engine()?.plan_each([removals_of_unused])?, format);
    }
    let plan = app.carry_out(|engine| engine.apply_with(removals_of_unused))?;
    for change in plan.change.each() {
        if let Change::NetworkRemoved(name) = change {
            told(report::line(name));
        }
    }
    Ok(())
}

/// As many as fit a batch.
fn removals_of_unused(executor: &mut Backend, state: &State) -> Vec<Request> {
    let mut is_alive = |endpoint: &Endpoint| executor.is_alive(&endpoint.netns);
    let names = state.networks().map(|network| &network.name);
    let unused = names.filter(|name| !state.endpoints_of(name).any(&mut is_alive));
    unused
        .take(BATCH_MAX)
        .cloned()
        .map(Request::RemoveNetwork)
        .collect()
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
