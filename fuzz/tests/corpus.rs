//! Every fuzz target over its corpus, as an ordinary test.

use std::fs;
use std::path::Path;

fn over_corpus(target: &str, run: fn(&[u8])) {
    let folder = Path::new(env!("CARGO_MANIFEST_DIR")).join("corpus").join(target);
    let mut files = 0;
    for entry in fs::read_dir(&folder).unwrap() {
        let path = entry.unwrap().path();
        eprintln!("{}", path.display());
        run(&fs::read(path).unwrap());
        files += 1;
    }
    assert!(files > 0, "{} is empty", folder.display());
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
