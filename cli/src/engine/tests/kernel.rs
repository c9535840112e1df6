//! A small model of the kernel.

use std::collections::BTreeSet;
use std::sync::{Arc, Mutex};

use mydocker_core::{
    ErrorKind, Executor, Facts, Family, Footprint, Listener, Netns, Ns, Object, Op, OpError,
    OpResult, PortBinding, standing_on,
};

/// A kernel that several engines share; what it is told to refuse it refuses.
#[derive(Clone, Default)]
pub(super) struct Kernel(Arc<Mutex<Inside>>);

#[derive(Default)]
pub(super) struct Inside {
    pub(super) objects: Footprint,
    pub(super) refused: Vec<&'static str>,
    pub(super) dead: BTreeSet<Netns>,
    pub(super) applied: usize,
    /// Ops that are left before the process dies; it dies by panicking.
    pub(super) life: Option<usize>,
    pub(super) looked: usize,
    pub(super) listeners: Vec<Listener>,
    /// Ports that were looked at for listeners.
    pub(super) probed: usize,
}

impl Kernel {
    pub(super) fn objects(&self) -> Footprint {
        self.inside().objects.clone()
    }

    pub(super) fn inside(&self) -> std::sync::MutexGuard<'_, Inside> {
        self.0
            .lock()
            .unwrap_or_else(std::sync::PoisonError::into_inner)
    }
}

impl Inside {
    fn apply(&mut self, op: &Op) -> OpResult {
        if let Some(life) = &mut self.life {
            assert!(*life > 0, "killed");
            *life -= 1;
        }
        self.applied += 1;
        let fail = |kind, detail: &str| {
            let detail = detail.to_owned();
            Err(OpError { kind, detail })
        };
        if self.refused.contains(&op.name()) {
            return fail(ErrorKind::Busy, "refused by the test");
        }
        match op {
            Op::Add(object) if self.objects.contains(object) => fail(ErrorKind::Exists, "EEXIST"),
            Op::Add(object) => {
                let bases: BTreeSet<_> = self.objects.iter().flat_map(Object::gives).collect();
                let loopback = matches!(object, Object::Up(up) if up.link.name.as_str() == "lo");
                if !loopback && object.needs().any(|base| !bases.contains(&base)) {
                    return fail(ErrorKind::Missing, "ENODEV");
                }
                self.objects.insert(object.clone());
                Ok(())
            }
            Op::Del(object) => {
                let here = self.objects.iter().filter(|here| *here == object);
                let gone = standing_on(&here.cloned().collect(), &self.objects);
                self.objects.retain(|object| !gone.contains(object));
                Ok(())
            }
        }
    }
}

impl Executor for Kernel {
    fn apply(&mut self, ops: &[Op]) -> Vec<OpResult> {
        // One at a time, so that a process can die between any two.
        vec![self.inside().apply(&ops[0])]
    }

    fn observe(&mut self, _: &Footprint) -> Result<Footprint, OpError> {
        // Forwarding carries no mark.
        let objects = self.objects().into_iter();
        Ok(objects.filter(|object| !is_forwarding(object)).collect())
    }

    fn facts(&mut self) -> Result<Facts, OpError> {
        let mut inside = self.inside();
        inside.looked += 1;
        let v4 = inside.objects.iter().any(is_forwarding);
        let forwarding = BTreeSet::from_iter(v4.then_some(Family::V4));
        Ok(Facts {
            forwarding,
            ..Facts::default()
        })
    }

    fn listeners(&mut self, wanted: &[PortBinding]) -> Result<Vec<Listener>, OpError> {
        let mut inside = self.inside();
        inside.probed += wanted.len();
        let mut all = inside.listeners.clone();
        all.retain(|listener| wanted.iter().any(|binding| listener.conflicts(binding)));
        Ok(all)
    }

    fn is_alive(&mut self, netns: &Netns) -> bool {
        !self.inside().dead.contains(netns)
    }

    fn namespaces(&mut self) -> Result<BTreeSet<Netns>, OpError> {
        let objects = self.objects();
        let inside = objects.iter().filter_map(|object| match object.ns() {
            Ns::Sandbox(netns) => Some(netns.clone()),
            Ns::Host => None,
        });
        Ok(inside.collect())
    }
}

fn is_forwarding(object: &Object) -> bool {
    matches!(object, Object::Forwarding(_))
}

/// Whether it may be there when nothing of ours is wanted.
pub(super) fn stays(object: &Object) -> bool {
    object.lingers() || is_forwarding(object)
}
