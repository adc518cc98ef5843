//! The effects of utility commands and definition changes on the cache.
//!
//! `pg/command/` and `pg/definition.rs` notice the commands and the changes. This file translates them into invalidations, steps of
//! two-phase commits (`transaction/prepared/`) and safe stamps (`transaction/safe_stamp.rs`). An invalidation takes effect when the
//! transaction commits: the commit raises the *fence*, the word in shared memory that says when something that values depend on
//! last changed.
//!
//! The *journal* is a ring in shared memory whose records name what has changed, for caches outside of the database. A *safe stamp*
//! is a moment from before a transaction's snapshot. A table is *watched* if tags stand for it (`watch.rs`).

use crate::pg::altered::Changed;
use crate::pg::command::{self, Watcher};
use crate::pg::shared::HotTier;
use crate::pg::{background, definition, relation, shared};
use crate::store::definitions::{self, Definition};
use crate::store::transaction::{JournalName, pending, prepared, safe_stamp, table_writes};
use crate::store::{space, watch};
use pg_cache_core::Reserved;

/// Registers for commands, and for definition changes that happen without a command. Must be called while the server loads the
/// library.
pub fn listen() {
    command::watch(&Commands);
    definition::watch(defining);
}

/// Records that the transaction changes a definition. If roles or their rights change, the commit invalidates the query results of
/// all databases. A cache outside of the database reads the journal with the rights of a role, and gets only the changes that the
/// role may know. So after such a change, all these caches must forget everything. May raise errors.
fn defining(changed: Changed<'_>) {
    let Some(tier) = shared::tier() else { return };
    match changed {
        Changed::Relation(oid) => change(tier, Definition::Relation(oid)),
        Changed::Name(name) => change(tier, Definition::Name(name)),
        Changed::Other => change(tier, Definition::Other),
        Changed::Roles => {
            pending::invalidate_exactly(definitions::any(tier), JournalName::Unnamed);
            pending::invalidate_exactly(tier.fences().reserved(Reserved::Roles), JournalName::Unnamed);
            let all_databases = 0;
            pending::privileges_changed(all_databases);
        }
        Changed::Extension => {
            change(tier, Definition::Other);
            dropping(shared::database());
        }
    }
}

/// Records that the transaction drops a database, or the extension in it: its commit invalidates all values of the database. May
/// raise errors.
fn dropping(database: u32) {
    if let Some(tier) = shared::tier() {
        let fence = tier.fences().reserved(Reserved::Database(database));
        pending::invalidate_exactly(fence, JournalName::Database(database));
    }
}

/// Records that the transaction changes a definition: its commit invalidates the results that depend on it. May raise errors.
///
/// Each result depends either on the fence of all definitions, [`definitions::any`], or on [`definitions::other`] and the fences of
/// the definitions that its query uses. So each change raises `any` and the fence of the changed definition. If the transaction
/// already has as many fences as its ledger takes (`pending::invalidate_if_few`), the change raises `other` in its place.
fn change(tier: &HotTier, definition: Definition<'_>) {
    pending::invalidate_exactly(definitions::any(tier), JournalName::Unnamed);
    let fence = definition.fence(tier);
    definitions::remember_name(fence, definition);
    if !pending::invalidate_if_few(fence, JournalName::Unnamed) {
        pending::invalidate_exactly(definitions::other(tier), JournalName::Unnamed);
    }
}

/// Receives the commands of this session. [`Watcher`] says when each method is called.
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
        safe_stamp::begin();
    }

    fn imports_snapshot(&self) {
        safe_stamp::forget();
    }

    fn defining(&self, changed: Changed<'_>) {
        defining(changed);
    }

    fn dropping(&self, database: u32) {
        dropping(database);
    }

    fn needs_alone(&self, database: u32) {
        background::close(database);
    }

    fn growing(&self) {
        if let Some(tier) = shared::tier() {
            // A watched table may be an ancestor of the table that is attached. So the journal must say that everything in the
            // database has changed.
            let all = JournalName::Database(shared::database());
            pending::invalidate_exactly(table_writes::trees::fence(tier), all);
        }
    }

    fn moved(&self, relation: u32) {
        watch::moved(relation);
    }

    fn leaving(&self, relation: u32) {
        if let (Some(keyspace), relation::Relation::Rows { .. }) =
            (space::any_keyspace(), relation::of(relation))
        {
            pending::invalidate_relation(&keyspace, relation);
        }
    }
}
