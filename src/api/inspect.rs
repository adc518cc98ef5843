//! Looking inside.

use crate::pg::shared;
use pgrx::prelude::*;

/// Verifies every structure of the cache, and returns what is wrong with it: nothing, in a cache that is in order.
///
/// In the middle of many changes it may take one that is going on for a fault.
#[pg_extern(volatile, parallel_restricted)]
fn cache_check() -> SetOfIterator<'static, String> {
    SetOfIterator::new(shared::tier().map(|tier| tier.check()).unwrap_or_default())
}
