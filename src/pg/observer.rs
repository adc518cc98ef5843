//! Collects what a query reads and calls while it runs: every relation of every plan that starts meanwhile, also inside of
//! functions, and every function that a plan prepares to call.
//!
//! Only *fills* are observed: queries of `cache_fetch` whose results may be stored (`query/fetch.rs`). The query of a fill may call
//! `cache_fetch` itself, so fills can be nested. `executor.rs` and `definition.rs` report what they notice, and this file keeps it
//! for the running fills. Each observed relation becomes a *fence* of the result (`docs/architecture.md`), by which a later change
//! of the relation invalidates it.

use super::allocator;
use super::local::local;
use pgrx::prelude::*;
use std::cell::{Cell, RefCell};
use std::collections::{BTreeMap, BTreeSet};

/// The relations and functions that a fill has read and called, and what else its result depends on.
#[derive(Debug, Default)]
pub struct Seen {
    /// Relations that were named by a query. A table stands for all its partitions and children.
    pub relations: BTreeSet<u32>,
    /// Relations that were read as partitions or children of other relations.
    pub parts: BTreeSet<u32>,
    /// The leaf partitions of each partitioned table in `relations` that the executed plans left over when they were made.
    leaves: BTreeMap<u32, BTreeSet<u32>>,
    /// The partitioned tables of which a plan has no leaf partition.
    whole: BTreeSet<u32>,
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
}

impl Seen {
    /// Notes a relation that a plan reads, in its own right or as a part of another relation.
    pub fn note_relation(&mut self, oid: u32, is_part: bool) {
        let oids = if is_part { &mut self.parts } else { &mut self.relations };
        self.lost |= !note(oids, oid);
    }

    /// Returns the relations whose rows decide about the result: `relations`, in which the leaves that were read replace their
    /// partitioned table, unless there are too many.
    pub fn rows_of_relations(&self) -> BTreeSet<u32> {
        let leaves_of = |root: &u32| {
            self.leaves.get(root).filter(|leaves| leaves.len() <= LEAVES_MAX && !self.whole.contains(root))
        };
        let mut rows = BTreeSet::new();
        for relation in &self.relations {
            match leaves_of(relation) {
                Some(leaves) => rows.extend(leaves),
                None => _ = rows.insert(*relation),
            }
        }
        rows
    }
}

/// A result depends on the leaf partitions that it reads, if a partitioned table has at most so many of them.
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

local! {
    /// Like [`HAS_PREPARED_UNTRACKED`], for functions that are not built in. Functions that plans call do not count: a plan
    /// prepares its calls anew whenever it starts.
    static HAS_PREPARED_FUNCTIONS: Cell<bool> = Cell::new(false);
}

/// The OIDs of built-in functions whose results depend on state that no fence covers, such as indexes, files, constraints,
/// triggers, statistics, publications, replication origins and slots, new schemas, and names of relations. A built-in function has
/// the same OID in all versions of PostgreSQL that have it.
///
/// In this order: `pg_indexam_has_property`, `pg_index_has_property`, `pg_index_column_has_property`, `regclass`,
/// `pg_get_constraintdef`, `pg_get_indexdef`, `pg_get_triggerdef`, `pg_get_serial_sequence`, `pg_table_is_visible`,
/// `pg_get_indexdef`, `pg_get_constraintdef`, `pg_tablespace_databases`, `pg_get_triggerdef`, `pg_relation_filenode`,
/// `pg_relation_filepath`, `pg_listening_channels`, `pg_available_extensions`, `pg_available_extension_versions`,
/// `pg_extension_update_paths`, `pg_identify_object_as_address`, `pg_statistics_obj_is_visible`, `pg_get_statisticsobjdef`,
/// `pg_filenode_relation`, `to_regclass`, `pg_describe_object`, `pg_tablespace_location`, `pg_get_replication_slots`,
/// `pg_identify_object`, `pg_relation_is_updatable`, `pg_column_is_updatable`, `pg_get_object_address`, `to_regnamespace`,
/// `pg_replication_origin_oid`, `pg_get_publication_tables`, `pg_get_replica_identity_index`, `pg_relation_is_publishable`,
/// `pg_get_statisticsobjdef_expressions`, `pg_get_statisticsobjdef_columns`, `pg_get_function_sqlbody`.
const UNTRACKED: [u32; 39] = [
    636, 637, 638, 1079, 1387, 1643, 1662, 1665, 2079, 2507, 2508, 2556, 2730, 2999, 3034, 3035, 3082, 3083,
    3084, 3382, 3403, 3415, 3454, 3495, 3537, 3778, 3781, 3839, 3842, 3843, 3954, 4086, 6005, 6119, 6120,
    6121, 6173, 6174, 6197,
];

