//! The stored results of queries and what the current role may know of each, for the views `cache_queries` and
//! `cache_dependencies`, for `cache_top` and for `cache_health`.
//!
//! Numbers and the name of the role are shown with the entry (`content.rs`). Everything else needs the privilege read in the
//! *space* (the named cache that the result is in), and that the entry does not belong to another role. The text of a query is
//! shown to the role that ran it, and to roles that may read the queries of all (`pg_read_all_stats`), as in `pg_stat_statements`.
//! A relation is named to roles that may know its name (`cause.rs`).
//!
//! A *note* is bytes that are stored beside a value, and has the facts about a query result (`note.rs`). A *marker* is an entry
//! without a result, which says why there is none (`kind.rs`).

use super::content::{self, Entry};
use super::kept::{self, Kept};
use super::kind::{self, DIFFERED, LEFT_OUT, VARIES};
use super::note::{self, Facts, RelationBytes};
use super::{cause, space};
use crate::pg::error::SqlState;
use crate::pg::memory;
use crate::pg::relation;
use crate::pg::role::Role;
use crate::pg::shared;
use pg_cache_core::Kind;
use std::collections::{BTreeMap, BTreeSet};
use std::rc::Rc;

/// A stored result, or the marker of a query whose results are not stored for a while.
#[derive(Debug)]
pub struct StoredResult {
    pub entry: Entry,
    /// Whether the role may read the content of the entry.
    is_readable: bool,
    /// Whether the role may read the texts of the queries of all roles.
    reads_queries: bool,
}

/// Whether a result has a place among those that workers keep stored (`kept.rs`). A worker may still not keep it: a result that was
/// stored with other settings is not found by the worker's session.
#[derive(Debug, PartialEq, Eq)]
pub enum Keeping {
    No,
    Yes,
    /// No worker of the role can renew the result, for this reason.
    Waits(&'static str),
    /// The last run has failed. Has the SQLSTATE and the message of its error, or only the reason why its result was not stored.
    Fails(Option<SqlState>, String),
}

impl Keeping {
    fn of(kept: &Kept) -> Self {
        if let Some(why) = kept.why_no_worker() {
            return Self::Waits(why);
        }
        match kept.runs.shown().filter(|(run, _)| run.failures > 0) {
            None => Self::Yes,
            Some((run, _)) => {
                Self::Fails(Some(SqlState(run.code)).filter(|state| state.0 != 0), run.message())
            }
        }
    }
}

/// The results that workers keep stored, by their spaces and keys. They are found when the first one is asked for.
#[derive(Debug, Default)]
pub struct AllKept(Option<BTreeMap<SpaceAndKey, Keeping>>);

/// The name of a space, and a key in it.
type SpaceAndKey = (Rc<str>, Rc<[u8]>);

impl AllKept {
    /// Returns whether a worker keeps a result. May raise errors.
    pub fn of(&mut self, result: &StoredResult) -> Keeping {
        let all = self.0.get_or_insert_with(|| {
            let mut all = BTreeMap::new();
            for kept in kept::best(&kept::spaces()) {
                memory::check();
                let keeping = Keeping::of(&kept);
                all.insert((kept.space, Rc::from(kept.key)), keeping);
            }
            all
        });
        let key = result.entry.key.as_ref().map(|key| (Rc::clone(&result.entry.space), Rc::clone(key)));
        key.and_then(|key| all.remove(&key)).unwrap_or(Keeping::No)
    }
}

/// Whether a result can be returned.
#[derive(Debug, PartialEq, Eq)]
pub enum State {
    Valid,
    /// The change that has made the result invalid, in words.
    Invalid(String),
    /// The query was invalidated faster than it ran: results are not stored until that time, in microseconds since 2000. The names
    /// are those of the relations that have invalidated it, as far as the role may know them.
    LeftOut(i64, Vec<String>),
    /// Results of the query are not stored any more, because a stored result was wrong. The time at which the verification found
    /// that, in microseconds since 2000.
    Differed(i64),
}

/// A dependency of a result, with its name. The name is None if the role may not know it, or if there is no such relation any more.
#[derive(Debug)]
pub enum Dependency {
    Rows(Option<String>),
    Definition(Option<String>),
    Tag(Vec<u8>),
}

/// Returns the results in the spaces that the current role may see. Raises an error if there is no memory, also while the caller
/// walks through the results.
pub fn of_database() -> impl Iterator<Item = StoredResult> {
    entries(|kind, _| kind::is_of_query(kind) && kind != VARIES)
}

/// Does the same for the markers of queries whose results are not stored because a stored result was wrong.
pub fn differed() -> impl Iterator<Item = StoredResult> {
    entries(|kind, is_valid| is_valid && kind == DIFFERED)
}

/// Does the same for all values that a read can return, whether they are results of queries or not.
pub fn and_values() -> impl Iterator<Item = StoredResult> {
    entries(|kind, is_valid| is_valid && !kind::is_marker(kind))
}

fn entries(wanted: fn(Kind, bool) -> bool) -> impl Iterator<Item = StoredResult> {
    let (readable, reads_queries) = (space::readable(), space::may_read_queries());
    content::entries(wanted).map(move |entry| {
        let is_readable =
            entry.key.is_some() && readable.as_ref().is_none_or(|spaces| spaces.contains(&entry.space_oid));
        StoredResult { entry, is_readable, reads_queries }
    })
}

impl StoredResult {
    /// Returns what the note tells of the result. None if the note is damaged. The caller must show numbers only.
    pub fn facts(&self) -> Option<Facts<'_>> {
        note::facts(self.entry.meta.kind, &self.entry.note)
    }

