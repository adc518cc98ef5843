//! SQL functions that show and check what is in the cache.

use super::arguments::{self, invalid, null};
use crate::pg::error::{OrRaise, Refused};
use crate::pg::shared;
use crate::pg::varlena::{Text, TextArgument, Varlena};
use crate::store::cause;
use crate::store::entry;
use crate::store::flights;
use crate::store::health::{self, Finding};
use crate::store::space::{self, Privilege};
use pgrx::prelude::*;

/// Returns the keys of a space that have a value and match a pattern, in the order of their bytes: the first of those that follow
/// the key `after`, at most `max_keys`, and at most 64 MB with an overhead for each key. So a result with fewer than `max_keys`
/// keys need not be the last. A null `after` begins with the first key.
///
/// Looks at the header of every entry in memory and at every saved value of the database, so it is meant for inspection, not for
/// frequent calls.
#[pg_extern(volatile, parallel_restricted)]
fn cache_keys(
    pattern: default!(Option<TextArgument<'_>>, "'*'"),
    space: default!(Option<TextArgument<'_>>, "'default'"),
    max_keys: default!(Option<i32>, "1000"),
    after: default!(Option<TextArgument<'_>>, "NULL"),
) -> SetOfIterator<'static, Text> {
    let read = || -> Result<_, Refused> {
        let glob = arguments::pattern(pattern)?;
        let most = max_keys.ok_or_else(|| null("max_keys"))?;
        let most = usize::try_from(most).map_err(|_| invalid("max_keys must not be negative"))?;
        let space = arguments::space(space, Privilege::Read)?;
        Ok(entry::keys(&space, |key| glob.matches(key), after.map(|after| after.0), most))
    };
    let keys = read().or_raise();
    SetOfIterator::new(keys.into_iter().map(|key| Text(Varlena::of(&key))))
}

/// Returns what the last operation of this session did, and why. Returns null if there was none, if it failed, or after a rollback.
#[pg_extern(volatile, parallel_restricted)]
fn cache_status() -> Option<String> {
    cause::status_in_words()
}

/// Returns what keeps the cache from working as it is configured, each with the command that repairs it or tells more. Returns no
/// rows if there is nothing.
#[pg_extern(volatile, parallel_restricted)]
#[allow(clippy::type_complexity)]
fn cache_health() -> TableIterator<
    'static,
    (
        name!(severity, &'static str),
        name!(finding, &'static str),
        name!(detail, String),
        name!(command, String),
    ),
> {
    space::require_monitor("look at the health of the cache").or_raise();
    TableIterator::new(health::findings().into_iter().map(|found| {
        let Finding { severity, finding, detail, command } = found;
        (severity, finding, detail, command)
    }))
}

/// Checks every structure of the cache and returns what is wrong with it. If the cache is in order, it returns nothing, even while
/// other sessions change the cache. There is one exception: fences, which commits raise while they invalidate values
/// (`docs/architecture.md`), are reported if they stay raised during the whole check. They may be those of a commit that takes
/// longer than the check, or of a transaction that a subscription has prepared and not ended.
///
/// While other sessions change the cache a lot, the check may miss a fault that it would find in a quiet server.
#[pg_extern(volatile, parallel_restricted)]
fn cache_check() -> SetOfIterator<'static, String> {
    space::require_monitor("check the cache").or_raise();
    let findings = shared::tier().map_or(Ok(Vec::new()), |tier| tier.try_check());
    let mut findings = findings.or_raise();
    // `orphans` first lists the leases and then asks which sessions live, and a session may release its leases and end in
    // between. A finding of the second call was still there after its session had ended, so only findings of both calls are
    // reported.
    let orphans = flights::orphans();
    if !orphans.is_empty() {
        let again = flights::orphans();
        findings.extend(orphans.into_iter().filter(|orphan| again.contains(orphan)));
    }
    SetOfIterator::new(findings)
}
