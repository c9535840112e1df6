//! The table of containers: one directory each, one lock each.

use std::{
    fs::{self, DirBuilder, File, OpenOptions, TryLockError},
    io::{ErrorKind, Read, Write},
    os::unix::fs::{DirBuilderExt, OpenOptionsExt},
    path::{Path, PathBuf},
    thread,
    time::{Duration, Instant},
};

use anyhow::{Context, anyhow, bail};

use super::{
    name::{Id, Name},
    overlay::Overlay,
    record::Record,
};
use crate::image::Images;

/// A record that is longer was not written by us.
const RECORD_BYTES_MAX: u64 = 16 << 20;
/// How long to wait for another process that works on the same container.
const LOCK_WAIT_MAX: Duration = Duration::from_secs(60);
const LOCK_POLL: Duration = Duration::from_millis(10);

/// The containers of one pair of roots.
#[derive(Clone, Debug)]
pub struct Containers {
    root: PathBuf,
    run_root: PathBuf,
}

/// All containers, and what could not be read.
#[derive(Debug, Default)]
pub struct Listing {
    /// The containers, oldest first.
    pub records: Vec<Record>,
    /// One error for each damaged record, which names its file.
    pub damaged: Vec<anyhow::Error>,
}

/// A container nobody else changes while this is held.
#[derive(Debug)]
pub(crate) struct Locked {
    pub(crate) record: Record,
    dir: PathBuf,
    _lock: File,
}

impl Containers {
    /// The containers kept below `root` (durable) and `run_root` (gone after a reboot). Makes both
    /// directories if they are missing.
    pub fn open(root: &Path, run_root: &Path) -> anyhow::Result<Self> {
        let absolute = |path: &Path| {
            make_dir(path)?;
            path.canonicalize()
                .with_context(|| format!("can't find {}", path.display()))
        };
        let containers = Self {
            root: absolute(root)?,
            run_root: absolute(run_root)?,
        };
        make_dir(&containers.records_dir())?;
        Ok(containers)
    }

    /// Where images, containers and their files are, absolute.
    pub fn root(&self) -> &Path {
        &self.root
    }

    /// Where namespaces and the runtime's state are, absolute.
    pub fn run_root(&self) -> &Path {
        &self.run_root
    }

    /// The images containers are made from.
    pub fn images(&self) -> Images {
        Images::new(&self.root)
    }

    /// The pinned network namespace of a container: `<run_root>/netns/ID`.
    pub fn netns(&self, id: &Id) -> PathBuf {
        self.run_root.join("netns").join(id.as_str())
    }

    /// A container's log: `<root>/containers/ID/ID-json.log`, JSON lines of `log`, `stream`, `time`.
    pub fn log_path(&self, id: &Id) -> PathBuf {
        self.dir(id).join(format!("{id}-json.log"))
    }

    /// Every container.
    pub fn list(&self) -> anyhow::Result<Listing> {
        let mut listing = Listing::default();
        for id in self.ids()? {
            match self.load(&id) {
                Ok(Some(record)) => listing.records.push(record),
                // Removed since.
                Ok(None) => {}
                Err(error) => listing.damaged.push(error),
            }
        }
        listing
            .records
            .sort_by(|a, b| (a.created_unix_s, &a.id).cmp(&(b.created_unix_s, &b.id)));
        Ok(listing)
    }

    /// The container with this name or id, or the only one whose id starts with `text`.
    pub fn find(&self, text: &str) -> anyhow::Result<Record> {
        if let Ok(id) = text.parse()
            && let Some(record) = self.load(&id)?
        {
            return Ok(record);
        }
        let listing = self.list()?;
        if let Some(record) = listing
            .records
            .iter()
            .find(|record| record.name.as_str() == text)
        {
            return Ok(record.clone());
        }
        let mut matching = listing
            .records
            .into_iter()
            .filter(|record| record.id.as_str().starts_with(text));
        match (matching.next(), matching.next()) {
            (Some(record), None) if !text.is_empty() => Ok(record),
            (Some(one), Some(two)) if !text.is_empty() => {
                bail!(
                    "`{text}` means container {} as well as {}: give more digits",
                    one.id,
                    two.id
                )
            }
            _ => match listing.damaged.into_iter().next() {
                Some(error) => Err(error.context(format!("no readable container `{text}`"))),
                None => bail!("no container `{text}`"),
            },
        }
    }

