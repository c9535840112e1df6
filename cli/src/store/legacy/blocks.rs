//! Blocks: a file of blocks, each with a checksum, that a database was kept in. What comes back is what
//! was written, or an error that says where it is not: the library trusts what it reads.
//!
//! ```text
//! 0       what the file is, for the store
//! 4096    block 0, in which the database keeps its beginning; its last bytes are the length of all
//!         blocks, as the database knows them, and a checksum
//! 8192    block 1, its checksum, block 2, its checksum …
//! ```

use std::collections::BTreeMap;
use std::fs::File;
use std::io::{Error, ErrorKind, Result};
use std::os::unix::fs::FileExt;
use std::sync::{Mutex, MutexGuard, PoisonError};

use redb::StorageBackend;

/// What the database reads and writes at once, and the page of the kernel.
const BLOCK_BYTES: usize = 4096;
const SUM_BYTES: usize = 4;
/// What of block 0 is the database's.
const HEAD_BYTES: usize = BLOCK_BYTES - LENGTH_BYTES - SUM_BYTES;
const LENGTH_BYTES: usize = 8;
/// Where block 0 is, and where the others begin.
const HEAD_AT: u64 = BLOCK_BYTES as u64;
const BODY_AT: u64 = 2 * BLOCK_BYTES as u64;

type Block = [u8; BLOCK_BYTES];

/// The blocks of a file, which stays as it is.
#[derive(Debug)]
pub(super) struct Blocks {
    file: File,
    inner: Mutex<Inner>,
}

#[derive(Debug)]
struct Inner {
    length: u64,
    /// What the database would have written: it wants to write though it is only read.
    unwritten: BTreeMap<u64, Box<Block>>,
}

/// A place in the file that is not as it was written.
#[derive(Debug, thiserror::Error)]
#[error("{what} (at byte {offset})")]
pub(super) struct Corruption {
    pub(super) offset: u64,
    pub(super) what: &'static str,
}

impl Corruption {
    fn error(offset: u64, what: &'static str) -> Error {
        Error::new(ErrorKind::InvalidData, Self { offset, what })
    }
}

impl Blocks {
    /// The blocks of a file.
    pub(super) fn open(file: File) -> Result<Self> {
        let mut head = Box::new([0; BLOCK_BYTES]);
        read_block(&file, HEAD_AT, &mut head[..])?;
        let (bytes, sum) = head.split_at(BLOCK_BYTES - SUM_BYTES);
        if crc32fast::hash(bytes).to_le_bytes() != sum {
            let what = "its first block has a wrong checksum";
            return Err(Corruption::error(HEAD_AT, what));
        }
        let mut length = [0; LENGTH_BYTES];
        length.copy_from_slice(&head[HEAD_BYTES..HEAD_BYTES + LENGTH_BYTES]);
        let length = u64::from_le_bytes(length);
        let end = physical(length);
        if file.metadata()?.len() < end {
            return Err(Corruption::error(end, "it is cut short"));
        }
        let unwritten = BTreeMap::from([(0, head)]);
        let inner = Mutex::new(Inner { length, unwritten });
        Ok(Self { file, inner })
    }

    /// Nobody leaves it half-changed: each change is one assignment, whatever fails around it.
    fn inner(&self) -> MutexGuard<'_, Inner> {
        self.inner.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn get(&self, inner: &Inner, number: u64, block: &mut Block) -> Result<()> {
        if let Some(kept) = inner.unwritten.get(&number) {
            *block = **kept;
            return Ok(());
        }
        let mut bytes = [0; BLOCK_BYTES + SUM_BYTES];
        let at = place(number);
        read_block(&self.file, at, &mut bytes)?;
        let (data, sum) = bytes.split_at(BLOCK_BYTES);
        if sum_of(data) != sum {
            return Err(Corruption::error(at, "a block has a wrong checksum"));
        }
        block.copy_from_slice(data);
        Ok(())
    }
}

impl StorageBackend for Blocks {
    fn len(&self) -> Result<u64> {
        Ok(self.inner().length)
    }

    fn read(&self, offset: u64, mut out: &mut [u8]) -> Result<()> {
        let inner = self.inner();
        if offset.saturating_add(out.len() as u64) > inner.length {
            return Err(Corruption::error(physical(inner.length), "it is cut short"));
        }
        for (number, from, bytes) in parts(offset, out.len()) {
            let (now, later) = out.split_at_mut(bytes);
            let mut block = [0; BLOCK_BYTES];
            self.get(&inner, number, &mut block)?;
            now.copy_from_slice(&block[from..from + bytes]);
            out = later;
        }
        Ok(())
    }

    fn set_len(&self, length: u64) -> Result<()> {
        self.inner().length = length;
        Ok(())
    }

    fn sync_data(&self) -> Result<()> {
        Ok(())
    }

    fn write(&self, offset: u64, mut data: &[u8]) -> Result<()> {
        let mut inner = self.inner();
        for (number, from, bytes) in parts(offset, data.len()) {
            let (now, later) = data.split_at(bytes);
            let mut block = [0; BLOCK_BYTES];
            if bytes < BLOCK_BYTES {
                self.get(&inner, number, &mut block)?;
            }
            block[from..from + bytes].copy_from_slice(now);
            inner.unwritten.insert(number, Box::new(block));
            data = later;
        }
        Ok(())
    }
}

/// The blocks that a range touches: the number of each, where in it the range begins, how much of it
/// the range has.
fn parts(offset: u64, length: usize) -> impl Iterator<Item = (u64, usize, usize)> {
    let size = BLOCK_BYTES as u64;
    let end = offset + length as u64;
    (offset / size..end.div_ceil(size)).map(move |number| {
        let start = number * size;
        let (from, to) = (offset.max(start), end.min(start + size));
        (number, (from - start) as usize, (to - from) as usize)
    })
}

/// Where a block but the first begins.
fn place(number: u64) -> u64 {
    BODY_AT.saturating_add((number - 1).saturating_mul((BLOCK_BYTES + SUM_BYTES) as u64))
}

/// How long the file is for so many bytes of blocks.
fn physical(length: u64) -> u64 {
    match length.div_ceil(BLOCK_BYTES as u64) {
        0 => BODY_AT,
        blocks => place(blocks),
    }
}

/// That of zeros is zero: so is what nobody wrote yet.
fn sum_of(block: &[u8]) -> [u8; SUM_BYTES] {
    /// `crc32` of a block of zeros.
    const ZEROS: u32 = 0xc71c_0011;
    (crc32fast::hash(block) ^ ZEROS).to_le_bytes()
}

fn read_block(file: &File, at: u64, bytes: &mut [u8]) -> Result<()> {
    file.read_exact_at(bytes, at).map_err(|error| {
        if error.kind() == ErrorKind::UnexpectedEof {
            Corruption::error(at, "it is cut short")
        } else {
            error
        }
    })
}
