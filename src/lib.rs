//! pg_cache: a key-value and query-result cache inside PostgreSQL.
//!
//! This file lists the modules and installs the hooks when the server loads the library. The layers, from top to bottom, are `api`
//! and `workers`, `query`, `store` and `pg`; below them is the crate `pg_cache_core` (`src/core/`). A module may import from its
//! own layer and from lower ones. `docs/architecture.md` explains the layers.

/// The SQL functions: they check arguments and convert values. They make no decisions about caching.
mod api;
/// The interface to PostgreSQL. Only this module uses PostgreSQL's internals.
mod pg;
/// Caching of query results.
mod query;
/// Entries, transactions and spaces: the logic of the cache.
mod store;
/// Background workers.
mod workers;

pgrx::pg_module_magic!(name, version);

// The parts of the script of CREATE EXTENSION. `requires` names the functions and parts that must exist before a part runs.
pgrx::extension_sql_file!("../sql/schema.sql", name = "schema", bootstrap);
pgrx::extension_sql_file!("../sql/segments.sql", name = "segments", requires = ["schema"]);
pgrx::extension_sql_file!(
    "../sql/spaces.sql",
    name = "spaces",
    requires = [
        api::content::pgcache::dependencies,
        api::content::pgcache::entries,
        api::content::pgcache::queries,
        api::event::pgcache::visible_events,
        api::grant::pgcache::grant_restored,
        api::grant::pgcache::visible_grants,
        api::invalidation::cache_flush,
        api::space::pgcache::changed,
        api::space::pgcache::visible_spaces,
        api::statistics::pgcache::relation_statistics,
        api::statistics::pgcache::space_statistics,
        api::statistics::pgcache::space_summary,
        api::statistics::pgcache::usage,
        api::statistics::pgcache::workers,
        api::watch::pgcache::visible_watches
    ]
);
pgrx::extension_sql_file!(
    "../sql/monitoring.sql",
    name = "monitoring",
    requires = [
        "schema",
        api::metrics::pgcache::latency,
        api::metrics::pgcache::metrics,
        api::metrics::pgcache::verification,
        api::observe::pgcache::observed
    ]
);
pgrx::extension_sql_file!(
    "../sql/views.sql",
    name = "views",
    requires = ["schema", api::view::pgcache::view_owner_handler]
);
pgrx::extension_sql_file!(
    "../sql/warmers.sql",
    name = "warmers",
    requires = [
        "schema",
        api::warmer::pgcache::visible_warmers,
        api::warmer::pgcache::warmer_changed,
        api::warmer::pgcache::warmer_replicated,
        api::warmer::pgcache::warmer_restored
    ]
);
pgrx::extension_sql_file!("../sql/comments.sql", name = "comments", finalize);

/// Installs hooks, settings and callbacks. The server calls it when it loads the library. `require` must come first: it raises an
/// error unless the postmaster is loading the library. `define` must come before `workers::register`, which reads a setting.
/// `executor::hook` must come before `observe::watch`, whose own hook of the executor must call the former (`client_statement.rs`).
#[allow(non_snake_case)]
#[pgrx::pg_guard]
extern "C-unwind" fn _PG_init() {
    pg::preload::require();
    pg::allocator::prepare_to_panic();
    pg::local::claim_thread();
    pg::settings::define();
    pg::log_mask::hook();
    pg::row_changes::hook();
    pg::shared::hook();
    store::transaction::pending::listen();
    store::command::listen();
    pg::executor::hook();
    query::observe::watch();
    #[cfg(debug_assertions)]
    pg::targets::hook();
    workers::register();
}
