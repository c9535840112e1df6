//! The table of containers: one directory each, one lock each.

use std::{
    path::{Path, PathBuf},
    time::Duration,
};

use anyhow::{Context, anyhow, bail};
use mydocker_core::ContainerName;

use super::{id::Id, overlay::Overlay, record::Record};
use crate::{
    image::{Images, User, Users},
    store::{Access, Dir, Durability, Lock, make_dir, remove_tree},
};

/// Where records are, below the root.
const RECORDS: &str = "containers";
/// Where the runtime is told what to run, below the run root.
const BUNDLES: &str = "bundle";
/// Where what containers write is, below the root.
const OVERLAYS: &str = "overlay2";
/// Where namespaces are pinned, below the run root.
const NAMESPACES: &str = "netns";
/// A container's record, in its directory.
const CONFIG: &str = "config.json";
/// How long to wait for another process that works on the same container.
const LOCK_WAIT_MAX: Duration = Duration::from_secs(60);

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
    /// The containers whose record is damaged.
    pub damaged: Vec<Damaged>,
}

/// A container whose record can't be read, and why, which names its file.
#[derive(Debug, thiserror::Error)]
#[error("can't read container {id}, which `mydocker rm --force {id}` removes: {error:#}")]
pub struct Damaged {
    /// The container.
    pub id: Id,
    /// What is wrong with its record.
    pub error: anyhow::Error,
}

/// A container nobody else changes while this is held.
#[derive(Debug)]
pub(crate) struct Locked {
    pub(crate) record: Record,
    held: Held,
}

/// The directory of a container, which nobody else changes while this is held.
#[derive(Debug)]
pub(crate) struct Held {
    id: Id,
    dir: Dir,
    _lock: Lock,
}

