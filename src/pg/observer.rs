//! Collects what a query reads and calls while it runs: every relation of every plan that starts meanwhile, also inside of
//! functions, and every function that a plan prepares to call.
//!
//! Only *fills* are observed: queries whose results may be stored (`query/fill.rs`), and observed statements of the client
//! (`client_statement.rs`). The query of a fill may call `cache_fetch` itself, so fills can be nested. `executor.rs` and
//! `definition.rs` report what they notice, and this file keeps it for the running fills. Each observed relation becomes a *fence*
//! of the result (`docs/architecture.md`), by which a later change of the relation invalidates it.

use super::call::Call;
use super::local::local;
use super::{allocator, built_in, cursor};
use pgrx::prelude::*;
use std::cell::{Cell, RefCell};
use std::collections::{BTreeMap, BTreeSet};

/// The relations and functions that a fill has read and called, and what else its result depends on.
#[derive(Clone, Debug, Default)]
pub struct Seen {
    /// Relations that were named by a query. A table stands for all its partitions and children.
    pub relations: BTreeSet<u32>,
    /// Relations that were read as partitions or children of other relations.
    pub parts: BTreeSet<u32>,
    /// For each partitioned table in `relations`: its leaf partitions in the executed plans.
    pub(super) leaves: BTreeMap<u32, BTreeSet<u32>>,
    /// The partitioned tables that a plan contains without any leaf partition.
    pub(super) leafless: BTreeSet<u32>,
    /// The views in `relations`. They have no rows of their own.
    pub(super) views: BTreeSet<u32>,
    /// Every relation in the range tables of the query and of the executed plans: also views, partitioned tables, and relations
    /// that the planner removed.
    pub relations_named: BTreeSet<u32>,
    /// Whether the query used the cache. The answer of the cache depends on more than was observed.
    pub cache: bool,
    /// Whether observations were lost because memory was short.
    pub lost: bool,
    /// The first volatile function that the query itself calls; 0 stands for an expression that is volatile without a function.
    pub volatile: Option<u32>,
    /// Whether the query uses TABLESAMPLE.
    pub sampled: bool,
    /// The functions that were called and are not built in.
    pub functions: BTreeSet<u32>,
    /// Whether a built-in function was called whose result depends on state that no fence covers.
    pub untracked: bool,
    /// The first stable built-in function whose result depends on more than arguments, rows, definitions, the role, settings and
    /// the clock.
    pub server_state: Option<u32>,
    /// The first function in a language other than `internal`, `c`, `sql` and `plpgsql`.
    pub foreign_language: Option<u32>,
    /// Whether the query may have read settings: by `current_setting`, or in a function that is not in `internal`, `c` or `sql`.
    pub reads_settings: bool,
    /// Whether the query may have read the clock, also by converting a text such as `today` to a date while it ran.
    pub reads_clock: bool,
    /// Whether a part of the query has certainly read the clock. A function that is not built in sets only `reads_clock`, because
    /// only its volatility is known.
    pub reads_clock_surely: bool,
    /// Whether the query reads `xmin`, `xmax`, `cmin` or `cmax`.
    pub system_columns: bool,
    /// Whether the query contains a constant or a parameter of a type that names objects, such as `regclass`.
    pub names_objects: bool,
    /// Whether the query locks rows.
    pub locks_rows: bool,
    /// Whether the query is not a SELECT, or a statement in its WITH clause changes data.
    pub writes: bool,
    /// Whether the query calls a function that is not built in and not in the language `internal` or `c`.
    pub user_function: bool,
    /// Whether the query read from a cursor that was opened before.
    pub foreign_portal: bool,
    /// How many plans have started.
    pub plans: u32,
    /// Whether this is an observed statement of the client (`client_statement.rs`), and not a query whose result may be stored. The
    /// plans of such a statement must not be changed.
    pub(super) is_of_client: bool,
    /// Whether functions may have been called in parallel workers, where they cannot be observed.
    pub in_workers: bool,
}

impl Seen {
    /// Notes a relation that a plan reads, in its own right or as a part of another relation.
    pub fn note_relation(&mut self, oid: u32, is_part: bool) {
        let oids = if is_part { &mut self.parts } else { &mut self.relations };
        self.lost |= !note(oids, oid);
    }

