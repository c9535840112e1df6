//! `mydocker network …`

use std::collections::BTreeMap;

use mydocker_core::{
    AttachSpec, Change, ContainerName, EndpointId, Family, Netns, NetworkName, NetworkSpec,
    Request, State,
};

use super::{App, out_of_line, upkeep};
use crate::args::{
    Connect, Create, Disconnect, EndpointArgs, Format, Inspect, List, NetworkCommand,
    RemoveNetworks,
};
use crate::backend::Backend;
use crate::failure::{Failure, told};
use crate::report::{self, NetworkView};

pub(super) fn run(app: &App, command: NetworkCommand) -> Result<(), Failure> {
    match command {
        NetworkCommand::Create(create) => out_of_line(|| self::create(app, *create)),
        NetworkCommand::List(list) => out_of_line(|| self::list(app, &list)),
        NetworkCommand::Inspect(inspect) => out_of_line(|| self::inspect(app, &inspect)),
        NetworkCommand::Remove(remove) => out_of_line(|| self::remove(app, remove)),
        NetworkCommand::Connect(connect) => self::connect(app, *connect),
        NetworkCommand::Disconnect(disconnect) => self::disconnect(app, disconnect),
        NetworkCommand::Port(port) => out_of_line(|| super::port::run(app, port)),
        NetworkCommand::Log(log) => out_of_line(|| upkeep::log(app, &log)),
        NetworkCommand::Df(df) => out_of_line(|| upkeep::df(app, &df)),
        NetworkCommand::Prune(prune) => out_of_line(|| upkeep::prune(app, &prune)),
        NetworkCommand::Check(check) => out_of_line(|| upkeep::check(app, &check)),
        NetworkCommand::Repair(repair) => out_of_line(|| upkeep::repair(app, &repair)),
    }
}

fn create(app: &App, create: Create) -> Result<(), Failure> {
    let dry_run = create.dry_run.dry_run;
    let name = create.name.clone();
    let request = Request::CreateNetwork(spec_of(create)?);
    if let Some(format) = dry_run {
        return app.dry_run(&[request], format);
    }
    app.apply(&request)?;
    told(report::line(name));
    Ok(())
}

fn spec_of(create: Create) -> Result<NetworkSpec, Failure> {
    let mut spec = NetworkSpec {
        driver: create.driver,
        subnets: create.subnet,
        gateways: create.gateway,
        ip_ranges: create.ip_range,
        aux_addresses: once_each("--aux-address", create.aux_address)?,
        ipv6: create.ipv6,
        mtu_bytes: create.mtu,
        internal: create.internal,
        routes: create.route,
        labels: once_each("--label", create.label)?,
        ..NetworkSpec::new(create.name)
    };
    for (key, value) in once_each("--opt", create.opt)? {
        let on = || match value.as_str() {
            "true" => Ok(true),
            "false" => Ok(false),
            _ => Err(usage(format!(
                "option {key} is `{value}`: write true or false"
            ))),
        };
        match key.as_str() {
            "icc" => spec.icc = on()?,
            "isolate" => spec.isolate = on()?,
            "spoof" => {
                spec.spoof = match value.as_str() {
                    "allow" => true,
                    "deny" => false,
                    _ => {
                        let wrong = format!("option spoof is `{value}`: write allow or deny");
                        return Err(usage(wrong));
                    }
                }
            }
            "foreign-forward" => spec.foreign_forward = value.parse().map_err(usage)?,
            "gateway-mode" => {
                let mode = value.parse().map_err(usage)?;
                spec.gateway_modes = [(Family::V4, mode), (Family::V6, mode)].into();
            }
            // These come later, in the order of the alphabet, and so prevail.
            "gateway-mode-ipv4" => {
                let mode = value.parse().map_err(usage)?;
                spec.gateway_modes.insert(Family::V4, mode);
            }
            "gateway-mode-ipv6" => {
                let mode = value.parse().map_err(usage)?;
                spec.gateway_modes.insert(Family::V6, mode);
            }
            "trusted-interface" => {
                let names = value.split(',').map(str::parse);
                spec.trusted = names.collect::<Result<_, _>>().map_err(usage)?;
            }
            "bridge" => spec.bridge = Some(value.parse().map_err(usage)?),
            "mtu" => {
                let bytes = value.parse();
                let number = |_| usage(format!("option mtu is `{value}`: write a number of bytes"));
                spec.mtu_bytes = Some(bytes.map_err(number)?);
            }
            _ => {
                let known = "there are bridge, foreign-forward, gateway-mode, gateway-mode-ipv4, \
                             gateway-mode-ipv6, icc, isolate, mtu, spoof and trusted-interface";
                return Err(usage(format!(
                    "`{key}` is no option of a bridge network: {known}"
                )));
            }
        }
    }
    Ok(spec)
}