impl Containers {
    /// The containers kept below `root` (durable) and `run_root` (gone after a reboot). Makes both
    /// directories if they are missing; refuses those that others can write.
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
        containers.records()?;
        // Where others could have put links, nothing is made or removed.
        Dir::open(&containers.root, OVERLAYS)?;
        for directory in [BUNDLES, NAMESPACES] {
            Dir::open(&containers.run_root, directory)?;
        }
        Ok(containers)
    }

    /// The same for a look that makes nothing; none if there never was a container.
    pub fn look(root: &Path, run_root: &Path) -> Option<Self> {
        root.join(RECORDS).is_dir().then(|| Self {
            root: root.to_owned(),
            run_root: run_root.to_owned(),
        })
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
        self.run_root.join(NAMESPACES).join(id.as_str())
    }

    /// Where a container's root filesystem shows while it runs.
    pub fn root_of(&self, id: &Id) -> PathBuf {
        self.overlay(id).merged()
    }

    /// A container's log: `<root>/containers/ID/ID-json.log`, JSON lines of `log`, `stream`, `time`.
    pub fn log_path(&self, id: &Id) -> PathBuf {
        self.dir(id).join(format!("{id}-json.log"))
    }

    /// Where a container's last exit code is kept for those who wait for it, also when it is removed.
    pub(crate) fn exit_path(&self, id: &Id) -> PathBuf {
        self.dir(id).join("exit")
    }

    /// Every container.
    pub fn list(&self) -> anyhow::Result<Listing> {
        let mut listing = Listing::default();
        let records = self.records()?;
        for id in ids(&records)? {
            match load(&records, &id) {
                Ok(Some(record)) => listing.records.push(record),
                // Removed since.
                Ok(None) => {}
                Err(error) => listing.damaged.push(Damaged { id, error }),
            }
        }
        listing
            .records
            .sort_by(|a, b| (a.created_unix_s, &a.id).cmp(&(b.created_unix_s, &b.id)));
        Ok(listing)
    }

    /// A container's record as it is now, if the process that watched over it when `record` was read has
    /// ended since: another may have taken over before, and one that runs would look as if it had ended.
    /// None if there is nothing newer.
    pub fn newer(&self, record: &Record) -> Option<Record> {
        if !record.is_abandoned() {
            return None;
        }
        // One that can't be read any more was told as damaged, or will be.
        let now = self.load(&record.id).ok().flatten()?;
        (now.supervisor != record.supervisor).then_some(now)
    }

    /// The container with this name or id, or the only one whose id starts with `text`.
    pub fn find(&self, text: &str) -> anyhow::Result<Record> {
        let id = self.find_id(text)?;
        match self.load(&id) {
            Ok(Some(record)) => Ok(record),
            Ok(None) => bail!("no container `{text}`"),
            Err(error) => Err(Damaged { id, error }.into()),
        }
    }

    /// The id of the container with this name or id, or the only one that starts with `text`. A
    /// damaged container has an id and no name.
    pub fn find_id(&self, text: &str) -> anyhow::Result<Id> {
        let Listing { records, damaged } = self.list()?;
        if let Some(record) = records.iter().find(|record| record.name.as_str() == text) {
            return Ok(record.id.clone());
        }
        let readable = records.iter().map(|record| &record.id);
        let ids = readable.chain(damaged.iter().map(|damaged| &damaged.id));
        let mut matching = ids.filter(|id| !text.is_empty() && id.as_str().starts_with(text));
        match (matching.next(), matching.next()) {
            (Some(id), None) => Ok(id.clone()),
            (Some(one), Some(two)) => {
                bail!("`{text}` means container {one} as well as {two}: give more digits")
            }
            (None, _) => {
                match damaged.into_iter().next() {
                    Some(damaged) => Err(anyhow::Error::new(damaged)
                        .context(format!("no readable container `{text}`"))),
                    None => bail!("no container `{text}`"),
                }
            }
        }
    }

    /// Records a new container, unless its name is taken.
    pub(crate) fn create(&self, record: &Record) -> anyhow::Result<()> {
        let (records, _lock) = self.lock_table()?;
        sweep(&records)?;
        if let Some(other) = self.by_name(&record.name)? {
            return Err(name_is_taken(&record.name, &other.id));
        }
        let id = record.id.as_str();
        if records.open_dir(id)?.is_some() {
            bail!("the id {id} is taken");
        }
        // Filled first, then renamed: a container's directory always has its record.
        let new = format!("{COMING}{id}");
        let text = record.to_json()?;
        let durability = durability(record);
        let made = records
            .make_dir(&new)
            .and_then(|dir| dir.replace(CONFIG, &text, durability))
            .and_then(|()| records.rename(&new, id, durability));
        if made.is_err() {
            remove_tree(&records.path_of(&new))?;
        }
        Ok(made?)
    }

    /// Calls a container otherwise, unless the name is taken.
    pub(crate) fn rename(&self, locked: &mut Locked, name: &ContainerName) -> anyhow::Result<()> {
        let (_records, _lock) = self.lock_table()?;
        if let Some(other) = self.by_name(name)?
            && other.id != locked.record.id
        {
            return Err(name_is_taken(name, &other.id));
        }
        locked.record.name = name.clone();
        locked.record.spec.name = Some(name.clone());
        locked.save()
    }

    /// Keeps others from changing a container. None if there is no such container.
    pub(crate) fn lock(&self, id: &Id) -> anyhow::Result<Option<Locked>> {
        let Some(held) = self.hold(id)? else {
            return Ok(None);
        };
        let record = self.load(id)?;
        Ok(record.map(|record| Locked { record, held }))
    }

    /// Keeps others from changing a container, whatever state its record is in.
    pub(crate) fn hold(&self, id: &Id) -> anyhow::Result<Option<Held>> {
        let Some(dir) = self.records()?.open_dir(id.as_str())? else {
            return Ok(None);
        };
        let what = format!("container {id}");
        let lock = Lock::take(&dir, &what, Access::Write, LOCK_WAIT_MAX)?;
        // Whoever held the lock may have removed the container.
        if self.records()?.open_dir(id.as_str())?.is_none() {
            return Ok(None);
        }
        let id = id.clone();
        Ok(lock.map(|lock| Held {
            id,
            dir,
            _lock: lock,
        }))
    }

    /// Removes a container that is taken down: its record, its log, its files.
    pub(crate) fn forget(&self, locked: Locked) -> anyhow::Result<()> {
        let durability = durability(&locked.record);
        self.forget_held(locked.held, durability)?;
        self.images().prune(|| self.image_users())
    }

    /// The same for one that can't be read. The layers that it stood on go with the next
    /// container that is removed.
    pub(crate) fn forget_damaged(&self, held: Held) -> anyhow::Result<()> {
        self.forget_held(held, Durability::Disk)
    }

    fn forget_held(&self, held: Held, durability: Durability) -> anyhow::Result<()> {
        let id = held.id.as_str();
        self.overlay(&held.id).remove()?;
        let (records, _lock) = self.lock_table()?;
        // Out of sight at once: a directory half removed would be a damaged container.
        let old = format!("{GOING}{id}");
        records.rename(id, &old, durability)?;
        Ok(remove_tree(&records.path_of(&old))?)
    }

    /// Removes directories that a killed process left half made or half removed.
    pub fn sweep(&self) -> anyhow::Result<()> {
        // Only where there are some: most often nobody has to wait for the table.
        if self
            .records()?
            .names()?
            .iter()
            .any(|name| is_unfinished(name))
        {
            let (records, _lock) = self.lock_table()?;
            sweep(&records)?;
        }
        Ok(())
    }

    /// Who stands on images.
    pub fn image_users(&self) -> anyhow::Result<Users> {
        let Listing { records, damaged } = self.list()?;
        let user = |record: Record| User {
            container: record.name.to_string(),
            image: record.spec.image,
            id: record.image_id,
            layers: record.layers,
            legacy: record.legacy_layer,
        };
        Ok(Users {
            containers: records.into_iter().map(user).collect(),
            unknown: !damaged.is_empty(),
        })
    }

    /// The directories of the layers below a container's own, lowest first.
    pub(crate) fn layer_dirs(&self, record: &Record) -> Vec<PathBuf> {
        let legacy = record.legacy_layer.as_ref();
        self.images().layer_dirs(&record.layers, legacy)
    }

    /// A container's root filesystem.
    pub(crate) fn overlay(&self, id: &Id) -> Overlay {
        Overlay::new(self.root.join(OVERLAYS).join(id.as_str()))
    }

    /// What a container's runtime needs on disk while it runs.
    pub(crate) fn bundle(&self, id: &Id) -> PathBuf {
        self.run_root.join(BUNDLES).join(id.as_str())
    }

    /// Where the runtime keeps its own state.
    pub(crate) fn runtime_dir(&self) -> PathBuf {
        self.run_root.join("runtime")
    }

    /// A container's record, or none if there is no such container.
    pub(crate) fn load(&self, id: &Id) -> anyhow::Result<Option<Record>> {
        load(&self.records()?, id)
    }

    fn lock_table(&self) -> anyhow::Result<(Dir, Lock)> {
        let records = self.records()?;
        let what = "the table of containers";
        let lock = Lock::take(&records, what, Access::Write, LOCK_WAIT_MAX)?;
        let lock = lock.with_context(|| format!("{} is gone", records.path().display()))?;
        Ok((records, lock))
    }

    fn by_name(&self, name: &ContainerName) -> anyhow::Result<Option<Record>> {
        let taken = |record: &Record| record.name == *name || record.id.as_str() == name.as_str();
        Ok(self.list()?.records.into_iter().find(taken))
    }

    fn dir(&self, id: &Id) -> PathBuf {
        self.root.join(RECORDS).join(id.as_str())
    }

    fn records(&self) -> anyhow::Result<Dir> {
        Ok(Dir::create(&self.root, RECORDS, Durability::Disk)?)
    }
}

