//! `mydocker run`

use std::fmt::Display;

use anyhow::anyhow;
use mydocker::container::{
    self, Capabilities, Confinement, Failure as StartFailure, Id, Limits, Names, NetworkMode, Spec,
    Started, Status, check_name, find_runtime, parse_memory,
};
use mydocker::image::{ImageName, Images};
use mydocker_core::Netns;

use super::App;
use super::container::tidy;
use crate::args::{self, PlanFormat, Run};
use crate::attachment::{self, Joining};
use crate::failure::{Failure, told, warn};
use crate::report;

/// What Docker exits with when a container could not be set up.
const NOT_SET_UP: u8 = 125;
/// Most names of a container beside its own.
const ALIASES_MAX: usize = 256;
/// How a word begins that names a container instead of a network.
const OTHER: &str = "container:";

pub(super) fn run(app: &App, mut run: Run) -> Result<u8, Failure> {
    let dry_run = run.dry_run.dry_run;
    let (mode, joining) = networks(app, &run)?;
    if let NetworkMode::Container(other) = &mode {
        run.hostname = app.containers()?.find(other.as_str())?.spec.hostname;
    }
    let spec = spec_of(run, mode, &joining).map_err(|error| Failure::from(error).with_code(2))?;
    if let Some(format) = dry_run {
        return plan(app, &spec, joining, format).map(|()| 0);
    }
    app.needs_a_kernel()?;
    let containers = app.containers()?;
    tidy(&containers)?;
    let started = container::run(&containers, spec, &attachment::make);
    let started = started.map_err(Failure::of_start)?;
    if let Started::Detached(id) = &started {
        told(report::line(id));
    }
    Ok(exit_code(&started))
}

/// What a command exits with that has shown a container, or started one in the background.
pub(super) fn exit_code(started: &Started) -> u8 {
    match started {
        Started::Detached(_) => 0,
        Started::Finished {
            exit_code, trouble, ..
        } => {
            trouble.iter().for_each(warn);
            *exit_code
        }
    }
}

impl App {
    /// Refuses to run a container on a model.
    pub(super) fn needs_a_kernel(&self) -> Result<(), Failure> {
        if self.backend != args::Backend::Record {
            return Ok(());
        }
        let message = "a container runs on a real kernel only, and the executor is `record`";
        Err(Failure::refused(message)
            .with_code(NOT_SET_UP)
            .with_hint("`mydocker network connect` plays the container's part on the model"))
    }
}

impl Failure {
    /// A program could not be started: the exit code says so, as Docker's does.
    pub(super) fn of_start(error: anyhow::Error) -> Self {
        let code = error
            .downcast_ref()
            .map(|failure: &StartFailure| failure.exit_code);
        Self::from(error).with_code(code.unwrap_or(NOT_SET_UP))
    }
}

/// What is wrong with the command line.
fn usage(message: impl Display) -> Failure {
    Failure::refused(message).with_code(2)
}

/// Which namespace, and which networks are joined how.
fn networks(app: &App, run: &Run) -> Result<(NetworkMode, Vec<Joining>), Failure> {
    let words: Vec<&str> = run.net.iter().map(String::as_str).collect();
    let mode = match words[..] {
        ["none"] => Some(NetworkMode::None),
        ["host"] => Some(NetworkMode::Host),
        [word] if let Some(name) = word.strip_prefix(OTHER) => {
            check_alone(run)?;
            check_shared(run, word)?;
            return Ok((NetworkMode::Container(running(app, name)?), Vec::new()));
        }
        _ if words
            .iter()
            .any(|word| ["none", "host"].contains(word) || word.starts_with(OTHER)) =>
        {
            return Err(usage(
                "--net none, --net host and --net container:NAME go with no other network",
            ));
        }
        _ => None,
    };
    if let Some(mode) = mode {
        check_alone(run)?;
        return Ok((mode, Vec::new()));
    }
    let asked = &run.endpoint;
    if words.len() > 1 && (!asked.ip.is_empty() || asked.mac_address.is_some()) {
        return Err(usage(
            "--ip and --mac-address go with one network: use network connect",
        ));
    }
    if run.network_alias.len() > ALIASES_MAX {
        let count = run.network_alias.len();
        return Err(usage(format!(
            "{count} network aliases are more than {ALIASES_MAX}"
        )));
    }
    for alias in &run.network_alias {
        check_name("network alias", alias).map_err(usage)?;
    }
    let mut joining = Vec::new();
    for (index, word) in words.iter().enumerate() {
        let network = word.parse().map_err(usage)?;
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
            aliases: run.network_alias.clone(),
        });
    }
    Ok((NetworkMode::Attached, joining))
}

