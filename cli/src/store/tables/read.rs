//! Reading tables: all of them, or what a request names.

use std::collections::{BTreeMap, BTreeSet};
use std::ops::ControlFlow::{self, Break, Continue};
use std::sync::Arc;

use mydocker_core::{
    BRIDGE_PORTS_MAX, ContainerName, Endpoint, EndpointId, Netns, NetworkName, Plan, Request,
    Snapshot, State,
};

use super::block::{self, Ports};
use super::row::{EndpointRow, NetworkRow, parse};
use super::{
    BETWEEN, CLAIMS, ENDPOINTS, META, Meta, NETNS_CLAIM, NETWORKS, Result, Tables,
    claims_but_ports, container_claim, contradiction, damaged, endpoint_key, failed, key,
    netns_claim, network_key, salvaged,
};
use crate::store::{StoreError, tree};

/// Why reading a table ends early.
enum Failure {
    Tree(tree::Error),
    Store(StoreError),
}

impl From<tree::Error> for Failure {
    fn from(error: tree::Error) -> Self {
        Self::Tree(error)
    }
}

impl From<StoreError> for Failure {
    fn from(error: StoreError) -> Self {
        Self::Store(error)
    }
}

/// Who is shown keys and rows, until it breaks.
type Visit<'v> = dyn FnMut(&[u8], Vec<u8>) -> Result<ControlFlow<()>> + 'v;

impl Tables {
    pub(super) fn read_meta(&mut self) -> Result<Meta> {
        let row = self.tree.get(&key(META, &[])).map_err(failed(&self.path))?;
        match row {
            Some(row) => parse(&self.path, &row),
            None => Err(damaged(&self.path, 0, "it says nothing about itself")),
        }
    }

    /// Everything.
    pub(in crate::store) fn whole(&mut self, pending: Option<Arc<Plan>>) -> Result<State> {
        let path = self.path.clone();
        let mut snapshot = Snapshot {
            pending,
            ..self.rest()
        };
        self.rows(&[NETWORKS], &mut |_, row| {
            let row: NetworkRow = parse(&path, &row)?;
            snapshot.networks.push(row.record);
            Ok(Continue(()))
        })?;
        self.rows(&[ENDPOINTS], &mut |_, row| {
            let EndpointRow(endpoint) = parse(&path, &row)?;
            snapshot.endpoints.push(endpoint);
            Ok(Continue(()))
        })?;
        State::restore(snapshot).map_err(contradiction(&path))
    }

    /// As much of everything as can be read.
    pub(in crate::store) fn salvage(&mut self) -> Option<State> {
        let (mut networks, mut endpoints) = (Vec::new(), Vec::new());
        let path = &self.path;
        self.tree.salvage(|key, row| match key.first() {
            Some(&NETWORKS) => {
                let row = parse::<NetworkRow>(path, &row);
                networks.extend(row.map(|row| row.record));
            }
            Some(&ENDPOINTS) => {
                let row = parse::<EndpointRow>(path, &row);
                endpoints.extend(row.map(|EndpointRow(endpoint)| endpoint));
            }
            _ => {}
        });
        salvaged(self.rest(), networks, endpoints)
    }

    /// What planning requests takes, if that is not everything: their networks and the containers'
    /// endpoints. Whoever else is in their way is found by [`rivals`](Self::rivals).
    pub(in crate::store) fn part(&mut self, requests: &[Request]) -> Result<Option<State>> {
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
        let mut snapshot = self.rest();
        for (network, joins) in networks {
            let Some(row) = self.network(network)? else {
                return Ok(None);
            };
            // To raise a network takes knowing all others, and to say that it is full those on it.
            let full = joins > 0 && row.endpoints + joins > BRIDGE_PORTS_MAX;
            if !row.record.up || full {
                return Ok(None);
            }
            snapshot.networks.push(row.record);
        }
        let mut state = State::restore(snapshot).map_err(contradiction(&self.path))?;
        for container in containers {
            self.recall(&mut state, container)?;
        }
        Ok(Some(state))
    }

    /// Adds all endpoints of a container to a part.
    pub(in crate::store) fn recall(
        &mut self,
        state: &mut State,
        container: &ContainerName,
    ) -> Result<()> {
        let claim = container_claim(container.as_str());
        for id in self.claimants(&claim, &|_| Ok(true))? {
            if state.endpoint(&id).is_none() {
                self.recall_one(state, &id)?;
            }
        }
        Ok(())
    }

    /// Adds to a part whoever claims something that an endpoint does, and may be in its way. Whether
    /// there was anybody.
    pub(in crate::store) fn rivals(
        &mut self,
        state: &mut State,
        endpoint: &Endpoint,
    ) -> Result<bool> {
        let mut claimants = Vec::new();
        for claim in claims_but_ports(endpoint) {
            claimants.extend(self.claimants(&claim, &|_| Ok(true))?);
        }
        for (block, wanted) in block::of(endpoint) {
            let claimants_of_block = self.claimants(&block.to_string(), &|ports| {
                let ports: Ports = ports.parse()?;
                Ok(ports.overlap(&wanted))
            })?;
            claimants.extend(claimants_of_block);
        }
        let mut found = false;
        for id in claimants {
            if id != endpoint.id && state.endpoint(&id).is_none() {
                self.recall_one(state, &id)?;
                found = true;
            }
        }
        Ok(found)
    }