fn ids(records: &Dir) -> anyhow::Result<Vec<Id>> {
    // The lock, and directories that are coming or going, have names that are no ids.
    let names = records.names()?;
    Ok(names.iter().filter_map(|name| name.parse().ok()).collect())
}

fn load(records: &Dir, id: &Id) -> anyhow::Result<Option<Record>> {
    let Some(dir) = records.open_dir(id.as_str())? else {
        return Ok(None);
    };
    let path = dir.path_of(CONFIG);
    let Some(text) = dir.read(CONFIG)? else {
        if records.open_dir(id.as_str())?.is_none() {
            // Removed since.
            return Ok(None);
        }
        bail!("{} is missing", path.display());
    };
    Record::from_json(id, &text)
        .with_context(|| format!("{} is damaged", path.display()))
        .map(Some)
}

impl Locked {
    /// Writes the record to its file.
    pub(crate) fn save(&self) -> anyhow::Result<()> {
        self.write(durability(&self.record))
    }

    /// The same where it says which processes run, and nothing else that outlives them: after a loss of
    /// power an older record says as well that it has ended. To sync a disk that others use takes long.
    pub(crate) fn save_running(&self) -> anyhow::Result<()> {
        self.write(Durability::Whole)
    }

    fn write(&self, durability: Durability) -> anyhow::Result<()> {
        let text = self.record.to_json()?;
        Ok(self.held.dir.replace(CONFIG, &text, durability)?)
    }
}

fn name_is_taken(name: &ContainerName, by: &Id) -> anyhow::Error {
    anyhow!("the name `{name}` is taken by container {by}: remove that or choose another")
}

/// Whether a container's record has to outlive a loss of power. One that goes when its container ends
/// is missed by nobody, and should it be there again, the next command takes it for one that was left.
fn durability(record: &Record) -> Durability {
    match record.spec.auto_remove {
        true => Durability::Whole,
        false => Durability::Disk,
    }
}

/// How the name of a directory begins that is half made, or half removed.
const COMING: &str = ".new-";
const GOING: &str = ".old-";

