//! pg_cache: a key-value and query-result cache inside PostgreSQL.
//!
//! A table of contents, by floor; imports point down only. `docs/architecture.md` is the guided tour.

/// SQL in, SQL out: argument checks and documentation, no policy.
mod api;
/// The only rooms in which PostgreSQL's internals appear.
mod pg;
/// Results of queries.
mod query;
/// Entries and transactions: what the cache does.
mod store;

pgrx::pg_module_magic!(name, version);

pgrx::extension_sql_file!("../sql/schema.sql", name = "schema", bootstrap);
pgrx::extension_sql_file!(
    "../sql/spaces.sql",
    name = "spaces",
    requires = [
        api::invalidation::cache_flush,
        api::space::pgcache::changed,
        api::space::pgcache::visible_spaces,
        api::statistics::pgcache::relation_statistics,
        api::statistics::pgcache::space_statistics,
        api::watch::pgcache::visible_watches
    ]
);
pgrx::extension_sql_file!("../sql/comments.sql", name = "comments", finalize);

/// Called by the server when it loads the library.
#[allow(non_snake_case)]
#[pgrx::pg_guard]
extern "C-unwind" fn _PG_init() {
    pg::preload::require();
    pg::allocator::prepare_to_panic();
    pg::local::claim_thread();
    pg::settings::define();
    pg::shared::hook();
    store::pending::listen();
    store::command::listen();
    pg::observer::hook();
}
