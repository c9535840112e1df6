//! Run state: a snapshot and the journal that goes on from it, about one boot of the kernel.

use std::path::PathBuf;

use mydocker_core::{Entry, Instance, Snapshot, State};
use serde::de::DeserializeOwned;

use super::StoreError;
use super::dir::{Dir, Durability};
use super::error::{RUN_REMEDY, io};
use super::journal::{self, Length, to_record};
use super::migrate::migrate;
use super::record::{FORMAT, Found, Header, Kind, decode};

const SNAPSHOT: &str = "state";

/// What the run state is about.
#[derive(Clone, Debug)]
pub(super) struct Subject {
    pub(super) boot_id: String,
    pub(super) instance: Instance,
}

/// The run state as the files have it.
#[derive(Debug)]
pub(super) struct Run {
    pub(super) state: State,
    pub(super) generation: u64,
    /// The older one of those that the two files are in.
    pub(super) format: u64,
    /// `None` when the journal is older than the snapshot, which has all of it.
    pub(super) journal: Option<Length>,
}

impl Run {
    /// Reads it; `None` when this boot has none yet.
    pub(super) fn load(dir: &Dir, subject: &Subject) -> Result<Option<Self>, StoreError> {
        let snapshot = Records::open(dir, SNAPSHOT, Kind::Snapshot, subject)?;
        let journal = Records::open(dir, journal::NAME, Kind::Journal, subject)?;
        Self::of(snapshot, journal, subject)
    }

    /// The same from bytes, for fuzzing.
    pub(super) fn parse(
        snapshot: Vec<u8>,
        journal: Vec<u8>,
        subject: &Subject,
    ) -> Result<Option<Self>, StoreError> {
        let begin = |name: &str, bytes, kind| Records::begin(name.into(), bytes, kind, subject);
        let snapshot = begin(SNAPSHOT, snapshot, Kind::Snapshot)?;
        let journal = begin(journal::NAME, journal, Kind::Journal)?;
        Self::of(snapshot, journal, subject)
    }

    fn of(
        snapshot: Option<Records>,
        journal: Option<Records>,
        subject: &Subject,
    ) -> Result<Option<Self>, StoreError> {
        match (snapshot, journal) {
            (None, None) => Ok(None),
            // The first thing that is written, before the snapshot that it goes on from.
            (None, Some(mut journal)) => match journal.next()? {
                None => Ok(None),
                Some(_) => Err(journal.damaged("there is no snapshot for it to go on from")),
            },
            (Some(snapshot), None) => Err(snapshot.damaged("there is no journal beside it")),
            (Some(snapshot), Some(journal)) => {
                Self::replay(snapshot, journal, subject.instance).map(Some)
            }
        }
    }

    fn replay(
        mut snapshot: Records,
        mut journal: Records,
        wanted: Instance,
    ) -> Result<Self, StoreError> {
        let generation = snapshot.header.generation;
        let format = snapshot.header.format.min(journal.header.format);
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
        if journal.header.generation < generation {
            // The writer of the snapshot died before it began the next journal.
            let journal = None;
            return Ok(Self {
                state,
                generation,
                format,
                journal,
            });
        }
        let journal = Some(journal.fold(&mut state)?);
        Ok(Self {
            state,
            generation,
            format,
            journal,
        })
    }

    /// The state up to the first damage, as far as there is any.
    pub(super) fn salvage(dir: &Dir, subject: &Subject) -> Option<State> {
        let open = |name, kind| Records::open(dir, name, kind, subject).ok().flatten();
        let mut snapshot = open(SNAPSHOT, Kind::Snapshot)?;
        let last = snapshot.last::<Snapshot>().ok()?;
        let mut state = State::restore(last).ok()?;
        let journal = open(journal::NAME, Kind::Journal);
        let generation = snapshot.header.generation;
        if let Some(mut journal) = journal.filter(|j| j.header.generation == generation) {
            // What follows the first damage is not looked at.
            journal.fold(&mut state).ok();
        }
        Some(state)
    }

    /// Keeps copies of both files where nobody reads them, for whoever wants to know what happened.
    pub(super) fn set_aside(dir: &Dir) -> Result<(), StoreError> {
        for name in [SNAPSHOT, journal::NAME] {
            if let Some(bytes) = dir.read(name)? {
                dir.replace(&format!("{name}.old"), &bytes, Durability::Kernel)?;
            }
        }
        Ok(())
    }

    /// A generation that neither file is of, as far as they say: a snapshot of it outdoes both.
    pub(super) fn unused_generation(dir: &Dir) -> Result<u64, StoreError> {
        let mut unused = FIRST + 1;
        for name in [SNAPSHOT, journal::NAME] {
            let bytes = dir.read(name)?.unwrap_or_default();
            if let Found::Record { payload, .. } = decode(&bytes, 0)
                && let Ok(header) = serde_json::from_slice::<Header>(payload)
            {
                unused = unused.max(header.generation.saturating_add(1));
            }
        }
        Ok(unused)
    }

    /// Puts `state` down as a snapshot with an empty journal, which is how the first generation
    /// and every later one begins. A crash between any two steps leaves either the old pair or
    /// the new one.
    pub(super) fn put(
        dir: &Dir,
        subject: &Subject,
        state: &State,
        generation: u64,
    ) -> Result<Length, StoreError> {
        let header = |kind| Header {
            format: FORMAT,
            kind,
            boot_id: subject.boot_id.clone(),
            generation,
        };
        let record = |name: &str, value: &dyn Fn() -> std::io::Result<Vec<u8>>| {
            value().map_err(io("write", &dir.path_of(name)))
        };
        let mut snapshot = record(SNAPSHOT, &|| to_record(&header(Kind::Snapshot)))?;
        snapshot.extend(record(SNAPSHOT, &|| to_record(&state.snapshot()))?);
        let journal = record(journal::NAME, &|| to_record(&header(Kind::Journal)))?;
        let mut files = [(SNAPSHOT, &snapshot), (journal::NAME, &journal)];
        if generation == FIRST {
            // An empty journal alone is nothing, a snapshot alone is one whose journal is lost.
            files.reverse();
        }
        for (name, bytes) in files {
            dir.replace(name, bytes, Durability::Kernel)?;
        }
        let bytes = journal.len() as u64;
        Ok(Length { bytes, entries: 0 })
    }
}

/// The generation that a boot begins with.
pub(super) const FIRST: u64 = 1;

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
            format: FORMAT,
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
        if format > FORMAT {
            let (path, known) = (records.path, FORMAT);
            return Err(StoreError::TooNew {
                path,
                format,
                known,
            });
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
    fn fold(&mut self, state: &mut State) -> Result<Length, StoreError> {
        let mut entries = 0;
        while let Some(payload) = self.next()? {
            let entry: Entry = self.parse(&payload)?;
            let absorbed = state.absorb(&entry);
            absorbed.map_err(|source| self.contradiction(source))?;
            entries += 1;
        }
        let bytes = self.at as u64;
        Ok(Length { bytes, entries })
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
        let parsed = if self.header.format == FORMAT {
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

/// The part of a header that every format has.
#[derive(serde::Deserialize)]
pub(super) struct Format {
    pub(super) format: u64,
}
