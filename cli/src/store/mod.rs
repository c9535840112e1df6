//! Store: the state of one instance on disk, under a lock.
//!
//! ```text
//! <root>/network/NAME.json    the definition of a network; durable
//! <run_root>/network/state    a snapshot: endpoints, leases, ports; as old as the boot at most
//! <run_root>/network/journal  what happened since: Begin(plan), End(outcome), …
//! <run_root>/network/lock     one writer or many readers
//! <run_root>/network/history.log  what was done, for people; nothing depends on it
//! ```
//!
//! Within one boot the run state says which networks there are, and definitions follow it; after
//! a reboot definitions are all there is.

mod definition;
mod dir;
mod error;
#[doc(hidden)]
pub mod fuzzing;
mod history;
mod journal;
mod lock;
mod migrate;
mod record;
mod roots;
mod run;
#[cfg(test)]
mod tests;

pub(crate) use dir::{Dir, Durability, make_dir, remove_tree};
pub use error::StoreError;
pub use history::Event;
pub(crate) use lock::Lock;
pub use roots::Roots;

use std::path::Path;
use std::time::{Duration, Instant};

use mydocker_core::{Change, Entry, Hearsay, NetworkName, Recorder, Snapshot, State};

use journal::{Journal, Length};
use record::FORMAT;
use run::{FIRST, Run, Subject};

/// What a directory of ours is called below its root.
const NAME: &str = "network";

/// What a store is opened for.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub enum Access {
    /// To look: beside other readers, and without making or changing any file.
    Read,
    /// To change: alone.
    Write,
}

/// How a store is opened.
#[derive(Clone, Debug, Eq, PartialEq)]
pub struct Options {
    /// How long to wait for the lock.
    pub lock_wait: Duration,
    /// Which boot of the kernel it is; the kernel's own answer by default.
    pub boot_id: Option<String>,
}

impl Default for Options {
    fn default() -> Self {
        Self {
            lock_wait: Duration::from_secs(30),
            boot_id: None,
        }
    }
}

/// The state of one instance, and the lock on it until this is dropped.
#[derive(Debug)]
pub struct Store {
    state: State,
    damaged: Vec<StoreError>,
    roots: Roots,
    options: Options,
    writer: Option<Writer>,
    lock: Option<Lock>,
    /// When the transaction under way began, if this process began it.
    began: Option<Instant>,
    /// Why the history misses something.
    forgotten: Option<StoreError>,
}

#[derive(Debug)]
struct Writer {
    definitions: Dir,
    journal: Journal,
    run: Dir,
}

impl Store {
    /// Waits for the lock and reads the state. For reading, a store that is not there is empty.
    ///
    /// # Errors
    /// The lock was not to be had, or a file is not readable or not as it was written.
    pub fn open(roots: &Roots, access: Access) -> Result<Self, StoreError> {
        Self::open_with(roots, access, &Options::default())
    }

    /// [`open`](Self::open), with other options.
    ///
    /// # Errors
    /// The same.
    pub fn open_with(roots: &Roots, access: Access, options: &Options) -> Result<Self, StoreError> {
        let (mut store, run) = Self::lock(roots, access, options)?;
        store.read(access, run.as_ref())?;
        Ok(store)
    }

    /// [`open_with`](Self::open_with), also where the run state is damaged, and why it is. Then
    /// definitions are all that there is, until [`rebuild`](Self::rebuild).
    ///
    /// # Errors
    /// The lock was not to be had, or a file is not readable.
    pub fn open_damaged(
        roots: &Roots,
        access: Access,
        options: &Options,
    ) -> Result<(Self, Option<StoreError>), StoreError> {
        let (mut store, run) = Self::lock(roots, access, options)?;
        match store.read(access, run.as_ref()) {
            Ok(()) => Ok((store, None)),
            Err(error) if error.is_damage() => {
                store.load(None)?;
                Ok((store, Some(error)))
            }
            Err(error) => Err(error),
        }
    }

    fn lock(
        roots: &Roots,
        access: Access,
        options: &Options,
    ) -> Result<(Self, Option<Dir>), StoreError> {
        let run = match access {
            Access::Read => Dir::open(&roots.run_root, NAME)?,
            Access::Write => Some(Dir::create(&roots.run_root, NAME)?),
        };
        let lock = match &run {
            Some(run) => Lock::take(run, "network state", access, options.lock_wait)?,
            None => None,
        };
        let store = Self {
            state: State::new(roots.instance()?),
            damaged: Vec::new(),
            roots: roots.clone(),
            options: options.clone(),
            writer: None,
            lock,
            began: None,
            forgotten: None,
        };
        Ok((store, run))
    }

