//! The environment of a session: everything besides data and definitions that the result of a query can depend on. It consists of
//! the roles, the search path and the settings.
//!
//! [`basic`] covers all settings that can change a result, except for placeholders: settings that no library of the session has
//! defined, such as `app.tenant`. Only a query that reads settings by name depends on those. [`full`] covers, for such queries,
//! every setting that can differ between sessions.
//!
//! Only settings that differ from their compiled-in default count, so that loading a library changes nothing.
//!
//! [`basic`] runs at every hit. The session remembers where the values are, the last values and the last digest. A call compares
//! each value with the last one and computes the digest again if one differs. No event has to be caught for that, so SET LOCAL, SET
//! clauses of functions, rollbacks and reloads need no code.

#![allow(unsafe_code)]

use super::local::{check_thread, local};
use super::memory;
use pgrx::pg_sys;
use sha2::{Digest as _, Sha256};
use std::cell::RefCell;
use std::collections::BTreeSet;
use std::ffi::{CStr, CString, c_char, c_int};
use std::sync::atomic::AtomicBool;

/// Settings that cannot change the result of a query. A setting that is in no list counts. Library settings count, except for
/// [`HARMLESS_LIBRARIES`]; settings that only the configuration files can change (`PGC_SIGHUP`) do not count, see [`is_harmless`].
const HARMLESS: [&str; 12] = [
    // The planner: they choose a plan, and each plan of a query returns a correct result.
    "constraint_exclusion cpu_index_tuple_cost cpu_operator_cost cpu_tuple_cost cursor_tuple_fraction debug_parallel_query
     default_statistics_target effective_cache_size enable_async_append enable_bitmapscan enable_distinct_reordering
     enable_gathermerge enable_group_by_reordering enable_hashagg enable_hashjoin enable_incremental_sort enable_indexonlyscan
     enable_indexscan enable_material enable_memoize enable_mergejoin enable_nestloop enable_parallel_append
     enable_parallel_hash enable_partition_pruning enable_partitionwise_aggregate enable_partitionwise_join
     enable_presorted_aggregate enable_self_join_elimination enable_seqscan enable_sort enable_tidscan force_parallel_mode
     from_collapse_limit geqo geqo_effort geqo_generations geqo_pool_size geqo_seed geqo_selection_bias geqo_threshold
     join_collapse_limit min_parallel_index_scan_size min_parallel_table_scan_size parallel_setup_cost parallel_tuple_cost
     plan_cache_mode random_page_cost recursive_worktable_factor seq_page_cost synchronize_seqscans",
    // Compilation of expressions.
    "jit jit_above_cost jit_debugging_support jit_dump_bitcode jit_expressions jit_inline_above_cost jit_optimize_above_cost
     jit_profiling_support jit_tuple_deforming",
    // Memory, temporary files, input and output, parallel workers.
    "backend_flush_after effective_io_concurrency gin_pending_list_limit hash_mem_multiplier io_combine_limit
     logical_decoding_work_mem maintenance_io_concurrency maintenance_work_mem max_parallel_maintenance_workers
     max_parallel_workers max_parallel_workers_per_gather max_stack_depth parallel_leader_participation temp_buffers
     temp_file_limit work_mem",
    // Time limits and connections: they end a statement or a session.
    "client_connection_check_interval deadlock_timeout exit_on_error idle_in_transaction_session_timeout idle_session_timeout
     lock_timeout post_auth_delay send_abort_for_kill ssl_renegotiation_limit statement_timeout tcp_keepalives_count
     tcp_keepalives_idle tcp_keepalives_interval tcp_user_timeout transaction_timeout",
    // Messages to the log and to the client.
    "application_name backtrace_functions client_min_messages debug_pretty_print debug_print_parse debug_print_plan
     debug_print_rewritten escape_string_warning log_btree_build_stats log_connections log_disconnections log_duration
     log_error_verbosity log_executor_stats log_lock_failures log_lock_waits log_min_duration_sample log_min_duration_statement
     log_min_error_statement log_min_messages log_parameter_max_length log_parameter_max_length_on_error log_parser_stats
     log_planner_stats log_replication_commands log_statement log_statement_sample_rate log_statement_stats log_temp_files
     log_transaction_sample_rate md5_password_warnings update_process_title",
    // Statistics and tracing.
    "compute_query_id debug_deadlocks debug_discard_caches trace_lock_oidmin trace_lock_table trace_locks trace_lwlocks
     trace_notify trace_sort trace_syncscan trace_userlocks track_activities track_cost_delay_timing track_counts
     track_functions track_io_timing track_wal_io_timing",
    // The transaction. At each isolation level, a reader gets an entry only if the entry is valid for its snapshot.
    "default_transaction_deferrable default_transaction_isolation default_transaction_read_only transaction_deferrable
     transaction_isolation transaction_read_only",
    // The roles: the digest has their OIDs.
    "role session_authorization",
    // Writing and the write-ahead log.
    "commit_delay commit_siblings default_toast_compression synchronous_commit wal_compression wal_consistency_checking wal_debug
     wal_init_zero wal_recycle wal_skip_threshold",
    // Replication.
    "debug_logical_replication_streaming output_plugin_libraries wal_sender_timeout",
    // VACUUM.
    "vacuum_buffer_usage_limit vacuum_cost_delay vacuum_cost_limit vacuum_cost_page_dirty vacuum_cost_page_hit
     vacuum_cost_page_miss vacuum_failsafe_age vacuum_freeze_min_age vacuum_freeze_table_age
     vacuum_max_eager_freeze_failure_rate vacuum_multixact_failsafe_age vacuum_multixact_freeze_min_age
     vacuum_multixact_freeze_table_age vacuum_truncate",
    // Commands that change definitions.
    "allow_in_place_tablespaces check_function_bodies createrole_self_grant default_table_access_method default_tablespace
     default_with_oids event_triggers extension_control_path extension_destdir file_copy_method icu_validation_level
     password_encryption scram_iterations temp_tablespaces",
];

