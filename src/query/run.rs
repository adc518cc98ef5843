//! Runs a query whose result may be stored, and observes what it reads.
//!
//! To *fill* is to compute a value that was not found. The stamp must be taken before the snapshot on which the query runs. A
//! result must not be stored unless its query ran on a new snapshot. The snapshot of the caller may be older than the stamp. So a
//! stored result is current as of the stamp, or newer. Its dependencies are observed while the query runs (`pg/observer.rs`), and a
//! reader of the entry notices every change of a dependency since the stamp. `docs/architecture.md` explains the words stamp and
//! fence.

use super::job::Job;
use super::texts::Known;
use crate::pg::environment;
use crate::pg::observer::{self, Seen};
use crate::pg::query::Snapshot;
use crate::pg::{function, invalidations, shared, transaction};
use crate::store::definitions;
use pg_cache_core::{Cost, FenceId, Reserved, Stamp};
use std::cell::Cell;
use std::time::Instant;

/// A result with more dependencies than this depends on one fence for all definitions instead of one fence for each definition. An
/// entry has room for 255 dependencies. The difference is a reserve: [`add_definitions`] adds one more fence, that of other
/// definitions.
const FENCES_MAX: usize = 240;

/// Returns whether the query may use a name that is not an identifier in its text. Such a name may be in the text of a function, in
/// a query that a C function has run, or in a literal or an argument that names an object.
pub fn may_name_more(seen: &Seen) -> bool {
    let runs_queries = !seen.functions.is_empty() && seen.plans > 1;
    seen.user_function || seen.names_objects || runs_queries
}

/// Adds the fences of the definitions that a result depends on. The form of a composite value depends on types that are not known
/// here, so a result with composite values depends on all definitions. May raise errors.
pub fn add_definitions(known: &Known, seen: &Seen, has_composites: bool, fences: &mut Vec<FenceId>) {
    let Some(tier) = shared::tier() else { return };
    let path = environment::search_path_names();
    let are_all_seen = !may_name_more(seen) && !has_composites;
    let names = known.text.identifiers.as_ref().filter(|names| {
        are_all_seen && fences.len() + seen.relations_named.len() + names.len() + path.len() <= FENCES_MAX
    });
    let names = names.map(|names| names.iter().chain(&path).map(Vec::as_slice));
    definitions::dependencies(tier, seen.relations_named.iter().copied(), names, fences);
}

thread_local! {
    /// The stamp at which this session last dropped its cached plans and its search path.
    static RENEWED: Cell<Stamp> = const { Cell::new(Stamp::VOID) };
}

/// Drops the cached plans and the search path of the session if definitions or roles have changed since the session last dropped
/// them. Also drops them if the functions that the query calls could not be observed otherwise.
///
/// Cached plans, PL/pgSQL expressions and the resolved search path stay in use after the change that makes them wrong. A session
/// may keep reading a table that another table shadows by now, or a schema whose USAGE was revoked. For the session itself this is
/// PostgreSQL's normal behaviour, but a stored result is served to other sessions.
///
/// Must be called after the stamp of the result is taken and before the query is planned. A change between the stamp and this call
/// invalidates the result; a change before the stamp would not, and must be known here.
pub fn renew_session() {
    let Some(tier) = shared::tier() else { return };
    let fences = tier.fences();
    let known = RENEWED.get();
    let catalogs = [definitions::any(tier), fences.reserved(Reserved::Roles)];
    let have_changed = catalogs.iter().any(|fence| !fences.holds(*fence, known, Stamp::LATEST));
    // PostgreSQL prepares an expression again after its plan was dropped, and the observer then sees the functions of the
    // expression. Functions that are not built in need this only if definitions have changed since this session first compiled one
    // of them: a compiled function may then keep outdated types.
    let have_moved = || fences.has_changed_since(catalogs[0], function::compiled_since());
    let unseen = || observer::has_prepared_untracked() || observer::has_prepared_functions() && have_moved();
    if have_changed || unseen() {
        // The stamp must be taken first, so that the next call finds every change that is announced after it.
        RENEWED.set(fences.now());
        invalidations::forget_catalogs();
    }
}

/// The outcome of running a query: its result, the relations and functions that it has used, and the time that it took.
pub struct Run<R> {
    pub result: R,
    pub seen: Seen,
    pub cost: Cost,
}

/// Runs the query and observes what it reads. Calls `before` with the relations that the query names, before the query runs. In a
/// parallel query or in a transaction that keeps one snapshot, the query runs on the present snapshot, and its result must not be
/// stored.
pub fn run<J: Job>(job: &mut J, before: &mut dyn FnMut(&[u32])) -> Run<J::Result> {
    let on = if transaction::is_parallel() {
        Snapshot::Active
    } else if transaction::keeps_one_snapshot() {
        Snapshot::Transaction
    } else {
        Snapshot::New
    };
    let began = Instant::now();
    let (result, seen) = observer::observe(|| job.run(on, before));
    Run { result, seen, cost: Cost::of(began.elapsed()) }
}
