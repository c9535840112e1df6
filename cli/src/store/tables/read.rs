//! Reading tables: all of them, or what a request names.

use std::collections::{BTreeMap, BTreeSet};
use std::ops::Bound;

use mydocker_core::{
    BRIDGE_PORTS_MAX, ContainerName, Endpoint, EndpointId, Netns, NetworkName, Plan, Request,
    Snapshot, State,
};
use redb::{ReadOnlyTable, ReadableDatabase, ReadableTable};

use super::{
    CLAIMS, Claim, ENDPOINTS, Id, META, Meta, NETNS_CLAIM, NETWORKS, Result, Tables,
    claims_but_ports, container_claim, damaged, netns_claim, port_claims,
    row::{EndpointRow, NetworkRow},
};
use crate::store::StoreError;

/// The tables at one moment.
struct Reader<'t> {
    tables: &'t Tables,
    networks: ReadOnlyTable<&'static str, &'static [u8]>,
    endpoints: ReadOnlyTable<Id<'static>, &'static [u8]>,
    claims: ReadOnlyTable<Claim<'static>, ()>,
}

impl Tables {
    pub(super) fn read_meta(&self) -> Result<Meta> {
        let read = self.database.begin_read().map_err(self.failed())?;
        let meta = read.open_table(META).map_err(self.failed())?;
        match meta.get(()).map_err(self.failed())? {
            Some(row) => self.parse(row.value()),
            None => Err(damaged(&self.path, 0, "it says nothing about itself")),
        }
    }

    fn reader(&self) -> Result<Reader<'_>> {
        let read = self.database.begin_read().map_err(self.failed())?;
        Ok(Reader {
            tables: self,
            networks: read.open_table(NETWORKS).map_err(self.failed())?,
            endpoints: read.open_table(ENDPOINTS).map_err(self.failed())?,
            claims: read.open_table(CLAIMS).map_err(self.failed())?,
        })
    }

    /// Everything.
    pub(in crate::store) fn whole(&self, pending: Option<Plan>) -> Result<State> {
        let reader = self.reader()?;
        let mut snapshot = Snapshot {
            pending,
            ..self.empty()
        };
        for row in reader.networks.iter().map_err(self.failed())? {
            let (_, row) = row.map_err(self.failed())?;
            let row: NetworkRow = self.parse(row.value())?;
            snapshot.networks.push(row.record);
        }
        for row in reader.endpoints.iter().map_err(self.failed())? {
            let (_, row) = row.map_err(self.failed())?;
            let EndpointRow(endpoint) = self.parse(row.value())?;
            snapshot.endpoints.push(endpoint);
        }
        State::restore(snapshot).map_err(self.contradiction())
    }

    /// As much of everything as can be read.
    pub(in crate::store) fn salvage(&self) -> Option<State> {
        let reader = self.reader().ok()?;
        let mut snapshot = self.empty();
        for (_, row) in reader.networks.iter().ok()?.flatten() {
            let row = self.parse::<NetworkRow>(row.value());
            snapshot.networks.extend(row.map(|row| row.record));
        }
        let mut state = State::restore(snapshot).ok()?;
        for (_, row) in reader.endpoints.iter().into_iter().flatten().flatten() {
            let Ok(EndpointRow(endpoint)) = self.parse(row.value()) else {
                continue;
            };
            if let Some(record) = state.record(&endpoint.id.network) {
                // What contradicts the rest is left out of it.
                state.recall(record, endpoint).ok();
            }
        }
        Some(state)
    }

    /// What planning requests takes, if that is not everything: their networks and the containers'
    /// endpoints. Whoever else is in their way is found by [`rivals`](Self::rivals).
    pub(in crate::store) fn part(&self, requests: &[Request]) -> Result<Option<State>> {
        if self.have_debris() {
            return Ok(None);
        }
        let (mut networks, mut containers) = (BTreeMap::new(), BTreeSet::new());
        for request in requests {
            let (network, container) = match request {
                Request::Attach(spec) => (&spec.network, &spec.container),
                Request::Detach(id)
                | Request::Publish { id, .. }
                | Request::Unpublish { id, .. } => (&id.network, &id.container),
                Request::CreateNetwork(_) | Request::RemoveNetwork(_) => return Ok(None),
            };
            let joins: &mut usize = networks.entry(network).or_default();
            *joins += usize::from(matches!(request, Request::Attach(_)));
            containers.insert(container);
        }
        let reader = self.reader()?;
        let mut snapshot = self.empty();
        for (network, joins) in networks {
            let Some(row) = reader.network(network)? else {
                return Ok(None);
            };
            // To raise a network takes knowing all others, and to say that it is full those on it.
            let full = joins > 0 && row.endpoints + joins > BRIDGE_PORTS_MAX;
            if !row.record.up || full {
                return Ok(None);
            }
            snapshot.networks.push(row.record);
        }
        let mut state = State::restore(snapshot).map_err(self.contradiction())?;
        for container in containers {
            reader.recall(&mut state, container)?;
        }
        Ok(Some(state))
    }

    /// Adds all endpoints of a container to a part.
    pub(in crate::store) fn recall(
        &self,
        state: &mut State,
        container: &ContainerName,
    ) -> Result<()> {
        self.reader()?.recall(state, container)
    }

    /// Adds to a part whoever claims something that an endpoint does. Whether there was anybody.
    pub(in crate::store) fn rivals(&self, state: &mut State, endpoint: &Endpoint) -> Result<bool> {
        let reader = self.reader()?;
        let mut found = false;
        let single = claims_but_ports(endpoint).map(|claim| (claim.clone(), claim));
        for (first, last) in single.chain(port_claims(endpoint)) {
            for id in reader.claimants(&first, &last)? {
                if id != endpoint.id && state.endpoint(&id).is_none() {
                    reader.recall_one(state, &id)?;
                    found = true;
                }
            }
        }
        Ok(found)
    }

    /// Namespaces and whose they are, those behind `netns` first, as
    /// [`State::sandboxes_after`] has them.
    pub(in crate::store) fn sandboxes_after(
        &self,
        netns: &Netns,
        most: usize,
    ) -> Result<Vec<(Netns, ContainerName)>> {
        let reader = self.reader()?;
        let own = netns_claim(netns);
        let after = format!("{own}\0");
        let end = Bound::Unbounded;
        let mut found: Vec<(Netns, ContainerName)> = Vec::new();
        let ranges = [
            (Bound::Included((after.as_str(), "", "")), end),
            (
                Bound::Included((NETNS_CLAIM, "", "")),
                Bound::Excluded((after.as_str(), "", "")),
            ),
        ];
        for range in ranges {
            let range = reader.claims.range::<Claim<'_>>(range);
            for row in range.map_err(self.failed())? {
                let (key, _) = row.map_err(self.failed())?;
                let (claim, _, container) = key.value();
                let Some(path) = claim.strip_prefix(NETNS_CLAIM) else {
                    break;
                };
                if found.last().is_some_and(|(last, _)| last.as_str() == path) {
                    continue;
                }
                if found.len() == most {
                    return Ok(found);
                }
                found.push((self.name(path)?, self.name(container)?));
            }
        }
        Ok(found)
    }

    fn empty(&self) -> Snapshot {
        Snapshot {
            instance: self.instance,
            passages: self.meta.passages.clone(),
            debris: self.meta.debris.clone(),
            ..Snapshot::default()
        }
    }

    fn name<T: std::str::FromStr<Err: ToString>>(&self, text: &str) -> Result<T> {
        let name = text.parse::<T>();
        name.map_err(|error| damaged(&self.path, 0, error.to_string()))
    }

    fn contradiction(&self) -> impl Fn(mydocker_core::Damage) -> StoreError + '_ {
        |source| StoreError::Contradiction {
            path: self.path.clone(),
            offset: 0,
            source,
        }
    }
}

