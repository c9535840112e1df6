//! History: what was done, when and by whom, for people to look back at. It is bounded, kept apart
//! from the state, and losing it loses nothing else. Where room is short it makes way: what the state
//! needs comes first.

use std::io::Write;
use std::sync::Arc;
use std::time::{Duration, Instant, SystemTime, UNIX_EPOCH};

use mydocker_core::{Change, Outcome, Plan};
use rustix::fs::OFlags;
use serde::{Deserialize, Serialize, Serializer};
use serde_json::value::RawValue;

use super::StoreError;
use super::dir::{Dir, Durability};
use super::error::io;

const NAME: &str = "history.log";
/// What the log was called before it grew too long.
const OLDER: &str = "history.log.1";

/// The log and its predecessor hold as much each.
const BYTES_MAX: u64 = 2 * 1024 * 1024;
/// With less room than that on its disk, no history is kept.
const ROOM_BYTES_MIN: u64 = 16 * 1024 * 1024;
/// An event that is longer is kept without its ops and ports, and so is one of so many ops, which nobody
/// needs to write down to see that it is.
const EVENT_BYTES_MAX: usize = 256 * 1024;
const EVENT_OPS_MAX: usize = 2048;
/// As much of a command line is kept.
const COMMAND_CHARS_MAX: usize = 256;

/// A transaction that ended.
#[derive(Clone, Debug, Eq, PartialEq, Deserialize, Serialize)]
pub struct Event<P = Plan> {
    /// When it ended, in milliseconds since 1970 (UTC).
    pub at_unix_ms: u64,
    /// How long it took, in microseconds; nothing if another process began it.
    pub took_us: Option<u64>,
    /// The process that ended it.
    pub pid: u32,
    /// Who ran that process, by number.
    pub uid: u32,
    /// Its command line, shortened.
    pub command: String,
    /// How many ops the plan had.
    pub ops: usize,
    /// What was planned; without ops and ports if there were very many.
    pub plan: P,
    /// How it ended.
    pub outcome: Outcome,
}

/// A plan that ended.
pub(super) struct Ended {
    pub(super) plan: Arc<Plan>,
    /// When it began and what was written of it then, if this process began it.
    pub(super) began: Option<(Instant, Box<RawValue>)>,
}

impl Serialize for Ended {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        match &self.began {
            Some((_, written)) => written.serialize(serializer),
            None => self.plan.serialize(serializer),
        }
    }
}

impl Event<Ended> {
    pub(super) fn now(plan: Ended, outcome: Outcome) -> Self {
        let since_1970 = SystemTime::now()
            .duration_since(UNIX_EPOCH)
            .unwrap_or_default();
        let took = plan.began.as_ref().map(|(began, _)| began.elapsed());
        let words: Vec<_> = std::env::args_os()
            .map(|word| word.to_string_lossy().into_owned())
            .collect();
        Self {
            at_unix_ms: whole(since_1970.as_millis()),
            took_us: took.map(|took| whole(took.as_micros())),
            pid: std::process::id(),
            uid: rustix::process::getuid().as_raw(),
            command: words.join(" ").chars().take(COMMAND_CHARS_MAX).collect(),
            ops: plan.plan.ops.len(),
            plan,
            outcome,
        }
    }
}

impl Event {
    /// When it ended.
    #[must_use]
    pub fn at(&self) -> SystemTime {
        UNIX_EPOCH + Duration::from_millis(self.at_unix_ms)
    }
}

fn whole(number: u128) -> u64 {
    u64::try_from(number).unwrap_or(u64::MAX)
}

/// Adds an event.
pub(super) fn append(dir: &Dir, mut event: Event<Ended>) -> Result<(), StoreError> {
    let path = dir.path_of(NAME);
    if event.ops > EVENT_OPS_MAX {
        shorten(&mut event.plan);
    }
    let mut line = to_line(&event).map_err(io("write", &path))?;
    if line.len() > EVENT_BYTES_MAX {
        shorten(&mut event.plan);
        line = to_line(&event).map_err(io("write", &path))?;
    }
    let flags = OFlags::WRONLY | OFlags::APPEND | OFlags::CREATE;
    let Some(mut file) = dir.open_file(NAME, flags)? else {
        return Err(io("open", &path)(std::io::ErrorKind::NotFound.into()));
    };
    let disk = rustix::fs::fstatvfs(&file).map_err(|errno| io("look at", &path)(errno.into()))?;
    if disk.f_bavail.saturating_mul(disk.f_frsize) < ROOM_BYTES_MIN {
        dir.remove(NAME, Durability::Kernel)?;
        return dir.remove(OLDER, Durability::Kernel);
    }
    if file.metadata().map_err(io("look at", &path))?.len() > BYTES_MAX {
        dir.rename(NAME, OLDER, Durability::Kernel)?;
        return append(dir, event);
    }
    file.write_all(&line).map_err(io("write", &path))
}

