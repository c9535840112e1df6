//! Tables: networks and endpoints, and who claims what, so that a request reads only what it names.
//!
//! | table | key | value |
//! |---|---|---|
//! | `meta` | – | which plan ended last, passages, debris |
//! | `networks` | name | the network, whether it is up, where its searches go on, how many are on it |
//! | `endpoints` | network, container | the endpoint |
//! | `claims` | what is claimed, network, container | – |
//!
//! A container, its namespace, an address, a MAC, a port of the host: endpoints that could be in each
//! other's way claim the same. Claims follow from endpoints and are written with them.

mod read;
mod row;
mod write;

use std::collections::BTreeSet;
use std::fs::File;
use std::io::ErrorKind;
use std::os::unix::fs::FileExt;
use std::path::{Path, PathBuf};

use mydocker_core::{
    Endpoint, Family, Footprint, ForeignChain, Instance, Netns, PortBinding, Protocol, State,
};
use redb::{Builder, Database, TableDefinition};
use rustix::fs::OFlags;
use serde::de::DeserializeOwned;
use serde::{Deserialize, Serialize};

use super::blocks::{Blocks, Corruption};
use super::dir::Dir;
use super::error::{RUN_REMEDY, io};
use super::record::{FORMAT, Found, decode, encode};
use super::{Access, StoreError};

pub(super) const NAME: &str = "state";

const META: TableDefinition<'_, (), &[u8]> = TableDefinition::new("meta");
const NETWORKS: TableDefinition<'_, &str, &[u8]> = TableDefinition::new("networks");
const ENDPOINTS: TableDefinition<'_, Id<'_>, &[u8]> = TableDefinition::new("endpoints");
const CLAIMS: TableDefinition<'_, Claim<'_>, ()> = TableDefinition::new("claims");

/// Network and container.
type Id<'k> = (&'k str, &'k str);
/// What is claimed, network and container.
type Claim<'k> = (&'k str, &'k str, &'k str);

/// What the file begins with has room for no more.
const TITLE_BYTES_MAX: usize = 4096;
/// The first format that had tables. Its rows are read as they are, and written as those of today.
const FIRST_FORMAT: u64 = 3;
/// More than what a request names takes; whoever reads everything reads it once.
const CACHE_BYTES: usize = 2 * 1024 * 1024;

type Result<T> = std::result::Result<T, StoreError>;

/// What the run state is about.
#[derive(Clone, Debug)]
pub(super) struct Subject {
    pub(super) boot_id: String,
    pub(super) instance: Instance,
}

/// What the file begins with, as a record.
#[derive(Deserialize, Serialize)]
struct Title {
    format: u64,
    boot_id: String,
    instance: Instance,
}

/// The part of a beginning that every format has.
#[derive(Deserialize)]
pub(super) struct Format {
    pub(super) format: u64,
}

/// What there is under the name of the tables.
#[derive(Debug)]
pub(super) enum Kept {
    /// Nothing.
    Nothing,
    /// Something about another boot.
    Stale,
    /// Something of an older format.
    Older,
    /// Tables.
    Tables(Tables),
}

/// The tables of one boot.
#[derive(Debug)]
pub(super) struct Tables {
    database: Database,
    path: PathBuf,
    instance: Instance,
    meta: Meta,
}

#[derive(Clone, Debug, Default, Deserialize, Eq, PartialEq, Serialize)]
struct Meta {
    /// The number of the last plan that ended.
    ended: u64,
    #[serde(default, skip_serializing_if = "BTreeSet::is_empty")]
    passages: BTreeSet<ForeignChain>,
    #[serde(default, skip_serializing_if = "BTreeSet::is_empty")]
    debris: Footprint,
}

impl Tables {
    /// Opens what is there; whoever reads changes nothing.
    pub(super) fn open(dir: &Dir, access: Access, subject: &Subject) -> Result<Kept> {
        let flags = match access {
            Access::Read => OFlags::RDONLY,
            Access::Write => OFlags::RDWR,
        };
        let Some(file) = dir.open_file(NAME, flags)? else {
            return Ok(Kept::Nothing);
        };
        Self::of(file, dir.path_of(NAME), access, subject)
    }

