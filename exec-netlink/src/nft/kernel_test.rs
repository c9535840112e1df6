//! Encode, commit, dump, decode: against the kernel, with `nft` as the witness.

use std::net::{IpAddr, SocketAddr};
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};
use std::thread;
use std::time::Duration;

use mydocker_core::TableFamily::{Bridge, Inet};
use mydocker_core::{
    Dnat, Element, Footprint, Guard, LinkName, Mac, Masquerade, Object, Pinhole, Protocol, Ruleset,
    Set, TableFamily, Value, Zone, objects_of,
};
use nix::libc;
use proptest::prelude::*;
use proptest::test_runner::{Config, TestRunner};

use super::testing::{
    INSTANCE, guard, isolated, isolated_port, masquerade, nft_script, pinhole, publish, refused,
    run, zone, zone6,
};
use super::{Batch, BatchError, Condition, NftSocket, Seen};

const TABLE: &str = "mydocker";

fn ruleset() -> Ruleset {
    Ruleset::of(INSTANCE)
}

fn condition(socket: &mut NftSocket, family: TableFamily) -> Condition {
    let tables = ruleset().tables;
    let table = tables.iter().find(|table| table.family == family).unwrap();
    socket.look(table).unwrap().condition(table)
}

fn both(socket: &mut NftSocket) -> [Condition; 2] {
    [Inet, Bridge].map(|family| condition(socket, family))
}

fn create(batch: &mut Batch) {
    for table in &ruleset().tables {
        batch.create_table(table);
    }
}

fn created() -> NftSocket {
    let mut socket = NftSocket::open().unwrap();
    let mut batch = Batch::new(TABLE);
    create(&mut batch);
    socket.commit(&batch).unwrap();
    socket
}

/// Does to both tables what becomes of those that are there.
fn upkeep(
    socket: &mut NftSocket,
    change: fn(&mut Batch, &mydocker_core::Table, &super::dump::Contents),
) {
    let mut batch = Batch::new(TABLE);
    for table in &ruleset().tables {
        let Seen::Ours(contents) = socket.look(table).unwrap() else {
            panic!("no table of ours");
        };
        change(&mut batch, table, &contents);
    }
    socket.commit(&batch).unwrap();
}

fn add(socket: &mut NftSocket, elements: &[Element]) -> Result<(), BatchError> {
    let mut batch = Batch::new(TABLE);
    elements.iter().for_each(|element| batch.add(element));
    socket.commit(&batch)
}

fn delete(socket: &mut NftSocket, elements: &[Element]) -> Result<(), BatchError> {
    let mut batch = Batch::new(TABLE);
    elements.iter().for_each(|element| batch.delete(element));
    socket.commit(&batch)
}

fn name(text: &str) -> LinkName {
    text.parse().unwrap()
}

/// TCP to a port of the host.
fn tcp(port: u16, to: &str) -> Element {
    publish(None, Protocol::Tcp, port, to)[0]
}

fn one_of_each() -> Vec<Element> {
    let (tcp, udp, sctp) = (Protocol::Tcp, Protocol::Udp, Protocol::Sctp);
    let mut all = [
        zone("testbridge", false, true),
        zone6("sixth", "fd00::1"),
        zone("md-0123456789ab", true, false),
        masquerade("10.0.0.0/24", "testbridge"),
        masquerade("10.0.1.128/25", "testbridge"),
        masquerade("10.0.2.1/32", "testbridge"),
        masquerade("fd00::/64", "testbridge"),
        publish(None, tcp, 8080, "10.0.0.2:80"),
        publish(None, udp, 8080, "10.0.0.2:53"),
        publish(Some("127.0.0.1"), sctp, 8080, "10.0.0.2:9"),
        publish(None, tcp, 8080, "[fd00::2]:80"),
        publish(Some("2001:db8::1"), tcp, 8080, "[fd00::2]:80"),
        isolated_port("mdv0"),
        pinhole(tcp, "10.0.0.2:80"),
        pinhole(udp, "[fd00::2]:53"),
        guard("mdv0", "02:6d:0a:00:00:02", &["10.0.0.2", "fd00::2"]),
    ]
    .concat();
    all.sort();
    all
}