/// The beginnings of the names of library settings that cannot change the result of a query: they collect statistics, or log.
const HARMLESS_LIBRARIES: [&[u8]; 2] = [b"auto_explain.", b"pg_stat_statements."];

/// The beginning of the names of our own settings. The basic digest leaves them out: a session with `pg_cache.bypass` must store
/// where other sessions read.
const OWN: &[u8] = b"pg_cache.";

/// A SHA-256 hash.
type Hash = [u8; 32];

unsafe extern "C" {
    // Called without pgrx's guard: they raise no errors, and run with every hit.
    fn EstimateLibraryStateSpace() -> pg_sys::Size;
    fn GetSessionUserId() -> pg_sys::Oid;
    fn GetUserIdAndSecContext(user: *mut pg_sys::Oid, context: *mut c_int);
    #[cfg(feature = "pg15")]
    fn GetNumConfigOptions() -> c_int;
}

local! {
    static REMEMBERED: RefCell<Remembered> = RefCell::new(Remembered::NOTHING);
}

/// Returns the digest of what the result of any query can depend on: roles, search path, and settings without placeholders.
pub fn basic() -> Hash {
    digest(false)
}

/// Returns the first eight bytes of [`basic`].
pub fn short() -> u64 {
    basic().first_chunk().map_or(0, |bytes| u64::from_ne_bytes(*bytes))
}

/// Returns the digest of what the result of a query can depend on if the query reads settings by name: [`basic`], placeholders, and
/// all other settings that can differ between sessions.
pub fn full() -> Hash {
    digest(true)
}

/// Returns whether the current role is the role that has logged in: neither SET ROLE, nor SET SESSION AUTHORIZATION, nor a SECURITY
/// DEFINER function has changed it.
pub fn is_of_login() -> bool {
    let who = Who::now();
    // SAFETY: reads a variable of the server.
    who.context == 0
        && who.user == who.session_user
        && who.user == unsafe { pg_sys::GetAuthenticatedUserId() }
}

/// Returns whether the session has a schema for temporary objects.
pub fn has_temporary_schema() -> bool {
    temporary_schema() != pg_sys::InvalidOid
}

