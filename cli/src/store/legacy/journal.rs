//! Formats 1 and 2: a snapshot and the journal that goes on from it, about one boot of the kernel.

use std::path::PathBuf;

use mydocker_core::{Entry, Instance, Snapshot, State};
use serde::de::DeserializeOwned;
use serde::{Deserialize, Serialize};

use super::migrate::migrate;
use crate::store::StoreError;
use crate::store::dir::Dir;
use crate::store::error::RUN_REMEDY;
use crate::store::record::{Found, decode};
use crate::store::tables::{Format, Subject};

const SNAPSHOT: &str = "state";
pub(in crate::store) const NAME: &str = "journal";
/// The last format of these files.
const LAST: u64 = 2;

/// The first record of a file: what the others are.
#[derive(Clone, Debug, Eq, PartialEq, Deserialize, Serialize)]
pub(in crate::store) struct Header {
    /// How the rest is to be read.
    pub(in crate::store) format: u64,
    /// Which file it is.
    pub(in crate::store) kind: Kind,
    /// The boot that it is about.
    pub(in crate::store) boot_id: String,
    /// Counts snapshots; a journal goes on from the snapshot of the same number.
    pub(in crate::store) generation: u64,
}

/// The files that are made of records.
#[derive(Clone, Copy, Debug, Eq, PartialEq, Deserialize, Serialize)]
#[serde(rename_all = "snake_case")]
pub(in crate::store) enum Kind {
    /// A state at rest.
    Snapshot,
    /// What happened since.
    Journal,
}

/// Reads the state; `None` when this boot has none yet.
pub(in crate::store) fn load(dir: &Dir, subject: &Subject) -> Result<Option<State>, StoreError> {
    let snapshot = Records::open(dir, SNAPSHOT, Kind::Snapshot, subject)?;
    let journal = Records::open(dir, NAME, Kind::Journal, subject)?;
    of(snapshot, journal, subject)
}

/// The same from bytes, for fuzzing.
pub(in crate::store) fn parse(
    snapshot: Vec<u8>,
    journal: Vec<u8>,
    subject: &Subject,
) -> Result<Option<State>, StoreError> {
    let begin = |name: &str, bytes, kind| Records::begin(name.into(), bytes, kind, subject);
    let snapshot = begin(SNAPSHOT, snapshot, Kind::Snapshot)?;
    let journal = begin(NAME, journal, Kind::Journal)?;
    of(snapshot, journal, subject)
}

fn of(
    snapshot: Option<Records>,
    journal: Option<Records>,
    subject: &Subject,
) -> Result<Option<State>, StoreError> {
    match (snapshot, journal) {
        (None, None) => Ok(None),
        // The first thing that was written, before the snapshot that it goes on from.
        (None, Some(mut journal)) => match journal.next()? {
            None => Ok(None),
            Some(_) => Err(journal.damaged("there is no snapshot for it to go on from")),
        },
        (Some(snapshot), None) => Err(snapshot.damaged("there is no journal beside it")),
        (Some(snapshot), Some(journal)) => replay(snapshot, journal, subject.instance).map(Some),
    }
}

fn replay(
    mut snapshot: Records,
    mut journal: Records,
    wanted: Instance,
) -> Result<State, StoreError> {
    let generation = snapshot.header.generation;
    let state = snapshot.last::<Snapshot>()?;
    if state.instance != wanted {
        let (path, found) = (snapshot.path, state.instance);
        return Err(StoreError::OtherInstance {
            path,
            found,
            wanted,
        });
    }
    let mut state = State::restore(state).map_err(|source| snapshot.contradiction(source))?;
    if journal.header.generation > generation {
        return Err(journal.damaged("it goes on from a snapshot newer than the one beside it"));
    }
    // An older one is that of a writer who died before the next journal began: it is in the snapshot.
    if journal.header.generation == generation {
        journal.fold(&mut state)?;
    }
    Ok(state)
}

