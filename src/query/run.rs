//! Runs a query whose result may be stored, and observes what it reads.
//!
//! *Filling*, that is, computing a value that was not found: the stamp is taken before the snapshot on which the query runs. A
//! result is only stored if its query ran on a new snapshot, not on the caller's. So the result is current as of the stamp, or
//! newer. Its dependencies are observed while the query runs (`pg/observer.rs`), and a reader of the entry notices every change of
//! a dependency since the stamp. `docs/architecture.md` explains the words stamp and fence.

use super::job::Job;
use super::texts::Known;
use crate::pg::environment;
use crate::pg::observer::{self, Seen};
use crate::pg::query::{self, Snapshot};
use crate::pg::{function, shared, transaction};
use crate::store::definitions;
use pg_cache_core::{Cost, FenceId, Reserved, Stamp};
use std::cell::Cell;
use std::time::Instant;

/// With more dependencies than this, a result depends on all definitions together instead of each by itself. The rest of the 255
/// dependencies of an entry is for what is added behind them.
const FENCES_MAX: usize = 240;

/// Returns whether the query may use names that are not identifiers of its text: in the text of a function, in a query that a function
/// in C has run, or in a literal or an argument that names an object.
pub fn may_name_more(seen: &Seen) -> bool {
    let runs_queries = !seen.functions.is_empty() && seen.plans > 1;
    seen.user_function || seen.names_objects || runs_queries
}

/// Adds the fences of the definitions that a result depends on. Composite values have a form that follows types, which are not
/// known here. May raise errors.
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
    /// The stamp at which this session last dropped its plans and its search path.
    static RENEWED: Cell<Stamp> = const { Cell::new(Stamp::VOID) };
}

/// Drops the session's plans and search path if definitions or roles have changed since it last did so, or if the functions that
/// the query calls would not be observed otherwise.
///
/// Cached plans, PL/pgSQL expressions and the resolved search path outlive the invalidation messages that make them wrong. A
/// session may keep reading a table that another table shadows by now, or a schema whose USAGE was revoked. For the session
/// itself this is PostgreSQL's normal behaviour, but a stored result is served to other sessions.
pub fn renew_session() {
    let Some(tier) = shared::tier() else { return };
    let fences = tier.fences();
    let known = RENEWED.get();
    let catalogs = [definitions::any(tier), fences.reserved(Reserved::Roles)];
    let have_changed = catalogs.iter().any(|fence| !fences.holds(*fence, known, Stamp::LATEST));
    // PostgreSQL prepares an expression again after its plan was dropped, and then its functions are observed. Functions that are
    // not built in need this only if definitions have changed since this session first compiled one: one of them may then keep
    // outdated types.
    let have_moved = || fences.has_changed_since(catalogs[0], function::compiled_since());
    let unseen = || observer::has_prepared_untracked() || observer::has_prepared_functions() && have_moved();
    if have_changed || unseen() {
        // The stamp must be taken first: a change that is announced after it is found the next time.
        RENEWED.set(fences.now());
        query::forget_catalogs();
    }
}

/// The outcome of running a query: its result, what it has read and called, and how long it took.
pub struct Run<R> {
    pub result: R,
    pub seen: Seen,
    pub cost: Cost,
}

/// Runs the query and observes what it reads. In a parallel query or a transaction that keeps one snapshot, it runs on the snapshot
/// that is there, and its result must not be stored. Before it runs, `before` is called with the relations that it names.
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
