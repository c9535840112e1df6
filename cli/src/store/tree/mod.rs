//! Tree: keys and values in a file, sorted by key: a B+ tree of pages, which changes as a whole or not
//! at all. What is read of it and written follows from what is asked, and from how much there is only by
//! its logarithm. Nothing that is read is trusted: a damaged page is an error for whoever needs it.

mod page;
mod pages;
#[cfg(test)]
mod tests;

use std::fs::File;
use std::ops::ControlFlow;

use page::{BODY_BYTES, CELL_BYTES_MAX, CELL_HEAD_BYTES, Cell, Kind, Number, Page};
pub(super) use pages::{Error, seal};
use pages::{Pages, Result, corrupt};

/// Longest key, bytes.
pub(super) const KEY_BYTES_MAX: usize = 1024;
/// A node with less in it is put together with one beside it, if both fit.
const SPARSE_BYTES: usize = BODY_BYTES / 4;
/// As much of a long value is on each of its pages but the last.
const PART_BYTES: usize = BODY_BYTES - size_of::<Number>();

/// How a value is told: all of it, or how long it is and the first page of it.
const INLINE: u8 = 0;
const LONG: u8 = 1;

/// Keys and values in a file.
#[derive(Debug)]
pub(super) struct Tree {
    pages: Pages,
}

/// What a node became that was too full: the first key of its right half, and which page that is.
type Split = Option<(Vec<u8>, Number)>;

impl Tree {
    /// Begins a file that nobody sees yet; nothing is in it before the first commit.
    pub(super) fn begin(file: File) -> Self {
        Self {
            pages: Pages::begin(file),
        }
    }

    /// Opens a file that holds one. Who only reads leaves it as it is.
    pub(super) fn open(file: File, writes: bool) -> Result<Self> {
        let pages = Pages::open(file, writes)?;
        Ok(Self { pages })
    }

    /// A number that is kept beside it, and changes with it.
    pub(super) fn note(&self) -> u64 {
        self.pages.note()
    }

    pub(super) fn set_note(&mut self, note: u64) {
        self.pages.set_note(note);
    }

    /// Keeps what was changed: all of it or nothing, also if this process is killed meanwhile. After any
    /// error it must be opened anew.
    pub(super) fn commit(&mut self) -> Result<()> {
        self.pages.commit()
    }

    /// The value of a key.
    pub(super) fn get(&mut self, key: &[u8]) -> Result<Option<Vec<u8>>> {
        let (mut number, mut above) = (self.pages.root(), None);
        loop {
            let (page, level) = self.node(number, above)?;
            if level == 0 {
                let found = page.cells().find(|cell| cell.key >= key);
                let found = found.filter(|cell| cell.key == key);
                return found.map(|cell| self.value(number, cell.value)).transpose();
            }
            number = child(number, &child_cell(number, &page, key)?)?;
            above = Some(level);
        }
    }

    /// Shows keys and values from `from` on, in order, until `visit` breaks.
    pub(super) fn scan<E: From<Error>>(
        &mut self,
        from: &[u8],
        mut visit: impl FnMut(&[u8], Vec<u8>) -> std::result::Result<ControlFlow<()>, E>,
    ) -> std::result::Result<(), E> {
        let mut last = None;
        let scanned = self.scan_node(self.pages.root(), None, from, &mut last, &mut visit);
        scanned.map(drop)
    }