/// What the kernel has, sorted; nothing if some of it is none of ours.
fn dumped(socket: &mut NftSocket) -> Option<Vec<Element>> {
    let all = socket.all_elements(&ruleset()).unwrap();
    let mut all: Vec<Element> = all.into_iter().collect::<Option<_>>()?;
    all.sort();
    Some(all)
}

fn set(name: &str) -> Set {
    let tables = ruleset().tables;
    let mut sets = tables.iter().flat_map(|table| &table.sets);
    *sets.find(|set| set.name == name).unwrap()
}

#[test]
fn nft_reads_the_ruleset_back() {
    let text = ruleset().to_string();
    let (ours, theirs) = (
        std::sync::Mutex::new(String::new()),
        std::sync::Mutex::new(None),
    );
    isolated(|| {
        let mut socket = created();
        assert_eq!(both(&mut socket), [Condition::Intact; 2]);
        add(&mut socket, &one_of_each()).unwrap();
        *ours.lock().unwrap() = run("nft list ruleset");
    });
    isolated(|| {
        // The same table from nft itself, by the text that we print, comment and all: we take it
        // for ours down to the last expression.
        nft_script(&text);
        let mut socket = NftSocket::open().unwrap();
        assert_eq!(both(&mut socket), [Condition::Intact; 2]);
        add(&mut socket, &one_of_each()).unwrap();
        *theirs.lock().unwrap() = Some(run("nft list ruleset"));
    });
    let Some(theirs) = theirs.into_inner().unwrap() else {
        return;
    };
    // Chains are listed in the order of their creation, which is the same.
    assert_eq!(ours.into_inner().unwrap(), theirs);
}

#[test]
fn any_edit_of_the_ruleset_is_noticed() {
    isolated(|| {
        let mut socket = NftSocket::open().unwrap();
        assert_eq!(condition(&mut socket, Inet), Condition::Absent);
        run("nft add table ip mydocker");
        assert_eq!(condition(&mut socket, Inet), Condition::Absent);
        run("nft delete table ip mydocker");
        for foreign in ["", " { comment \"mydockers ruleset\" ; }"] {
            run(&format!("nft add table inet mydocker{foreign}"));
            assert_eq!(condition(&mut socket, Inet), Condition::Foreign);
            let mut batch = Batch::new(TABLE);
            create(&mut batch);
            let error = socket.commit(&batch).unwrap_err();
            let BatchError::Refused {
                op: Some(0),
                errno: libc::EEXIST,
                ..
            } = error
            else {
                panic!("{error:?}");
            };
            run("nft delete table inet mydocker");
        }
        run("nft add table inet mydocker { comment \"mydocker ruleset 0\" ; }");
        assert_eq!(condition(&mut socket, Inet), Condition::Damaged);
        run("nft delete table inet mydocker");
        for edit in [
            "add rule inet mydocker forward accept",
            "insert rule inet mydocker publish accept",
            "flush chain inet mydocker raw",
            "flush table inet mydocker",
            "add chain inet mydocker forward { policy drop ; }",
            "add table inet mydocker { flags dormant ; }",
            "replace rule inet mydocker prerouting handle HANDLE fib daddr type local jump raw2",
            "replace rule inet mydocker prerouting handle HANDLE fib saddr type local jump publish",
            "replace rule inet mydocker prerouting handle HANDLE fib daddr type local",
            "flush chain inet mydocker forward ; delete set inet mydocker open",
            "flush chain inet mydocker forward ; delete chain inet mydocker forward",
            "flush chain inet mydocker forward ; delete set inet mydocker open ; add set inet mydocker open { type ifname . ifname ; }",
            "insert rule bridge mydocker prerouting accept",
            "flush chain bridge mydocker prerouting",
            "add chain bridge mydocker prerouting { policy drop ; }",
        ] {
            let mut socket = created();
            let chain = run("nft -a list chain inet mydocker prerouting");
            let rule = chain.lines().find(|line| line.contains("fib")).unwrap();
            let handle = rule.rsplit(' ').next().unwrap();
            if edit.contains("raw2") {
                run("nft add chain inet mydocker raw2");
                run("nft delete chain inet mydocker raw2");
                assert_eq!(condition(&mut socket, Inet), Condition::Intact);
                run("nft add chain inet mydocker raw2");
            }
            run(&format!("nft {}", edit.replace("HANDLE", handle)));
            let family = if edit.contains("bridge") {
                Bridge
            } else {
                Inet
            };
            assert_eq!(condition(&mut socket, family), Condition::Damaged, "{edit}");
            upkeep(&mut socket, Batch::renew_table);
            assert_eq!(both(&mut socket), [Condition::Intact; 2], "{edit}");
            let tables = socket.tables(Inet).unwrap();
            assert_eq!(tables.len(), 1);
            assert!(tables[0].is_ours());
            run("nft flush ruleset");
        }
    });
}