    /// Records a new container, unless its name is taken.
    pub(crate) fn create(&self, record: &Record) -> anyhow::Result<()> {
        let _table = self.lock_table()?;
        self.sweep()?;
        if let Some(other) = self.by_name(&record.name)? {
            bail!(
                "the name `{}` is taken by container {}: remove that or choose another",
                record.name,
                other.id
            );
        }
        let dir = self.dir(&record.id);
        if dir.exists() {
            bail!("the id {} is taken", record.id);
        }
        // Filled first, then renamed: a container's directory always has its record.
        let new = self.records_dir().join(format!(".new-{}", record.id));
        make_dir(&new)?;
        let made = write_atomically(&new, &record.to_json()?).and_then(|()| {
            fs::rename(&new, &dir).with_context(|| format!("can't create {}", dir.display()))
        });
        if made.is_err() {
            remove_tree(&new)?;
        }
        made
    }

    /// Keeps others from changing a container. None if there is no such container.
    pub(crate) fn lock(&self, id: &Id) -> anyhow::Result<Option<Locked>> {
        let dir = self.dir(id);
        if !dir.is_dir() {
            return Ok(None);
        }
        let lock = match lock(&dir.join("lock"), &format!("container {id}")) {
            Err(_) if !dir.is_dir() => return Ok(None),
            lock => lock?,
        };
        // Whoever held the lock may have removed the container.
        let Some(record) = self.load(id)? else {
            return Ok(None);
        };
        Ok(Some(Locked {
            record,
            dir,
            _lock: lock,
        }))
    }

    /// Removes a container that is taken down: its record, its log, its files.
    pub(crate) fn forget(&self, locked: Locked) -> anyhow::Result<()> {
        let id = &locked.record.id;
        self.overlay(&locked.record).remove()?;
        let table = self.lock_table()?;
        // Out of sight at once: a directory half removed would be a damaged container.
        let old = self.records_dir().join(format!(".old-{id}"));
        fs::rename(&locked.dir, &old)
            .with_context(|| format!("can't remove {}", locked.dir.display()))?;
        remove_tree(&old)?;
        drop(table);
        let image = &locked.record.layer.image;
        let listing = self.list()?;
        if !listing.damaged.is_empty() {
            // Which layers the damaged ones stand on is not known.
            return Ok(());
        }
        self.images().prune(image, |layer| {
            // Read again: a container may have come since, but none can while this is asked.
            self.list().map_or(true, |now| {
                !now.damaged.is_empty() || now.records.iter().any(|record| record.layer == *layer)
            })
        })
    }

    /// A container's root filesystem.
    pub(crate) fn overlay(&self, record: &Record) -> Overlay {
        Overlay::new(
            self.images().layer_dir(&record.layer),
            self.root.join("overlay2").join(record.id.as_str()),
        )
    }

    /// What a container's runtime needs on disk while it runs.
    pub(crate) fn bundle(&self, id: &Id) -> PathBuf {
        self.run_root.join("bundle").join(id.as_str())
    }

    /// Where the runtime keeps its own state.
    pub(crate) fn runtime_dir(&self) -> PathBuf {
        self.run_root.join("runtime")
    }

    /// A container's record, or none if there is no such container.
    pub(crate) fn load(&self, id: &Id) -> anyhow::Result<Option<Record>> {
        let path = self.dir(id).join(CONFIG);
        let mut text = Vec::new();
        let file = match File::open(&path) {
            Ok(file) => file,
            Err(error) if error.kind() == ErrorKind::NotFound && !self.dir(id).exists() => {
                return Ok(None);
            }
            Err(error) => {
                return Err(error).with_context(|| format!("can't open {}", path.display()));
            }
        };
        file.take(RECORD_BYTES_MAX)
            .read_to_end(&mut text)
            .with_context(|| format!("can't read {}", path.display()))?;
        Record::from_json(id, &text)
            .with_context(|| format!("the record {} is damaged", path.display()))
            .map(Some)
    }