    fn scan_node<E: From<Error>>(
        &mut self,
        number: Number,
        above: Option<u8>,
        from: &[u8],
        last: &mut Option<Vec<u8>>,
        visit: &mut impl FnMut(&[u8], Vec<u8>) -> std::result::Result<ControlFlow<()>, E>,
    ) -> std::result::Result<ControlFlow<()>, E> {
        let (page, level) = self.node(number, above)?;
        if level > 0 {
            let first = child_cell(number, &page, from)?.at;
            for cell in page.cells_from(first) {
                let below = child(number, &cell)?;
                if self
                    .scan_node(below, Some(level), from, last, visit)?
                    .is_break()
                {
                    return Ok(ControlFlow::Break(()));
                }
            }
            return Ok(ControlFlow::Continue(()));
        }
        // Or pages that somebody made up would be visited without an end.
        let first = page.cells().next().map(|cell| cell.key);
        if last.as_deref().is_some_and(|last| Some(last) >= first) {
            Err(corrupt(number, "a page is not behind the one before"))?;
        }
        for cell in page.cells() {
            if cell.key < from {
                continue;
            }
            let value = self.value(number, cell.value)?;
            if visit(cell.key, value)?.is_break() {
                return Ok(ControlFlow::Break(()));
            }
        }
        *last = page.cells().last().map(|cell| cell.key.to_vec());
        Ok(ControlFlow::Continue(()))
    }

    /// Shows what can be read of it, in any order.
    pub(super) fn salvage(&mut self, mut visit: impl FnMut(&[u8], Vec<u8>)) {
        for number in 0..self.pages.count() {
            let Ok(page) = self.pages.get(number) else {
                continue;
            };
            if page.kind() != Kind::Node(0) {
                continue;
            }
            for cell in page.cells() {
                if let Ok(value) = self.value(number, cell.value) {
                    visit(cell.key, value);
                }
            }
        }
    }

    /// Gives a key a value, in the place of the one it has.
    pub(super) fn insert(&mut self, key: &[u8], value: &[u8]) -> Result<()> {
        if key.len() > KEY_BYTES_MAX {
            return Err(std::io::ErrorKind::InvalidInput.into());
        }
        let root = self.pages.root();
        let Some((key, right)) = self.insert_in(root, None, key, value)? else {
            return Ok(());
        };
        let (_, level) = self.node(root, None)?;
        let mut page = Page::new(Kind::Node(level + 1));
        page.splice(0..0, &cell(b"", &root.to_le_bytes()));
        page.splice(page.used()..page.used(), &cell(&key, &right.to_le_bytes()));
        let root = self.pages.add(page)?;
        self.pages.set_root(root);
        Ok(())
    }

    fn insert_in(
        &mut self,
        number: Number,
        above: Option<u8>,
        key: &[u8],
        value: &[u8],
    ) -> Result<Split> {
        let (page, level) = self.node(number, above)?;
        if level > 0 {
            let found = child_cell(number, &page, key)?;
            let (below, behind) = (child(number, &found)?, found.end());
            let Some((key, right)) = self.insert_in(below, Some(level), key, value)? else {
                return Ok(None);
            };
            return self.put_cell(
                number,
                page,
                behind..behind,
                &cell(&key, &right.to_le_bytes()),
            );
        }
        let found = page.cells().find(|cell| cell.key >= key);
        let place = match found {
            Some(cell) if cell.key == key => {
                self.free_value(number, cell.value)?;
                cell.at..cell.end()
            }
            Some(cell) => cell.at..cell.at,
            None => page.used()..page.used(),
        };
        let value = self.told(key, value)?;
        self.put_cell(number, page, place, &cell(key, &value))
    }

    /// Puts a cell in the place of some of a node, which may become two.
    fn put_cell(
        &mut self,
        number: Number,
        mut page: Page,
        place: std::ops::Range<usize>,
        cell: &[u8],
    ) -> Result<Split> {
        let total = page.used() - place.len() + cell.len();
        if total <= BODY_BYTES {
            page.splice(place, cell);
            self.pages.put(number, page);
            return Ok(None);
        }
        let kind = page.kind();
        let appended = place.start == page.used();
        let body = page.body();
        let cells = [&body[..place.start], cell, &body[place.end..]].concat();
        // What comes in order fills page after page.
        let most = if appended { place.start } else { total / 2 };
        let ends = page::cells(&cells, 0).map(|cell| cell.end());
        let fits = |end: &usize| *end <= BODY_BYTES && total - end <= BODY_BYTES;
        let at = ends.filter(fits).min_by_key(|end| end.abs_diff(most));
        let at = at.ok_or_else(|| corrupt(number, "a cell is too long"))?;
        let (left, right) = cells.split_at(at);
        let first = page::cells(right, 0).next();
        let first = first.ok_or_else(|| corrupt(number, "a page has nothing in it"))?;
        let key = first.key.to_vec();
        let [left, right] = [left, right].map(|half| {
            let mut page = Page::new(kind);
            page.splice(0..0, half);
            page
        });
        self.pages.put(number, left);
        Ok(Some((key, self.pages.add(right)?)))
    }

