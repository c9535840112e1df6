//! Writing tables: what one plan changed, or everything.

use mydocker_core::{Change, Endpoint, EndpointId, NetworkName, State};

use super::row::{EndpointRow, NetworkRow};
use super::{
    META, Meta, Result, Tables, claim_key, claims, endpoint_key, failed, key, network_key,
};
use crate::store::StoreError;

impl Tables {
    /// Puts down that the plan of that number ended, and what of the state is another for it; with no
    /// change nothing is. All or nothing, also if this process is killed meanwhile.
    pub(in crate::store) fn end(
        &mut self,
        number: u64,
        state: &State,
        change: Option<&Change>,
    ) -> Result<()> {
        if let Some(change) = change {
            self.apply(state, change)?;
        }
        self.commit(state, number)
    }

    /// Puts a state down where nothing is yet.
    pub(super) fn put_all(&mut self, state: &State, ended: u64) -> Result<()> {
        self.put_meta(Meta::of(state))?;
        for endpoint in state.endpoints() {
            self.put_endpoint(endpoint)?;
        }
        for network in state.networks() {
            let endpoints = state.endpoints_of(&network.name).count();
            self.put_network(state, &network.name, endpoints)?;
        }
        self.commit(state, ended)
    }

    fn commit(&mut self, state: &State, ended: u64) -> Result<()> {
        let meta = Meta::of(state);
        if meta != self.meta {
            self.put_meta(meta)?;
        }
        self.tree.set_note(ended);
        self.tree.commit().map_err(failed(&self.path))
    }

    fn put_meta(&mut self, meta: Meta) -> Result<()> {
        self.put_row(&key(META, &[]), &meta)?;
        self.meta = meta;
        Ok(())
    }

    fn apply(&mut self, state: &State, change: &Change) -> Result<()> {
        match change {
            Change::NetworkAdded(network) => self.put_network(state, &network.name, 0),
            Change::NetworkRemoved(name) => {
                let removed = self.tree.remove(&network_key(name));
                removed.map(drop).map_err(failed(&self.path))
            }
            Change::EndpointAdded(endpoint) => {
                self.put_endpoint(endpoint)?;
                let name = &endpoint.id.network;
                let count = self.count(name)?.saturating_add(1);
                self.put_network(state, name, count)
            }
            Change::EndpointRemoved(id) => {
                self.remove_endpoint(id)?;
                let count = self.count(&id.network)?.saturating_sub(1);
                self.put_network(state, &id.network, count)
            }
            Change::EndpointChanged(endpoint) => {
                self.remove_endpoint(&endpoint.id)?;
                self.put_endpoint(endpoint)
            }
            Change::Several(changes) => {
                let mut changes = changes.iter();
                changes.try_for_each(|change| self.apply(state, change))
            }
            Change::Repaired => Ok(()),
        }
    }

    /// How many endpoints are on a network.
    fn count(&mut self, name: &NetworkName) -> Result<usize> {
        Ok(self.network(name)?.map_or(0, |row| row.endpoints))
    }

    /// Puts a network down as the state has it in the end.
    fn put_network(&mut self, state: &State, name: &NetworkName, endpoints: usize) -> Result<()> {
        let Some(record) = state.record(name) else {
            // A later change of the same plan takes it away.
            return Ok(());
        };
        self.put_row(&network_key(name), &NetworkRow { record, endpoints })
    }

    fn put_endpoint(&mut self, endpoint: &Endpoint) -> Result<()> {
        let id = &endpoint.id;
        self.put_row(&endpoint_key(id), &EndpointRow(endpoint.clone()))?;
        for (claim, told) in claims(endpoint) {
            let put = self.tree.insert(&claim_key(&claim, id), told.as_bytes());
            put.map_err(failed(&self.path))?;
        }
        Ok(())
    }

    /// Takes an endpoint off, if it is there.
    fn remove_endpoint(&mut self, id: &EndpointId) -> Result<()> {
        let Some(EndpointRow(endpoint)) = self.endpoint(id)? else {
            return Ok(());
        };
        let claims = claims(&endpoint).map(|(claim, _)| claim_key(&claim, id));
        for key in claims.chain([endpoint_key(id)]) {
            self.tree.remove(&key).map_err(failed(&self.path))?;
        }
        Ok(())
    }

    fn put_row(&mut self, key: &[u8], row: &impl serde::Serialize) -> Result<()> {
        let row = serde_json::to_vec(row).map_err(|error| StoreError::Io {
            action: "write",
            path: self.path.clone(),
            source: error.into(),
        })?;
        self.tree.insert(key, &row).map_err(failed(&self.path))
    }
}