    fn lock_table(&self) -> anyhow::Result<File> {
        lock(&self.records_dir().join(".lock"), "the table of containers")
    }

    /// Removes directories that a killed process left half made or half removed. Only whoever holds
    /// the table's lock makes such, and that is us.
    fn sweep(&self) -> anyhow::Result<()> {
        let dir = self.records_dir();
        let what = || format!("can't read {}", dir.display());
        for entry in fs::read_dir(&dir).with_context(what)? {
            let entry = entry.with_context(what)?;
            let name = entry.file_name();
            if [".new-", ".old-"]
                .iter()
                .any(|start| name.to_string_lossy().starts_with(start))
            {
                remove_tree(&entry.path())?;
            }
        }
        Ok(())
    }

    fn by_name(&self, name: &Name) -> anyhow::Result<Option<Record>> {
        let taken = |record: &Record| record.name == *name || record.id.as_str() == name.as_str();
        Ok(self.list()?.records.into_iter().find(taken))
    }

    fn ids(&self) -> anyhow::Result<Vec<Id>> {
        let dir = self.records_dir();
        let mut ids = Vec::new();
        for entry in fs::read_dir(&dir).with_context(|| format!("can't read {}", dir.display()))? {
            let entry = entry.with_context(|| format!("can't read {}", dir.display()))?;
            // Locks, and directories that are coming or going, have names that are no ids.
            if let Some(id) = entry
                .file_name()
                .to_str()
                .and_then(|name| name.parse().ok())
            {
                ids.push(id);
            }
        }
        Ok(ids)
    }

    fn dir(&self, id: &Id) -> PathBuf {
        self.records_dir().join(id.as_str())
    }

    fn records_dir(&self) -> PathBuf {
        self.root.join("containers")
    }
}

impl Locked {
    /// Writes the record to its file.
    pub(crate) fn save(&self) -> anyhow::Result<()> {
        write_atomically(&self.dir, &self.record.to_json()?)
    }
}

const CONFIG: &str = "config.json";

/// Makes a directory, and those above it, for root only.
pub(crate) fn make_dir(path: &Path) -> anyhow::Result<()> {
    DirBuilder::new()
        .recursive(true)
        .mode(0o700)
        .create(path)
        .with_context(|| format!("can't create {}", path.display()))
}

/// Removes a directory with all that is in it. One that is not there is no error.
pub(crate) fn remove_tree(path: &Path) -> anyhow::Result<()> {
    match fs::remove_dir_all(path) {
        Err(error) if error.kind() != ErrorKind::NotFound => {
            Err(error).with_context(|| format!("can't remove {}", path.display()))
        }
        _ => Ok(()),
    }
}

/// A reader sees the old text or the new one, also after a crash.
fn write_atomically(dir: &Path, text: &[u8]) -> anyhow::Result<()> {
    let path = dir.join(CONFIG);
    let temporary = dir.join(".config.json");
    let write = || {
        let mut file = OpenOptions::new()
            .write(true)
            .create(true)
            .truncate(true)
            .mode(0o600)
            .open(&temporary)?;
        file.write_all(text)?;
        file.sync_all()?;
        fs::rename(&temporary, &path)
    };
    write().with_context(|| format!("can't write {}", path.display()))
}

