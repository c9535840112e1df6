//! Images: archives of every kind, what they say of containers, who stands on them, and what nobody may
//! make of them.
#![expect(clippy::unwrap_used, reason = "what helps a test is a test")]

use std::fs::{self, File};
use std::os::unix::fs::MetadataExt;
use std::path::{Path, PathBuf};
use std::process::Output;

use mydocker_tests::{Host, eventually};
use serde_json::{Value, json};
use tar::EntryType::{self, Char, Directory, Regular, Symlink};

use archives::*;

mod archives;

/// A host with the root filesystem of busybox, as an archive outside its roots.
fn host() -> Option<(Host, Vec<u8>)> {
    let host = Host::new()?;
    host.with_image();
    let archive = host.dir().join("lib/image/busybox.tar");
    let base = fs::read(&archive).unwrap();
    fs::remove_file(archive).unwrap();
    Some((host, base))
}

/// Writes an archive where it can be imported, and says where.
fn put(host: &Host, name: &str, bytes: &[u8]) -> String {
    let path = host.dir().join(name);
    fs::write(&path, bytes).unwrap();
    path.display().to_string()
}

fn import(host: &Host, bytes: &[u8], name: &str) -> String {
    let path = put(host, "archive", bytes);
    host.ok(&format!("image import {path} {name}"))
}

/// Runs a shell's words in a new container of the image.
fn sh(host: &Host, image: &str, script: &str) -> String {
    let mut command = host.mydocker_command(&format!("run --rm {image} sh -c"));
    said(&command.arg(script).output().unwrap())
}

#[track_caller]
fn said(output: &Output) -> String {
    assert!(output.status.success(), "{output:?}");
    String::from_utf8(output.stdout.clone()).unwrap()
}

fn inspect(host: &Host, image: &str) -> Value {
    let all: Value = serde_json::from_str(&host.ok(&format!("image inspect {image}"))).unwrap();
    all[0].clone()
}

/// The directories of layers, and what is being made.
fn layers(host: &Host) -> Vec<PathBuf> {
    let images = host.dir().join("lib/image");
    let mut all = Vec::new();
    for place in ["layers/sha256", "staging"] {
        let entries = fs::read_dir(images.join(place)).into_iter().flatten();
        all.extend(entries.map(|entry| entry.unwrap().path()));
    }
    all.retain(|path| !path.ends_with("lock"));
    all
}

#[test]
fn a_saved_image_runs_as_it_says() {
    let Some((host, base)) = host() else { return };
    let top = archive(&[
        ("srv/", Directory, ""),
        ("srv/page", Regular, "hello"),
        ("etc/.wh.group", Regular, ""),
        ("www/", Directory, ""),
        ("www/.wh..wh..opq", Regular, ""),
        ("www/new", Regular, ""),
    ]);
    let low = archive(&[
        ("www/", Directory, ""),
        ("www/old", Regular, ""),
        ("dev/sda", Char, ""),
    ]);
    let config = json!({
        "Env": ["GREETING=hi", "WHO=image"],
        "Entrypoint": ["/bin/sh", "-c"],
        "Cmd": ["echo $GREETING $WHO $PWD; ls /www; ls /etc"],
        "WorkingDir": "/srv",
        "ExposedPorts": { "80/tcp": {} },
        "Labels": { "made-by": "hand" },
    });
    let saved = docker_save(&[(&["box:latest", "ghcr.io/x/y:1"], config, &[base, low, top])]);
    assert_eq!(import(&host, &saved, ""), "box\nghcr.io/x/y:1\n");

    let text = host.ok("run --rm box:latest");
    let (first, rest) = text.split_once('\n').unwrap();
    assert_eq!(first, "hi image /srv");
    assert!(rest.contains("new") && !rest.contains("old"), "{rest}");
    assert!(rest.contains("passwd") && !rest.contains("group"), "{rest}");
    let mut asked = host.mydocker_command("run --rm -e WHO=me -w / docker.io/library/box");
    assert_eq!(
        said(&asked.arg("echo $GREETING $WHO $PWD").output().unwrap()),
        "hi me /\n"
    );
    assert_eq!(
        sh(&host, "ghcr.io/x/y:1", "true"),
        "",
        "the entry point takes `sh` for its script"
    );

    let image = inspect(&host, "box");
    assert_eq!(image["config"]["ExposedPorts"], json!({ "80/tcp": {} }));
    assert_eq!(image["config"]["Labels"]["made-by"], "hand");
    assert_eq!(image["layers"].as_array().unwrap().len(), 3);
    assert_eq!(image["id"], inspect(&host, "ghcr.io/x/y:1")["id"]);
    let id = image["id"].as_str().unwrap();
    assert_eq!(inspect(&host, id)["id"], image["id"]);
    assert_eq!(inspect(&host, &id[7..13])["id"], image["id"]);
    let table = host.ok("image ls");
    let mut lines = table.lines();
    let header: Vec<_> = lines.next().unwrap().split_whitespace().collect();
    assert_eq!(header, ["NAME", "ID", "CREATED", "SIZE"]);
    assert_eq!(
        lines
            .map(|line| line.split_whitespace().next().unwrap())
            .collect::<Vec<_>>(),
        ["box", "ghcr.io/x/y:1"]
    );
    assert_eq!(host.ok("image ls -q").lines().next(), Some(&id[7..19]));
    let all: Value = serde_json::from_str(&host.ok("image ls --format json")).unwrap();
    assert_eq!(
        (&all[0]["name"], &all[0]["bytes"]),
        (&json!("box"), &image["bytes"])
    );
}

