//! Journal: what happened since the snapshot, one record after the other.

use std::fs::File;
use std::io::Write;
use std::path::PathBuf;

use mydocker_core::Entry;
use rustix::fs::OFlags;

use super::StoreError;
use super::dir::Dir;
use super::error::io;
use super::record::encode;

pub(super) const NAME: &str = "journal";

/// Every command replays the journal, and an attach adds some 2.6 KiB to it. Measured with 100
/// endpoints: reading took up to 1.4 ms with a limit of 256 KiB, and some 0.3 ms with this one.
const BYTES_MAX: u64 = 32 * 1024;
const ENTRIES_MAX: usize = 128;

/// How long a journal is.
#[derive(Clone, Copy, Debug, Default, Eq, PartialEq)]
pub(super) struct Length {
    /// All complete records, the header included.
    pub(super) bytes: u64,
    /// The records after the header.
    pub(super) entries: usize,
}

impl Length {
    /// Whether it is time for a snapshot.
    pub(super) fn is_long(self) -> bool {
        self.bytes > BYTES_MAX || self.entries > ENTRIES_MAX
    }
}

/// The end of a journal, where entries are added.
#[derive(Debug)]
pub(super) struct Journal {
    file: File,
    path: PathBuf,
    bytes: u64,
}

impl Journal {
    /// Opens it for writing and drops what a dead writer did not complete.
    pub(super) fn open(dir: &Dir, length: Length) -> Result<Self, StoreError> {
        let path = dir.path_of(NAME);
        let file = dir
            .open_file(NAME, OFlags::WRONLY | OFlags::APPEND)?
            .ok_or_else(|| io("open", &path)(std::io::ErrorKind::NotFound.into()))?;
        let bytes = length.bytes;
        if file.metadata().map_err(io("look at", &path))?.len() != bytes {
            file.set_len(bytes).map_err(io("truncate", &path))?;
        }
        Ok(Self { file, path, bytes })
    }

    /// Adds an entry. On failure the journal is as before, or has a torn end, which is the same.
    pub(super) fn append(&mut self, entry: &Entry) -> Result<(), StoreError> {
        let record = to_record(entry).map_err(io("write", &self.path))?;
        if let Err(error) = self.file.write_all(&record) {
            // Should this fail too, the next writer drops the torn end.
            self.file.set_len(self.bytes).ok();
            return Err(io("write", &self.path)(error));
        }
        self.bytes += record.len() as u64;
        Ok(())
    }

    /// Where the next entry goes.
    pub(super) fn bytes(&self) -> u64 {
        self.bytes
    }

    pub(super) fn path(&self) -> &PathBuf {
        &self.path
    }
}

/// A value as JSON in a record.
pub(super) fn to_record(value: &impl serde::Serialize) -> std::io::Result<Vec<u8>> {
    let payload = serde_json::to_vec(value)?;
    encode(&payload).ok_or_else(|| std::io::ErrorKind::FileTooLarge.into())
}
