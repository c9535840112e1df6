//! Ways through firewalls of others: which are wanted, and what is said of the rest.

use alloc::collections::BTreeSet;

use crate::{
    Facts, Footprint, ForeignChain, ForeignForward, ForwardChain, Network, Object, Op, Passage,
    Ruleset, State, Warning,
};

/// What networks want of firewalls of others.
pub(super) struct Ways {
    /// Chains to have a passage.
    pub(super) passages: BTreeSet<ForeignChain>,
    /// What is left to whoever runs the host.
    pub(super) warnings: BTreeSet<Warning>,
}

impl State {
    /// What a network that comes up wants beside what is there.
    pub(super) fn more_ways(&self, facts: &Facts, network: &Network) -> Ways {
        let mut ways = Ways::of(facts, [network].into_iter());
        ways.passages.retain(|chain| !self.passages.contains(chain));
        ways.forget_what_lets_through(&self.passages);
        ways
    }

    /// What all networks that are up want: what is there, where its chain still is, and passages
    /// through whatever came since.
    pub(super) fn all_ways(&self, facts: &Facts) -> Ways {
        let mut ways = Ways::of(facts, self.networks_up());
        let seen: BTreeSet<ForeignChain> = facts
            .forward_chains
            .iter()
            .filter_map(ForwardChain::named)
            .collect();
        let unwanted: BTreeSet<ForeignChain> = self.unwanted_passages(self.networks_up()).collect();
        let kept = self.passages.intersection(&seen);
        ways.passages.extend(kept.cloned());
        ways.passages.retain(|chain| !unwanted.contains(chain));
        let there = ways.passages.clone();
        ways.forget_what_lets_through(&there);
        ways
    }

    /// The passages that none of `networks` wants.
    pub(super) fn unwanted_passages<'a>(
        &'a self,
        networks: impl Iterator<Item = &'a Network> + Clone + 'a,
    ) -> impl Iterator<Item = ForeignChain> + 'a {
        let unwanted =
            move |chain: &&ForeignChain| !networks.clone().any(|network| wants(network, chain));
        self.passages.iter().filter(unwanted).cloned()
    }

    /// Chains as the objects that stand in them.
    pub(super) fn in_chains(&self, chains: impl IntoIterator<Item = ForeignChain>) -> Footprint {
        let instance = self.instance;
        let object = |chain| Object::Passage(Passage { instance, chain });
        chains.into_iter().map(object).collect()
    }

    /// Passages belong to no network, so what became of them is read off the ops.
    pub(super) fn take_in_passages(&mut self, ops: &[Op]) {
        for op in ops {
            match op {
                Op::Add(Object::Passage(passage)) => {
                    self.passages.insert(passage.chain.clone());
                }
                Op::Del(Object::Passage(passage)) => {
                    self.passages.remove(&passage.chain);
                }
                Op::Add(_) | Op::Del(_) => {}
            }
        }
    }
}

impl Ways {
    fn of<'a>(facts: &Facts, networks: impl Iterator<Item = &'a Network>) -> Self {
        let mut ways = Self {
            passages: BTreeSet::new(),
            warnings: BTreeSet::new(),
        };
        for network in networks {
            for found in facts.forward_chains.iter().filter(|found| found.drops) {
                if network.families().any(|family| found.family.sees(family)) {
                    ways.lead_through(found, network);
                }
            }
            let legacy = network.families();
            let legacy = legacy.filter(|family| facts.legacy_drops.contains(family));
            ways.warnings.extend(legacy.map(Warning::LegacyDrop));
        }
        ways
    }

    fn lead_through(&mut self, found: &ForwardChain, network: &Network) {
        let Some(chain) = found.named() else {
            self.warnings.insert(Warning::UnnameableDrop {
                family: found.family,
                table: found.table.clone(),
                chain: found.chain.clone(),
            });
            return;
        };
        // At the same priority, which comes first is a matter of who came first.
        let unmarked = found.priority <= Ruleset::FORWARD_PRIORITY;
        let bridge = network.bridge;
        self.warnings.insert(if found.owned {
            Warning::OwnedDrop(chain)
        } else if unmarked {
            Warning::EarlyDrop { chain, bridge }
        } else if network.foreign_forward == ForeignForward::Report {
            Warning::ForeignDrop(chain)
        } else {
            self.passages.insert(chain);
            return;
        });
    }

    /// A network that only wants to be told has nothing to be told where others have a passage.
    fn forget_what_lets_through(&mut self, passages: &BTreeSet<ForeignChain>) {
        self.warnings.retain(
            |warning| !matches!(warning, Warning::ForeignDrop(chain) if passages.contains(chain)),
        );
    }
}

fn wants(network: &Network, chain: &ForeignChain) -> bool {
    network.foreign_forward == ForeignForward::Accept
        && network.families().any(|family| chain.sees(family))
}