/// Returns whether the session has temporary objects. The schema for them stays until the session ends, also when it is empty.
pub fn has_temporary_objects() -> bool {
    // The OID of pg_depend, the numbers of two columns, and the OID of its index on the class and OID of the object that others
    // depend on.
    const DEPENDENCIES: u32 = 2608;
    const REFERENCED_CLASS: pg_sys::AttrNumber = 4;
    const REFERENCED: pg_sys::AttrNumber = 5;
    const BY_REFERENCED: u32 = 2674;
    let schema = temporary_schema();
    if schema == pg_sys::InvalidOid {
        return false;
    }
    let lock = pg_sys::AccessShareLock as c_int;
    // SAFETY: follows the way in which the server scans its catalogs: every object depends on its schema. An error releases
    // everything with the (sub)transaction.
    unsafe {
        let mut keys: [pg_sys::ScanKeyData; 2] = std::mem::zeroed();
        for (key, (column, value)) in
            keys.iter_mut().zip([(REFERENCED_CLASS, pg_sys::NamespaceRelationId), (REFERENCED, schema)])
        {
            let equal = pg_sys::BTEqualStrategyNumber as pg_sys::StrategyNumber;
            pg_sys::ScanKeyInit(key, column, equal, pg_sys::F_OIDEQ.into(), value.into());
        }
        let depend = pg_sys::table_open(DEPENDENCIES.into(), lock);
        let scan = pg_sys::systable_beginscan(
            depend,
            BY_REFERENCED.into(),
            true,
            std::ptr::null_mut(),
            keys.len() as c_int,
            keys.as_mut_ptr(),
        );
        let has_objects = !pg_sys::systable_getnext(scan).is_null();
        pg_sys::systable_endscan(scan);
        pg_sys::table_close(depend, lock);
        has_objects
    }
}

/// Returns whether the session has a temporary relation or type with one of these names.
pub fn in_temporary_schema<'n>(mut names: impl Iterator<Item = &'n [u8]>) -> bool {
    use pg_sys::SysCacheIdentifier::{RELNAMENSP, TYPENAMENSP};
    let schema = temporary_schema();
    schema != pg_sys::InvalidOid
        && names.any(|name| {
            let Some(name) = Name::new(name) else { return false };
            let name = pg_sys::Datum::from(name.0.as_ptr());
            // SAFETY: looks up catalogs by a name that ends with a zero, and a schema.
            [RELNAMENSP, TYPENAMENSP].into_iter().any(|cache| unsafe {
                pg_sys::SearchSysCacheExists(cache as c_int, name, schema.into(), 0.into(), 0.into())
            })
        })
}

/// Returns what the division of a query's text into tokens depends on: whether `standard_conforming_strings` is on, and whether the
/// database's encoding is UTF-8.
pub fn lexing() -> (bool, bool) {
    // SAFETY: reads variables of the server.
    unsafe {
        let is_utf8 = pg_sys::GetDatabaseEncoding() == pg_sys::pg_enc::PG_UTF8 as c_int;
        (pg_sys::standard_conforming_strings, is_utf8)
    }
}

/// Returns the names in the setting `search_path`, with the name of the current role in the place of `$user`. A schema of a name
/// need not exist.
pub fn search_path_names() -> Vec<Vec<u8>> {
    let mut names = Vec::new();
    check_thread();
    // SAFETY: the setting is a text that ends with a zero. The server divides a copy of it in place, so the list has pointers into
    // that copy.
    unsafe {
        let mut list = std::ptr::null_mut();
        let text = pg_sys::pstrdup(pg_sys::namespace_search_path);
        if pg_sys::SplitIdentifierString(text, b',' as c_char, &raw mut list) && !list.is_null() {
            for at in 0..(*list).length as usize {
                let mut name = (*(*list).elements.add(at)).ptr_value.cast::<c_char>().cast_const();
                if CStr::from_ptr(name) == c"$user" {
                    name = pg_sys::GetUserNameFromId(pg_sys::GetUserId(), true);
                }
                if !name.is_null() {
                    memory::push(&mut names, memory::copy(CStr::from_ptr(name).to_bytes()));
                }
            }
        }
        pg_sys::list_free(list);
        pg_sys::pfree(text.cast());
    }
    names
}

fn temporary_schema() -> pg_sys::Oid {
    let (mut schema, mut toast) = (pg_sys::InvalidOid, pg_sys::InvalidOid);
    // SAFETY: copies two variables of the server.
    unsafe { pg_sys::GetTempNamespaceState(&raw mut schema, &raw mut toast) };
    schema
}

