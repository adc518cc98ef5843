//! A query whose result a function of pg_cache looks for, computes and stores. The traits [`Job`] and [`Rules`] are the interface
//! between the steps that all these functions share (`fill.rs`, `ticket.rs`) and the steps that differ.

use super::freshness::Look;
use super::texts::Known;
use crate::pg::observer::Seen;
use crate::pg::query::{Query, Snapshot};
use crate::pg::reader::Reader;
use crate::store::note::{Form, Terms};
use crate::store::space::Space;
use crate::store::status::Status;
use pg_cache_core::{Kind, Meta, Stamp};

/// The options of a call for the result of its query.
#[derive(Debug)]
pub struct Wanted<'a> {
    /// The time to live in milliseconds. None: the space's policy decides (`freshness.rs`). With 0, the result is not stored.
    pub ttl_ms: Option<u64>,
    pub tags: &'a [&'a [u8]],
    /// The number of milliseconds for which the caller accepts a result after rows that the result depends on have changed.
    pub stale_ok_ms: Option<u64>,
    /// Whether to compute the result even if a result is stored.
    pub refresh: bool,
    /// The relations that the result depends on, instead of those that the query reads.
    pub depends: Option<&'a [u32]>,
}

impl Wanted<'_> {
    /// Returns the conditions of the call's first look for a result.
    pub fn look(&self, may_renew: bool) -> Look {
        Look { stale_ok_ms: self.stale_ok_ms, may_renew, ..Look::default() }
    }

    /// Returns the conditions of each further look of the call. `arrived` is the moment at which the call began to wait for another
    /// session, on the clock of changes (`flight.rs`). None if it has not waited.
    pub fn look_again(&self, arrived: Option<Stamp>) -> Look {
        Look { arrived, repeats: true, ..self.look(false) }
    }
}

/// The outcome of looking for a stored result.
#[derive(Debug)]
pub enum Found<R> {
    Result(R),
    /// A result with this stamp (`run.rs`) is stored, and the call should renew it.
    Old(Stamp),
    /// No result is stored that the caller accepts. The status says why.
    Nothing,
}

/// The rules for storing the result of a query. They depend on how the function makes the key. [`Job::look`] may change what `key`,
/// `times_left_out`, `is_suspended` and `key_by_settings` return, so a caller must ask them after the look. A *marker* is an entry
/// without a result, which tells a query where to look or why there is no result (`store/kind.rs`).
pub trait Rules {
    /// Whether the caller has chosen the key. Such a key may hold a value that is no result of this query.
    const KEY_IS_CHOSEN: bool;

    fn key(&self) -> &[u8];

    /// Returns what this session knows of the text of the query.
    fn known(&self) -> &Known;

    /// Returns an error if the results of such a query must not be stored.
    fn check(&self, space: &Space, seen: &Seen) -> Result<(), Status>;

    /// Returns an error if a name in the query may mean something else in another session.
    fn check_names(&self, _seen: &Seen) -> Result<(), Status> {
        Ok(())
    }

    /// Returns the least cost, in milliseconds, that a result must have to be stored. None: no such limit.
    fn min_cost_ms(&self, space: &Space) -> Option<u64>;

    /// Returns the longest time to live in milliseconds, for a call that asks for none. None: no such limit.
    fn ttl_ms_max(&self, _seen: &Seen) -> Option<u64> {
        None
    }

    /// Returns how many results of the query in a row, up to the latest, were invalid before they could be stored.
    fn times_left_out(&self) -> u8 {
        0
    }

    /// Returns the key of the marker which says that a stored result was wrong (`verify.rs`).
    fn mark_key(&self) -> Vec<u8>;

    /// Returns whether the results of the query are not stored because a stored result was wrong.
    fn is_suspended(&self, space: &Space) -> bool;

    /// Returns the key for the result if its query reads settings (`asked.rs`), and the kind of the marker that is then stored
    /// under [`key`](Self::key), which leaves out most settings. None if the key is the same with and without settings.
    fn key_by_settings(&self) -> Option<(Vec<u8>, Kind)> {
        None
    }
}

/// A query whose result may be stored, and the form of the result.
///
/// Order of the calls: `look`, and then either `give`, or `run`. After `run` come `check`, `has_composites`, `rows` and
/// `with_value`, which tell of this run. To compare a run with a stored result, `prepare_to_compare` comes before `run`, and
/// `is_same` after it, or `start_anew` and then `give` if the run has failed. The result of such a run must not be stored.
pub trait Job {
    const FORM: Form;

    type Rules: Rules;
    /// The result that the caller of the query gets.
    type Result;
    /// A stored result, before the caller gets it.
    type Stored;

    fn rules(&self) -> &Self::Rules;

    /// Looks for a stored result. The caller must pass a found result to [`give`](Self::give), or run the query instead.
    fn look(&mut self, space: &Space, look: &Look) -> Found<Self::Stored>;

    /// Returns a stored result to the caller of the query. Returns None if the caller cannot use it; the status may then say why.
    fn give(&mut self, stored: Self::Stored) -> Option<Self::Result>;

    /// Returns the metadata of the entry of a stored result.
    fn meta(stored: &Self::Stored) -> Meta;

    /// Prepares for a run whose result is compared with a stored one, and not stored itself.
    fn prepare_to_compare(&mut self) {}

    /// Returns whether the run has returned the rows of the stored result: each row as often, in any order.
    fn is_same(&mut self, stored: &Self::Stored, result: &Self::Result) -> bool;

    /// Discards the rows of a run that has failed, so that the caller can get the stored result.
    fn start_anew(&mut self) {}

    /// Runs the query. Calls `before` after the query is planned and before it runs, with the relations that the query names.
    fn run(&mut self, on: Snapshot, before: &mut dyn FnMut(&[u32])) -> Self::Result;

    /// Returns an error if the form of the result keeps it from being stored.
    fn check(&self) -> Result<(), Status> {
        Ok(())
    }

    /// Returns whether the result has composite values. The form of a composite value depends on definitions.
    fn has_composites(&self, result: &Self::Result) -> bool;

    fn query(&self) -> &Query<'_>;

    /// Returns the role with whose privileges the query reads a relation.
    fn reader(&self) -> Option<Reader> {
        None
    }

    /// Returns the facts by which a worker can run the query again. None if a worker cannot.
    fn terms(&self) -> Option<Terms<'_>> {
        None
    }

    /// Returns how many rows the query has returned.
    fn rows(&self, result: &Self::Result) -> u64;

    /// Calls `store` with the bytes to store for a result. The error says why the result was not stored. It comes from `store` or
    /// from the job.
    fn with_value(
        &mut self,
        space: &Space,
        result: &mut Self::Result,
        store: impl FnOnce(Kind, &[u8]) -> Result<(), Status>,
    ) -> Result<(), Status>;
}
