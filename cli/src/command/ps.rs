//! `mydocker ps`

use std::time::{Duration, UNIX_EPOCH};

use mydocker::container::{Record, Status};
use mydocker_core::Endpoint;
use serde::Serialize;

use super::App;
use super::container::tidy;
use crate::args::{Format, Ps};
use crate::failure::{Failure, warn};
use crate::report;

/// A container as `ps` shows it.
#[derive(Serialize)]
struct Row {
    id: String,
    name: String,
    image: String,
    pid: Option<i32>,
    status: String,
    command: String,
    created: String,
    ip: Vec<String>,
    networks: Vec<String>,
    ports: Vec<String>,
}

impl Row {
    fn of(record: &Record) -> Self {
        let status = match (record.status(), record.exit_code) {
            (Status::Exited, Some(code)) => format!("exited ({code})"),
            (status, _) => status.to_string(),
        };
        let created = UNIX_EPOCH + Duration::from_secs(record.created_unix_s);
        let endpoints: Vec<Endpoint> = match record.status() {
            // Its addresses are somebody else's by now.
            Status::Exited => Vec::new(),
            Status::Created | Status::Running => {
                serde_json::from_value(record.endpoints.clone()).unwrap_or_default()
            }
        };
        Self {
            id: record.id.to_string(),
            name: record.name.to_string(),
            image: record.spec.image.to_string(),
            pid: record.pid(),
            status,
            command: record.spec.command.join(" "),
            created: humantime::format_rfc3339_seconds(created).to_string(),
            ip: endpoints
                .iter()
                .flat_map(|endpoint| &endpoint.addresses)
                .map(|address| address.addr().to_string())
                .collect(),
            networks: record.spec.networks.clone(),
            ports: endpoints
                .iter()
                .flat_map(|endpoint| &endpoint.ports)
                .map(ToString::to_string)
                .collect(),
        }
    }

    fn cells(&self) -> Vec<String> {
        let pid = self.pid.map(|pid| pid.to_string()).unwrap_or_default();
        vec![
            self.id.clone(),
            self.name.clone(),
            pid,
            self.status.clone(),
            self.command.clone(),
            self.created.clone(),
            report::comma(&self.ip),
            report::comma(&self.networks),
            report::comma(&self.ports),
        ]
    }
}

pub(super) fn ps(app: &App, ps: &Ps) -> Result<(), Failure> {
    let containers = app.containers()?;
    tidy(&containers)?;
    let listing = containers.list()?;
    listing.damaged.iter().for_each(warn);
    let shown = |record: &&Record| ps.all || record.status() != Status::Exited;
    let rows: Vec<Row> = listing.records.iter().filter(shown).map(Row::of).collect();
    if ps.quiet {
        return rows.iter().try_for_each(|row| Ok(report::line(&row.id)?));
    }
    match ps.format {
        Format::Json => report::json(&rows)?,
        Format::Table => report::table(
            &[
                "ID", "NAME", "PID", "STATUS", "COMMAND", "CREATED", "IP", "NETWORKS", "PORTS",
            ],
            &rows.iter().map(Row::cells).collect::<Vec<_>>(),
        )?,
    }
    Ok(())
}
