//! Tables: networks and endpoints, and who claims what, so that a request reads only what it names.
//!
//! | table | key | value |
//! |---|---|---|
//! | meta | – | passages, debris |
//! | networks | name | the network, whether it is up, where its searches go on, how many are on it |
//! | endpoints | network, container | the endpoint |
//! | claims | what is claimed, network, container | of a block of ports: which, and at which addresses |
//!
//! All are in one tree, the table before the key; beside it is which plan ended last. A container, its
//! namespace, an address, a MAC, a block of ports of the host: endpoints that could be in each other's way
//! claim the same. Claims follow from endpoints and are written with them.

mod block;
mod read;
pub(super) mod row;
mod write;

use std::collections::BTreeSet;
use std::fs::File;
use std::io::ErrorKind;
use std::os::unix::fs::FileExt;
use std::path::{Path, PathBuf};

use mydocker_core::{
    Damage, Endpoint, EndpointId, Footprint, ForeignChain, Instance, Netns, NetworkName,
    NetworkRecord, Snapshot, State,
};
use rustix::fs::OFlags;
use serde::{Deserialize, Serialize};

use super::checksum;
use super::dir::Dir;
use super::error::{RUN_REMEDY, io};
use super::legacy::redb::Older;
use super::record::{FORMAT, Found, HEAD_BYTES, decode, encode};
use super::tree::{self, Tree};
use super::{Access, StoreError};

pub(super) const NAME: &str = "state";

/// The first format that had tables, and the first of which they are a tree. That one had CRC-32, and it
/// and the next a claim for each port.
const FIRST_FORMAT: u64 = 3;
const FIRST_FORMAT_OF_TREES: u64 = 5;

/// What a key of each table begins with.
const META: u8 = b'm';
const NETWORKS: u8 = b'n';
const ENDPOINTS: u8 = b'e';
const CLAIMS: u8 = b'c';
/// What is between the parts of a key: in none of them, and before all that are.
const BETWEEN: u8 = 0;

/// What the file begins with has room for no more.
const TITLE_BYTES_MAX: usize = 4096;

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
    /// What there was before tables.
    Journal,
    /// Tables of an older format.
    Older(Box<Older>),
    /// Tables.
    Tables(Tables),
}

/// The tables of one boot.
#[derive(Debug)]
pub(super) struct Tables {
    tree: Tree,
    path: PathBuf,
    instance: Instance,
    /// The format that they are of. What is to change is put into the current one first.
    format: u64,
    meta: Meta,
}

/// What belongs to no network.
#[derive(Clone, Debug, Default, Deserialize, Eq, PartialEq, Serialize)]
pub(super) struct Meta {
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
        let mut format = FORMAT;
        if !has_title_of(&file, subject).map_err(io("read", &path))? {
            let title = match read_title(&file, &path)? {
                Ok(title) => title,
                Err(format) if format < FIRST_FORMAT => return Ok(Kept::Journal),
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
            if title.format < FIRST_FORMAT_OF_TREES {
                let older = Older::open(file, path, subject)?;
                return Ok(Kept::Older(Box::new(older)));
            }
            format = title.format;
        }
        let writes = access == Access::Write && format == FORMAT;
        let tree = Tree::open(file, writes).map_err(failed(&path))?;
        let mut tables = Self {
            tree,
            path,
            instance: subject.instance,
            format,
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
        write_title(&file, subject).map_err(io("write", &path))?;
        let mut tables = Self {
            tree: Tree::begin(file),
            path,
            instance: subject.instance,
            format: FORMAT,
            meta: Meta::default(),
        };
        tables.put_all(state, ended)?;
        Ok(tables)
    }

    /// Whether they are of the format that this version writes.
    pub(super) fn are_current(&self) -> bool {
        self.format == FORMAT
    }

    /// The number of the last plan that ended.
    pub(super) fn ended(&self) -> u64 {
        self.tree.note()
    }

    /// Whether something is left over that an undo could not remove.
    pub(super) fn have_debris(&self) -> bool {
        !self.meta.debris.is_empty()
    }

    pub(super) fn path(&self) -> &Path {
        &self.path
    }
}

impl Meta {
    fn of(state: &State) -> Self {
        Self {
            passages: state.passages().clone(),
            debris: state.debris().clone(),
        }
    }

