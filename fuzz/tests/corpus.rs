//! Every fuzz target over its corpus, as an ordinary test.

use std::collections::BTreeSet;
use std::ffi::OsString;
use std::fs;
use std::path::{Path, PathBuf};

use mydocker_fuzz::TARGETS;

fn here(folder: &str) -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join(folder)
}

fn files(folder: &Path) -> Vec<PathBuf> {
    let entries = fs::read_dir(folder).expect("a folder");
    entries.map(|entry| entry.expect("a file").path()).collect()
}

#[test]
fn nothing_in_the_corpora_is_a_finding() {
    for (target, run) in TARGETS {
        let files = files(&here("corpus").join(target));
        assert!(!files.is_empty(), "the corpus of {target} is empty");
        for path in files {
            let data = fs::read(&path).expect("a readable file");
            // So that a panic says which input it was.
            let outcome = std::panic::catch_unwind(|| run(&data));
            assert!(outcome.is_ok(), "{} is a finding", path.display());
        }
    }
}

/// `run.sh` goes by the files, this test by the list.
#[test]
fn every_target_is_listed() {
    let names = |folder: &str| -> BTreeSet<OsString> {
        let files = files(&here(folder)).into_iter();
        files
            .filter_map(|path| path.file_stem().map(Into::into))
            .collect()
    };
    let listed: BTreeSet<OsString> = TARGETS.iter().map(|(name, _)| name.into()).collect();
    assert_eq!(names("fuzz_targets"), listed);
    assert_eq!(names("corpus"), listed);
}
