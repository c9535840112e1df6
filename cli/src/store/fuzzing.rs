//! What reads the files of the store, from bytes instead: a way in for fuzzing, and no part of the
//! interface.

use mydocker_core::{Instance, Network, NetworkName, State};

use super::journal::to_record;
use super::record::{FORMAT, Header, Kind, encode};
use super::run::{FIRST, Run, Subject};
use super::{Event, definition, history};

fn subject() -> Subject {
    Subject {
        boot_id: "fuzz".into(),
        instance: Instance::DEFAULT,
    }
}

/// A file of records with these payloads behind its header, checksums and all: a journal, or a
/// snapshot.
#[must_use]
pub fn records<'p>(journal: bool, payloads: impl IntoIterator<Item = &'p [u8]>) -> Vec<u8> {
    let header = Header {
        format: FORMAT,
        kind: if journal {
            Kind::Journal
        } else {
            Kind::Snapshot
        },
        boot_id: subject().boot_id,
        generation: FIRST,
    };
    let payloads = payloads.into_iter().filter_map(encode).flatten();
    let header = to_record(&header).unwrap_or_default();
    header.into_iter().chain(payloads).collect()
}

/// What the files `state` and `journal` lead to.
///
/// # Errors
/// What is wrong with them, in words.
pub fn run(snapshot: Vec<u8>, journal: Vec<u8>) -> Result<Option<State>, String> {
    let run = Run::parse(snapshot, journal, &subject()).map_err(|error| error.to_string())?;
    Ok(run.map(|run| run.state))
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
