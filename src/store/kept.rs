//! The results of queries that workers keep stored in spaces with the option `keep_warm`: the most valuable ones of each space,
//! over all roles. A *space* is a named cache. The value of a result is about the time that its latest hits have saved: their
//! number plus one, times the duration of its query. `workers/keeping.rs` renews these results, and the views show them.
//!
//! Two conditions decide whether a result can be kept. Its *note*, the bytes that are stored beside it, must have everything that
//! is needed to run the query again ([`Terms`]). And the role that ran it must have logged in as itself and be no superuser: a
//! worker of this role then runs the query in the same way. A worker must run only queries and code that the role itself has run.
//! So it renews a result only while nothing but rows has changed ([`Kept::look`]).
//!
//! An entry of such a space stays for a while after a change of rows ([`LEFT_FOR_MS`]), so that a worker can find it. The
//! *launcher* is the background worker that starts the others.

use super::keyspace::{Keyspace, hash};
use super::kind;
use super::note::{self, Facts, OnlyNote, Terms};
use super::space::{self, Privilege, Space};
use super::warmer::{self, Runs};
use crate::pg::catalog::{self, Table};
use crate::pg::error::OrRaise;
use crate::pg::role::Role;
use crate::pg::shared::HotTier;
use crate::pg::warm_list::{Owner, RunId};
use crate::pg::{environment, memory, settings, shared};
use pg_cache_core::{Key, Kind, Meta, Reader, SampledHits, Stamp};
use std::collections::BTreeMap;
use std::rc::Rc;

/// For how many milliseconds a result stays in memory after a change of rows has made it invalid. The time counts from the last
/// moment at which the result was known to be valid. A worker that keeps the result renews this moment about once a second.
pub const LEFT_FOR_MS: u64 = 10 * 60 * 1000;

/// Returns whether a worker could run a query again that the current role has run in a space.
pub fn may_be_kept(space: &Space) -> bool {
    space.options.keep_warm > 0 && environment::is_of_login() && !Role::current().is_superuser()
}

/// Tells the launcher that the current role has stored a result that can be kept. Must be called after the result is stored: a
/// worker that does not find the result yet then does not forget the role.
pub fn announce() {
    warmer::announce(Role::current());
}

/// The names of the spaces with the option `keep_warm` by their OIDs, and how many results are kept in each.
pub type Spaces = BTreeMap<u32, (Rc<str>, usize)>;

/// Returns the spaces of the database in which results are kept. There are none if the table of spaces does not belong to the
/// extension.
pub fn spaces() -> Spaces {
    let mut found = Spaces::new();
    if catalog::is_of_extension(Table::Spaces) {
        space::each_space(|oid, name, options| {
            memory::check();
            if options.keep_warm > 0 && options.enabled {
                found.insert(oid, (Rc::from(name), options.keep_warm as usize));
            }
        });
    }
    found
}

/// A result that is among the most valuable ones of its space.
#[derive(Debug)]
pub struct Kept {
    /// The name of the space.
    pub space: Rc<str>,
    /// The key of the result.
    pub key: Vec<u8>,
    /// The role that ran the query.
    pub role: u32,
    /// The value of the result by which results are compared: see the head of this file.
    value: u128,
    /// The runs of the result by workers.
    pub runs: Runs,
}

/// The outcome of a worker's look at a kept result.
#[derive(Debug)]
pub struct Found {
    /// The properties of the entry.
    pub meta: Meta,
    /// The note of the entry (`note.rs`).
    note: Vec<u8>,
    /// Whether a reader would get the result. If not, only rows have changed.
    pub is_valid: bool,
}

impl Found {
    /// Returns the facts about the result, and the terms of the call that stored it.
    pub fn facts(&self) -> Option<(Facts<'_>, Terms<'_>)> {
        keepable(self.meta.kind, &self.note)
    }

    pub fn tags(&self) -> impl Iterator<Item = &[u8]> {
        note::tags(self.meta.kind, &self.note)
    }
}

/// Returns the facts about a result and the terms of its call, if the result can be kept.
fn keepable(kind: Kind, note: &[u8]) -> Option<(Facts<'_>, Terms<'_>)> {
    let facts = note::facts(kind, note).filter(|_| note::has_own_terms(kind, note))?;
    Some((facts, facts.terms?))
}

