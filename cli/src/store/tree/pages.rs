//! Pages: a file of pages that changes as a whole or not at all, whenever its writer is killed.
//!
//! ```text
//! 0       what the file is, for the store
//! 4096    head: root, how many pages there are, the first free one, how many are logged, and a note
//! 8192    page 0, page 1 …
//!         behind them, the log: what the last change made of pages, in full
//! ```
//!
//! A change is written to the log first. It is made once the head says that there is a log, which is one
//! write that stays on one page of the kernel. Then the pages are written where they belong, and the head
//! says that there is none. Whoever finds one goes by it. What dies with the kernel needs no sync.

use std::collections::BTreeMap;
use std::fs::File;
use std::io::ErrorKind;
use std::os::unix::fs::FileExt;

use rustix::fs::{FallocateFlags, fallocate};
use rustix::io::{Errno, retry_on_intr};

use super::super::checksum;
use super::page::{Kind, Number, PAGE_BYTES, Page};

const HEAD_AT: u64 = PAGE_BYTES as u64;
const PAGES_AT: u64 = 2 * PAGE_BYTES as u64;
/// So much more than is written is kept of the disk, so that what is taken away can be recorded though
/// the disk is full.
const RESERVE_BYTES: u64 = 256 * 1024;
/// Of a small file so many times its pages is enough: all of them may change, and few be added.
const RESERVE_TIMES: u64 = 2;
/// A file grows by so much.
const STEP_BYTES: u64 = 64 * 1024;
/// So many pages that were read are kept in memory, 4 MiB: more than what a request names takes, and
/// whoever reads everything reads it once.
const KNOWN_MAX: usize = 1024;
/// There is no page of that number.
const NONE: Number = Number::MAX;

pub(super) type Result<T> = std::result::Result<T, Error>;

