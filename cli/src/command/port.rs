//! `mydocker network port …`

use std::io;

use mydocker_core::{Change, EndpointId, PortBinding, Rejection, Request};

use super::App;
use crate::args::{ChangePorts, Format, ListPorts, PortCommand, Ports};
use crate::failure::{Failure, told};
use crate::report;

pub(super) fn run(app: &App, command: PortCommand) -> Result<(), Failure> {
    match command {
        PortCommand::Add(args) => change(app, args, |id, ports| Request::Publish { id, ports }),
        PortCommand::Rm(args) => change(app, args, |id, ports| Request::Unpublish { id, ports }),
        PortCommand::Ls(args) => list(app, args),
    }
}

/// Changes the ports of an endpoint and shows those that it has then.
fn change(
    app: &App,
    args: ChangePorts,
    request: fn(EndpointId, Vec<mydocker_core::PortSpec>) -> Request,
) -> Result<(), Failure> {
    let id = EndpointId {
        network: args.network,
        container: args.container,
    };
    let request = request(id, Ports::all(&args.ports));
    if let Some(format) = args.dry_run.dry_run {
        return app.dry_run(&[request], format);
    }
    let plan = app.apply(&request)?;
    if let Change::EndpointChanged(endpoint) = &plan.change {
        told(show(&endpoint.ports, args.format));
    }
    Ok(())
}

fn list(app: &App, args: ListPorts) -> Result<(), Failure> {
    let id = EndpointId {
        network: args.network,
        container: args.container,
    };
    let view = app.view()?;
    match view.state.endpoint(&id) {
        Some(endpoint) => Ok(show(&endpoint.ports, args.format)?),
        None => Err(Failure::refused(Rejection::EndpointUnknown(id))),
    }
}

fn show(ports: &[PortBinding], format: Format) -> io::Result<()> {
    match format {
        Format::Json => report::json(&ports),
        Format::Table => {
            let row = |port: &PortBinding| {
                vec![
                    port.host_ip.to_string(),
                    port.host_port.to_string(),
                    format!("{}/{}", port.container_port, port.protocol),
                ]
            };
            let rows: Vec<_> = ports.iter().map(row).collect();
            report::table(&["HOST IP", "HOST PORT", "CONTAINER PORT"], &rows)
        }
    }
}
