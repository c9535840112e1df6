//! `mydocker logs`

use std::io::{self, Write};
use std::time::SystemTime;

use mydocker::container::{LogLine, LogReader, LogWatch, Status, Stream};

use super::App;
use super::container::tidy;
use crate::args::Logs;
use crate::failure::{Failure, note, warn};

pub(super) fn logs(app: &App, logs: &Logs) -> Result<(), Failure> {
    let containers = app.containers()?;
    tidy(&containers)?;
    let record = containers.find(&logs.container)?;
    let path = containers.log_path(&record.id);
    let Some(mut reader) = LogReader::open(&path, logs.tail.0)? else {
        if !record.spec.detached {
            let name = &record.name;
            note(format!(
                "container {name} ran in the foreground, where its output went; it is logged after `mydocker \
                 start {name}`"
            ));
        }
        return Ok(());
    };
    // Made before anything is read, so that nothing comes between.
    let watch = match logs.follow && record.status() != Status::Exited {
        true => Some(LogWatch::new(&path, &record.supervisor)?),
        false => None,
    };
    let (mut damaged, mut goes_on) = (0_u64, watch.is_some());
    loop {
        match reader.read_next() {
            Ok(Some(line))
                if logs.follow && logs.until.is_some_and(|until| is_after(&line, until)) =>
            {
                break;
            }
            Ok(Some(line)) => show(logs, &line)?,
            Err(error) => {
                damaged += 1;
                warn(format!("{error:#}"));
            }
            Ok(None) => {
                io::stdout().flush()?;
                match &watch {
                    // Read once more after the end: what was written last may have come since.
                    Some(watch) if goes_on => goes_on = watch.wait()?,
                    Some(_) | None => break,
                }
            }
        }
    }
    // While somebody writes, the other half may be on its way.
    if record.status() == Status::Exited
        && let Err(error) = reader.end()
    {
        damaged += 1;
        warn(format!("{error:#}"));
    }
    match damaged {
        0 => Ok(()),
        1 => Err(Failure::refused("one line of the log can't be read")),
        many => Err(Failure::refused(format!(
            "{many} lines of the log can't be read"
        ))),
    }
}

/// Whether an entry is newer; one whose time can't be read is not.
fn is_after(line: &LogLine, moment: SystemTime) -> bool {
    humantime::parse_rfc3339(&line.time).is_ok_and(|time| time > moment)
}

/// Prints an entry, unless it is older or newer than what was asked for.
fn show(logs: &Logs, line: &LogLine) -> Result<(), Failure> {
    let is_before = |moment| {
        let time = humantime::parse_rfc3339(&line.time);
        time.is_ok_and(|time| time < moment)
    };
    let is_outside =
        logs.since.is_some_and(is_before) || logs.until.is_some_and(|until| is_after(line, until));
    if is_outside {
        return Ok(());
    }
    let mut text = String::new();
    if logs.timestamps {
        text = format!("{} ", line.time);
    }
    text += &line.log;
    match line.stream {
        Stream::Stdout => io::stdout().write_all(text.as_bytes())?,
        Stream::Stderr => io::stderr().write_all(text.as_bytes())?,
    }
    Ok(())
}