impl Reader<'_> {
    fn network(&self, name: &NetworkName) -> Result<Option<NetworkRow>> {
        let row = self.networks.get(name.as_str());
        let row = row.map_err(self.tables.failed())?;
        row.map(|row| self.tables.parse(row.value())).transpose()
    }

    /// Who claims what is from `first` to `last`.
    fn claimants(&self, first: &str, last: &str) -> Result<Vec<EndpointId>> {
        let mut ids = Vec::new();
        let range = self.claims.range::<Claim<'_>>((first, "", "")..);
        for row in range.map_err(self.tables.failed())? {
            let (key, _) = row.map_err(self.tables.failed())?;
            let (claimed, network, container) = key.value();
            if claimed > last {
                break;
            }
            let network = self.tables.name(network)?;
            let container = self.tables.name(container)?;
            ids.push(EndpointId { network, container });
        }
        Ok(ids)
    }

    fn recall(&self, state: &mut State, container: &ContainerName) -> Result<()> {
        let claim = container_claim(container.as_str());
        for id in self.claimants(&claim, &claim)? {
            if state.endpoint(&id).is_none() {
                self.recall_one(state, &id)?;
            }
        }
        Ok(())
    }

    fn recall_one(&self, state: &mut State, id: &EndpointId) -> Result<()> {
        let tables = self.tables;
        let missing = || {
            damaged(
                &tables.path,
                0,
                format!("endpoint {id} is claimed for only"),
            )
        };
        let key = (id.network.as_str(), id.container.as_str());
        let row = self.endpoints.get(key).map_err(tables.failed())?;
        let EndpointRow(endpoint) = tables.parse(row.ok_or_else(missing)?.value())?;
        let record = match state.record(&id.network) {
            Some(known) => known,
            None => self.network(&id.network)?.ok_or_else(missing)?.record,
        };
        let recalled = state.recall(record, endpoint);
        recalled.map_err(tables.contradiction())
    }
}