    /// Returns the name of the role that ran the query. None if the role was dropped.
    pub fn role(&self) -> Option<Vec<u8>> {
        let name = Role::from_oid(self.facts()?.role).name()?;
        Some(memory::copy(name.to_bytes()))
    }

    /// Returns the text of the query, if the current role may read it, and whether it was cut off.
    pub fn text(&self) -> Option<(&[u8], bool)> {
        let facts = self.facts().filter(|_| self.may_read_text())?;
        Some((facts.text, facts.is_cut))
    }

    /// Returns whether the current role may read the text of the query, and the messages of its errors.
    pub fn may_read_text(&self) -> bool {
        let is_own = || self.facts().is_some_and(|facts| facts.role == Role::current().oid());
        self.is_readable && (self.reads_queries || is_own())
    }

    /// Returns the tags. The list is empty if the current role may not see them.
    pub fn tags(&self) -> impl Iterator<Item = &[u8]> {
        let tags = self.entry.key.is_some().then(|| note::tags(self.entry.meta.kind, &self.entry.note));
        tags.into_iter().flatten()
    }

    pub fn state(&self) -> State {
        if let Some(change) = self.entry.invalid {
            return State::Invalid(cause::of_invalid(change));
        }
        match self.entry.meta.kind {
            LEFT_OUT => {}
            DIFFERED => return State::Differed(shared::time_of(self.entry.meta.created)),
            _ => return State::Valid,
        }
        let by = self.facts().filter(|_| self.is_readable).map_or(&[][..], |facts| facts.read);
        let names = by.iter().map(|oid| cause::relation_name(u32::from_ne_bytes(*oid)));
        State::LeftOut(shared::time_of(self.entry.meta.expires), memory::collect(names))
    }

    /// Returns what the result depends on, if the current role may read its content: the rows of relations, the definitions of
    /// relations, and tags.
    pub fn dependencies(&self) -> Vec<Dependency> {
        let mut all = Vec::new();
        let Some(facts) = self.facts().filter(|_| self.is_readable && self.entry.meta.kind != LEFT_OUT)
        else {
            return all;
        };
        let sees_all = space::may_monitor();
        let name = |oid: &RelationBytes| {
            memory::check();
            relation::name(u32::from_ne_bytes(*oid), sees_all)
        };
        facts.read.iter().for_each(|oid| memory::push(&mut all, Dependency::Rows(name(oid))));
        let defined: BTreeSet<_> = facts.read.iter().chain(facts.defined).collect();
        defined.into_iter().for_each(|oid| memory::push(&mut all, Dependency::Definition(name(oid))));
        self.tags().for_each(|tag| memory::push(&mut all, Dependency::Tag(memory::copy(tag))));
        all
    }
}