/// Why a file can't be read or written.
#[derive(Debug, thiserror::Error)]
pub(in crate::store) enum Error {
    /// The system said no.
    #[error(transparent)]
    Io(#[from] std::io::Error),
    /// It is not as it was written.
    #[error("{what} (at byte {offset})")]
    Corrupt { offset: u64, what: &'static str },
}

impl From<ErrorKind> for Error {
    fn from(kind: ErrorKind) -> Self {
        Self::Io(kind.into())
    }
}

/// The pages of a file.
#[derive(Debug)]
pub(super) struct Pages {
    file: File,
    head: Head,
    /// How long the file is.
    length: u64,
    /// Whether nobody but us can see the file.
    unseen: bool,
    known: BTreeMap<Number, Page>,
    /// Those that are not where they belong: changed and not yet written; for a reader, still in the log.
    changed: BTreeMap<Number, Page>,
}

#[derive(Clone, Copy, Debug)]
struct Head {
    root: Number,
    pages: Number,
    free: Number,
    logged: Number,
    note: u64,
}

impl Head {
    const BYTES: usize = 28;

    fn to_bytes(self) -> [u8; Self::BYTES] {
        let mut bytes = [0; Self::BYTES];
        for (at, number) in [self.root, self.pages, self.free, self.logged]
            .into_iter()
            .enumerate()
        {
            bytes[4 * at..][..4].copy_from_slice(&number.to_le_bytes());
        }
        bytes[16..24].copy_from_slice(&self.note.to_le_bytes());
        let sum = checksum::of(&bytes[..24]);
        bytes[24..].copy_from_slice(&sum.to_le_bytes());
        bytes
    }

    /// `None` if it is not as it was written.
    fn parse(bytes: [u8; Self::BYTES]) -> Option<Self> {
        let (said, sum) = bytes.split_last_chunk()?;
        let (numbers, note) = said.split_last_chunk()?;
        let (numbers, _) = numbers.as_chunks();
        let &[root, pages, free, logged] = numbers.first_chunk()?;
        checksum::is_of(u32::from_le_bytes(*sum), said).then(|| Self {
            root: Number::from_le_bytes(root),
            pages: Number::from_le_bytes(pages),
            free: Number::from_le_bytes(free),
            logged: Number::from_le_bytes(logged),
            note: u64::from_le_bytes(*note),
        })
    }
}

impl Pages {
    /// Begins a file that nobody sees yet, with an empty leaf as the root.
    pub(super) fn begin(file: File) -> Self {
        let head = Head {
            root: 0,
            pages: 1,
            free: NONE,
            logged: 0,
            note: 0,
        };
        Self {
            file,
            head,
            length: 0,
            unseen: true,
            known: BTreeMap::new(),
            changed: [(0, Page::new(Kind::Node(0)))].into(),
        }
    }

    /// Opens a file that has pages. Who only reads leaves it as it is.
    pub(super) fn open(file: File, writes: bool) -> Result<Self> {
        let mut bytes = [0; Head::BYTES];
        read_at(&file, &mut bytes, HEAD_AT)?;
        let corrupt = |what| Error::Corrupt {
            offset: HEAD_AT,
            what,
        };
        let head = Head::parse(bytes).ok_or_else(|| corrupt("its head has a wrong checksum"))?;
        let length = file.metadata()?.len();
        let end = u64::from(head.pages) + u64::from(head.logged);
        if head.root >= head.pages || length < PAGES_AT + end * PAGE_BYTES as u64 {
            return Err(Error::Corrupt {
                offset: length,
                what: "it is cut short",
            });
        }
        let mut pages = Self {
            file,
            head,
            length,
            unseen: false,
            known: BTreeMap::new(),
            changed: BTreeMap::new(),
        };
        if head.logged > 0 {
            pages.read_log()?;
            if writes {
                pages.settle()?;
            }
        }
        Ok(pages)
    }

    /// A page.
    pub(super) fn get(&mut self, number: Number) -> Result<Page> {
        if let Some(page) = self
            .changed
            .get(&number)
            .or_else(|| self.known.get(&number))
        {
            return Ok(page.clone());
        }
        let page = self.read(number)?;
        if self.known.len() >= KNOWN_MAX {
            self.known.clear();
        }
        self.known.insert(number, page.clone());
        Ok(page)
    }

    /// Puts a page in the place of the one of that number.
    pub(super) fn put(&mut self, number: Number, page: Page) {
        self.known.remove(&number);
        self.changed.insert(number, page);
    }

    /// Puts a page where none is.
    pub(super) fn add(&mut self, page: Page) -> Result<Number> {
        let number = self.head.free;
        if number == NONE {
            let number = self.head.pages;
            self.head.pages = number.checked_add(1).ok_or(ErrorKind::FileTooLarge)?;
            self.put(number, page);
            return Ok(number);
        }
        let free = self.get(number)?;
        match (free.kind(), free.next()) {
            (Kind::Free, Some((next, _))) => self.head.free = next,
            _ => return Err(corrupt(number, "a free page is none")),
        }
        self.put(number, page);
        Ok(number)
    }

    /// Takes a page away.
    pub(super) fn free(&mut self, number: Number) {
        let mut page = Page::new(Kind::Free);
        page.splice(0..0, &self.head.free.to_le_bytes());
        self.head.free = number;
        self.put(number, page);
    }

    /// The page that everything begins with.
    pub(super) fn root(&self) -> Number {
        self.head.root
    }

    pub(super) fn set_root(&mut self, number: Number) {
        self.head.root = number;
    }

    /// A number beside the pages, which changes with them.
    pub(super) fn note(&self) -> u64 {
        self.head.note
    }

    pub(super) fn set_note(&mut self, note: u64) {
        self.head.note = note;
    }

    /// How many pages there are, free ones too.
    pub(super) fn count(&self) -> Number {
        self.head.pages
    }

    /// Writes what changed: all of it or nothing, also if this process is killed meanwhile. After an
    /// error the file alone knows which.
    pub(super) fn commit(&mut self) -> Result<()> {
        let logged = Number::try_from(self.changed.len()).map_err(|_| ErrorKind::FileTooLarge)?;
        let at = place(self.head.pages);
        self.reserve(at + u64::from(logged) * PAGE_BYTES as u64)?;
        if !self.unseen {
            let log = self.log();
            self.write(&log, at)?;
            self.head.logged = logged;
            self.write_head()?;
        }
        self.unseen = false;
        self.settle()
    }

    /// What changed, page by page.
    fn log(&mut self) -> Vec<u8> {
        let mut log = Vec::with_capacity(self.changed.len() * PAGE_BYTES);
        for (number, page) in &mut self.changed {
            log.extend(page.seal(*number));
        }
        log
    }

    /// Writes pages where they belong, and that there is no log.
    fn settle(&mut self) -> Result<()> {
        while let Some((number, mut page)) = self.changed.pop_first() {
            self.write(page.seal(number), place(number))?;
            self.known.insert(number, page);
        }
        self.head.logged = 0;
        self.write_head()
    }

    fn read_log(&mut self) -> Result<()> {
        for at in 0..self.head.logged {
            let at = self.head.pages.checked_add(at);
            let at = at.ok_or(ErrorKind::FileTooLarge)?;
            let page = Page::read(|bytes| read_at(&self.file, bytes, place(at)))?;
            let number = page.number();
            if number >= self.head.pages {
                return Err(corrupt(at, "its log has a page that is not there"));
            }
            page.check(number).map_err(|what| corrupt(at, what))?;
            self.changed.insert(number, page);
        }
        Ok(())
    }

    fn read(&self, number: Number) -> Result<Page> {
        if number >= self.head.pages {
            return Err(corrupt(number, "there is no such page"));
        }
        let page = Page::read(|bytes| read_at(&self.file, bytes, place(number)))?;
        page.check(number).map_err(|what| corrupt(number, what))?;
        Ok(page)
    }

    /// Takes the room that so many bytes need, so that no write fails for want of it once there is a
    /// log; and the reserve, if there is so much.
    fn reserve(&mut self, needs: u64) -> Result<()> {
        let pages_bytes = u64::from(self.head.pages) * PAGE_BYTES as u64;
        let reserve = RESERVE_BYTES.min(RESERVE_TIMES * pages_bytes);
        let (has, wants) = (self.length, needs + reserve);
        if has >= wants {
            return Ok(());
        }
        let wants = wants.next_multiple_of(STEP_BYTES);
        let allocate = || fallocate(&self.file, FallocateFlags::empty(), has, wants - has);
        match retry_on_intr(allocate) {
            Err(Errno::NOSPC | Errno::DQUOT) if has >= needs => return Ok(()),
            Err(Errno::OPNOTSUPP) => self.file.set_len(wants)?,
            allocated => allocated.map_err(std::io::Error::from)?,
        }
        self.length = wants;
        Ok(())
    }

    fn write_head(&self) -> Result<()> {
        self.write(&self.head.to_bytes(), HEAD_AT)
    }

    fn write(&self, bytes: &[u8], at: u64) -> Result<()> {
        #[cfg(test)]
        super::tests::may_write()?;
        Ok(self.file.write_all_at(bytes, at)?)
    }
}

/// Gives what is in such a file the checksums that it would have, so that what is wrong with it is found
/// by looking further. For fuzzing.
pub(in crate::store) fn seal(file: &mut [u8]) {
    let Some((head, pages)) = file.split_at_mut_checked(PAGES_AT as usize) else {
        return;
    };
    let head = &mut head[HEAD_AT as usize..][..Head::BYTES];
    let (said, sum) = head.split_at_mut(Head::BYTES - 4);
    sum.copy_from_slice(&checksum::of(said).to_le_bytes());
    for page in pages.chunks_exact_mut(PAGE_BYTES) {
        let (sum, rest) = page.split_at_mut(4);
        // What is zero was never written.
        if rest.iter().any(|byte| *byte != 0) {
            sum.copy_from_slice(&checksum::of(rest).to_le_bytes());
        }
    }
}

/// What is wrong with the page of that number.
pub(super) fn corrupt(number: Number, what: &'static str) -> Error {
    Error::Corrupt {
        offset: place(number),
        what,
    }
}

/// Where a page begins.
fn place(number: Number) -> u64 {
    PAGES_AT + u64::from(number) * PAGE_BYTES as u64
}

fn read_at(file: &File, bytes: &mut [u8], at: u64) -> Result<()> {
    file.read_exact_at(bytes, at).map_err(|error| {
        if error.kind() == ErrorKind::UnexpectedEof {
            let (offset, what) = (at, "it is cut short");
            Error::Corrupt { offset, what }
        } else {
            error.into()
        }
    })
}