/// Layers compressed in all ways, indexes in indexes, other platforms; from a pipe, itself compressed.
#[test]
fn an_oci_layout_runs() {
    let Some((host, base)) = host() else { return };
    let plain = archive(&[("one", Regular, "1")]);
    let zipped = archive(&[("two", Regular, "2")]);
    let layers = [
        (gzip(&base), base),
        (zstd(&plain), plain),
        (zipped.clone(), zipped),
    ];
    let config = json!({ "Cmd": ["cat", "/one", "/two"] });
    let layout = oci_layout("docker.io/library/oci:3", &config, &layers);
    for packed in [layout.clone(), gzip(&layout), zstd(&layout)] {
        let path = put(&host, "layout", &packed);
        let mut piped = host.mydocker_command("image import - piped");
        piped.stdin(File::open(&path).unwrap());
        assert_eq!(said(&piped.output().unwrap()), "piped\n");
        assert_eq!(host.ok(&format!("image import {path}")), "oci:3\n");
        assert_eq!(host.ok("run --rm oci:3"), "12");
    }
    assert_eq!(inspect(&host, "piped")["id"], inspect(&host, "oci:3")["id"]);
    let mut piped = host.mydocker_command("image import -");
    let root = put(&host, "root", &archive(&[("x", Regular, "")]));
    let refused = piped.stdin(File::open(root).unwrap()).output().unwrap();
    assert_eq!(refused.status.code(), Some(1));
    assert!(
        String::from_utf8_lossy(&refused.stderr).contains("import - NAME"),
        "{refused:?}"
    );
}

#[test]
fn a_root_filesystem_is_called_like_its_file() {
    let Some((host, base)) = host() else { return };
    let odd = archive(&[("etc/", Directory, ""), ("etc/.wh.kept", Regular, "kept")]);
    for (file, bytes, name) in [
        ("plain.tar", base.clone(), "plain"),
        ("zipped-1.0.tar.gz", gzip(&base), "zipped-1.0"),
        ("z.tzst", zstd(&base), "z"),
        ("odd", odd, "odd"),
    ] {
        let path = put(&host, file, &bytes);
        assert_eq!(
            host.ok(&format!("image import {path}")),
            format!("{name}\n")
        );
    }
    assert_eq!(sh(&host, "zipped-1.0", "cat /etc/group"), "root:x:0:\n");
    // The same root filesystem thrice is one layer.
    assert_eq!(layers(&host).len(), 2);
    let dir = inspect(&host, "odd")["layers"][0]["dir"].as_str().unwrap()[7..].to_owned();
    let kept = host
        .dir()
        .join("lib/image/layers/sha256")
        .join(dir)
        .join("etc/.wh.kept");
    assert_eq!(
        fs::read_to_string(kept).unwrap(),
        "kept",
        "no layer, no whiteout"
    );
    let path = put(&host, "..tar", &base);
    let refused = host.fails(1, &format!("image import {path}"));
    assert!(refused.contains("FILE NAME"), "{refused}");
}