#[test]
fn what_an_administrator_put_into_our_table_stays() {
    isolated(|| {
        let mut socket = created();
        let untouched =
            [Inet, Bridge].map(|family| run(&format!("nft list table {family} mydocker")));
        nft_script(
            "table inet mydocker {
                set friends { type ipv4_addr; elements = { 192.0.2.7 } }
                chain more { tcp dport { 22, 23 } drop; }
                chain admin {
                    ip saddr @friends accept
                    ip saddr { 192.0.2.8, 192.0.2.9 } counter drop comment \"no, thanks\"
                    jump more
                }
            }",
        );
        assert_eq!(
            both(&mut socket),
            [Condition::Intact; 2],
            "guests are welcome"
        );
        let guests = || {
            [
                "chain inet mydocker admin",
                "chain inet mydocker more",
                "set inet mydocker friends",
            ]
            .map(|object| run(&format!("nft list {object}")))
        };
        let before = guests();
        add(&mut socket, &one_of_each()).unwrap();
        for edit in [
            "nft flush chain inet mydocker forward",
            "nft add chain inet mydocker forward { policy drop ; }",
            "nft delete table bridge mydocker",
            "nft add table inet mydocker { flags dormant ; }",
        ] {
            run(edit);
            if edit.contains("delete") {
                let mut batch = Batch::new(TABLE);
                batch.create_table(&ruleset().tables[1]);
                socket.commit(&batch).unwrap();
            }
            upkeep(&mut socket, Batch::renew_table);
            assert_eq!(both(&mut socket), [Condition::Intact; 2], "{edit}");
            assert_eq!(guests(), before, "{edit}");
            assert_eq!(dumped(&mut socket), Some(Vec::new()), "{edit}");
            add(&mut socket, &one_of_each()).unwrap();
        }
        // The last network goes: nothing of ours acts any more, and nothing of theirs is lost.
        upkeep(&mut socket, Batch::retire_table);
        refused("nft list table bridge mydocker");
        let left = run("nft list ruleset");
        assert!(
            !left.contains("hook") && !left.contains("\"testbridge\""),
            "{left}"
        );
        assert_eq!(guests(), before);
        // And comes again.
        let tables = ruleset().tables;
        let Seen::Ours(contents) = socket.look(&tables[0]).unwrap() else {
            panic!("no table of ours");
        };
        let mut batch = Batch::new(TABLE);
        batch.renew_table(&tables[0], &contents);
        batch.create_table(&tables[1]);
        socket.commit(&batch).unwrap();
        assert_eq!(both(&mut socket), [Condition::Intact; 2]);
        assert_eq!(guests(), before);
        // Once they have nothing there, nothing stays.
        for line in [
            "flush chain inet mydocker admin",
            "delete chain inet mydocker more",
            "delete set inet mydocker friends",
        ] {
            run(&format!("nft {line}"));
        }
        let now = [Inet, Bridge].map(|family| run(&format!("nft list table {family} mydocker")));
        let sorted = |text: &String| {
            let mut lines: Vec<_> = text.lines().map(str::to_owned).collect();
            lines.sort();
            lines
        };
        assert_eq!(now.each_ref().map(sorted), untouched.each_ref().map(sorted));
        upkeep(&mut socket, Batch::retire_table);
        assert_eq!(run("nft list ruleset"), "");
    });
}

