//! Files of every format that there has been, as they were written then: `formats/N`, a record a line.
//! The same session each time: two networks, `web` on both, `db` on one and off again.

use std::collections::BTreeSet;

use mydocker_core::Object;

use super::*;

/// What was written in that format, of the place's own instance and boot; of the journal, so many
/// records behind the header.
fn written(format: u64, entries: usize) -> Place {
    let place = Place::new();
    let [run, definitions] = ["run", "lib"].map(|root| place.dir.path().join(root).join(NAME));
    for dir in [&run, &definitions] {
        make_dir(dir).unwrap();
    }
    let from = Path::new(env!("CARGO_MANIFEST_DIR"))
        .join("src/store/tests/formats")
        .join(format.to_string());
    for (name, records) in [("state", 2), ("journal", 1 + entries)] {
        let text = fs::read_to_string(from.join(name).with_extension("jsonl")).unwrap();
        let instance = serde_json::to_string(&place.roots().instance().unwrap()).unwrap();
        let text = text.replace("INSTANCE", &instance).replace("BOOT", "first");
        let lines = text.lines().take(records);
        let bytes = lines.flat_map(|line| record::encode(line.as_bytes()).unwrap());
        fs::write(place.run(name), bytes.collect::<Vec<u8>>()).unwrap();
    }
    fs::write(place.run("lock"), "").unwrap();
    for name in ["front", "back"] {
        let definition = fs::read(from.join(format!("{name}.json"))).unwrap();
        fs::write(place.definition(name), definition).unwrap();
    }
    place
}

const ENTRIES: usize = 12;

/// The formats of what came before tables.
const FORMATS: [u64; 2] = [1, 2];

/// What the first record of the run state says its format is.
fn format_of(place: &Place) -> u64 {
    let bytes = fs::read(place.run("state")).unwrap();
    let record::Found::Record { payload, .. } = record::decode(&bytes, 0) else {
        panic!("it has no header");
    };
    serde_json::from_slice::<tables::Format>(payload)
        .unwrap()
        .format
}

#[test]
fn each_is_read_as_the_current_one() {
    let of = |format| {
        let place = written(format, ENTRIES);
        assert_eq!(format_of(&place), format);
        let state = place.read().unwrap();
        let known = |state: &State| -> Vec<_> {
            let endpoints = state.endpoints();
            endpoints
                .map(|e| (e.id.to_string(), e.addresses.clone(), e.ports.clone()))
                .collect()
        };
        (names(&state), known(&state))
    };
    let [first, second] = FORMATS.map(of);
    assert_eq!(first.0, ["back", "front"]);
    assert_eq!(first.1.len(), 2);
    assert_eq!(first, second);
}

/// Whoever changes something puts the files into the current format, also behind a dead process.
#[test]
fn each_is_written_anew_wherever_it_ends() {
    for format in FORMATS {
        for entries in 0..=ENTRIES {
            let place = written(format, entries);
            let before = place.read().unwrap();
            assert_eq!(before.pending().is_some(), entries % 2 == 1);
            let after = place.open(Access::Write).unwrap().into_parts().0;
            assert_eq!(after, before, "{entries} entries of format {format}");
            assert_eq!(format_of(&place), record::FORMAT);
            assert!(!place.run("journal").exists());
            assert_eq!(place.read().unwrap(), before);
        }
        let place = written(format, ENTRIES);
        place.apply(&[detach("front", "web"), detach("back", "web")]);
        assert_eq!(place.read().unwrap().endpoints().count(), 0);
    }
}

/// The first one that had tables.
#[test]
fn older_tables_are_taken_over_where_they_are() {
    let place = Place::new();
    place.apply(&[create("one"), attach("one", "web")]);
    let before = place.read().unwrap();
    let bytes = fs::read(place.run("state")).unwrap();
    let record::Found::Record { payload, next } = record::decode(&bytes, 0) else {
        panic!("it has no header");
    };
    let older = String::from_utf8(payload.to_vec()).unwrap();
    let older = older.replace(&format!("\"format\":{}", record::FORMAT), "\"format\":3");
    let mut bytes = bytes.clone();
    bytes[..next].copy_from_slice(&record::encode(older.as_bytes()).unwrap());
    fs::write(place.run("state"), bytes).unwrap();

    assert_eq!(place.read().unwrap(), before);
    assert_eq!(format_of(&place), 3, "who reads changes nothing");
    place.apply(&[attach("one", "db")]);
    assert_eq!(format_of(&place), record::FORMAT);
    assert_eq!(place.read().unwrap().endpoints().count(), 2);
}

/// The begin of `web on back` is the last thing that is told.
#[test]
fn objects_of_old_are_those_of_today() {
    let isolated = |format| -> BTreeSet<Object> {
        let place = written(format, 7);
        let plan = place.read().unwrap().pending().unwrap().clone();
        let objects = plan.ops.iter().map(|op| op.object().clone());
        let isolated = objects.filter(|object| matches!(object, Object::Isolated(_)));
        let instance = place.roots().instance().unwrap();
        isolated
            .inspect(|object| assert_eq!(object.firewall(), Some(instance)))
            .collect()
    };
    for format in FORMATS {
        assert_eq!(isolated(format).len(), 1, "format {format}");
    }
}

/// After a reboot definitions are all there is.
#[test]
fn definitions_of_each_are_read() {
    for format in FORMATS {
        let mut place = written(format, ENTRIES);
        place.reboot();
        let state = place.open(Access::Write).unwrap().into_parts().0;
        assert_eq!(names(&state), ["back", "front"], "format {format}");
        let back = state.network(&name("back")).unwrap();
        assert!(back.internal && !back.icc && back.labels["a"] == "b");
    }
}