    fn read(&mut self, access: Access, run: Option<&Dir>) -> Result<(), StoreError> {
        match access {
            Access::Read => self.load(run),
            Access::Write => self.reopen(),
        }
    }

    /// Puts down a state that was not read from the files, and begins anew with it. They are kept
    /// beside their successors, as `state.old` and `journal.old`.
    ///
    /// # Errors
    /// It was not put down, or can't be read again. The files are as before, or the new ones.
    pub fn rebuild(&mut self, state: &State) -> Result<(), StoreError> {
        self.writer = None;
        if !self.lock.as_ref().is_some_and(Lock::is_exclusive) {
            return Err(self.read_only());
        }
        let run = Dir::create(&self.roots.run_root, NAME)?;
        Run::set_aside(&run)?;
        let generation = Run::unused_generation(&run)?;
        Run::put(&run, &self.subject()?, state, generation)?;
        self.reopen()
    }

    /// What the files and the history say of networks and endpoints, whatever is wrong with them.
    ///
    /// # Errors
    /// Their directory can't be read.
    pub fn hearsay(&self) -> Result<Hearsay, StoreError> {
        let mut hearsay = Hearsay::default();
        let Some(run) = Dir::open(&self.roots.run_root, NAME)? else {
            return Ok(hearsay);
        };
        if let Some(state) = Run::salvage(&run, &self.subject()?) {
            hearsay.hear_state(&state);
        }
        for Event { plan, outcome, .. } in history::read(&run)?.0 {
            hearsay.hear_end(&plan, &outcome);
        }
        Ok(hearsay)
    }

    /// Why some definitions can't be used: those, too, that the state has no need of before the next
    /// reboot.
    ///
    /// # Errors
    /// Their directory can't be read.
    pub fn examine(roots: &Roots) -> Result<Vec<StoreError>, StoreError> {
        let Some(definitions) = Dir::open(&roots.root, NAME)? else {
            return Ok(Vec::new());
        };
        let names = definition::names(&definitions)?.into_iter();
        let read = names.map(|name| definition::read(&definitions, &name));
        Ok(read.filter_map(Result::err).collect())
    }

    /// Reads everything anew under the same lock, ready for writing: after an error, the files
    /// alone know how far things went.
    ///
    /// # Errors
    /// As when it was opened.
    pub fn reopen(&mut self) -> Result<(), StoreError> {
        self.writer = None;
        if !self.lock.as_ref().is_some_and(Lock::is_exclusive) {
            return Err(self.read_only());
        }
        let definitions = Dir::create(&self.roots.root, NAME)?;
        let run = Dir::create(&self.roots.run_root, NAME)?;
        definitions.sweep();
        run.sweep();
        let subject = self.subject()?;
        let loaded = Run::load(&run, &subject)?;
        let (generation, length) = match &loaded {
            // What would be added is in the current format.
            Some(run) if run.format < FORMAT => (run.generation, None),
            Some(run) => (run.generation, run.journal),
            None => (FIRST - 1, None),
        };
        let adopted = self.take_up(loaded, Some(&definitions))?;
        let long = |length: &Length| length.is_long() && self.state.pending().is_none();
        let length = match length.filter(|length| !adopted && !long(length)) {
            Some(length) => length,
            None => Run::put(&run, &subject, &self.state, generation + 1)?,
        };
        self.complete_definitions(&definitions)?;
        let journal = Journal::open(&run, length)?;
        self.writer = Some(Writer {
            definitions,
            journal,
            run,
        });
        Ok(())
    }

    /// What the instance wants.
    #[must_use]
    pub fn state(&self) -> &State {
        &self.state
    }

    /// Definitions that can't be read; their networks are missing from the state.
    #[must_use]
    pub fn damaged(&self) -> &[StoreError] {
        &self.damaged
    }

    /// Why the history misses what was done since this was opened, if it does.
    pub fn forgotten(&mut self) -> Option<StoreError> {
        self.forgotten.take()
    }

    /// What was done, oldest first, and how many lines of it can't be read. Reading it takes no lock.
    ///
    /// # Errors
    /// It can't be read at all.
    pub fn history(roots: &Roots) -> Result<(Vec<Event>, usize), StoreError> {
        match Dir::open(&roots.run_root, NAME)? {
            Some(run) => history::read(&run),
            None => Ok((Vec::new(), 0)),
        }
    }

    /// Gives up the lock and keeps what was read.
    #[must_use]
    pub fn into_parts(self) -> (State, Vec<StoreError>) {
        (self.state, self.damaged)
    }

    fn load(&mut self, run: Option<&Dir>) -> Result<(), StoreError> {
        let definitions = Dir::open(&self.roots.root, NAME)?;
        let loaded = match run {
            Some(run) => Run::load(run, &self.subject()?)?,
            None => None,
        };
        self.take_up(loaded, definitions.as_ref())?;
        Ok(())
    }

