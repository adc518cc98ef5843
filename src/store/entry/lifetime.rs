//! When a value expires, and how a value gets another time to live (`cache_touch`). The time to live of a value is limited by the
//! options of its *space*, the named cache that its key is in. A *tick* is 50 ms on the clock of `pg/clock.rs`.

use super::access::keyspace_to_change;
use super::reading::look;
use super::removing::{remove_previous, remove_while_disabled};
use crate::pg::shared;
use crate::store::keyspace::{Keyspace, hash};
use crate::store::kind;
use crate::store::space::Space;
use crate::store::status::{self, Status};
use crate::store::table::reading::bring_back_or_forget;
use crate::store::transaction::{OwnKey, pending};
use pg_cache_core::{Miss, Stamp};

/// The status for a value that is removed or not stored because its time to live is not positive.
pub const NO_LIFE: Status = Status::Refused("ttl is not positive");

/// Returns the tick (`pg/clock.rs`) at which a value expires that is set now. The time to live, in milliseconds, comes from the
/// caller, the space, or the session's settings, in this order; `max_ttl` of the space limits it. The jitter of the space can
/// shorten it by a random amount but never makes it longer.
pub fn expires(space: &Space, ttl_ms: Option<u64>) -> u32 {
    let ttl = space.options.ttl_ms(ttl_ms);
    let spread = match space.options.jitter {
        0.0 => 0,
        jitter => (f64::from(jitter) * shared::chance() * ttl as f64) as u64,
    };
    shared::tick_in(ttl - spread.min(ttl))
}

/// Gives a value another time to live, or removes it if `ttl_ms` is 0. Other sessions see this when the transaction commits.
/// Returns whether there is a value for this session with the new time to live.
pub fn touch(space: &Space, key: &[u8], ttl_ms: u64) -> bool {
    let keyspace = keyspace_to_change(space, key).inspect_err(|_| {
        if ttl_ms == 0 {
            remove_while_disabled(space, key);
        }
    });
    let touched = keyspace.and_then(|keyspace| {
        if ttl_ms == 0 {
            remove_previous(&keyspace, key);
            return Err(NO_LIFE);
        }
        let (found, _) = look(&keyspace, key, &mut None::<&mut ()>)?;
        if kind::has_query_key(found.kind) {
            // Its query decides how long it may live: a result that has read the clock must not live longer.
            return Err(Status::Refused("the key holds a result of cache_query"));
        }
        bring_back(&keyspace, key);
        Ok(pending::touch(OwnKey::new(keyspace, key)?, expires(space, Some(ttl_ms)))?)
    });
    status::set(touched.err().unwrap_or(Status::Done));
    touched.is_ok()
}

/// Brings a value that is only in a table back into memory: a touch changes entries of the memory only.
fn bring_back(keyspace: &Keyspace, key: &[u8]) {
    if let Some(name) = keyspace.key(key, hash(key))
        && let Err(Miss::Saved(location)) = keyspace.tier.peek(&name, Stamp::LATEST)
    {
        bring_back_or_forget(keyspace, &name, location);
    }
}
