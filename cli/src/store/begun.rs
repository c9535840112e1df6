//! The plan that was begun last. It has a file of its own beside the tables, which is written over in
//! place: that costs a tenth of a commit, and no room that was not there before.

use std::fs::File;
use std::io::{ErrorKind, Read, Result, Seek, SeekFrom};
use std::os::unix::fs::FileExt;
use std::path::PathBuf;

use mydocker_core::Plan;
use rustix::fs::OFlags;
use serde_json::value::{RawValue, to_raw_value};

use super::StoreError;
use super::checksum;
use super::dir::Dir;
use super::error::{RUN_REMEDY, io};
use super::record::{Found, HEAD_BYTES, decode, head, payload_bytes};

pub(super) const NAME: &str = "plan";
/// As long as the plan of an attach is at most, but for many ports.
const AT_ONCE_BYTES: usize = 4096;

/// A plan, and which one it is of those that were begun since the tables were made.
#[derive(Debug)]
pub(super) struct Begun {
    pub(super) number: u64,
    /// Most are over, and nobody reads them.
    plan: Vec<u8>,
    path: PathBuf,
}

impl Begun {
    /// The plan.
    ///
    /// # Errors
    /// What was written is none.
    pub(super) fn plan(&self) -> std::result::Result<Plan, StoreError> {
        let plan = serde_json::from_slice(&self.plan);
        plan.map_err(|error| damaged(self.path.clone(), error.to_string()))
    }
}

/// What there is of the plan that was begun last.
#[derive(Debug)]
pub(super) enum Last {
    /// Not even a file.
    Missing,
    /// Its writer died before it was all there, and did nothing.
    Incomplete,
    /// All of it.
    Begun(Begun),
}

/// The plan that was begun last.
///
/// # Errors
/// It can't be read, or is not as it was written.
pub(super) fn read(dir: &Dir) -> std::result::Result<Last, StoreError> {
    let path = dir.path_of(NAME);
    let Some(file) = dir.open_file(NAME, OFlags::RDONLY)? else {
        return Ok(Last::Missing);
    };
    let bytes = read_from(&file).map_err(io("read", &path))?;
    parse(path, &bytes)
}

/// The record. Behind it may be what is left of a longer one: the file stays as long as the longest ever.
fn read_from(file: &File) -> Result<Vec<u8>> {
    let mut bytes = vec![0; AT_ONCE_BYTES];
    let read = file.read_at(&mut bytes, 0)?;
    bytes.truncate(read);
    let Some(length) = bytes.first_chunk().and_then(payload_bytes) else {
        return Ok(bytes);
    };
    let (at, end) = (bytes.len() as u64, HEAD_BYTES as u64 + u64::from(length));
    if at < end {
        let mut rest = file;
        rest.seek(SeekFrom::Start(at))?;
        rest.take(end - at).read_to_end(&mut bytes)?;
    } else {
        bytes.truncate(end as usize);
    }
    Ok(bytes)
}

/// What a file at that path says.
pub(super) fn parse(path: PathBuf, bytes: &[u8]) -> std::result::Result<Last, StoreError> {
    if bytes.iter().take(HEAD_BYTES).all(|byte| *byte == 0) {
        return Ok(Last::Incomplete);
    }
    match decode(bytes, 0) {
        Found::End | Found::Torn => Err(damaged(path, "it is cut short")),
        Found::Damaged(what) => Err(damaged(path, what)),
        Found::Record { payload, .. } => match payload.split_first_chunk() {
            Some((number, plan)) => Ok(Last::Begun(Begun {
                number: u64::from_le_bytes(*number),
                plan: plan.to_vec(),
                path,
            })),
            None => Err(damaged(path, "it has no number")),
        },
    }
}

/// The file is not as it was written, or not beside what it belongs to.
pub(super) fn damaged(path: PathBuf, what: impl Into<String>) -> StoreError {
    StoreError::Damaged {
        path,
        offset: 0,
        what: what.into(),
        remedy: RUN_REMEDY,
    }
}

/// Puts a plan in the place of the one before it. Whoever dies meanwhile leaves none. What was written.
///
/// # Errors
/// It could not be written; there may be none then.
pub(super) fn write(
    dir: &Dir,
    number: u64,
    plan: &Plan,
) -> std::result::Result<Box<RawValue>, StoreError> {
    let path = dir.path_of(NAME);
    let failed = io("write", &path);
    let file = dir.open_file(NAME, OFlags::WRONLY | OFlags::CREATE)?;
    let written = match file {
        Some(file) => write_to(&file, number, plan),
        None => Err(ErrorKind::NotFound.into()),
    };
    written.map_err(failed)
}

fn write_to(file: &File, number: u64, plan: &Plan) -> Result<Box<RawValue>> {
    let plan = to_raw_value(plan)?;
    let (number, text) = (number.to_le_bytes(), plan.get().as_bytes());
    let (length, sum) = (
        number.len() + text.len(),
        checksum::of_all(&[&number, text]),
    );
    let head = head(length, sum, checksum::of).ok_or(ErrorKind::FileTooLarge)?;
    // There is none until its head is there.
    let before = [&[0; HEAD_BYTES][..], &number].concat();
    file.write_all_at(&before, 0)?;
    file.write_all_at(text, before.len() as u64)?;
    file.write_all_at(&head, 0)?;
    Ok(plan)
}

#[cfg(test)]
mod tests {
    use mydocker_core::{Change, Family, Forwarding, Object, OnFailure, Op};

    use super::*;
    use crate::store::Durability;

    fn plan(ops: usize) -> Plan {
        let family = Family::V4;
        let op = Op::Add(Object::Forwarding(Forwarding { family }));
        Plan {
            change: Change::Repaired,
            on_failure: OnFailure::Undo,
            ops: vec![op; ops],
            warnings: Vec::new(),
        }
    }

    #[test]
    fn what_a_longer_plan_left_behind_is_not_read() {
        let root = tempfile::tempdir().unwrap();
        let dir = Dir::create(root.path(), "network", Durability::Kernel).unwrap();
        let mut lengths = Vec::new();
        for (number, ops) in [(1, 1000), (2, 1)] {
            write(&dir, number, &plan(ops)).unwrap();
            let file = dir.open_file(NAME, OFlags::RDONLY).unwrap().unwrap();
            lengths.push(read_from(&file).unwrap().len());
            let Last::Begun(begun) = read(&dir).unwrap() else {
                panic!("it was begun");
            };
            assert_eq!(begun.number, number);
            assert_eq!(begun.plan().unwrap(), plan(ops));
        }
        assert!(lengths[1] < lengths[0] / 100, "{lengths:?}");
    }
}