#[test]
fn elements_come_back_as_they_went() {
    isolated(|| {
        let mut socket = created();
        let all = one_of_each();
        let wanted = objects_of(INSTANCE, all.clone());
        assert!(wanted.is_some());
        add(&mut socket, &all).unwrap();
        assert_eq!(dumped(&mut socket).as_ref(), Some(&all));
        let listed = run("nft list ruleset");
        for line in [
            "\"testbridge\" . \"testbridge\"",
            "10.0.0.0/24 . \"testbridge\"",
            "10.0.1.128/25 . \"testbridge\"",
            "elements = { fd00::/64 . \"testbridge\" }",
            "tcp . 8080 : 10.0.0.2 . 80",
            "udp . 8080 : 10.0.0.2 . 53",
            "elements = { 127.0.0.1 . sctp . 8080 : 10.0.0.2 . 9 }",
            "elements = { 2001:db8::1 . tcp . 8080 : fd00::2 . 80 }",
            "elements = { \"mdv0\" . 02:6d:0a:00:00:02 }",
            "elements = { \"mdv0\" . 02:6d:0a:00:00:02 . 10.0.0.2 }",
            "elements = { \"mdv0\" . 02:6d:0a:00:00:02 . fd00::2 }",
            "elements = { \"mdv0\" . 0xfd000000000000000000000000000002 }",
        ] {
            assert!(listed.contains(line), "{line} is not in {listed}");
        }
        // Again is refused, and elements do not make the ruleset another one.
        let again = add(&mut socket, &all).unwrap_err();
        let there = |errno| errno == libc::EEXIST;
        assert!(matches!(again, BatchError::Refused { errno, .. } if there(errno)));
        assert_eq!(condition(&mut socket, Inet), Condition::Intact);
        // A strange element is noticed.
        for stray in [
            "own { \"a\" . \"b\" }",
            "masquerade4 { 10.9.0.1-10.9.0.3 . \"x\" }",
            "publish4 { 47 . 7 : 10.0.0.2 . 80 }",
        ] {
            run(&format!("nft add element inet mydocker {stray}"));
            let seen = dumped(&mut socket);
            assert_ne!(
                seen.and_then(|seen| objects_of(INSTANCE, seen)),
                wanted,
                "{stray}"
            );
            let key = stray.split(" :").next().unwrap().trim_end_matches(" }");
            run(&format!("nft delete element inet mydocker {key} }}"));
        }
        assert_eq!(dumped(&mut socket).as_ref(), Some(&all));
        delete(&mut socket, &all).unwrap();
        assert_eq!(dumped(&mut socket), Some(Vec::new()));
        let mut batch = Batch::new(TABLE);
        all.iter().for_each(|element| batch.destroy(element));
        socket.commit(&batch).unwrap();
    });
}

