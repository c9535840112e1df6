//! Cuts, flips, crashes, reboots and strangers.

use std::fs;
use std::os::unix::fs::{PermissionsExt, symlink};
use std::path::{Path, PathBuf};

use mydocker_core::{
    AttachSpec, EndpointId, Entry, Facts, NetworkName, NetworkSpec, Outcome, Recorder, Request,
    State, Transaction, drive,
};

use super::*;
use crate::engine::mind::Willing;

mod access;
mod damage;
mod formats;
mod life;

/// A pair of roots of its own, and the boot that it is in.
struct Place {
    dir: tempfile::TempDir,
    options: Options,
}

impl Place {
    fn new() -> Self {
        let dir = tempfile::tempdir().unwrap();
        let options = Options {
            lock_wait: Duration::from_millis(50),
            boot_id: Some("first".into()),
            ..Options::default()
        };
        Self { dir, options }
    }

    /// The same files in another place.
    fn copy(&self) -> Self {
        let other = Self {
            options: self.options.clone(),
            ..Self::new()
        };
        copy(self.dir.path(), other.dir.path());
        let (from, to) = (self.roots(), other.roots());
        assert_ne!(from.instance().unwrap(), to.instance().unwrap());
        other
    }

    fn roots(&self) -> Roots {
        let (root, run_root) = (self.dir.path().join("lib"), self.dir.path().join("run"));
        Roots { root, run_root }
    }

    fn run(&self, name: &str) -> PathBuf {
        self.dir.path().join("run/network").join(name)
    }

    fn definition(&self, name: &str) -> PathBuf {
        self.dir
            .path()
            .join("lib/network")
            .join(format!("{name}.json"))
    }

    fn open(&self, access: Access) -> Result<Store, StoreError> {
        Store::open_with(&self.roots(), access, &self.options)
    }

    fn read(&self) -> Result<State, StoreError> {
        Ok(self.open(Access::Read)?.into_parts().0)
    }

    fn reboot(&mut self) {
        self.options.boot_id = Some("second".into());
    }

    /// Carries requests out in a world where everything succeeds.
    fn apply(&self, requests: &[Request]) {
        for request in requests {
            let mut store =
                Store::open_for(&self.roots(), std::slice::from_ref(request), &self.options)
                    .unwrap();
            let plan = store.state().plan(&Facts::default(), request).unwrap();
            let mut transaction = Transaction::begin(plan);
            let outcome = drive(&mut transaction, &mut Willing, &mut store).unwrap();
            assert_eq!(outcome, Outcome::Committed);
        }
    }

    /// Begins a request, and ends there.
    fn begin(&self, request: &Request) {
        let mut store = self.open(Access::Write).unwrap();
        let plan = store.state().plan(&Facts::default(), request).unwrap();
        store.record(&Entry::Begin(plan.into())).unwrap();
    }
}

fn copy(from: &Path, to: &Path) {
    for entry in fs::read_dir(from).unwrap() {
        let entry = entry.unwrap();
        let to = to.join(entry.file_name());
        if entry.file_type().unwrap().is_dir() {
            fs::create_dir(&to).unwrap();
            fs::set_permissions(&to, fs::Permissions::from_mode(0o700)).unwrap();
            copy(&entry.path(), &to);
        } else {
            fs::copy(entry.path(), &to).unwrap();
        }
    }
}

fn name(text: &str) -> NetworkName {
    text.parse().unwrap()
}

fn create(network: &str) -> Request {
    Request::CreateNetwork(NetworkSpec::new(name(network)))
}

fn attach(network: &str, container: &str) -> Request {
    let netns = format!("/run/netns/{container}").parse().unwrap();
    let mut spec = AttachSpec::new(name(network), container.parse().unwrap(), netns);
    if (network, container) == ("one", "web") {
        spec.ports = vec!["8080:80".parse().unwrap()];
    }
    Request::Attach(spec)
}

fn detach(network: &str, container: &str) -> Request {
    let (network, container) = (name(network), container.parse().unwrap());
    Request::Detach(EndpointId { network, container })
}

fn some_requests() -> Vec<Request> {
    vec![
        create("one"),
        attach("one", "web"),
        create("two"),
        attach("two", "web"),
        attach("one", "db"),
        detach("one", "web"),
    ]
}

fn names(state: &State) -> Vec<String> {
    state.networks().map(|n| n.name.to_string()).collect()
}

fn definitions(place: &Place) -> Vec<String> {
    let Ok(entries) = fs::read_dir(place.dir.path().join("lib/network")) else {
        return Vec::new();
    };
    let names = entries.map(|entry| entry.unwrap().file_name().into_string().unwrap());
    let mut names: Vec<String> = names
        .filter_map(|name| name.strip_suffix(".json").map(str::to_owned))
        .collect();
    names.sort();
    names
}
