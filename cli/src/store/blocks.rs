//! Blocks: a file of blocks, each with a checksum, that a database is kept in. What comes back is what
//! was written, or an error that says where it is not: the library trusts what it reads.
//!
//! ```text
//! 0       what the file is, for the store
//! 4096    block 0, in which the database keeps its beginning; its last bytes are the length of all
//!         blocks, as the database knows them, and a checksum
//! 8192    block 1, its checksum, block 2, its checksum …
//! ```
//!
//! A process may be killed between any two writes, but not inside one that stays on one page, as that of
//! block 0 does. All other blocks are new ones that nothing leads to until block 0 does.

use std::collections::BTreeMap;
use std::fs::File;
use std::io::{Error, ErrorKind, Result};
use std::os::unix::fs::FileExt;
use std::sync::{Mutex, MutexGuard, PoisonError};

use redb::StorageBackend;
use rustix::fs::{FallocateFlags, fallocate};
use rustix::io::{Errno, retry_on_intr};

/// What the database reads and writes at once, and the page of the kernel.
const BLOCK_BYTES: usize = 4096;
const SUM_BYTES: usize = 4;
/// What of block 0 is the database's.
const HEAD_BYTES: usize = BLOCK_BYTES - LENGTH_BYTES - SUM_BYTES;
const LENGTH_BYTES: usize = 8;
/// Where block 0 is, and where the others begin.
const HEAD_AT: u64 = BLOCK_BYTES as u64;
const BODY_AT: u64 = 2 * BLOCK_BYTES as u64;
/// So much more than there are blocks is kept of the disk, so that what is taken away can be recorded
/// though the disk is full.
const RESERVE_BYTES: u64 = 256 * 1024;

type Block = [u8; BLOCK_BYTES];

/// The blocks of a file.
#[derive(Debug)]
pub(super) struct Blocks {
    file: File,
    inner: Mutex<Inner>,
}

#[derive(Debug)]
struct Inner {
    /// Block 0 as it is on disk, with length and checksum.
    head: Box<Block>,
    /// What a reader would have written: the database wants to write even then.
    unwritten: Option<BTreeMap<u64, Box<Block>>>,
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
    /// A file that has no blocks yet.
    pub(super) fn begin(file: File) -> Result<Self> {
        let blocks = Self::of(file, Box::new([0; BLOCK_BYTES]), None);
        blocks.set_len(0)?;
        Ok(blocks)
    }

    /// The blocks of a file that has some; for a reader, who leaves it as it is, `writes` is false.
    pub(super) fn open(file: File, writes: bool) -> Result<Self> {
        let mut head = Box::new([0; BLOCK_BYTES]);
        read_block(&file, HEAD_AT, &mut head[..])?;
        let (bytes, sum) = head.split_at(BLOCK_BYTES - SUM_BYTES);
        if crc32fast::hash(bytes).to_le_bytes() != sum {
            let what = "its first block has a wrong checksum";
            return Err(Corruption::error(HEAD_AT, what));
        }
        let blocks = Self::of(file, head, (!writes).then(BTreeMap::new));
        let length = physical(blocks.len()?);
        if blocks.file.metadata()?.len() < length {
            return Err(Corruption::error(length, "it is cut short"));
        }
        Ok(blocks)
    }

    fn of(file: File, head: Box<Block>, unwritten: Option<BTreeMap<u64, Box<Block>>>) -> Self {
        let inner = Mutex::new(Inner { head, unwritten });
        Self { file, inner }
    }

