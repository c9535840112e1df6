//! Store: the state of one instance on disk, under a lock.
//!
//! ```text
//! <root>/network/NAME.json    the definition of a network; durable
//! <run_root>/network/state    tables: endpoints, leases, ports; as old as the boot at most
//! <run_root>/network/plan     what was begun last, and is done if the tables say so
//! <run_root>/network/lock     one writer or many readers
//! <run_root>/network/history.log  what was done, for people; nothing depends on it
//! ```
//!
//! Within one boot the run state says which networks there are, and definitions follow it; after
//! a reboot definitions are all there is.

mod begun;
mod checksum;
mod definition;
mod dir;
mod error;
#[doc(hidden)]
pub mod fuzzing;
mod history;
mod legacy;
mod lock;
mod record;
mod roots;
mod tables;
#[cfg(test)]
mod tests;
mod tree;

pub(crate) use dir::{Dir, Durability, make_dir, remove_tree};
pub use error::StoreError;
pub use history::Event;
pub(crate) use lock::Lock;
pub use roots::Roots;

use std::collections::BTreeSet;
use std::fs::File;
use std::io::Read as _;
use std::path::Path;
use std::sync::{Arc, OnceLock};
use std::time::{Duration, Instant};

use mydocker_core::{
    Change, ContainerName, Entry, Hearsay, Instance, Netns, NetworkName, Outcome, Plan, Recorder,
    Request, Snapshot, State,
};
use serde_json::value::RawValue;

use begun::Last;
use history::Ended;
use legacy::journal;
use tables::{Kept, Subject, Tables};

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
    /// Whose marks the kernel objects carry, for those who know; by default it is told from the run root.
    pub instance: Option<Instance>,
}

impl Default for Options {
    fn default() -> Self {
        Self {
            lock_wait: Duration::from_secs(30),
            boot_id: None,
            instance: None,
        }
    }
}

/// The state of one instance, and the lock on it until this is dropped.
#[derive(Debug)]
pub struct Store {
    state: State,
    /// Whether that is all of it, or what a request names.
    whole: bool,
    damaged: Vec<StoreError>,
    roots: Roots,
    subject: Subject,
    writer: Option<Writer>,
    lock: Option<Lock>,
    /// When the transaction under way began and what was written of it, if this process began it.
    began: Option<(Instant, Box<RawValue>)>,
    /// Why the history misses something.
    forgotten: Option<StoreError>,
}

#[derive(Debug)]
struct Writer {
    run: Dir,
    tables: Tables,
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