/// The state up to the first damage, as far as there is any.
pub(in crate::store) fn salvage(dir: &Dir, subject: &Subject) -> Option<State> {
    let open = |name, kind| Records::open(dir, name, kind, subject).ok().flatten();
    let mut snapshot = open(SNAPSHOT, Kind::Snapshot)?;
    let last = snapshot.last::<Snapshot>().ok()?;
    let mut state = State::restore(last).ok()?;
    let journal = open(NAME, Kind::Journal);
    let generation = snapshot.header.generation;
    if let Some(mut journal) = journal.filter(|j| j.header.generation == generation) {
        // What follows the first damage is not looked at.
        journal.fold(&mut state).ok();
    }
    Some(state)
}

/// A file of records on its way through being read.
struct Records {
    path: PathBuf,
    header: Header,
    /// Whose objects those are that older formats say nothing of.
    instance: Instance,
    bytes: Vec<u8>,
    /// Where the record before the next began.
    from: usize,
    /// Where the next record begins.
    at: usize,
}

impl Records {
    /// Opens a file and reads its header; `None` when it is not there or about another boot.
    fn open(
        dir: &Dir,
        name: &str,
        kind: Kind,
        subject: &Subject,
    ) -> Result<Option<Self>, StoreError> {
        let Some(bytes) = dir.read(name)? else {
            return Ok(None);
        };
        Self::begin(dir.path_of(name), bytes, kind, subject)
    }

    /// Reads the header of what a file holds; `None` when it is about another boot.
    fn begin(
        path: PathBuf,
        bytes: Vec<u8>,
        kind: Kind,
        subject: &Subject,
    ) -> Result<Option<Self>, StoreError> {
        let header = Header {
            format: LAST,
            kind,
            boot_id: String::new(),
            generation: 0,
        };
        let mut records = Self {
            path,
            header,
            instance: subject.instance,
            bytes,
            from: 0,
            at: 0,
        };
        // Both files are replaced as a whole, so that a header is never cut short.
        let Some(payload) = records.next()? else {
            return Err(records.damaged("its header is cut short"));
        };
        let format = records.parse::<Format>(&payload)?.format;
        if format > LAST {
            return Err(records.damaged("its header is that of another file"));
        }
        records.header = records.parse(&payload)?;
        if records.header.kind != kind || format == 0 {
            return Err(records.damaged("its header is that of another file"));
        }
        Ok((records.header.boot_id == subject.boot_id).then_some(records))
    }

    /// The next record's payload; `None` at the end, also at a torn one.
    fn next(&mut self) -> Result<Option<Vec<u8>>, StoreError> {
        self.from = self.at;
        match decode(&self.bytes, self.at) {
            Found::End | Found::Torn => Ok(None),
            Found::Damaged(what) => Err(self.damaged(what)),
            Found::Record { payload, next } => {
                self.at = next;
                Ok(Some(payload.to_vec()))
            }
        }
    }

    /// Takes the entries that follow into a state.
    fn fold(&mut self, state: &mut State) -> Result<(), StoreError> {
        while let Some(payload) = self.next()? {
            let entry: Entry = self.parse(&payload)?;
            let absorbed = state.absorb(&entry);
            absorbed.map_err(|source| self.contradiction(source))?;
        }
        Ok(())
    }

    /// The only record after the header.
    fn last<T: DeserializeOwned>(&mut self) -> Result<T, StoreError> {
        let Some(payload) = self.next()? else {
            return Err(self.damaged("it is cut short"));
        };
        if self.at != self.bytes.len() {
            return Err(self.damaged("something follows its last record"));
        }
        self.parse(&payload)
    }

    fn parse<T: DeserializeOwned>(&self, payload: &[u8]) -> Result<T, StoreError> {
        let parsed = if self.header.format == LAST {
            serde_json::from_slice(payload)
        } else {
            serde_json::from_slice(payload).and_then(|mut value| {
                migrate(self.header.format, &mut value, self.instance);
                serde_json::from_value(value)
            })
        };
        parsed.map_err(|error| self.damaged(&error.to_string()))
    }

    fn damaged(&self, what: &str) -> StoreError {
        StoreError::Damaged {
            path: self.path.clone(),
            offset: self.from as u64,
            what: what.to_owned(),
            remedy: RUN_REMEDY,
        }
    }

    fn contradiction(&self, source: mydocker_core::Damage) -> StoreError {
        StoreError::Contradiction {
            path: self.path.clone(),
            offset: self.from as u64,
            source,
        }
    }
}
