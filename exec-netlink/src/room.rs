//! Room for what the kernel answers: one for each thread, whichever of its sockets is read. Memory that was
//! touched before costs nothing.

use std::cell::Cell;
use std::mem::take;
use std::ops::{Deref, DerefMut};

/// More than the kernel puts into one datagram of a dump (32 KiB, `netlink_recvmsg`).
const RECEIVE_BYTES: usize = 64 * 1024;

thread_local! {
    static ROOM: Cell<Vec<u8>> = const { Cell::new(Vec::new()) };
}

/// An empty buffer with room for a datagram. It is the thread's, and back when it is dropped.
#[derive(Debug)]
pub(crate) struct Room(Vec<u8>);

impl Room {
    pub(crate) fn new() -> Self {
        let mut bytes = ROOM.try_with(Cell::take).unwrap_or_default();
        bytes.clear();
        bytes.reserve(RECEIVE_BYTES);
        Self(bytes)
    }
}

impl Drop for Room {
    fn drop(&mut self) {
        // A thread that ends needs none.
        let _ = ROOM.try_with(|room| room.set(take(&mut self.0)));
    }
}

impl Deref for Room {
    type Target = Vec<u8>;

    fn deref(&self) -> &Vec<u8> {
        &self.0
    }
}

impl DerefMut for Room {
    fn deref_mut(&mut self) -> &mut Vec<u8> {
        &mut self.0
    }
}
