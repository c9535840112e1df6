//! Formats 3 and 4: tables of redb, in [blocks](super::blocks).

use std::fs::File;
use std::path::{Path, PathBuf};
use std::sync::Arc;

use mydocker_core::{Endpoint, NetworkRecord, Plan, PortBinding, Snapshot, State};
use redb::{Builder, Database, ReadableDatabase, ReadableTable, TableDefinition};
use serde::Deserialize;

use super::blocks::{Blocks, Corruption};
use crate::store::StoreError;
use crate::store::error::io;
use crate::store::tables::row::{EndpointRow, Packed, Run, parse};
use crate::store::tables::{Meta, Subject, contradiction, damaged, salvaged};

const META: TableDefinition<'_, (), &[u8]> = TableDefinition::new("meta");
const NETWORKS: TableDefinition<'_, &str, &[u8]> = TableDefinition::new("networks");
const ENDPOINTS: TableDefinition<'_, (&str, &str), &[u8]> = TableDefinition::new("endpoints");

type Result<T> = std::result::Result<T, StoreError>;

/// The tables of one boot.
#[derive(Debug)]
pub(in crate::store) struct Older {
    database: Database,
    path: PathBuf,
    /// What there is but for networks and endpoints.
    rest: Snapshot,
    ended: u64,
}

#[derive(Deserialize)]
struct MetaRow {
    /// The number of the last plan that ended.
    ended: u64,
    #[serde(flatten)]
    meta: Meta,
}

impl Older {
    /// Opens what is in a file about `subject`, which stays as it is.
    pub(in crate::store) fn open(file: File, path: PathBuf, subject: &Subject) -> Result<Self> {
        let blocks = Blocks::open(file).map_err(failed(&path))?;
        let database = Builder::new().create_with_backend(blocks);
        let database = database.map_err(failed(&path))?;
        let read = database.begin_read().map_err(failed(&path))?;
        let table = read.open_table(META).map_err(failed(&path))?;
        let row = table.get(()).map_err(failed(&path))?;
        let row = row.ok_or_else(|| damaged(&path, 0, "it says nothing about itself"))?;
        let MetaRow { ended, meta } = parse(&path, row.value())?;
        let rest = meta.snapshot(subject.instance);
        Ok(Self {
            database,
            path,
            rest,
            ended,
        })
    }

    /// The number of the last plan that ended.
    pub(in crate::store) fn ended(&self) -> u64 {
        self.ended
    }

    pub(in crate::store) fn path(&self) -> &Path {
        &self.path
    }

    /// Everything.
    pub(in crate::store) fn whole(&self, pending: Option<Arc<Plan>>) -> Result<State> {
        let mut snapshot = Snapshot {
            pending,
            ..self.rest.clone()
        };
        self.rows(|row| {
            match row? {
                Row::Network(record) => snapshot.networks.push(record),
                Row::Endpoint(endpoint) => snapshot.endpoints.push(endpoint),
            }
            Ok(())
        })?;
        State::restore(snapshot).map_err(contradiction(&self.path))
    }

    /// As much of everything as can be read.
    pub(in crate::store) fn salvage(&self) -> Option<State> {
        let (mut networks, mut endpoints) = (Vec::new(), Vec::new());
        let read = self.rows(|row| {
            match row {
                Ok(Row::Network(row)) => networks.push(row),
                Ok(Row::Endpoint(row)) => endpoints.push(row),
                Err(_) => {}
            }
            Ok(())
        });
        // What was read before the first table that can't be.
        read.ok();
        salvaged(self.rest.clone(), networks, endpoints)
    }

    fn rows(&self, mut visit: impl FnMut(Result<Row>) -> Result<()>) -> Result<()> {
        let path = &self.path;
        let read = self.database.begin_read().map_err(failed(path))?;
        let networks = read.open_table(NETWORKS).map_err(failed(path))?;
        for row in networks.iter().map_err(failed(path))? {
            let row = row.map_err(failed(path));
            visit(row.and_then(|(_, row)| parse(path, row.value()).map(Row::Network)))?;
        }
        let endpoints = read.open_table(ENDPOINTS).map_err(failed(path))?;
        for row in endpoints.iter().map_err(failed(path))? {
            let row = row.map_err(failed(path));
            visit(row.and_then(|(_, row)| self.endpoint(row.value()).map(Row::Endpoint)))?;
        }
        Ok(())
    }

    fn endpoint(&self, row: &[u8]) -> Result<Endpoint> {
        let EndpointRow4 { endpoint, runs } = parse(&self.path, row)?;
        let runs = runs.into_iter();
        let runs = runs.map(|Run4 { first, count }| Run { first, count });
        let runs = runs.collect();
        let unpacked = EndpointRow::try_from(Packed { endpoint, runs });
        let EndpointRow(endpoint) = unpacked.map_err(|what| damaged(&self.path, 0, what))?;
        Ok(endpoint)
    }
}

enum Row {
    Network(NetworkRecord),
    Endpoint(Endpoint),
}

/// Format 3 has all ports in the endpoint.
#[derive(Deserialize)]
struct EndpointRow4 {
    #[serde(flatten)]
    endpoint: Endpoint,
    #[serde(default)]
    runs: Vec<Run4>,
}

#[derive(Deserialize)]
struct Run4 {
    #[serde(flatten)]
    first: PortBinding,
    count: usize,
}

/// Turns the library's error into one of ours.
fn failed<E: Into<redb::Error>>(path: &Path) -> impl Fn(E) -> StoreError + '_ {
    move |error| {
        let error = error.into();
        let redb::Error::Io(error) = error else {
            return damaged(path, 0, error.to_string());
        };
        let corruption = error.get_ref().and_then(|inner| inner.downcast_ref());
        match corruption {
            Some(Corruption { offset, what }) => damaged(path, *offset, *what),
            None => io("read", path)(error),
        }
    }
}
