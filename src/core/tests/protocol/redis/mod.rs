//! The worker that copies values to Redis (`src/workers/redis/`).
//!
//! There are two keys and one tag. Each change is made by a session of its own. It becomes *visible*: the cache has the new
//! value, or no valid value any more. Later it gets its record in the journal. Records may come in another order than the changes
//! became visible. The record of a set, of a removal and of an invalidated tag names the key or the tag. The record of a flush
//! and of a large transaction names only the space. The journal has room for a few records. A worker that is too slow finds that
//! the journal has *lapped* it: records that it has not read are gone.
//!
//! The worker reads the journal, looks at the present values of the keys, and sends jobs. The thread of the client executes one
//! job after the other, and each job is a few commands. A batch has one key. In a removal, the thread sends a command when the
//! one before is answered. A few jobs are under way. `acked` is the number up to which Redis has confirmed all changes. A *scan*
//! returns the keys that Redis has, one key in each step, and the worker compares each with the cache. A *refill* looks at each
//! key in the cache.
//!
//! The set of the tag has a *proof*, the member that only the addition which creates the set adds. `is_known` says that the
//! worker has written the set. There is one set: the model does not have the sets of earlier stretches of time, nor the ends of
//! sets and values. After a set was lost, the worker owes a comparison of all keys, which begins at any time.
//!
//! Accidents happen at any time, a few in each scenario. The connection is lost: the present job fails, its answer is lost, and
//! Redis may execute the rest of its commands later (*zombies*). Redis gets its data from the beginning back, with a new
//! identity, and loses what it has confirmed since. The connection may survive that, because a server can be demoted and
//! promoted again. Redis evicts the set. Redis is full, and refuses a command. A connection attempt that fails changes nothing,
//! so it is no step.
//!
//! The main property says: when everything is quiet, each key in Redis has its present valid value, or is absent. Quiet means that
//! each visible change has its record, the worker has read all records, no job is under way, no scan is wanted or runs, and the
//! worker is connected to this Redis. A key may be absent although it has a value, for example if it was set while its tag was
//! invalidated. Other properties say that each scenario gets to its end, and that new values can be in Redis then.
//!
//! `state.rs` has the steps and the state, `worker.rs` and `server.rs` the effect of the steps, `properties.rs` the properties,
//! and `scenarios.rs` the scenarios and variants.

mod properties;
mod scenarios;
mod server;
mod state;
mod worker;

use crate::{Verdict, check, long};
use properties::EQUAL;
use scenarios::{Redis, Variant};

/// The protocol as built must keep all properties in each scenario. Each other variant must break the property that is named,
/// or be harmless.
#[test]
fn redis() {
    use Variant::*;
    use Verdict::*;
    type Scenario = (&'static str, fn(Variant) -> Redis);
    const SCENARIOS: [Scenario; 16] = [
        ("orders", Redis::orders),
        ("tag", Redis::tag),
        ("lost connection", Redis::lost_connection),
        ("zombies", Redis::zombies),
        ("lapped", Redis::lapped),
        ("failover", Redis::failover),
        ("evicted", Redis::evicted),
        ("evicted and lost", Redis::evicted_and_lost),
        ("full", Redis::full),
        ("space", Redis::space),
        ("space and lost", Redis::space_and_lost),
        ("start", Redis::start),
        ("refill and full", Redis::refill_and_full),
        ("cluster", Redis::cluster),
        ("full and new", Redis::full_and_new),
        ("full and evicted", Redis::full_and_evicted),
    ];
    let run = |name: &str, variant, verdict| {
        let (_, make) = SCENARIOS.into_iter().find(|(known, _)| *known == name).expect("a scenario");
        check(&format!("redis, {name}: {variant:?}"), make(variant), verdict);
    };
    for (name, _) in SCENARIOS {
        run(name, AsBuilt, Right);
    }
    if long() {
        check("redis, all: AsBuilt", Redis::all(AsBuilt), Right);
        check("redis, four changes: AsBuilt", Redis::four_changes(AsBuilt), Right);
    }
    let controls = [
        ("orders", CopiesRecord),
        ("zombies", AcksWhenSent),
        ("lapped", IgnoresLap),
        ("start", FollowsAfterScan),
        ("failover", KeepsIdentity),
        ("zombies", KeepsZombies),
        ("start", ForgetsFailedCompare),
        ("lost connection", ForgetsFailedRemoval),
        ("lost connection", AddsInLaterJob),
        ("refill and full", OnlyRefillsAgain),
        ("cluster", OnlyRefillsAgain),
        ("evicted", IgnoresLostSet),
        ("evicted", ClearsWithoutScan),
        ("evicted", NeedsNoProof),
        ("evicted", IgnoresLateEviction),
        ("space", MergesScans),
        ("space", LargeOnlyRefills),
        ("full", LeavesRefused),
        ("full and new", ForgetsRefusedSet),
    ];
    for (name, variant) in controls {
        run(name, variant, Breaks(EQUAL));
    }
    // A failed job is repeated or followed by a scan. So a batch may add the key to the set after it has set the value. In a
    // cluster, that order is possible, because the set and the value are on different servers.
    run("cluster", AddsAfterValue, Harmless);
    run("refill and full", AddsAfterValue, Harmless);
}
