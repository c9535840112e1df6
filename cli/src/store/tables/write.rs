//! Writing tables: what one plan changed, or everything.

use mydocker_core::{Change, Endpoint, EndpointId, NetworkName, State};
use redb::{Durability, ReadableTable, Table, WriteTransaction};

use super::{
    CLAIMS, Claim, ENDPOINTS, Id, META, Meta, NETWORKS, Result, Tables, claims,
    row::{EndpointRow, NetworkRow},
};
use crate::store::StoreError;

/// The tables while they are written.
struct Writer<'t> {
    tables: &'t Tables,
    networks: Table<'t, &'static str, &'static [u8]>,
    endpoints: Table<'t, Id<'static>, &'static [u8]>,
    claims: Table<'t, Claim<'static>, ()>,
}

impl Tables {
    /// Puts down that the plan of that number ended, and what of the state is another for it; with no
    /// change nothing is.
    pub(in crate::store) fn end(
        &mut self,
        number: u64,
        state: &State,
        change: Option<&Change>,
    ) -> Result<()> {
        self.commit(number, state, |writer| match change {
            Some(change) => writer.apply(state, change),
            None => Ok(()),
        })
    }

    /// Puts a state down in the place of what is there.
    pub(in crate::store) fn put_all(&mut self, state: &State, ended: u64) -> Result<()> {
        self.commit(ended, state, |writer| {
            writer.clear()?;
            for endpoint in state.endpoints() {
                writer.put_endpoint(endpoint)?;
            }
            for network in state.networks() {
                let endpoints = state.endpoints_of(&network.name).count();
                writer.put_network(state, &network.name, endpoints)?;
            }
            Ok(())
        })
    }

    /// All or nothing, also if this process is killed meanwhile.
    fn commit(
        &mut self,
        ended: u64,
        state: &State,
        write: impl FnOnce(&mut Writer<'_>) -> Result<()>,
    ) -> Result<()> {
        let meta = Meta {
            ended,
            passages: state.passages().clone(),
            debris: state.debris().clone(),
        };
        let row = self.row(&meta)?;
        let mut transaction = self.database.begin_write().map_err(self.failed())?;
        transaction
            .set_durability(Durability::Immediate)
            .map_err(self.failed())?;
        write(&mut self.writer(&transaction)?)?;
        let mut table = transaction.open_table(META).map_err(self.failed())?;
        table.insert((), &*row).map_err(self.failed())?;
        drop(table);
        transaction.commit().map_err(self.failed())?;
        self.meta = meta;
        Ok(())
    }

    fn writer<'t>(&'t self, transaction: &'t WriteTransaction) -> Result<Writer<'t>> {
        Ok(Writer {
            tables: self,
            networks: transaction.open_table(NETWORKS).map_err(self.failed())?,
            endpoints: transaction.open_table(ENDPOINTS).map_err(self.failed())?,
            claims: transaction.open_table(CLAIMS).map_err(self.failed())?,
        })
    }

    fn row(&self, value: &impl serde::Serialize) -> Result<Vec<u8>> {
        serde_json::to_vec(value).map_err(|error| StoreError::Io {
            action: "write",
            path: self.path.clone(),
            source: error.into(),
        })
    }
}

impl Writer<'_> {
    fn clear(&mut self) -> Result<()> {
        let failed = self.tables.failed();
        self.networks.retain(|_, _| false).map_err(&failed)?;
        self.endpoints.retain(|_, _| false).map_err(&failed)?;
        self.claims.retain(|_, ()| false).map_err(&failed)
    }

    fn apply(&mut self, state: &State, change: &Change) -> Result<()> {
        match change {
            Change::NetworkAdded(network) => self.put_network(state, &network.name, 0),
            Change::NetworkRemoved(name) => {
                let removed = self.networks.remove(name.as_str());
                removed.map(drop).map_err(self.tables.failed())
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
    fn count(&self, name: &NetworkName) -> Result<usize> {
        let row = self.networks.get(name.as_str());
        match row.map_err(self.tables.failed())? {
            Some(row) => Ok(self.tables.parse::<NetworkRow>(row.value())?.endpoints),
            None => Ok(0),
        }
    }

    /// Puts a network down as the state has it in the end.
    fn put_network(&mut self, state: &State, name: &NetworkName, endpoints: usize) -> Result<()> {
        let Some(record) = state.record(name) else {
            // A later change of the same plan takes it away.
            return Ok(());
        };
        let row = self.tables.row(&NetworkRow { record, endpoints })?;
        let put = self.networks.insert(name.as_str(), &*row);
        put.map(drop).map_err(self.tables.failed())
    }

    fn put_endpoint(&mut self, endpoint: &Endpoint) -> Result<()> {
        let (network, container) = key(&endpoint.id);
        let row = self.tables.row(&EndpointRow(endpoint.clone()))?;
        let put = self.endpoints.insert((network, container), &*row);
        put.map_err(self.tables.failed())?;
        for claim in claims(endpoint) {
            let put = self.claims.insert((claim.as_str(), network, container), ());
            put.map_err(self.tables.failed())?;
        }
        Ok(())
    }

    /// Takes an endpoint off, if it is there.
    fn remove_endpoint(&mut self, id: &EndpointId) -> Result<()> {
        let (network, container) = key(id);
        let removed = self.endpoints.remove((network, container));
        let Some(row) = removed.map_err(self.tables.failed())? else {
            return Ok(());
        };
        let EndpointRow(endpoint) = self.tables.parse(row.value())?;
        for claim in claims(&endpoint) {
            let claim = (claim.as_str(), network, container);
            self.claims.remove(claim).map_err(self.tables.failed())?;
        }
        Ok(())
    }
}

fn key(id: &EndpointId) -> Id<'_> {
    (id.network.as_str(), id.container.as_str())
}
