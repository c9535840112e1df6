//! `mydocker inspect` and `port`: what is known of containers

use std::net::SocketAddr;
use std::path::PathBuf;

use mydocker::container::{Containers, Id, Process, Record, Spec, Status};
use mydocker_core::{ContainerName, Endpoint, PortBinding, Protocol};
use serde::Serialize;

use super::App;
use super::container::tidy;
use super::each::each;
use super::endpoints::Endpoints;
use super::ps::rfc3339;
use crate::args::{ContainerPorts, InspectContainers, OnlyJson};
use crate::failure::Failure;
use crate::report;

/// Prints one array of those that are there, also when others are not.
pub(super) fn inspect(app: &App, inspect: &InspectContainers) -> Result<(), Failure> {
    let containers = app.containers()?;
    tidy(&containers)?;
    let endpoints = Endpoints::now(app);
    let mut views = Vec::new();
    let inspected = each(&inspect.container, |text| {
        let record = containers.find(text)?;
        let networks = endpoints.of(&containers, &record);
        views.push(View::of(&containers, record, networks));
        Ok(())
    });
    match inspect.format {
        OnlyJson::Json => report::json(&views)?,
    }
    inspected
}

/// A container, whole.
#[derive(Serialize)]
struct View<'e> {
    id: Id,
    name: ContainerName,
    created: String,
    state: State,
    /// Where it is now.
    networks: Vec<&'e Endpoint>,
    network_namespace: Option<PathBuf>,
    mounts: Vec<Mount>,
    log: PathBuf,
    /// What it was run with.
    spec: Spec,
}

#[derive(Serialize)]
struct State {
    status: Status,
    pid: Option<i32>,
    supervisor_pid: Option<i32>,
    exit_code: Option<u8>,
    started: Option<String>,
    finished: Option<String>,
    error: Option<String>,
}

#[derive(Serialize)]
struct Mount {
    r#type: &'static str,
    source: PathBuf,
    target: PathBuf,
    read_only: bool,
}

impl<'e> View<'e> {
    fn of(containers: &Containers, record: Record, networks: Vec<&'e Endpoint>) -> Self {
        let pin = containers.netns(&record.id);
        Self {
            created: rfc3339(record.created_unix_s),
            state: State::of(&record),
            networks,
            network_namespace: pin.exists().then_some(pin),
            mounts: mounts(containers, &record),
            log: containers.log_path(&record.id),
            id: record.id,
            name: record.name,
            spec: record.spec,
        }
    }
}

impl State {
    fn of(record: &Record) -> Self {
        let status = record.status();
        let has_ended = status == Status::Exited;
        let supervisor = Some(&record.supervisor).filter(|process| process.is_alive());
        Self {
            status,
            pid: record.pid(),
            supervisor_pid: supervisor.map(|&Process { pid, .. }| pid),
            exit_code: record.exit_code.filter(|_| has_ended),
            started: record.started_unix_s.map(rfc3339),
            finished: record.finished_unix_s.filter(|_| has_ended).map(rfc3339),
            error: record.error.clone(),
        }
    }
}

/// The root filesystem and the volumes.
fn mounts(containers: &Containers, record: &Record) -> Vec<Mount> {
    let root = Mount {
        r#type: "overlay",
        source: containers.root_of(&record.id),
        target: "/".into(),
        read_only: false,
    };
    let volumes = record.spec.volumes.iter().map(|volume| Mount {
        r#type: "bind",
        source: volume.source.clone(),
        target: volume.target.clone(),
        read_only: volume.read_only,
    });
    std::iter::once(root).chain(volumes).collect()
}

/// Prints `80/tcp -> 0.0.0.0:8080` of each port, or where one of them is published.
pub(super) fn port(app: &App, args: &ContainerPorts) -> Result<(), Failure> {
    let wanted = args.port.as_deref().map(parse_port).transpose()?;
    let containers = app.containers()?;
    tidy(&containers)?;
    let record = containers.find(&args.container)?;
    let name = &record.name;
    if record.status() != Status::Running {
        return Err(Failure::refused(format!(
            "container {name} does not run: it has no published ports"
        )));
    }
    let endpoints = Endpoints::now(app);
    let endpoints = endpoints.of(&containers, &record);
    let mut ports: Vec<&PortBinding> = endpoints.iter().flat_map(|one| &one.ports).collect();
    ports.sort_by_key(|port| (port.container_port, port.protocol, port.host_port));
    let Some((number, protocol)) = wanted else {
        for port in ports {
            let (inside, outside) = (inside(port), outside(port));
            report::line(format!("{inside} -> {outside}"))?;
        }
        return Ok(());
    };
    ports.retain(|port| (port.container_port, port.protocol) == (number, protocol));
    if ports.is_empty() {
        return Err(Failure::refused(format!(
            "port {number}/{protocol} of container {name} is not published"
        ))
        .with_hint(format!("`mydocker port {name}` shows those that are")));
    }
    for port in ports {
        report::line(outside(port))?;
    }
    Ok(())
}

fn inside(port: &PortBinding) -> String {
    format!("{}/{}", port.container_port, port.protocol)
}

fn outside(port: &PortBinding) -> String {
    SocketAddr::new(port.host_ip, port.host_port).to_string()
}

/// `80`, `53/udp`
fn parse_port(text: &str) -> Result<(u16, Protocol), Failure> {
    let (number, protocol) = text.split_once('/').unwrap_or((text, "tcp"));
    let number = number.parse().ok().filter(|number| *number != 0);
    let mut known = [Protocol::Tcp, Protocol::Udp, Protocol::Sctp].into_iter();
    let protocol = known.find(|known| known.to_string() == protocol);
    number.zip(protocol).ok_or_else(|| {
        let wrong = format!("`{text}` is not PORT[/tcp|/udp|/sctp], PORT from 1 to 65535");
        Failure::refused(wrong).with_code(2)
    })
}
