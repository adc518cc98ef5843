//! The kinds of values: those that callers set, and results of queries. An entry stores its kind as a number. The kinds of entries
//! that queries make must have consecutive numbers, from [`NOTHING`] to [`DIFFERED`] ([`is_of_query`]). The core has
//! `Kind::COUNTER`. Every function of this file must know a new kind.
//!
//! A *marker* is an entry without a result, which tells a query where to look or why there is no result. A *note* is bytes that are
//! stored beside a value, and has the facts about a query result (`note.rs`).

use pg_cache_core::Kind;

// The values that users set, by their SQL type. `is_readable_as` in `api/value.rs` says which kind can be read as which type.
pub const JSONB: Kind = Kind(1);
pub const TEXT: Kind = Kind(2);
pub const BYTEA: Kind = Kind(3);

/// The result of a query that is null or has no row (`cache_fetch`).
pub const NOTHING: Kind = Kind(4);
/// The result of a query as jsonb (`cache_fetch`).
pub const RESULT: Kind = Kind(5);
/// The result of a query as rows (`cache_query`).
pub const ROWS: Kind = Kind(6);
/// The rows of a query as one jsonb (`cache_query_json`), or the only value of a query (`cache_call`). No function that reads a key
/// returns it: its privileges are those of the query, not those of the space.
pub const JSON: Kind = Kind(7);
/// A marker instead of a result: the result also varies on settings that the key of this entry leaves out.
pub const VARIES: Kind = Kind(8);
/// A marker instead of a result: the query was invalidated faster than it ran, and its results are not stored for a while. The
/// relation in its note is the one that invalidated it last.
pub const LEFT_OUT: Kind = Kind(9);
/// A value of the kind [`ROWS`] in compressed form.
pub const COMPRESSED_ROWS: Kind = Kind(10);
/// A value of the kind [`JSON`] in compressed form.
pub const COMPRESSED_JSON: Kind = Kind(11);

/// A marker instead of a result: the stored result was wrong (`query/verify.rs`), so results of the query are not stored any more.
pub const DIFFERED: Kind = Kind(12);

/// Returns whether a value of a kind may be copied to a store outside of the server. The result of a query may not: it also depends
/// on definitions, whose changes the journal of changes (`journal.rs`) does not name.
pub fn may_leave(kind: Kind) -> bool {
    [JSONB, TEXT, BYTEA, Kind::COUNTER].contains(&kind)
}

/// Returns whether the key of the entry is the hash of a query (`query/asked.rs`).
pub fn has_query_key(kind: Kind) -> bool {
    is_of_query(kind) && kind != NOTHING && kind != RESULT
}

/// Returns whether a query made the entry: a result, or a marker instead of one. The note of such an entry has facts (`note.rs`).
pub fn is_of_query(kind: Kind) -> bool {
    (NOTHING.0..=DIFFERED.0).contains(&kind.0)
}

/// Returns the kind of the compressed form of a value. None if values of the kind are not compressed.
pub fn compressed(kind: Kind) -> Option<Kind> {
    match kind {
        JSON => Some(COMPRESSED_JSON),
        ROWS => Some(COMPRESSED_ROWS),
        _ => None,
    }
}

/// Returns whether the entry is a marker: it has no value, but tells a query what to do.
pub fn is_marker(kind: Kind) -> bool {
    kind == VARIES || kind == LEFT_OUT || kind == DIFFERED
}

/// Returns the kind that a compressed value has after decompression. None if the kind is not a compressed one.
pub fn decompressed(kind: Kind) -> Option<Kind> {
    match kind {
        COMPRESSED_JSON => Some(JSON),
        COMPRESSED_ROWS => Some(ROWS),
        _ => None,
    }
}