    /// Returns the relations whose rows decide about the result: `relations` without views, and with the leaf partitions that
    /// were read in place of their partitioned table, unless there are too many.
    pub fn rows_of_relations(&self) -> BTreeSet<u32> {
        let leaves_of = |root: &u32| {
            let few = |leaves: &&BTreeSet<u32>| leaves.len() <= LEAVES_MAX && !self.leafless.contains(root);
            self.leaves.get(root).filter(few)
        };
        let mut rows = BTreeSet::new();
        for relation in self.relations.difference(&self.views) {
            match leaves_of(relation) {
                Some(leaves) => rows.extend(leaves),
                None => _ = rows.insert(*relation),
            }
        }
        rows
    }

    /// Adds what a call of a function means.
    pub(super) fn add_call(&mut self, function: u32, call: &Call) {
        if function >= pg_sys::FirstNormalObjectId {
            self.lost |= !note(&mut self.functions, function);
        }
        self.server_state = self.server_state.or(call.server_state.then_some(function));
        self.foreign_language = self.foreign_language.or(call.foreign_language.then_some(function));
        self.reads_settings |= call.reads_settings;
        self.reads_clock |= call.reads_clock;
        self.reads_clock_surely |= call.reads_clock && function < pg_sys::FirstNormalObjectId;
        self.user_function |= call.user_function;
    }

    /// Adds the findings of an analysis or of another fill, except `volatile` and `is_of_client`. Every other field of [`Seen`]
    /// must be added here, also a new one: otherwise a fill would not know what a nested fill has read.
    pub(super) fn add(&mut self, other: &Self) {
        let Self { relations, parts, leaves, leafless, views, relations_named, functions, .. } = self;
        let mut has_memory = true;
        for (oids, others) in [
            (relations, &other.relations),
            (parts, &other.parts),
            (leafless, &other.leafless),
            (views, &other.views),
            (relations_named, &other.relations_named),
            (functions, &other.functions),
        ] {
            has_memory &= others.iter().all(|oid| note(oids, *oid));
        }
        for (root, others) in &other.leaves {
            has_memory &= others.iter().all(|leaf| note_leaf(leaves, *root, *leaf));
        }
        self.lost |= other.lost || !has_memory;
        self.cache |= other.cache;
        self.sampled |= other.sampled;
        self.untracked |= other.untracked;
        self.server_state = self.server_state.or(other.server_state);
        self.foreign_language = self.foreign_language.or(other.foreign_language);
        self.reads_settings |= other.reads_settings;
        self.reads_clock |= other.reads_clock;
        self.reads_clock_surely |= other.reads_clock_surely;
        self.system_columns |= other.system_columns;
        self.names_objects |= other.names_objects;
        self.locks_rows |= other.locks_rows;
        self.writes |= other.writes;
        self.user_function |= other.user_function;
        self.foreign_portal |= other.foreign_portal;
        self.plans = self.plans.saturating_add(other.plans);
        self.in_workers |= other.in_workers;
    }
}

/// Adds a leaf partition to those of its partitioned table. Returns false if there is no memory for it.
pub(super) fn note_leaf(leaves: &mut BTreeMap<u32, BTreeSet<u32>>, root: u32, leaf: u32) -> bool {
    !allocator::is_short() && note(leaves.entry(root).or_default(), leaf)
}

/// A result depends on the leaf partitions that it reads, in place of their partitioned table, if it reads at most so many of them.
/// An entry has room for a limited number of dependencies (`query/refusals.rs`).
const LEAVES_MAX: usize = 16;

local! {
    /// One element for each running fill; the innermost is the last.
    static FILLS: RefCell<Vec<Seen>> = RefCell::new(Vec::new());
}

local! {
    /// Whether this transaction has prepared a call of an untracked function. PL/pgSQL prepares an expression once in a
    /// transaction, so a later fill that evaluates the expression again does not observe the call.
    static HAS_PREPARED_UNTRACKED: Cell<bool> = Cell::new(false);
}

