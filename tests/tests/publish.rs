//! A published port works the same from everywhere it should, and from nowhere else: every way to
//! publish one × every caller × every address called × both families × TCP and UDP.
#![allow(
    clippy::print_stderr,
    clippy::unwrap_used,
    reason = "what helps a test is a test"
)]

use std::io::{self, ErrorKind};
use std::net::{IpAddr, SocketAddr};
use std::path::Path;

use mydocker_tests::{Answer, Dual, Question, Server, Site, Transport};

/// What `web` listens on, and what none of its bindings leads to.
const INNER: u16 = 80;
const UNPUBLISHED: u16 = 81;

/// A way to publish `INNER`: a port of the host, at one of its addresses or at all of them.
#[derive(Clone, Copy, Debug)]
struct Binding(u16, Option<IpAddr>);

const BINDINGS: [Binding; 5] = [
    Binding(8080, None),
    Binding(8081, Some(Site::HOST[0])),
    Binding(8082, Some(Site::HOST[1])),
    Binding(8083, Some(Site::LOOPBACK[0])),
    Binding(8084, Some(Site::LOOPBACK[1])),
];

impl Binding {
    fn covers(self, called: IpAddr) -> bool {
        self.1.is_none_or(|address| address == called)
    }

    /// As values of `-p`.
    fn words(self) -> [String; 2] {
        let word = match self {
            Self(port, None) => format!("{port}:{INNER}"),
            // The brackets of an IPv6 address are those of a socket's.
            Self(port, Some(address)) => format!("{}:{INNER}", SocketAddr::new(address, port)),
        };
        [format!("{word}/udp"), word]
    }
}

#[derive(Clone, Copy, Debug, Eq, PartialEq)]
enum Caller {
    /// Another machine.
    Lan,
    Host,
    /// The container itself.
    Web,
    /// A container on the same network.
    Peer,
    /// A container on another network.
    Other,
}

const CALLERS: [Caller; 5] = [
    Caller::Lan,
    Caller::Host,
    Caller::Web,
    Caller::Peer,
    Caller::Other,
];

/// The addresses of the host; the last one is the caller's own.
const CALLED: [Dual; 4] = [Site::HOST, Site::FRONT, Site::BACK, Site::LOOPBACK];

impl Caller {
    fn space(self, site: &Site) -> &Path {
        match self {
            Self::Lan => &site.lan,
            Self::Host => site.host.ns(),
            Self::Web => &site.web,
            Self::Peer => &site.peer,
            Self::Other => &site.other,
        }
    }

    /// The address that `web` sees when this one calls `called`, if `binding` lets it.
    ///
    /// Who calls is who is seen, unless the answer could not come back: on `web`'s own network it
    /// would not pass through the host, and to a loopback address not leave `web`. Then it is the
    /// host, on that network.
    fn seen(self, family: usize, called: IpAddr, binding: Binding) -> Option<IpAddr> {
        let loopback = called.is_loopback();
        let served = loopback <= (self == Self::Host);
        (served && binding.covers(called)).then(|| match self {
            Self::Lan => Site::LAN[family],
            Self::Other => Site::OTHER[family],
            Self::Host if loopback => Site::FRONT[family],
            // The kernel's choice for a packet to an address of one's own is that address.
            Self::Host => called,
            Self::Web | Self::Peer => Site::FRONT[family],
        })
    }
}

/// An answer by `web`, or none. An address of the host where nothing listens refuses at once; over
/// UDP the kernel may have said so too often in a second, and keep silent.
fn is_as_expected(
    answer: &io::Result<Answer>,
    expected: Option<IpAddr>,
    transport: Transport,
) -> bool {
    match (answer, expected) {
        (Ok(answer), Some(source)) => answer.server == "web" && answer.source == source,
        (Err(error), None) => {
            transport == Transport::Udp || error.kind() == ErrorKind::ConnectionRefused
        }
        (Ok(_), None) | (Err(_), Some(_)) => false,
    }
}

struct Cell<'a> {
    caller: Caller,
    question: Question<'a>,
    expected: Option<IpAddr>,
}

/// All of the table.
fn cells(site: &Site) -> Vec<Cell<'_>> {
    let mut cells = Vec::new();
    for caller in CALLERS {
        for binding in BINDINGS {
            for (family, called) in CALLED.iter().flat_map(|dual| dual.iter().enumerate()) {
                for transport in Transport::ALL {
                    cells.push(Cell {
                        caller,
                        question: Question {
                            from: caller.space(site),
                            transport,
                            to: SocketAddr::new(*called, binding.0),
                        },
                        expected: caller.seen(family, *called, binding),
                    });
                }
            }
        }
    }
    cells
}

