//! The figures of observed statements, and what a role may know of them. A statement is *observed* if pg_cache finds out, without
//! changing it, how often `cache_query` would have had its result stored (`pg_cache.observe`, `query/observe.rs`).
//!
//! A role sees its own statements. Roles that may read the queries of other roles (`pg_read_all_stats`) see all statements. So do
//! roles that may see statistics (`pg_monitor`), but without texts and reasons if `pg_read_all_stats` was revoked from
//! `pg_monitor`.

use super::keyspace::hash;
use super::space;
use super::status::Status;
use super::{cause, status};
use crate::pg::encoding;
use crate::pg::memory;
use crate::pg::observed::{Call, PLACES, REASON_BYTES_MAX, Statement, StatementId, TEXT_BYTES_MAX};
use crate::pg::relation;
use crate::pg::role::Role;
use crate::pg::shared;

/// The reason why the result of an observed statement would not have been stored.
#[derive(Clone, Copy, Debug)]
pub enum Reason {
    /// A reason that `cache_query` would have had, too.
    Status(Status),
    /// A reason that only observing has.
    Observing(&'static str),
}

impl From<Status> for Reason {
    fn from(status: Status) -> Self {
        Self::Status(status)
    }
}

impl Reason {
    /// Returns a number that is different for most different reasons, and never 0.
    fn number(self) -> u64 {
        let of = |text: &str, number: u64| hash(text.as_bytes()) ^ number.wrapping_mul(0x9e37_79b9_7f4a_7c15);
        let number = match self {
            Self::Observing(text)
            | Self::Status(
                Status::Miss(text) | Status::Invalidated(text) | Status::Bypass(text) | Status::Refused(text),
            ) => of(text, 0),
            Self::Status(Status::Of(text, object)) => of(text, status::number_of(object)),
            Self::Status(_) => 0,
        };
        number.max(1)
    }

    /// Returns the reason in words, without the word `refused`. May raise errors.
    fn in_words(self) -> String {
        match self {
            Self::Observing(text) => text.to_owned(),
            Self::Status(status) => {
                let words = cause::in_words(status);
                words.strip_prefix("refused: ").map_or_else(|| words.clone(), str::to_owned)
            }
        }
    }
}

/// Counts a call of a statement by the current role, which ran for `run_us` microseconds. `culprit` is the table whose change had
/// invalidated the result before the call. `reason` says why the result would not have been stored; None if it would have been. May
/// raise errors.
pub fn count(
    query_id: u64,
    text: &[u8],
    is_hit: bool,
    run_us: u64,
    culprit: Option<u32>,
    reason: Option<Reason>,
) {
    let id = StatementId { database: shared::database(), role: Role::current().oid(), query_id };
    let text = encoding::clipped(text.trim_ascii(), TEXT_BYTES_MAX);
    let (number, now) = (reason.map(Reason::number), shared::time_now());
    let call = Call { text, is_hit, run_us, culprit, reason: number, now };
    let is_new = shared::with_observed(|table| table.count(id, &call)) == Some(true);
    if let (Some(reason), Some(number)) = (reason.filter(|_| is_new), number) {
        let words = reason.in_words();
        let words = encoding::clipped(words.as_bytes(), REASON_BYTES_MAX);
        shared::with_observed(|table| table.set_reason(id, number, words));
    }
}

/// A statement that the current role may see.
#[derive(Debug)]
pub struct Visible {
    pub statement: Statement,
    /// Whether the role may read the text of the statement, and the reason why it was refused.
    pub is_readable: bool,
}

impl Visible {
    /// Returns the table that has invalidated the most results, if it exists and the current role may know its name.
    pub fn culprit(&self) -> Option<String> {
        relation::name(self.statement.culprit.filter(|_| self.is_readable)?, space::may_monitor())
    }
}

/// Returns the statements of this database that the current role may see. May raise errors.
pub fn visible() -> Vec<Visible> {
    let (role, database) = (Role::current().oid(), shared::database());
    let (monitors, reads_queries) = (space::may_monitor(), space::may_read_queries());
    let mut found = Vec::new();
    for index in 0..PLACES {
        memory::check();
        // Reads one place for each hold of the lock, so that statements never wait for long.
        let Some(Some(statement)) = shared::with_observed(|table| table.statement(index, database)) else {
            continue;
        };
        let is_readable = reads_queries || statement.id.role == role;
        if is_readable || monitors {
            memory::push(&mut found, Visible { statement, is_readable });
        }
    }
    found
}

/// Removes the figures of all statements of this database.
pub fn reset() {
    shared::with_observed(|table| table.reset(shared::database()));
}
