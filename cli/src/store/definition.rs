//! Definition: a network as it outlives a reboot, one JSON file each.

use std::collections::BTreeSet;
use std::path::PathBuf;

use mydocker_core::{Change, Network, NetworkName};
use serde::{Deserialize, Serialize};

use super::StoreError;
use super::dir::{Dir, Durability};
use super::error::{DEFINITION_REMEDY, io};
use super::record::FORMAT;
use super::tables::Format;

const SUFFIX: &str = ".json";

#[derive(Deserialize, Serialize)]
struct Definition {
    format: u64,
    network: Network,
}

fn file_name(name: &NetworkName) -> String {
    format!("{name}{SUFFIX}")
}

/// The networks that have a definition. What is not called as one is left alone.
pub(super) fn names(dir: &Dir) -> Result<BTreeSet<NetworkName>, StoreError> {
    let names = dir.names()?;
    let stems = names.iter().filter_map(|name| name.strip_suffix(SUFFIX));
    Ok(stems.filter_map(|stem| stem.parse().ok()).collect())
}

/// Reads a definition, `None` if there is none.
pub(super) fn read(dir: &Dir, name: &NetworkName) -> Result<Option<Network>, StoreError> {
    let file = file_name(name);
    let path = dir.path_of(&file);
    match dir.read(&file)? {
        Some(bytes) => parse(path, name, &bytes).map(Some),
        None => Ok(None),
    }
}

/// What a definition at that path says.
pub(super) fn parse(
    path: PathBuf,
    name: &NetworkName,
    bytes: &[u8],
) -> Result<Network, StoreError> {
    let damaged = |offset: usize, what: String| StoreError::Damaged {
        path: path.clone(),
        offset: offset as u64,
        what,
        remedy: DEFINITION_REMEDY,
    };
    let unreadable =
        |error: serde_json::Error| damaged(offset_of(bytes, &error), error.to_string());
    let Format { format } = serde_json::from_slice(bytes).map_err(unreadable)?;
    if format > FORMAT {
        let known = FORMAT;
        return Err(StoreError::TooNew {
            path,
            format,
            known,
        });
    }
    let Definition { network, .. } = serde_json::from_slice(bytes).map_err(unreadable)?;
    if network.name != *name {
        let what = format!("it defines network `{}`", network.name);
        return Err(damaged(0, what));
    }
    Ok(network)
}

/// That the definitions can follow a change, before anything is done about it.
pub(super) fn check(dir: &Dir, change: &Change) -> Result<(), StoreError> {
    match change {
        Change::NetworkAdded(network) => {
            // One that is there and was not adopted can't be read: it is not ours to replace.
            read(dir, &network.name)?;
            dir.check_writable()
        }
        Change::NetworkRemoved(_) => dir.check_writable(),
        Change::Several(changes) => changes.iter().try_for_each(|change| check(dir, change)),
        Change::EndpointAdded(_)
        | Change::EndpointRemoved(_)
        | Change::EndpointChanged(_)
        | Change::Repaired => Ok(()),
    }
}

/// Writes a definition; it outlives a loss of power when this returns.
pub(super) fn write(dir: &Dir, network: &Network) -> Result<(), StoreError> {
    let file = file_name(&network.name);
    let text = to_text(network).map_err(io("write", &dir.path_of(&file)))?;
    dir.replace(&file, &text, Durability::Disk)
}

/// A definition as it is written.
pub(super) fn to_text(network: &Network) -> std::io::Result<Vec<u8>> {
    let definition = Definition {
        format: FORMAT,
        network: network.clone(),
    };
    Ok(serde_json::to_vec_pretty(&definition)?)
}

/// Removes a definition; succeeds when there is none.
pub(super) fn remove(dir: &Dir, name: &NetworkName) -> Result<(), StoreError> {
    dir.remove(&file_name(name), Durability::Disk)
}

/// Where in the text an error was found.
fn offset_of(bytes: &[u8], error: &serde_json::Error) -> usize {
    let lines = bytes.split_inclusive(|byte| *byte == b'\n');
    let before: usize = lines
        .take(error.line().saturating_sub(1))
        .map(<[u8]>::len)
        .sum();
    before + error.column().saturating_sub(1)
}