/// Refuses what only a network can give.
fn check_alone(run: &Run) -> Result<(), Failure> {
    let asked = &run.endpoint;
    if !asked.publish.is_empty()
        || !asked.ip.is_empty()
        || asked.mac_address.is_some()
        || !run.network_alias.is_empty()
    {
        return Err(usage(
            "-p, --ip, --mac-address and --network-alias need a network: give --net NETWORK",
        ));
    }
    if run.add_host.iter().any(|host| host.address.is_none()) {
        return Err(usage(
            "--add-host NAME:host-gateway needs a network: give --net NETWORK",
        ));
    }
    Ok(())
}

/// Refuses what the container whose network is shared has said already.
fn check_shared(run: &Run, word: &str) -> Result<(), Failure> {
    let given = [
        ("--hostname", run.hostname.is_some()),
        ("--dns", !run.dns.is_empty()),
        ("--dns-search", !run.dns_search.is_empty()),
        ("--add-host", !run.add_host.is_empty()),
    ];
    match given.iter().find(|(_, given)| *given) {
        Some((flag, _)) => Err(usage(format!(
            "{flag} does not go with --net {word}, which has that container's names"
        ))),
        None => Ok(()),
    }
}

/// The container of that name, if it runs.
fn running(app: &App, name: &str) -> Result<Id, Failure> {
    let not_set_up = |error: anyhow::Error| Failure::from(error).with_code(NOT_SET_UP);
    let record = app.containers()?.find(name).map_err(not_set_up)?;
    match record.status() {
        Status::Running => Ok(record.id),
        status @ (Status::Created | Status::Exited) => Err(not_set_up(anyhow!(
            "container {} is {status}: only the network of a running container can be joined",
            record.name
        ))),
    }
}

fn spec_of(run: Run, mode: NetworkMode, joining: &[Joining]) -> anyhow::Result<Spec> {
    let image: ImageName = run.image.parse()?;
    let limits = limits(&run)?;
    let mut confinement = Confinement {
        capabilities: Capabilities {
            add: run.cap_add,
            drop: run.cap_drop,
        },
        read_only: run.read_only,
        ..Confinement::default()
    };
    for option in &run.security_opt {
        confinement.set(option)?;
    }
    let mut spec = Spec {
        name: run.name,
        // An empty one takes the image's away.
        entrypoint: run
            .entrypoint
            .map(|program| Vec::from_iter((!program.is_empty()).then_some(program))),
        command: run.command,
        user: run.user.filter(|user| !user.is_empty()),
        env: run.variables.read()?,
        hostname: run.hostname,
        names: Names {
            servers: run.dns,
            search: run.dns_search,
            hosts: run.add_host,
        },
        volumes: run
            .volume
            .iter()
            .map(|volume| volume.parse())
            .collect::<Result<_, _>>()?,
        limits,
        confinement,
        runtime: run.runtime.as_deref().map(find_runtime).transpose()?,
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
    spec.workdir = run.workdir.map(Into::into);
    spec.check()?;
    Ok(spec)
}

fn limits(run: &Run) -> anyhow::Result<Limits> {
    let pids_max = match run.pids_limit {
        None | Some(-1 | 0) => None,
        Some(limit) => Some(u32::try_from(limit).map_err(|_| {
            anyhow!("a limit of {limit} processes is out of range: give -1 for no limit")
        })?),
    };
    Ok(Limits {
        memory_bytes: run.memory.as_deref().map(parse_memory).transpose()?,
        cpu_percent: run.cpus.or(run.cpu),
        // As by Docker, none is the default.
        cpu_shares: run.cpu_shares.filter(|shares| *shares != 0),
        cpuset: run.cpuset_cpus.clone(),
        pids_max,
        ulimits: run.ulimit.clone(),
    })
}

/// Prints what joining the networks would do. The container is called as it is named, or after
/// its image while it has no id.
fn plan(app: &App, spec: &Spec, joining: Vec<Joining>, format: PlanFormat) -> Result<(), Failure> {
    if !Images::new(&app.roots.root).has(&spec.image)? {
        warn(format!("there is no image `{}`", spec.image));
    }
    let container = match &spec.name {
        Some(name) => name.clone(),
        None => spec.image.base().parse().map_err(Failure::refused)?,
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
