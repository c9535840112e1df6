//! Locks, permissions, links.

use super::*;

#[test]
fn who_waits_too_long_learns_for_whom() {
    let place = Place::new();
    let store = place.open(Access::Write).unwrap();
    let holder = format!("locked by pid {} (", std::process::id());
    for access in [Access::Read, Access::Write] {
        let error = place.open(access).unwrap_err().to_string();
        assert!(
            error.contains(&holder) && error.contains("0.05 s"),
            "{error}"
        );
    }
    drop(store);
    let readers = [
        place.open(Access::Read).unwrap(),
        place.open(Access::Read).unwrap(),
    ];
    let error = place.open(Access::Write).unwrap_err().to_string();
    assert!(error.contains(&holder), "{error}");
    drop(readers);
    place.open(Access::Write).unwrap();
}

#[test]
fn what_others_can_write_is_refused() {
    let place = Place::new();
    place.apply(&[create("one")]);
    let lib = place.dir.path().join("lib");
    let paths = [
        lib.clone(),
        lib.join("network"),
        place.dir.path().join("run"),
        place.dir.path().join("run/network"),
        place.run("state"),
        place.run("plan"),
        place.run("lock"),
    ];
    for path in paths {
        let mode = fs::metadata(&path).unwrap().permissions().mode() & 0o7777;
        assert_eq!(mode & 0o077, 0, "{} is {mode:o}", path.display());
        for bad in [0o020, 0o002] {
            fs::set_permissions(&path, fs::Permissions::from_mode(mode | bad)).unwrap();
            for access in [Access::Read, Access::Write] {
                let error = place.open(access).unwrap_err().to_string();
                let named = format!("{} has mode {:04o}", path.display(), mode | bad);
                assert!(error.contains(&named) && error.contains("chmod"), "{error}");
            }
        }
        fs::set_permissions(&path, fs::Permissions::from_mode(mode)).unwrap();
    }
    place.read().unwrap();
}

#[test]
fn what_another_user_owns_is_refused() {
    let place = Place::new();
    place.apply(&[create("one")]);
    if !rustix::process::geteuid().is_root() {
        eprintln!("skipped: only root can give a file away");
        return;
    }
    std::os::unix::fs::chown(place.run("state"), Some(4711), None).unwrap();
    let error = place.read().unwrap_err().to_string();
    assert!(error.contains("owned by uid 4711"), "{error}");
}

#[test]
fn links_and_pipes_are_not_followed() {
    let place = Place::new();
    place.apply(&[create("one")]);
    for file in ["state", "plan", "lock"] {
        let path = place.run(file);
        let aside = place.dir.path().join(file);
        fs::rename(&path, &aside).unwrap();
        symlink(&aside, &path).unwrap();
        let error = place.read().unwrap_err();
        assert!(matches!(error, StoreError::Kind { .. }), "{error}");
        fs::remove_file(&path).unwrap();
        rustix::fs::mknodat(
            rustix::fs::CWD,
            &path,
            rustix::fs::FileType::Fifo,
            rustix::fs::Mode::RUSR,
            0,
        )
        .unwrap();
        let error = place.open(Access::Read).unwrap_err();
        assert!(matches!(error, StoreError::Kind { .. }), "{error}");
        fs::remove_file(&path).unwrap();
        fs::rename(&aside, &path).unwrap();
    }
    let network = place.dir.path().join("run/network");
    fs::rename(&network, place.dir.path().join("aside")).unwrap();
    symlink(place.dir.path().join("aside"), &network).unwrap();
    let error = place.open(Access::Write).unwrap_err();
    assert!(matches!(error, StoreError::Kind { .. }), "{error}");
}
