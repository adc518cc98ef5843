//! How fresh a stored result must be for a call, how long a new one lives, and when a call renews a result that it could still use.
//!
//! *Early renewal*: if every call used a result until it expires, all calls would then wait for the next run. So shortly before the
//! result expires, a random lot decides whether a call runs the query again while the other calls use the old result. The longer
//! the query takes and the less time is left, the more likely a lot wins (XFetch, Vattani et al. 2015). With lots alone, many runs
//! would still be under way when the result expires. So every lot wins when the time that is left is only enough for two runs.
//!
//! All calls within half the duration of the query draw the same lot, so the chance of a renewal does not depend on the number of
//! calls. The lot also depends on the stamp of the result, so results with different stamps are not renewed together. A *stamp* is
//! the moment before a result was computed, a number on the clock of changes (`docs/architecture.md`).
//!
//! A *tick* is 50 ms on the clock of `pg/clock.rs`.

use super::flight;
use crate::pg::{queue, shared};
use crate::store::entry::Accepts;
use crate::store::space::{Space, TtlPolicy};
use foldhash::quality::FixedState;
use pg_cache_core::{Cost, Meta, Stamp};
use std::hash::BuildHasher;

/// The conditions under which a call accepts or renews a stored result.
#[derive(Clone, Copy, Debug, Default)]
pub struct Look {
    /// The moment at which the call began to wait for another session (`flight.rs`): the call also accepts an invalid result with
    /// this stamp or a later one. None if the call has not waited.
    pub arrived: Option<Stamp>,
    /// The number of milliseconds for which the call accepts a result after rows that the result depends on have changed.
    pub stale_ok_ms: Option<u64>,
    /// Whether the call may renew a result that it could still use. It does so only if the session may renew results and the lot
    /// wins.
    pub may_renew: bool,
    /// The stamp of the result that the call renews. If the look finds a result with another stamp, another session has stored it
    /// meanwhile, and the call uses it.
    pub old: Option<Stamp>,
    /// Whether the call has looked before. Only the first look is counted as a read.
    pub repeats: bool,
}

/// While more time is left than this many times the cost of the result, the call draws no lot. The chance would be less than one in
/// 20 000.
const FIRST_RENEWAL_COSTS: u64 = 10;
/// Every lot wins when at most this many times the cost of the result is left, but never in the first half of the time for which
/// the result may be used. The time of one run would be enough. That of the second is a reserve: this run may take longer
/// than the last one, and some time may pass until the next call.
const LAST_RENEWAL_COSTS: u64 = 2;

impl Look {
    pub fn accepts(&self) -> Accepts {
        Accepts {
            arrived: self.arrived,
            outdated_since: self.stale_ok_ms.and_then(shared::tick_before),
            repeats: self.repeats,
        }
    }

    /// Returns whether the call should renew this result.
    #[inline]
    pub fn renews(&self, meta: &Meta) -> bool {
        if !self.may_renew || meta.cost == Cost::NONE {
            return self.old == Some(meta.stamp);
        }
        let (begins, ends) = self.life(meta);
        let (left_ms, cost_ms) = (shared::ms_until(ends), meta.cost.micros() / 1000);
        left_ms < cost_ms * FIRST_RENEWAL_COSTS && flight::may_renew() && {
            let half_ms = shared::ms_of(ends.saturating_sub(begins)) / 2;
            let turn = queue::now_ms() / (cost_ms / 2).max(1);
            left_ms <= half_ms.min(cost_ms * LAST_RENEWAL_COSTS)
                || -lot(meta.stamp.as_u64(), turn).ln() * cost_ms as f64 >= left_ms as f64
        }
    }

    /// Returns the ticks at which the time for which this call may use the result begins and ends.
    fn life(&self, meta: &Meta) -> (u32, u32) {
        let outdated = self.stale_ok_ms.filter(|_| meta.valid_at != u32::MAX);
        let until = outdated.map(|ms| meta.valid_at.saturating_add(shared::ticks(ms)));
        match until.filter(|until| *until < meta.expires) {
            Some(until) => (meta.valid_at, until),
            None => (meta.created, meta.expires),
        }
    }
}

/// Returns the lot for a result and a turn: a number above 0 and at most 1, evenly distributed. `result` is the stamp of the
/// result.
fn lot(result: u64, turn: u64) -> f64 {
    let hash = FixedState::with_seed(result).hash_one(turn);
    ((hash >> 11) + 1) as f64 / (1_u64 << 53) as f64
}

/// The time to live of a result in spaces with `ttl_policy => 'cost'`, as pairs of a cost in seconds and a time to live in minutes.
/// The first pair whose cost is less than that of the result counts. If there is none, the result lives for one minute.
const BY_COST: [(u64, u64); 3] = [(10, 30), (5, 10), (1, 5)];

/// The limits of the time to live in spaces with `ttl_policy => 'adaptive'`, in milliseconds: a second and a day.
const ADAPTED_MS_MIN: u64 = 1_000;
const ADAPTED_MS_MAX: u64 = 24 * 60 * 60 * 1000;

/// Returns the time to live of a result in milliseconds, by the policy of the space. None means the default of the space: with the
/// policy `fixed`, and with `adaptive` if no previous result is stored. `previous` returns the metadata of the previous result, and
/// whether it has the same value.
pub fn lifetime_ms(
    space: &Space,
    cost: Cost,
    previous: impl FnOnce() -> Option<(Meta, bool)>,
) -> Option<u64> {
    match space.options.ttl_policy {
        TtlPolicy::Fixed => None,
        TtlPolicy::Cost => {
            let longer = |(seconds, _): &&(u64, u64)| cost.micros() > seconds * 1_000_000;
            Some(BY_COST.iter().find(longer).map_or(1, |(_, minutes)| *minutes) * 60_000)
        }
        TtlPolicy::Adaptive => previous().map(|(meta, is_same)| adapted_ms(&meta, is_same)),
    }
}

/// Returns the time to live of a result in milliseconds, from the time to live of the previous result. If the query runs in the
/// last quarter of that time or later and returns the same value, the time was too short and is doubled. If it then returns another
/// value, the value has changed without invalidating the result: the time was too long and is halved. If the query runs before the
/// last quarter, the time stays the same.
fn adapted_ms(previous: &Meta, is_same: bool) -> u64 {
    let lived_ms = shared::ms_of(previous.expires.saturating_sub(previous.created));
    let has_ended = shared::ms_until(previous.expires) <= lived_ms / 4;
    let next_ms = match (has_ended, is_same) {
        (true, true) => lived_ms * 2,
        (true, false) => lived_ms / 2,
        (false, _) => lived_ms,
    };
    next_ms.clamp(ADAPTED_MS_MIN, ADAPTED_MS_MAX)
}