/// A name as the server's caches expect it: it ends with a zero.
struct Name([u8; pg_sys::NAMEDATALEN as usize]);

impl Name {
    /// Returns None if there cannot be an object of this name.
    fn new(name: &[u8]) -> Option<Self> {
        let mut bytes = [0; pg_sys::NAMEDATALEN as usize];
        let is_possible = name.len() < bytes.len() && !name.contains(&0);
        is_possible.then(|| {
            bytes[..name.len()].copy_from_slice(name);
            Self(bytes)
        })
    }
}

fn digest(full: bool) -> Hash {
    let mut buffer = [pg_sys::InvalidOid; 32];
    let mut longer = Vec::new();
    let who = Who::now();
    // May look up catalogs and raise an error, so it comes before the state is borrowed.
    let path = search_path(&mut buffer, &mut longer);
    if !REMEMBERED.with_borrow(|remembered| remembered.has_all_settings(full)) {
        let found = Remembered::new();
        REMEMBERED.with_borrow_mut(|remembered| *remembered = found);
    }
    REMEMBERED.with_borrow_mut(|remembered| {
        remembered.compare(who, path, full);
        let place = &remembered.digests[usize::from(full)];
        place.unwrap_or_else(|| {
            let hash = remembered.hash(full);
            remembered.digests[usize::from(full)] = Some(hash);
            hash
        })
    })
}

/// Returns the OIDs of the schemas in the search path, including those that are searched implicitly, except for the session's
/// temporary schema: its OID differs between sessions that have the same search path.
fn search_path<'b>(buffer: &'b mut [pg_sys::Oid], longer: &'b mut Vec<pg_sys::Oid>) -> &'b [pg_sys::Oid] {
    // SAFETY: the server writes at most as many OIDs as there is room for, and returns how many there are.
    let fetch = |room: &mut [pg_sys::Oid]| unsafe {
        pg_sys::fetch_search_path_array(room.as_mut_ptr(), room.len() as c_int) as usize
    };
    let count = fetch(buffer);
    if count <= buffer.len() {
        return &buffer[..count];
    }
    memory::reserve(longer, count);
    longer.resize(count, pg_sys::InvalidOid);
    let count = fetch(longer).min(count);
    &longer[..count]
}

/// For whom a query runs.
#[derive(Clone, Copy, PartialEq, Eq)]
struct Who {
    database: pg_sys::Oid,
    user: pg_sys::Oid,
    session_user: pg_sys::Oid,
    /// The flags of the security context: whether a SECURITY DEFINER function runs, and whether row security holds for owners.
    context: c_int,
}

impl Who {
    const NOBODY: Self = Self {
        database: pg_sys::InvalidOid,
        user: pg_sys::InvalidOid,
        session_user: pg_sys::InvalidOid,
        context: 0,
    };

    fn now() -> Self {
        check_thread();
        let mut now = Self::NOBODY;
        // SAFETY: copies variables of the server.
        unsafe {
            now.database = pg_sys::MyDatabaseId;
            now.session_user = GetSessionUserId();
            GetUserIdAndSecContext(&raw mut now.user, &raw mut now.context);
        }
        now
    }
}

/// The memory of the last calls.
struct Remembered {
    /// How much memory the names of the loaded libraries take. It grows when the session loads a library, which may define settings
    /// and replace placeholders by them. 0: nothing is remembered.
    libraries: usize,
    /// How many settings there were, including placeholders.
    settings: c_int,
    who: Who,
    path: Vec<pg_sys::Oid>,
    /// The settings that the basic digest covers. The server never removes them.
    counting: Vec<Setting>,
    /// The settings that only the full digest covers.
    others: Vec<Setting>,
    /// The names of the placeholders among `others`. The server frees a placeholder when a library defines or reserves its name.
    placeholders: Vec<CString>,
    /// The basic and the full digest, if nothing they cover has changed since they were computed.
    digests: [Option<Hash>; 2],
}

impl Remembered {
    const NOTHING: Self = Self {
        libraries: 0,
        settings: 0,
        who: Who::NOBODY,
        path: Vec::new(),
        counting: Vec::new(),
        others: Vec::new(),
        placeholders: Vec::new(),
        digests: [None; 2],
    };