    /// Namespaces and whose they are, those behind `netns` first, as
    /// [`State::sandboxes_after`] has them.
    pub(in crate::store) fn sandboxes_after(
        &mut self,
        netns: &Netns,
        most: usize,
    ) -> Result<Vec<(Netns, ContainerName)>> {
        let path = self.path.clone();
        let own = netns_claim(netns);
        let mut found: Vec<(Netns, ContainerName)> = Vec::new();
        for (from, end) in [(&*own, None), (NETNS_CLAIM, Some(&*own))] {
            self.rows(&key(CLAIMS, &[from]), &mut |claim, _| {
                let (claim, _, container) = claim_of(&path, claim)?;
                let Some(netns) = claim.strip_prefix(NETNS_CLAIM) else {
                    return Ok(Break(()));
                };
                let known = found.last().is_some_and(|(last, _)| last.as_str() == netns);
                if known || end.is_none() && claim == own {
                    return Ok(Continue(()));
                }
                if found.len() == most || end.is_some_and(|end| claim > end) {
                    return Ok(Break(()));
                }
                found.push((name(&path, netns)?, name(&path, container)?));
                Ok(Continue(()))
            })?;
        }
        Ok(found)
    }

    /// A state that has no networks.
    fn rest(&self) -> Snapshot {
        self.meta.clone().snapshot(self.instance)
    }

    /// Shows the rows of a table from one key on, until `visit` breaks; keys without their table. Once for
    /// all who look, for an attach pays for each page of code that it meets.
    fn rows(&mut self, from: &[u8], visit: &mut Visit<'_>) -> Result<()> {
        let scanned = self.tree.scan(from, |key, row| match key.split_first() {
            Some((table, key)) if from.first() == Some(table) => Ok(visit(key, row)?),
            _ => Ok(Break(())),
        });
        scanned.map_err(|failure| match failure {
            Failure::Tree(error) => failed(&self.path)(error),
            Failure::Store(error) => error,
        })
    }

    pub(super) fn network(&mut self, name: &NetworkName) -> Result<Option<NetworkRow>> {
        let row = self.tree.get(&network_key(name));
        let row = row.map_err(failed(&self.path))?;
        row.map(|row| parse(&self.path, &row)).transpose()
    }

    pub(super) fn endpoint(&mut self, id: &EndpointId) -> Result<Option<EndpointRow>> {
        let row = self.tree.get(&endpoint_key(id));
        let row = row.map_err(failed(&self.path))?;
        row.map(|row| parse(&self.path, &row)).transpose()
    }

    /// Who claims something, of those that `counts` by what is told of it.
    fn claimants(
        &mut self,
        claim: &str,
        counts: &dyn Fn(&str) -> std::result::Result<bool, String>,
    ) -> Result<Vec<EndpointId>> {
        let path = self.path.clone();
        let mut ids = Vec::new();
        self.rows(&key(CLAIMS, &[claim]), &mut |found, told| {
            let (found, network, container) = claim_of(&path, found)?;
            if found != claim {
                return Ok(Break(()));
            }
            let told = String::from_utf8(told).map_err(|error| error.to_string());
            let counted = told.and_then(|told| counts(&told));
            if counted.map_err(|what| damaged(&path, 0, what))? {
                let (network, container) = (name(&path, network)?, name(&path, container)?);
                ids.push(EndpointId { network, container });
            }
            Ok(Continue(()))
        })?;
        Ok(ids)
    }

    fn recall_one(&mut self, state: &mut State, id: &EndpointId) -> Result<()> {
        let path = self.path.clone();
        let missing = || damaged(&path, 0, format!("endpoint {id} is claimed for only"));
        let EndpointRow(endpoint) = self.endpoint(id)?.ok_or_else(missing)?;
        let record = match state.record(&id.network) {
            Some(known) => known,
            None => self.network(&id.network)?.ok_or_else(missing)?.record,
        };
        let recalled = state.recall(record, endpoint);
        recalled.map_err(contradiction(&path))
    }
}

/// What is claimed, network and container, of a row of claims.
fn claim_of<'k>(path: &std::path::Path, key: &'k [u8]) -> Result<(&'k str, &'k str, &'k str)> {
    let mut parts = key.split(|byte| *byte == BETWEEN).map(std::str::from_utf8);
    match (parts.next(), parts.next(), parts.next(), parts.next()) {
        (Some(Ok(claim)), Some(Ok(network)), Some(Ok(container)), None) => {
            Ok((claim, network, container))
        }
        _ => Err(damaged(path, 0, "a claim is not told as claims are")),
    }
}

fn name<T: std::str::FromStr<Err: ToString>>(path: &std::path::Path, text: &str) -> Result<T> {
    let name = text.parse::<T>();
    name.map_err(|error| damaged(path, 0, error.to_string()))
}
