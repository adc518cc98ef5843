//! The settings that cannot change the result of a query. `digest.rs` leaves them out of the digest that is a part of each key, so
//! sessions share results although they differ in these settings. A setting that is missing in the lists costs needless misses; one
//! that is wrongly in them could return a wrong result. `tests/sessions/environment.rs` checks the lists.

use pgrx::pg_sys;
use std::collections::BTreeSet;

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

/// Returns the settings in our list of the server's own ones.
pub(super) fn harmless() -> BTreeSet<&'static [u8]> {
    HARMLESS.iter().flat_map(|names| names.split_ascii_whitespace()).map(str::as_bytes).collect()
}

/// Returns whether a setting that is no placeholder (`digest.rs`) cannot change a result, according to our lists. A setting of the
/// server that only the configuration files can change has the same value in all sessions, and no version has one that changes
/// results.
pub(super) fn is_harmless(
    name: &[u8],
    context: pg_sys::GucContext::Type,
    harmless: &BTreeSet<&[u8]>,
) -> bool {
    match name.contains(&b'.') {
        true => HARMLESS_LIBRARIES.iter().any(|prefix| name.starts_with(prefix)),
        false => context == pg_sys::GucContext::PGC_SIGHUP || harmless.contains(name),
    }
}
