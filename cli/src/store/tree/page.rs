//! Page: what a tree is made of, so many bytes with a checksum. A page is a node of the tree, a part of
//! a value that is too long for one, or free.
//!
//! ```text
//! 0   checksum of all that follows
//! 4   which page it is
//! 8   what it is: FREE, LONG, or how many levels of nodes are below it
//! 9   zero
//! 10  how many bytes of what follows are used
//! 12  a node: cells, sorted by key
//!     a free page: which one is free next
//!     a part of a value: which one goes on, and bytes
//! ```
//!
//! A cell is the length of a key, that of a value, the key and the value. In a node that is no leaf the
//! value is a page, which has the keys from that one to the next cell's; the first has all that are less,
//! and its own key says nothing. Numbers are little-endian. What was read is checked before it is used: a
//! page that somebody made up is refused, and stops nobody.

use std::ops::Range;
use std::sync::Arc;

use super::super::checksum;

/// The page of the kernel: one that is written at once is written whole or not at all, whoever is killed.
pub(super) const PAGE_BYTES: usize = 4096;
const HEAD_BYTES: usize = 12;
/// What of a page is for others to use.
pub(super) const BODY_BYTES: usize = PAGE_BYTES - HEAD_BYTES;
/// Longest cell, so that any page that is too full can be split into two that are not.
pub(super) const CELL_BYTES_MAX: usize = BODY_BYTES / 2;
/// The two lengths before a key.
pub(super) const CELL_HEAD_BYTES: usize = 4;

/// Kinds that are no level.
const FREE: u8 = 0xff;
const LONG: u8 = 0xfe;
/// More than a file of `u32` pages can have, of which each has two cells at least.
const LEVELS_MAX: u8 = 40;

/// Which page, from 0.
pub(super) type Number = u32;

/// What a page is.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub(super) enum Kind {
    /// A node of a tree, so many levels above its leaves.
    Node(u8),
    /// A part of a long value.
    Long,
    /// Nobody's.
    Free,
}

/// A page in memory; a copy costs nothing until it is changed.
#[derive(Clone)]
pub(super) struct Page(Arc<[u8; PAGE_BYTES]>);

/// A cell of a node.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub(super) struct Cell<'p> {
    pub(super) key: &'p [u8],
    pub(super) value: &'p [u8],
    /// Where in the node it begins.
    pub(super) at: usize,
}

impl Cell<'_> {
    /// Where the next one begins.
    pub(super) fn end(&self) -> usize {
        self.at + CELL_HEAD_BYTES + self.key.len() + self.value.len()
    }
}

impl Page {
    /// One with nothing in it.
    pub(super) fn new(kind: Kind) -> Self {
        let mut bytes = [0; PAGE_BYTES];
        bytes[8] = match kind {
            Kind::Node(level) => level,
            Kind::Long => LONG,
            Kind::Free => FREE,
        };
        Self(Arc::new(bytes))
    }

    /// What `read` puts into it, whatever that is.
    pub(super) fn read<E>(
        read: impl FnOnce(&mut [u8; PAGE_BYTES]) -> Result<(), E>,
    ) -> Result<Self, E> {
        let mut page = Self::new(Kind::Free);
        read(page.bytes())?;
        Ok(page)
    }

