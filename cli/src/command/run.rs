//! `mydocker run`

use std::process::ExitCode;

use mydocker::container::{
    self, Failure as StartFailure, Limits, NetworkMode, Spec, Started, parse_memory,
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
    spec.workdir = run.workdir.map(Into::into);
    spec.check()?;
    Ok(spec)
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
