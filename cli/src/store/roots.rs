//! Roots: the two directories that everything of one instance is kept below.

use std::io::ErrorKind;
use std::path::{Path, PathBuf};

use mydocker_core::Instance;

use super::StoreError;
use super::error::io;

/// Where one instance keeps its files. Each run root has its own marks in the kernel, so give
/// each its own root as well: definitions are guarded by the run root's lock.
#[derive(Clone, Debug, Eq, PartialEq)]
pub struct Roots {
    /// What survives a reboot.
    pub root: PathBuf,
    /// What describes the running kernel, and goes with it.
    pub run_root: PathBuf,
}

impl Roots {
    /// Where the default instance keeps what survives a reboot.
    pub const ROOT: &'static str = "/var/lib/mydocker";
    /// Where the default instance keeps what does not.
    pub const RUN_ROOT: &'static str = "/run/mydocker";

    /// Whose marks the kernel objects carry: the default instance's for the default run root,
    /// however it is spelled, else that of the run root's canonical path.
    ///
    /// # Errors
    /// The run root can't be looked at.
    pub fn instance(&self) -> Result<Instance, StoreError> {
        let default = Path::new(Self::RUN_ROOT);
        if self.run_root == default {
            return Ok(Instance::DEFAULT);
        }
        let run_root = canonical(&self.run_root)?;
        if run_root == canonical(default)? {
            return Ok(Instance::DEFAULT);
        }
        Ok(Instance::of_run_root(&run_root.to_string_lossy()))
    }
}

impl Default for Roots {
    fn default() -> Self {
        Self {
            root: Self::ROOT.into(),
            run_root: Self::RUN_ROOT.into(),
        }
    }
}

/// The canonical path, also of what is not there yet: then that of its closest ancestor that is.
fn canonical(path: &Path) -> Result<PathBuf, StoreError> {
    let path = std::path::absolute(path).map_err(io("find", path))?;
    let mut missing = Vec::new();
    let mut there = path.as_path();
    loop {
        match there.canonicalize() {
            Ok(found) => return Ok(missing.iter().rev().fold(found, |at, name| at.join(name))),
            Err(error) if error.kind() == ErrorKind::NotFound => {
                let (Some(parent), Some(name)) = (there.parent(), there.file_name()) else {
                    return Err(io("find", there)(error));
                };
                missing.push(name);
                there = parent;
            }
            Err(error) => return Err(io("find", there)(error)),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::os::unix::fs::symlink;

    #[test]
    fn one_directory_is_one_instance_however_it_is_spelled() {
        let dir = tempfile::tempdir().unwrap();
        symlink(dir.path(), dir.path().join("again")).unwrap();
        let of = |run_root: PathBuf| {
            let root = PathBuf::from("/unused");
            Roots { root, run_root }.instance().unwrap()
        };
        assert_eq!(of(Roots::RUN_ROOT.into()), Instance::DEFAULT);
        let (before, spelled) = (dir.path().join("run"), dir.path().join("again/./run"));
        assert_eq!(of(before.clone()), of(spelled.clone()));
        assert_ne!(of(before.clone()), Instance::DEFAULT);
        let missing = of(before.clone());
        std::fs::create_dir(&before).unwrap();
        assert_eq!(of(before), missing);
        assert_eq!(of(spelled), missing);
    }
}
