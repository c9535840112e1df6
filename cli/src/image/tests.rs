use std::{fs, os::unix::fs::PermissionsExt, path::PathBuf};

use tar::{Builder, Header};
use tempfile::TempDir;

use super::*;

fn root() -> (TempDir, Images) {
    let root = TempDir::new().unwrap();
    fs::create_dir_all(root.path().join("image")).unwrap();
    let images = Images::new(root.path());
    (root, images)
}

/// The archive of a root filesystem with one file.
fn archive(content: &str) -> Vec<u8> {
    let mut builder = Builder::new(Vec::new());
    let mut header = Header::new_gnu();
    header.set_size(content.len() as u64);
    header.set_mode(0o644);
    header.set_uid(0);
    header.set_gid(0);
    builder
        .append_data(&mut header, "motd", content.as_bytes())
        .unwrap();
    builder.into_inner().unwrap()
}

fn name(text: &str) -> ImageName {
    text.parse().unwrap()
}

fn place(images: &Images, content: &str) {
    fs::write(images.archive(&name("box")).unwrap(), archive(content)).unwrap();
}

fn motd(images: &Images) -> String {
    let held = images.image(&name("box")).unwrap();
    let dirs = images.layer_dirs(&held.image.layers, None);
    fs::read_to_string(dirs[0].join("motd")).unwrap()
}

fn layers(root: &TempDir) -> usize {
    let all = fs::read_dir(root.path().join("image/layers/sha256")).unwrap();
    all.count()
}

fn nobody() -> anyhow::Result<Users> {
    Ok(Users::default())
}

/// A container on the image as it is now.
fn user(images: &Images) -> User {
    let Image { id, layers, .. } = images.image(&name("box")).unwrap().image.clone();
    User {
        container: "web".to_owned(),
        image: name("box"),
        id: Some(id),
        layers,
        legacy: None,
    }
}

fn users(user: &User) -> anyhow::Result<Users> {
    let user = User {
        container: user.container.clone(),
        image: user.image.clone(),
        layers: user.layers.clone(),
        legacy: user.legacy.clone(),
        ..*user
    };
    Ok(Users {
        containers: vec![user],
        unknown: false,
    })
}

#[test]
fn a_changed_archive_is_another_image() {
    let (root, images) = root();
    place(&images, "one");
    assert_eq!(motd(&images), "one");
    let old = user(&images);
    place(&images, "two!");
    assert_eq!(motd(&images), "two!");
    images.prune(|| users(&old)).unwrap();
    assert_eq!(layers(&root), 2, "the old one is in use");
    images
        .prune(|| {
            Ok(Users {
                unknown: true,
                ..Users::default()
            })
        })
        .unwrap();
    assert_eq!(layers(&root), 2, "nobody knows");
    images.prune(nobody).unwrap();
    assert_eq!(layers(&root), 1);
    fs::remove_file(images.archive(&name("box")).unwrap()).unwrap();
    assert!(!images.has(&name("box")).unwrap());
    assert!(images.image(&name("box")).is_err());
    images.prune(nobody).unwrap();
    assert_eq!(layers(&root), 0);
    assert_eq!(
        fs::read_dir(root.path().join("image/manifests"))
            .unwrap()
            .count(),
        0
    );
}

#[test]
fn a_bad_archive_leaves_no_layer() {
    let (root, images) = root();
    let path = images.archive(&name("box")).unwrap();
    let whole = archive("one");
    for bad in [
        &b"no tar"[..],
        b"",
        &[0; 1024],
        &[0x1f, 0x8b, 9, 9, 9],
        &whole[..600],
        &whole[..1024],
    ] {
        fs::write(&path, bad).unwrap();
        let said = format!("{:#}", images.image(&name("box")).unwrap_err());
        assert!(said.contains("box.tar"), "{said}");
        assert_eq!(layers(&root), 0);
    }
}

#[test]
fn an_image_that_is_missing_says_where_it_belongs() {
    let (_root, images) = root();
    let said = images.image(&name("nosuch")).unwrap_err().to_string();
    assert!(said.contains("image/nosuch.tar"), "{said}");
    let said = images.image(&name("a/b:1")).unwrap_err().to_string();
    assert!(said.contains("image import"), "{said}");
}

#[test]
fn what_others_can_write_is_no_image_and_keeps_nobody_else() {
    let (_root, images) = root();
    place(&images, "one");
    let other = images.archive(&name("other")).unwrap();
    fs::write(&other, archive("x")).unwrap();
    fs::set_permissions(&other, fs::Permissions::from_mode(0o666)).unwrap();
    assert!(images.image(&name("other")).is_err());
    assert_eq!(motd(&images), "one");
    let damaged = images.list().unwrap().damaged;
    assert_eq!(damaged.len(), 1);
    assert!(
        damaged[0].to_string().contains("other.tar has mode"),
        "{}",
        damaged[0]
    );
    images.prune(nobody).unwrap();
}

#[test]
fn a_layer_that_is_gone_is_missed() {
    let (_root, images) = root();
    place(&images, "one");
    let held = images.image(&name("box")).unwrap();
    let dirs = images.layer_dirs(&held.image.layers, None);
    drop(held);
    fs::remove_dir_all(&dirs[0]).unwrap();
    let said = images.image(&name("box")).unwrap_err().to_string();
    assert!(said.contains("is gone"), "{said}");
}

#[test]
fn what_a_killed_process_left_is_swept() {
    let (root, images) = root();
    place(&images, "one");
    motd(&images);
    let image = root.path().join("image");
    let going = format!("layers/sha256/{}.going", Digest::of(b"x").hex());
    let left = [going.as_str(), "staging/partial/etc", "staging/x"].map(|path| image.join(path));
    for path in &left {
        fs::create_dir_all(path).unwrap();
    }
    fs::write(image.join("staging/archive"), "half").unwrap();
    images.prune(nobody).unwrap();
    assert_eq!(
        fs::read_dir(image.join("staging")).unwrap().count(),
        1,
        "the lock"
    );
    assert_eq!(layers(&root), 1);
}

/// As they were before images had several layers.
#[test]
fn layers_of_earlier_versions_last_as_long_as_their_containers() {
    let (root, images) = root();
    let legacy = LegacyLayer {
        image: name("old"),
        version: "0".repeat(16),
    };
    legacy.check().unwrap();
    let dirs = images.layer_dirs(&[], Some(&legacy));
    let place: PathBuf = root.path().join("image/layers/old/0000000000000000");
    assert_eq!(dirs, [place.as_path()]);
    fs::create_dir_all(&place).unwrap();
    let on_it = User {
        container: "web".to_owned(),
        image: name("old"),
        id: None,
        layers: Vec::new(),
        legacy: Some(legacy),
    };
    images.prune(|| users(&on_it)).unwrap();
    assert!(place.exists());
    images.prune(nobody).unwrap();
    assert!(!root.path().join("image/layers/old").exists());
}
