//! What commands mean to the cache.

use crate::pg::command::{self, Watcher};
use crate::pg::{definition, relation, shared};
use crate::store::space;
use crate::store::{horizon, pending, prepared, written};
use pg_cache_core::Reserved;

/// Has commands told to us, and what changes without one. To be called while the server loads the library.
pub fn listen() {
    command::watch(&Commands);
    definition::watch(defining);
}

/// Names or rules change: who may do what in the cluster among them, or not.
fn defining(roles: bool) {
    let Some(tier) = shared::tier() else { return };
    pending::invalidate_exactly(written::definitions(tier));
    if roles {
        pending::invalidate_exactly(tier.fences().reserved(Reserved::Roles));
    }
}

struct Commands;

impl Watcher for Commands {
    fn preparing(&self, gid: &[u8]) {
        prepared::preparing(gid);
    }

    fn ending(&self, gid: &[u8], commits: bool) {
        prepared::ending(gid, commits);
    }

    fn ended(&self) {
        prepared::ended();
    }

    fn began(&self) {
        horizon::begin();
    }

    fn looks_back(&self) {
        horizon::forget();
    }

    fn defining(&self, roles: bool) {
        defining(roles);
    }

    fn dropping(&self, database: u32) {
        if let Some(tier) = shared::tier() {
            pending::invalidate_exactly(tier.fences().reserved(Reserved::Database(database)));
        }
    }

    fn growing(&self) {
        if let Some(tier) = shared::tier() {
            pending::invalidate_exactly(written::trees(tier));
        }
    }

    fn leaving(&self, number: u32) {
        if let (Some(place), relation::Relation::Rows { .. }) = (space::any_place(), relation::of(number)) {
            pending::invalidate_relation(&place, number);
        }
    }
}