    /// A state that has nothing else.
    pub(super) fn snapshot(self, instance: Instance) -> Snapshot {
        Snapshot {
            instance,
            passages: self.passages,
            debris: self.debris,
            ..Snapshot::default()
        }
    }
}

/// How this version begins a file, without checksums.
fn title_of(subject: &Subject) -> serde_json::Result<Vec<u8>> {
    serde_json::to_vec(&Title {
        format: FORMAT,
        boot_id: subject.boot_id.clone(),
        instance: subject.instance,
    })
}

fn write_title(file: &File, subject: &Subject) -> std::io::Result<()> {
    let title = encode(&title_of(subject)?, checksum::crc32);
    let title = title.filter(|bytes| bytes.len() <= TITLE_BYTES_MAX);
    file.write_all_at(&title.ok_or(ErrorKind::FileTooLarge)?, 0)
}

/// Whether a file begins as this version begins one: most do, and nothing has to be parsed then.
fn has_title_of(file: &File, subject: &Subject) -> std::io::Result<bool> {
    let title = title_of(subject)?;
    let mut bytes = vec![0; HEAD_BYTES + title.len()];
    let read = file.read_at(&mut bytes, 0)?;
    let (head, payload) = bytes[..read].split_at(HEAD_BYTES.min(read));
    let length = head.first_chunk().map(|length| u32::from_le_bytes(*length));
    Ok(payload == title && length.is_some_and(|length| length as usize == title.len()))
}

/// What a file begins with; if it is another format, which.
fn read_title(file: &File, path: &Path) -> Result<std::result::Result<Title, u64>> {
    let mut bytes = vec![0; TITLE_BYTES_MAX];
    let read = file.read_at(&mut bytes, 0).map_err(io("read", path))?;
    title(&bytes[..read]).map_err(|what| damaged(path, 0, what))
}

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

pub(super) fn damaged(path: &Path, offset: u64, what: impl Into<String>) -> StoreError {
    StoreError::Damaged {
        path: path.to_path_buf(),
        offset,
        what: what.into(),
        remedy: RUN_REMEDY,
    }
}

pub(super) fn contradiction(path: &Path) -> impl Fn(Damage) -> StoreError + '_ {
    |source| StoreError::Contradiction {
        path: path.to_path_buf(),
        offset: 0,
        source,
    }
}

fn failed(path: &Path) -> impl Fn(tree::Error) -> StoreError + '_ {
    |error| match error {
        tree::Error::Corrupt { offset, what } => damaged(path, offset, what),
        tree::Error::Io(error) => io("read or write", path)(error),
    }
}

/// As much of a state as these rows make: what contradicts the rest is left out of it.
pub(super) fn salvaged(
    mut rest: Snapshot,
    networks: Vec<NetworkRecord>,
    endpoints: Vec<Endpoint>,
) -> Option<State> {
    rest.networks.extend(networks);
    let mut state = State::restore(rest).ok()?;
    for endpoint in endpoints {
        if let Some(record) = state.record(&endpoint.id.network) {
            state.recall(record, endpoint).ok();
        }
    }
    Some(state)
}

fn key(table: u8, parts: &[&str]) -> Vec<u8> {
    let mut key = vec![table];
    for (at, part) in parts.iter().enumerate() {
        if at > 0 {
            key.push(BETWEEN);
        }
        key.extend(part.as_bytes());
    }
    key
}

fn network_key(name: &NetworkName) -> Vec<u8> {
    key(NETWORKS, &[name.as_str()])
}

fn endpoint_key(EndpointId { network, container }: &EndpointId) -> Vec<u8> {
    key(ENDPOINTS, &[network.as_str(), container.as_str()])
}

fn claim_key(claim: &str, EndpointId { network, container }: &EndpointId) -> Vec<u8> {
    key(CLAIMS, &[claim, network.as_str(), container.as_str()])
}

/// What a container claims.
fn container_claim(container: &str) -> String {
    format!("container {container}")
}

const NETNS_CLAIM: &str = "netns ";

fn netns_claim(netns: &Netns) -> String {
    format!("{NETNS_CLAIM}{netns}")
}

/// What an endpoint claims, and what is told of it.
fn claims(endpoint: &Endpoint) -> impl Iterator<Item = (String, String)> + '_ {
    let single = claims_but_ports(endpoint).map(|claim| (claim, String::new()));
    let blocks = block::of(endpoint).into_iter();
    single.chain(blocks.map(|(block, ports)| (block.to_string(), ports.to_string())))
}

/// All but the ports of the host.
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
