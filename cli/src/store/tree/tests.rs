//! A tree beside a map that does the same; killed at every write; damaged.

use std::cell::Cell;
use std::collections::BTreeMap;
use std::io::ErrorKind;
use std::os::unix::fs::FileExt;

use proptest::prelude::*;

use super::page::PAGE_BYTES;
use super::*;

thread_local! {
    /// So many writes until this thread is killed, as far as its files are concerned.
    static WRITES_LEFT: Cell<Option<usize>> = const { Cell::new(None) };
}

/// Whether a write is made: none is behind the one that a test is killed at.
pub(super) fn may_write() -> std::io::Result<()> {
    WRITES_LEFT.with(|left| match left.get() {
        Some(0) => Err(ErrorKind::Interrupted.into()),
        Some(writes) => {
            left.set(Some(writes - 1));
            Ok(())
        }
        None => Ok(()),
    })
}

type Map = BTreeMap<Vec<u8>, Vec<u8>>;

fn all(tree: &mut Tree) -> Map {
    let mut all = Map::new();
    let mut order = Vec::new();
    tree.scan(b"", |key, value| {
        order.push(key.to_vec());
        all.insert(key.to_vec(), value);
        Ok::<_, Error>(ControlFlow::Continue(()))
    })
    .unwrap();
    assert!(order.is_sorted() && order.len() == all.len());
    all
}

fn salvaged(tree: &mut Tree) -> Map {
    let mut all = Map::new();
    tree.salvage(|key, value| assert_eq!(all.insert(key.to_vec(), value), None));
    all
}

/// How many pages nothing leads to, and nobody can use.
fn lost(tree: &mut Tree) -> usize {
    fn below(tree: &mut Tree, number: Number, above: Option<u8>) -> usize {
        let (page, level) = tree.node(number, above).unwrap();
        let cells: Vec<_> = page.cells().map(|cell| cell.value.to_vec()).collect();
        let parts = |value: Vec<u8>| match (level, &value[..]) {
            (0, [LONG, ..]) => {
                let mut parts = 0;
                tree.long(number, &value, |_, _, _| parts += 1).unwrap();
                parts
            }
            (0, _) => 0,
            _ => below(
                tree,
                u32::from_le_bytes(value.try_into().unwrap()),
                Some(level),
            ),
        };
        1 + cells.into_iter().map(parts).sum::<usize>()
    }
    let root = tree.pages.root();
    let used = below(tree, root, None);
    let free = (0..tree.pages.count())
        .filter(|number| tree.pages.get(*number).unwrap().kind() == Kind::Free)
        .count();
    tree.pages.count() as usize - used - free
}

#[derive(Clone, Debug)]
enum Step {
    Insert(Vec<u8>, usize),
    Remove(Vec<u8>),
    RemoveFrom(Vec<u8>, usize),
    Commit,
}

fn key() -> impl Strategy<Value = Vec<u8>> {
    // Few and long ones, so that nodes are full soon, and three levels deep.
    (
        0_u16..400,
        prop::sample::select(vec![3_usize, 40, 300, KEY_BYTES_MAX]),
    )
        .prop_map(|(number, bytes)| {
            let mut key = format!("{number:03}").into_bytes();
            key.resize(bytes, b'k');
            key
        })
}

fn step() -> impl Strategy<Value = Step> {
    let bytes = prop_oneof![4 => 0_usize..100, 1 => 900_usize..1100, 1 => 3000_usize..13_000];
    prop_oneof![
        10 => (key(), bytes).prop_map(|(key, bytes)| Step::Insert(key, bytes)),
        5 => key().prop_map(Step::Remove),
        1 => (key(), 1_usize..80).prop_map(|(key, most)| Step::RemoveFrom(key, most)),
        1 => Just(Step::Commit),
    ]
}