#[test]
fn a_refused_batch_names_the_op_and_changes_nothing() {
    isolated(|| {
        let mut socket = created();
        let taken = tcp(80, "10.0.0.2:80");
        let clash = tcp(80, "10.0.0.3:80");
        let fine = |port| tcp(port, "10.0.0.2:80");
        add(&mut socket, std::slice::from_ref(&taken)).unwrap();
        let error = add(&mut socket, &[fine(1), fine(2), clash, fine(3), clash]).unwrap_err();
        let BatchError::Refused {
            op: Some(2),
            errno: libc::EEXIST,
            ..
        } = error
        else {
            panic!("{error:?}");
        };
        assert_eq!(dumped(&mut socket), Some(vec![taken]));
        let error = delete(&mut socket, &[taken, fine(1), fine(2)]).unwrap_err();
        let BatchError::Refused {
            op: Some(1),
            errno: libc::ENOENT,
            ..
        } = error
        else {
            panic!("{error:?}");
        };
        assert_eq!(dumped(&mut socket), Some(vec![taken]));
        assert_eq!(error.to_string(), "No such file or directory (os error 2)");
        // No table at all.
        let mut batch = Batch::new("nobody");
        batch.add(&fine(1));
        let error = socket.commit(&batch).unwrap_err();
        let BatchError::Refused {
            op: Some(0),
            errno: libc::ENOENT,
            ..
        } = error
        else {
            panic!("{error:?}");
        };
        let error = socket.elements(Inet, "nobody", set("open")).unwrap_err();
        assert_eq!(error.raw_os_error(), Some(libc::ENOENT));
        // Bytes of the wrong length.
        let mut batch = Batch::new(TABLE);
        batch.add(&fine(9));
        batch.add(&Element::new(Inet, "own", &[Value::Port(1)], &[]).unwrap());
        let error = socket.commit(&batch).unwrap_err();
        let BatchError::Refused {
            op: Some(1),
            errno: libc::EINVAL,
            ..
        } = error
        else {
            panic!("{error:?}");
        };
        socket.commit(&Batch::new(TABLE)).unwrap();
    });
}

#[test]
fn ten_thousand_elements_in_one_batch() {
    isolated(|| {
        let mut socket = created();
        let all: Vec<_> = (1..=10_000)
            .flat_map(|port| {
                [
                    publish(Some("192.0.2.1"), Protocol::Tcp, port, "10.0.0.2:80"),
                    publish(Some("2001:db8::1"), Protocol::Udp, port, "[fd00::2]:80"),
                ]
                .concat()
            })
            .collect();
        let mut sorted = all.clone();
        sorted.sort();
        add(&mut socket, &sorted).unwrap();
        assert_eq!(dumped(&mut socket).as_ref(), Some(&sorted));
        let error = delete(&mut socket, &[&sorted[..], &sorted[7..8]].concat()).unwrap_err();
        let BatchError::Refused {
            op: Some(20_000),
            errno: libc::ENOENT,
            ..
        } = error
        else {
            panic!("{error:?}");
        };
        delete(&mut socket, &sorted).unwrap();
        assert_eq!(dumped(&mut socket), Some(Vec::new()));
    });
}

#[test]
fn a_dump_is_of_one_moment() {
    isolated(|| {
        let mut socket = created();
        // Pairs come and go together; so they do in every dump.
        let pair = |i: u16| {
            [
                publish(None, Protocol::Tcp, i, "10.0.0.2:80"),
                publish(None, Protocol::Udp, i, "10.0.0.2:80"),
            ]
            .concat()
        };
        let base: Vec<_> = (1000..4000).flat_map(pair).collect();
        add(&mut socket, &base).unwrap();
        let mut writer = NftSocket::open().unwrap();
        let (done, dumps) = (AtomicBool::new(false), AtomicUsize::new(0));
        thread::scope(|scope| {
            scope.spawn(|| {
                for round in 0..20 {
                    for i in 1..10 {
                        add(&mut writer, &pair(i)).unwrap();
                        delete(&mut writer, &pair(i)).unwrap();
                    }
                    // Whoever never pauses is never seen whole.
                    for _ in 0..1000 {
                        if dumps.load(Ordering::Relaxed) > round {
                            break;
                        }
                        thread::sleep(Duration::from_millis(1));
                    }
                }
                done.store(true, Ordering::Relaxed);
            });
            while !done.load(Ordering::Relaxed) {
                match socket.elements(Inet, TABLE, set("publish4")) {
                    Ok(all) => {
                        assert!(all.len() >= base.len());
                        assert!(all.len().is_multiple_of(2), "{}", all.len());
                        dumps.fetch_add(1, Ordering::Relaxed);
                    }
                    Err(error) => assert_eq!(error.kind(), std::io::ErrorKind::Interrupted),
                }
            }
        });
        assert!(dumps.into_inner() >= 20);
    });
}