    fn subject(&self) -> Result<Subject, StoreError> {
        let boot_id = match &self.options.boot_id {
            Some(boot_id) => boot_id.clone(),
            None => boot_id()?,
        };
        let instance = self.state.instance();
        Ok(Subject { boot_id, instance })
    }

    /// Takes up the run state and adds, down, the networks that have only a definition: after a
    /// reboot all of them, else what somebody restored from a backup. Whether there were any.
    fn take_up(&mut self, run: Option<Run>, definitions: Option<&Dir>) -> Result<bool, StoreError> {
        self.damaged.clear();
        let instance = self.state.instance();
        self.state = run.map_or_else(|| State::new(instance), |run| run.state);
        let Some(dir) = definitions else {
            return Ok(false);
        };
        let mut found = Vec::new();
        let changing = changing(&self.state);
        for name in definition::names(dir)? {
            if self.state.network(&name).is_some() || changing.as_ref() == Some(&name) {
                continue;
            }
            match definition::read(dir, &name) {
                Ok(network) => found.extend(network),
                Err(error) => self.damaged.push(error),
            }
        }
        if found.is_empty() {
            return Ok(false);
        }
        self.state = with_networks(&self.state, found).map_err(|source| {
            let (path, offset) = (dir.path_of(""), 0);
            StoreError::Contradiction {
                path,
                offset,
                source,
            }
        })?;
        Ok(true)
    }

    /// Writes the definitions that somebody removed while their networks were there.
    fn complete_definitions(&self, dir: &Dir) -> Result<(), StoreError> {
        let there = definition::names(dir)?;
        let changing = changing(&self.state);
        for network in self.state.networks() {
            if !there.contains(&network.name) && changing.as_ref() != Some(&network.name) {
                definition::write(dir, network)?;
            }
        }
        Ok(())
    }

    fn read_only(&self) -> StoreError {
        let path = self.roots.run_root.clone();
        StoreError::ReadOnly { path }
    }
}

impl Recorder for Store {
    type Error = StoreError;

    /// Keeps `entry`. A definition is in step before the end of its transaction is kept: should
    /// this process die between the two, resuming the transaction decides again.
    ///
    /// # Errors
    /// It was not kept, and no more entries are taken until [`Store::reopen`].
    fn record(&mut self, entry: &Entry) -> Result<(), StoreError> {
        let Some(mut writer) = self.writer.take() else {
            return Err(self.read_only());
        };
        let ended = match entry {
            Entry::Begin(_) => None,
            Entry::End(outcome) => self.state.pending().cloned().zip(Some(outcome.clone())),
        };
        let changed = match entry {
            Entry::Begin(plan) => {
                self.began = Some(Instant::now());
                definition::check(&writer.definitions, &plan.change)?;
                None
            }
            Entry::End(_) => changing(&self.state),
        };
        self.state
            .absorb(entry)
            .map_err(|source| StoreError::Contradiction {
                path: writer.journal.path().clone(),
                offset: writer.journal.bytes(),
                source,
            })?;
        if let Some(name) = changed {
            match self.state.network(&name) {
                Some(network) => definition::write(&writer.definitions, network)?,
                None => definition::remove(&writer.definitions, &name)?,
            }
        }
        writer.journal.append(entry)?;
        if let Some((plan, outcome)) = ended {
            let event = Event::now(self.began.take(), plan, outcome);
            self.forgotten = history::append(&writer.run, event).err();
        }
        self.writer = Some(writer);
        Ok(())
    }
}

/// The network that the transaction under way adds or removes.
fn changing(state: &State) -> Option<NetworkName> {
    match &state.pending()?.change {
        Change::NetworkAdded(network) => Some(network.name.clone()),
        Change::NetworkRemoved(name) => Some(name.clone()),
        Change::EndpointAdded(_)
        | Change::EndpointRemoved(_)
        | Change::EndpointChanged(_)
        | Change::Repaired => None,
    }
}

/// The state with more networks, which are down.
fn with_networks(
    state: &State,
    networks: Vec<mydocker_core::Network>,
) -> Result<State, mydocker_core::Damage> {
    let records = networks
        .into_iter()
        .map(|network| mydocker_core::NetworkRecord {
            network,
            up: false,
            cursors: Vec::new(),
        });
    let mut snapshot: Snapshot = state.snapshot();
    snapshot.networks.extend(records);
    State::restore(snapshot)
}

/// Which boot of the kernel this is.
pub(crate) fn boot_id() -> Result<String, StoreError> {
    let path = Path::new("/proc/sys/kernel/random/boot_id");
    let text = std::fs::read_to_string(path).map_err(error::io("read", path))?;
    Ok(text.trim().to_owned())
}