/// A value that is told from all others of its length.
fn value(turn: usize, bytes: usize) -> Vec<u8> {
    (0..bytes).map(|at| (turn * 7 + at / 100) as u8).collect()
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(64))]

    #[test]
    fn it_is_a_sorted_map(steps in prop::collection::vec(step(), 1..400)) {
        let file = tempfile::tempfile().unwrap();
        let (mut tree, mut map) = (Tree::begin(file.try_clone().unwrap()), Map::new());
        for (turn, step) in steps.into_iter().enumerate() {
            match step {
                Step::Insert(key, bytes) => {
                    tree.insert(&key, &value(turn, bytes)).unwrap();
                    map.insert(key, value(turn, bytes));
                }
                Step::Remove(key) => {
                    prop_assert_eq!(tree.remove(&key).unwrap(), map.remove(&key).is_some());
                }
                Step::RemoveFrom(key, most) => {
                    let keys: Vec<_> = map.range(key..).take(most).map(|(key, _)| key.clone()).collect();
                    for key in keys {
                        prop_assert!(tree.remove(&key).unwrap());
                        map.remove(&key);
                    }
                }
                Step::Commit => {
                    tree.set_note(turn as u64);
                    tree.commit().unwrap();
                    tree = Tree::open(file.try_clone().unwrap(), turn % 2 == 0).unwrap();
                    prop_assert_eq!(tree.note(), turn as u64);
                    if turn % 2 == 1 {
                        tree = Tree::open(file.try_clone().unwrap(), true).unwrap();
                    }
                }
            }
        }
        prop_assert_eq!(&all(&mut tree), &map);
        prop_assert_eq!(&salvaged(&mut tree), &map);
        prop_assert_eq!(lost(&mut tree), 0);
        for (key, value) in &map {
            let found = tree.get(key).unwrap();
            prop_assert_eq!(found.as_ref(), Some(value));
            let mut first = None;
            tree.scan(key, |key, _| {
                first = Some(key.to_vec());
                Ok::<_, Error>(ControlFlow::Break(()))
            }).unwrap();
            prop_assert_eq!(first.as_ref(), Some(key));
        }
        prop_assert_eq!(tree.get(b"nobody").unwrap(), None);
        // What is taken away leaves no more than what is left needs.
        for key in map.keys() {
            prop_assert!(tree.remove(key).unwrap());
        }
        prop_assert_eq!(all(&mut tree), Map::new());
        prop_assert_eq!(lost(&mut tree), 0);
        let used = (0..tree.pages.count()).filter(|n| tree.pages.get(*n).unwrap().kind() != Kind::Free);
        prop_assert_eq!(used.count(), 1);
    }
}

fn some(file: &File) -> (Tree, Map) {
    let (mut tree, mut map) = (Tree::begin(file.try_clone().unwrap()), Map::new());
    for number in 0..300_u32 {
        let (key, value) = (
            format!("{:05}", number * 7919 % 10_007).into_bytes(),
            value(1, 60),
        );
        tree.insert(&key, &value).unwrap();
        map.insert(key, value);
    }
    let long = value(2, 9000);
    tree.insert(b"long", &long).unwrap();
    map.insert(b"long".to_vec(), long);
    tree.commit().unwrap();
    (tree, map)
}

/// What is changed of `some`, in a way that splits nodes, joins nodes and uses what was free.
fn change(tree: &mut Tree, map: &mut Map) -> Result<()> {
    let gone: Vec<_> = map.keys().skip(20).take(90).cloned().collect();
    for key in gone {
        tree.remove(&key)?;
        map.remove(&key);
    }
    for (number, bytes) in [
        (1, 700),
        (2, 800),
        (3, 900),
        (4, 7000),
        (5, 1500),
        (6, 1000),
    ] {
        let (key, value) = (format!("new {number}").into_bytes(), value(3, bytes));
        tree.insert(&key, &value)?;
        map.insert(key, value);
    }
    tree.set_note(7);
    Ok(())
}

#[test]
fn whoever_is_killed_leaves_all_of_a_change_or_nothing() {
    let mut outcomes = Vec::new();
    for writes in 0.. {
        let file = tempfile::tempfile().unwrap();
        let (mut tree, before) = some(&file);
        let mut after = before.clone();
        change(&mut tree, &mut after).unwrap();
        WRITES_LEFT.with(|left| left.set(Some(writes)));
        let done = tree.commit();
        WRITES_LEFT.with(|left| left.set(None));
        drop(tree);
        // Whoever reads sees what whoever writes makes of it, and changes nothing.
        let bytes = || {
            let mut bytes = vec![0; file.metadata().unwrap().len() as usize];
            file.read_exact_at(&mut bytes, 0).unwrap();
            bytes
        };
        let found = bytes();
        let mut reader = Tree::open(file.try_clone().unwrap(), false).unwrap();
        let seen = (reader.note(), all(&mut reader));
        assert_eq!(bytes(), found, "killed at write {writes}");
        assert_eq!(salvaged(&mut reader), seen.1);
        let mut writer = Tree::open(file.try_clone().unwrap(), true).unwrap();
        assert_eq!((writer.note(), all(&mut writer)), seen);
        assert_eq!(lost(&mut writer), 0);
        let new = seen == (7, after.clone());
        assert!(new || seen == (0, before), "killed at write {writes}");
        // And goes on from there.
        let mut again = seen.1;
        change(&mut writer, &mut again).unwrap();
        writer.commit().unwrap();
        assert_eq!(all(&mut writer), again);
        outcomes.push(new);
        if done.is_ok() {
            break;
        }
        assert!(done.is_err());
    }
    // The log, then the head, which makes it so, then pages and the head again.
    assert!(outcomes.len() > 8 && outcomes.is_sorted(), "{outcomes:?}");
    assert_eq!(
        outcomes.iter().filter(|new| !**new).count(),
        2,
        "{outcomes:?}"
    );
}