    /// Takes a key away. Whether it was there.
    pub(super) fn remove(&mut self, key: &[u8]) -> Result<bool> {
        let root = self.pages.root();
        let removed = self.remove_in(root, None, key)?;
        let page = self.pages.get(root)?;
        let mut cells = page.cells();
        match (page.kind(), cells.next(), cells.next()) {
            (Kind::Node(1..), None, _) => self.pages.put(root, Page::new(Kind::Node(0))),
            (Kind::Node(1..), Some(only), None) => {
                self.pages.set_root(child(root, &only)?);
                self.pages.free(root);
            }
            _ => {}
        }
        Ok(removed)
    }

    fn remove_in(&mut self, number: Number, above: Option<u8>, key: &[u8]) -> Result<bool> {
        let (mut page, level) = self.node(number, above)?;
        if level > 0 {
            let found = child_cell(number, &page, key)?;
            let below = child(number, &found)?;
            let place = found.at..found.end();
            let removed = self.remove_in(below, Some(level), key)?;
            match self.pages.get(below)?.used() {
                0 => {
                    page.splice(place, b"");
                    self.pages.put(number, page);
                    self.pages.free(below);
                }
                ..SPARSE_BYTES if removed => self.join(number, page, level, place.start)?,
                _ => {}
            }
            return Ok(removed);
        }
        let found = page.cells().find(|cell| cell.key == key);
        let Some(place) = found.map(|cell| cell.at..cell.end()) else {
            return Ok(false);
        };
        let value = page.cells_from(place.start).next().map(|cell| cell.value);
        self.free_value(number, value.unwrap_or_default())?;
        page.splice(place, b"");
        self.pages.put(number, page);
        Ok(true)
    }

    /// Puts the child whose cell begins at `at` together with one beside it, if there is one and both fit.
    fn join(&mut self, number: Number, mut page: Page, level: u8, at: usize) -> Result<()> {
        let before = page.cells().take_while(|cell| cell.at < at).last();
        let from = before.map_or(at, |cell| cell.at);
        let cells: Vec<_> = page.cells_from(from).take(3).collect();
        for pair in cells.windows(2) {
            let &[left, right] = pair else { continue };
            if left.at != at && right.at != at {
                continue;
            }
            let (into, gone) = (child(number, &left)?, child(number, &right)?);
            let (mut joined, _) = self.node(into, Some(level))?;
            let (rest, below) = self.node(gone, Some(level))?;
            let rest = match rest.cells().next() {
                // The key of its first cell says nothing; from now on it is no first one.
                Some(first) if below > 0 => {
                    [&cell(right.key, first.value), &rest.body()[first.end()..]].concat()
                }
                _ => rest.body().to_vec(),
            };
            if joined.used() + rest.len() <= BODY_BYTES {
                joined.splice(joined.used()..joined.used(), &rest);
                let place = right.at..right.end();
                page.splice(place, b"");
                self.pages.put(into, joined);
                self.pages.free(gone);
                self.pages.put(number, page);
                return Ok(());
            }
        }
        Ok(())
    }

