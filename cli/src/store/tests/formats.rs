//! Files of every format that there has been, as they were written then: `formats/N`, a record a line.
//! The same session each time: two networks, `web` on both, `db` on one and off again.

use std::collections::BTreeSet;

use mydocker_core::{Object, Rejection};

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
        let bytes =
            lines.flat_map(|line| record::encode(line.as_bytes(), checksum::crc32).unwrap());
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

/// The formats of snapshots and journals.
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

/// Tables as formats 3 to 6 had them, of the place's own instance and boot. The last plan ended.
fn written_tables(format: u64) -> Place {
    let place = Place::new();
    let [run, definitions] = ["run", "lib"].map(|root| place.dir.path().join(root).join(NAME));
    for dir in [&run, &definitions] {
        make_dir(dir).unwrap();
    }
    let from = Path::new(env!("CARGO_MANIFEST_DIR"))
        .join("src/store/tests/formats")
        // Format 3 was the same but for its number.
        .join(format.max(4).to_string());
    let packed = fs::File::open(from.join("state.gz")).unwrap();
    let mut bytes = Vec::new();
    std::io::copy(&mut flate2::read::GzDecoder::new(packed), &mut bytes).unwrap();
    let instance = serde_json::to_string(&place.roots().instance().unwrap()).unwrap();
    let title = format!(r#"{{"format":{format},"boot_id":"first","instance":{instance}}}"#);
    let title = record::encode(title.as_bytes(), checksum::crc32).unwrap();
    bytes[..title.len()].copy_from_slice(&title);
    fs::write(place.run("state"), bytes).unwrap();
    fs::copy(from.join("plan"), place.run("plan")).unwrap();
    fs::write(place.run("lock"), "").unwrap();
    for name in ["front", "back"] {
        fs::copy(from.join(format!("{name}.json")), place.definition(name)).unwrap();
    }
    place
}

#[test]
fn older_tables_are_read_and_written_anew() {
    for format in [3, 4, 5, 6] {
        let place = written_tables(format);
        let bytes = fs::read(place.run("state")).unwrap();
        let before = place.read().unwrap();
        assert_eq!(names(&before), ["back", "front"]);
        let ports = before.endpoints().map(|e| e.ports.len());
        assert_eq!(ports.collect::<Vec<_>>(), [0, 11]);
        assert_eq!(before.pending(), None);
        assert!(
            fs::read(place.run("state")).unwrap() == bytes,
            "who reads changes nothing"
        );
        let after = place.open(Access::Write).unwrap().into_parts().0;
        assert_eq!(after, before);
        assert_eq!(format_of(&place), record::FORMAT);
        assert_eq!(place.read().unwrap(), before);
        place.apply(&[detach("front", "web"), detach("back", "web")]);
        assert_eq!(place.read().unwrap().endpoints().count(), 0);
    }
}

/// Who has a port is found by whoever wants it next, though claims were told otherwise.
#[test]
fn ports_of_older_tables_are_taken() {
    for format in [3, 4, 5, 6] {
        let place = written_tables(format);
        let Request::Attach(mut spec) = attach("front", "db") else {
            panic!("it is an attach");
        };
        spec.ports = vec!["127.0.0.1:9005:80".parse().unwrap()];
        let request = Request::Attach(spec);
        for round in ["from older tables", "from those made of them"] {
            let requests = std::slice::from_ref(&request);
            let mut store = Store::open_for(&place.roots(), requests, &place.options).unwrap();
            assert_eq!(format_of(&place), record::FORMAT);
            let mut planned = store.state().plan(&Facts::default(), &request);
            if let Ok(plan) = &planned {
                assert!(
                    store.recall_rivals(plan).unwrap(),
                    "format {format}, {round}"
                );
                planned = store.state().plan(&Facts::default(), &request);
            }
            assert!(
                matches!(planned, Err(Rejection::PortTaken { .. })),
                "format {format}, {round}: {planned:?}"
            );
        }
    }
}

/// What a dead process of the older version began is finished by one of this.
#[test]
fn a_plan_beside_older_tables_is_pending() {
    for format in [4, 5, 6] {
        let place = written_tables(format);
        let run = Dir::open(&place.roots().run_root, NAME).unwrap().unwrap();
        let Last::Begun(last) = begun::read(&run).unwrap() else {
            panic!("it was begun");
        };
        let state = place.read().unwrap();
        let request = attach("front", "db");
        let plan = state.plan(&Facts::default(), &request).unwrap();
        begun::write(&run, last.number + 1, &plan).unwrap();
        for access in [Access::Read, Access::Write, Access::Write] {
            let store = place.open(access).unwrap();
            assert_eq!(store.state().pending().map(AsRef::as_ref), Some(&plan));
        }
        assert_eq!(format_of(&place), record::FORMAT);
        let mut store = place.open(Access::Write).unwrap();
        store.record(&Entry::End(Outcome::Committed)).unwrap();
        drop(store);
        assert_eq!(place.read().unwrap().endpoints().count(), 3);
    }
}

/// Every byte of them is as it was written, or the tables are refused.
#[test]
fn older_tables_that_are_damaged_are_refused() {
    // The pages of a tree are fewer.
    for (format, step) in [(4, 397), (5, 89), (6, 199)] {
        let place = written_tables(format);
        let before = place.read().unwrap();
        let whole = fs::read(place.run("state")).unwrap();
        let mut refused = 0;
        for at in (0..whole.len()).step_by(step) {
            let mut bytes = whole.clone();
            bytes[at] ^= 0x15;
            fs::write(place.run("state"), &bytes).unwrap();
            match place.read() {
                // Nothing leads to that.
                Ok(state) => assert_eq!(state, before, "byte {at} of format {format}"),
                Err(error) => {
                    assert!(error.is_damage(), "byte {at} of format {format}: {error}");
                    refused += 1;
                }
            }
        }
        assert!(refused > 20, "{refused} of format {format}");
        for cut in [0, 4095, 5000, 10_000] {
            fs::write(place.run("state"), &whole[..cut]).unwrap();
            let error = place.read().unwrap_err();
            assert!(error.is_damage(), "format {format} cut at {cut}");
        }
    }
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