/// The functions that are not built in and whose calls this transaction has prepared, for the same reason. Functions that plans
/// call do not count: a plan prepares its calls anew whenever it starts.
#[derive(Clone, Copy, Debug)]
struct Prepared {
    functions: [u32; PREPARED_MAX],
    /// The number of functions, which may be greater than [`PREPARED_MAX`]: some are not in the list then.
    count: usize,
}

/// The most functions of which the session remembers that it has prepared their calls.
const PREPARED_MAX: usize = 8;

local! {
    static PREPARED: RefCell<Prepared> = RefCell::new(Prepared { functions: [0; PREPARED_MAX], count: 0 });
}

/// Notes that a plan, or a simple expression of PL/pgSQL, prepares a call of a function.
#[inline]
pub fn note_function(function: u32) {
    let traits = built_in::traits(function);
    if traits.is_untracked() || traits.reads_state() {
        HAS_PREPARED_UNTRACKED.set(true);
    }
    if function >= pg_sys::FirstNormalObjectId {
        PREPARED.with_borrow_mut(|prepared| {
            let known = prepared.count.min(PREPARED_MAX);
            if !prepared.functions[..known].contains(&function) {
                if let Some(free) = prepared.functions.get_mut(prepared.count) {
                    *free = function;
                }
                prepared.count += 1;
            }
        });
    }
}

/// Notes in the running fill that a call of a function is prepared.
pub fn note_call(function: u32, call: &Call) {
    with_fill(|fill| {
        fill.untracked |= built_in::traits(function).is_untracked();
        fill.add_call(function, call);
    });
}

/// Returns whether the running fill knows already that a function is called which is not built in.
pub fn is_noted(function: u32) -> bool {
    FILLS.with_borrow(|fills| fills.last().is_some_and(|fill| fill.functions.contains(&function)))
}

/// Returns whether this transaction may have prepared expressions that call built-in functions which read the state of the server,
/// or functions in other languages than SQL and PL/pgSQL. May raise errors.
pub fn has_prepared_untracked() -> bool {
    let Prepared { functions, count } = PREPARED.with_borrow(|prepared| *prepared);
    let is_foreign = |function: &u32| Call::of(*function).foreign_language;
    HAS_PREPARED_UNTRACKED.get() || count > PREPARED_MAX || functions.iter().take(count).any(is_foreign)
}

/// Returns whether this transaction may have prepared expressions that call functions that are not built in.
#[inline]
pub fn has_prepared_functions() -> bool {
    prepared_functions() > 0
}

/// Returns how many functions that are not built in expressions of this transaction may call.
#[inline]
pub fn prepared_functions() -> usize {
    PREPARED.with_borrow(|prepared| prepared.count)
}

/// Restores what [`prepared_functions`] was before a plan started. The functions that a plan prepares to call do not count,
/// because a plan prepares its calls anew whenever it starts.
#[inline]
pub fn restore_prepared_functions(count: usize) {
    PREPARED.with_borrow_mut(|prepared| prepared.count = count);
}

/// Forgets the prepared calls when the transaction ends. Cannot fail.
#[inline]
pub fn over() {
    HAS_PREPARED_UNTRACKED.set(false);
    restore_prepared_functions(0);
}

/// Returns whether a fill is running.
#[inline]
pub fn is_filling() -> bool {
    FILLS.with_borrow(|fills| !fills.is_empty())
}

/// Calls `note` with what the innermost running fill has read and called, if a fill is running. `note` must not fail.
pub fn with_fill(note: impl FnOnce(&mut Seen)) {
    FILLS.with_borrow_mut(|fills| fills.last_mut().map(note));
}

/// Returns whether the innermost running fill may read settings, as far as is known before its query runs. A function that is not
/// built in may read them, too.
pub fn may_read_settings() -> bool {
    FILLS.with_borrow(|fills| {
        fills.last().is_some_and(|fill| fill.lost || fill.reads_settings || !fill.functions.is_empty())
    })
}

/// Returns whether it is known already that the innermost running fill reads settings.
pub fn reads_settings() -> bool {
    FILLS.with_borrow(|fills| fills.last().is_some_and(|fill| fill.reads_settings))
}