    /// Finds the settings of the session.
    fn new() -> Self {
        let mut found = Self { libraries: libraries(), ..Self::NOTHING };
        let harmless: BTreeSet<&[u8]> =
            HARMLESS.iter().flat_map(|names| names.split_ascii_whitespace()).map(str::as_bytes).collect();
        with_settings(|records| {
            found.settings = records.len() as c_int;
            for record in records {
                // SAFETY: the server's records of settings are valid until the server is called again.
                unsafe {
                    let name = CStr::from_ptr((**record).name);
                    let context = (**record).context;
                    let is_fixed = matches!(
                        context,
                        pg_sys::GucContext::PGC_POSTMASTER | pg_sys::GucContext::PGC_INTERNAL
                    );
                    let Some(setting) = Setting::of(*record) else { continue };
                    if setting.default.is_none() {
                        if let Some(name) = memory::terminated(name.to_bytes()) {
                            memory::push(&mut found.placeholders, name);
                        }
                        memory::push(&mut found.others, setting);
                    } else if is_fixed
                        || name.to_bytes().starts_with(OWN)
                        || is_harmless(name.to_bytes(), context, &harmless)
                    {
                        memory::push(&mut found.others, setting);
                    } else {
                        memory::push(&mut found.counting, setting);
                    }
                }
            }
        });
        found
    }

    /// Returns whether the lists of settings are complete, and all their records are valid.
    ///
    /// Only a library defines settings, when it is loaded. On PostgreSQL 15, the number of settings shows those of a library that
    /// defines them later as well. Other versions count settings at a high cost, so they count them for the full digest only, which
    /// must know new placeholders.
    fn has_all_settings(&self, full: bool) -> bool {
        self.libraries == libraries()
            && (!(full || cfg!(feature = "pg15")) || self.settings == count_settings())
            && (!full || self.placeholders.iter().all(|name| is_placeholder(name)))
    }

    /// Compares everything that a digest covers with what is remembered, and forgets the digest if something differs.
    fn compare(&mut self, who: Who, path: &[pg_sys::Oid], full: bool) {
        if self.who != who || self.path != path {
            self.digests = [None; 2];
            self.who = who;
            self.path.clear();
            memory::reserve(&mut self.path, path.len());
            self.path.extend_from_slice(path);
        }
        for setting in &mut self.counting {
            // SAFETY: the record is that of a setting that the server never removes.
            unsafe { setting.update(|| self.digests = [None; 2]) };
        }
        if full {
            for setting in &mut self.others {
                // SAFETY: `has_all_settings` has just checked that the records are valid.
                unsafe { setting.update(|| self.digests[1] = None) };
            }
        }
    }

    fn hash(&self, full: bool) -> Hash {
        let mut hash = Sha256::new();
        let Who { database, user, session_user, context } = self.who;
        for word in [database, user, session_user] {
            hash.update(word.to_u32().to_ne_bytes());
        }
        hash.update(context.to_ne_bytes());
        hash.update(self.path.len().to_ne_bytes());
        for schema in &self.path {
            hash.update(schema.to_u32().to_ne_bytes());
        }
        for setting in self.counting.iter().chain(self.others.iter().filter(|_| full)) {
            // SAFETY: as in `compare`, which was called before.
            unsafe { setting.add_to(&mut hash) };
        }
        hash.finalize().into()
    }
}

/// Returns whether a setting that is no placeholder cannot change a result, according to our lists. A setting of the server that
/// only the configuration files can change has the same value in all sessions, and no version has one that changes results.
fn is_harmless(name: &[u8], context: pg_sys::GucContext::Type, harmless: &BTreeSet<&[u8]>) -> bool {
    match name.contains(&b'.') {
        true => HARMLESS_LIBRARIES.iter().any(|prefix| name.starts_with(prefix)),
        false => context == pg_sys::GucContext::PGC_SIGHUP || harmless.contains(name),
    }
}

/// Binds the setting `transaction_read_only` of this process to another variable. Then the server's own variable can forbid
/// writing, while queries and digests see the setting as in a usual session. Must be called before the first digest.
pub fn separate_read_only(variable: &'static AtomicBool) {
    with_settings(|records| {
        for record in records {
            // SAFETY: the server's record of a setting of this process, which the server itself changes, too. The new variable
            // lives as long as the process, and has the type of the setting.
            unsafe {
                let is_it = CStr::from_ptr((**record).name) == c"transaction_read_only";
                if is_it && (**record).vartype == pg_sys::config_type::PGC_BOOL {
                    (*record.cast_mut().cast::<pg_sys::config_bool>()).variable = variable.as_ptr();
                }
            }
        }
    });
}