/// The same list as a set of bits, one for each OID up to 6207: it is searched for every function of every plan.
const UNTRACKED_BITS: [u64; 97] = {
    let (mut bits, mut index) = ([0; 97], 0);
    while index < UNTRACKED.len() {
        bits[UNTRACKED[index] as usize / 64] |= 1 << (UNTRACKED[index] % 64);
        index += 1;
    }
    bits
};

fn is_untracked(function: u32) -> bool {
    UNTRACKED_BITS.get(function as usize / 64).is_some_and(|bits| bits >> (function % 64) & 1 == 1)
}

/// Notes that a plan, or a simple expression of PL/pgSQL, prepares a call of a function.
#[inline]
pub fn note_function(function: u32) {
    let is_untracked = is_untracked(function);
    if is_untracked {
        HAS_PREPARED_UNTRACKED.set(true);
    }
    if function >= pg_sys::FirstNormalObjectId {
        HAS_PREPARED_FUNCTIONS.set(true);
    }
    if is_filling() {
        with_fill(|fill| {
            if function >= pg_sys::FirstNormalObjectId {
                fill.lost |= !note(&mut fill.functions, function);
            }
            fill.untracked |= is_untracked;
        });
    }
}

/// Returns whether this transaction may have prepared expressions that call untracked functions.
pub fn has_prepared_untracked() -> bool {
    HAS_PREPARED_UNTRACKED.get()
}

/// Returns whether this transaction may have prepared expressions that call functions that are not built in.
#[inline]
pub fn has_prepared_functions() -> bool {
    HAS_PREPARED_FUNCTIONS.get()
}

/// Restores what [`has_prepared_functions`] was before a plan started. The functions that a plan prepares to call do not count,
/// because a plan prepares its calls anew whenever it starts.
#[inline]
pub fn restore_prepared_functions(had_prepared: bool) {
    HAS_PREPARED_FUNCTIONS.set(had_prepared);
}

/// Forgets the prepared calls when the transaction ends. Cannot fail.
#[inline]
pub fn over() {
    HAS_PREPARED_UNTRACKED.set(false);
    HAS_PREPARED_FUNCTIONS.set(false);
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

/// Returns whether the innermost running fill may read settings, as far as is known.
pub fn reads_settings() -> bool {
    FILLS.with_borrow(|fills| fills.last().is_some_and(|fill| fill.reads_settings))
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

/// Notes that the cache, or a table of pg_cache, was read or changed. It counts for every running fill.
#[inline]
pub fn note_cache() {
    if is_filling() {
        FILLS.with_borrow_mut(|fills| fills.iter_mut().for_each(|fill| fill.cache = true));
    }
}

/// Notes that the query of the current fill, which is about to run, calls this volatile function, or is volatile without a function
/// if this is 0.
pub fn note_volatile(function: u32) {
    with_fill(|fill| fill.volatile = Some(function));
}

/// Adds the OID of a relation or a function to a set. Returns false if there is no memory for it: the caller must then set
/// [`Seen::lost`].
fn note(oids: &mut BTreeSet<u32>, oid: u32) -> bool {
    let has_memory = !allocator::is_short();
    if has_memory {
        oids.insert(oid);
    }
    has_memory
}

/// Runs `run` and returns what it read and called. The observations, except `volatile`, count for the enclosing fill, too.
pub fn observe<R>(run: impl FnOnce() -> R) -> (R, Seen) {
    /// Removes the fill from the list, also if `run` ends in an error.
    struct Fill;
    impl Drop for Fill {
        fn drop(&mut self) {
            FILLS.with_borrow_mut(Vec::pop);
        }
    }
    FILLS.with_borrow_mut(|fills| fills.push(Seen::default()));
    let fill = Fill;
    let result = run();
    let seen = FILLS.with_borrow_mut(|fills| fills.last_mut().map(std::mem::take)).unwrap_or_default();
    drop(fill);
    FILLS.with_borrow_mut(|fills| {
        if let Some(around) = fills.last_mut() {
            around.lost |= seen.lost;
            around.lost |= !seen.relations.iter().all(|oid| note(&mut around.relations, *oid));
            around.lost |= !seen.parts.iter().all(|oid| note(&mut around.parts, *oid));
            around.cache |= seen.cache;
            around.sampled |= seen.sampled;
            around.lost |= !seen.functions.iter().all(|oid| note(&mut around.functions, *oid));
            around.untracked |= seen.untracked;
        }
    });
    (result, seen)
}
