//! Cuts, flips, loss, other formats.

use super::*;

/// Whoever is killed while a plan is begun has begun nothing.
#[test]
fn a_plan_that_was_not_all_written_was_not_begun() {
    let place = Place::new();
    place.apply(&some_requests());
    let (before, old) = (place.read().unwrap(), fs::read(place.run("plan")).unwrap());
    place.begin(&attach("two", "db"));
    let new = fs::read(place.run("plan")).unwrap();
    assert!(place.read().unwrap().pending().is_some());
    let head = record::HEAD_BYTES;
    for written in head..=new.len() {
        let rest = old.get(written..).unwrap_or_default();
        let bytes = [&vec![0; head], &new[head..written], rest].concat();
        fs::write(place.run("plan"), bytes).unwrap();
        assert_eq!(place.read().unwrap(), before, "{written} bytes");
    }
    place.apply(&[attach("two", "db")]);
    assert_eq!(place.read().unwrap().endpoints().count(), 3);
}

#[test]
fn a_flipped_byte_is_named_and_refused() {
    let place = Place::new();
    place.apply(&[create("one"), attach("one", "db"), attach("one", "web")]);
    let before = place.read().unwrap();
    let mut refused = 0;
    for (file, step) in [("state", 19), ("plan", 1)] {
        let whole = fs::read(place.run(file)).unwrap();
        // Behind that the state has nothing but room.
        for at in (0..whole.len().min(32 * 1024)).step_by(step) {
            let mut bytes = whole.clone();
            bytes[at] ^= 0x15;
            fs::write(place.run(file), &bytes).unwrap();
            match place.read() {
                // Of the state, one in what nothing leads to.
                Ok(state) => assert!(file == "state" && state == before, "{file} {at}"),
                Err(StoreError::Damaged { path, offset, .. }) => {
                    assert!(
                        path == place.run(file) && offset <= at as u64,
                        "{file} {at}"
                    );
                    refused += 1;
                }
                Err(error) => panic!("{file} {at}: {error}"),
            }
        }
        fs::write(place.run(file), &whole).unwrap();
        assert!(refused > 200, "{file}: {refused}");
    }
    assert_eq!(place.read().unwrap(), before);
}

/// Damage is in the way of whoever needs what is damaged.
#[test]
fn what_is_sound_stays_usable() {
    let place = Place::new();
    let mut requests = Vec::new();
    for network in ["one", "two"] {
        requests.push(create(network));
        requests.extend((0..200).map(|n| attach(network, &format!("c{n}"))));
    }
    place.apply(&requests);
    let whole = fs::read(place.run("state")).unwrap();
    let needle = b"/run/netns/c77\"";
    let places = whole.windows(needle.len()).enumerate();
    let places: Vec<_> = places.filter(|(_, w)| w == needle).collect();
    // Some of them are left over from before, and nothing leads there.
    let refused = places.into_iter().map(|(at, _)| {
        let mut bytes = whole.clone();
        bytes[at] ^= 1;
        fs::write(place.run("state"), &bytes).unwrap();
        let requests = (0..200).map(|n| detach("two", &format!("c{n}")));
        let opened = requests.map(|r| Store::open_for(&place.roots(), &[r], &place.options));
        let errors = opened.filter_map(Result::err);
        errors
            .inspect(|error| assert!(error.is_damage(), "{error}"))
            .count()
    });
    let refused: Vec<usize> = refused.collect();
    let some = |refused: &usize| (1..50).contains(refused);
    assert!(refused.iter().any(some), "{refused:?}");
}

#[test]
fn a_lost_half_is_refused() {
    for (lost, left) in [("state", "plan"), ("plan", "state")] {
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
    assert!(store.record(&Entry::Begin(plan.into())).is_err());
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
    let header = record::encode(header.as_bytes(), checksum::crc32).unwrap();
    fs::write(place.run("state"), &header).unwrap();
    let error = place.read().unwrap_err();
    assert!(
        matches!(error, StoreError::TooNew { format, .. } if format == newest),
        "{error}"
    );
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
