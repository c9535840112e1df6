//! `mydocker stats`

use std::collections::BTreeMap;
use std::io::{self, IsTerminal, Write};
use std::thread;
use std::time::Duration;

use mydocker::container::{Containers, Id, Record, Traffic, Usage};
use serde::Serialize;

use super::App;
use super::container::tidy;
use crate::args::{Format, Stats};
use crate::failure::{Failure, warn};
use crate::report;

/// How long processor time is counted.
const SAMPLE: Duration = Duration::from_secs(1);
/// Where a table begins anew on a terminal: the screen is cleared from its upper left corner on.
const CLEAR: &str = "\x1b[H\x1b[J";

/// What a container uses, as it is shown.
#[derive(Serialize)]
struct Row {
    id: String,
    name: String,
    cpu_percent: f64,
    memory_bytes: u64,
    memory_max_bytes: u64,
    pids: u64,
    network: Vec<Traffic>,
}

pub(super) fn stats(app: &App, stats: &Stats) -> Result<(), Failure> {
    let containers = app.containers()?;
    tidy(&containers)?;
    let ids = stats.container.iter().map(|text| containers.find(text));
    let named: Vec<Record> = ids.collect::<Result<_, _>>()?;
    if let Some(record) = named.iter().find(|record| record.pid().is_none()) {
        let name = &record.name;
        return Err(Failure::refused(format!("container {name} does not run")));
    }
    let named: Option<Vec<Id>> = match named.is_empty() {
        true => None,
        false => Some(named.into_iter().map(|record| record.id).collect()),
    };
    let is_screen = stats.format == Format::Table && !stats.no_stream && io::stdout().is_terminal();
    let mut earlier = look(&containers, named.as_deref())?;
    loop {
        thread::sleep(SAMPLE);
        let now = look(&containers, named.as_deref())?;
        let rows: Vec<Row> = now
            .iter()
            .map(|(id, seen)| Row::of(seen, earlier.get(id)))
            .collect();
        if is_screen {
            report::text(CLEAR)?;
        }
        print(&rows, stats)?;
        io::stdout().flush()?;
        // Those that were named have all ended.
        if stats.no_stream || (named.is_some() && now.is_empty()) {
            return Ok(());
        }
        earlier = now;
    }
}

type Seen = BTreeMap<Id, (Record, Usage)>;

/// What those use that run: some, or all.
fn look(containers: &Containers, named: Option<&[Id]>) -> Result<Seen, Failure> {
    let listing = containers.list()?;
    let is_meant = |record: &Record| named.is_none_or(|named| named.contains(&record.id));
    let mut seen = Seen::new();
    for record in listing.records.into_iter().filter(is_meant) {
        match Usage::of(&record) {
            Ok(Some(usage)) => drop(seen.insert(record.id.clone(), (record, usage))),
            Ok(None) => {}
            Err(error) => warn(format!("{error:#}")),
        }
    }
    Ok(seen)
}

fn print(rows: &[Row], stats: &Stats) -> Result<(), Failure> {
    match (stats.format, stats.no_stream) {
        (Format::Json, true) => report::json(&rows)?,
        (Format::Json, false) => {
            let text = serde_json::to_string(rows).map_err(anyhow::Error::from)?;
            report::line(text)?;
        }
        (Format::Table, _) => report::table(
            &[
                "ID",
                "NAME",
                "CPU %",
                "MEM USAGE / LIMIT",
                "MEM %",
                "PIDS",
                "NET RX / TX",
            ],
            &rows.iter().map(Row::cells).collect::<Vec<_>>(),
        )?,
    }
    Ok(())
}

impl Row {
    fn of((record, usage): &(Record, Usage), earlier: Option<&(Record, Usage)>) -> Self {
        // One that has only come since has no time to be compared with.
        let percent = earlier.map_or(0.0, |(_, earlier)| usage.cpu_percent_since(earlier));
        Self {
            id: record.id.to_string(),
            name: record.name.to_string(),
            cpu_percent: (percent * 100.0).round() / 100.0,
            memory_bytes: usage.memory_bytes,
            memory_max_bytes: usage.memory_max_bytes,
            pids: usage.pids,
            network: usage.network.clone(),
        }
    }

    fn cells(&self) -> Vec<String> {
        let traffic = |one: &Traffic| {
            let (received, sent) = (decimal(one.received_bytes), decimal(one.sent_bytes));
            format!("{} {received} / {sent}", one.interface)
        };
        #[expect(clippy::cast_precision_loss, reason = "two digits of it are shown")]
        let memory_percent = 100.0 * self.memory_bytes as f64 / self.memory_max_bytes.max(1) as f64;
        vec![
            self.id.clone(),
            self.name.clone(),
            format!("{:.2}%", self.cpu_percent),
            format!(
                "{} / {}",
                binary(self.memory_bytes),
                binary(self.memory_max_bytes)
            ),
            format!("{memory_percent:.2}%"),
            self.pids.to_string(),
            report::comma(self.network.iter().map(traffic)),
        ]
    }
}

/// `1.5MiB`, as memory is measured.
fn binary(bytes: u64) -> String {
    scaled(bytes, 1024.0, &["B", "KiB", "MiB", "GiB", "TiB"])
}

/// `1.5MB`, as networks are measured.
fn decimal(bytes: u64) -> String {
    scaled(bytes, 1000.0, &["B", "kB", "MB", "GB", "TB"])
}

fn scaled(bytes: u64, step: f64, units: &[&str]) -> String {
    #[expect(clippy::cast_precision_loss, reason = "four digits of it are shown")]
    let mut number = bytes as f64;
    let mut units = units.iter();
    let mut unit = units.next().copied().unwrap_or_default();
    for next in units {
        if number < step {
            break;
        }
        (number, unit) = (number / step, next);
    }
    // Four digits, and no zeros after the point.
    let places = match number {
        _ if number < 10.0 => 3,
        _ if number < 100.0 => 2,
        _ if number < 1000.0 => 1,
        _ => 0,
    };
    let text = format!("{number:.places$}");
    let text = match text.contains('.') {
        true => text.trim_end_matches('0').trim_end_matches('.'),
        false => &text,
    };
    format!("{text}{unit}")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn sizes_for_people() {
        for (bytes, text) in [
            (0, "0B"),
            (999, "999B"),
            (1000, "1000B"),
            (1024, "1KiB"),
            (1536, "1.5KiB"),
            (100 << 20, "100MiB"),
            (1 << 40, "1TiB"),
            (1 << 51, "2048TiB"),
        ] {
            assert_eq!(binary(bytes), text);
        }
        assert_eq!(decimal(1234), "1.234kB");
        assert_eq!(decimal(1_500_000), "1.5MB");
    }
}
