//! `mydocker ps`

use std::time::{Duration, SystemTime, UNIX_EPOCH};

use mydocker::container::{NetworkMode, Record, Status};
use mydocker_core::Endpoint;
use serde::Serialize;

use super::App;
use super::container::tidy;
use super::endpoints::Endpoints;
use crate::args::{Format, Ps};
use crate::failure::{Failure, warn};
use crate::{report, time};

/// Longest command in a table, characters.
const COMMAND_CHARS_MAX: usize = 40;

/// A container as `ps` shows it: values for programs.
#[derive(Serialize)]
struct Row {
    id: String,
    name: String,
    image: String,
    pid: Option<i32>,
    status: Status,
    exit_code: Option<u8>,
    command: String,
    created: String,
    started: Option<String>,
    finished: Option<String>,
    ip: Vec<String>,
    networks: Vec<String>,
    ports: Vec<String>,
    #[serde(skip)]
    words: Words,
}

/// What only people want to know.
struct Words {
    status: String,
    created: String,
}

impl Row {
    fn of(record: &Record, endpoints: &[&Endpoint], now: SystemTime) -> Self {
        let status = record.status();
        let has_ended = status == Status::Exited;
        let networks = match &record.spec.network {
            NetworkMode::Host => vec!["host".to_owned()],
            NetworkMode::Container(other) => vec![format!("container:{other}")],
            // Its addresses are somebody else's by now; the networks are those that it joins again.
            _ if has_ended => record.spec.networks.clone(),
            NetworkMode::None | NetworkMode::Attached => endpoints
                .iter()
                .map(|endpoint| endpoint.id.network.to_string())
                .collect(),
        };
        let addresses = endpoints.iter().flat_map(|endpoint| &endpoint.addresses);
        let ports = endpoints.iter().flat_map(|endpoint| &endpoint.ports);
        Self {
            id: record.id.to_string(),
            name: record.name.to_string(),
            image: record.spec.image.to_string(),
            pid: record.pid(),
            status,
            exit_code: record.exit_code.filter(|_| has_ended),
            command: record.spec.command.join(" "),
            created: rfc3339(record.created_unix_s),
            started: record.started_unix_s.map(rfc3339),
            finished: record.finished_unix_s.filter(|_| has_ended).map(rfc3339),
            ip: addresses
                .map(|address| address.addr().to_string())
                .collect(),
            networks,
            ports: ports.map(ToString::to_string).collect(),
            words: Words {
                status: status_in_words(record, now),
                created: format!("{} ago", time::age(record.created_unix_s, now)),
            },
        }
    }

    fn cells(&self, is_whole: bool) -> Vec<String> {
        let pid = self.pid.map(|pid| pid.to_string()).unwrap_or_default();
        let command = report::printable(&self.command);
        vec![
            self.id.clone(),
            self.name.clone(),
            pid,
            self.words.status.clone(),
            match is_whole {
                true => command,
                false => shortened(&command),
            },
            self.words.created.clone(),
            report::comma(&self.ip),
            report::comma(&self.networks),
            report::comma(&self.ports),
        ]
    }
}

/// As Docker says it: `Up 5 minutes`, `Exited (3) 2 hours ago`, `Created`.
fn status_in_words(record: &Record, now: SystemTime) -> String {
    let age = |unix_s: u64| time::age(unix_s, now);
    match record.status() {
        Status::Created => "Created".to_owned(),
        Status::Running => {
            let started = record.started_unix_s.unwrap_or(record.created_unix_s);
            format!("Up {}", age(started))
        }
        Status::Exited => {
            // Nobody knows after the supervisor was killed.
            let code = record.exit_code.map(|code| code.to_string());
            let code = code.unwrap_or_else(|| "?".to_owned());
            match record.finished_unix_s {
                Some(finished) => format!("Exited ({code}) {} ago", age(finished)),
                None => format!("Exited ({code})"),
            }
        }
    }
}

fn shortened(text: &str) -> String {
    match text.char_indices().nth(COMMAND_CHARS_MAX) {
        Some(_) => text
            .chars()
            .take(COMMAND_CHARS_MAX - 1)
            .chain(['…'])
            .collect(),
        None => text.to_owned(),
    }
}

/// A second since 1970 as a time.
pub(super) fn rfc3339(unix_s: u64) -> String {
    let time = UNIX_EPOCH + Duration::from_secs(unix_s);
    humantime::format_rfc3339_seconds(time).to_string()
}

pub(super) fn ps(app: &App, ps: &Ps) -> Result<(), Failure> {
    let containers = app.containers()?;
    tidy(&containers)?;
    let listing = containers.list()?;
    listing.damaged.iter().for_each(warn);
    let (endpoints, now) = (Endpoints::now(app), SystemTime::now());
    let row = |record: &Record| {
        let shown = ps.all || record.status() != Status::Exited;
        shown.then(|| Row::of(record, &endpoints.of(&containers, record), now))
    };
    let rows = listing.records.iter().filter_map(|record| {
        let row_then = row(record);
        // Asked last: from here on what it rests on does not change.
        containers
            .newer(record)
            .map_or(row_then, |record| row(&record))
    });
    let rows: Vec<Row> = rows.collect();
    if ps.quiet {
        return rows.iter().try_for_each(|row| Ok(report::line(&row.id)?));
    }
    match ps.format {
        Format::Json => report::json(&rows)?,
        Format::Table => report::table(
            &[
                "ID", "NAME", "PID", "STATUS", "COMMAND", "CREATED", "IP", "NETWORKS", "PORTS",
            ],
            &rows
                .iter()
                .map(|row| row.cells(ps.no_trunc))
                .collect::<Vec<_>>(),
        )?,
    }
    Ok(())
}