/// Returns a number that grows when the session loads a library.
fn libraries() -> usize {
    check_thread();
    // SAFETY: adds up the lengths of the names in the server's list of libraries.
    unsafe { EstimateLibraryStateSpace() }
}

#[cfg(feature = "pg15")]
fn count_settings() -> c_int {
    check_thread();
    // SAFETY: reads a variable of the server.
    unsafe { GetNumConfigOptions() }
}

#[cfg(not(feature = "pg15"))]
fn count_settings() -> c_int {
    let mut count = 0;
    with_settings(|records| count = records.len() as c_int);
    count
}

fn is_placeholder(name: &CStr) -> bool {
    // SAFETY: searches the server's settings by a name that ends with a zero. An unknown name has no flags.
    let flags = unsafe { pg_sys::GetConfigOptionFlags(name.as_ptr(), true) };
    flags & pg_sys::GUC_CUSTOM_PLACEHOLDER as c_int != 0
}

/// Passes the records of all settings, sorted by name. The records are valid while `call` calls no function of the server.
pub(super) fn with_settings(call: impl FnOnce(&[*const pg_sys::config_generic])) {
    check_thread();
    #[cfg(feature = "pg15")]
    // SAFETY: the server has an array of so many pointers.
    unsafe {
        let records = pg_sys::get_guc_variables().cast_const().cast();
        call(std::slice::from_raw_parts(records, count_settings() as usize));
    }
    #[cfg(not(feature = "pg15"))]
    // SAFETY: the server returns a new array of so many pointers.
    unsafe {
        let mut count = 0;
        let records = pg_sys::get_guc_variables(&raw mut count);
        call(std::slice::from_raw_parts(records.cast_const().cast(), count as usize));
        pg_sys::pfree(records.cast());
    }
}

/// Where the server keeps the value of a setting.
#[derive(Clone, Copy)]
enum Place {
    Bool(*const bool),
    /// Also that of an enumeration.
    Int(*const c_int),
    Real(*const f64),
    Text(*const *mut c_char),
}

/// The value of a setting. A missing text is another value than an empty one.
#[derive(Clone, Copy, PartialEq, Eq)]
enum Value<'v> {
    Word(u64),
    Text(Option<&'v [u8]>),
}

/// A setting with its last value.
struct Setting {
    record: *const pg_sys::config_generic,
    place: Place,
    /// Where the compiled-in default is. A placeholder has none: its name is unknown in a session that has not set it.
    default: Option<Place>,
    /// The last value, if it is not a text.
    word: u64,
    /// The last value, if it is a text.
    text: Option<Vec<u8>>,
}

impl Setting {
    /// Makes a setting of its record. Returns None if its type is unknown.
    ///
    /// # Safety
    /// The record must be valid.
    unsafe fn of(record: *const pg_sys::config_generic) -> Option<Self> {
        use pg_sys::config_type::{PGC_BOOL, PGC_ENUM, PGC_INT, PGC_REAL, PGC_STRING};
        use pg_sys::{config_bool, config_enum, config_int, config_real, config_string};
        // SAFETY: the type tells of which structure the record is the beginning.
        let (place, default, flags) = unsafe {
            let (place, default) = match (*record).vartype {
                PGC_BOOL => {
                    let record = record.cast::<config_bool>();
                    (Place::Bool((*record).variable), Place::Bool(&raw const (*record).boot_val))
                }
                PGC_INT => {
                    let record = record.cast::<config_int>();
                    (Place::Int((*record).variable), Place::Int(&raw const (*record).boot_val))
                }
                PGC_REAL => {
                    let record = record.cast::<config_real>();
                    (Place::Real((*record).variable), Place::Real(&raw const (*record).boot_val))
                }
                PGC_STRING => {
                    let record = record.cast::<config_string>();
                    let default = &raw const (*record).boot_val;
                    (Place::Text((*record).variable), Place::Text(default.cast()))
                }
                PGC_ENUM => {
                    let record = record.cast::<config_enum>();
                    (Place::Int((*record).variable), Place::Int(&raw const (*record).boot_val))
                }
                _ => return None,
            };
            (place, default, (*record).flags)
        };
        let is_placeholder = flags & pg_sys::GUC_CUSTOM_PLACEHOLDER as c_int != 0;
        Some(Self { record, place, default: (!is_placeholder).then_some(default), word: 0, text: None })
    }