/// Asks them all, and says which answers are not as they should be.
#[track_caller]
fn check(cells: &[Cell]) {
    let questions: Vec<_> = cells.iter().map(|cell| cell.question).collect();
    let answers = Question::ask_all(&questions);
    let wrong: Vec<_> = cells
        .iter()
        .zip(answers)
        .filter(|(cell, answer)| !is_as_expected(answer, cell.expected, cell.question.transport))
        .map(|(cell, answer)| {
            let Question { transport, to, .. } = cell.question;
            let (caller, expected) = (cell.caller, cell.expected);
            format!("{caller:?} {transport:?} {to}: {answer:?}, not {expected:?}")
        })
        .collect();
    assert!(wrong.is_empty(), "{wrong:#?}");
}

/// A site on which `web` publishes by every binding.
fn published(options: &str) -> Option<(Site, Server)> {
    let words = BINDINGS.map(Binding::words);
    let publish: Vec<_> = words
        .iter()
        .flatten()
        .map(|word| format!("-p {word}"))
        .collect();
    let site = Site::new(options, &publish.join(" "))?;
    let server = Server::start("web", &site.web, &[INNER, UNPUBLISHED]).unwrap();
    Some((site, server))
}

/// Whether frames between containers pass the rules for packets, too. A kernel without br_netfilter
/// has no such setting, and is as one that has it turned off.
fn filter_bridges(site: &Site, on: bool) {
    let value = u8::from(on);
    site.host.sh(&format!(
        "for family in ip ip6; do
             setting=/proc/sys/net/bridge/bridge-nf-call-${{family}}tables
             [ ! -e $setting ] || echo {value} > $setting
         done"
    ));
}

#[test]
fn a_published_port_works_from_everywhere() {
    let Some((site, _server)) = published("") else {
        return;
    };
    for filtered in [false, true] {
        filter_bridges(&site, filtered);
        check(&cells(&site));
    }
}

/// What is published is everybody's, also theirs who may not reach each other: moby#53713.
#[test]
fn a_published_port_works_where_containers_do_not_reach_each_other() {
    let Some((site, _server)) = published("--opt icc=false") else {
        return;
    };
    for filtered in [false, true] {
        filter_bridges(&site, filtered);
        check(&cells(&site));
    }
}

/// By the container's own address, past the host's: its network alone, and the host.
#[test]
fn a_containers_own_address_is_its_networks_business() {
    for (options, icc) in [("", true), ("--opt icc=false", false)] {
        let Some((site, _server)) = published(options) else {
            return;
        };
        let seen = |caller, family: usize| match caller {
            Caller::Host => Some(Site::FRONT[family]),
            Caller::Web => Some(Site::WEB[family]),
            Caller::Peer => icc.then_some(Site::PEER[family]),
            // Both have a route to it, through the host.
            Caller::Lan | Caller::Other => None,
        };
        let mut questions = Vec::new();
        let mut expected = Vec::new();
        for caller in CALLERS {
            for (family, address) in Site::WEB.into_iter().enumerate() {
                for port in [INNER, UNPUBLISHED] {
                    for transport in Transport::ALL {
                        questions.push(Question {
                            from: caller.space(&site),
                            transport,
                            to: SocketAddr::new(address, port),
                        });
                        expected.push((caller, port, transport, seen(caller, family)));
                    }
                }
            }
        }
        for filtered in [false, true] {
            filter_bridges(&site, filtered);
            let answers = Question::ask_all(&questions).into_iter().zip(&expected);
            let got: Vec<_> = answers
                .map(|(answer, &(caller, port, transport, _))| {
                    let source = answer.ok().map(|answer| answer.source);
                    (caller, port, transport, source)
                })
                .collect();
            assert_eq!(got, expected, "{options}, bridges filtered: {filtered}");
        }
    }
}

#[test]
fn an_internal_network_publishes_nothing() {
    let Some(site) = Site::new("--internal", "") else {
        return;
    };
    let extra = site.host.sandbox("extra");
    let netns = extra.display();
    for word in BINDINGS.iter().flat_map(|binding| binding.words()) {
        for line in [
            format!("network connect front extra -p {word} --netns {netns}"),
            format!("network port add front web {word}"),
        ] {
            let said = site.host.fails(1, &line);
            assert!(said.contains("internal"), "{line}: {said}");
        }
    }
}