#[test]
fn every_flip_and_every_cut_is_found_by_whoever_needs_it() {
    let file = tempfile::tempfile().unwrap();
    let (tree, map) = some(&file);
    let end = (2 + tree.pages.count() as usize) * PAGE_BYTES;
    let read = |file: &File| -> Result<Map> {
        let mut tree = Tree::open(file.try_clone()?, false)?;
        let mut all = Map::new();
        tree.scan(b"", |key, value| {
            all.insert(key.to_vec(), value);
            Ok::<_, Error>(ControlFlow::Continue(()))
        })?;
        Ok(all)
    };
    assert_eq!(read(&file).unwrap(), map);
    let mut found = 0;
    for at in (PAGE_BYTES..end).step_by(29) {
        let mut byte = [0];
        file.read_exact_at(&mut byte, at as u64).unwrap();
        file.write_all_at(&[byte[0] ^ 0x20], at as u64).unwrap();
        match read(&file) {
            Err(Error::Corrupt { offset, .. }) => {
                let page = at / PAGE_BYTES * PAGE_BYTES;
                assert_eq!(offset, page as u64, "byte {at}");
                found += 1;
            }
            Err(error) => panic!("byte {at}: {error}"),
            Ok(read) => assert!(at < 2 * PAGE_BYTES && read == map, "byte {at}"),
        }
        // The others are there.
        if at > 2 * PAGE_BYTES && at % 8 == 0 {
            let mut tree = Tree::open(file.try_clone().unwrap(), false).unwrap();
            let left = salvaged(&mut tree);
            assert!(
                left.len() + 100 > map.len() && left.iter().all(|(k, v)| map.get(k) == Some(v))
            );
        }
        file.write_all_at(&byte, at as u64).unwrap();
    }
    assert!(found > 1000, "{found}");
    for cut in [0, 4096, 5000, end - 4096, end - 1] {
        file.set_len(cut as u64).unwrap();
        assert!(read(&file).is_err(), "cut at {cut}");
        some(&file);
    }
}

/// Pages that somebody made up, with checksums: nothing is followed for ever, or into nowhere.
#[test]
fn pages_that_were_made_up_are_refused() {
    let node = |level: u8, cells: &[(&[u8], &[u8])]| {
        let mut page = Page::new(Kind::Node(level));
        for (key, value) in cells {
            page.splice(page.used()..page.used(), &cell(key, value));
        }
        page
    };
    let to = |number: Number| number.to_le_bytes();
    let long = |length: u32, page: Number| {
        [&[LONG], &length.to_le_bytes()[..], &page.to_le_bytes()].concat()
    };
    let mut ring = Page::new(Kind::Long);
    ring.splice(0..0, &[&to(1)[..], b"part"].concat());
    let leaf = node(0, &[(b"a", &[INLINE])]);
    let made_up: [(&str, Vec<Page>); 8] = [
        ("leads to itself", vec![node(1, &[(b"", &to(0))])]),
        ("leads nowhere", vec![node(1, &[(b"", &to(9))])]),
        (
            "leads to what is none",
            vec![node(1, &[(b"", b"x")]), leaf.clone()],
        ),
        (
            "twice the same",
            vec![node(1, &[(b"", &to(1)), (b"b", &to(1))]), leaf.clone()],
        ),
        (
            "nothing below",
            vec![node(1, &[(b"", &to(1))]), node(0, &[])],
        ),
        (
            "a ring of parts",
            vec![node(0, &[(b"a", &long(u32::MAX, 1))]), ring],
        ),
        ("no part", vec![node(0, &[(b"a", &long(4, 1))]), leaf]),
        ("told wrong", vec![node(0, &[(b"a", b"\x07")])]),
    ];
    for (what, pages) in made_up {
        let file = tempfile::tempfile().unwrap();
        let mut tree = Tree::begin(file.try_clone().unwrap());
        for number in 1..pages.len() {
            assert_eq!(
                tree.pages.add(Page::new(Kind::Free)).unwrap() as usize,
                number
            );
        }
        for (number, page) in pages.into_iter().enumerate() {
            tree.pages.put(number as Number, page);
        }
        tree.commit().unwrap();
        let mut tree = Tree::open(file, true).unwrap();
        let mut seen = 0;
        let scanned = tree.scan(b"", |_, value| {
            seen += 1 + value.len();
            Ok::<_, Error>(ControlFlow::Continue(()))
        });
        assert!(
            matches!(scanned, Err(Error::Corrupt { .. })),
            "{what}: {seen}"
        );
        tree.salvage(|_, _| ());
        for key in [&b"a"[..], b"b"] {
            // Whatever comes of it.
            tree.get(key).ok();
            tree.insert(key, b"value").ok();
            tree.remove(key).ok();
        }
    }
}
