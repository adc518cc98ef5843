//! Looking inside.

use super::arguments::{self, invalid, null};
use crate::pg::error::Refused;
use crate::pg::memory::OutOfMemory;
use crate::pg::shared;
use crate::pg::varlena::{Text, TextArgument, Varlena};
use crate::store::entry;
use crate::store::lease;
use crate::store::space::{self, Privilege};
use crate::store::status;
use pg_cache_core::Glob;
use pgrx::prelude::*;

/// The keys in a space that have a value and are like a pattern, in order, and at most so many.
///
/// Looks at every entry of the cache: for people, not for callers in a hurry.
#[pg_extern(volatile, parallel_restricted)]
fn cache_keys(
    pattern: default!(Option<TextArgument<'_>>, "'*'"),
    space: default!(Option<TextArgument<'_>>, "'default'"),
    max_keys: default!(Option<i32>, "1000"),
) -> SetOfIterator<'static, Text> {
    let read = || {
        let pattern = pattern.ok_or_else(|| null("pattern"))?.0;
        let glob = Glob::new(pattern).ok_or_else(|| {
            let code = PgSqlErrorCode::ERRCODE_INVALID_ESCAPE_SEQUENCE;
            Refused::new(code, "pattern must not end with an escape character")
                .hint("Use two backslashes to mean one.")
        })?;
        let most = max_keys.ok_or_else(|| null("max_keys"))?;
        let most = usize::try_from(most).map_err(|_| invalid("max_keys must not be negative"))?;
        let space = arguments::space(space, Privilege::Read)?;
        Ok(entry::keys(&space, |key| glob.matches(key), most))
    };
    let keys = read().unwrap_or_else(|refused| Refused::raise(refused));
    SetOfIterator::new(keys.into_iter().map(|key| Text(Varlena::of(&key))))
}

/// What the last operation of this session did, and why; null if there was none.
#[pg_extern(volatile, parallel_restricted)]
fn cache_status() -> Option<String> {
    status::last()
}

/// Verifies every structure of the cache, and returns what is wrong with it: nothing, in a cache that is in order, whatever other
/// sessions do meanwhile. It takes a commit that takes longer than the check for a fence that nobody lowers.
///
/// While other sessions change much it may miss a fault that it would find in a quiet server.
#[pg_extern(volatile, parallel_restricted)]
fn cache_check() -> SetOfIterator<'static, String> {
    space::require_monitor("check the cache").unwrap_or_else(|refused| Refused::raise(refused));
    let findings = shared::tier().map_or(Ok(Vec::new()), |tier| tier.try_check());
    let mut findings = findings.unwrap_or_else(|short| OutOfMemory::from(short).raise());
    // A session may end its leases and itself between the two questions. What is found again was there after its session had ended.
    let orphans = lease::orphans();
    if !orphans.is_empty() {
        let again = lease::orphans();
        findings.extend(orphans.into_iter().filter(|orphan| again.contains(orphan)));
    }
    SetOfIterator::new(findings)
}