/// Directories without an entry of their own stay as they are below, and one layer on two others is two.
#[test]
fn a_layer_does_not_close_what_is_open_below() {
    let Some((host, base)) = host() else { return };
    let top = archive(&[
        ("tmp/x", Regular, ""),
        ("root/.wh.y", Regular, ""),
        ("tmp/deep/z", Regular, ""),
    ]);
    let other = archive(&[("tmp/", Directory, "")]);
    let stack = [base.clone(), top.clone()];
    let other_stack = [base, other, top];
    let nothing = json!({});
    let saved = docker_save(&[
        (&["open"], nothing.clone(), &stack),
        (&["other"], nothing, &other_stack),
    ]);
    assert_eq!(import(&host, &saved, ""), "open\nother\n");
    let modes = |image: &str| {
        sh(
            &host,
            image,
            "stat -c %a /tmp /tmp/deep /root | tr '\\n' ' '",
        )
    };
    assert_eq!(modes("open"), "1777 755 755 ");
    assert_eq!(modes("other"), "755 755 755 ");
    assert_eq!(layers(&host).len(), 4);
}

#[test]
fn layers_are_unpacked_once_and_go_with_the_last_who_has_them() {
    let Some((host, base)) = host() else { return };
    let top = |text: &str| archive(&[("motd", Regular, text)]);
    let (one, two) = ([base.clone(), top("one")], [base, top("two"), top("two")]);
    let cat = json!({ "Cmd": ["cat", "/motd"] });
    let saved = docker_save(&[(&["one"], cat.clone(), &one), (&["two"], cat, &two)]);
    import(&host, &saved, "");
    assert_eq!(layers(&host).len(), 3);
    let before = fs::metadata(&layers(&host)[0]).unwrap();
    import(&host, &saved, "");
    assert_eq!(layers(&host).len(), 3);
    assert_eq!(fs::metadata(&layers(&host)[0]).unwrap().ino(), before.ino());

    host.ok("run -d --name web two sleep 1000");
    assert_eq!(host.ok("run --rm one"), "one");
    let refused = host.fails(1, "image rm two");
    assert!(refused.contains("in use by container web"), "{refused}");
    assert_eq!(host.ok("image rm one"), "one\n");
    assert_eq!(layers(&host).len(), 2);
    assert_eq!(host.ok("image rm -f two"), "two\n");
    assert_eq!(layers(&host).len(), 2, "the container stands on them");
    host.fails(125, "run --rm two");
    host.ok("rm -f web");
    assert_eq!(layers(&host), Vec::<PathBuf>::new());
    let refused = host.fails(1, "image rm two");
    assert!(refused.contains("no image `two`"), "{refused}");
}

#[test]
fn an_id_with_several_names_loses_one_by_one() {
    let Some((host, _)) = host() else { return };
    let saved = docker_save(&[(
        &["a:1", "b:2"],
        json!({}),
        &[archive(&[("x", Regular, "")])],
    )]);
    import(&host, &saved, "");
    let id = host.ok("image ls -q").lines().next().unwrap().to_owned();
    let refused = host.fails(1, &format!("image rm {id}"));
    assert!(refused.contains("a:1, b:2"), "{refused}");
    assert_eq!(host.ok("image rm a:1"), "a:1\n");
    assert_eq!(host.ok(&format!("image rm {id}")), "b:2\n");
    import(&host, &saved, "");
    assert_eq!(host.ok(&format!("image rm -f {id}")), "a:1\nb:2\n");
    assert_eq!(layers(&host), Vec::<PathBuf>::new());
}

#[test]
fn an_archive_placed_by_hand_is_an_image() {
    let Some((host, base)) = host() else { return };
    let place = host.dir().join("lib/image/box.tar");
    let motd = |text: &str| {
        docker_save(&[(
            &["unheard:of"],
            json!({ "Cmd": ["cat", "/motd"] }),
            &[base.clone(), archive(&[("motd", Regular, text)])],
        )])
    };
    fs::write(&place, motd("one")).unwrap();
    let listed: Value = serde_json::from_str(&host.ok("image ls --format json")).unwrap();
    assert_eq!(
        (&listed[0]["name"], &listed[0]["id"]),
        (&json!("box"), &Value::Null)
    );
    assert_eq!(host.ok("run --rm box"), "one");
    fs::write(&place, motd("two")).unwrap();
    assert_eq!(host.ok("run --rm box"), "two");
    assert_eq!(layers(&host).len(), 2, "the old one is nobody's");
    let path = put(&host, "other", &base);
    let refused = host.fails(1, &format!("image import {path} box"));
    assert!(refused.contains("box.tar"), "{refused}");
    // One that comes where a name is taken is not guessed about.
    host.ok(&format!("image import {path} other"));
    fs::copy(&path, host.dir().join("lib/image/other.tar")).unwrap();
    let refused = host.fails(125, "run --rm other true");
    assert!(
        refused.contains("other.tar") && refused.contains("image rm other"),
        "{refused}"
    );
    host.ok("image rm other");
    host.ok("run --rm other true");
    host.ok("image rm box other");
    assert!(!place.exists());
    assert_eq!(layers(&host), Vec::<PathBuf>::new());
    assert_eq!(host.ok("image ls").lines().count(), 1);
}

