//! Which networks a container is on now: what the engine knows, not what a record remembers.

use std::collections::BTreeMap;
use std::path::Path;

use mydocker::container::{Containers, Record};
use mydocker_core::{Endpoint, Netns};

use super::App;
use crate::failure::warn;

/// All endpoints, by their namespace.
pub(super) struct Endpoints(BTreeMap<Netns, Vec<Endpoint>>);

impl Endpoints {
    /// As they are now. Containers can be shown without, so what is wrong with them is only said.
    pub(super) fn now(app: &App) -> Self {
        let mut all: BTreeMap<_, Vec<_>> = BTreeMap::new();
        match app.view() {
            Ok(view) => {
                for endpoint in view.state.endpoints() {
                    let of_one = all.entry(endpoint.netns.clone()).or_default();
                    of_one.push(endpoint.clone());
                }
            }
            Err(failure) => warn(format!(
                "the containers' networks can't be shown: {failure}"
            )),
        }
        Self(all)
    }

    /// Those of one container, in the order in which it joined.
    pub(super) fn of(&self, containers: &Containers, record: &Record) -> Vec<&Endpoint> {
        let pin = containers.netns(&record.id);
        let mut endpoints: Vec<_> = self.at(&pin).iter().collect();
        endpoints.sort_by_key(|endpoint| endpoint.rank);
        endpoints
    }

    fn at(&self, pin: &Path) -> &[Endpoint] {
        let netns: Option<Netns> = pin.to_string_lossy().parse().ok();
        let known = netns.and_then(|netns| self.0.get(&netns));
        known.map_or(&[], Vec::as_slice)
    }
}
