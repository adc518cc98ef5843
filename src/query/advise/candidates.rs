//! Finds, among the statements that `statements.rs` has collected ([`Evidences`]), those that take long enough and whose results
//! the cache could store. A statement is skipped if results of its text are stored already, or are not stored any more because one
//! was wrong. No statement runs: this file only parses and analyzes the texts, in subtransactions that are rolled back, so that no
//! lock remains.

use super::changes::root_of;
use super::format::in_one_line;
use super::statements::{Evidences, LOCK_TIMEOUT_MS, Statement};
use super::stored::{Group, Groups};
use crate::pg::error::{OrRaise, SqlState};
use crate::pg::jsonb::Array;
use crate::pg::observed::TEXT_BYTES_MAX;
use crate::pg::outline::{Outline, outline};
use crate::pg::query::{self, Arguments, Sketch};
use crate::pg::shared::{self, HotTier};
use crate::pg::{memory, observer, settings, subtransaction};
use crate::query::asked::Asked;
use crate::query::job::{Rules, Wanted};
use crate::query::refusals;
use crate::query::search::Search;
use crate::query::worth;
use crate::store::note::Form;
use crate::store::space;
use std::collections::BTreeSet;
use std::ffi::CString;

/// The most statements that are analyzed. Statements that have taken the most time come first.
const ANALYZED_MAX: usize = 1000;
/// The limit of each wait for a lock after the first wait that has ended without the lock, in milliseconds. The first wait has
/// [`LOCK_TIMEOUT_MS`]. A thousand statements on a locked table would otherwise wait for 100 s.
const LATER_LOCK_TIMEOUT_MS: u32 = 1;

/// A statement that may be worth caching, and what its analysis shows.
pub struct Candidate {
    pub id: i64,
    pub statement: Statement,
    /// The relations, columns and parameters that the analysis has found.
    pub sketch: Sketch,
    pub reads_clock: bool,
    /// Whether the query calls functions whose reads are not known before they run.
    pub reads_unknown: bool,
    /// The tables that it names. For a partition or a child, the topmost table above it.
    pub roots: BTreeSet<u32>,
}

/// Why a statement is left out.
pub enum LeftOut {
    /// It is no query.
    NoQuery,
    /// Its result would not be stored.
    Refused,
    /// It cannot be analyzed in this session, for instance because a table is not in the search path or is locked.
    Unclear,
}

/// The number of statements in [`Evidences`], and the numbers of those that are left out, by the reason. A statement that takes too
/// little time, that is beyond [`ANALYZED_MAX`], or that is no query, counts in `seen` only.
#[derive(Default)]
pub struct Counts {
    /// All statements. `mod.rs` counts them.
    pub seen: usize,
    /// Results of the statement are stored already, or are not stored any more because one was wrong.
    pub cached: usize,
    /// [`LeftOut::Refused`].
    pub refused: usize,
    /// [`LeftOut::Unclear`].
    pub unclear: usize,
    /// Candidates that are not worth caching (`worth.rs`). `mod.rs` counts them.
    pub unworthy: usize,
}

/// Returns the statements that take long enough and whose results the cache could store. The statement that has taken the most time
/// comes first. Takes all statements out of `found`, so `changes::writes` must have read them before. Adds to the fields of
/// `counts` that `mod.rs` does not count.
pub fn candidates(
    tier: &HotTier,
    groups: &Groups,
    found: &mut Evidences,
    counts: &mut Counts,
) -> Vec<Candidate> {
    let floor_ms = worth::floor_ms(settings::min_cost_ms() as f64);
    let is_cached = |(_, group): &(_, &Group)| group.results > 0.0 || group.has_differed;
    let texts = groups.iter().filter(is_cached).map(|((_, text), _)| in_one_line(text));
    let cached: BTreeSet<Vec<u8>> = memory::collect(texts).into_iter().collect();
    let mut dear = Vec::new();
    for (id, statement) in std::mem::take(&mut found.statements) {
        if statement.calls > 0.0 && statement.total_ms / statement.calls >= floor_ms {
            memory::push(&mut dear, (id, statement));
        }
    }
    dear.sort_by(|a, b| b.1.total_ms.total_cmp(&a.1.total_ms));
    dear.truncate(ANALYZED_MAX);
    let mut candidates = Vec::new();
    let mut lock_timeout_ms = LOCK_TIMEOUT_MS;
    for (id, statement) in dear {
        memory::check();
        shared::check_for_interrupts();
        if cached.contains(&in_one_line(&statement.text)) {
            counts.cached += 1;
            continue;
        }
        match analyzed(tier, &statement, &mut lock_timeout_ms) {
            Ok((sketch, reads_clock, reads_unknown, roots)) => {
                let candidate = Candidate { id, statement, sketch, reads_clock, reads_unknown, roots };
                memory::push(&mut candidates, candidate);
            }
            Err(LeftOut::NoQuery) => {}
            Err(LeftOut::Refused) => counts.refused += 1,
            Err(LeftOut::Unclear) => counts.unclear += 1,
        }
    }
    candidates
}