impl Kept {
    /// Returns the reason why no worker of the role can renew the result. None if no reason is known. May raise errors.
    pub fn why_no_worker(&self) -> Option<&'static str> {
        let role = Role::from_oid(self.role);
        let owner = Owner { database: shared::database(), role: self.role };
        if settings::max_workers() == 0 {
            Some("pg_cache.max_workers is 0")
        } else if role.is_superuser() {
            Some("the role is a superuser")
        } else if !role.may_log_in() {
            Some("the role may not log in")
        } else if shared::warm_list().is_some_and(|list| list.is_refused(owner)) {
            Some("the role cannot connect")
        } else if space::with_privilege_of(role, self.space.as_bytes(), Privilege::Write).is_err() {
            Some("the role lacks the privilege write in the space")
        } else {
            None
        }
    }

    /// Looks at the result, without counting a read. Returns None if the result is not in memory any more, has expired, or is
    /// invalid for another reason than a change of rows: then its query must not run again.
    pub fn look(&self, keyspace: &Keyspace) -> Option<Found> {
        let key = keyspace.key(&self.key, hash(&self.key))?;
        let found = look_at(keyspace.tier, &key)?;
        let is_own = found.facts().is_some_and(|(facts, _)| facts.role == self.role);
        is_own.then_some(found)
    }
}

/// Looks at a result, without counting a read. Returns None if a worker must not run its query again, see [`Kept::look`].
fn look_at(tier: &HotTier, key: &Key<'_>) -> Option<Found> {
    let reader = Reader { outdated_since: Some(0), repeats: true, ..Stamp::LATEST.into() };
    let mut note = OnlyNote::new();
    let meta = tier.get(key, reader, &mut note).ok()?;
    Some(Found { meta, note: note.0, is_valid: meta.valid_at == u32::MAX })
}

/// Returns the results that can be renewed and are the most valuable ones of their spaces. The most valuable result comes first.
/// Walks through all entries in memory. May raise errors.
pub fn best(spaces: &Spaces) -> Vec<Kept> {
    let Some(tier) = shared::tier().filter(|_| !spaces.is_empty()) else { return Vec::new() };
    let hits = tier.sampled_hits().or_raise();
    let mut best: BTreeMap<u32, Vec<Kept>> = BTreeMap::new();
    let wanted = |space: u32, kind: Kind| {
        kind::has_query_key(kind) && !kind::is_marker(kind) && spaces.contains_key(&space)
    };
    let mut bucket = 0;
    while let Some(page) = tier.entries_in(shared::database(), bucket, wanted).or_raise() {
        shared::check_for_interrupts();
        for entry in page.entries {
            let Some((space, most)) = spaces.get(&entry.space) else { continue };
            let scope = tier.scope(entry.database, entry.space, entry.role);
            let Some(key) = Key::new(scope, &entry.key, hash(&entry.key)) else { continue };
            let Some((facts, _)) = keepable(entry.meta.kind, &entry.note) else { continue };
            // A result that no worker may renew must not take the place of one that a worker may renew.
            if look_at(tier, &key).is_none() {
                continue;
            }
            let value = value(&hits, &key, &entry.meta);
            let id = RunId::of_result(hash(&entry.key) ^ u64::from(entry.space).rotate_left(32));
            let kept =
                Kept { space: Rc::clone(space), role: facts.role, value, runs: Runs::of(id), key: entry.key };
            memory::check();
            let of_space = best.entry(entry.space).or_default();
            memory::push(of_space, kept);
            if of_space.len() >= 2 * most {
                leave_most_valuable(of_space, *most);
            }
        }
        bucket = page.next;
    }
    let mut all = Vec::new();
    for (space, mut of_space) in best {
        leave_most_valuable(&mut of_space, spaces.get(&space).map_or(0, |(_, most)| *most));
        memory::reserve(&mut all, of_space.len());
        all.append(&mut of_space);
    }
    all.sort_unstable_by_key(|kept| std::cmp::Reverse(kept.value));
    all
}

/// Returns the value of a result, in microseconds.
fn value(hits: &SampledHits, key: &Key<'_>, meta: &Meta) -> u128 {
    u128::from(hits.of(key) + 1) * u128::from(meta.cost.micros())
}

/// Leaves only the most valuable results in a list.
fn leave_most_valuable(results: &mut Vec<Kept>, most: usize) {
    results.sort_unstable_by(|one, other| (other.value, &one.key).cmp(&(one.value, &other.key)));
    results.truncate(most);
}

/// Tells the launcher which roles of this database have results that are kept. May raise errors.
pub fn announce_all() {
    let mut roles: Vec<u32> = memory::collect(best(&spaces()).iter().map(|kept| kept.role));
    roles.sort_unstable();
    roles.dedup();
    roles.into_iter().for_each(|role| warmer::announce(Role::from_oid(role)));
}
