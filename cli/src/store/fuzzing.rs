//! What reads the files of the store, from bytes instead: a way in for fuzzing, and no part of the
//! interface.

use std::fs::File;
use std::os::unix::fs::FileExt;

use mydocker_core::{Instance, Network, NetworkName, Plan, State};

use super::begun::{self, Last};
use super::checksum;
use super::legacy::journal::{self, Header, Kind};
use super::record::encode;
use super::tables::{Kept, Subject, Tables};
use super::{Access, Event, definition, history, tree};

fn subject() -> Subject {
    Subject {
        boot_id: "fuzz".into(),
        instance: Instance::DEFAULT,
    }
}

/// A file of format 2, of records with these payloads behind its header, checksums and all: a journal,
/// or a snapshot.
#[must_use]
pub fn records<'p>(journal: bool, payloads: impl IntoIterator<Item = &'p [u8]>) -> Vec<u8> {
    let header = Header {
        format: 2,
        kind: if journal {
            Kind::Journal
        } else {
            Kind::Snapshot
        },
        boot_id: subject().boot_id,
        generation: 1,
    };
    let record = |payload: &[u8]| encode(payload, checksum::crc32);
    let payloads = payloads.into_iter().filter_map(record).flatten();
    let header = serde_json::to_vec(&header).unwrap_or_default();
    let header = record(&header).unwrap_or_default();
    header.into_iter().chain(payloads).collect()
}

/// What the files `state` and `journal` of format 2 lead to.
///
/// # Errors
/// What is wrong with them, in words.
pub fn run(snapshot: Vec<u8>, journal: Vec<u8>) -> Result<Option<State>, String> {
    journal::parse(snapshot, journal, &subject()).map_err(|error| error.to_string())
}

/// The file `state` that holds a state.
///
/// # Errors
/// It can't be written, in words.
pub fn tables(state: &State) -> Result<Vec<u8>, String> {
    let file = memory()?;
    let (again, path) = (file.try_clone().map_err(text)?, "state".into());
    let subject = Subject {
        instance: state.instance(),
        ..subject()
    };
    drop(Tables::put(again, path, &subject, state, 0).map_err(text)?);
    let mut bytes = vec![0; usize::try_from(file.metadata().map_err(text)?.len()).map_err(text)?];
    file.read_exact_at(&mut bytes, 0).map_err(text)?;
    Ok(bytes)
}

/// Gives a file `state` the checksums that it would have.
pub fn seal(bytes: &mut [u8]) {
    tree::seal(bytes);
}

/// What the file `state` leads to, once read as a whole and once what can be read of it; nothing if it
/// is of another boot or an older format.
///
/// # Errors
/// What is wrong with it, in words.
pub fn read_tables(
    instance: Instance,
    bytes: &[u8],
) -> Result<Option<(State, Option<State>)>, String> {
    let file = memory()?;
    file.write_all_at(bytes, 0).map_err(text)?;
    let subject = Subject {
        instance,
        ..subject()
    };
    match Tables::of(file, "state".into(), Access::Read, &subject).map_err(text)? {
        Kept::Tables(mut tables) => Ok(Some((tables.whole(None).map_err(text)?, tables.salvage()))),
        Kept::Older(tables) => Ok(Some((tables.whole(None).map_err(text)?, tables.salvage()))),
        Kept::Nothing | Kept::Stale | Kept::Journal => Ok(None),
    }
}

fn memory() -> Result<File, String> {
    let memory = rustix::fs::memfd_create("state", rustix::fs::MemfdFlags::CLOEXEC);
    memory.map(File::from).map_err(text)
}

fn text(error: impl ToString) -> String {
    error.to_string()
}

/// The plan in a file `plan`, if it is all there.
///
/// # Errors
/// What is wrong with it, in words.
pub fn plan(bytes: &[u8]) -> Result<Option<Plan>, String> {
    match begun::parse("plan".into(), bytes).map_err(text)? {
        Last::Begun(begun) => begun.plan().map(Some).map_err(text),
        Last::Missing | Last::Incomplete => Ok(None),
    }
}

/// What a definition of the network of that name says.
///
/// # Errors
/// What is wrong with it, in words.
pub fn definition(name: &NetworkName, bytes: &[u8]) -> Result<Network, String> {
    definition::parse("fuzz.json".into(), name, bytes).map_err(|error| error.to_string())
}

/// A definition as it is written.
#[must_use]
pub fn define(network: &Network) -> Vec<u8> {
    definition::to_text(network).unwrap_or_default()
}

/// The state of an instance that has these networks' definitions and nothing else, as after a reboot.
///
/// # Errors
/// What is wrong with them together, in words.
pub fn adopt(networks: Vec<Network>) -> Result<State, String> {
    let state = State::new(subject().instance);
    super::with_networks(&state, networks).map_err(|error| error.to_string())
}

/// The events in a log, and how many of its lines are none.
#[must_use]
pub fn history(bytes: &[u8]) -> (Vec<Event>, usize) {
    let mut events = Vec::new();
    let unreadable = history::parse(bytes, &mut events);
    (events, unreadable)
}

/// An event as it is written.
#[must_use]
pub fn remember(event: &Event) -> Vec<u8> {
    history::to_line(event).unwrap_or_default()
}
