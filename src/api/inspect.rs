//! SQL functions that show and check what is in the cache: `cache_keys`, `cache_status` (the outcome of the session's last call),
//! `cache_health` (what an operator should repair), and `cache_check` (whether all structures in shared memory are sound). A
//! *fence* is the word in shared memory that says when a dependency of values last changed.

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

/// Returns the keys of a space that have a value and match a pattern, sorted by their bytes: the first `max_keys` of the keys that
/// come after the key `after`. If `after` is null, begins with the first key of the space. Stops earlier when the keys, with an
/// overhead for each, take 64 MB. So a result with fewer than `max_keys` keys may not contain the last key.
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

/// Returns the outcome of the last operation of this session, and the reason for it. Returns null if there was no operation, if it
/// failed, or after a rollback.
#[pg_extern(volatile, parallel_restricted)]
fn cache_status() -> Option<String> {
    cause::status_in_words()
}

/// Returns the reasons why the cache does not work as it is configured. Each row has a command that repairs the cause or shows
/// more. Returns no rows if everything works.
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

/// Checks every structure of the cache, and returns a message for each fault. The call returns no rows if the cache is in order,
/// even while other sessions change it, with one exception. Commits raise fences while they invalidate values
/// (`docs/architecture.md`), and the call reports a fence that stays raised during the whole check. This may be the fence of a
/// commit that takes longer than the check, or of a transaction that a subscription has prepared and not ended.
///
/// While other sessions change the cache a lot, the check may miss a fault that it would find on an idle server.
#[pg_extern(volatile, parallel_restricted)]
fn cache_check() -> SetOfIterator<'static, String> {
    space::require_monitor("check the cache").or_raise();
    let findings = shared::tier().map_or(Ok(Vec::new()), |tier| tier.try_check());
    let mut findings = findings.or_raise();
    // `orphans` first lists the leases, fills and claims (rights of sessions to compute or set a value, `store/flights.rs`), and
    // then checks which of their sessions live. A session may release its lease and end in between. A message that the second call
    // returns again was true after that session had ended, so only such messages are reported.
    let orphans = flights::orphans();
    if !orphans.is_empty() {
        let again = flights::orphans();
        findings.extend(orphans.into_iter().filter(|orphan| again.contains(orphan)));
    }
    SetOfIterator::new(findings)
}
