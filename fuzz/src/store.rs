//! Files of the store.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::LazyLock;

use mydocker::store::fuzzing;
use mydocker_core::{
    AttachSpec, ContainerName, EndpointId, Entry, Executor, Facts, Instance, Netns, Network,
    NetworkSpec, Outcome, Request, Snapshot, State, Transaction, drive,
};
use mydocker_exec_dryrun::Kernel;

use crate::request::Fold;

/// Bytes as files of the store. The first one says which:
///
/// | byte | the rest |
/// |---|---|
/// | `0` | a snapshot and entries of a journal of format 2, one a line; checksums and headers are made here |
/// | `1` | length of `state` of format 2, two bytes, little-endian, then `state` and `journal` as they are |
/// | `2` | the definition of a network |
/// | `3` | a history |
/// | `4` | `state`, as it is |
/// | `5` | places in a sound `state` where bytes are others: two bytes in turn, little-endian, and one |
/// | `6` | `plan`, as it is |
/// | `7` | as `5`, and all checksums are right |
pub fn store(data: &[u8]) {
    let Some((kind, rest)) = data.split_first() else {
        return;
    };
    match kind % 8 {
        0 => records(rest),
        1 => files(rest),
        2 => definition(rest),
        3 => history(rest),
        4 => tables(rest),
        5 => flips(rest),
        6 => plan(rest),
        _ => made_up(rest),
    }
}

fn records(data: &[u8]) {
    let mut payloads = crate::lines(data);
    let snapshot = fuzzing::records(false, payloads.next());
    run(snapshot, fuzzing::records(true, payloads));
}

fn files(data: &[u8]) {
    let Some((length, rest)) = data.split_first_chunk() else {
        return;
    };
    let length = usize::from(u16::from_le_bytes(*length));
    if let Some((snapshot, journal)) = rest.split_at_checked(length) {
        run(snapshot.to_vec(), journal.to_vec());
    }
}

fn run(snapshot: Vec<u8>, journal: Vec<u8>) {
    match fuzzing::run(snapshot, journal) {
        Ok(Some(state)) => sound(&state),
        Ok(None) => {}
        Err(error) => assert!(!error.is_empty()),
    }
}

fn tables(data: &[u8]) {
    match fuzzing::read_tables(Instance::DEFAULT, data) {
        Ok(Some((state, _))) => sound(&state),
        Ok(None) => {}
        Err(error) => assert!(!error.is_empty()),
    }
}

fn flips(data: &[u8]) {
    let (state, sound) = &*SOUND;
    match fuzzing::read_tables(Instance::DEFAULT, &flipped(sound, data)) {
        Ok(Some((read, salvaged))) => {
            assert_eq!(read, *state, "all or nothing");
            assert_eq!(salvaged.as_ref(), Some(state));
        }
        // Another boot's, perhaps: the title is no secret.
        Ok(None) => {}
        Err(error) => assert!(!error.is_empty()),
    }
}

fn made_up(data: &[u8]) {
    let mut bytes = flipped(&SOUND.1, data);
    fuzzing::seal(&mut bytes);
    tables(&bytes);
}

/// A state, and the file that it is in.
static SOUND: LazyLock<(State, Vec<u8>)> = LazyLock::new(|| {
    let mut state = State::new(Instance::DEFAULT);
    let network = NetworkSpec::new("n".parse().expect("a name"));
    let create = [Request::CreateNetwork(network)];
    create.iter().for_each(|request| fold(&mut state, request));
    // As many as make more than one page of rows.
    for number in 0..20 {
        let netns = format!("/run/netns/c{number}").parse().expect("a path");
        let container = format!("c{number}").parse().expect("a name");
        let spec = AttachSpec::new("n".parse().expect("a name"), container, netns);
        fold(&mut state, &Request::Attach(spec));
    }
    let join = requests(&state).into_iter().take(1);
    join.for_each(|request| fold(&mut state, &request));
    let bytes = fuzzing::tables(&state).expect("it is written");
    (state, bytes)
});

fn flipped(sound: &[u8], data: &[u8]) -> Vec<u8> {
    let mut bytes = sound.to_vec();
    for flip in data.chunks_exact(3) {
        let place = usize::from(u16::from_le_bytes([flip[0], flip[1]]));
        if let Some(byte) = bytes.get_mut(place) {
            *byte ^= flip[2];
        }
    }
    bytes
}

/// Carries a request out in a world where everything succeeds.
fn fold(state: &mut State, request: &Request) {
    let plan = state.plan(&Facts::default(), request).expect("it is sound");
    for entry in [Entry::Begin(plan.into()), Entry::End(Outcome::Committed)] {
        state.absorb(&entry).expect("it follows");
    }
}

fn plan(data: &[u8]) {
    if let Err(error) = fuzzing::plan(data) {
        assert!(!error.is_empty());
    }
}