fn any_name() -> impl Strategy<Value = LinkName> {
    "[a-z0-9][a-z0-9_.-]{0,14}".prop_map(|text| name(&text))
}

fn any_mac() -> impl Strategy<Value = Mac> {
    any::<[u8; 6]>().prop_filter_map("of an interface", Mac::from_octets)
}

fn any_object() -> impl Strategy<Value = Object> {
    let instance = INSTANCE;
    let protocol = prop::sample::select(vec![Protocol::Tcp, Protocol::Udp, Protocol::Sctp]);
    let pinhole = (protocol.clone(), any::<IpAddr>(), any::<u16>());
    let dnat = (
        any::<Option<IpAddr>>(),
        protocol,
        any::<u16>(),
        any::<SocketAddr>(),
    );
    prop_oneof![
        pinhole.prop_map(move |(protocol, address, port)| {
            Object::Pinhole(Pinhole {
                instance,
                protocol,
                to: SocketAddr::new(address, port),
            })
        }),
        (any_name(), any::<[bool; 2]>(), any_name()).prop_map(move |(bridge, flags, other)| {
            let [internal, open] = flags;
            Object::Zone(Zone {
                instance,
                bridge,
                internal,
                icc: open,
                open,
                gateway6: open.then_some(std::net::Ipv6Addr::LOCALHOST),
                trusted: [other].into(),
            })
        }),
        (any_name(), any_mac(), any::<[IpAddr; 2]>()).prop_map(move |(port, mac, addresses)| {
            Object::Guard(Guard {
                instance,
                port,
                mac,
                addresses: addresses.into(),
            })
        }),
        (any::<IpAddr>(), 0_u8..=128, any_name()).prop_map(move |(address, prefix, bridge)| {
            let width = if address.is_ipv4() { 4 } else { 1 };
            let subnet = ipnet::IpNet::new(address, prefix / width).unwrap().trunc();
            Object::Masquerade(Masquerade {
                instance,
                subnet,
                bridge,
            })
        }),
        dnat.prop_filter_map("of one family", move |(at, protocol, port, to)| {
            // nf_tables has no room for scope and flow.
            let to = SocketAddr::new(to.ip(), to.port());
            let fits = at.is_none_or(|at| at.is_ipv4() == to.is_ipv4());
            fits.then_some(Object::Dnat(Dnat {
                instance,
                at,
                protocol,
                port,
                to,
            }))
        }),
    ]
}

#[test]
fn random_objects_come_back_as_they_went() {
    isolated(|| {
        let socket = std::cell::RefCell::new(created());
        let footprints = prop::collection::vec(any_object(), 1..40);
        TestRunner::new(Config {
            cases: 100,
            failure_persistence: None,
            ..Config::default()
        })
        .run(&footprints, |objects| {
            let mut socket = socket.borrow_mut();
            let mut all = Footprint::new();
            for object in objects {
                // One of each name or key; overlapping subnets of one bridge are refused.
                let of_bridge = |o: &Object| match o {
                    Object::Masquerade(masquerade) => Some(masquerade.bridge),
                    _ => None,
                };
                let clashes = |held: &Object| {
                    held.excludes(&object)
                        || of_bridge(held).is_some_and(|name| of_bridge(&object) == Some(name))
                };
                if !all.iter().any(clashes) {
                    all.insert(object);
                }
            }
            let elements: Vec<Element> = all.iter().flat_map(Object::elements).collect();
            add(&mut socket, &elements).unwrap();
            all.insert(Object::Ruleset(INSTANCE));
            let seen = dumped(&mut socket).and_then(|seen| objects_of(INSTANCE, seen));
            prop_assert_eq!(seen, Some(all));
            delete(&mut socket, &elements).unwrap();
            prop_assert_eq!(dumped(&mut socket), Some(Vec::new()));
            Ok(())
        })
        .unwrap();
    });
}
