//! What commands mean to the cache.

use crate::pg::command::{self, Watcher};
use crate::pg::{relation, shared};
use crate::store::space;
use crate::store::{horizon, pending, prepared, watch, written};
use pg_cache_core::Reserved;

/// Has commands told to us. To be called while the server loads the library.
pub fn listen() {
    command::watch(&Commands);
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
        horizon::advance();
    }

    fn looks_back(&self) {
        horizon::forget();
    }

    fn defining(&self, roles: bool) {
        let Some(tier) = shared::tier() else { return };
        pending::invalidate_exactly(written::definitions(tier));
        if roles {
            pending::invalidate_exactly(tier.fences().reserved(Reserved::Roles));
        }
    }

    fn dropping(&self, database: u32) {
        if let Some(tier) = shared::tier() {
            pending::invalidate_exactly(tier.fences().reserved(Reserved::Database(database)));
        }
    }

    fn leaving(&self, number: u32) {
        if let (Some(place), relation::Relation::Rows { .. }) = (space::any_place(), relation::of(number)) {
            watch::invalidate(&place, number);
        }
    }
}