    /// That what was read from the place of page `number` is that page, and as it was written; else what
    /// is wrong with it.
    pub(super) fn check(&self, number: Number) -> Result<(), &'static str> {
        if !checksum::is_of(self.word(0), &self.0[4..]) {
            return Err("a page has a wrong checksum");
        }
        if self.number() != number {
            return Err("a page is another one");
        }
        if self.used() > BODY_BYTES {
            return Err("a page has more than fits");
        }
        match self.kind() {
            Kind::Node(LEVELS_MAX..) => Err("a page has a wrong kind"),
            Kind::Node(level) => self.check_cells(level),
            Kind::Free | Kind::Long if self.used() < size_of::<Number>() => {
                Err("a page has too little")
            }
            Kind::Free | Kind::Long => Ok(()),
        }
    }

    /// Which page it says it is.
    pub(super) fn number(&self) -> Number {
        self.word(4)
    }

    fn word(&self, at: usize) -> u32 {
        u32::from_le_bytes([self.0[at], self.0[at + 1], self.0[at + 2], self.0[at + 3]])
    }

    /// As it is written in the place of page `number`.
    pub(super) fn seal(&mut self, number: Number) -> &[u8; PAGE_BYTES] {
        let bytes = self.bytes();
        bytes[4..8].copy_from_slice(&number.to_le_bytes());
        let sum = checksum::of(&bytes[4..]);
        bytes[..4].copy_from_slice(&sum.to_le_bytes());
        bytes
    }

    pub(super) fn kind(&self) -> Kind {
        match self.0[8] {
            FREE => Kind::Free,
            LONG => Kind::Long,
            level => Kind::Node(level),
        }
    }

    /// How many bytes of it are used.
    pub(super) fn used(&self) -> usize {
        u16::from_le_bytes([self.0[10], self.0[11]]).into()
    }

    fn bytes(&mut self) -> &mut [u8; PAGE_BYTES] {
        Arc::make_mut(&mut self.0)
    }

    /// What is in it.
    pub(super) fn body(&self) -> &[u8] {
        &self.0[HEAD_BYTES..HEAD_BYTES + self.used()]
    }

    /// Puts `bytes` in the place of some of what is in it.
    ///
    /// # Panics
    /// The place is not in it, or that is more than fits.
    pub(super) fn splice(&mut self, place: Range<usize>, bytes: &[u8]) {
        let used = self.used();
        let end = place.start + bytes.len();
        let page = self.bytes();
        let body = &mut page[HEAD_BYTES..];
        body.copy_within(place.end..used, end);
        body[place.start..end].copy_from_slice(bytes);
        let used = (end + used - place.end) as u16;
        page[10..12].copy_from_slice(&used.to_le_bytes());
    }

    /// The page that follows a free one or a part of a value, and the rest of what is in it.
    pub(super) fn next(&self) -> Option<(Number, &[u8])> {
        let (next, rest) = self.body().split_first_chunk()?;
        Some((Number::from_le_bytes(*next), rest))
    }

    /// Its cells, the first one first.
    pub(super) fn cells(&self) -> impl Iterator<Item = Cell<'_>> {
        self.cells_from(0)
    }

    /// Those from the one that begins at `at`.
    pub(super) fn cells_from(&self, at: usize) -> impl Iterator<Item = Cell<'_>> {
        cells(self.body(), at)
    }

    /// That cells are all there is, and sorted.
    fn check_cells(&self, level: u8) -> Result<(), &'static str> {
        let (mut end, mut last) = (0, None);
        for cell in self.cells() {
            if last.is_some_and(|last| last >= cell.key) {
                return Err("a page is not sorted");
            }
            if level == 0 || end > 0 {
                last = Some(cell.key);
            }
            end = cell.end();
        }
        if end == self.used() {
            Ok(())
        } else {
            Err("a page has a wrong length in it")
        }
    }
}

impl std::fmt::Debug for Page {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        let (kind, used) = (self.kind(), self.used());
        write!(f, "Page({kind:?}, {used} bytes)")
    }
}

/// The cells in what is in a node, from the one that begins at `at`.
pub(super) fn cells(body: &[u8], mut at: usize) -> impl Iterator<Item = Cell<'_>> {
    std::iter::from_fn(move || {
        let cell = cell(body, at)?;
        at = cell.end();
        Some(cell)
    })
}

fn cell(body: &[u8], at: usize) -> Option<Cell<'_>> {
    let (head, rest) = body.get(at..)?.split_first_chunk::<CELL_HEAD_BYTES>()?;
    let [a, b, c, d] = *head;
    let (key, rest) = rest.split_at_checked(u16::from_le_bytes([a, b]).into())?;
    let value = rest.get(..u16::from_le_bytes([c, d]).into())?;
    Some(Cell { key, value, at })
}