/// The fields of a [`Candidate`] that an analysis finds: `sketch`, `reads_clock`, `reads_unknown`, `roots`.
type Analyzed = (Sketch, bool, bool, BTreeSet<u32>);

/// Returns the text of a query with a zero at its end. Refuses a text with string constants: the analysis of a string calls the
/// input function of its type and the constraints of a domain, which may be code of another role. If `is_of_one_call`, the text is
/// that of one call ([`Statement::is_of_one_call`]). Such a text must have no constants at all, because other calls of the
/// statement may have other constants.
pub fn without_strings(text: &[u8], is_of_one_call: bool) -> Result<CString, LeftOut> {
    let terminated = memory::terminated(text).ok_or(LeftOut::Unclear)?;
    match subtransaction::probe(LOCK_TIMEOUT_MS, || outline(&terminated)) {
        Ok(Outline::Query(constants)) if constants.strings || is_of_one_call && constants.any => {
            Err(LeftOut::Unclear)
        }
        Ok(Outline::Query(_)) => Ok(terminated),
        Ok(_) => Err(LeftOut::NoQuery),
        Err(_) => Err(LeftOut::Unclear),
    }
}

/// Analyzes a text as a statement of this session. `lock_timeout_ms` is the limit of a wait for a lock. If a wait ends without the
/// lock, the call lowers it to [`LATER_LOCK_TIMEOUT_MS`] for the further statements.
fn analyzed(tier: &HotTier, statement: &Statement, lock_timeout_ms: &mut u32) -> Result<Analyzed, LeftOut> {
    let text: &[u8] = &statement.text;
    // The text of one call comes from the observing mode (`pg_cache.observe`, `query/observe.rs`). It keeps only the first bytes of
    // a long text, up to the end of a character. A character has up to four bytes, so a text that is less than four bytes shorter
    // than the limit may be cut off.
    if statement.is_of_one_call && text.len() + 4 > TEXT_BYTES_MAX {
        return Err(LeftOut::Unclear);
    }
    let terminated = without_strings(text, statement.is_of_one_call)?;
    let analyze = || {
        let (sketch, mut seen) = observer::observe(|| query::sketch(&terminated));
        let named = seen.relations_named.iter().chain(&sketch.relations).copied();
        let named: BTreeSet<u32> = memory::collect(named).into_iter().collect();
        named.iter().for_each(|oid| seen.note_relation(*oid, false));
        let asked = Asked {
            text,
            arguments: Arguments::Json(Array::EMPTY),
            ttl_ms: None,
            tags: &[],
            stale_ok_ms: None,
            refresh: false,
            depends: None,
            reader: None,
        };
        let search = Search::new(&asked, Form::Rows).or_raise();
        // `Search::check` gives the same answer for each space, a named cache in the database. Nothing is read or stored in this
        // one, so the caller needs no privilege in it.
        let space = space::without_privilege(b"default").or_raise();
        let wanted: Wanted<'_> = asked.wanted();
        let may_store = sketch.anonymous_record.is_none()
            && !search.may_be_temporary()
            && refusals::check_before(tier, &wanted, &seen).is_ok()
            && search.check(&space, &seen).is_ok();
        let reads_clock = search.ttl_ms_max(&seen).is_some();
        let roots: BTreeSet<u32> = seen.relations.iter().map(|oid| root_of(*oid)).collect();
        may_store.then_some((sketch, reads_clock, seen.user_function, roots))
    };
    match subtransaction::probe(*lock_timeout_ms, analyze) {
        Ok(Some(analyzed)) => Ok(analyzed),
        Ok(None) => Err(LeftOut::Refused),
        Err(failure) => {
            if failure.code == SqlState::LOCK_NOT_AVAILABLE {
                *lock_timeout_ms = LATER_LOCK_TIMEOUT_MS;
            }
            Err(LeftOut::Unclear)
        }
    }
}