    /// The same from a file that is open.
    pub(super) fn of(file: File, path: PathBuf, access: Access, subject: &Subject) -> Result<Kept> {
        let mut bytes = [0; TITLE_BYTES_MAX];
        let read = file.read_at(&mut bytes, 0).map_err(io("read", &path))?;
        let title = match title(&bytes[..read]).map_err(|what| damaged(&path, 0, what))? {
            Ok(title) => title,
            Err(format) if format < FIRST_FORMAT => return Ok(Kept::Older),
            Err(format) => {
                let known = FORMAT;
                return Err(StoreError::TooNew {
                    path,
                    format,
                    known,
                });
            }
        };
        if title.boot_id != subject.boot_id {
            return Ok(Kept::Stale);
        }
        if title.instance != subject.instance {
            let (found, wanted) = (title.instance, subject.instance);
            return Err(StoreError::OtherInstance {
                path,
                found,
                wanted,
            });
        }
        if access == Access::Write && title.format < FORMAT {
            // Before there is any row that the version which made them would not read right.
            write_title(&file, subject).map_err(io("write", &path))?;
        }
        let blocks = Blocks::open(file, access == Access::Write);
        let blocks = blocks.map_err(|error| failed(&path)(error.into()))?;
        let mut tables = Self {
            database: database(blocks, &path)?,
            path,
            instance: title.instance,
            meta: Meta::default(),
        };
        tables.meta = tables.read_meta()?;
        Ok(Kept::Tables(tables))
    }

    /// Puts a state down in new tables, in the place of whatever is there. They begin with as many
    /// plans ended as `ended` says.
    pub(super) fn create(dir: &Dir, subject: &Subject, state: &State, ended: u64) -> Result<Self> {
        let tables = Self::put(dir.begin_file()?, dir.path_of(NAME), subject, state, ended)?;
        dir.complete_file(NAME)?;
        Ok(tables)
    }

    /// The same in a file that is open and empty.
    pub(super) fn put(
        file: File,
        path: PathBuf,
        subject: &Subject,
        state: &State,
        ended: u64,
    ) -> Result<Self> {
        let begun = write_title(&file, subject).and_then(|()| Blocks::begin(file));
        let blocks = begun.map_err(io("write", &path))?;
        let mut tables = Self {
            database: database(blocks, &path)?,
            path,
            instance: subject.instance,
            meta: Meta::default(),
        };
        tables.put_all(state, ended)?;
        Ok(tables)
    }

    /// The number of the last plan that ended.
    pub(super) fn ended(&self) -> u64 {
        self.meta.ended
    }

    /// Whether something is left over that an undo could not remove.
    pub(super) fn have_debris(&self) -> bool {
        !self.meta.debris.is_empty()
    }

    pub(super) fn path(&self) -> &Path {
        &self.path
    }

    fn parse<T: DeserializeOwned>(&self, bytes: &[u8]) -> Result<T> {
        serde_json::from_slice(bytes).map_err(|error| damaged(&self.path, 0, error.to_string()))
    }

    fn failed<E: Into<redb::Error>>(&self) -> impl Fn(E) -> StoreError + '_ {
        |error| failed(&self.path)(error.into())
    }
}

fn write_title(file: &File, subject: &Subject) -> std::io::Result<()> {
    let title = Title {
        format: FORMAT,
        boot_id: subject.boot_id.clone(),
        instance: subject.instance,
    };
    let title = encode(&serde_json::to_vec(&title)?);
    let title = title.filter(|bytes| bytes.len() <= TITLE_BYTES_MAX);
    file.write_all_at(&title.ok_or(ErrorKind::FileTooLarge)?, 0)
}

