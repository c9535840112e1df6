//! Writing, reading, snapshots and reboots.

use super::*;

#[test]
fn what_is_recorded_is_read_again() {
    let place = Place::new();
    place.apply(&some_requests());
    let state = place.open(Access::Write).unwrap().into_parts().0;
    assert_eq!(names(&state), ["one", "two"]);
    assert_eq!(state.endpoints().count(), 2);
    assert!(state.is_up(&name("one")) && state.pending().is_none());
    assert_eq!(place.read().unwrap(), state);
    assert_eq!(definitions(&place), ["one", "two"]);
    place.apply(&[detach("two", "web"), Request::RemoveNetwork(name("two"))]);
    assert_eq!(definitions(&place), ["one"]);
}

#[test]
fn reading_makes_nothing() {
    let place = Place::new();
    assert_eq!(names(&place.read().unwrap()), [""; 0]);
    assert_eq!(fs::read_dir(place.dir.path()).unwrap().count(), 0);
    let mut store = place.open(Access::Read).unwrap();
    let end = Entry::End(Outcome::Committed);
    assert!(matches!(
        store.record(&end),
        Err(StoreError::ReadOnly { .. })
    ));
    assert!(matches!(store.reopen(), Err(StoreError::ReadOnly { .. })));
}

/// What was begun is told by whoever comes next, however much of the state it reads.
#[test]
fn what_was_begun_is_pending() {
    let place = Place::new();
    place.apply(&some_requests());
    let request = attach("two", "db");
    place.begin(&request);
    let plan = place.read().unwrap().pending().cloned().unwrap();
    assert!(matches!(&plan.change, Change::EndpointAdded(e) if e.id.container.as_str() == "db"));
    let mut store = Store::open_for(
        &place.roots(),
        std::slice::from_ref(&request),
        &place.options,
    )
    .unwrap();
    assert_eq!(store.state().pending(), Some(&plan));
    store.record(&Entry::End(Outcome::Committed)).unwrap();
    drop(store);
    assert_eq!(place.read().unwrap().pending(), None);
    assert_eq!(place.read().unwrap().endpoints().count(), 3);
}

#[test]
fn the_files_do_not_grow_with_what_was_done() {
    let place = Place::new();
    place.apply(&[create("one")]);
    let bytes = || fs::metadata(place.run("state")).unwrap().len();
    let round = || place.apply(&[attach("one", "db"), detach("one", "db")]);
    round();
    let before = bytes();
    (0..40).for_each(|_| round());
    assert!(bytes() <= 2 * before, "{before}, then {}", bytes());
    place.apply(&[attach("one", "db")]);
    // The search for addresses went on all the while.
    let state = place.read().unwrap();
    let endpoint = state.endpoints().next().unwrap();
    assert!(
        endpoint.addresses[0].to_string().ends_with(".43/24"),
        "{endpoint:?}"
    );
}

#[test]
fn a_reboot_leaves_networks_and_takes_endpoints() {
    let mut place = Place::new();
    place.apply(&some_requests());
    place.reboot();
    for access in [Access::Read, Access::Write, Access::Read] {
        let (state, _) = place.open(access).unwrap().into_parts();
        assert_eq!(names(&state), ["one", "two"]);
        assert!(!state.is_up(&name("one")) && state.endpoints().next().is_none());
    }
    place.apply(&[attach("one", "db")]);
    assert!(place.read().unwrap().is_up(&name("one")));
    // What the tmpfs forgot altogether is a reboot as well.
    fs::remove_dir_all(place.dir.path().join("run")).unwrap();
    assert!(!place.read().unwrap().is_up(&name("one")));
}

#[test]
fn definitions_follow_the_run_state_and_restored_ones_are_taken_up() {
    let place = Place::new();
    place.apply(&[create("one"), create("two")]);
    let kept = fs::read(place.definition("two")).unwrap();
    fs::remove_file(place.definition("one")).unwrap();
    drop(place.open(Access::Write).unwrap());
    assert_eq!(definitions(&place), ["one", "two"]);
    place.apply(&[Request::RemoveNetwork(name("two"))]);
    fs::write(place.definition("two"), &kept).unwrap();
    fs::write(place.dir.path().join("lib/network/two.json.tmp7"), b"{").unwrap();
    fs::write(place.dir.path().join("lib/network/.new"), b"{").unwrap();
    assert_eq!(names(&place.read().unwrap()), ["one", "two"]);
    place.apply(&[attach("two", "db")]);
    assert_eq!(place.read().unwrap().endpoints().count(), 1);
}

/// Whatever the next command is, though it replaces no file there.
#[test]
fn what_a_dead_process_did_not_complete_goes_with_the_next_one() {
    let place = Place::new();
    place.apply(&[create("one")]);
    let (definition, run) = (place.dir.path().join("lib/network/.new"), place.run(".new"));
    for path in [&definition, &run] {
        fs::write(path, b"{").unwrap();
    }
    drop(place.open(Access::Read).unwrap());
    assert!(
        definition.exists() && run.exists(),
        "who reads changes nothing"
    );
    drop(place.open(Access::Write).unwrap());
    assert!(!definition.exists() && !run.exists());
}

/// On a file system of its own, in a mount namespace of its own.
#[test]
fn a_full_disk_leaves_everything_as_it_was() {
    if !rustix::process::geteuid().is_root() {
        eprintln!("skipped: only root can mount a small file system");
        return;
    }
    std::thread::spawn(on_a_full_disk).join().unwrap();
}

fn on_a_full_disk() {
    use nix::mount::{MsFlags, mount};
    nix::sched::unshare(nix::sched::CloneFlags::CLONE_NEWNS).unwrap();
    let (none, private) = (None::<&str>, MsFlags::MS_REC | MsFlags::MS_PRIVATE);
    mount(none, "/", none, private, none).unwrap();
    let place = Place::new();
    let run = place.dir.path().join("run");
    fs::create_dir(&run).unwrap();
    let small = Some("size=4m,mode=700");
    mount(none, &run, Some("tmpfs"), MsFlags::empty(), small).unwrap();
    place.apply(&[create("one"), attach("one", "web"), attach("one", "db")]);
    let before = place.read().unwrap();
    let filler = run.join("filler");
    fs::write(&filler, vec![0; 4 << 20]).unwrap_err();
    for _ in 0..3 {
        let mut store = place.open(Access::Write).unwrap();
        let request = attach("one", "more");
        let mut plan = store.state().plan(&Facts::default(), &request).unwrap();
        // More than what is there of the file has room for.
        plan.ops = vec![plan.ops; 8].concat();
        let begin = Entry::Begin(plan.into());
        let error = store.record(&begin).unwrap_err().to_string();
        assert!(error.contains("make room"), "{error}");
        assert!(matches!(
            store.record(&begin),
            Err(StoreError::ReadOnly { .. })
        ));
        drop(store);
        assert_eq!(place.read().unwrap(), before);
    }
    // What makes room elsewhere needs none here.
    place.apply(&[detach("one", "db"), detach("one", "web")]);
    assert_eq!(place.read().unwrap().endpoints().count(), 0);
    fs::remove_file(filler).unwrap();
    place.apply(&[attach("one", "db")]);
    nix::mount::umount(&run).unwrap();
}
