//! Cuts, flips, loss, other formats.

use super::*;

#[test]
fn a_cut_journal_is_what_was_complete() {
    let place = Place::new();
    place.apply(&some_requests());
    let whole = fs::read(place.run("journal")).unwrap();
    let states = states(&whole, place.roots().instance().unwrap());
    assert_eq!(states.len(), 1 + 2 * some_requests().len());
    // Definitions are in step with the whole journal only; they are another test's matter.
    fs::remove_dir_all(place.dir.path().join("lib")).unwrap();
    for cut in 0..=whole.len() {
        fs::write(place.run("journal"), &whole[..cut]).unwrap();
        let expected = states.iter().rev().find(|(at, _)| *at <= cut);
        match (place.read(), expected) {
            (Ok(state), Some((_, expected))) => assert_eq!(state, *expected, "cut at {cut}"),
            (Err(StoreError::Damaged { offset: 0, .. }), None) => {}
            (found, _) => panic!("cut at {cut}: {found:?}"),
        }
    }
    // A writer drops the torn end for good.
    fs::write(place.run("journal"), &whole[..whole.len() - 1]).unwrap();
    drop(place.open(Access::Write).unwrap());
    let (last, _) = states[states.len() - 2];
    assert_eq!(
        fs::metadata(place.run("journal")).unwrap().len(),
        last as u64
    );
}

#[test]
fn a_flipped_byte_is_named_and_refused() {
    let place = Place::new();
    place.apply(&[create("one"), attach("one", "db")]);
    // A snapshot with something in it as well.
    let mut store = place.open(Access::Write).unwrap();
    let run = Dir::open(&place.roots().run_root, NAME).unwrap().unwrap();
    Run::put(&run, &store.subject().unwrap(), store.state(), 2).unwrap();
    store.reopen().unwrap();
    drop(store);
    place.apply(&[attach("one", "web")]);
    for file in ["state", "journal"] {
        let whole = fs::read(place.run(file)).unwrap();
        for at in 0..whole.len() {
            let mut bytes = whole.clone();
            bytes[at] ^= 0x15;
            fs::write(place.run(file), &bytes).unwrap();
            let error = place.read().expect_err("a flipped byte");
            let StoreError::Damaged { path, offset, .. } = &error else {
                panic!("{file} {at}: {error}");
            };
            assert!(*path == place.run(file) && *offset <= at as u64, "{error}");
        }
        fs::write(place.run(file), &whole).unwrap();
    }
    assert_eq!(place.read().unwrap().endpoints().count(), 2);
}

#[test]
fn a_torn_end_with_a_flip_is_dropped_or_refused() {
    let place = Place::new();
    place.apply(&[create("one"), attach("one", "db")]);
    let whole = fs::read(place.run("journal")).unwrap();
    let states = states(&whole, place.roots().instance().unwrap());
    let (start, before) = &states[states.len() - 2];
    for at in *start..whole.len() - 1 {
        let mut bytes = whole[..whole.len() - 1].to_vec();
        bytes[at] ^= 0x80;
        fs::write(place.run("journal"), &bytes).unwrap();
        match place.read() {
            Ok(state) => assert_eq!(state, *before),
            Err(error) => assert!(matches!(error, StoreError::Damaged { .. }), "{error}"),
        }
    }
}

#[test]
fn a_lost_half_is_refused() {
    for (lost, left) in [("state", "journal"), ("journal", "state")] {
        let place = Place::new();
        place.apply(&[create("one")]);
        fs::remove_file(place.run(lost)).unwrap();
        let error = place.read().unwrap_err().to_string();
        assert!(
            error.contains(&place.run(left).display().to_string()),
            "{error}"
        );
    }
}

#[test]
fn a_damaged_definition_costs_its_own_network_only() {
    let mut place = Place::new();
    place.apply(&[create("one"), create("two"), create("three")]);
    place.reboot();
    let text = fs::read_to_string(place.definition("one")).unwrap();
    for broken in [
        text.replace("bridge", "bridge\""),
        text.replace("\"one\"", "\"other\""),
    ] {
        fs::write(place.definition("one"), broken).unwrap();
        let store = place.open(Access::Write).unwrap();
        assert_eq!(names(store.state()), ["three", "two"]);
        let error = store.damaged()[0].to_string();
        assert!(error.contains("one.json is damaged at byte"), "{error}");
    }
    // Nor is it written over.
    let mut store = place.open(Access::Write).unwrap();
    let plan = store
        .state()
        .plan(&Facts::default(), &create("one"))
        .unwrap();
    assert!(store.record(&Entry::Begin(plan)).is_err());
    drop(store);
    fs::write(place.definition("one"), text).unwrap();
    assert_eq!(names(&place.read().unwrap()), ["one", "three", "two"]);
}

#[test]
fn a_newer_format_is_refused() {
    let place = Place::new();
    place.apply(&[create("one")]);
    let definition = fs::read_to_string(place.definition("one")).unwrap();
    let newest = record::FORMAT + 1;
    let [known, unknown] = [record::FORMAT, newest].map(|format| format!("\"format\": {format}"));
    let newer = definition.replace(&known, &unknown);
    assert_ne!(newer, definition);
    let header = format!(r#"{{"format":{newest},"new":"fields"}}"#);
    let header = record::encode(header.as_bytes()).unwrap();
    for file in ["state", "journal"] {
        let whole = fs::read(place.run(file)).unwrap();
        fs::write(place.run(file), &header).unwrap();
        let error = place.read().unwrap_err();
        assert!(
            matches!(error, StoreError::TooNew { format, .. } if format == newest),
            "{error}"
        );
        fs::write(place.run(file), whole).unwrap();
    }
    fs::write(place.definition("one"), newer).unwrap();
    fs::remove_dir_all(place.dir.path().join("run")).unwrap();
    let store = place.open(Access::Read).unwrap();
    assert!(matches!(
        store.damaged(),
        [StoreError::TooNew { format, .. }] if *format == newest
    ));
}

#[test]
fn a_moved_run_root_is_refused() {
    let place = Place::new();
    place.apply(&[create("one")]);
    let error = place.copy().read().unwrap_err();
    assert!(matches!(error, StoreError::OtherInstance { .. }), "{error}");
}