    /// A node, and how many levels are below it; below another it must be one level lower, and not empty.
    fn node(&mut self, number: Number, above: Option<u8>) -> Result<(Page, u8)> {
        let page = self.pages.get(number)?;
        let Kind::Node(level) = page.kind() else {
            return Err(corrupt(number, "a page is no node"));
        };
        if above.is_some_and(|above| level + 1 != above) {
            return Err(corrupt(number, "a page is on a wrong level"));
        }
        if page.used() == 0 && (level > 0 || above.is_some()) {
            return Err(corrupt(number, "a page has nothing in it"));
        }
        Ok((page, level))
    }

    /// A value as it is told in its key's cell.
    fn told(&mut self, key: &[u8], value: &[u8]) -> Result<Vec<u8>> {
        if CELL_HEAD_BYTES + key.len() + 1 + value.len() <= CELL_BYTES_MAX {
            return Ok([&[INLINE], value].concat());
        }
        let length = u32::try_from(value.len());
        let length = length.map_err(|_| std::io::ErrorKind::FileTooLarge)?;
        // From its end, so that each part knows which one goes on.
        let mut next = Number::MAX;
        for part in value.chunks(PART_BYTES).rev() {
            let mut page = Page::new(Kind::Long);
            page.splice(0..0, &next.to_le_bytes());
            page.splice(page.used()..page.used(), part);
            next = self.pages.add(page)?;
        }
        Ok([&[LONG], &length.to_le_bytes()[..], &next.to_le_bytes()].concat())
    }

    /// The value that is told in a cell of page `number`.
    fn value(&mut self, number: Number, told: &[u8]) -> Result<Vec<u8>> {
        match told {
            [INLINE, value @ ..] => Ok(value.to_vec()),
            _ => {
                let mut value = Vec::new();
                self.long(number, told, |_, _, part| value.extend(part))?;
                Ok(value)
            }
        }
    }

    fn free_value(&mut self, number: Number, told: &[u8]) -> Result<()> {
        match told {
            [INLINE, ..] => Ok(()),
            _ => self.long(number, told, |pages, part, _| pages.free(part)),
        }
    }

    /// Shows all parts of a long value.
    fn long(
        &mut self,
        number: Number,
        told: &[u8],
        mut visit: impl FnMut(&mut Pages, Number, &[u8]),
    ) -> Result<()> {
        let &[LONG, a, b, c, d, e, f, g, h] = told else {
            return Err(corrupt(number, "a value is told wrong"));
        };
        let mut left = u32::from_le_bytes([a, b, c, d]) as usize;
        let mut next = Number::from_le_bytes([e, f, g, h]);
        if left.div_ceil(PART_BYTES) > self.pages.count() as usize {
            return Err(corrupt(number, "a value is longer than all there is"));
        }
        while left > 0 {
            let page = self.pages.get(next)?;
            let (Kind::Long, Some((after, part))) = (page.kind(), page.next()) else {
                return Err(corrupt(next, "a page is no part of a value"));
            };
            if part.len() != left.min(PART_BYTES) {
                return Err(corrupt(next, "a part of a value has a wrong length"));
            }
            left -= part.len();
            visit(&mut self.pages, next, part);
            next = after;
        }
        Ok(())
    }
}

/// A cell, as it is in a node.
fn cell(key: &[u8], value: &[u8]) -> Vec<u8> {
    // Neither is longer than a page.
    let lengths = [key.len(), value.len()].map(|length| (length as u16).to_le_bytes());
    [&lengths[0], &lengths[1], key, value].concat()
}

/// The cell of the child that has `key`, if any has.
fn child_cell<'p>(number: Number, page: &'p Page, key: &[u8]) -> Result<Cell<'p>> {
    let mut cells = page.cells();
    let first = cells.next();
    let later = cells.take_while(|cell| cell.key <= key).last();
    later
        .or(first)
        .ok_or_else(|| corrupt(number, "a page has nothing in it"))
}

/// Which page a cell of page `number` leads to.
fn child(number: Number, cell: &Cell<'_>) -> Result<Number> {
    let bytes = cell.value.try_into();
    let bytes = bytes.map_err(|_| corrupt(number, "a page leads nowhere"))?;
    Ok(Number::from_le_bytes(bytes))
}
