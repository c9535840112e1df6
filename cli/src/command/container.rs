//! `mydocker run`, `ps`, `stop`, `rm` and `logs`

use std::io::{self, Write};
use std::process::ExitCode;
use std::time::{Duration, UNIX_EPOCH};

use mydocker::container::{
    self, Containers, Failure as StartFailure, Limits, NetworkMode, Record, Spec, Started, Status,
    Stream, parse_memory, read_log,
};
use mydocker::image::{ImageName, Images};
use mydocker_core::{Endpoint, Netns};
use serde::Serialize;

use super::App;
use crate::args::{self, Format, Logs, Ps, Remove, Run, Stop};
use crate::attachment::{self, Joining};
use crate::failure::{Failure, told, warn};
use crate::report;

/// What Docker exits with when a container could not be set up.
const NOT_SET_UP: u8 = 125;

pub(super) fn run(app: &App, run: Run) -> Result<ExitCode, Failure> {
    let dry_run = run.dry_run.dry_run;
    let (mode, joining) = networks(&run)?;
    let spec = spec_of(run, mode, &joining).map_err(|error| Failure::from(error).with_code(2))?;
    if let Some(format) = dry_run {
        return plan(app, &spec, joining, format).map(|()| ExitCode::SUCCESS);
    }
    if app.backend == args::Backend::Record {
        let message = "a container runs on a real kernel only, and the executor is `record`";
        return Err(Failure::refused(message)
            .with_code(NOT_SET_UP)
            .with_hint("`mydocker network connect` plays the container's part on the model"));
    }
    let containers = app.containers()?;
    tidy(&containers)?;
    match container::run(&containers, spec, &attachment::make) {
        Ok(Started::Detached(id)) => {
            told(report::line(id));
            Ok(ExitCode::SUCCESS)
        }
        Ok(Started::Finished {
            exit_code, trouble, ..
        }) => {
            trouble.iter().for_each(warn);
            Ok(ExitCode::from(exit_code))
        }
        Err(error) => {
            let code = error
                .downcast_ref()
                .map(|failure: &StartFailure| failure.exit_code);
            Err(Failure::from(error).with_code(code.unwrap_or(NOT_SET_UP)))
        }
    }
}

/// Which namespace, and which networks are joined how.
fn networks(run: &Run) -> Result<(NetworkMode, Vec<Joining>), Failure> {
    let usage = |message: &str| Failure::refused(message).with_code(2);
    let words: Vec<&str> = run.net.iter().map(String::as_str).collect();
    let mode = match words[..] {
        ["none"] => NetworkMode::None,
        ["host"] => NetworkMode::Host,
        _ if words.contains(&"none") || words.contains(&"host") => {
            return Err(usage("--net none and --net host go with no other network"));
        }
        _ => NetworkMode::Attached,
    };
    let asked = &run.endpoint;
    if mode != NetworkMode::Attached {
        if !asked.publish.is_empty() || !asked.ip.is_empty() || asked.mac_address.is_some() {
            return Err(usage(
                "-p, --ip and --mac-address need a network: give --net NETWORK",
            ));
        }
        return Ok((mode, Vec::new()));
    }
    if words.len() > 1 && (!asked.ip.is_empty() || asked.mac_address.is_some()) {
        return Err(usage(
            "--ip and --mac-address go with one network: use network connect",
        ));
    }
    let mut joining = Vec::new();
    for (index, word) in words.iter().enumerate() {
        let network = word
            .parse()
            .map_err(|error| Failure::refused(error).with_code(2))?;
        let addresses = asked.ip.clone();
        // The first network is the way out, and so the way in.
        let ports = if index == 0 {
            asked.ports()
        } else {
            Vec::new()
        };
        joining.push(Joining {
            network,
            addresses,
            mac: asked.mac_address,
            ports,
        });
    }
    Ok((mode, joining))
}

fn spec_of(run: Run, mode: NetworkMode, joining: &[Joining]) -> anyhow::Result<Spec> {
    let image: ImageName = run.image.parse()?;
    let mut spec = Spec {
        name: run.name,
        command: run.command,
        env: run.env,
        hostname: run.hostname,
        volumes: run
            .volume
            .iter()
            .map(|volume| volume.parse())
            .collect::<Result<_, _>>()?,
        limits: Limits {
            memory_bytes: run.memory.as_deref().map(parse_memory).transpose()?,
            cpu_percent: run.cpu,
            cpuset: run.cpuset_cpus,
        },
        terminal: run.tty,
        interactive: run.interactive,
        detached: run.detach,
        auto_remove: run.rm,
        network: mode,
        networks: joining
            .iter()
            .map(|joining| joining.network.to_string())
            .collect(),
        attachments: serde_json::to_value(joining)?,
        ..Spec::new(image)
    };
    if let Some(workdir) = run.workdir {
        spec.workdir = workdir.into();
    }
    spec.check()?;
    Ok(spec)
}

/// Prints what joining the networks would do. The container is called as it is named, or after
/// its image while it has no id.
fn plan(
    app: &App,
    spec: &Spec,
    joining: Vec<Joining>,
    format: args::PlanFormat,
) -> Result<(), Failure> {
    let archive = Images::new(&app.roots.root).archive(&spec.image);
    if !archive.exists() {
        warn(format!(
            "there is no image `{}`: {} is missing",
            spec.image,
            archive.display()
        ));
    }
    let container = match &spec.name {
        Some(name) => name.clone(),
        None => spec.image.as_str().parse().map_err(Failure::refused)?,
    };
    let netns = app.roots.run_root.join("netns").join(container.as_str());
    let netns: Netns = netns
        .to_string_lossy()
        .into_owned()
        .try_into()
        .map_err(Failure::refused)?;
    let request = |joining: Joining| joining.request(container.clone(), netns.clone());
    let requests: Vec<_> = joining.into_iter().map(request).collect();
    app.dry_run(&requests, format)
}

impl App {
    fn containers(&self) -> Result<Containers, Failure> {
        Ok(Containers::open(&self.roots.root, &self.roots.run_root)?)
    }
}

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

/// Takes down those whose supervisor was killed: they are not shown as what they were, and their
/// addresses and ports come back.
fn tidy(containers: &Containers) -> Result<(), Failure> {
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
    format: args::PlanFormat,
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
