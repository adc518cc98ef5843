//! Runs the queries of results that workers keep stored (`store/kept.rs`), and says when a query must run. A *tick* is 50 ms on the
//! clock of `pg/clock.rs`.
//!
//! `workers/keeping.rs` calls [`is_found_here`] when it chooses its results, then [`due`] about once a second, and [`Renewal::run`]
//! for one result at a time. All calls must be made in a session of the role that ran the query, and a worker must run only queries
//! and code that this role has run itself.

use super::asked::Asked;
use super::prefill;
use super::warmer::{is_about_to_expire, why_not};
use crate::pg::error::Refused;
use crate::pg::jsonb::Array;
use crate::pg::planner_code;
use crate::pg::query::Arguments;
use crate::pg::varlena::OwnedJsonb;
use crate::pg::{memory, shared};
use crate::store::kept::{Found, Kept};
use crate::store::note::Form;
use crate::store::space::{self, Privilege, Space};
use crate::store::status;
use std::ffi::CString;

/// A result whose query must run now.
#[derive(Debug)]
pub struct Renewal {
    found: Found,
    /// The tick at which the result was stored.
    pub created: u32,
}

/// A result must be renewed if a run that begins after this many milliseconds would probably end later than the result. This is
/// longer than the time between two looks of a worker, because the workers of other roles may run in between: there may be more
/// roles than workers (`workers/warming.rs`).
const POLL_MS: u64 = 3000;
/// A result must be at least this many milliseconds old before it is renewed. It must also be at least as old as its query took. So
/// a result that every commit invalidates does not keep a worker busy all the time.
const AGE_MS_MIN: u64 = 1000;

/// Calls `with` with the call that has stored a result. With `refresh`, the call runs the query even if a result is stored. Returns
/// None if the result cannot be kept.
fn with_asked<R>(
    found: &Found,
    refresh: bool,
    with: impl FnOnce(&Asked<'_>, Form) -> Result<R, Refused>,
) -> Result<Option<R>, Refused> {
    let Some((facts, terms)) = found.facts() else { return Ok(None) };
    let owned = (!terms.arguments.is_empty()).then(|| OwnedJsonb::of_bytes(terms.arguments));
    let Some(array) = owned.as_ref().map_or(Some(Array::EMPTY), |owned| Array::of(owned.as_argument()))
    else {
        return Ok(None);
    };
    let tags: Vec<&[u8]> = memory::collect(found.tags());
    let asked = Asked {
        text: facts.text,
        arguments: Arguments::Json(array),
        ttl_ms: terms.ttl_ms,
        tags: &tags,
        stale_ok_ms: None,
        refresh,
        depends: None,
        reader: None,
    };
    with(&asked, facts.form).map(Some)
}

/// Returns the space of a result, if the current role may store results in it.
fn space_of(kept: &Kept) -> Option<std::rc::Rc<Space>> {
    space::with_privilege(kept.space.as_bytes(), Privilege::Write).ok()
}

/// Returns whether sessions like this one find the result. They do not find a result that was stored with other settings. Must be
/// called in a session of the role of the result.
pub fn is_found_here(kept: &Kept) -> Result<bool, Refused> {
    let keyspace = space_of(kept).and_then(|space| space.keyspace());
    let Some(found) = keyspace.and_then(|keyspace| kept.look(&keyspace)) else { return Ok(false) };
    let is_found = with_asked(&found, false, |asked, form| Ok(prefill::has_key(asked, form, &kept.key)?))?;
    Ok(is_found == Some(true))
}

/// Returns the result if its query must run now. Does not run the query.
pub fn due(kept: &Kept) -> Option<Renewal> {
    let found = kept.look(&space_of(kept)?.keyspace()?)?;
    let (_, terms) = found.facts()?;
    let age_ms = shared::ms_since(found.meta.created);
    let is_due = !found.is_valid || is_about_to_expire(&found.meta, terms.ttl_ms, POLL_MS);
    let is_rested = age_ms >= AGE_MS_MIN.max(found.meta.cost.micros() / 1000);
    (is_due && is_rested).then_some(Renewal { created: found.meta.created, found })
}

// The reasons not to run the query of a kept result.
const CHANGED: &str = "a definition has changed";
const FOREIGN_CODE: &str = "an index or statistics of a table use a function of another role";

impl Renewal {
    /// Returns the text of the query.
    pub fn text(&self) -> CString {
        let text = self.found.facts().map_or(&[][..], |(facts, _)| facts.text);
        memory::terminated(text).unwrap_or_default()
    }

    /// Runs the query, unless the result was invalid and is valid by now, or new code would run. Returns None if the result is
    /// stored now, and otherwise the reason why not. Raises the errors of the query.
    pub fn run(&self, kept: &Kept) -> Result<Option<String>, Refused> {
        let space = space::with_privilege(kept.space.as_bytes(), Privilege::Write)?;
        if let Some(why_not) = self.why_not_run(&space, kept) {
            return Ok(Some(why_not.to_owned()));
        }
        let text = self.text();
        status::forget();
        let is_stored = with_asked(&self.found, self.found.is_valid, |asked, form| {
            Ok(prefill::has_key(asked, form, &kept.key)? && prefill::warm(&space, asked, &text, form)?)
        })?;
        Ok(why_not(is_stored == Some(true)))
    }

    /// Locks the relations of the query, and returns the reason if the query must not run now. While this call waits for a lock,
    /// another role may change the definition of a relation, so the check must come after the locks. After that, no role can change
    /// the definition until the transaction ends.
    fn why_not_run(&self, space: &Space, kept: &Kept) -> Option<&'static str> {
        let Some((facts, _)) = self.found.facts() else { return Some(CHANGED) };
        let relations = || facts.read.iter().chain(facts.defined).map(|oid| u32::from_ne_bytes(*oid));
        planner_code::lock(relations());
        let keyspace = space.keyspace()?;
        if kept.look(&keyspace).is_none() {
            return Some(CHANGED);
        }
        planner_code::may_be_foreign(relations()).then_some(FOREIGN_CODE)
    }
}
