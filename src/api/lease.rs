//! SQL functions for leases: `cache_acquire` for each type of value, and `cache_release`. The holder of a *lease* computes the
//! value of a key, and the other callers wait or get a stale value meanwhile.

use super::arguments::{self, null};
use super::value::{Stored, key_in};
use crate::pg::error::{OrRaise, Refused};
use crate::pg::shared;
use crate::pg::varlena::{Bytea, Jsonb, Text, TextArgument, Varlena};
use crate::store::lease::{self, AcquireOptions, Answer};
use crate::store::space::Privilege;
use pg_cache_core::Meta;
use pgrx::prelude::*;

/// A row of the result: value, status, lease, age and time to live. Without a value, the age and the time to live are null. The
/// time to live of a stale value is the time for which it may still be served. The lease is null, except with the status `compute`
/// when `hold` is not null.
type Row<T> = (Option<T>, &'static str, Option<i64>, Option<Interval>, Option<Interval>);

/// Defines an SQL function that returns the stored value of one type, or tells the caller whether to compute the value. `returns`
/// names the type, which must be a [`Stored`].
macro_rules! acquire_function {
    ($(#[$doc:meta])* $function:ident returns $returned:ident) => {
        $(#[$doc])*
        #[pg_extern(volatile, parallel_restricted)]
        #[allow(clippy::type_complexity)]
        fn $function(
            key: Option<TextArgument<'_>>,
            space: default!(Option<TextArgument<'_>>, "'default'"),
            wait: default!(Option<Interval>, "'0'"),
            hold: default!(Option<Interval>, "'30 s'"),
        ) -> TableIterator<
            'static,
            (
                name!(value, Option<$returned>),
                name!(status, &'static str),
                name!(lease, Option<i64>),
                name!(age, Option<Interval>),
                name!(ttl, Option<Interval>),
            ),
        > {
            let row = acquire(key, space, wait, hold).or_raise();
            TableIterator::once(row)
        }
    };
}

acquire_function! {
    /// Returns the jsonb that is stored under a key, or tells the caller whether to compute it. If several callers ask at once, one
    /// of them gets a lease and computes the value. A caller that cannot get a lease, for instance because all are in use, gets
    /// lease 0: it computes the value, and `cache_set` never stores a value with lease 0.
    cache_acquire returns Jsonb
}

acquire_function! {
    /// Does the same as `cache_acquire` for a text.
    cache_acquire_text returns Text
}

acquire_function! {
    /// Does the same as `cache_acquire` for a bytea.
    cache_acquire_bytes returns Bytea
}

/// Checks the arguments and returns the row.
fn acquire<T: Stored>(
    key: Option<TextArgument<'_>>,
    space: Option<TextArgument<'_>>,
    wait: Option<Interval>,
    hold: Option<Interval>,
) -> Result<Row<T>, Refused> {
    let key = arguments::key(key)?;
    let wait_ms = arguments::wait(wait)?;
    let hold_ms = hold.map(arguments::hold).transpose()?;
    // A call with a null `hold` only reads and acquires no lease, so the privilege read is enough.
    let needed = if hold_ms.is_some() { Privilege::Write } else { Privilege::Read };
    let space = arguments::space(space, needed)?;
    let mut value = Varlena::default();
    let answer = lease::acquire(&space, key, AcquireOptions { wait_ms, hold_ms }, &mut value);
    let row_of = |meta: Meta, status, until: u32| {
        let value = T::of_found_at(key, meta.kind, value)?;
        let (age, ttl) = (shared::ms_since(meta.created), shared::ms_until(until));
        Ok((Some(value), status, None, Some(interval(age)), Some(interval(ttl))))
    };
    match answer {
        Ok(Answer::Hit(meta)) => row_of(meta, "hit", meta.expires),
        Ok(Answer::Stale(meta, until)) => row_of(meta, "stale", until),
        Ok(Answer::Compute(lease)) => {
            // `UNAVAILABLE` tells a caller that asked for a lease that none could be given: `cache_set` refuses a value with it.
            let lease = lease.or(hold_ms.map(|_| lease::UNAVAILABLE));
            Ok((None, "compute", lease, None, None))
        }
        Ok(Answer::Wait) => Ok((None, "wait", None, None, None)),
        Err(timeout) => Err(timeout.into()),
    }
}

fn interval(ms: u64) -> Interval {
    Interval::from_micros(ms as i64 * 1000)
}

/// Releases a lease without storing a value, so that the next caller can get a lease for the key. Returns whether the key had this
/// lease.
#[pg_extern(volatile, parallel_restricted)]
fn cache_release(
    key: Option<TextArgument<'_>>,
    lease: Option<i64>,
    space: default!(Option<TextArgument<'_>>, "'default'"),
) -> bool {
    let (key, space) = key_in(key, space, Privilege::Write);
    let lease = lease.ok_or_else(|| null("lease")).or_raise();
    lease::release(&space, key, lease)
}