/// Leaves out what there may be a quarter of a million of.
fn shorten(ended: &mut Ended) {
    ended.began = None;
    let mut change = ended.plan.change.clone();
    shorten_change(&mut change);
    ended.plan = Arc::new(Plan {
        change,
        ops: Vec::new(),
        on_failure: ended.plan.on_failure,
        warnings: ended.plan.warnings.clone(),
    });
}

fn shorten_change(change: &mut Change) {
    match change {
        Change::EndpointAdded(endpoint) | Change::EndpointChanged(endpoint) => {
            endpoint.ports.clear();
        }
        Change::Several(changes) => changes.iter_mut().for_each(shorten_change),
        Change::NetworkAdded(_)
        | Change::NetworkRemoved(_)
        | Change::EndpointRemoved(_)
        | Change::Repaired => {}
    }
}

pub(super) fn to_line(event: &Event<impl Serialize>) -> std::io::Result<Vec<u8>> {
    // Behind a line that a dead process left unfinished, too.
    let mut line = vec![b'\n'];
    serde_json::to_writer(&mut line, event)?;
    Ok(line)
}

/// All events that are kept, oldest first, and how many lines can't be read: torn by a crash, or
/// written by another version.
pub(super) fn read(dir: &Dir) -> Result<(Vec<Event>, usize), StoreError> {
    let (mut events, mut unreadable) = (Vec::new(), 0);
    for name in [OLDER, NAME] {
        let bytes = dir.read(name)?.unwrap_or_default();
        unreadable += parse(&bytes, &mut events);
    }
    Ok((events, unreadable))
}

/// Adds the events of a log; how many of its lines can't be read.
pub(super) fn parse(bytes: &[u8], events: &mut Vec<Event>) -> usize {
    let mut unreadable = 0;
    let lines = bytes.split(|byte| *byte == b'\n');
    for line in lines.filter(|line| !line.is_empty()) {
        match serde_json::from_slice(line) {
            Ok(event) => events.push(event),
            Err(_) => unreadable += 1,
        }
    }
    unreadable
}

#[cfg(test)]
mod tests {
    use mydocker_core::{AttachSpec, EndpointId, Facts, NetworkSpec, OnFailure, Request, State};

    use super::*;

    fn ended(plan: Plan) -> Event<Ended> {
        let plan = Arc::new(plan);
        Event::now(Ended { plan, began: None }, Outcome::Committed)
    }

    fn event() -> Event<Ended> {
        ended(Plan {
            change: Change::Repaired,
            on_failure: OnFailure::Continue,
            ops: Vec::new(),
            warnings: Vec::new(),
        })
    }

    /// A container with so many ports that the plan for it is longer than an event may be.
    #[test]
    fn a_long_event_is_kept_without_its_ops_and_ports() {
        let mut state = State::new(mydocker_core::Instance::DEFAULT);
        let mut run = |request: Request| {
            let plan = state.plan(&Facts::default(), &request).unwrap();
            state
                .absorb(&mydocker_core::Entry::Begin(plan.clone().into()))
                .unwrap();
            state
                .absorb(&mydocker_core::Entry::End(Outcome::Committed))
                .unwrap();
            plan
        };
        run(Request::CreateNetwork(NetworkSpec::new(
            "n".parse().unwrap(),
        )));
        let netns = "/run/netns/web".parse().unwrap();
        let mut spec = AttachSpec::new("n".parse().unwrap(), "web".parse().unwrap(), netns);
        spec.ports = mydocker_core::PortSpec::parse_list("10000-19999:10000-19999").unwrap();
        let plan = run(Request::Attach(spec));
        let root = tempfile::tempdir().unwrap();
        let dir = Dir::create(root.path(), "network", Durability::Kernel).unwrap();
        let ops = plan.ops.len();
        append(&dir, ended(plan)).unwrap();
        assert!(dir.read(NAME).unwrap().unwrap().len() < EVENT_BYTES_MAX);
        let (events, _) = read(&dir).unwrap();
        assert_eq!((events[0].ops, events[0].plan.ops.len()), (ops, 0));
        let Change::EndpointAdded(endpoint) = &events[0].plan.change else {
            panic!("{:?}", events[0].plan.change);
        };
        let [network, container] = ["n", "web"];
        let (network, container) = (network.parse().unwrap(), container.parse().unwrap());
        assert_eq!(endpoint.id, EndpointId { network, container });
    }

    #[test]
    fn it_is_bounded() {
        let root = tempfile::tempdir().unwrap();
        let dir = Dir::create(root.path(), "network", Durability::Kernel).unwrap();
        let one = to_line(&event()).unwrap().len() as u64;
        let many = 5 * BYTES_MAX / one;
        let size = |name: &str| {
            let file = dir.open_file(name, OFlags::RDONLY).unwrap();
            file.map_or(0, |file| file.metadata().unwrap().len())
        };
        for _ in 0..many {
            append(&dir, event()).unwrap();
        }
        for name in [NAME, OLDER] {
            assert!(size(name) <= BYTES_MAX + 2 * one, "{name}: {}", size(name));
        }
        let (events, unreadable) = read(&dir).unwrap();
        assert!(events.len() as u64 > BYTES_MAX / one / 2 && unreadable == 0);
    }
}