/// Removes directories that a killed process left half made or half removed. Only whoever holds
/// the table's lock makes such, and that is us.
fn sweep(records: &Dir) -> anyhow::Result<()> {
    for name in records.names()?.iter().filter(|name| is_unfinished(name)) {
        remove_tree(&records.path_of(name))?;
    }
    Ok(())
}

fn is_unfinished(name: &str) -> bool {
    name.starts_with(COMING) || name.starts_with(GOING)
}

#[cfg(test)]
mod tests {
    use std::{
        fs::{self, Permissions},
        os::unix::fs::PermissionsExt,
        process::Command,
        thread,
    };

    use tempfile::TempDir;

    use super::*;
    use crate::container::{process::Process, record::example};

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
    fn a_record_that_was_handed_on_is_read_again() {
        let (_dir, containers) = containers();
        let mut command = Command::new("true").spawn().unwrap();
        let mut old = record("aaaa00000001", "web");
        old.supervisor = Process::of(command.id().cast_signed()).unwrap();
        command.wait().unwrap();
        containers.create(&old).unwrap();
        assert!(old.is_abandoned());
        assert!(containers.newer(&old).is_none(), "nobody took over");

        let mut locked = containers.lock(&old.id).unwrap().unwrap();
        locked.record.supervisor = Process::current().unwrap();
        locked.save().unwrap();
        assert!(old.is_abandoned(), "by what was read before");
        let now = containers.newer(&old).unwrap();
        assert!(!now.is_abandoned());
        assert!(containers.newer(&now).is_none());
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
        let whole = fs::read(&path).unwrap();
        let damage: [&dyn Fn(); 3] = [
            &|| fs::write(&path, "{").unwrap(),
            &|| fs::set_permissions(&path, Permissions::from_mode(0o660)).unwrap(),
            &|| fs::remove_file(&path).unwrap(),
        ];
        for damage in damage {
            damage();
            let listing = containers.list().unwrap();
            assert_eq!((listing.records.len(), listing.damaged.len()), (1, 1));
            let said = listing.damaged[0].to_string();
            for part in [path.to_str().unwrap(), "`mydocker rm --force aaaa00000002`"] {
                assert!(said.contains(part), "{said}");
            }
            assert!(containers.find("web").is_ok());
            assert!(containers.find("aaaa00000002").is_err());
            assert_eq!(
                containers.find_id("aaaa00000002").unwrap().as_str(),
                "aaaa00000002"
            );
            assert!(containers.find_id("db").is_err(), "its name is not known");
            fs::write(&path, &whole).unwrap();
        }
    }

    #[test]
    fn what_others_can_write_is_refused() {
        let (_dir, containers) = containers();
        containers.create(&record("aaaa00000001", "web")).unwrap();
        let id: Id = "aaaa00000001".parse().unwrap();
        let own = containers.dir(&id);
        for path in [containers.root(), own.parent().unwrap(), &own] {
            let mode = fs::metadata(path).unwrap().permissions().mode() & 0o7777;
            fs::set_permissions(path, Permissions::from_mode(mode | 0o002)).unwrap();
            let said = format!("{:#}", containers.load(&id).unwrap_err());
            let named = format!("{} has mode", path.display());
            assert!(said.contains(&named) && said.contains("chmod"), "{said}");
            assert!(containers.lock(&id).is_err());
            fs::set_permissions(path, Permissions::from_mode(mode)).unwrap();
        }
        assert!(containers.load(&id).unwrap().is_some());
        let (root, run_root) = (containers.root(), containers.run_root());
        for path in [root, run_root] {
            fs::set_permissions(path, Permissions::from_mode(0o770)).unwrap();
            let said = Containers::open(root, run_root).unwrap_err().to_string();
            assert!(
                said.contains(&format!("{} has mode", path.display())),
                "{said}"
            );
            fs::set_permissions(path, Permissions::from_mode(0o700)).unwrap();
        }
    }

    #[test]
    fn what_a_killed_process_left_is_swept() {
        let (_dir, containers) = containers();
        containers.create(&record("aaaa00000001", "web")).unwrap();
        for left in [".new-aaaa00000002", ".old-aaaa00000003"] {
            let path = containers.records().unwrap().path_of(left);
            fs::create_dir(&path).unwrap();
            fs::write(path.join(CONFIG), "{").unwrap();
        }
        containers.sweep().unwrap();
        assert_eq!(
            containers.records().unwrap().names().unwrap(),
            [".", "..", "aaaa00000001", "lock"]
        );
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
            containers.records().unwrap().names().unwrap(),
            [".", "..", "lock"],
            "only the table's lock"
        );
    }
}