fn usage(message: impl std::fmt::Display) -> Failure {
    Failure::refused(message).with_code(2)
}

/// A map of pairs, none of which is given twice.
fn once_each<V>(flag: &str, pairs: Vec<(String, V)>) -> Result<BTreeMap<String, V>, Failure> {
    let mut map = BTreeMap::new();
    for (key, value) in pairs {
        if map.insert(key.clone(), value).is_some() {
            return Err(usage(format!("{flag} {key} is given twice: give it once")));
        }
    }
    Ok(map)
}

fn list(app: &App, list: &List) -> Result<(), Failure> {
    let view = app.view()?;
    let state = &view.state;
    if list.quiet {
        for network in state.networks() {
            report::line(&network.name)?;
        }
        return Ok(());
    }
    match list.format {
        Format::Json => {
            let networks: Vec<_> = state
                .networks()
                .map(|network| NetworkView::of(state, network))
                .collect();
            report::json(&networks)?;
        }
        Format::Table => {
            let rows: Vec<_> = state
                .networks()
                .map(|network| report::network_row(state, network))
                .collect();
            report::table(&["NAME", "IPRANGE", "DRIVER", "BRIDGE", "ENDPOINTS"], &rows)?;
        }
    }
    Ok(())
}

fn inspect(app: &App, inspect: &Inspect) -> Result<(), Failure> {
    let view = app.view()?;
    let mut found = Vec::new();
    for name in &inspect.name {
        let network = view
            .state
            .network(name)
            .ok_or_else(|| Failure::refused(format!("there is no network `{name}`")))?;
        found.push(NetworkView::of(&view.state, network));
    }
    Ok(report::json(&found)?)
}

fn remove(app: &App, remove: RemoveNetworks) -> Result<(), Failure> {
    if remove.force {
        return remove_with_all(app, &remove);
    }
    let requests: Vec<_> = remove
        .name
        .iter()
        .cloned()
        .map(Request::RemoveNetwork)
        .collect();
    if let Some(format) = remove.dry_run.dry_run {
        return app.dry_run(&requests, format);
    }
    for (name, request) in remove.name.iter().zip(&requests) {
        app.apply(request)?;
        told(report::line(name));
    }
    Ok(())
}

/// Takes everybody off the networks first. One that is not there is removed already.
fn remove_with_all(app: &App, remove: &RemoveNetworks) -> Result<(), Failure> {
    if let Some(format) = remove.dry_run.dry_run {
        let asks = remove.name.iter();
        let asks = asks.map(|name| |_: &mut Backend, state: &State| state.removal(name));
        let plans = app.engine()?.plan_each(asks)?;
        return App::print(&plans, format);
    }
    for name in &remove.name {
        app.carry_out(|engine| engine.apply_with(|_, state| state.removal(name)))?;
        told(report::line(name));
    }
    Ok(())
}

fn connect(app: &App, connect: Connect) -> Result<(), Failure> {
    let netns = match (connect.netns, connect.pid) {
        (Some(netns), _) => netns,
        (None, Some(pid)) => format!("/proc/{pid}/ns/net")
            .parse::<Netns>()
            .map_err(usage)?,
        (None, None) => return Err(usage("name the container's namespace: --netns or --pid")),
    };
    let spec = AttachSpec {
        ifname: connect.ifname,
        default_route: !connect.no_default_route,
        metric: connect.metric,
        ..attach_spec(connect.network, connect.container, netns, connect.endpoint)
    };
    let request = Request::Attach(spec);
    if let Some(format) = connect.dry_run.dry_run {
        return app.dry_run(&[request], format);
    }
    let plan = app.apply(&request)?;
    if let Change::EndpointAdded(endpoint) = &plan.change {
        told(match connect.format {
            Format::Json => report::json(endpoint),
            Format::Table => report::line(report::endpoint(endpoint)),
        });
    }
    Ok(())
}

/// What `connect` and `run` ask for alike.
pub(super) fn attach_spec(
    network: NetworkName,
    container: ContainerName,
    netns: Netns,
    args: EndpointArgs,
) -> AttachSpec {
    AttachSpec {
        ports: args.ports(),
        addresses: args.ip,
        mac: args.mac_address,
        ..AttachSpec::new(network, container, netns)
    }
}

fn disconnect(app: &App, disconnect: Disconnect) -> Result<(), Failure> {
    let Disconnect {
        network,
        container,
        dry_run,
    } = disconnect;
    let detach = |container| {
        let network = network.clone();
        Request::Detach(EndpointId { network, container })
    };
    let requests: Vec<Request> = container.into_iter().map(detach).collect();
    match dry_run.dry_run {
        Some(format) => App::print(&app.engine()?.plan_batch(&requests)?, format),
        None => app
            .carry_out(|engine| engine.apply_batch(&requests))
            .map(drop),
    }
}
