//! A state that was lost, and is read off the kernel.

use mydocker_core::{Adoption, Executor, Hearsay, Link, LinkName, Object, Plan, State, Up};

use super::mind::{Mind, Willing};
use super::{Done, Engine, EngineError, recover};
use crate::store::{Access, Store};

/// A state that was read off the kernel.
#[derive(Debug)]
pub struct Rebuilt {
    /// What there was in the kernel that nobody had on record.
    pub adopted: Vec<Adoption>,
    /// The repair that followed.
    pub done: Done,
}

impl<X: Executor> Engine<X> {
    /// Reads off the kernel whose networks and endpoints are there that nobody has on record, whether
    /// the run state is damaged, gone or sound, and then [`repair`](Self::repair)s. The files that it
    /// takes the place of are kept beside it.
    ///
    /// # Errors
    /// It was not done; a definition that can't be used stands in the way, for its containers would
    /// be cut off. [`EngineError::exit_code`] says what the kernel holds.
    pub fn rebuild(&mut self) -> Result<Rebuilt, EngineError> {
        let (mut store, damage) = Store::open_damaged(&self.roots, Access::Write, &self.options)?;
        self.check_definitions()?;
        let recovered = match damage {
            Some(_) => Vec::new(),
            None => recover(&mut self.executor, &mut store)
                .map_err(|error| EngineError::Interrupted { error, again: None })?,
        };
        let (state, adopted) = self.adopt(store.state(), &store.hearsay()?)?;
        store.rebuild(&state)?;
        let done = self.repair_store(store, recovered)?;
        Ok(Rebuilt { adopted, done })
    }

    /// What [`rebuild`](Self::rebuild) would do. Writes nothing and makes no file.
    ///
    /// # Errors
    /// The state or the kernel could not be read, or a definition can't be used.
    pub fn plan_rebuild(&mut self) -> Result<(Vec<Adoption>, Vec<Plan>), EngineError> {
        // Held until the kernel was looked at, as for a repair.
        let (store, _) = Store::open_damaged(&self.roots, Access::Read, &self.options)?;
        self.check_definitions()?;
        let hearsay = store.hearsay()?;
        let mut mind = Mind::of(store.state().clone());
        recover(&mut Willing, &mut mind)?;
        let (state, adopted) = self.adopt(&mind.state, &hearsay)?;
        Ok((adopted, self.imagine_repair(Mind::of(state))?))
    }

    /// That no network is missing because its definition can't be used.
    fn check_definitions(&self) -> Result<(), EngineError> {
        let damaged = Store::examine(&self.roots)?.into_iter().next();
        damaged.map_or(Ok(()), |error| Err(error.into()))
    }

    fn adopt(
        &mut self,
        state: &State,
        hearsay: &Hearsay,
    ) -> Result<(State, Vec<Adoption>), EngineError> {
        self.executor.attend(state);
        let mut places = self.executor.namespaces().map_err(EngineError::Host)?;
        places.extend(hearsay.netns().cloned());
        let inside = |netns| Up {
            link: Link::sandbox(netns, LinkName::LOOPBACK),
        };
        let mut wanted = state.footprint();
        wanted.extend(places.into_iter().map(inside).map(Object::Up));
        let observed = self.executor.observe(&wanted).map_err(EngineError::Host)?;
        Ok(state.adopt(hearsay, &observed))
    }
}