    /// If the value is not the last one, calls `call` and remembers the value.
    ///
    /// # Safety
    /// The record must be valid.
    #[inline]
    unsafe fn update(&mut self, call: impl FnOnce()) {
        // SAFETY: the place is that of a valid record.
        let value = unsafe { self.place.value() };
        if value == self.last() {
            return;
        }
        call();
        match value {
            Value::Word(word) => self.word = word,
            Value::Text(text) => self.text = text.map(memory::copy),
        }
    }

    #[inline]
    fn last(&self) -> Value<'_> {
        match self.place {
            Place::Text(_) => Value::Text(self.text.as_deref()),
            _ => Value::Word(self.word),
        }
    }

    /// Adds name and value to a hash, unless the last value is the compiled-in default.
    ///
    /// # Safety
    /// The record must be valid.
    unsafe fn add_to(&self, hash: &mut Sha256) {
        // SAFETY: as the caller promises. The name ends with a zero.
        let (name, default) =
            unsafe { (CStr::from_ptr((*self.record).name), self.default.map(|default| default.value())) };
        if default == Some(self.last()) {
            return;
        }
        hash.update(name.to_bytes_with_nul());
        match self.last() {
            Value::Word(word) => {
                hash.update([0]);
                hash.update(word.to_ne_bytes());
            }
            Value::Text(None) => hash.update([1]),
            Value::Text(Some(text)) => {
                hash.update([2]);
                hash.update(text.len().to_ne_bytes());
                hash.update(text);
            }
        }
    }
}

impl Place {
    /// Returns the value. A text lives until the server is called again.
    ///
    /// # Safety
    /// The place must be that of a valid record.
    #[inline]
    unsafe fn value<'v>(self) -> Value<'v> {
        // SAFETY: as the caller promises. The server sets a text to null or to one that ends with a zero.
        unsafe {
            match self {
                Self::Bool(place) => Value::Word((*place).into()),
                Self::Int(place) => Value::Word(*place as u64),
                Self::Real(place) => Value::Word((*place).to_bits()),
                Self::Text(place) => {
                    let text = *place;
                    Value::Text((!text.is_null()).then(|| CStr::from_ptr(text).to_bytes()))
                }
            }
        }
    }
}

/// Returns the basic or the full digest as a text. For tests, in debug builds only (`CREATE FUNCTION … AS '$libdir/pg_cache',
/// 'environment_digest_wrapper'`).
#[cfg(debug_assertions)]
#[pgrx::pg_extern(sql = false)]
fn environment_digest(full: bool) -> String {
    digest(full).iter().map(|byte| format!("{byte:02x}")).collect()
}

/// Returns whether one of the names is that of a temporary relation or type. For tests, in debug builds only.
#[cfg(debug_assertions)]
#[pgrx::pg_extern(sql = false)]
fn names_temporary(names: Vec<String>) -> bool {
    in_temporary_schema(names.iter().map(String::as_bytes))
}

/// Returns the names in the search path. For tests, in debug builds only.
#[cfg(debug_assertions)]
#[pgrx::pg_extern(sql = false)]
fn names_in_search_path() -> Vec<String> {
    search_path_names().into_iter().map(|name| String::from_utf8_lossy(&name).into_owned()).collect()
}

/// Returns the average nanoseconds of a digest when nothing has changed. Only builds with the feature `measure` have this function
/// (`CREATE FUNCTION … AS '$libdir/pg_cache', 'measure_environment_wrapper'`).
#[cfg(feature = "measure")]
#[pgrx::pg_extern(sql = false)]
fn measure_environment(times: i32, full: bool) -> f64 {
    let started = std::time::Instant::now();
    for _ in 0..times {
        std::hint::black_box(digest(full));
    }
    started.elapsed().as_secs_f64() * 1e9 / f64::from(times)
}