/// Refused with a word about what is wrong, and nothing of it is left.
#[test]
fn hostile_and_damaged_archives_are_refused() {
    let Some((host, _)) = host() else { return };
    let victim = put(&host, "victim", b"whole");
    let good = archive(&[("x", Regular, "in the layer")]);
    let saved =
        |layer: &[u8]| docker_save(&[(&["bad"], json!({}), &[good.clone(), layer.to_vec()])]);
    let layer = |entries: &[(&str, EntryType, &str)]| saved(&archive(entries));
    let manifest = |text: &str| archive(&[("manifest.json", Regular, text)]);
    let whole = saved(&good);
    let cut = |bytes: usize| whole[..bytes].to_vec();
    let swap = |from: &str, to: &str| {
        assert_eq!(from.len(), to.len());
        replaced(&whole, from, to)
    };
    let oci = oci_layout("bad:1", &json!({}), &[(gzip(&good), good.clone())]);
    let huge = raw("manifest.json", Regular, 1 << 40, "");
    let many: Vec<Vec<u8>> = (0..129)
        .map(|n: i32| archive(&[("n", Regular, &n.to_string())]))
        .collect();
    let first = format!("sha256:{}", sha256(&good));
    let other = format!("sha256:{}", "0".repeat(64));
    let hostile: Vec<(Vec<u8>, &str)> = vec![
        (layer(&[("../victim", Regular, "broken")]), "points outside"),
        (
            layer(&[("a/../../victim", Regular, "broken")]),
            "points outside",
        ),
        (
            layer(&[
                ("up", Symlink, "../../../../.."),
                ("up/victim", Regular, "broken"),
            ]),
            "entry `up/victim`",
        ),
        (
            layer(&[
                ("up", Symlink, &host.dir().display().to_string()),
                ("up/victim", Regular, "broken"),
            ]),
            "entry `up/victim`",
        ),
        (layer(&[("hard", EntryType::Link, &victim)]), "entry `hard`"),
        (
            layer(&[("hard", EntryType::Link, "../../../../../victim")]),
            "entry `hard`",
        ),
        (layer(&[("../.wh.victim", Regular, "")]), "points outside"),
        (
            layer(&[
                ("up", Symlink, "../../../../.."),
                ("up/.wh.victim", Regular, ""),
            ]),
            "can't hide",
        ),
        (layer(&[(".wh...", Regular, "")]), "hides no name"),
        (saved(&raw("huge", Regular, 1 << 60, "")), "are free"),
        (
            saved(b"no tar at all, and longer than nothing"),
            "no tar archive",
        ),
        (
            manifest("no JSON"),
            "`manifest.json` is not as it should be",
        ),
        (
            manifest(r#"[{"Config":"../../etc/passwd","Layers":[]}]"#),
            "`../../etc/passwd` is not in the archive",
        ),
        (
            manifest(r#"[{"Config":"manifest.json","Layers":[]}]"#),
            "not the configuration of an image",
        ),
        (manifest("[]"), "no image in it"),
        (docker_save(&[(&["bad"], json!({}), &many)]), "129 layers"),
        (
            docker_save(&[(&["UP per"], json!({}), std::slice::from_ref(&good))]),
            "`UP per` is not a valid image name",
        ),
        (
            docker_save(&[(
                &["bad"],
                json!({ "Cmd": ["\0"] }),
                std::slice::from_ref(&good),
            )]),
            "NUL byte",
        ),
        (
            with_layer_path(&good, "/etc/passwd"),
            "`/etc/passwd` is not in the archive",
        ),
        (
            with_layer_path(&good, "../victim"),
            "`../victim` is not in the archive",
        ),
        (with_layer_path(&good, "loop"), "a link to links"),
        (twice(&whole), "is there twice"),
        (
            swap("in the layer", "in the lair!"),
            "its content should be",
        ),
        (swap(&first, &other), "configuration should be"),
        (replaced(&oci, "\"size\":", "\"sise\":"), "should be sha256"),
        (cut(700), "cut short"),
        (cut(whole.len() / 2), "cut short"),
        (huge, "cut short"),
        (gzip(&whole)[..400].to_vec(), ""),
        (zstd(&whole)[..100].to_vec(), ""),
        (b"\xfd7zXZ\0 and so on".to_vec(), "xz"),
        (b"hello".to_vec(), "no tar archive"),
        (Vec::new(), "holds no files"),
    ];
    for (index, (bytes, word)) in hostile.iter().enumerate() {
        let path = put(&host, "hostile.tar", bytes);
        let refused = host.fails(1, &format!("image import {path}"));
        assert!(refused.contains(word), "{index}: no `{word}`: {refused}");
        assert!(refused.contains("hostile.tar"), "{index}: {refused}");
        assert_eq!(fs::read(&victim).unwrap(), b"whole", "{index}");
        assert_eq!(layers(&host), Vec::<PathBuf>::new(), "{index}: {refused}");
        assert_eq!(host.ok("image ls").lines().count(), 1, "{index}");
    }
    for (line, word) in [
        ("image import /no/such", "/no/such"),
        ("image import /tmp", "directory"),
        ("run no/such:image", "no image `no/such:image`"),
        ("image inspect nosuch", "no image `nosuch`"),
        ("image rm nosuch", "no image `nosuch`"),
        ("commit nosuch x", "no container `nosuch`"),
    ] {
        let output = host.mydocker(line);
        let said = String::from_utf8_lossy(&output.stderr).into_owned();
        assert!(
            !output.status.success() && said.contains(word),
            "{line}: {said}"
        );
    }
    host.fails(2, "commit web a@sha256:00");
}

/// As many layers as Docker allows, more than their names fit into a mount's options.
#[test]
fn an_image_of_128_layers_runs() {
    let Some((host, base)) = host() else { return };
    let mut all = vec![base];
    all.extend((1..128).map(|number: i32| archive(&[("top", Regular, &number.to_string())])));
    let saved = docker_save(&[(&["deep"], json!({ "Cmd": ["cat", "/top"] }), &all)]);
    import(&host, &saved, "");
    assert_eq!(host.ok("run --name web deep"), "127");
    let refused = host.fails(1, "commit web deeper");
    assert!(refused.contains("129 layers"), "{refused}");
}

/// What says that a file has the same owner, mode, size, links, attributes and so on.
const LOOK: &str = "cd /w; find . | sort | while read f; do stat -c '%n %a %u:%g %h %s %F' $f; done; \
    readlink link; cat hard1 big | md5sum; ls /etc; ls /www; ls /low 2>&1";

#[test]
fn what_a_container_wrote_survives_a_commit() {
    let Some((host, base)) = host() else { return };
    let low = archive(&[
        ("low/", Directory, ""),
        ("low/a", Regular, "a"),
        ("gone/", Directory, ""),
        ("gone/b", Regular, "b"),
        ("www/", Directory, ""),
        ("www/old", Regular, ""),
    ]);
    let config = json!({ "Env": ["A=1"], "WorkingDir": "/srv", "ExposedPorts": { "80/tcp": {} }, "Entrypoint": ["sh", "-c"] });
    import(&host, &docker_save(&[(&["box"], config, &[base, low])]), "");
    let write = "mkdir -p /w/dir; cd /w; echo x > hard1; ln hard1 hard2; ln -s /no/where link; \
        chown 1000:2000000000 hard1; chmod 4711 hard1; chmod 1777 dir; dd if=/dev/zero of=big bs=1000 count=300; \
        mkfifo pipe; echo n > 'with space'; d=$(printf '%0120d' 0); mkdir -p $d/$d; echo deep > $d/$d/file; \
        rm /etc/group /low/a; rm -r /gone; rm -r /www; mkdir /www; echo > /www/new; rm pipe; mkfifo dir/pipe";
    // Detached, so that it runs while it is committed.
    let mut run = host.mydocker_command("run -d -e B=2 --name web box");
    said(
        &run.arg(format!("{write}; touch /done; exec sleep 1000"))
            .output()
            .unwrap(),
    );
    let upper = || {
        let id = host.ok("ps -aq");
        host.dir()
            .join("lib/overlay2")
            .join(id.trim())
            .join("upper")
    };
    eventually("it has written", || upper().join("done").exists());
    set_attribute(&upper().join("w/big"), "user.colour", "dark\nblue");
    set_attribute(&upper().join("w/dir"), "user.colour", "red");

    let output = host.mydocker("commit web snap:1");
    let id = said(&output).trim().to_owned();
    let warned = String::from_utf8_lossy(&output.stderr).into_owned();
    assert!(warned.contains("1 device nodes, pipes"), "{warned}");
    let image = inspect(&host, "snap:1");
    assert_eq!(image["id"], id);
    let config = &image["config"];
    assert_eq!(config["Env"], json!(["A=1", "B=2"]));
    assert_eq!(config["Entrypoint"], json!(["sh", "-c"]));
    assert!(
        config["Cmd"][0]
            .as_str()
            .unwrap()
            .starts_with("mkdir -p /w/dir"),
        "{config}"
    );
    assert_eq!(config["WorkingDir"], "/srv");
    assert_eq!(config["ExposedPorts"], json!({ "80/tcp": {} }));
    let look = |image: &str| {
        said(
            &host
                .mydocker_command(&format!("run --rm {image}"))
                .arg(LOOK)
                .output()
                .unwrap(),
        )
    };
    let seen = look("snap:1");
    for line in [
        "./hard1 4711 1000:2000000000 2 2 regular file",
        "./hard2 4711 1000:2000000000 2 2 regular file",
        "./dir 1777 0:0 2 ",
        "./big 644 0:0 1 300000 regular file",
        "/no/where",
        "passwd",
        "new",
    ] {
        assert!(seen.contains(line), "no `{line}`: {seen}");
    }
    for gone in ["group", "old", "\na\n", "pipe"] {
        assert!(!seen.contains(gone), "`{gone}`: {seen}");
    }
    let root = host.ok("run --rm snap:1 ls$IFS/;echo$IFS$B");
    assert!(!root.contains("gone") && root.contains('2'), "{root}");
    let dir = image["layers"][2]["dir"].as_str().unwrap()[7..].to_owned();
    let kept = host
        .dir()
        .join("lib/image/layers/sha256")
        .join(dir)
        .join("w");
    let colour = |path: &str| attribute(&kept.join(path), "user.colour");
    assert_eq!(colour("big").as_deref(), Some("dark\nblue"));
    assert_eq!(colour("dir").as_deref(), Some("red"));

    // A commit of a commit is the same, and the name moves. (What is the same in the same second is the
    // same image.)
    host.ok("exec web touch /later");
    host.ok("stop -t 0 web");
    let again = host.ok("commit web snap:1").trim().to_owned();
    assert_ne!(again, id);
    assert_eq!(look("snap:1"), seen);
    assert!(!host.ok("image ls -q").contains(&id[7..19]));
    host.ok("run --name next snap:1 true");
    host.ok("commit next snap:2");
    assert_eq!(look("snap:2"), seen);
    assert_eq!(
        inspect(&host, "snap:2")["layers"].as_array().unwrap().len(),
        4
    );
    let refused = host.fails(1, "image rm snap:1");
    assert!(refused.contains("container next"), "{refused}");
    host.ok("rm web next");
    host.ok("image rm box snap:1 snap:2");
    assert_eq!(layers(&host), Vec::<PathBuf>::new());
}

#[test]
fn a_damaged_image_is_named_and_the_rest_is_usable() {
    let Some((host, base)) = host() else { return };
    import(&host, &base, "one");
    import(&host, &archive(&[("x", Regular, "")]), "two:2");
    let manifest = host.dir().join("lib/image/manifests/two%3A2.json");
    fs::write(&manifest, "{").unwrap();
    host.ok("run --rm one true");
    let output = host.mydocker("image ls");
    let warned = String::from_utf8_lossy(&output.stderr).into_owned();
    assert!(
        warned.contains("two%3A2.json is damaged") && warned.contains("image rm --force two:2"),
        "{warned}"
    );
    assert!(said(&output).contains("one"));
    let refused = host.fails(1, "image rm two:2");
    assert!(refused.contains("damaged"), "{refused}");
    host.ok("image rm one");
    assert_eq!(layers(&host).len(), 2, "nobody knows which are the other's");
    host.ok("image rm --force two:2");
    assert_eq!(layers(&host), Vec::<PathBuf>::new());
}

/// Imports, removals and containers at once: each is done or refused, and layers are whole or gone.
#[test]
fn many_at_once() {
    let Some((host, base)) = host() else { return };
    fs::write(host.dir().join("lib/image/byhand.tar"), gzip(&base)).unwrap();
    let top = archive(&[("motd", Regular, "hi")]);
    let saved = docker_save(&[(&["box"], json!({ "Cmd": ["cat", "/motd"] }), &[base, top])]);
    let path = put(&host, "saved.tar", &saved);
    std::thread::scope(|scope| {
        for number in 0..3 {
            let (host, path) = (&host, &path);
            scope.spawn(move || {
                for _ in 0..3 {
                    let name = format!("box:{number}");
                    host.ok(&format!("image import {path} {name}"));
                    assert_eq!(host.ok(&format!("run --rm {name}")), "hi");
                    host.ok("run --rm byhand true");
                    host.ok(&format!("image rm {name}"));
                }
            });
        }
    });
    assert_eq!(layers(&host).len(), 1, "that of the archive");
    host.ok("image rm byhand");
    assert_eq!(layers(&host), Vec::<PathBuf>::new());
}

/// A `kill -9` anywhere leaves the image there or not, and what comes next leaves nothing of it.
#[test]
fn killed_anywhere() {
    let Some((host, base)) = host() else { return };
    import(&host, &base, "box");
    host.ok("run --name web box touch /x");
    let low = archive(&[("low", Regular, "")]);
    let top = archive(&[("a/b", Regular, ""), (".wh.low", Regular, "")]);
    let saved = docker_save(&[(&["small"], json!({}), &[low, top])]);
    let path = put(&host, "small.tar.gz", &gzip(&saved));
    for line in [
        format!("image import {path}"),
        "commit web small".to_owned(),
    ] {
        for number in 0.. {
            let attempt =
                mydocker_tests::tracer::kill_before(&host.mydocker_command(&line), 1, number);
            let there = host.ok("image ls").contains("small");
            if there {
                assert_eq!(host.ok("image inspect small").matches("\"id\"").count(), 1);
                host.ok("image rm small");
            } else {
                // Removing anything sweeps.
                host.ok(&format!("image import {path} other"));
                host.ok("image rm other");
            }
            assert_eq!(layers(&host).len(), 1, "{line} {number}: {attempt:?}");
            if attempt.met.is_none() {
                assert_eq!((attempt.code, there), (Some(0), true), "{line}");
                assert!(number > 10, "{number}");
                break;
            }
        }
    }
    let removal = |number| {
        mydocker_tests::tracer::kill_before(&host.mydocker_command("image rm small"), 1, number)
    };
    for number in 0.. {
        import(&host, &saved, "");
        let attempt = removal(number);
        let gone = !host.ok("image ls").contains("small");
        host.ok(&format!("image import {path} other"));
        host.ok("image rm other");
        if gone {
            assert_eq!(layers(&host).len(), 1, "{number}: {attempt:?}");
        } else {
            host.ok("image inspect small");
        }
        if attempt.met.is_none() {
            assert!(gone && number > 10, "{number}");
            break;
        }
    }
}

fn set_attribute(path: &Path, name: &str, value: &str) {
    let status = std::process::Command::new("python3")
        .args([
            "-c",
            "import os,sys; os.setxattr(sys.argv[1], sys.argv[2], sys.argv[3].encode())",
        ])
        .arg(path)
        .args([name, value])
        .status();
    assert!(status.unwrap().success());
}

fn attribute(path: &Path, name: &str) -> Option<String> {
    let output = std::process::Command::new("python3")
        .args([
            "-c",
            "import os,sys; print(os.getxattr(sys.argv[1], sys.argv[2]).decode(), end='')",
        ])
        .arg(path)
        .arg(name)
        .output()
        .unwrap();
    output
        .status
        .success()
        .then(|| String::from_utf8(output.stdout).unwrap())
}
