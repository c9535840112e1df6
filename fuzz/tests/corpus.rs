//! Every fuzz target over its corpus, as an ordinary test.

use std::fs;
use std::path::Path;

fn over_corpus(target: &str, run: fn(&[u8])) {
    let folder = Path::new(env!("CARGO_MANIFEST_DIR"))
        .join("corpus")
        .join(target);
    let entries = fs::read_dir(&folder).expect("a corpus");
    let files: Vec<_> = entries.map(|entry| entry.expect("a file").path()).collect();
    assert!(!files.is_empty(), "{} is empty", folder.display());
    for path in files {
        let data = fs::read(&path).expect("a readable file");
        // So that a panic says which input it was.
        let outcome = std::panic::catch_unwind(|| run(&data));
        assert!(outcome.is_ok(), "{} is a finding", path.display());
    }
}

#[test]
fn names() {
    over_corpus("names", mydocker_fuzz::names);
}

#[test]
fn request() {
    over_corpus("request", mydocker_fuzz::request);
}

#[test]
fn script() {
    over_corpus("script", mydocker_fuzz::script);
}