    /// [`open_with`](Self::open_with) for writing, and reads what planning these requests takes, which
    /// is less than everything when they are about endpoints. [`complete`](Self::complete) reads the
    /// rest.
    ///
    /// # Errors
    /// The same.
    pub fn open_for(
        roots: &Roots,
        requests: &[Request],
        options: &Options,
    ) -> Result<Self, StoreError> {
        let (mut store, run) = Self::lock(roots, Access::Write, options)?;
        let read = match run {
            Some(run) => store.read_part(run, requests)?,
            None => false,
        };
        if !read {
            store.reopen()?;
        }
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
            Access::Write => Some(Dir::create(&roots.run_root, NAME, Durability::Kernel)?),
        };
        let lock = match &run {
            Some(run) => Lock::take(run, "network state", access, options.lock_wait)?,
            None => None,
        };
        let instance = match options.instance {
            Some(instance) => instance,
            None => roots.instance()?,
        };
        let boot_id = match &options.boot_id {
            Some(boot_id) => boot_id.clone(),
            None => boot_id()?,
        };
        let store = Self {
            state: State::new(instance),
            whole: true,
            damaged: Vec::new(),
            roots: roots.clone(),
            subject: Subject { boot_id, instance },
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

    /// Whether a part was enough.
    fn read_part(&mut self, run: Dir, requests: &[Request]) -> Result<bool, StoreError> {
        let Kept::Tables(mut tables) = Tables::open(&run, Access::Write, &self.subject)? else {
            return Ok(false);
        };
        if !tables.are_current() {
            return Ok(false);
        }
        if pending(&run, tables.path(), tables.ended())?.is_some() {
            return Ok(false);
        }
        let Some(part) = tables.part(requests)? else {
            return Ok(false);
        };
        self.state = part;
        self.whole = false;
        self.writer = Some(Writer { run, tables });
        Ok(true)
    }

    /// Reads the rest, where what was read is what one request names.
    ///
    /// # Errors
    /// It is not readable, or not as it was written.
    pub fn complete(&mut self) -> Result<(), StoreError> {
        if !self.whole {
            self.reopen()?;
        }
        Ok(())
    }

    /// Puts down a state that was not read from the files, and begins anew with it. They are kept
    /// beside their successors, as `state.old` and so on.
    ///
    /// # Errors
    /// It was not put down, or can't be read again. The files are as before, or the new ones.
    pub fn rebuild(&mut self, state: &State) -> Result<(), StoreError> {
        self.writer = None;
        self.began = None;
        if !self.lock.as_ref().is_some_and(Lock::is_exclusive) {
            return Err(self.read_only());
        }
        let run = Dir::create(&self.roots.run_root, NAME, Durability::Kernel)?;
        for name in FILES {
            if let Some(bytes) = run.read(name)? {
                run.replace(&format!("{name}.old"), &bytes, Durability::Kernel)?;
            }
        }
        create(&run, &self.subject, state)?;
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
        if let Some(state) = salvage(&run, &self.subject) {
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
        self.began = None;
        if !self.lock.as_ref().is_some_and(Lock::is_exclusive) {
            return Err(self.read_only());
        }
        let definitions = Dir::create(&self.roots.root, NAME, Durability::Disk)?;
        let run = Dir::create(&self.roots.run_root, NAME, Durability::Kernel)?;
        definitions.sweep();
        run.sweep();
        let mut kept = Kept::of(&run, Access::Write, &self.subject)?;
        let adopted = self.take_up(&run, &mut kept, Some(&definitions))?;
        let anew = |ended| Tables::create(&run, &self.subject, &self.state, ended);
        let tables = match kept {
            Kept::Tables(tables) if !adopted && tables.are_current() => tables,
            // The plan that is there goes on from them.
            Kept::Tables(tables) => anew(tables.ended())?,
            Kept::Older(tables) => anew(tables.ended())?,
            Kept::Nothing | Kept::Stale | Kept::Journal => {
                create(&run, &self.subject, &self.state)?
            }
        };
        // What goes before it was replaced by tables, and whoever did that may have died since.
        run.remove(journal::NAME, Durability::Kernel)?;
        self.complete_definitions(&definitions)?;
        self.writer = Some(Writer { run, tables });
        Ok(())
    }

    /// What the instance wants.
    #[must_use]
    pub fn state(&self) -> &State {
        &self.state
    }

    /// The same, for those who plan on it and leave it as it was ([`State::plan_batch`]).
    pub(crate) fn state_mut(&mut self) -> &mut State {
        &mut self.state
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
        match run {
            Some(run) => {
                let mut kept = Kept::of(run, Access::Read, &self.subject)?;
                self.take_up(run, &mut kept, definitions.as_ref())?;
            }
            None => {
                self.adopt(State::new(self.subject.instance), definitions.as_ref())?;
            }
        }
        Ok(())
    }

    /// Takes up the run state and what definitions add to it. Whether they added anything.
    fn take_up(
        &mut self,
        run: &Dir,
        kept: &mut Kept,
        definitions: Option<&Dir>,
    ) -> Result<bool, StoreError> {
        let state = match kept {
            Kept::Tables(tables) => {
                let pending = pending(run, tables.path(), tables.ended())?;
                Some(tables.whole(pending)?)
            }
            Kept::Older(tables) => {
                let pending = pending(run, tables.path(), tables.ended())?;
                Some(tables.whole(pending)?)
            }
            Kept::Journal => journal::load(run, &self.subject)?,
            Kept::Nothing | Kept::Stale => None,
        };
        let state = state.unwrap_or_else(|| State::new(self.subject.instance));
        self.adopt(state, definitions)
    }

    /// Takes up a state and adds, down, the networks that have only a definition: after a reboot all
    /// of them, else what somebody restored from a backup. Whether there were any.
    fn adopt(&mut self, state: State, definitions: Option<&Dir>) -> Result<bool, StoreError> {
        self.damaged.clear();
        self.state = state;
        self.whole = true;
        let Some(dir) = definitions else {
            return Ok(false);
        };
        let mut found = Vec::new();
        let changing = changing(&self.state);
        for name in definition::names(dir)? {
            if self.state.network(&name).is_some() || changing.contains(&name) {
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
            if !there.contains(&network.name) && !changing.contains(&network.name) {
                definition::write(dir, network)?;
            }
        }
        Ok(())
    }

    /// That the definitions can follow a change, before anything is done about it.
    fn check_definition(&self, change: &Change) -> Result<(), StoreError> {
        match change {
            Change::NetworkAdded(_) | Change::NetworkRemoved(_) | Change::Several(_) => {
                definition::check(
                    &Dir::create(&self.roots.root, NAME, Durability::Disk)?,
                    change,
                )
            }
            Change::EndpointAdded(_)
            | Change::EndpointRemoved(_)
            | Change::EndpointChanged(_)
            | Change::Repaired => Ok(()),
        }
    }

    /// Puts a definition in step with the state.
    fn follow(&self, name: &NetworkName) -> Result<(), StoreError> {
        let definitions = Dir::create(&self.roots.root, NAME, Durability::Disk)?;
        match self.state.network(name) {
            Some(network) => definition::write(&definitions, network),
            None => definition::remove(&definitions, name),
        }
    }

    fn read_only(&self) -> StoreError {
        let path = self.roots.run_root.clone();
        StoreError::ReadOnly { path }
    }
}

/// What planning around others takes, when what is known of the state is what one request names.
impl Store {
    /// Reads all endpoints of a container.
    ///
    /// # Errors
    /// They are not readable, or not as they were written.
    pub fn recall(&mut self, container: &ContainerName) -> Result<(), StoreError> {
        match &mut self.writer {
            Some(writer) if !self.whole => writer.tables.recall(&mut self.state, container),
            _ => Ok(()),
        }
    }

    /// Reads whoever may be in the way of a plan. Whether there was anybody who was not known.
    ///
    /// # Errors
    /// They are not readable, or not as they were written.
    pub fn recall_rivals(&mut self, plan: &Plan) -> Result<bool, StoreError> {
        let Some(writer) = self.writer.as_mut().filter(|_| !self.whole) else {
            return Ok(false);
        };
        let mut found = false;
        for change in plan.change.each() {
            if let Change::EndpointAdded(endpoint) | Change::EndpointChanged(endpoint) = change {
                found |= writer.tables.rivals(&mut self.state, endpoint)?;
            }
        }
        Ok(found)
    }

    /// Some namespaces, and whose they are: those behind `netns` first, in order, and at the end again
    /// the first of all.
    ///
    /// # Errors
    /// They are not readable, or not as they were written.
    pub fn sandboxes_after(
        &mut self,
        netns: &Netns,
        most: usize,
    ) -> Result<Vec<(Netns, ContainerName)>, StoreError> {
        match &mut self.writer {
            Some(writer) if !self.whole => writer.tables.sandboxes_after(netns, most),
            _ => {
                let all = self.state.sandboxes_after(netns).take(most);
                Ok(all.map(|(a, b)| (a.clone(), b.clone())).collect())
            }
        }
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
        if self.writer.is_none() {
            return Err(self.read_only());
        }
        if let Entry::End(Outcome::Stranded { .. }) = entry {
            // What is left over is told from all that is wanted.
            self.complete()?;
        }
        let Some(mut writer) = self.writer.take() else {
            return Err(self.read_only());
        };
        let number = writer.tables.ended() + 1;
        let contradiction = |source| StoreError::Contradiction {
            path: writer.run.path_of(begun::NAME),
            offset: 0,
            source,
        };
        match entry {
            Entry::Begin(plan) => {
                let began = Instant::now();
                self.check_definition(&plan.change)?;
                self.state.absorb(entry).map_err(contradiction)?;
                let written = begun::write(&writer.run, number, plan)?;
                self.began = Some((began, written));
            }
            Entry::End(outcome) => {
                let plan = self.state.pending().cloned();
                let changed = changing(&self.state);
                self.state.absorb(entry).map_err(contradiction)?;
                for name in changed {
                    self.follow(&name)?;
                }
                let Writer { run, tables } = &mut writer;
                let change = plan.as_ref().map(|plan| &plan.change);
                match outcome {
                    Outcome::Committed => tables.end(number, &self.state, change)?,
                    Outcome::RolledBack(_) => tables.end(number, &self.state, None)?,
                    Outcome::Stranded { .. } => {
                        *tables = Tables::create(run, &self.subject, &self.state, number)?;
                    }
                }
                if let Some(plan) = plan {
                    let began = self.began.take();
                    let event = Event::now(Ended { plan, began }, outcome.clone());
                    self.forgotten = history::append(run, event).err();
                }
            }
        }
        self.writer = Some(writer);
        Ok(())
    }
}

/// All files of the run state, older ones too.
const FILES: [&str; 3] = [tables::NAME, begun::NAME, journal::NAME];

impl Kept {
    /// What there is in a directory: also an older file, or a plan, whose tables are gone.
    fn of(run: &Dir, access: Access, subject: &Subject) -> Result<Self, StoreError> {
        let kept = Tables::open(run, access, subject)?;
        if !matches!(kept, Self::Nothing) {
            return Ok(kept);
        }
        if !matches!(begun::read(run)?, Last::Missing) {
            let what = "there are no tables for it to go on from";
            return Err(begun::damaged(run.path_of(begun::NAME), what));
        }
        match run.read(journal::NAME)? {
            Some(_) => Ok(Self::Journal),
            None => Ok(Self::Nothing),
        }
    }
}

/// The plan that was begun and did not end, where tables know of so many that did.
fn pending(run: &Dir, tables: &Path, ended: u64) -> Result<Option<Arc<Plan>>, StoreError> {
    match begun::read(run)? {
        Last::Begun(begun) if begun.number == ended + 1 => {
            begun.plan().map(|plan| Some(Arc::new(plan)))
        }
        Last::Begun(begun) if begun.number <= ended => Ok(None),
        Last::Begun(_) => {
            let what = "it was begun after plans that the tables know nothing of";
            Err(begun::damaged(run.path_of(begun::NAME), what))
        }
        Last::Missing if ended > 0 => {
            let what = "the plan that it goes on from is not beside it";
            Err(begun::damaged(tables.to_path_buf(), what))
        }
        Last::Missing | Last::Incomplete => Ok(None),
    }
}

/// Puts a state down in new tables. Whoever dies meanwhile leaves what was there, or those.
fn create(run: &Dir, subject: &Subject, state: &State) -> Result<Tables, StoreError> {
    // The plan that is there goes on from tables that are no more, or from files of an older format.
    match state.pending() {
        Some(plan) => drop(begun::write(run, 1, plan)?),
        None => run.remove(begun::NAME, Durability::Kernel)?,
    }
    Tables::create(run, subject, state, 0)
}

/// What can be read of a state that is damaged.
fn salvage(run: &Dir, subject: &Subject) -> Option<State> {
    match Tables::open(run, Access::Read, subject) {
        Ok(Kept::Tables(mut tables)) => tables.salvage(),
        Ok(Kept::Older(tables)) => tables.salvage(),
        Ok(Kept::Journal) => journal::salvage(run, subject),
        Ok(Kept::Nothing | Kept::Stale) | Err(_) => None,
    }
}

/// The networks that the transaction under way adds or removes.
fn changing(state: &State) -> BTreeSet<NetworkName> {
    fn of(change: &Change) -> BTreeSet<NetworkName> {
        match change {
            Change::NetworkAdded(network) => [network.name.clone()].into(),
            Change::NetworkRemoved(name) => [name.clone()].into(),
            Change::Several(changes) => changes.iter().flat_map(of).collect(),
            Change::EndpointAdded(_)
            | Change::EndpointRemoved(_)
            | Change::EndpointChanged(_)
            | Change::Repaired => BTreeSet::new(),
        }
    }
    state
        .pending()
        .map_or_else(BTreeSet::new, |plan| of(&plan.change))
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

/// A UUID as text (`proc_do_uuid`).
const BOOT_ID_BYTES: usize = 36;

/// Which boot of the kernel this is.
pub(crate) fn boot_id() -> Result<String, StoreError> {
    // Asked for each container of a listing, and the same as long as this process lives.
    static BOOT_ID: OnceLock<String> = OnceLock::new();
    if let Some(boot_id) = BOOT_ID.get() {
        return Ok(boot_id.clone());
    }
    let path = Path::new("/proc/sys/kernel/random/boot_id");
    let read = || {
        // One read has all of it, and asks nobody how much there is.
        let mut bytes = [0; BOOT_ID_BYTES];
        File::open(path)?.read_exact(&mut bytes)?;
        String::from_utf8(bytes.to_vec()).map_err(std::io::Error::other)
    };
    let boot_id = read().map_err(error::io("read", path))?;
    Ok(BOOT_ID.get_or_init(|| boot_id).clone())
}