    /// Nobody leaves it half-changed: each change is one assignment, whatever fails around it.
    fn inner(&self) -> MutexGuard<'_, Inner> {
        self.inner.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Reads a block but the first.
    fn get(&self, inner: &Inner, number: u64, block: &mut [u8]) -> Result<()> {
        if let Some(kept) = inner.unwritten.as_ref().and_then(|kept| kept.get(&number)) {
            block.copy_from_slice(&kept[..]);
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

    fn put(&self, inner: &mut Inner, number: u64, block: &Block) -> Result<()> {
        if let Some(kept) = &mut inner.unwritten {
            kept.insert(number, Box::new(*block));
            return Ok(());
        }
        let mut bytes = [0; BLOCK_BYTES + SUM_BYTES];
        bytes[..BLOCK_BYTES].copy_from_slice(block);
        bytes[BLOCK_BYTES..].copy_from_slice(&sum_of(block));
        self.file.write_all_at(&bytes, place(number))
    }

    fn put_head(&self, inner: &mut Inner, change: impl FnOnce(&mut Block)) -> Result<()> {
        let mut head = inner.head.clone();
        change(&mut head);
        let sum = crc32fast::hash(&head[..BLOCK_BYTES - SUM_BYTES]);
        head[BLOCK_BYTES - SUM_BYTES..].copy_from_slice(&sum.to_le_bytes());
        if inner.unwritten.is_none() {
            self.file.write_all_at(&head[..], HEAD_AT)?;
        }
        inner.head = head;
        Ok(())
    }

    /// Takes what blocks of that length need of the disk, so that writing them never fails for want of
    /// room; and the reserve, if there is so much.
    fn reserve(&self, length: u64) -> Result<()> {
        let (has, needs) = (self.file.metadata()?.len(), physical(length));
        let wants = needs + RESERVE_BYTES;
        if has >= wants {
            return Ok(());
        }
        let allocate = || fallocate(&self.file, FallocateFlags::empty(), has, wants - has);
        match retry_on_intr(allocate) {
            Err(Errno::NOSPC | Errno::DQUOT) if has >= needs => Ok(()),
            Err(Errno::OPNOTSUPP) => self.file.set_len(wants),
            allocated => Ok(allocated?),
        }
    }
}

impl StorageBackend for Blocks {
    fn len(&self) -> Result<u64> {
        let mut length = [0; LENGTH_BYTES];
        length.copy_from_slice(&self.inner().head[HEAD_BYTES..HEAD_BYTES + LENGTH_BYTES]);
        Ok(u64::from_le_bytes(length))
    }

    fn read(&self, offset: u64, mut out: &mut [u8]) -> Result<()> {
        if offset + out.len() as u64 > self.len()? {
            return Err(Corruption::error(physical(offset), "it is cut short"));
        }
        let inner = self.inner();
        for (number, from, bytes) in parts(offset, out.len()) {
            let (now, later) = out.split_at_mut(bytes);
            match (number, bytes) {
                (0, _) if from + bytes > HEAD_BYTES => return Err(ErrorKind::Unsupported.into()),
                (0, _) => now.copy_from_slice(&inner.head[from..from + bytes]),
                (_, BLOCK_BYTES) => self.get(&inner, number, now)?,
                _ => {
                    let mut block = [0; BLOCK_BYTES];
                    self.get(&inner, number, &mut block)?;
                    now.copy_from_slice(&block[from..from + bytes]);
                }
            }
            out = later;
        }
        Ok(())
    }

    fn set_len(&self, len: u64) -> Result<()> {
        let set = |head: &mut Block| {
            head[HEAD_BYTES..HEAD_BYTES + LENGTH_BYTES].copy_from_slice(&len.to_le_bytes());
        };
        let mut inner = self.inner();
        if inner.unwritten.is_some() {
            return self.put_head(&mut inner, set);
        }
        // The file is never shorter than block 0 says it is.
        self.reserve(len)?;
        self.put_head(&mut inner, set)?;
        let most = physical(len) + 2 * RESERVE_BYTES;
        if self.file.metadata()?.len() > most {
            self.file.set_len(most)?;
        }
        Ok(())
    }

    /// What dies with the kernel needs no more than the kernel's word.
    fn sync_data(&self) -> Result<()> {
        Ok(())
    }

    fn write(&self, offset: u64, mut data: &[u8]) -> Result<()> {
        let mut inner = self.inner();
        for (number, from, bytes) in parts(offset, data.len()) {
            let (now, later) = data.split_at(bytes);
            if number == 0 {
                if from + bytes > HEAD_BYTES {
                    return Err(ErrorKind::Unsupported.into());
                }
                self.put_head(&mut inner, |head| {
                    head[from..from + bytes].copy_from_slice(now)
                })?;
            } else {
                let mut block = [0; BLOCK_BYTES];
                if bytes < BLOCK_BYTES {
                    self.get(&inner, number, &mut block)?;
                }
                block[from..from + bytes].copy_from_slice(now);
                self.put(&mut inner, number, &block)?;
            }
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
    BODY_AT + (number - 1) * (BLOCK_BYTES + SUM_BYTES) as u64
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

#[cfg(test)]
mod tests {
    use super::*;

    fn some() -> (File, Vec<u8>) {
        let file = tempfile::tempfile().unwrap();
        let blocks = Blocks::begin(file.try_clone().unwrap()).unwrap();
        blocks.set_len(4 * 4096).unwrap();
        let bytes: Vec<u8> = (0..3 * 4096_u32).map(|n| (n % 251) as u8).collect();
        blocks.write(4096, &bytes).unwrap();
        blocks.write(0, b"head").unwrap();
        (file, bytes)
    }

    fn all(file: &File) -> Result<Vec<u8>> {
        let blocks = Blocks::open(file.try_clone()?, false)?;
        let mut bytes = vec![0; 3 * 4096];
        blocks.read(4096, &mut bytes)?;
        let mut head = [0; 4];
        blocks.read(0, &mut head)?;
        Ok([bytes, head.to_vec()].concat())
    }

    #[test]
    fn what_was_written_is_read_and_what_was_not_is_zero() {
        let (file, bytes) = some();
        assert_eq!(all(&file).unwrap(), [&bytes, &b"head"[..]].concat());
        let blocks = Blocks::open(file, true).unwrap();
        blocks.write(5000, &[9; 5000]).unwrap();
        let mut some = [0; 5002];
        blocks.read(4999, &mut some).unwrap();
        assert_eq!(some[0], bytes[4999 - 4096]);
        assert!(some[1..5001].iter().all(|byte| *byte == 9));
        blocks.set_len(6 * 4096).unwrap();
        let mut new = [1; 4096];
        blocks.read(5 * 4096, &mut new).unwrap();
        assert_eq!(new, [0; 4096]);
    }

    #[test]
    fn a_reader_writes_nothing() {
        let (file, bytes) = some();
        let blocks = Blocks::open(file.try_clone().unwrap(), false).unwrap();
        blocks.write(4096, &[7; 4096]).unwrap();
        blocks.write(0, b"tail").unwrap();
        blocks.set_len(9 * 4096).unwrap();
        let mut seen = [0; 4096];
        blocks.read(4096, &mut seen).unwrap();
        assert_eq!(seen, [7; 4096]);
        assert_eq!(all(&file).unwrap(), [&bytes, &b"head"[..]].concat());
    }

    #[test]
    fn every_flip_and_every_cut_is_found() {
        let (file, _) = some();
        let end = physical(4 * 4096);
        for at in HEAD_AT..end {
            let mut byte = [0];
            file.read_exact_at(&mut byte, at).unwrap();
            file.write_all_at(&[byte[0] ^ 0x20], at).unwrap();
            let error = all(&file).expect_err("a flipped byte");
            let found: &Corruption = error.get_ref().unwrap().downcast_ref().unwrap();
            assert!(
                found.offset <= at && at < found.offset + 4100,
                "{at}: {error}"
            );
            file.write_all_at(&byte, at).unwrap();
        }
        for cut in [0, 5000, end - 4100, end - 1] {
            let (file, _) = some();
            file.set_len(cut).unwrap();
            assert!(all(&file).is_err(), "cut at {cut}");
        }
    }
}
