//! What older versions kept the run state in. It is read, once, and not written any more.
//!
//! | formats | files |
//! |---|---|
//! | 3, 4 | `state`: tables of redb, in [blocks] that have a checksum each |
//! | 1, 2 | `state` and `journal`: a snapshot, and what happened since |

pub(super) mod blocks;
pub(super) mod journal;
mod migrate;
pub(super) mod redb;