fn definition(data: &[u8]) {
    let name = "fuzz".parse().expect("a name");
    let Ok(network) = fuzzing::definition(&name, data) else {
        return;
    };
    let again = fuzzing::definition(&name, &fuzzing::define(&network));
    assert_eq!(again.as_ref(), Ok(&network), "what is written is read");
    if let Ok(state) = fuzzing::adopt(vec![network]) {
        sound(&state);
    }
}

fn history(data: &[u8]) {
    let (events, _) = fuzzing::history(data);
    for event in &events {
        let again = fuzzing::history(&fuzzing::remember(event));
        assert_eq!(again, (vec![event.clone()], 0), "what is written is read");
        let _ = event.at();
    }
}

/// What was read keeps its invariants, is the same once it was written, and can be worked with.
fn sound(state: &State) {
    unique(state);
    let snapshot = state.snapshot();
    assert_eq!(State::restore(snapshot.clone()).as_ref(), Ok(state));
    // A plan that did not end is in a file of its own.
    let ended = Snapshot {
        pending: None,
        ..snapshot
    };
    let ended = State::restore(ended).expect("it is the same otherwise");
    let bytes = fuzzing::tables(&ended).expect("it is written");
    let read = fuzzing::read_tables(ended.instance(), &bytes);
    assert_eq!(read, Ok(Some((ended.clone(), Some(ended)))));
    work(state.clone());
}

/// ARCHITECTURE.md, the first invariant.
fn unique(state: &State) {
    let mut containers: BTreeMap<Netns, _> = BTreeMap::new();
    let mut spaces = BTreeMap::new();
    for endpoint in state.endpoints() {
        let container = &endpoint.id.container;
        let held = containers.entry(endpoint.netns.clone());
        assert_eq!(held.or_insert(container), &container, "one to a namespace");
        let netns = spaces.entry(container).or_insert(&endpoint.netns);
        assert_eq!(*netns, &endpoint.netns, "one namespace");
    }
    for network in state.networks() {
        let on: Vec<_> = state.endpoints_of(&network.name).collect();
        let macs: BTreeSet<_> = on.iter().map(|endpoint| endpoint.mac).collect();
        assert_eq!(macs.len(), on.len(), "macs differ");
        let all = || on.iter().flat_map(|endpoint| &endpoint.addresses);
        let addresses: BTreeSet<_> = all().map(|address| address.addr()).collect();
        assert_eq!(addresses.len(), all().count(), "addresses differ");
    }
    let own = |endpoint: &mydocker_core::Endpoint| endpoint.host_ports().cloned().collect();
    let ports: Vec<_> = state.endpoints().flat_map::<Vec<_>, _>(own).collect();
    for (index, one) in ports.iter().enumerate() {
        let rest = &ports[index + 1..];
        assert!(rest.iter().all(|other| !one.conflicts(other)), "{one:?}");
    }
}

/// Ends what is pending, repairs, and asks for everything that a user could. A kernel that can't
/// hold what such a state wants may refuse; that is no panic.
fn work(mut state: State) {
    let mut kernel = Kernel::new().any_namespace();
    if let Some(plan) = state.pending().cloned() {
        let mut transaction = Transaction::resume(&plan);
        if drive(&mut transaction, &mut kernel, &mut Fold(&mut state)).is_err() {
            return;
        }
        assert_eq!(state.pending(), None);
    }
    let plan = state.repair(&Facts::default(), kernel.objects());
    if drive(
        &mut Transaction::begin(plan),
        &mut kernel,
        &mut Fold(&mut state),
    )
    .is_err()
    {
        return;
    }
    for request in requests(&state) {
        let Ok(plan) = state.plan(&kernel.facts().unwrap_or_default(), &request) else {
            continue;
        };
        let mut fold = Fold(&mut state);
        if drive(&mut Transaction::begin(plan), &mut kernel, &mut fold).is_err() {
            return;
        }
    }
    unique(&state);
    assert_eq!(State::restore(state.snapshot()).as_ref(), Ok(&state));
}

/// One more container on each network, and then everybody off, and the networks away.
fn requests(state: &State) -> Vec<Request> {
    let netns: Netns = "/run/netns/one-more".parse().expect("a path");
    let container: ContainerName = "one-more".parse().expect("a name");
    let networks: Vec<&Network> = state.networks().take(8).collect();
    let join = |network: &&Network| {
        let spec = AttachSpec::new(network.name.clone(), container.clone(), netns.clone());
        Request::Attach(AttachSpec {
            ports: vec!["8080:80".parse().expect("a port")],
            ..spec
        })
    };
    let left = state.endpoints().map(|endpoint| endpoint.id.clone());
    let joined = networks.iter().map(|network| EndpointId {
        network: network.name.clone(),
        container: container.clone(),
    });
    let gone = networks
        .iter()
        .map(|network| Request::RemoveNetwork(network.name.clone()));
    let detached = left.chain(joined).map(Request::Detach);
    networks
        .iter()
        .map(join)
        .chain(detached)
        .chain(gone)
        .collect()
}
