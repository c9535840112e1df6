//! A table of ours that is not as it was created, made so again or taken away in place: what an
//! administrator put into it stays.

use mydocker_core::{Chain, Ruleset, Table};

use super::abi::*;
use super::batch::Batch;
use super::dump::Contents;
use super::ruleset;
use super::set;

impl Batch {
    /// Makes `table`, of which `seen` is left, as it was created, without elements. `EBUSY` if a
    /// rule of the administrator refers to a set or chain that must be made anew.
    pub fn renew_table(&mut self, table: &Table, seen: &Contents) {
        self.begin_op();
        let family = table.family;
        // Awake, if somebody put it to sleep.
        self.message(family, NFT_MSG_NEWTABLE, NLM_F_CREATE, |out| {
            out.string(NFTA_TABLE_NAME, &table.name)
                .number(NFTA_TABLE_FLAGS, 0);
        });
        self.flush_chains(table, seen);
        let edited = |chain: &&Chain| seen.knows_chain(chain.name) && !seen.has_chain(table, chain);
        for chain in ours(table).filter(edited) {
            self.delete_chain(table, chain);
        }
        for (id, set) in (1..).zip(&table.sets) {
            let kept = seen.has_set(table, set);
            if kept {
                self.flush_set(table, set.name);
            } else {
                if seen.knows_set(set.name) {
                    self.delete_set(table, set.name);
                }
                self.message(family, NFT_MSG_NEWSET, NLM_F_CREATE, |out| {
                    set::encode(&table.name, id, set, out);
                    set::encode_userdata(set, out);
                });
            }
        }
        for chain in &table.chains {
            let is_there = match chain.name {
                Ruleset::ADMIN => seen.knows_chain(chain.name),
                _ => seen.has_chain(table, chain),
            };
            if !is_there {
                self.message(family, NFT_MSG_NEWCHAIN, NLM_F_CREATE, |out| {
                    ruleset::encode_chain(table, chain, out);
                });
            }
        }
        ours(table).for_each(|chain| self.append_rules(table, chain));
    }

    /// Deletes `table`, of which `seen` is left; what an administrator put into it stays, and
    /// with it the table and its sets, which then do nothing.
    pub fn retire_table(&mut self, table: &Table, seen: &Contents) {
        if !seen.has_guests(table) {
            self.delete_table(table.family);
            return;
        }
        self.begin_op();
        self.flush_chains(table, seen);
        for chain in ours(table).filter(|chain| seen.knows_chain(chain.name)) {
            self.delete_chain(table, chain);
        }
        for set in table.sets.iter().filter(|set| seen.knows_set(set.name)) {
            self.flush_set(table, set.name);
        }
    }

    /// Empties the chains of ours that are there.
    fn flush_chains(&mut self, table: &Table, seen: &Contents) {
        for chain in ours(table).filter(|chain| seen.knows_chain(chain.name)) {
            self.message(table.family, NFT_MSG_DELRULE, 0, |out| {
                out.string(NFTA_RULE_TABLE, &table.name)
                    .string(NFTA_RULE_CHAIN, chain.name);
            });
        }
    }

    fn delete_chain(&mut self, table: &Table, chain: &Chain) {
        self.message(table.family, NFT_MSG_DELCHAIN, 0, |out| {
            out.string(NFTA_CHAIN_TABLE, &table.name)
                .string(NFTA_CHAIN_NAME, chain.name);
        });
    }

    fn delete_set(&mut self, table: &Table, set: &str) {
        self.message(table.family, NFT_MSG_DELSET, 0, |out| {
            out.string(NFTA_SET_TABLE, &table.name)
                .string(NFTA_SET_NAME, set);
        });
    }

    /// A deletion that names no element means all.
    fn flush_set(&mut self, table: &Table, set: &str) {
        self.message(table.family, NFT_MSG_DELSETELEM, 0, |out| {
            out.string(NFTA_SET_ELEM_LIST_TABLE, &table.name)
                .string(NFTA_SET_ELEM_LIST_SET, set);
        });
    }
}

/// The chains that are not the administrator's.
fn ours(table: &Table) -> impl Iterator<Item = &Chain> {
    let chains = table.chains.iter();
    chains.filter(|chain| chain.name != Ruleset::ADMIN)
}