/// Calls `look` with what is known of the innermost running fill. `look` must not call the server: the server may report more.
pub fn look<E>(look: impl FnOnce(&Seen) -> Result<(), E>) -> Result<(), E> {
    FILLS.with_borrow(|fills| fills.last().map_or(Ok(()), look))
}

/// Returns whether the innermost running fill may call functions that are not built in, as far as is known.
pub fn calls_functions() -> bool {
    FILLS.with_borrow(|fills| fills.last().is_some_and(|fill| fill.lost || !fill.functions.is_empty()))
}

/// Notes that a plan may call functions in parallel workers, if the innermost running fill is an observed statement of the client,
/// whose plans must not be changed. Returns whether that fill is such a statement.
pub(super) fn note_workers() -> bool {
    FILLS.with_borrow_mut(|fills| {
        let last = fills.last_mut().filter(|fill| fill.is_of_client);
        last.map(|fill| fill.in_workers = true).is_some()
    })
}

/// Begins to observe a statement of the client, or goes on with it. No fill may be running. [`take_statement`] ends it.
pub(super) fn put_statement(seen: Seen) {
    FILLS.with_borrow_mut(|fills| fills.push(Seen { is_of_client: true, ..seen }));
}

/// Stops observing a statement of the client, and returns what was observed. Also forgets the statement after an error.
pub(super) fn take_statement() -> Option<Seen> {
    FILLS.with_borrow_mut(|fills| {
        fills.first().is_some_and(|fill| fill.is_of_client).then(|| fills.swap_remove(0))
    })
}

/// Notes that the query of the current fill, which is about to run, locks rows.
pub fn note_locks() {
    with_fill(|fill| fill.locks_rows = true);
}

/// Returns whether the query of the current fill locks rows.
pub fn locks_rows() -> bool {
    FILLS.with_borrow(|fills| fills.last().is_some_and(|fill| fill.locks_rows))
}

/// Notes that the query of the current fill, which is about to run, changes rows.
pub fn note_writes() {
    with_fill(|fill| fill.writes = true);
}

/// Calls `run` as if no fill was running. For statements of this library: what they read is not what the query of a fill reads.
pub fn apart<R>(run: impl FnOnce() -> R) -> R {
    /// Puts the fills back, also if `run` ends in an error.
    struct Fills(Vec<Seen>);
    impl Drop for Fills {
        fn drop(&mut self) {
            FILLS.replace(std::mem::take(&mut self.0));
        }
    }
    let _plans = cursor::pause();
    let _fills = Fills(FILLS.take());
    run()
}

/// Notes that the cache, or a table of pg_cache, was read or changed. It counts for every running fill.
#[inline]
pub fn note_cache() {
    if is_filling() {
        FILLS.with_borrow_mut(|fills| fills.iter_mut().for_each(|fill| fill.cache = true));
    }
}

/// Adds the OID of a relation or a function to a set. Returns false if there is no memory for it: the caller must then set
/// [`Seen::lost`].
pub(super) fn note(oids: &mut BTreeSet<u32>, oid: u32) -> bool {
    let has_memory = !allocator::is_short();
    if has_memory {
        oids.insert(oid);
    }
    has_memory
}

/// Runs `run` and returns what it read and called. The observations, except [`Seen::volatile`], count for the enclosing fill, too.
pub fn observe<R>(run: impl FnOnce() -> R) -> (R, Seen) {
    /// Removes the fill from the list, also if `run` ends in an error.
    struct Fill;
    impl Drop for Fill {
        fn drop(&mut self) {
            FILLS.with_borrow_mut(Vec::pop);
        }
    }
    let cursors = cursor::watch();
    FILLS.with_borrow_mut(|fills| fills.push(Seen::default()));
    let fill = Fill;
    let result = run();
    let mut seen = FILLS.with_borrow_mut(|fills| fills.last_mut().map(std::mem::take)).unwrap_or_default();
    seen.foreign_portal |= cursors.has_read_cursor();
    drop(fill);
    with_fill(|around| around.add(&seen));
    (result, seen)
}
