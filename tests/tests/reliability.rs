//! What RELIABILITY.md names as shown by tests is there.

use std::path::Path;

#[test]
fn every_test_that_is_named_is_there() {
    let root = Path::new(env!("CARGO_MANIFEST_DIR")).parent().unwrap();
    let text = std::fs::read_to_string(root.join("RELIABILITY.md")).unwrap();
    let words = text.split('`').skip(1).step_by(2);
    let files: Vec<&str> = words.filter(|word| word.ends_with(".rs")).collect();
    assert!(files.len() > 20, "{files:?}");
    let is_there = |file: &&str| {
        let mut places = [root.to_path_buf(), root.join("tests/tests")].into_iter();
        places.any(|place| place.join(file).is_file())
    };
    let missing: Vec<_> = files.iter().filter(|file| !is_there(file)).collect();
    assert_eq!(missing, Vec::<&&str>::new());
}
