//! The kinds of values that callers set. `query/fetch.rs` has the kinds of query results, and the core has `Kind::COUNTER`.

use pg_cache_core::Kind;

// `is_readable_as` in `api/value.rs` says which kind can be read as which type.
pub const JSONB: Kind = Kind(1);
pub const TEXT: Kind = Kind(2);
pub const BYTEA: Kind = Kind(3);

/// Returns whether a value of a kind may be copied to a store outside of the server. The result of a query may not: it also depends
/// on definitions, whose changes the journal does not name.
pub fn may_leave(kind: Kind) -> bool {
    [JSONB, TEXT, BYTEA, Kind::COUNTER].contains(&kind)
}