fn lock(path: &Path, what: &str) -> anyhow::Result<File> {
    let file = OpenOptions::new()
        .create(true)
        .truncate(false)
        .write(true)
        .mode(0o600)
        .open(path)
        .with_context(|| format!("can't open {}", path.display()))?;
    let deadline = Instant::now() + LOCK_WAIT_MAX;
    loop {
        match file.try_lock() {
            Ok(()) => return Ok(file),
            Err(TryLockError::WouldBlock) if Instant::now() < deadline => thread::sleep(LOCK_POLL),
            Err(TryLockError::WouldBlock) => {
                return Err(anyhow!(
                    "another process has worked on {what} for {} s: see who holds {}",
                    LOCK_WAIT_MAX.as_secs(),
                    path.display()
                ));
            }
            Err(TryLockError::Error(error)) => {
                return Err(error).with_context(|| format!("can't lock {}", path.display()));
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use std::os::unix::fs::PermissionsExt;

    use tempfile::TempDir;

    use super::*;
    use crate::container::record::example;

    fn containers() -> (TempDir, Containers) {
        let dir = TempDir::new().unwrap();
        let containers =
            Containers::open(&dir.path().join("root"), &dir.path().join("run")).unwrap();
        (dir, containers)
    }

    fn record(id: &str, name: &str) -> Record {
        let mut record = example();
        record.id = id.parse().unwrap();
        record.name = name.parse().unwrap();
        record
    }

    #[test]
    fn found_by_name_id_and_unique_prefix() {
        let (_dir, containers) = containers();
        containers.create(&record("aaaa00000001", "web")).unwrap();
        containers.create(&record("aaaa00000002", "db")).unwrap();
        containers.create(&record("bbbb00000003", "aaaa")).unwrap();
        let found = |text: &str| containers.find(text).map(|record| record.id.to_string());
        assert_eq!(found("web").unwrap(), "aaaa00000001");
        assert_eq!(found("aaaa00000002").unwrap(), "aaaa00000002");
        assert_eq!(found("bb").unwrap(), "bbbb00000003");
        assert_eq!(
            found("aaaa").unwrap(),
            "bbbb00000003",
            "a name comes before a prefix"
        );
        for bad in ["", "aaa", "nosuch", "../containers", "AAAA00000001"] {
            assert!(found(bad).is_err(), "{bad:?}");
        }
        assert!(
            found("aaa")
                .unwrap_err()
                .to_string()
                .contains("give more digits")
        );
    }

    #[test]
    fn names_and_ids_are_unique() {
        let (_dir, containers) = containers();
        containers.create(&record("aaaa00000001", "web")).unwrap();
        for (id, name) in [
            ("aaaa00000002", "web"),
            ("aaaa00000001", "db"),
            ("aaaa00000002", "aaaa00000001"),
        ] {
            assert!(containers.create(&record(id, name)).is_err(), "{id} {name}");
        }
        assert_eq!(containers.list().unwrap().records.len(), 1);
    }

    #[test]
    fn a_damaged_record_is_named_and_the_rest_is_usable() {
        let (_dir, containers) = containers();
        containers.create(&record("aaaa00000001", "web")).unwrap();
        containers.create(&record("aaaa00000002", "db")).unwrap();
        let path = containers
            .dir(&"aaaa00000002".parse().unwrap())
            .join(CONFIG);
        assert_eq!(
            fs::metadata(&path).unwrap().permissions().mode() & 0o777,
            0o600
        );
        fs::write(&path, "{").unwrap();
        let listing = containers.list().unwrap();
        assert_eq!((listing.records.len(), listing.damaged.len()), (1, 1));
        assert!(
            listing.damaged[0]
                .to_string()
                .contains(&path.display().to_string())
        );
        assert!(containers.find("web").is_ok());
        assert!(containers.find("aaaa00000002").is_err());
    }

    #[test]
    fn a_removed_container_is_gone_for_who_waited() {
        let (_dir, containers) = containers();
        let record = record("aaaa00000001", "web");
        containers.create(&record).unwrap();
        let locked = containers.lock(&record.id).unwrap().unwrap();
        thread::scope(|scope| {
            let waiting = scope.spawn(|| containers.lock(&record.id).unwrap().is_none());
            thread::sleep(Duration::from_millis(50));
            containers.forget(locked).unwrap();
            assert!(waiting.join().unwrap());
        });
        assert!(containers.find("web").is_err());
        assert_eq!(
            fs::read_dir(containers.records_dir()).unwrap().count(),
            1,
            "only the table's lock"
        );
    }
}