/// What a file begins with; if it is another format, which.
fn title(bytes: &[u8]) -> std::result::Result<std::result::Result<Title, u64>, String> {
    let payload = match decode(bytes, 0) {
        Found::Record { payload, .. } => payload,
        Found::Damaged(what) => return Err(what.to_owned()),
        Found::End | Found::Torn => return Err("its header is cut short".to_owned()),
    };
    let unreadable = |error: serde_json::Error| error.to_string();
    let Format { format } = serde_json::from_slice(payload).map_err(unreadable)?;
    match format {
        FIRST_FORMAT..=FORMAT => serde_json::from_slice(payload).map(Ok).map_err(unreadable),
        0 => Err("its header is that of another file".to_owned()),
        other => Ok(Err(other)),
    }
}

fn database(blocks: Blocks, path: &Path) -> Result<Database> {
    let database = Builder::new()
        .set_cache_size(CACHE_BYTES)
        .create_with_backend(blocks);
    database.map_err(|error| failed(path)(error.into()))
}

fn damaged(path: &Path, offset: u64, what: impl Into<String>) -> StoreError {
    StoreError::Damaged {
        path: path.to_path_buf(),
        offset,
        what: what.into(),
        remedy: RUN_REMEDY,
    }
}

/// Turns the library's error into one of ours.
fn failed(path: &Path) -> impl Fn(redb::Error) -> StoreError + '_ {
    move |error| {
        let redb::Error::Io(error) = error else {
            return damaged(path, 0, error.to_string());
        };
        let corruption = error.get_ref().and_then(|inner| inner.downcast_ref());
        match corruption {
            Some(Corruption { offset, what }) => damaged(path, *offset, *what),
            None => io("read or write", path)(error),
        }
    }
}

/// What a container claims.
fn container_claim(container: &str) -> String {
    format!("container {container}")
}

const NETNS_CLAIM: &str = "netns ";

fn netns_claim(netns: &Netns) -> String {
    format!("{NETNS_CLAIM}{netns}")
}

/// What an endpoint claims.
fn claims(endpoint: &Endpoint) -> impl Iterator<Item = String> + '_ {
    let ports = endpoint.host_ports();
    claims_but_ports(endpoint).chain(ports.map(|binding| port_claim(&Port::of(binding))))
}

fn claims_but_ports(endpoint: &Endpoint) -> impl Iterator<Item = String> + '_ {
    let network = &endpoint.id.network;
    let addresses = endpoint.addresses.iter();
    let addresses = addresses.map(move |a| format!("address {network} {}", a.addr()));
    let whole = [
        container_claim(endpoint.id.container.as_str()),
        netns_claim(&endpoint.netns),
        format!("mac {network} {}", endpoint.mac),
    ];
    whole.into_iter().chain(addresses)
}

/// A port of the host, at whatever address: who is in whose way is for core to say.
#[derive(Clone, Copy, Debug, Eq, Ord, PartialEq, PartialOrd)]
struct Port {
    protocol: Protocol,
    family: Family,
    number: u16,
}

impl Port {
    fn of(binding: &PortBinding) -> Self {
        Self {
            protocol: binding.protocol,
            family: binding.family(),
            number: binding.host_port,
        }
    }
}

/// Sorted as ports are.
fn port_claim(port: &Port) -> String {
    let family = match port.family {
        Family::V4 => 4,
        Family::V6 => 6,
    };
    format!("port {} {family} {:05}", port.protocol, port.number)
}

/// From which claim to which claim an endpoint's ports are: one pair for all that follow each other.
fn port_claims(endpoint: &Endpoint) -> Vec<(String, String)> {
    let mut ports: Vec<Port> = endpoint.host_ports().map(Port::of).collect();
    ports.sort_unstable();
    ports.dedup();
    let follows = |a: &Port, b: &Port| {
        (a.protocol, a.family) == (b.protocol, b.family)
            && a.number.checked_add(1) == Some(b.number)
    };
    let runs = ports.chunk_by(follows);
    runs.filter_map(|run| Some((port_claim(run.first()?), port_claim(run.last()?))))
        .collect()
}
